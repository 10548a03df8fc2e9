"""Products with a batch, sums over it and what is added to its rows, accurate and fast at any number of rows.

A sum over rows has two levels: blocks of rows in the arrays' own dtype, mostly by products, then the blocks' results
in the widest dtype of the device. An array that carries chunks, or whose size is not known, is summed as it is chunked.
"""

import math

from array_api_compat import device

from pullback._core import tracing
from pullback._core.memory import add
from pullback._core.typing import Array, DType, Namespace

# Rounding errors pile up along a chain of additions: with z uniform in [0, 1), a float32 chain of 256 comes to 1e-6 of
# the largest entry. `python -m benchmarks --only accuracy` prints what each number of rows comes to.
_CHAIN = 128
# Up to so many rows, a few products of two chains each, added up in their own dtype, take less time than blocks of one
# chain that are added up in the widest.
_IN_PARTS = 1536
# A product of so many multiplications for each row is cut into chains by the BLAS itself, once it is long: with
# OpenBLAS, the error halves between 448 rows and 512, or from 513 on, as the version is. There, blocks only keep the
# number of chains down: so many blocks of longer batches, or more, as long as their results are small beside them, for
# the wide sum to cost next to nothing. With half as many, JAX is nearer at 10,000 rows.
_WIDE = 2048
_LONG = 8192
_BLOCKS = 16
# Up to so many multiplications for each row, a few hundred rows are cut here, and stay within 1e-6 as well. It shows in
# the time, so that wider products stay whole, and come to 1.3e-6 there; as do all of float64, which is exact enough.
_CUT = 4096
# A column sum by a product with ones is one chain, or a few. Constants round in one direction and make it 2e-6 wrong at
# 1,280 rows, of two columns 9e-6, so that from there on its chains are short. That is soonest done by products as well,
# as long as there are not too many, and the rows lie in the cache; then by additions, of about so many numbers at a
# time: with fewer, NumPy mostly starts loops, and more leave the cache between additions.
_SUM_CHAIN = 128
_SUM_ROWS = 1280
_SUM_SIZE = 2**20
_SUM_WIDTH = 512
# Up to about so many entries, NumPy spends longer on starting the sum of each row than on adding it up.
_SHORT = 64
# From so many rows on it pays to join some of them before something is added to each: up to so many entries.
_MANY_ROWS = 1024
_JOINED = 256


def product(xp: Namespace, x: Array, w: Array, /) -> Array:
    """Return ``x @ w``; for a matrix `w` as a single product, which is faster than one for each batch entry."""
    if x.ndim <= 2 or w.ndim != 2 or not can_reshape_rows(x):
        return x @ w
    if type(x) in tracing.sums:
        return tracing.sums[type(x)]("product", xp, x, w)
    flat = flatten(xp, x, 0) @ w
    return xp.reshape(flat, (*x.shape[:-1], w.shape[-1]))


def add_to_rows(xp: Namespace, a: Array, b: Array, /) -> Array:
    """Return ``a + b`` for a vector `b`, in the memory of `a` (..., n) where that is plain; nothing else holds it."""
    if type(a) in tracing.sums:
        return a + b
    n, shape = b.shape[0], a.shape
    few = len(shape) < 2 or shape[0] in range(_SHORT)
    if few or n == 0 or n > _JOINED // 2 or not can_reshape_rows(a) or (rows := math.prod(shape[:-1])) <= _MANY_ROWS:
        return add(a, b)
    # NumPy starts a loop for each row. The rows that are joined must come out even.
    joined = _JOINED // n
    while rows % joined:
        joined -= 1
    a = xp.reshape(a, (rows // joined, joined * n))
    a = add(a, xp.reshape(xp.broadcast_to(b, (joined, n)), (joined * n,)))
    return xp.reshape(a, shape)


def contract_rows(xp: Namespace, x: Array, y: Array, /, *, kept: int = 0) -> Array:
    """Return ``Σ_r x_rk y_rn`` over every axis but the last and the first `kept` ones, which broadcast."""
    if type(x) in tracing.sums and kept == 0:
        return tracing.sums[type(x)]("contract_rows", xp, x, y)
    if x.ndim != kept + 2:
        if not (can_reshape_rows(x) and can_reshape_rows(y)):
            return _contract_chunks(xp, x, y, kept)
        x, y = flatten(xp, x, kept), flatten(xp, y, kept)
    rows, size = _rows(x), x.shape[-1] * y.shape[-1]
    narrow, uncut = size < _WIDE, rows <= 4 * _CHAIN
    whole = 2 * _CHAIN if narrow or (uncut and size <= _CUT) else _LONG
    if rows <= whole or (uncut and x.dtype == xp.float64):
        return _transpose(xp, x) @ y
    if rows <= _IN_PARTS:
        return _add_products(xp, -(-rows // -(-rows // whole)), x, y)
    return _two_level(xp, _CHAIN if narrow else min(_LONG, max(rows // _BLOCKS, size // 8)), x, y)


def sum_rows(xp: Namespace, y: Array, /) -> Array:
    """Return ``Σ_r y_rn`` over every axis but the last."""
    if type(y) in tracing.sums:
        return tracing.sums[type(y)]("sum_rows", xp, y)
    if hasattr(y, "chunks"):
        total: Array = xp.sum(y, axis=tuple(range(y.ndim - 1)), dtype=accumulation_dtype(xp, y))
    else:
        y = y if y.ndim == 2 else flatten(xp, y, 0)
        rows = _rows(y)
        # One times a complex infinity is NaN in its other part, so that complex rows are added and not multiplied.
        few = rows < _SUM_ROWS or (rows <= _LONG and rows * y.shape[-1] < _SUM_SIZE)
        if few and y.shape[-1] != 0 and y.dtype in (xp.float32, xp.float64):
            return _sum_products(xp, rows, y)
        total = _sum_chains(xp, y, accumulation_dtype(xp, y))
    return xp.astype(total, y.dtype, copy=False)


def sum_last(xp: Namespace, x: Array, /) -> Array:
    """Return ``Σ_j x_rj`` over the last axis, which is kept: `x` itself where that has one entry.

    It is a product where the axis is short and the rows are many.
    """
    if type(x) in tracing.sums:
        return tracing.sums[type(x)]("sum_last", xp, x)
    n = x.shape[-1]
    if n == 1:
        return x
    few = x.shape[0] in range(_SHORT)
    if few or hasattr(x, "chunks") or not isinstance(n, int) or n > _SHORT:
        return xp.sum(x, axis=-1, keepdims=True)
    return product(xp, x, xp.ones((n, 1), dtype=x.dtype, device=device(x)))


def dot_last(xp: Namespace, x: Array, y: Array, /) -> Array:
    """Return ``Σ_j x_rj y_rj`` over the last axis, which is kept; with no array of products where that is long."""
    if type(x) in tracing.sums:
        return tracing.sums[type(x)]("dot_last", xp, x, y)
    n = x.shape[-1]
    if hasattr(x, "chunks") or not isinstance(n, int) or n <= _SHORT:
        return sum_last(xp, x * y)
    out: Array = xp.vecdot(x, y)
    return out[..., None]


def sum_all(xp: Namespace, x: Array, /) -> Array:
    """Return the sum of all entries; of more than one chain in the widest dtype."""
    if type(x) in tracing.sums:
        return tracing.sums[type(x)]("sum_all", xp, x)
    wide = x.dtype if can_reshape_rows(x) and math.prod(x.shape) <= _CHAIN else accumulation_dtype(xp, x)
    out: Array = xp.sum(x, dtype=wide)
    return out if wide == x.dtype else xp.astype(out, x.dtype)


def _add_products(xp: Namespace, block: int, x: Array, y: Array, /) -> Array:
    """Contract axis -2 by a few products, whose sum needs no wider dtype."""
    rows = x.shape[-2]
    total: Array = _transpose(xp, x[..., :block, :]) @ y[..., :block, :]
    for start in range(block, rows, block):
        part = slice(start, min(start + block, rows))
        total = add(total, _transpose(xp, x[..., part, :]) @ y[..., part, :])
    return total


def _two_level(xp: Namespace, block: int, x: Array, y: Array, /) -> Array:
    """Contract axis -2 by products of blocks of rows, and add up the blocks' results in the widest dtype."""
    rows = x.shape[-2]
    count = rows // block
    split = count * block
    blocks = [xp.reshape(a[..., :split, :], (*a.shape[:-2], count, block, a.shape[-1])) for a in (x, y)]
    partials = _transpose(xp, blocks[0]) @ blocks[1]
    wide = accumulation_dtype(xp, partials)
    total: Array = xp.sum(partials, axis=x.ndim - 2, dtype=wide)
    if split < rows:
        total = add(total, xp.astype(_transpose(xp, x[..., split:, :]) @ y[..., split:, :], wide))
    return xp.astype(total, partials.dtype, copy=False)


def _sum_products(xp: Namespace, rows: int, y: Array, /) -> Array:
    """Add up rows by a product with ones; many of them in chains, whose results are too few to need a wider dtype."""
    # Ones: the power 0 of anything, be it NaN. `ones_like` takes NumPy as long as the product.
    if rows < _SUM_ROWS:
        return (y[:, 0] ** 0) @ y
    ones = y[:_SUM_CHAIN, 0] ** 0
    count, rest = divmod(rows, _SUM_CHAIN)
    chains = xp.reshape(y[: rows - rest, :], (count, _SUM_CHAIN, y.shape[-1]))
    total: Array = ones[:count] @ (ones @ chains)
    if rest:
        total = add(total, ones[:rest] @ y[rows - rest :, :])
    return total


def _sum_chains(xp: Namespace, y: Array, wide: DType, /) -> Array:
    """Add up rows in chains, and the chains' results in a wide dtype, which is what comes back."""
    rows = _rows(y)
    # Each chain takes every `stride`-th row, so that what is added at a time is long: stride rows, end to end.
    stride = min(-(-_SUM_WIDTH // max(y.shape[-1], 1)), rows // _SUM_CHAIN)
    if stride == 0:
        return xp.sum(y, axis=0, dtype=wide)
    split = rows - rows % (stride * _SUM_CHAIN)
    chains = xp.reshape(y[:split, :], (split // (stride * _SUM_CHAIN), _SUM_CHAIN, stride, y.shape[-1]))
    total: Array = xp.sum(xp.sum(chains, axis=1), axis=(0, 1), dtype=wide)
    return total if split == rows else total + _sum_chains(xp, y[split:, :], wide)


def _contract_chunks(xp: Namespace, x: Array, y: Array, kept: int, /) -> Array:
    """Contract as `contract_rows` does, and let the library's own chunks be the blocks."""
    rows = tuple(range(kept, x.ndim - 1))
    if kept == 0:
        total: Array = xp.tensordot(x, y, axes=(rows, rows))
    else:
        total = xp.sum(_transpose(xp, x) @ y, axis=rows[:-1])
    return total


def _transpose(xp: Namespace, x: Array, /) -> Array:
    """Swap the last two axes; by the attribute where it will do, which costs less than the function."""
    return x.T if x.ndim == 2 else xp.matrix_transpose(x)


def _rows(x: Array, /) -> int:
    """Return the number of rows, axis -2, that can be cut into blocks: none where `can_reshape_rows` says no."""
    rows = x.shape[-2]
    return rows if isinstance(rows, int) and not hasattr(x, "chunks") else 0


def can_reshape_rows(x: Array, /) -> bool:
    """Whether rows can be regrouped at no cost: not where an array is chunked, or a size is not known."""
    return not hasattr(x, "chunks") and set(map(type, x.shape)) == {int}


def flatten(xp: Namespace, x: Array, kept: int, /) -> Array:
    """Join the axes between the first `kept` and the last into one axis of rows."""
    return xp.reshape(x, (*x.shape[:kept], math.prod(x.shape[kept:-1]), x.shape[-1]))


def accumulation_dtype(xp: Namespace, x: Array, /) -> DType:
    """Return the dtype in which to add up: float64's precision, where the device has it."""
    if x.dtype == xp.float64:
        return x.dtype
    # After a product has filled the caches, what Python does takes ten times as long: no function more than needed.
    floats = xp.__array_namespace_info__().dtypes(device=getattr(x, "device", None), kind="real floating")
    if "float64" not in floats:
        return x.dtype
    return xp.float64 if x.dtype == xp.float32 else xp.result_type(x.dtype, xp.float64)
