"""Memory where the sums are larger than the blocks."""

from collections.abc import Iterator
from functools import partial

import dask.array as da
import numpy as np

from benchmarks import resident
from benchmarks.report import Row, Section
from benchmarks.scale.files import Floats
from pullback import affine_backward
from pullback.dask import accumulate, compute

WEIGHTS = 20_000, 2_000
ROWS, BLOCK = 8_192, 1_024
BOUND = 3.0
step = partial(affine_backward, wrt=("w", "b"))


def section() -> Section:
    """Return the table."""
    return Section(
        name="weights",
        title=f"Weights of {WEIGHTS[0]:,} × {WEIGHTS[1]:,}: peak memory / that of a sequential loop",
        columns=("", "loop, MiB", "ours, MiB", "ratio", "bound"),
        rows=_rows(),
        length=1,
    )


def _rows() -> Iterator[Row]:
    """Compare memory where the sums are larger than the blocks."""
    peaks = [resident.peak(partial, call) for call in (_loop, _ours)]
    loop, ours = (peak / 2**20 for peak in peaks)
    cells = ("peak without the process's own", f"{loop:.0f}", f"{ours:.0f}", f"{ours / loop:.2f}", f"≤ {BOUND}")
    yield Row(cells, holds=ours <= BOUND * loop)


def _block(start: int, features: int) -> Floats:
    """Make some rows."""
    return np.random.default_rng(start).random((BLOCK, features), dtype=np.float32)


def _loop() -> None:
    """Add up in float64, block after block."""
    k, n = WEIGHTS
    dw, db = np.zeros((k, n)), np.zeros(n)
    for start in range(0, ROWS, BLOCK):
        upstream = _block(start, n)
        dw += _block(start, k).T @ upstream
        db += upstream.sum(axis=0)


def _ours() -> None:
    """Add up with the library."""
    k, n = WEIGHTS
    starts = da.arange(0, ROWS, BLOCK, chunks=1)
    z, upstream = (
        starts.map_blocks(
            lambda block, features: _block(int(block[0]), features),
            features,
            chunks=((BLOCK,) * starts.numblocks[0], (features,)),
            new_axis=1,
            meta=np.empty((0, 0), np.float32),
        )
        for features in (k, n)
    )
    compute(*accumulate(step, upstream, z, shared=(np.zeros(WEIGHTS, np.float32),))[1:])
