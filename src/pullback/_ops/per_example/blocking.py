"""What the gradients of single examples have in common: their checks, and the blocks in which they are formed.

The first axis of a batch counts examples, and the axes between it and the last count positions inside an example: the
steps of a sequence, the pixels of an image. An example's gradient is a sum over its positions.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from pullback._core.arguments import result_dtype, same_shape, shapes, validate_arrays
from pullback._core.reductions import accumulation_dtype, can_reshape_rows, contract_rows, flatten, sum_rows
from pullback._core.typing import Array, DType, Elementwise, Namespace

# So many numbers of single examples' gradients exist at a time: they stay in a cache, and are worth a call.
_MOST = 2**20
# Without positions nothing is formed but squares, and a product of fewer rows would not be worth its (k, n) result.
_ROWS = 8192


class ParameterGradients(NamedTuple):
    """Gradients for the parameters of an affine layer, or a quantity made of them entry by entry.

    Attributes
    ----------
    dw : Array
        For the weights.
    db : Array or None
        For the bias; None where the layer has none.
    """

    dw: Array
    db: Array | None


def read_examples(function: str, da: Array, z: Array, /) -> tuple[Namespace, Elementwise, DType, Sequence[Any]]:
    """Check that da and z belong together and count the same examples and positions.

    Returns their namespace, complex conjugation, their promoted dtype, and the arrays in the dtype to compute in.
    """
    xp, conj, _, ready = validate_arrays(function, ("da", "z"), da, z)
    if min(da.ndim, z.ndim) < 2:
        msg = (
            f"{function}: da and z must have at least two axes, (m, ..., n) and (m, ..., k), of which the first counts "
            f"examples; got {shapes(da=da, z=z)}. A single example is da[None, :] and z[None, :]"
        )
        raise ValueError(msg)
    if not same_shape(da.shape[:-1], z.shape[:-1]):
        msg = f"{function}: da and z must have the same shape but for the last axis; got {shapes(da=da, z=z)}"
        raise ValueError(msg)
    return xp, conj, result_dtype(xp, da, z), ready


def gradients(xp: Namespace, conj: Elementwise, da: Array, z: Array, /) -> tuple[Array, Array]:
    """Return the gradients of each example, (m, k, n) and (m, n)."""
    if da.ndim == 2:
        # The standard has no copy of a lazy array; the sum over an axis of one position is one.
        return conj(z)[:, :, None] * da[:, None, :], xp.sum(da[:, None, :], axis=1)
    da, z = positions(xp, da), positions(xp, z)
    db = xp.sum(da, axis=tuple(range(1, da.ndim - 1)), dtype=accumulation_dtype(xp, da))
    return contract_rows(xp, conj(z), da, kept=1), xp.astype(db, da.dtype, copy=False)


def square_sums(xp: Namespace, conj: Elementwise, da: Array, z: Array, /) -> tuple[Array, Array]:
    """Return ``Σ_i |dw_i|²`` and ``Σ_i |db_i|²`` over the examples."""
    if da.ndim == 2:
        da = squared(xp, da)
        return contract_rows(xp, squared(xp, z), da), sum_rows(xp, da)
    dw, db = gradients(xp, conj, da, z)
    return _sum_examples(xp, squared(xp, dw)), _sum_examples(xp, squared(xp, db))


def add_up(xp: Namespace, step: Callable[..., Collection[Array]], da: Array, z: Array, /) -> list[Array]:
    """Return the sums of what `step` returns for blocks of examples, added up in the widest dtype of the device."""
    each, least = (da.shape[-1] + z.shape[-1], _ROWS) if da.ndim == 2 else (da.shape[-1] * z.shape[-1], 1)
    totals: list[Array] = []
    for block in blocks(each, least, da, z):
        parts = [xp.astype(part, accumulation_dtype(xp, part), copy=False) for part in step(*block)]
        totals = [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
    return totals


def blocks(each: int, least: int, /, *arrays: Array) -> Iterator[Sequence[Array]]:
    """Cut arrays into blocks of examples, each of which takes `each` numbers to work on; chunks are blocks already."""
    if not all(map(can_reshape_rows, arrays)):
        yield arrays
        return
    rows, size = arrays[0].shape[0], max(_MOST // max(each, 1), least)
    for start in range(0, max(rows, 1), size):
        yield [x[start : min(start + size, rows), ...] for x in arrays]


def positions(xp: Namespace, x: Array, /) -> Array:
    """Return `x` with its positions in one axis, (m, t, n), where that is free."""
    return flatten(xp, x, 1) if x.ndim > 3 and can_reshape_rows(x) else x


def squared(xp: Namespace, x: Array, /) -> Array:
    """Return ``|x|²``, which is real."""
    if not is_complex(xp, x.dtype):
        return x * x
    real, imag = xp.real(x), xp.imag(x)
    out: Array = real * real + imag * imag
    return out


def is_complex(xp: Namespace, dtype: DType, /) -> bool:
    """Whether a dtype is complex; the standard's `isdtype` takes longer than a small product."""
    return dtype in (xp.complex64, xp.complex128)


def real_dtype(xp: Namespace, dtype: DType, /) -> DType:
    """Return the dtype of the real part."""
    if not is_complex(xp, dtype):
        return dtype
    return xp.float32 if dtype == xp.complex64 else xp.float64


def count(xp: Namespace, x: Array, axes: int, /) -> Array | float:
    """Return the product of the first `axes` sizes, NaN for none: a mean over nothing; lazily where one is unknown."""
    sizes = x.shape[:axes]
    if all(isinstance(size, int) for size in sizes):
        return math.prod(sizes) or math.nan
    dtype = real_dtype(xp, accumulation_dtype(xp, x))
    total = xp.sum(xp.ones_like(xp.sum(x, axis=tuple(range(axes, x.ndim))), dtype=dtype))
    out: Array = xp.where(total == 0, math.nan, total)
    return out


def _sum_examples(xp: Namespace, x: Array, /) -> Array:
    """Sum over the first axis, in the widest dtype of the device."""
    out: Array = xp.sum(x, axis=0, dtype=accumulation_dtype(xp, x))
    return out
