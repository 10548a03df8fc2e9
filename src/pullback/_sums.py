"""Products with a batch and sums over it, accurate and fast at any number of rows.

A sum over rows has two levels: blocks of rows in the arrays' own dtype, by matrix products, then the blocks' results
in the widest dtype of the device. An array that carries chunks, or whose size is not known, is summed as it is chunked.
"""

import math
from collections.abc import Callable

from array_api_compat import device

from pullback._typing import Array, DType, Namespace

# Rows of one block: with 8,192 the wide sum costs next to nothing, and the float32 error stays under 3e-7.
_MOST_ROWS = 8192
# A product of up to so many multiplications OpenBLAS takes whole, without packing or threads: twice as fast on narrow
# arrays, as long as a block keeps so many rows that the blocks' results are few.
_SMALL_PRODUCT = 10**6
_FEWEST_ROWS = 512
# A column sum is a matrix-vector product, which rounds once a row: shorter blocks keep it as accurate.
_SUM_ROWS = 1024


def product(xp: Namespace, x: Array, w: Array, /) -> Array:
    """Return ``x @ w``; for a matrix `w` as a single product, which is faster than one for each batch entry."""
    if x.ndim <= 2 or w.ndim != 2 or not _regroups(x):
        return x @ w
    flat = _flat(xp, x, 0) @ w
    out: Array = xp.reshape(flat, (*x.shape[:-1], w.shape[-1]))
    return out


def contract_rows(xp: Namespace, x: Array, y: Array, /, *, kept: int = 0) -> Array:
    """Return ``Σ_r x_rk y_rn`` over every axis but the last and the first `kept` ones, which broadcast."""
    if x.ndim != kept + 2:
        if not (_regroups(x) and _regroups(y)):
            return _contract_chunks(xp, x, y, kept)
        x, y = _flat(xp, x, kept), _flat(xp, y, kept)
    if not _has_blocks(x, _FEWEST_ROWS):
        return _transpose(xp, x) @ y
    small = _SMALL_PRODUCT // (x.shape[-1] * y.shape[-1] or 1)
    block = small if _FEWEST_ROWS <= small <= _MOST_ROWS else _MOST_ROWS
    return _two_level(xp, block, lambda x, y: _transpose(xp, x) @ y, x, y)


def sum_rows(xp: Namespace, y: Array, /) -> Array:
    """Return ``Σ_r y_rn`` over every axis but the last."""
    # One times a complex infinity is NaN in its other part, so that complex columns are added and not multiplied.
    if y.dtype in (xp.complex64, xp.complex128) or y.shape[-1] == 0 or not _regroups(y):
        rows = tuple(range(y.ndim - 1))
        out: Array = xp.astype(xp.sum(y, axis=rows, dtype=_widest(xp, y)), y.dtype, copy=False)
        return out
    y = y if y.ndim == 2 else _flat(xp, y, 0)
    ones: Array = xp.ones_like(y[: min(y.shape[0], 2 * _SUM_ROWS), 0])
    if not _has_blocks(y, _SUM_ROWS):
        return ones @ y
    return _two_level(xp, _SUM_ROWS, lambda y: ones[: y.shape[-2]] @ y, y)


def _has_blocks(x: Array, block: int, /) -> bool:
    """Whether the rows of `x`, axis -2, make two blocks or more that can be summed apart."""
    rows = x.shape[-2]
    return isinstance(rows, int) and rows >= 2 * block and not hasattr(x, "chunks")


def _two_level(xp: Namespace, block: int, multiply: Callable[..., Array], /, *arrays: Array) -> Array:
    """Apply `multiply`, which sums over axis -2, to blocks of rows, and add up the results in the widest dtype."""
    if not _has_blocks(arrays[0], block):
        return multiply(*arrays)
    rows = arrays[0].shape[-2]
    count = rows // block
    split = count * block
    blocks = [xp.reshape(x[..., :split, :], (*x.shape[:-2], count, block, x.shape[-1])) for x in arrays]
    partials = multiply(*blocks)
    wide = _widest(xp, partials)
    total: Array = xp.sum(partials, axis=arrays[0].ndim - 2, dtype=wide)
    if split < rows:
        total += xp.astype(multiply(*(x[..., split:, :] for x in arrays)), wide)
    out: Array = xp.astype(total, partials.dtype, copy=False)
    return out


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


def _regroups(x: Array, /) -> bool:
    """Whether rows can be regrouped at no cost: not where an array is chunked, or a size is not known."""
    return not hasattr(x, "chunks") and set(map(type, x.shape)) == {int}


def _flat(xp: Namespace, x: Array, kept: int, /) -> Array:
    """Join the axes between the first `kept` and the last into one axis of rows."""
    out: Array = xp.reshape(x, (*x.shape[:kept], math.prod(x.shape[kept:-1]), x.shape[-1]))
    return out


def _widest(xp: Namespace, x: Array, /) -> DType:
    """Return the dtype in which to add up: float64's precision, where the device has it."""
    has_float64 = "float64" in xp.__array_namespace_info__().dtypes(device=device(x), kind="real floating")
    return xp.result_type(x.dtype, xp.float64) if has_float64 else x.dtype
