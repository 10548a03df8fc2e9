"""Time compared with a hand-written thread pool over the same files or arrays, and with plain Dask expressions."""

import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.report import Row, Section
from benchmarks.resident import peak
from benchmarks.scale import losses
from benchmarks.scale.files import Floats, K, N, seconds, write_npy
from pullback import affine_backward, affine_forward, softmax_cross_entropy, value_and_grad
from pullback._cli.gradient.files import open_file
from pullback._core import trees
from pullback.dask import accumulate, compute

Results = tuple[Any, ...]

ROWS = 4_000_000
# The bound for each number of blocks: of pairs, and of losses in array functions; and of a loss that couples all rows.
BOUNDS = {80: 1.25, 800: 1.25, 8_000: 1.5}
LOSS_BOUNDS = {80: 1.2, 800: 1.2}
COUPLED_BOUND = 2.3
REPEATS = 9
# Chunks in memory: their number, rows, k and n; and what is asked for, with its bound.
CHUNKS = (400, 2_000, 64, 32), (20, 100_000, 16, 16), (200, 10_000, 16, 16)
RESULTS = {"dw, db": (("w", "b"), 1.3), "dz, dw, db": (("z", "w", "b"), 1.5)}


class Work(NamedTuple):
    """Sums over the rows of two files, y and z; the parameters are shared."""

    name: str
    title: str
    ours: Callable[..., Any]
    """Of a block of each file and the parameters, with the pair or recorded."""
    plain: Callable[..., Results]
    """The same in plain expressions: of a block of each file, or of lazy arrays."""
    parameters: Any
    bounds: dict[int, float]


def sections(_peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield a table for each work; quick ones are of a tenth of the rows."""
    rows = ROWS // 10 if quick else ROWS
    for work in WORKS:
        yield Section(
            name=work.name,
            title=f"{work.title}, {rows:,} rows × {K} → {N}, float32, from .npy files: time / time of a hand-written "
            "thread pool; and, run once, time of plain Dask expressions / time of the pool",
            columns=("blocks", "pool, s", "lower quartile", "median", "upper quartile", "plain Dask", "bound"),
            rows=_rows(work, rows),
            length=len(work.bounds),
        )

    yield Section(
        name="coupled",
        title=f"A loss that couples all rows, {rows:,} × {K} → {N}, float32, from .npy files: time / time of a sum "
        "over the rows, both with their gradients",
        columns=("blocks", "sum, s", "lower quartile", "median", "upper quartile", "bound"),
        rows=_coupled(rows),
        length=len(LOSS_BOUNDS),
    )
    yield Section(
        name="pool in memory",
        title="Affine backward of chunks in memory, float32: time / time of a hand-written thread pool",
        columns=("chunks", "results", "pool, s", "lower quartile", "median", "upper quartile", "bound"),
        rows=_in_memory(10 if quick else 1),
        length=len(CHUNKS) * len(RESULTS),
    )
    yield Section(
        name="graphs",
        title="What it takes to build a graph, and to compute it, with 2 cores",
        columns=("graph", "what", "measured", "bound"),
        rows=_graphs(10 if quick else 1),
        length=3,
    )


def _coupled(rows: int) -> Iterator[Row]:
    """Compare a loss in two passes with a sum over the rows in one."""
    with tempfile.TemporaryDirectory(prefix="pullback-") as folder:
        files = [write_npy(Path(folder) / f"{name}.npy", rows, n) for name, n in (("y", N), ("z", K))]
        for blocks in LOSS_BOUNDS:
            lazy = [open_file(path).lazy(rows // blocks) for path in files]
            calls = (partial(call, *lazy, losses.weights()) for call in (losses.coupled, losses.separable))
            yield _compared((f"{blocks:,}",), *calls, COUPLED_BOUND)


def _in_memory(fraction: int) -> Iterator[Row]:
    """Compare with a thread pool over arrays in memory, of which Dask knows the chunks."""
    for count, block, k, n in CHUNKS:
        rng = np.random.default_rng(0)
        m = count * block // fraction
        y, z, w = (rng.random(shape, dtype=np.float32) for shape in ((m, n), (m, k), (k, n)))
        lazy = [da.from_array(x, chunks=(block, -1), name=False) for x in (y, z)]
        for results, (wrt, bound) in RESULTS.items():
            rows = ("dz",) if "z" in wrt else ()
            step = partial(affine_backward, wrt=wrt)

            def ours(step: Any = step, lazy: Any = lazy, w: Floats = w, rows: Any = rows) -> Results:
                return compute(*(x for x in accumulate(step, *lazy, shared=(w,), rows=rows) if x is not None))

            pool = partial(_pool_in_memory, y, z, w, block, rows=bool(rows))
            for x, right in zip(ours(), pool(), strict=True):
                np.testing.assert_allclose(x, right, rtol=0, atol=1e-4 * np.max(np.abs(right)))
            yield _compared((f"{count // fraction:,} of {block:,} × ({k} + {n})", results), ours, pool, bound)


def _compared(labels: tuple[str, ...], ours: Callable[[], object], pool: Callable[[], object], bound: float) -> Row:
    """Return a row with the quartiles of our time over the pool's, run in turns."""
    times = [(seconds(ours), seconds(pool)) for _ in range(REPEATS)]
    low, median, high = statistics.quantiles((ours_took / pool_took for ours_took, pool_took in times), n=4)
    usual = statistics.median(pool_took for _, pool_took in times)
    return Row((*labels, *(f"{x:.2f}" for x in (usual, low, median, high)), f"≤ {bound}"), holds=median <= bound)


def _pool_in_memory(y: Floats, z: Floats, w: Floats, block: int, *, rows: bool) -> Results:
    """Return dw and db as one would by hand, after dz, in new memory as ours, if its rows are asked for."""
    out = np.empty_like(z) if rows else None

    def on_block(start: int) -> Results:
        part = slice(start, start + block)
        if out is not None:
            np.matmul(y[part], w.T, out=out[part])
        return _affine(y[part], z[part], w)

    sums = _sums_of_blocks(on_block, range(0, len(z), block))
    return sums if out is None else (out, *sums)


def _graphs(fraction: int) -> Iterator[Row]:
    """Measure graphs of many tiny chunks, and of a large shared array."""
    count = 100_000 // fraction
    y, z = (da.ones((4 * count, n), chunks=(4, n), dtype="f4") + 1 for n in (2, 8))
    w = np.ones((8, 2), np.float32)
    took = seconds(lambda: accumulate(affine_backward, y, z, shared=(w,), rows=("dz",)))
    title = f"{count:,} chunks of 4 rows of an expression"
    yield Row((title, "seconds to build", f"{took:.1f}", f"≤ {5 / fraction:g}"), holds=took <= 5 / fraction)
    took = seconds(lambda: dask.optimize(y, z))
    yield Row((title, "seconds that Dask takes to optimize it", f"{took:.1f}", "none"), holds=None)
    added = peak(_large_shared, 2**29 // fraction)
    bound = 1.5 * 2**30 / fraction
    title = f"shared weights of {2**29 // fraction / 2**20:,.0f} MiB"
    held = f"≤ {bound / 2**20:,.0f}"
    yield Row((title, "MiB with the weights", f"{added / 2**20:,.0f}", held), holds=added <= bound)


def _large_shared(size: int) -> Callable[[], object]:
    """Return a call that computes with a shared array of so many bytes, which it makes."""

    def step(z: Floats, w: Floats) -> Results:
        return (z.sum(axis=0) * w[0, 0],)

    z = da.ones((4_000, 64), chunks=(1_000, 64), dtype="f4")
    return lambda: compute(*accumulate(step, z, shared=(np.ones((size // 256, 64), np.float32),)))


def _rows(work: Work, rows: int) -> Iterator[Row]:
    """Compare with a thread pool and with plain expressions over the same files."""
    with tempfile.TemporaryDirectory(prefix="pullback-") as folder:
        y, z = (write_npy(Path(folder) / f"{name}.npy", rows, n) for name, n in (("y", N), ("z", K)))
        for blocks, bound in work.bounds.items():
            block = rows // blocks
            ours = partial(_ours, work.ours, y, z, work.parameters, block)
            pool, plain = (partial(run, work.plain, y, z, work.parameters, block) for run in (_pool, _plain))
            expected, checked = pool(), [ours()]
            start = time.perf_counter()
            checked.append(plain())
            once = time.perf_counter() - start
            for results in checked:
                for x, right in zip(results, expected, strict=True):
                    # The pool's own float32 sums are off by a few parts in 10⁵, with large blocks.
                    np.testing.assert_allclose(x, right, rtol=0, atol=1e-4 * np.max(np.abs(right)))
            row = _compared((f"{blocks:,}",), ours, pool, bound)
            *cells, limit = row.cells
            yield Row((*cells, f"{once / float(cells[1]):.2f}", limit), holds=row.holds)


def _ours(step: Callable[..., Any], y: Path, z: Path, parameters: Any, block: int) -> Results:
    """Add up with the library."""
    lazy = [open_file(path).lazy(block) for path in (y, z)]
    return compute(*trees.leaves(accumulate(step, *lazy, shared=(parameters,))))


def _pool(step: Callable[..., Results], y: Path, z: Path, parameters: Any, block: int) -> Results:
    """Add up as one would by hand: memory maps, a thread for each core, one BLAS thread in each."""
    maps = [np.load(path, mmap_mode="r") for path in (y, z)]

    def on_block(start: int) -> Results:
        return step(*(array[start : start + block] for array in maps), parameters)

    return _sums_of_blocks(on_block, range(0, len(maps[0]), block))


def _sums_of_blocks(on_block: Callable[[int], Results], starts: range) -> Results:
    """Add the results of blocks that a thread for each core works on."""
    totals: Results = ()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(dask.system.CPU_COUNT) as pool:
        for results in pool.map(on_block, starts):
            added = zip(totals or repeat(0), results, strict=False)
            totals = tuple(np.add(total, x, dtype=np.float64) for total, x in added)
    return totals


def _plain(step: Callable[..., Results], y: Path, z: Path, parameters: Any, block: int) -> Results:
    """Compute expressions of Dask's, all in one go."""
    lazy = []
    for path in (y, z):
        rows, features = np.load(path, mmap_mode="r").shape
        sizes = (block,) * (rows // block), (features,)
        lazy.append(da.map_blocks(_read, path, block, chunks=sizes, meta=np.empty((0, 0), np.float32)))
    with threadpool_limits(1, user_api="blas"):
        results: Results = dask.compute(*step(*lazy, parameters))
    return results


def _read(path: Path, block: int, block_id: tuple[int, ...] = (0, 0)) -> Floats:
    """Return a block as a memory map."""
    start = block_id[0] * block
    rows: Floats = np.load(path, mmap_mode="r")[start : start + block]
    return rows


def _affine(y: Any, z: Any, _w: Any) -> Results:
    """Return dw and db of an affine map whose upstream gradient is y."""
    return z.T @ y, y.sum(axis=0)


def _our_softmax(y: Floats, z: Floats, w: Floats) -> Results:
    """Return the loss and dw of a softmax classifier."""
    value, upstream = softmax_cross_entropy(affine_forward(z, w), y, reduction="sum")
    return value, affine_backward(upstream, z, w, wrt=("w",)).dw


def _softmax(y: Any, z: Any, w: Any) -> Results:
    """Return the same, written out."""
    a = z @ w
    a = a - a.max(axis=1, keepdims=True)
    e = np.exp(a)
    total, weight = e.sum(axis=1, keepdims=True), y.sum(axis=1, keepdims=True)
    value = (np.log(total) * weight).sum() - (y * a).sum()
    return value, z.T @ (e * (weight / total) - y)


def _network(y: Any, z: Any, p: Any) -> Results:
    """Return the squared error of a network with two layers, and its gradients, written out."""
    w1, b1, w2, b2 = p
    h = np.tanh(z @ w1 + b1)
    error = h @ w2 + b2 - y
    before = (error @ w2.T) * (1 - h * h)
    return (error * error).sum() / 2, z.T @ before, before.sum(axis=0), h.T @ error, error.sum(axis=0)


_W = np.linspace(-1, 1, K * N, dtype=np.float32).reshape(K, N)
_LAYERS = losses.weights(), np.zeros(N, np.float32), losses.weights()[:N], np.zeros(N, np.float32)
WORKS = (
    Work("pool", "Affine backward (dw, db)", partial(affine_backward, wrt=("w", "b")), _affine, _W, BOUNDS),
    Work("softmax pool", "Softmax cross-entropy and dw", _our_softmax, _softmax, _W, BOUNDS),
    Work(
        "softmax loss pool",
        "Softmax regression in array functions, value_and_grad",
        value_and_grad(losses.softmax_sum, argnums=2),
        _softmax,
        losses.weights(),
        LOSS_BOUNDS,
    ),
    Work(
        "network loss pool",
        "A network with two layers in array functions, value_and_grad",
        value_and_grad(losses.network, argnums=2),
        _network,
        _LAYERS,
        LOSS_BOUNDS,
    ),
)
