"""Batches larger than memory: `pullback.dask` and `pullback gradient` beside a thread pool and a plain loop."""

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.report import Row, Section
from pullback import affine_backward, affine_forward, softmax_cross_entropy
from pullback._files import open_file
from pullback.dask import accumulate, compute

Floats = NDArray[np.floating[Any]]
Sums = tuple[Floats, Floats]

K, N = 128, 64
ROW_BYTES = 4 * (K + N)
step = partial(affine_backward, wrt=("w", "b"))

# Time beside a thread pool, on so many rows: the bound for each number of blocks.
POOL_ROWS = 4_000_000
POOL_BOUNDS = {80: 1.25, 800: 1.25, 8_000: 1.5}
REPEATS = 7

# The command's memory, for inputs of so many gigabytes.
GIGABYTES = 1, 4, 16
QUICK_GIGABYTES = 1, 2, 3
LIMIT = 512 * 2**20
SPREAD = 0.1
ERROR = 3e-7
RUNS = 3
READ_ONCE = 1.02

# Weights that are large beside a block.
LARGE = 20_000, 2_000
LARGE_ROWS, LARGE_BLOCK = 8_192, 1_024
LARGE_BOUND = 3.0

# A cluster of two workers, whose memory a batch outgrows.
WORKER_BYTES = 600_000_000
MOVED = 0.02

# The graph: tasks for a block, and µs to build and optimise it at so many.
TASKS = 1.3
MICROSECONDS = 100
BUILD_BLOCKS = 10_000


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield the tables; quick ones are of a tenth of the rows."""
    scale = 10 if quick else 1
    yield Section(
        title=f"Affine backward (dw, db), {POOL_ROWS // scale:,} rows × {K} → {N}, float32, from .npy files: time / "
        "time of a hand-written thread pool",
        columns=("blocks", "pool, s", "lower quartile", "median", "upper quartile", "bound"),
        rows=_pool_rows(POOL_ROWS // scale),
        length=len(POOL_BOUNDS),
    )
    yield Section(
        title="Graph of (dw, db), blocks of which nothing is read or computed: for each, tasks, µs to build and "
        "optimise, bytes when pickled, and µs to run on threads and on two worker processes",
        columns=("blocks", "tasks", "build", "bytes", "threads", "cluster", "bound"),
        rows=_graph_rows(quick=quick),
        length=3 if quick else 4,
    )
    yield Section(
        title=f"`pullback gradient` (dz, dw, db), scikit-learn's digits tiled in Zarr, --memory {LIMIT // 2**20}MiB: "
        "peak resident memory without the interpreter's own, bytes read / bytes of the input, error against float64",
        columns=("input, GB", "seconds", "peak, MiB", "peak / smallest", "read", "error", "bound"),
        rows=_memory_rows(QUICK_GIGABYTES if quick else GIGABYTES),
        length=len(GIGABYTES),
    )
    yield Section(
        title=f"Weights of {LARGE[0]:,} × {LARGE[1]:,}: peak memory / that of a sequential loop",
        columns=("", "loop, MiB", "ours, MiB", "ratio", "bound"),
        rows=_large_rows(),
        length=1,
    )
    yield Section(
        title=f"Cluster of two workers of {WORKER_BYTES // 10**6} MB, from Zarr",
        columns=("input, GB", "", "seconds", "moved / input", "workers lost", "bound"),
        rows=_cluster_rows(int(4e9 / scale)),
        length=2,
    )


def _pool_rows(rows: int) -> Iterator[Row]:
    """Compare with a thread pool over the same files."""
    with tempfile.TemporaryDirectory(prefix="pullback-") as folder:
        z, upstream = (_write_npy(Path(folder) / f"{name}.npy", rows, n) for name, n in (("z", K), ("da", N)))
        w = np.ones((K, N), np.float32)
        for blocks, bound in POOL_BOUNDS.items():
            block = rows // blocks
            calls: tuple[Callable[[], Sums], ...] = (
                partial(_pool, z, upstream, block),
                partial(_ours, z, upstream, w, block),
            )
            for ours, theirs in zip(calls[1](), calls[0](), strict=True):
                # The pool's own float32 sums are off by a few parts in 10⁵, with large blocks.
                np.testing.assert_allclose(ours, theirs, rtol=1e-4)
            times = [[_seconds(call) for call in calls] for _ in range(REPEATS)]
            ratios = [ours / theirs for theirs, ours in times]
            low, median, high = statistics.quantiles(ratios, n=4)
            pool = statistics.median(theirs for theirs, _ in times)
            cells = (f"{blocks:,}", f"{pool:.2f}", f"{low:.2f}", f"{median:.2f}", f"{high:.2f}", f"≤ {bound}")
            yield Row(cells, holds=median <= bound)


def _pool(z: Path, upstream: Path, block: int) -> Sums:
    """Add up the gradient as one would by hand: memory maps, a thread for each core, one BLAS thread in each."""
    maps = [np.load(path, mmap_mode="r") for path in (z, upstream)]

    def gradient(start: int) -> Sums:
        x, y = (array[start : start + block] for array in maps)
        return x.T @ y, y.sum(axis=0)

    dw, db = np.zeros((K, N)), np.zeros(N)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(dask.system.CPU_COUNT) as pool:
        for x, y in pool.map(gradient, range(0, len(maps[0]), block)):
            dw += x
            db += y
    return dw, db


def _ours(z: Path, upstream: Path, w: Floats, block: int) -> Sums:
    """Add up the gradient with the library."""
    lazy = [open_file(path).lazy(block) for path in (upstream, z)]
    gradients = accumulate(step, *lazy, shared=(w,))
    dw, db = compute(*gradients[1:])
    return dw, db


def _graph_rows(*, quick: bool) -> Iterator[Row]:
    """Count tasks, bytes and times of graphs whose blocks hold nothing, and draw the line on to ten times as many."""
    counts = (1_000, 10_000) if quick else (1_000, 10_000, 100_000)
    measured = [_graph(blocks) for blocks in counts]
    for blocks, (tasks, build, size, threads, cluster) in zip(counts, measured, strict=True):
        holds = tasks <= TASKS and (build <= MICROSECONDS or blocks != BUILD_BLOCKS)
        bound = f"≤ {TASKS}" + f"; ≤ {MICROSECONDS} µs" * (blocks == BUILD_BLOCKS)
        times = f"{build:.0f}", f"{size:.0f}", f"{threads:.0f}", f"{cluster:.0f}" if cluster else "not run"
        yield Row((f"{blocks:,}", f"{tasks:.3f}", *times, bound), holds=holds)
    *_, (few, fewer), (many, more) = zip(counts, measured, strict=True)
    total = [y + (y - x) * 9 * many / (many - few) for x, y in ((few * fewer[i], many * more[i]) for i in (1, 2, 3))]
    build, size, threads = (x / (10 * many) for x in total)
    cells = (f"{10 * many:,} (extrapolated)", "", f"{build:.0f}", f"{size:.0f}", f"{threads:.0f}", "", "none")
    yield Row(cells, holds=True)


def _graph(blocks: int) -> tuple[float, float, float, float, float]:
    """Return tasks, µs to build and optimise, bytes, µs on threads and on a cluster, all for a block."""
    from distributed import Client, LocalCluster  # noqa: PLC0415 - starts threads of its own

    # Large enough for a task each.
    rows = 5_500
    seen: list[tuple[int, int]] = []

    def look(expression: Any, *_: object, **__: object) -> list[tuple[int, int]]:
        """Stand in for a scheduler, which gets the optimised graph."""
        graph = expression.__dask_graph__()
        times.append(time.perf_counter())
        seen.append((len(graph), len(pickle.dumps(graph))))
        return [(0, 0), (0, 0)]

    def gradients(name: str) -> Sequence[da.Array]:
        """Make a new graph."""
        lazy = [da.from_array(_Nothing((blocks * rows, n)), chunks=(rows, -1), name=f"{name}-{n}") for n in (N, K)]
        return accumulate(_no_gradient, *lazy, shared=(np.ones((K, N), np.float32),))

    times = [time.perf_counter()]
    dask.compute(*gradients(f"built-{blocks}"), scheduler=look)
    ready = gradients(f"threads-{blocks}")
    threads = _seconds(partial(compute, *ready))
    cluster = 0.0
    if blocks <= BUILD_BLOCKS:
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
            Client(local),
        ):
            cluster = _seconds(partial(compute, *gradients(f"cluster-{blocks}")))
    tasks, size = seen[0]
    return (
        tasks / blocks,
        1e6 * (times[1] - times[0]) / blocks,
        size / blocks,
        *(1e6 * x / blocks for x in (threads, cluster)),
    )


@dataclass(frozen=True)
class _Nothing:
    """A source of rows that take no memory and no time."""

    shape: tuple[int, int]
    dtype = np.dtype(np.float32)
    ndim = 2

    def __getitem__(self, key: tuple[slice, slice]) -> Floats:
        # Memory that nobody writes to is not there yet.
        return np.zeros([part.stop - part.start for part in key], self.dtype)


def _no_gradient(_upstream: Floats, _z: Floats, w: Floats) -> Sums:
    """Take no time either."""
    return np.zeros_like(w), np.zeros_like(w[0])


def _memory_rows(gigabytes: Sequence[float]) -> Iterator[Row]:
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
                _fill(_new_zarr(folder / part, (rows, some.shape[1]), chunk), some)
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
        "from benchmarks.scale import _high_water\n"
        "from pullback.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "read = [x for x in pathlib.Path('/proc/self/io').read_text().splitlines() if x.startswith('rchar')]\n"
        "print(json.dumps([_high_water(), int(read[0].split()[1])]), file=sys.stderr)\n"
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


def _large_rows() -> Iterator[Row]:
    """Compare memory where the sums are larger than the blocks."""
    peaks = [_peak(call) for call in (_large_loop, _large_ours)]
    loop, ours = (peak / 2**20 for peak in peaks)
    cells = ("peak without the process's own", f"{loop:.0f}", f"{ours:.0f}", f"{ours / loop:.2f}", f"≤ {LARGE_BOUND}")
    yield Row(cells, holds=ours <= LARGE_BOUND * loop)


def _block(start: int, features: int) -> Floats:
    """Make some rows."""
    return np.random.default_rng(start).random((LARGE_BLOCK, features), dtype=np.float32)


def _large_loop() -> None:
    """Add up in float64, block after block."""
    k, n = LARGE
    dw, db = np.zeros((k, n)), np.zeros(n)
    for start in range(0, LARGE_ROWS, LARGE_BLOCK):
        upstream = _block(start, n)
        dw += _block(start, k).T @ upstream
        db += upstream.sum(axis=0)


def _large_ours() -> None:
    """Add up with the library."""
    k, n = LARGE
    starts = da.arange(0, LARGE_ROWS, LARGE_BLOCK, chunks=1)
    z, upstream = (
        starts.map_blocks(
            lambda block, features: _block(int(block[0]), features),
            features,
            chunks=((LARGE_BLOCK,) * starts.numblocks[0], (features,)),
            new_axis=1,
            meta=np.empty((0, 0), np.float32),
        )
        for features in (k, n)
    )
    compute(*accumulate(step, upstream, z, shared=(np.zeros(LARGE, np.float32),))[1:])


def _peak(call: Callable[[], None]) -> int:
    """Return what a call adds to the resident memory of a new process."""
    context = get_context("spawn")
    parent, child = context.Pipe()
    process = context.Process(target=_report_peak, args=(call, child))
    process.start()
    peak: int = parent.recv()
    process.join()
    return peak


def _report_peak(call: Callable[[], None], pipe: Any) -> None:
    """Send what a call adds to the resident memory of this process."""
    before = _high_water()
    call()
    pipe.send(_high_water() - before)


def _high_water() -> int:
    """Return the most bytes of memory that this process has had, as Linux counts them."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def _cluster_rows(size: int) -> Iterator[Row]:
    """Compare plain expressions and the library on a cluster."""
    from distributed import Client, LocalCluster  # noqa: PLC0415 - starts threads of its own

    with tempfile.TemporaryDirectory(prefix="pullback-") as name:
        folder = Path(name)
        for part, n in (("z", K), ("da", N)):
            _write_zarr(folder / part, size // ROW_BYTES, n)
        calls: dict[str, Callable[[], object]] = {
            "ours": partial(_cluster_ours, folder),
            "plain expressions": partial(_cluster_plain, folder),
        }
        for title, call in calls.items():
            with (
                LocalCluster(
                    n_workers=2, threads_per_worker=1, memory_limit=WORKER_BYTES, dashboard_address=None
                ) as cluster,
                Client(cluster) as client,
            ):
                first = set(client.run(_received))
                seconds = _seconds(call)
                received = client.run(_received)
                lost = len(first - set(received))
                moved = sum(received.values()) / size
            cells = (f"{size / 1e9:g}", title, f"{seconds:.1f}", f"{moved:.4f}", str(lost))
            if title == "ours":
                yield Row((*cells, f"≤ {MOVED}; 0"), holds=moved <= MOVED and lost == 0)
            else:
                yield Row((*cells, "none"), holds=True)


def _received(dask_worker: Any) -> int:
    """Return the bytes that other workers sent to this one."""
    total: int = (
        dask_worker.transfer_incoming_bytes_total
        if hasattr(dask_worker, "transfer_incoming_bytes_total")
        else sum(entry["total"] for entry in dask_worker.transfer_incoming_log)
    )
    return total


def _cluster_ours(folder: Path) -> None:
    """Compute dw and db."""
    z, upstream = (da.from_zarr(folder / name) for name in ("z", "da"))
    compute(*accumulate(step, upstream, z, shared=(np.ones((K, N), np.float32),))[1:])


def _cluster_plain(folder: Path) -> None:
    """Compute dw and db as array code writes them."""
    z, upstream = (da.from_zarr(folder / name) for name in ("z", "da"))
    dask.compute(z.T @ upstream, upstream.sum(axis=0))


def _write_npy(path: Path, rows: int, features: int) -> Path:
    """Write random rows."""
    _fill(np.lib.format.open_memmap(path, "w+", np.float32, (rows, features)), _random(features))
    return path


def _write_zarr(path: Path, rows: int, features: int) -> None:
    """Write random rows."""
    _fill(_new_zarr(path, (rows, features), 8 * 2**20 // ROW_BYTES), _random(features))


def _new_zarr(path: Path, shape: tuple[int, int], chunk: int) -> Any:
    """Make a Zarr array whose bytes on disk are those of its numbers."""
    return zarr.create_array(path, shape=shape, chunks=(chunk, shape[1]), dtype="f4", compressors=None)


def _random(features: int) -> Floats:
    """Draw some rows."""
    return np.random.default_rng(0).random((10_007, features), dtype=np.float32)


def _fill(array: Any, some: Floats) -> None:
    """Fill an array on disk with some rows, over and over."""
    step = len(some) * max(1, 64 * 2**20 // some.nbytes)
    many = np.resize(some, (step, some.shape[1]))
    for start in range(0, array.shape[0], step):
        array[start : start + step] = many[: array.shape[0] - start]


def _seconds(call: Callable[[], object]) -> float:
    """Return the time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
