"""`pullback gradient`: right, within its memory, clear about each fault; on real files, processes and clusters."""

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, NamedTuple

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster
from typer.testing import CliRunner

import pullback.dask
from pullback._cli import app
from pullback._cli.gradient import atomic, files

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


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, at 80 columns, on no terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(pullback.__file__).parents[1]))
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def arguments(*more: str, z: str = "z.npy", upstream: str = "da.npy") -> list[str]:
    return ["gradient", "--z", z, "--upstream", upstream, "--weights", "w.npy", "--output", "out.zarr", *more]


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


# For what `ones` writes.
FILL = "--fill-missing"


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


def fault(result: Outcome, status: int, *words: str) -> None:
    """Check that a run failed with one line, and these words in it."""
    assert result.status == status
    *_, line = result.stderr.splitlines()
    assert line.startswith("pullback gradient: ")
    for word in words:
        assert word in line
    assert "Traceback" not in result.stderr
    assert sum("pullback gradient: " in x and "and count as" not in x for x in result.stderr.splitlines()) == 1


@pytest.mark.parametrize("shape", [(7,), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("options", [(), ("--block-rows", "300", "--workers", "2")], ids=["chosen", "given"])
def test_result(shape: tuple[int, ...], options: tuple[str, ...]) -> None:
    save(shape=shape)
    result = gradient(*options)
    assert result.stdout.startswith("out.zarr now holds dz, dw, db: 1,000 rows in ")
    assert result.stdout.endswith(" rows/s\n")
    assert (result.status, result.stderr) == (0, "")
    check("dz", "dw", "db")


@pytest.mark.parametrize("order", ["fortran", "big-endian", "wide header"])
def test_npy(order: str) -> None:
    save(shape=(2, 5))
    z = np.load("z.npy")
    if order == "fortran":
        np.save("z.npy", np.asfortranarray(z))
    elif order == "big-endian":
        np.save("z.npy", z.astype(">f4"))
    else:
        with Path("z.npy").open("wb") as file:
            np.lib.format.write_array(file, z, version=(2, 0))
    assert gradient("--block-rows", "300").status == 0
    check("dz", "dw", "db")


@pytest.mark.parametrize("dtype", ["f8", "f2"])
def test_dtype(dtype: str) -> None:
    save(dtype=dtype)
    assert gradient().status == 0
    check("dz", "dw", "db", bound=1e-14 if dtype == "f8" else 1e-3)


@pytest.mark.parametrize(
    "options",
    [{"chunks": (100, 4)}, {"chunks": (10, 7), "shards": (100, 7)}, {"chunks": (100, 7), "zarr_format": 2}],
    ids=["features", "shards", "version 2"],
)
def test_zarr(options: dict[str, Any]) -> None:
    save()
    to_zarr("z", **options)
    result = gradient(z="z.zarr")
    assert (result.status, result.stderr) == (0, "")
    check("dz", "dw", "db")


@pytest.mark.parametrize("wrt", ["z", "b", "w, b"])
def test_wrt(wrt: str) -> None:
    save()
    assert gradient("--wrt", wrt).status == 0
    check(*(f"d{name.strip()}" for name in wrt.split(",")))


def test_zero_rows() -> None:
    save(m=0)
    assert gradient().status == 0
    check("dz", "dw", "db")


def test_nan_and_infinity_are_numbers() -> None:
    save()
    z = np.load("z.npy")
    z[3, 1], z[500, 2] = np.nan, np.inf
    np.save("z.npy", z)
    np.save("da.npy", np.zeros((1_000, 3), "f4"))
    result = gradient()
    assert (result.status, result.stderr) == (0, "")
    dw: Any = zarr.open_array("out.zarr/dw", mode="r")
    np.testing.assert_equal(dw[...], [[0] * 3, [np.nan] * 3, [np.nan] * 3, *[[0] * 3] * 4])


def test_output_says_how_it_was_made() -> None:
    save()
    to_zarr("da", chunks=(100, 3))
    result = finish(start("--block-rows", "500", upstream="da.zarr"))
    assert result.status == 0
    group = zarr.open_group("out.zarr", mode="r")
    dz: Any = group["dz"]
    assert dz.chunks == (500, 7)
    attributes = dict(group.attrs)
    assert attributes["command"] == "pullback " + " ".join(arguments("--block-rows", "500", upstream="da.zarr"))
    modules = {"pullback": pullback, "numpy": np, "dask": dask, "zarr": zarr}
    assert attributes["versions"] == {name: module.__version__ for name, module in modules.items()}
    assert attributes["inputs"] == {
        "z": {"path": str(Path.cwd() / "z.npy"), "shape": [1_000, 7], "dtype": "float32"},
        "upstream": {"path": str(Path.cwd() / "da.zarr"), "shape": [1_000, 3], "dtype": "float32"},
        "weights": {"path": str(Path.cwd() / "w.npy"), "shape": [7, 3], "dtype": "float32"},
    }


def test_file_is_gone() -> None:
    save()
    rows = files.open_file(Path("z.npy"))[slice(3, 5), slice(None)]
    Path("z.npy").unlink()
    with pytest.raises(OSError, match=r"z\.npy: rows \[3:5\] cannot be read: .*No such file"):
        np.asarray(rows)


@pytest.mark.parametrize("options", [(), ("--block-rows", "600"), ("--block-rows", "30000")], ids=" ".join)
def test_each_part_is_read_once(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    save(m=30_000, shape=(120,))
    to_zarr("z", chunks=(200, 60))
    read: Counter[object] = Counter()
    get, read_rows = zarr.storage.LocalStore.get, files.NpyFile.read

    def count_chunk(store: Any, key: str, *others: Any, **options: Any) -> Any:
        read["/c/" in f"/{key}" and "out.zarr" not in str(store.root) and key] += 1
        return get(store, key, *others, **options)

    def count_rows(array: Any, file: Any, *where: Any) -> Any:
        first, start, stop, _ = where
        read.update((array.path.name, first + row) for row in range(start, stop))
        return read_rows(array, file, *where)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", count_chunk)
    monkeypatch.setattr(files.NpyFile, "read", count_rows)
    assert gradient(*options, z="z.zarr").status == 0
    del read[False]
    assert len(read) == 2 * 150 + 30_000 + 120
    assert set(read.values()) == {1}
    check("dz", "dw", "db")


@pytest.mark.parametrize(
    "options", [{}, {"shards": (200, 7)}, {"zarr_format": 2}], ids=["chunks", "shards", "version 2"]
)
def test_rejects_a_store_with_lost_chunks(options: dict[str, Any]) -> None:
    save()
    to_zarr("z", chunks=(100, 7), **options)
    lost = Path("z.zarr", "3.0" if "zarr_format" in options else "c/3/0")
    lost.unlink()
    kind, count, row = ("shards", 5, 600) if "shards" in options else ("chunks", 10, 300)
    line = f"1 of {count} {kind} of {Path.cwd()}/z.zarr are not stored"
    result = gradient(z="z.zarr")
    fault(result, 2, line, f"the first of them {lost.absolute()}, ", "; copy the store again, or give --fill-missing")
    assert left() == {"z.zarr"}
    result = gradient(FILL, z="z.zarr")
    assert (result.status, result.stderr) == (0, f"pullback gradient: {line} and count as 0.0\n")
    z = np.load("z.npy")
    z[row : row + 1_000 // count] = 0
    np.save("z.npy", z)
    check("dz", "dw", "db")


@pytest.mark.parametrize("options", [(), (FILL,)], ids=["", "fill"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.mkdir, "c/4/0 must be a regular file; it is a folder; copy the store again"),
        (os.mkfifo, "c/4/0 must be a regular file; it is a pipe; copy the store again"),
        (lambda path: path.symlink_to(path.name), "c/4/0 cannot be read: Too many levels of symbolic links"),
    ],
    ids=["folder", "pipe", "link"],
)
def test_rejects_a_chunk_that_is_no_file(spoil: Callable[[Path], None], words: str, options: tuple[str, ...]) -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    chunk = Path("z.zarr/c/4/0")
    chunk.unlink()
    spoil(chunk)
    fault(gradient(*options, z="z.zarr"), 2, words)


def overwrite(path: Path) -> None:
    """Write a byte that was there before."""
    with path.open("r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(byte)


def exchange(path: Path) -> None:
    """Replace a file by another with the same contents."""
    new = path.with_name("new")
    shutil.copy2(path, new)
    new.replace(path)


@pytest.mark.parametrize("change", [overwrite, exchange])
@pytest.mark.parametrize("when", ["before it is read", "after it is read"])
@pytest.mark.parametrize(
    ("name", "part"), [("z.npy", ""), ("da.zarr", "c/4/0"), ("da.zarr", "zarr.json"), ("w.npy", "")]
)
def test_input_changes_during_the_run(
    name: str, part: str, when: str, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(m=3_000)
    to_zarr("da", chunks=(100, 3))
    path = Path(name, part)

    def change_it(*results: Any, **options: Any) -> Any:
        if when == "before it is read":
            change(path)
        out = pullback.dask.compute(*results, **options)
        if when == "after it is read":
            change(path)
        return out

    monkeypatch.setattr("pullback._cli.gradient.plan.compute", change_it)
    result = gradient(upstream="da.zarr")
    fault(result, 1, f"{path.absolute()} was replaced or written to while the command ran", "out.zarr was not written")
    assert left() == {"da.zarr"}


def rows(printed: str) -> dict[str, str]:
    """Return the rows of the plan by their names."""
    lines = (line.rsplit("  ", 1) for line in printed.splitlines()[2:])
    return {name.strip(): value.strip() for name, value in lines}


def test_plan() -> None:
    save(m=3_000, shape=(2, 5))
    result = gradient("--plan", "--block-rows", "1000", "--workers", "2", "--wrt", "w,b")
    assert (result.status, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    table = rows(result.stdout)
    assert table.pop("memory").endswith(" MiB of 1.00 GiB")
    assert table == {
        # Small blocks go several to a task.
        "blocks": "1",
        "rows a block": "3,000",
        "tasks": "1",
        "read": "187.56 kiB",
        "written": "72 B",
        "operations": f"{2 * 6_000 * 5 * 3 + 6_000 * 3:,}",
    }
    assert left() == set()


def test_memory_decides_the_blocks() -> None:
    ones("z.zarr", (1_000_000, 128), (1_000, 128))
    ones("da.zarr", (1_000_000, 64), (1_500, 64))
    np.save("w.npy", np.ones((128, 64), "f4"))
    files = {"z": "z.zarr", "upstream": "da.zarr"}
    plans = {
        size: rows(gradient(FILL, "--plan", "--workers", "2", "--memory", size, **files).stdout)
        for size in ("1GiB", "180_000_000", "110MB")
    }
    sizes = [int(table["rows a block"].replace(",", "")) for table in plans.values()]
    # 32 MiB are 43,690 rows, and 3,000 the least that split no chunk of either.
    assert sizes[0] == 42_000
    assert sizes == sorted(set(sizes), reverse=True)
    assert all(size % 3_000 == 0 for size in sizes)
    needed = float(plans["180_000_000"]["memory"].split()[0]) * 2**20
    assert 0.9 * 180e6 < needed <= 180e6


@pytest.mark.parametrize("options", [(), ("--block-rows", "60000")], ids=["chosen", "given"])
def test_memory_is_too_small(options: tuple[str, ...]) -> None:
    save(m=60_000, shape=(64,), n=8)
    more = ["--workers", "2", *options]
    result = gradient(*more, "--memory", "1MB")
    fault(
        result, 2, "with 2 at a time" if not options else "60,000 rows", "--memory allows 0.95 MiB", "is the smallest"
    )
    assert ("fewer --workers (now 2)" in result.stderr) == (not options)
    assert ("a smaller --block-rows" in result.stderr) == bool(options)
    smallest = int(result.stderr.split("--memory ")[2].split("MiB")[0])
    assert gradient(*more, "--memory", f"{smallest - 1}MiB").status == 2
    assert left() == set()
    assert gradient(*more, "--memory", f"{smallest}MiB").status == 0
    check("dz", "dw", "db")


def test_memory_stays_within_its_limit() -> None:
    # 1.8 GB that take no room, and a limit of 120 MB.
    ones("z.zarr", (6_000_000, 64), (10_000, 64))
    ones("da.zarr", (6_000_000, 8), (10_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    more = [FILL, "--workers", "2", "--memory", "120MB", "--wrt", "w,b"]
    files = {"z": "z.zarr", "upstream": "da.zarr"}
    before, after = (finish(start(*more, *plan, **files)) for plan in (["--plan"], []))
    assert (before.status, after.status) == (0, 0)
    took = [int(result.stdout.split()[-1]) * 1024 for result in (before, after)]
    assert took[1] - took[0] < 120e6
    db: Any = zarr.open_array("out.zarr/db", mode="r")
    assert db[...].tolist() == [6_000_000] * 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--wrt", "a"], ["wrt must be a tuple of names out of ('z', 'w', 'b'); got ('a',)", "z is /"]),
        (["--workers", "2", "--scheduler", "tcp://here"], ["--workers are threads here, and --scheduler is a cluster"]),
        (["--scheduler", "nowhere"], ["missing port number in address 'nowhere'"]),
        (["--output", "none/out.zarr"], ["none/out.zarr cannot be made in /", "there is no such folder"]),
    ],
    ids=lambda x: x[0] if x[0].startswith("-") else "",
)
def test_options_are_wrong(options: list[str], words: list[str]) -> None:
    save()
    fault(gradient(*options), 2, *words)
    assert left() == set()


def garbage() -> None:
    Path("z.npy").write_bytes(b"not an array, whatever its name is")


def pickled() -> None:
    np.save("z.npy", np.asarray([{}], dtype=object), allow_pickle=True)


def cut_off() -> None:
    os.truncate("z.npy", 20_000)


def a_folder() -> None:
    Path("z.npy").unlink()
    Path("z.npy").mkdir()


def a_group() -> None:
    a_folder()
    group = zarr.create_group("z.npy")
    group.create_array("mine", shape=(4, 7), dtype="f4")
    group.create_group("deeper").create_group("still").create_array("yours", shape=(4, 7), dtype="f4")


def a_pipe() -> None:
    Path("z.npy").unlink()
    os.mkfifo("z.npy")


def a_loop() -> None:
    Path("z.npy").unlink()
    Path("z.npy").symlink_to("z.npy")


def header(text: str, version: tuple[int, int] = (1, 0)) -> Callable[[], None]:
    """Return what writes a file with this header, and data that fit one of shape (100, 7) in float32."""

    def write() -> None:
        length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
        Path("z.npy").write_bytes(b"\x93NUMPY" + bytes(version) + length + text.encode() + bytes(2_800))

    return write


def described(shape: str, dtype: str = "<f4") -> str:
    """Return the text of a header."""
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path("z.npy").unlink, ["z.npy does not exist"]),
        (garbage, ["z.npy is neither an .npy file nor the folder of a Zarr array: the magic string is not correct"]),
        (pickled, ["z.npy holds pickled Python objects", "save an array of numbers"]),
        (cut_off, ["z.npy is cut off: its header promises 28,128 bytes, and there are 20,000"]),
        (a_folder, ["z.npy is a folder, but not that of a Zarr array"]),
        (a_group, ["z.npy is a group of Zarr arrays; give the folder of one of them: deeper/still/yours, mine"]),
        (a_pipe, ["z.npy must be an .npy file or the folder of a Zarr array; it is a pipe; save the array to a file"]),
        (a_loop, ["z.npy cannot be read: Too many levels of symbolic links"]),
        (header(described("(100, 7")), ["z.npy has a damaged header: ", "; save it again with numpy.save"]),
        (header(described("(-100, 7)")), ["z.npy has a damaged header: its shape is (-100, 7); save it again"]),
        (
            header(described("(100, 7)"), (4, 0)),
            ["z.npy has version 4.0 of the .npy format; the versions 1.0, 2.0, 3.0"],
        ),
        (header("{'descr': '<f4'"), ["npy has a damaged header: ", ""]),
        (header(described("(np.int64(100), 7)", "|O")), ["has a damaged header: "]),
        (partial(np.save, "z.npy", np.ones(7)), ["z.npy must hold rows", "got shape (7,)"]),
        (partial(np.save, "z.npy", np.ones((1_000, 6))), ["the last axis of z must equal the first", "(1000, 6)"]),
        (partial(np.save, "z.npy", np.ones((999, 7))), ["the same rows", "array 1 has 999 rows", "(999, 7)"]),
        (partial(np.save, "da.npy", np.ones((1_000, 4))), ["da must have the shape of the output", "(1000, 4)"]),
        (partial(np.save, "w.npy", np.ones((7, 3, 1))), ["w must be a matrix", "(7, 3, 1)"]),
    ],
    ids=lambda x: " ".join(x)[:30].replace("/", "") if isinstance(x, list) else "",
)
def test_inputs_are_wrong(spoil: Callable[[], object], words: list[str]) -> None:
    save()
    spoil()
    fault(gradient(), 2, *words)
    assert left() == set()


def follow(advice: str) -> None:
    """Run the Python command that an error ends with."""
    words = shlex.split(advice[advice.index("python -c") :])
    subprocess.run([sys.executable, *words[1:]], check=True)  # noqa: S603 - what the line says


@pytest.mark.parametrize(("kind", "dtype"), [("npy", "int64"), ("npy", "longdouble"), ("zarr", "int64")])
def test_rejects_other_numbers_and_names_the_cast(kind: str, dtype: str) -> None:
    save()
    np.save("z.npy", np.arange(7_000).reshape(1_000, 7).astype(dtype))
    name, target = np.load("z.npy").dtype, "float32" if dtype == "int64" else "float64"
    if kind == "zarr":
        to_zarr("z", chunks=(100, 7))
    result = gradient("--plan", z=f"z.{kind}")
    fault(result, 2, f"z.{kind} must hold floating numbers, float16, ", f"; got {name}; cast them first: python -c ")
    follow(result.stderr)
    cast: Any = zarr.open_array(f"z-{target}.zarr", mode="r")
    assert cast.dtype == target
    assert np.array_equal(cast[...], np.load("z.npy"))
    assert gradient(z=f"z-{target}.zarr").status == 0


@pytest.mark.parametrize("dtype", ["U5", str, "M8[s]", "f4,i4"], ids=["fixed", "string", "date", "record"])
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_rejects_what_is_no_number(dtype: Any) -> None:
    save()
    zarr.create_array("z.zarr", shape=(1_000, 7), dtype=dtype)
    fault(gradient("--plan", z="z.zarr"), 2, "z.zarr must hold floating numbers, float16", "; save an array of one of")


def test_header_with_numpy_scalars_is_repaired() -> None:
    save()
    z = np.load("z.npy")
    for order in "CF":
        with Path("z.npy").open("wb") as file:
            text = described("(np.int64(1000), np.uint8(7))").replace("False", str(order == "F"))
            file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + z.tobytes(order))
        result = gradient()
        fault(
            result,
            2,
            "z.npy has np.int64(1000) in its header, which is not a part of the .npy format; write it again: ",
        )
        follow(result.stderr)
        assert np.array_equal(np.load("z-fixed.npy"), z)


@pytest.mark.parametrize("size", ["", "GiB", "-1", "1e400", "much", "0", "nan", "1 parsec"])
def test_rejects_a_memory_that_is_no_size(size: str) -> None:
    save()
    fault(gradient("--memory", size), 2, f"--memory must be a size such as 512MiB or 2GB; got {size!r}")


def test_options_may_exceed_the_batch() -> None:
    save()
    assert gradient("--block-rows", "9" * 23, "--workers", "9" * 23).status == 0
    check("dz", "dw", "db")


@pytest.mark.parametrize("option", ["--z", "--upstream", "--weights", "--output"])
def test_rejects_a_url(option: str) -> None:
    save()
    fault(gradient(option, "s3://bucket/z.zarr"), 2, "s3:/bucket/z.zarr is a URL, and only paths of this machine")


def test_file_may_not_be_read() -> None:
    save()
    Path("z.npy").chmod(0)
    fault(finish(start(limit=POWERLESS)), 2, "z.npy cannot be read: Permission denied")


def test_block_rows_split_chunks() -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    to_zarr("da", chunks=(150, 3))
    files = {"z": "z.zarr", "upstream": "da.zarr"}
    fault(gradient("--block-rows", "500", **files), 2, "a multiple of 300", "got 500: give 300 or 600")
    fault(gradient("--block-rows", "200", **files), 2, "got 200: give 300")
    assert gradient("--block-rows", "600", **files).status == 0
    check("dz", "dw", "db")


@pytest.mark.parametrize("damage", [b"", b"no chunk"], ids=["empty", "garbage"])
def test_chunk_is_corrupt(damage: bytes) -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    Path("z.zarr/c/4/0").write_bytes(damage)
    result = gradient(z="z.zarr")
    fault(result, 1, "z.zarr: rows [0:1000] cannot be read: ", "out.zarr was not written: put that right")
    assert left() == {"z.zarr"}


def test_file_becomes_shorter() -> None:
    save()
    file = files.open_file(Path("z.npy")).unchecked()
    os.truncate("z.npy", 20_000)
    assert np.asarray(file[slice(0, 700), slice(None)]).shape == (700, 7)
    with pytest.raises(OSError, match=r"z\.npy: rows \[700:800\] cannot be read: the file ends before them"):
        np.asarray(file[slice(700, 800), slice(None)])


def test_output_exists() -> None:
    save()
    assert gradient().status == 0
    before = Path("out.zarr/zarr.json").read_text()
    fault(gradient(), 2, "out.zarr exists already; name another --output", "with --overwrite")
    assert Path("out.zarr/zarr.json").read_text() == before
    save(n=5)
    assert gradient("--overwrite").status == 0
    check("dz", "dw", "db")
    assert left() == {"out.zarr"}


def test_overwrite_replaces_nothing_else() -> None:
    save()
    output = Path("out.zarr")
    for make in (output.mkdir, output.touch, partial(zarr.create_group, output), partial(output.symlink_to, "w.npy")):
        make()
        fault(gradient("--overwrite"), 2, "out.zarr was not written by pullback gradient", "name another --output")
        assert output.exists()
        shutil.rmtree(output) if output.is_dir() else output.unlink()
    assert gradient().status == 0
    (output / "dz").rename("z.zarr")
    (output / "dz").symlink_to(Path.cwd() / "z.zarr")
    result = gradient("--overwrite", upstream="out.zarr/dw")
    fault(result, 2, "out.zarr/dw is a part of /", "which would be replaced")


def test_overwrite_keeps_the_old_output_when_the_run_fails() -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    assert gradient().status == 0
    Path("z.zarr/c/4/0").write_bytes(b"no chunk")
    fault(gradient("--overwrite", z="z.zarr"), 1, "cannot be read", "out.zarr is as it was: put that right")
    check("dz", "dw", "db")
    assert left() == {"z.zarr", "out.zarr"}


def test_overwrite_keeps_what_took_the_place_of_the_old_output() -> None:
    save()
    assert gradient().status == 0
    output = Path("out.zarr")

    def run() -> None:
        with atomic.output(output, overwrite=True):
            shutil.rmtree(output)
            output.write_text("precious")

    with pytest.raises(FileExistsError, match="was not written by"):
        run()
    assert output.read_text() == "precious"
    assert left() == {"out.zarr"}


def test_overwrite_is_interrupted_at_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    save()
    assert gradient().status == 0
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.suffix == ".new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    assert gradient("--overwrite").status == 130
    check("dz", "dw", "db")
    assert left() == {"out.zarr"}


def test_overwrite_is_interrupted_while_the_old_output_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    save()
    assert gradient().status == 0
    save(n=5)
    remove, calls = shutil.rmtree, []

    def interrupted(path: Path, **options: Any) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    assert gradient("--overwrite").status == 0
    check("dz", "dw", "db")
    assert left() == {"out.zarr"}


def test_disk_is_full() -> None:
    save(m=10_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses what grows past 20 kB, as it refuses all on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        result = gradient()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    fault(
        result, 1, "File too large", "out.zarr was not written: make room for up to 273.", f" in {Path.cwd()}, and run"
    )
    assert left() == set()


def test_output_may_not_be_written(here: Path) -> None:
    save()
    here.chmod(0o500)
    try:
        result = finish(start(limit=POWERLESS))
    finally:
        here.chmod(0o700)
    fault(result, 2, f"out.zarr cannot be made in {here}: nothing may be written there")
    assert left() == set()


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_interrupted(overwrite: bool, here: Path) -> None:  # noqa: FBT001 - a parameter of the test
    if overwrite:
        save()
        assert gradient().status == 0
    # Work for a while that takes no room.
    ones("z.zarr", (20_000_000, 64), (10_000, 64))
    ones("da.zarr", (20_000_000, 8), (10_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    process = start(FILL, "--block-rows", "100000", *["--overwrite"] * overwrite, z="z.zarr", upstream="da.zarr")
    while not list(here.glob(".*out.zarr.*.partial/dz/c/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    fate = "is as it was" if overwrite else "was not written"
    fault(result, 130, f"interrupted. out.zarr {fate}: run the command again")
    assert left() == {"z.zarr", "da.zarr"} | ({"out.zarr"} if overwrite else set())
    if overwrite:
        made = json.loads(Path("out.zarr/zarr.json").read_text())["attributes"]["inputs"]["z"]
        assert made["shape"] == [1_000, 7]


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    save()
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = gradient()
    assert result.status == 0
    assert "100%" in result.stderr
    assert gradient("--no-progress", "--overwrite").stderr == ""


@pytest.mark.parametrize(
    ("name", "extra", "options"),
    [("dask", "dask", []), ("zarr", "dask", []), ("distributed", "cluster", ["--scheduler", "tcp://127.0.0.1:1"])],
)
def test_extra_is_missing(name: str, extra: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save()

    def find_spec(module: str, *_: object) -> None:
        if module == name:
            msg = f"No module named {name!r}"
            raise ModuleNotFoundError(msg, name=name)

    for module in list(sys.modules):
        if module.partition(".")[0] == name or module in {
            "pullback._cli.gradient.plan",
            "pullback._cli.gradient.files",
        }:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(pullback, "_gradient", raising=False)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    line = f'pullback gradient: {name} is not installed; get it with: pip install "pullback[cli,{extra}]"\n'
    assert gradient(*options) == (2, "", line)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers in processes of their own, with 300 MB each; a task that kills one is not tried again."""
    options: Any = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "300MB", "dashboard_address": ":0"}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), LocalCluster(**options) as cluster:
        yield cluster


def test_cluster(cluster: LocalCluster) -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    result = gradient("--scheduler", cluster.scheduler_address, z="z.zarr")
    assert (result.status, result.stderr) == (0, "")
    check("dz", "dw", "db")


def test_cluster_and_a_corrupt_chunk(cluster: LocalCluster) -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    Path("z.zarr/c/4/0").write_bytes(b"no chunk")
    result = gradient("--scheduler", cluster.scheduler_address, z="z.zarr")
    fault(result, 1, "z.zarr: rows [0:1000] cannot be read: ", "out.zarr was not written")
    assert left() == {"z.zarr"}


def test_cluster_and_a_block_too_large_for_it(cluster: LocalCluster) -> None:
    ones("z.zarr", (1_000_000, 64), (100_000, 64))
    ones("da.zarr", (1_000_000, 8), (100_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    more = [FILL, "--block-rows", "1000000", "--memory", "10GB", "--scheduler", cluster.scheduler_address]
    result = gradient(*more, z="z.zarr", upstream="da.zarr")
    fault(result, 1, "a block of 1,000,000 rows takes", "set the rows of a block with --block-rows")
    result = gradient(*more[:4], "1GB", *more[5:], z="z.zarr", upstream="da.zarr")
    assert left() == {"z.zarr", "da.zarr"} | ({"out.zarr"} if result.status == 0 else set())


def test_cluster_is_interrupted(cluster: LocalCluster, here: Path) -> None:
    ones("z.zarr", (20_000_000, 64), (10_000, 64))
    ones("da.zarr", (20_000_000, 8), (10_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    more = [FILL, "--block-rows", "20000", "--scheduler", cluster.scheduler_address]
    process = start(*more, z="z.zarr", upstream="da.zarr")
    while not list(here.glob(".*out.zarr.*.partial/dz/c/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    fault(finish(process), 130, "interrupted. out.zarr was not written: run the command again")
    assert left() == {"z.zarr", "da.zarr"}


def fall() -> None:
    """Let this worker die of the first file that it reads, as it does when it runs out of memory."""
    from pullback._cli.gradient import files  # noqa: PLC0415 - in the worker

    files.NpyFile.read = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]


def test_worker_is_killed(cluster: LocalCluster) -> None:
    save()
    with Client(cluster, set_as_default=False) as client:
        client.run(fall)
        result = gradient("--scheduler", cluster.scheduler_address)
        fault(result, 1, "KilledWorker: ", "out.zarr was not written: give a smaller --memory")
    assert left() == set()


@pytest.mark.parametrize("on", ["threads", "cluster"])
def test_nothing_is_at_work_any_more_when_a_run_has_failed(on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ones("z.zarr", (100_000, 64), (50_000, 64))
    ones("da.zarr", (100_000, 8), (50_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    failed, wrote = Event(), Event()
    read, write = zarr.Array.__getitem__, zarr.Array.__setitem__

    def fail_first(array: Any, key: slice) -> Any:
        if key.start == 0:
            failed.set()
            msg = "the disk is broken"
            raise RuntimeError(msg)
        return read(array, key)

    def write_late(array: Any, *others: Any) -> None:
        assert failed.wait(10)
        time.sleep(0.5)
        write(array, *others)
        wrote.set()

    monkeypatch.setattr(zarr.Array, "__getitem__", fail_first)
    monkeypatch.setattr(zarr.Array, "__setitem__", write_late)
    more = [FILL, "--block-rows", "50000"]
    if on == "threads":
        result = gradient(*more, "--workers", "2", z="z.zarr", upstream="da.zarr")
    else:
        with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster:
            result = gradient(*more, "--scheduler", cluster.scheduler_address, z="z.zarr", upstream="da.zarr")
    fault(result, 1, "rows [0:50000] cannot be read: the disk is broken", "out.zarr was not written")
    assert wrote.is_set()
    assert left() == {"z.zarr", "da.zarr"}


def test_cluster_without_workers() -> None:
    save()
    with LocalCluster(n_workers=0, dashboard_address=":0", processes=False) as cluster:
        fault(gradient("--scheduler", cluster.scheduler_address), 2, "has no workers")


def test_cluster_that_is_not_there() -> None:
    save()
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        fault(gradient("--scheduler", "tcp://127.0.0.1:1"), 2, "Timed out trying to connect to tcp://127.0.0.1:1")
