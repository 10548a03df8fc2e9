"""How far the memory that `pullback gradient` plans is from what it takes."""

import math
import tempfile
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, GzipCodec

from benchmarks import resident
from benchmarks.peers import apart
from benchmarks.report import Row, Section
from pullback._cli.gradient.plan import Job, Options, plan
from pullback._cli.gradient.run import compute_gradients
from pullback._cli.gradient.team import team
from pullback._cli.signals import Signals

ERROR = 0.25
CODECS: dict[str, dict[str, Any]] = {
    "none": {"compressors": None},
    "zstd": {},
    "blosc": {"compressors": BloscCodec(cname="lz4")},
    "gzip": {"compressors": GzipCodec(level=1)},
    "delta + zstd, v2": {"zarr_format": 2, "compressors": numcodecs.Zstd(), "filters": [numcodecs.Delta("f4")]},
}


class Case(NamedTuple):
    """A batch in files, and the blocks to divide it into."""

    codec: str
    """One of `CODECS`, or npy."""
    dtype: str
    row: tuple[int, ...]
    """The shape of a row of z."""
    n: int
    rows: int
    """The rows of a block, of which there are six for each worker."""
    chunks: int = 1
    """The chunks of a block."""
    workers: int = 1
    wrt: str = "z,w,b"


ROW = (128,)
CASES = (
    *(Case(codec, "f4", ROW, 16, 50_000) for codec in (*CODECS, "npy")),
    *(Case(codec, "f4", ROW, 16, 50_000, wrt="w,b") for codec in ("none", "zstd", "delta + zstd, v2")),
    *(Case("zstd", dtype, ROW, 16, 50_000) for dtype in ("f2", "f8", "c8")),
    *(Case(codec, "f4", ROW, 16, 50_000, chunks=10) for codec in ("none", "zstd")),
    *(Case(codec, "f4", ROW, 16, 50_000, workers=4) for codec in ("zstd", "npy")),
    *(Case(codec, dtype, (1_024,), 1_024, 10_000) for codec in ("zstd", "npy") for dtype in ("f4", "f2")),
    *(Case(codec, "f4", (512, 51_200), 16, 1) for codec in ("zstd", "npy")),
)


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the table; a quick one has every third row."""
    cases = CASES[::3] if quick else CASES
    if not apart(peers):
        yield Section(
            name="plan",
            title="`pullback gradient`: the memory that it plans / what it takes, its libraries apart",
            columns=(
                "files",
                "dtype",
                "z",
                "n",
                "block, MiB",
                "chunks",
                "workers",
                "wrt",
                "takes, MiB",
                "plan",
                "bound",
            ),
            rows=map(_measure, cases),
            length=len(cases),
        )


def _measure(case: Case) -> Row:
    """Plan a run here, and measure it in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="pullback-") as name:
        folder = Path(name)
        _write(folder / "small", case._replace(rows=case.chunks), 2)
        _write(folder / "large", case, 6 * case.workers)
        options = _options(folder / "large", case)
        with team(case.workers, None, note=print) as workers:
            planned = plan(options, workers).memory
        took = resident.peak(_prepare, folder, case)
    ratio = planned / took
    size = case.rows * math.prod(case.row) * np.dtype(case.dtype).itemsize
    cells = case.codec, case.dtype, str(case.row), str(case.n), f"{size / 2**20:.0f}", str(case.chunks)
    numbers = str(case.workers), case.wrt, f"{took / 2**20:.0f}", f"{ratio:.2f}", f"1 ± {ERROR}"
    return Row((*cells, *numbers), holds=abs(ratio - 1) <= ERROR)


def _write(folder: Path, case: Case, blocks: int) -> None:
    """Write random numbers, which compress little."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, row in (("z", case.row), ("da", (*case.row[:-1], case.n))):
        shape = (case.rows * blocks, *row)
        if case.codec == "npy":
            array: Any = np.lib.format.open_memmap(folder / name, "w+", case.dtype, shape)
        else:
            chunks = (case.rows // case.chunks, *row)
            array = zarr.create_array(folder / name, shape=shape, chunks=chunks, dtype=case.dtype, **CODECS[case.codec])
        block = _random(rng, (case.rows, *row), case.dtype)
        for i in range(blocks):
            array[i * case.rows : (i + 1) * case.rows] = block
    np.save(folder / "w.npy", _random(rng, (case.row[-1], case.n), case.dtype))


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    """Draw numbers, complex ones with both parts."""
    parts = rng.standard_normal((*shape[:-1], shape[-1] * (2 if dtype == "c8" else 1)), np.float32)
    return parts.view(dtype) if dtype == "c8" else parts.astype(dtype)


def _options(folder: Path, case: Case) -> Options:
    """Return the options of a run."""
    return Options(
        z=folder / "z",
        upstream=folder / "da",
        weights=folder / "w.npy",
        wrt=case.wrt,
        output=folder / "out",
        memory="1TiB",
        block_rows=None if folder.name == "small" else case.rows,
        workers=case.workers,
        scheduler=None,
        overwrite=False,
        fill_missing=False,
    )


def _prepare(folder: Path, case: Case) -> Any:
    """Return the run, after one on little data has loaded all that it needs."""
    _run(folder / "small", case)
    return partial(_run, folder / "large", case)


def _run(folder: Path, case: Case) -> Job:
    """Run the command."""
    with Signals() as signals, team(case.workers, None, note=print) as workers:
        job = plan(_options(folder, case), workers)
        compute_gradients(job, signals, progress=False)
    return job
