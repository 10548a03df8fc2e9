"""The memory of `pullback gradient`, on real data of any size."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zarr

from benchmarks.report import Row, Section
from benchmarks.scale.files import Floats, fill, new_zarr
from pullback import affine_forward, softmax_cross_entropy

GIGABYTES = 1, 4, 16
QUICK_GIGABYTES = 1, 2, 3
LIMIT = 512 * 2**20
SPREAD = 0.1
ERROR = 3e-7
RUNS = 3
READ_ONCE = 1.02


def section(*, quick: bool) -> Section:
    """Return the table."""
    gigabytes = QUICK_GIGABYTES if quick else GIGABYTES
    return Section(
        name="command",
        title=f"`pullback gradient` (dz, dw, db), scikit-learn's digits tiled in Zarr, --memory {LIMIT // 2**20}MiB: "
        "peak resident memory without the interpreter's own, bytes read / bytes of the input, error against float64",
        columns=("input, GB", "seconds", "peak, MiB", "peak / smallest", "read", "error", "bound"),
        rows=_rows(gigabytes),
        length=len(gigabytes),
    )


def _rows(gigabytes: Sequence[float]) -> Iterator[Row]:
    """Run the command on scikit-learn's digits, over and over, each time in a process of its own."""
    z, upstream, w = _digits()
    row_bytes = 4 * (z.shape[1] + upstream.shape[1])
    smallest = 0.0
    for size in gigabytes:
        rows = int(size * 1e9) // row_bytes
        with tempfile.TemporaryDirectory(prefix="pullback-") as name:
            folder = Path(name)
            chunk = 8 * 2**20 // row_bytes
            for part, some in (("z", z), ("da", upstream)):
                fill(new_zarr(folder / part, (rows, some.shape[1]), chunk), some)
            np.save(folder / "w.npy", w)
            files = ["--z", "z", "--upstream", "da", "--weights", "w.npy", "--output", "out"]
            call = ["gradient", *files, "--memory", str(LIMIT), "--no-progress"]
            idle, _, read_idle = _command([*call, "--plan"], folder)
            # Two runs differ by a tenth, for threads do not take turns.
            runs = [_command([*call, "--overwrite"], folder) for _ in range(RUNS)]
            peak, seconds, read = (statistics.median(run) for run in zip(*runs, strict=True))
            group = zarr.open_group(folder / "out", mode="r")
            error = max(
                float(np.max(np.abs(group[key][...] - true)) / np.max(np.abs(true)))
                for key, true in _tiled_sums(z, upstream, rows).items()
            )
        peak -= idle
        smallest = smallest or peak
        part = (read - read_idle) / (rows * row_bytes)
        holds = peak <= LIMIT and abs(peak / smallest - 1) <= SPREAD and part <= READ_ONCE and error <= ERROR
        bound = f"≤ {LIMIT // 2**20}; ± {SPREAD:.0%}; ≤ {READ_ONCE}; ≤ {ERROR}"
        numbers = f"{seconds:.1f}", f"{peak / 2**20:.0f}", f"{peak / smallest:.2f}", f"{part:.3f}", f"{error:.1e}"
        yield Row((f"{size:g}", *numbers, bound), holds=holds)


def _digits() -> tuple[Floats, Floats, Floats]:
    """Return the images, the upstream gradient of a classifier with random weights, and its weights."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - nothing else here needs it

    digits = load_digits()
    z = (digits.data / 16).astype(np.float32)
    w = np.random.default_rng(0).standard_normal((z.shape[1], 10)).astype(np.float32)
    return z, softmax_cross_entropy(affine_forward(z, w), digits.target, reduction="sum").da, w


def _tiled_sums(z: Floats, upstream: Floats, rows: int) -> dict[str, Floats]:
    """Return dw and db in float64, for so many rows that repeat these."""
    times, more = divmod(rows, len(z))
    x, y = z.astype(np.float64), upstream.astype(np.float64)
    return {
        "dw": times * (x.T @ y) + x[:more].T @ y[:more],
        "db": times * y.sum(axis=0) + y[:more].sum(axis=0),
    }


def _command(arguments: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """Run the command; return its peak resident memory in bytes, its seconds, and the bytes it read from files."""
    # The process reports on itself. ru_maxrss would not do: a new process inherits it from the one that started it.
    code = (
        "import json, pathlib, sys\n"
        "from benchmarks.resident import high_water\n"
        "from pullback._cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "read = [x for x in pathlib.Path('/proc/self/io').read_text().splitlines() if x.startswith('rchar')]\n"
        "print(json.dumps([high_water(), int(read[0].split()[1])]), file=sys.stderr)\n"
    )
    start = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    peak, read = json.loads(done.stderr.splitlines()[-1])
    return peak, time.perf_counter() - start, read
