"""Runs `pullback gradient` and `pullback fit`, writes what it reads and checks what it writes."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from typer.testing import CliRunner

from pullback._cli import app

# Prints the memory that it took at most; the figure for children that Python offers counts their parents'.
MAIN = """
import atexit, re
from pathlib import Path
from pullback._cli.app import main
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], flush=True))
main()
"""


# Drops CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, so that permissions hold for root as well.
POWERLESS = "import ctypes; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0); ctypes.CDLL(None).prctl(24, 2, 0, 0, 0)"


# What a shell starts in the background ignores interrupts, and so would these tests' command when they run there.
EXECUTE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str


# For what `ones` writes.
FILL = "--fill-missing"


def arguments(*more: str, command: str = "gradient", **files: str) -> list[str]:
    """Return the arguments of the command; an empty path leaves a file out."""
    given = {"z": "z.npy", "upstream": "da.npy", "weights": "w.npy", "output": "out.zarr", **files}
    options = [x for name, path in given.items() if path for x in (f"--{name.replace('_', '-')}", path)]
    return [command, *options, *more]


def gradient(*more: str, **files: str) -> Outcome:
    """Run the command in this process."""
    result = CliRunner().invoke(app.application(), arguments(*more, **files), prog_name="pullback")
    return Outcome(result.exit_code, result.stdout, result.stderr)


def start(*more: str, limit: str = "", **files: str) -> subprocess.Popen[str]:
    """Run the command in a process of its own, under what limit it sets itself first."""
    return subprocess.Popen(  # noqa: S603 - this command
        [sys.executable, "-c", limit + EXECUTE, "-c", MAIN, *arguments(*more, **files)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    stdout, stderr = process.communicate(timeout=60)
    return Outcome(process.returncode, stdout, stderr)


def save(m: int = 1_000, shape: tuple[int, ...] = (7,), n: int = 3, dtype: str = "f4") -> None:
    """Write a batch to `z.npy` and `da.npy`, and weights to `w.npy`."""
    rng = np.random.default_rng(0)
    *middle, k = shape
    for name, size in {"z": (m, *shape), "da": (m, *middle, n), "w": (k, n)}.items():
        np.save(f"{name}.npy", rng.random(size).astype(dtype))


def to_zarr(name: str, **options: Any) -> None:
    """Write what is in a .npy file to a Zarr array beside it."""
    zarr.create_array(f"{name}.zarr", data=np.load(f"{name}.npy"), **options)


def ones(name: str, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    """Write a Zarr array of ones that takes no room: none of its chunks is stored."""
    zarr.create_array(name, shape=shape, chunks=chunks, dtype="f4", fill_value=1)


def check(*names: str, bound: float = 3e-7) -> None:
    """Compare the output with NumPy's in float64."""
    da, z, w = (np.load(f"{name}.npy").astype("f8") for name in ("da", "z", "w"))
    flat = da.reshape(-1, da.shape[-1])
    expected = {"dz": da @ w.T, "dw": z.reshape(-1, z.shape[-1]).T @ flat, "db": flat.sum(0)}
    group = zarr.open_group("out.zarr", mode="r")
    assert sorted(group.array_keys()) == sorted(names)
    for name in names:
        got: Any = group[name]
        assert got.shape == expected[name].shape
        assert got.dtype == np.load("z.npy").dtype.newbyteorder("=")
        assert np.abs(got[...] - expected[name]).max(initial=0) <= bound * np.abs(expected[name]).max(initial=0)


def left() -> set[str]:
    """Return what lies beside the inputs, and is hidden from nobody here."""
    return {path.name for path in Path().iterdir() if path.suffix != ".npy"}


def fault(result: Outcome, status: int, *words: str, command: str = "gradient") -> None:
    """Check that a run failed with one line, and these words in it."""
    prefix = f"pullback {command}: "
    assert result.status == status
    *_, line = result.stderr.splitlines()
    assert line.startswith(prefix)
    for word in words:
        assert word in line
    assert "Traceback" not in result.stderr
    assert sum(prefix in x and "and count as" not in x for x in result.stderr.splitlines()) == 1


def rows(printed: str) -> dict[str, str]:
    """Return the rows of the plan by their names."""
    lines = (line.rsplit("  ", 1) for line in printed.splitlines()[2:])
    return {name.strip(): value.strip() for name, value in lines}


def follow(advice: str) -> None:
    """Run the Python command that an error ends with."""
    words = shlex.split(advice[advice.index("python -c") :])
    subprocess.run([sys.executable, *words[1:]], check=True)  # noqa: S603 - what the line says
