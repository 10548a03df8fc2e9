"""Time beside a hand-written thread pool over the same files."""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import dask
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.report import Row, Section
from benchmarks.scale.files import Floats, K, N, Sums, seconds, write_npy
from pullback import affine_backward
from pullback._files import open_file
from pullback.dask import accumulate, compute

ROWS = 4_000_000
# The bound for each number of blocks.
BOUNDS = {80: 1.25, 800: 1.25, 8_000: 1.5}
REPEATS = 7
step = partial(affine_backward, wrt=("w", "b"))


def section(scale: int) -> Section:
    """Return the table, of so many times fewer rows."""
    rows = ROWS // scale
    return Section(
        name="pool",
        title=f"Affine backward (dw, db), {rows:,} rows × {K} → {N}, float32, from .npy files: time / time of a "
        "hand-written thread pool",
        columns=("blocks", "pool, s", "lower quartile", "median", "upper quartile", "bound"),
        rows=_rows(rows),
        length=len(BOUNDS),
    )


def _rows(rows: int) -> Iterator[Row]:
    """Compare with a thread pool over the same files."""
    with tempfile.TemporaryDirectory(prefix="pullback-") as folder:
        z, upstream = (write_npy(Path(folder) / f"{name}.npy", rows, n) for name, n in (("z", K), ("da", N)))
        w = np.ones((K, N), np.float32)
        for blocks, bound in BOUNDS.items():
            block = rows // blocks
            calls: tuple[Callable[[], Sums], ...] = (
                partial(_pool, z, upstream, block),
                partial(_ours, z, upstream, w, block),
            )
            for ours, theirs in zip(calls[1](), calls[0](), strict=True):
                # The pool's own float32 sums are off by a few parts in 10⁵, with large blocks.
                np.testing.assert_allclose(ours, theirs, rtol=1e-4)
            times = [[seconds(call) for call in calls] for _ in range(REPEATS)]
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
