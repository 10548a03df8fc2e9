"""Products with a batch and sums over its rows, accurate and fast at any number of rows.

A sum over rows has two levels: blocks of rows in the dtype of the arrays, by products, then the results of the blocks
in the accumulation dtype. `reduction_policy` holds the limits. An array that carries chunks, or whose size is unknown,
is summed as it is chunked.
"""

import math

from array_api_compat import device

from pullback._core import tracing
from pullback._core.memory import add, is_gpu_memory, is_host_memory, is_plain_memory
from pullback._core.reduction_policy import (
    CHAIN,
    COLUMN,
    GPU_WIDTH,
    SHORT,
    SHORT_ROWS,
    SUM_ROWS,
    VECTOR,
    choose,
    choose_on_gpu,
    joined_rows,
    stride,
    sums_by_products,
)
from pullback._core.typing import Array, DType, Namespace

# Numbers of rows that `choose` contracts by one product, and those with a vector in float64.
_WHOLE = range(2 * CHAIN + 1)
_WHOLE_VECTOR = range(VECTOR + 1)
# Numbers of rows that are summed by one product with ones.
_FEW_ROWS = range(SUM_ROWS)
# Operands of sums of rows, made once for each dtype. They are never handed out.
_ones_in_host_memory: dict[DType, Array] = {}
# Accumulation dtypes of arrays in host memory, whose namespace takes as long to ask as a small sum.
_wide_in_host_memory: dict[DType, DType] = {}


def product(xp: Namespace, x: Array, w: Array, /) -> Array:
    """Return ``x @ w``; where `w` has no batch, as a single product, which is faster than one for each batch entry."""
    if x.ndim <= 2 or w.ndim > 2 or not can_reshape_rows(x):
        return x @ w
    if w.ndim == 1:
        return product(xp, x, w[:, None])[..., 0]
    if type(x) in tracing.sums:
        return tracing.sums[type(x)]("product", xp, x, w)
    flat = flatten(xp, x, 0) @ w
    return xp.reshape(flat, (*x.shape[:-1], w.shape[-1]))


def add_to_rows(xp: Namespace, a: Array, b: Array, /) -> Array:
    """Return ``a + b`` for a vector `b`, in the memory of `a` (..., n) where that is plain; nothing else holds it."""
    if type(a) in tracing.sums:
        return a + b
    n, shape = b.shape[0], a.shape
    # NumPy starts a loop for each row.
    if len(shape) < 2 or shape[0] in range(SHORT) or not can_reshape_rows(a):
        return add(a, b)
    rows = math.prod(shape[:-1])
    joined = joined_rows(rows, n)
    if joined == 1:
        return add(a, b)
    a = xp.reshape(a, (rows // joined, joined * n))
    a = add(a, xp.reshape(xp.broadcast_to(b, (joined, n)), (joined * n,)))
    return xp.reshape(a, shape)


def contract_rows(xp: Namespace, x: Array, y: Array, /, *, kept: int = 0) -> Array:
    """Return ``Σ_r x_rk y_rn`` over every axis but the last and the first `kept` ones, which broadcast.

    With a matrix `x`, `y` may be a vector, of one entry for each row.
    """
    is_traced, is_vector = type(x) in tracing.sums, y.ndim == 1 and x.ndim == 2
    whole = _WHOLE_VECTOR if is_vector and x.dtype == xp.float64 else _WHOLE
    if x.ndim == 2 and kept == 0 and x.shape[0] in whole and not is_traced:
        # The usual batch of a small model: what is asked below takes as long as the product.
        return x.T @ y
    if is_vector and not is_host_memory(x):
        return contract_rows(xp, x, y[:, None])[:, 0]
    if is_traced and kept == 0:
        return tracing.sums[type(x)]("contract_rows", xp, x, y)
    if x.ndim != kept + 2:
        if not (can_reshape_rows(x) and can_reshape_rows(y)):
            return _contract_chunks(xp, x, y, kept)
        x, y = flatten(xp, x, kept), flatten(xp, y, kept)
    chosen = choose_on_gpu if is_gpu_memory(x) else choose
    method, rows = chosen(_rows(x), x.shape[-1], 1 if is_vector else y.shape[-1], exact=x.dtype == xp.float64)
    if method == "whole":
        return _transpose(xp, x) @ y
    return (_add_products if method == "parts" else _two_level)(xp, rows, x, y)


def sum_rows(xp: Namespace, y: Array, /) -> Array:
    """Return ``Σ_r y_rn`` over every axis but the last."""
    if type(y) in tracing.sums:
        return tracing.sums[type(y)]("sum_rows", xp, y)
    if is_host_memory(y) and y.ndim == 2 and y.shape[0] in _FEW_ROWS and y.dtype in _ones_in_host_memory:
        # The usual batch of a small model: what is asked below takes as long as the product.
        return _ones_in_host_memory[y.dtype][: y.shape[0]] @ y
    # Blocks need a size, and ones are no operand of a product where arrays store what is not 0.
    if not is_plain_memory(y) and (hasattr(y, "chunks") or hasattr(y, "nnz") or None in y.shape):
        total: Array = xp.sum(y, axis=tuple(range(y.ndim - 1)), dtype=accumulation_dtype(xp, y))
    else:
        y = y if y.ndim == 2 else flatten(xp, y, 0)
        rows = _rows(y)
        if rows > CHAIN and is_gpu_memory(y):
            return xp.astype(_sum_on_gpu(xp, y, accumulation_dtype(xp, y)), y.dtype, copy=False)
        # One times a complex infinity is NaN in its other part, so that complex rows are added and not multiplied.
        if sums_by_products(rows, y.shape[-1]) and y.dtype in (xp.float32, xp.float64):
            return _sum_products(xp, rows, y)
        total = _sum_chains(xp, y, accumulation_dtype(xp, y))
    return xp.astype(total, y.dtype, copy=False)


def sum_vector(xp: Namespace, y: Array, /) -> Array:
    """Return the sum of a vector, as `sum_rows` sums a column."""
    if is_host_memory(y):
        if y.shape[0] in _FEW_ROWS and y.dtype in _ones_in_host_memory:
            return _ones_in_host_memory[y.dtype][: y.shape[0]] @ y
        if SUM_ROWS <= y.shape[0] <= COLUMN:
            # The sum of a column of this length, without the calls that choose it.
            return xp.astype(xp.sum(y, dtype=accumulation_dtype(xp, y)), y.dtype, copy=False)
    if is_plain_memory(y) and y.shape[0] in _FEW_ROWS and y.dtype in (xp.float32, xp.float64):
        return _ones(xp, y[:, None], y.shape[0]) @ y
    return sum_rows(xp, y[:, None])[0]


def sum_last(xp: Namespace, x: Array, /) -> Array:
    """Return ``Σ_j x_rj`` over the last axis, which is kept: `x` itself where that has one entry.

    It is a product where the axis is short and the rows are many.
    """
    if type(x) in tracing.sums:
        return tracing.sums[type(x)]("sum_last", xp, x)
    n = x.shape[-1]
    if n == 1:
        return x
    few = x.shape[0] in range(SHORT_ROWS)
    # Ones are no operand of a product where arrays store what is not 0.
    if few or hasattr(x, "chunks") or hasattr(x, "nnz") or not isinstance(n, int) or n > SHORT:
        return xp.sum(x, axis=-1, keepdims=True)
    return product(xp, x, xp.ones((n, 1), dtype=x.dtype, device=device(x)))


def dot_last(xp: Namespace, x: Array, y: Array, /) -> Array:
    """Return ``Σ_j x_rj y_rj`` over the last axis, which is kept; a long one without an array of products."""
    if type(x) in tracing.sums:
        return tracing.sums[type(x)]("dot_last", xp, x, y)
    n = x.shape[-1]
    if hasattr(x, "chunks") or not isinstance(n, int) or n <= SHORT:
        return sum_last(xp, x * y)
    out: Array = xp.vecdot(x, y)
    return out[..., None]


def sum_all(xp: Namespace, x: Array, /) -> Array:
    """Return the sum of all entries; more than one chain is summed in the accumulation dtype."""
    if type(x) in tracing.sums:
        return tracing.sums[type(x)]("sum_all", xp, x)
    wide = x.dtype if can_reshape_rows(x) and math.prod(x.shape) <= CHAIN else accumulation_dtype(xp, x)
    out: Array = xp.sum(x, dtype=wide)
    return out if wide == x.dtype else xp.astype(out, x.dtype)


def _add_products(xp: Namespace, block: int, x: Array, y: Array, /) -> Array:
    """Contract axis -2 of `x`, and that of `y` or its only one, by a few products, summed in their own dtype."""
    transposed, rows, is_vector = _transpose(xp, x), x.shape[-2], y.ndim == 1

    def term(start: int) -> Array:
        part = slice(start, min(start + block, rows))
        return transposed[..., part] @ (y[part] if is_vector else y[..., part, :])

    total = term(0)
    for start in range(block, rows, block):
        total = add(total, term(start))
    return total


def _two_level(xp: Namespace, block: int, x: Array, y: Array, /) -> Array:
    """Contract as `_add_products` by products of blocks of rows, and sum their results in the accumulation dtype."""
    if y.ndim == 1:
        return _two_level(xp, block, x, y[:, None])[:, 0]
    rows = x.shape[-2]
    count = rows // block
    split = count * block
    whole = (x, y) if split == rows else (x[..., :split, :], y[..., :split, :])
    blocks = [xp.reshape(a, (*a.shape[:-2], count, block, a.shape[-1])) for a in whole]
    partials = _transpose(xp, blocks[0]) @ blocks[1]
    wide = accumulation_dtype(xp, partials)
    total: Array = xp.sum(partials, axis=x.ndim - 2, dtype=wide)
    if split < rows:
        total = add(total, xp.astype(_transpose(xp, x[..., split:, :]) @ y[..., split:, :], wide))
    return xp.astype(total, partials.dtype, copy=False)


def _sum_products(xp: Namespace, rows: int, y: Array, /) -> Array:
    """Sum rows by a product with ones: many rows in chains, few enough for a sum in their own dtype."""
    if rows < SUM_ROWS:
        return _ones(xp, y, rows) @ y
    ones = _ones(xp, y, CHAIN)
    count, rest = divmod(rows, CHAIN)
    chains = xp.reshape(y[: rows - rest, :], (count, CHAIN, y.shape[-1]))
    total: Array = ones[:count] @ (ones @ chains)
    if rest:
        total = add(total, ones[:rest] @ y[rows - rest :, :])
    return total


def _ones(xp: Namespace, y: Array, rows: int, /) -> Array:
    """Return ones to sum rows with; those in host memory are made once, since that takes as long as the product."""
    if not is_host_memory(y):
        return y[:rows, 0] ** 0  # the power 0 of anything, be it NaN
    ones = _ones_in_host_memory.get(y.dtype)
    if ones is None:
        ones = _ones_in_host_memory[y.dtype] = xp.ones((SUM_ROWS,), dtype=y.dtype)
    return ones[:rows]


def _sum_chains(xp: Namespace, y: Array, wide: DType, /) -> Array:
    """Sum rows in chains, and the results of the chains in a wide dtype, in which they are returned."""
    rows = _rows(y)
    # Each chain takes every `step`-th row, so that one addition takes `step` rows, end to end.
    step = stride(rows, y.shape[-1])
    if step == 0:
        return xp.sum(y, axis=0, dtype=wide)
    split = rows - rows % (step * CHAIN)
    chains = xp.reshape(y[:split, :], (split // (step * CHAIN), CHAIN, step, y.shape[-1]))
    total: Array = xp.sum(xp.sum(chains, axis=1), axis=(0, 1), dtype=wide)
    return total if split == rows else total + _sum_chains(xp, y[split:, :], wide)


def _sum_on_gpu(xp: Namespace, y: Array, wide: DType, /) -> Array:
    """Sum rows in a wide dtype by one addition of many rows, end to end, that keeps a GPU busy, and a short one."""
    rows, width = y.shape
    step = max(GPU_WIDTH // max(width, 1), 1)
    split = rows - rows % step
    if split <= step:
        return xp.sum(y, axis=0, dtype=wide)
    long = xp.sum(xp.reshape(y[:split, :], (split // step, step * width)), axis=0, dtype=wide)
    total: Array = xp.sum(xp.reshape(long, (step, width)), axis=0)
    return total if split == rows else total + xp.sum(y[split:, :], axis=0, dtype=wide)


def _contract_chunks(xp: Namespace, x: Array, y: Array, kept: int, /) -> Array:
    """Contract as `contract_rows` does, with the chunks of the library as blocks."""
    rows = tuple(range(kept, x.ndim - 1))
    if kept == 0:
        total: Array = xp.tensordot(x, y, axes=(rows, rows))
    else:
        total = xp.sum(_transpose(xp, x) @ y, axis=rows[:-1])
    return total


def _transpose(xp: Namespace, x: Array, /) -> Array:
    """Swap the last two axes. For a matrix, the attribute costs less than the function."""
    return x.T if x.ndim == 2 else xp.matrix_transpose(x)


def _rows(x: Array, /) -> int:
    """Return the number of rows, axis -2, that can be cut into blocks; 0 where `can_reshape_rows` is false."""
    rows = x.shape[-2]
    return rows if isinstance(rows, int) and not hasattr(x, "chunks") else 0


def can_reshape_rows(x: Array, /) -> bool:
    """Whether a reshape of the rows is free: not where an array is chunked or a size is unknown."""
    return not hasattr(x, "chunks") and set(map(type, x.shape)) == {int}


def flatten(xp: Namespace, x: Array, kept: int, /) -> Array:
    """Join the axes between the first `kept` and the last into one axis of rows."""
    return xp.reshape(x, (*x.shape[:kept], math.prod(x.shape[kept:-1]), x.shape[-1]))


def swap_axes(xp: Namespace, x: Array, axis: int, other: int, /) -> Array:
    """Return `x` with two axes swapped, which a second swap undoes. PyTorch's vmap has no rule for moveaxis."""
    order = list(range(x.ndim))
    order[axis], order[other] = order[other], order[axis]
    out: Array = xp.permute_dims(x, tuple(order))
    return out


def accumulation_dtype(xp: Namespace, x: Array, /) -> DType:
    """Return the dtype in which to sum: the precision of float64, where the device has it."""
    if x.dtype == xp.float64:
        return x.dtype
    # After a product has filled the caches, what Python does takes ten times as long: no function more than needed.
    in_host_memory = is_host_memory(x)
    if in_host_memory and x.dtype in _wide_in_host_memory:
        return _wide_in_host_memory[x.dtype]
    floats = xp.__array_namespace_info__().dtypes(device=getattr(x, "device", None), kind="real floating")
    if "float64" not in floats:
        return x.dtype
    wide = xp.float64 if x.dtype == xp.float32 else xp.result_type(x.dtype, xp.float64)
    if in_host_memory:
        _wide_in_host_memory[x.dtype] = wide
    return wide
