"""Losses in array functions, differentiated block by block: what the pool is compared with, and their memory."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from array_api_compat import array_namespace

from benchmarks import resident
from benchmarks.report import Row, Section
from benchmarks.scale.files import ROW_BYTES, Floats, K, N
from pullback import stop_gradient, value_and_grad
from pullback._core import trees
from pullback.dask import accumulate, compute

GIGABYTES = 1, 4, 16
QUICK_GIGABYTES = 0.25, 1
# Large enough that the graph of the largest batch weighs little.
BLOCK_MIB = 32
BLOCK = BLOCK_MIB * 2**20 // ROW_BYTES
LIMIT = 512 * 2**20
SPREAD = 0.1
# How much more the rows with the largest losses count in the loss that couples them.
TILT = 0.1


def softmax(y: Any, z: Any, w: Any) -> Any:
    """Return the loss of each row of a softmax regression."""
    xp = array_namespace(z)
    a = z @ w
    # The shift cancels, and so does its derivative.
    a = a - stop_gradient(xp.max(a, axis=1, keepdims=True))
    return xp.sum(y, axis=1) * xp.log(xp.sum(xp.exp(a), axis=1)) - xp.sum(y * a, axis=1)


def softmax_sum(y: Any, z: Any, w: Any) -> Any:
    """Return the loss of some rows of a softmax regression."""
    return array_namespace(z).sum(softmax(y, z, w))


def network(y: Any, z: Any, p: Any) -> Any:
    """Return the squared error of some rows of a network with two layers."""
    xp = array_namespace(z)
    w1, b1, w2, b2 = p
    error = xp.tanh(z @ w1 + b1) @ w2 + b2 - y
    return xp.sum(error * error) / 2


def separable(y: Any, z: Any, w: Any) -> Sequence[Any]:
    """Compute a sum over the rows of a batch and its gradient."""
    return compute(*trees.leaves(accumulate(value_and_grad(softmax_sum, argnums=2), y, z, shared=(w,))))


def coupled(y: Any, z: Any, w: Any) -> Sequence[Any]:
    """Compute a loss that is no such sum, a logarithm of a mean of exponentials, and its gradient."""

    def exponentials(y: Any, z: Any, w: Any) -> Any:
        xp = array_namespace(z)
        return xp.sum(xp.exp(TILT * softmax(y, z, w)))

    def loss(w: Any) -> Any:
        return array_namespace(w).log(accumulate(exponentials, y, z, shared=(w,)) / z.shape[0]) / TILT

    found: Sequence[Any] = value_and_grad(loss)(w)
    return found


def weights() -> Floats:
    """Return the weights of a softmax regression."""
    return np.linspace(-0.1, 0.1, K * N, dtype=np.float32).reshape(K, N)


def section(*, quick: bool) -> Section:
    """Return the table of memory; a quick one is of smaller batches."""
    gigabytes = QUICK_GIGABYTES if quick else GIGABYTES
    return Section(
        name="losses",
        title=f"Softmax regression in array functions, its value and gradient over blocks of {BLOCK_MIB} MiB that are "
        "made where they are used: peak memory without the process's own",
        columns=("loss", "batch, GB", "peak, MiB", "peak / smallest", "bound"),
        rows=_rows(gigabytes),
        length=2 * len(gigabytes),
    )


def _rows(gigabytes: Sequence[float]) -> Iterator[Row]:
    """Compare the memory that batches of several sizes take."""
    for call in (separable, coupled):
        smallest = 0
        for size in gigabytes:
            peak = resident.peak(_prepared, call, int(size * 1e9) // ROW_BYTES)
            smallest = smallest or peak
            cells = call.__name__, f"{size:g}", f"{peak / 2**20:.0f}", f"{peak / smallest:.2f}"
            holds = peak <= LIMIT and abs(peak / smallest - 1) <= SPREAD
            yield Row((*cells, f"≤ {LIMIT // 2**20}; ± {SPREAD:.0%}"), holds=holds)


def _prepared(call: Callable[..., object], rows: int) -> Callable[[], object]:
    """Return a call over a batch of so many rows."""
    return partial(call, *_batch(rows), weights())


def _batch(rows: int) -> list[da.Array]:
    """Return whole blocks of lazy rows that are not on disk."""
    blocks = da.arange(rows // BLOCK, chunks=1)
    sizes = (BLOCK,) * blocks.numblocks[0]
    return [
        blocks.map_blocks(_block, n, chunks=(sizes, (n,)), new_axis=1, meta=np.empty((0, 0), np.float32))
        for n in (N, K)
    ]


def _block(index: Floats, features: int) -> Floats:
    """Make the rows of a block."""
    return np.random.default_rng(int(index[0])).random((BLOCK, features), dtype=np.float32)
