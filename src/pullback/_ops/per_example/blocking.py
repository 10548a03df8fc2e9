"""Checks, blocks and sums that the functions of single examples share.

The first axis of a batch counts examples. The axes between the first and the last count positions inside an example,
such as the steps of a sequence or the pixels of an image. The gradient of an example is a sum over its positions.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple

from pullback._core.arguments import same_shape, shapes, validate_arrays
from pullback._core.dtypes import floating_bits, is_complex, result_dtype
from pullback._core.memory import is_host_memory, without_warnings
from pullback._core.operators import dense_way, is_operator
from pullback._core.reductions import accumulation_dtype, can_reshape_rows, contract_rows, flatten, sum_rows
from pullback._core.stable import clipped
from pullback._core.typing import Array, ArrayT, DType, Elementwise, Namespace

# The most entries of gradients of single examples that exist at a time: they stay in a cache.
_MOST = 2**20
# The fewest rows of a block without positions: each block costs a (k, n) result.
_ROWS = 8192
# The largest scale of a row, as a share of the exponents of the dtype: it and its inverse are normal numbers.
LARGEST_SCALE = 15 / 16
# For up to 2^20 examples whose number is not known.
_UNKNOWN_SCALE = 2.0**-10


class ParameterGradients(NamedTuple, Generic[ArrayT]):
    """Gradients for the parameters of an affine layer, or a quantity made of them entry by entry.

    Attributes
    ----------
    dw : Array
        For the weights, shape (k, n), or (k,) for a vector of weights; with an axis of examples before them from
        `per_example_gradients`.
    db : Array or None
        For the bias, shape (n,) or (), likewise; None where the layer has none.
    """

    dw: ArrayT
    db: ArrayT | None


class Output(NamedTuple):
    """The form of the results: their dtype, and whether the weights are a vector."""

    xp: Namespace
    dtype: DType
    is_vector: bool

    def parameters(self, dw: Array, db: Array | None, /, *, real: bool = False) -> ParameterGradients[Any]:
        """Return the results for the weights and the bias, without the axis of the outputs for a vector of weights."""
        dtype = real_dtype(self.xp, self.dtype) if real else self.dtype
        cast = [None if x is None else self.xp.astype(x, dtype, copy=False) for x in (dw, db)]
        if self.is_vector:
            cast = [None if x is None else x[..., 0] for x in cast]
        return ParameterGradients(*cast)


def read_examples(function: str, da: Array, z: Array, /) -> tuple[Namespace, Elementwise, Output, Sequence[Any]]:
    """Check that da and z belong together and count the same examples and positions.

    Returns their namespace, complex conjugation, the form of the results, and the arrays in the dtype to compute in,
    `da` with an axis of one output for a vector of weights.
    """
    if is_operator(z, da):
        got = type(z).__name__
        msg = f"{function}: z must be an array, since entries that are 0 count, too; got {got}. {dense_way(z)}"
        raise TypeError(msg)
    xp, conj, _, ready = validate_arrays(function, ("da", "z"), da, z)
    is_vector = da.ndim > 0 and da.ndim == z.ndim - 1
    if min(da.ndim + is_vector, z.ndim) < 2:
        msg = (
            f"{function}: da and z must have at least two axes, (m, ..., n) and (m, ..., k), of which the first counts "
            f"examples; got {shapes(da=da, z=z)}. A single example is da[None, :] and z[None, :]"
        )
        raise ValueError(msg)
    if not same_shape(da.shape if is_vector else da.shape[:-1], z.shape[:-1]):
        rule = ", which da of a vector of weights has not" if is_vector else ""
        msg = f"{function}: da and z must have the same shape but for the last axis{rule}; got {shapes(da=da, z=z)}"
        raise ValueError(msg)
    if is_vector:
        ready = ready[0][..., None], ready[1]
    return xp, conj, Output(xp, result_dtype(xp, da, z), is_vector), ready


def gradients(xp: Namespace, conj: Elementwise, da: Array, z: Array, /) -> tuple[Array, Array]:
    """Return the gradients of each example, (m, k, n) and (m, n)."""
    if da.ndim == 2:
        # The standard has no copy of a lazy array; the sum over an axis of one position is one.
        return conj(z)[:, :, None] * da[:, None, :], xp.sum(da[:, None, :], axis=1)
    da, z = positions(xp, da), positions(xp, z)
    db = xp.sum(da, axis=tuple(range(1, da.ndim - 1)), dtype=accumulation_dtype(xp, da))
    return contract_rows(xp, conj(z), da, kept=1), xp.astype(db, da.dtype, copy=False)


def square_sums(xp: Namespace, conj: Elementwise, da: Array, z: Array, /) -> tuple[Array, Array]:
    """Return ``Σ_i |dw_i|²`` and ``Σ_i |db_i|²`` over the examples, in the accumulation dtype."""
    return _mean_squares(xp, conj, da, z, 1)


def mean_squares(xp: Namespace, conj: Elementwise, da: Array, z: Array, /) -> tuple[Array, Array]:
    """Return ``Σ_i |dw_i|² / m`` and ``Σ_i |db_i|² / m`` over the m examples, NaN for none."""
    return _mean_squares(xp, conj, da, z, count(xp, da, 1))


def _mean_squares(xp: Namespace, conj: Elementwise, da: Array, z: Array, m: Array | float, /) -> tuple[Array, Array]:
    """Return the sums over the examples, divided by m, which are in range where their values are."""
    if is_host_memory(da):
        with without_warnings(xp):
            dw, db = add_up(xp, partial(_square_sums, xp, conj), da, z)
            in_range = float(xp.sum(dw)) + float(db @ db) < math.inf
        if in_range:
            return dw / m, db / m
    scale = mean_scale(m)
    dw, db = add_up(xp, partial(_scaled_square_sums, xp, conj, scale), da, z)
    return dw / (m * scale**2), db / (m * scale**2)


def _square_sums(xp: Namespace, conj: Elementwise, da: Array, z: Array, /) -> tuple[Array, Array]:
    """Return the sums of squares of a block."""
    if da.ndim == 2:
        da = squared(xp, da)
        return contract_rows(xp, squared(xp, z), da), sum_rows(xp, da)
    dw, db = gradients(xp, conj, da, z)
    return _sum_examples(xp, squared(xp, dw)), _sum_examples(xp, squared(xp, db))


def _scaled_square_sums(xp: Namespace, conj: Elementwise, scale: float, da: Array, z: Array, /) -> tuple[Array, Array]:
    """Return the sums of squares of a block times scale²; no square is out of range that need not be."""
    da = da * scale
    if da.ndim > 2:
        return _square_sums(xp, conj, da, z)
    # Both factors of a row get the same size. NaN stays in its entries.
    (of_da, _), (of_z, _) = exponents(xp, da), exponents(xp, z)
    half = xp.floor((of_da - of_z) / 2)[:, None]
    half = xp.where(xp.isfinite(half), half, 0.0)
    dw, _ = _square_sums(xp, conj, da * 2.0**-half, z * 2.0**half)
    return dw, sum_rows(xp, squared(xp, da))


def add_up(xp: Namespace, step: Callable[..., Collection[Array]], da: Array, z: Array, /) -> list[Array]:
    """Return the sums of what `step` returns for blocks of examples, in the accumulation dtype."""
    each, least = (da.shape[-1] + z.shape[-1], _ROWS) if da.ndim == 2 else (da.shape[-1] * z.shape[-1], 1)
    totals: list[Array] = []
    for block in blocks(each, least, da, z):
        parts = [xp.astype(part, accumulation_dtype(xp, part), copy=False) for part in step(*block)]
        totals = [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
    return totals


def blocks(each: int, least: int, /, *arrays: Array) -> Iterator[Sequence[Array]]:
    """Cut arrays into blocks of examples, each with a working set of `each` entries; chunked arrays are not cut."""
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
    return real * real + imag * imag


def real_part(xp: Namespace, x: Array, /) -> Array:
    """Return the real part; a real array is returned as it is."""
    return xp.real(x) if is_complex(xp, x.dtype) else x


def real_dtype(xp: Namespace, dtype: DType, /) -> DType:
    """Return the dtype of the real part."""
    if not is_complex(xp, dtype):
        return dtype
    return xp.float32 if floating_bits(xp, dtype) == 32 else xp.float64


def count(xp: Namespace, x: Array, axes: int, /) -> Array | float:
    """Return the product of the first `axes` sizes, a lazy array where one is unknown; NaN instead of 0."""
    sizes = x.shape[:axes]
    if all(isinstance(size, int) for size in sizes):
        return math.prod(sizes) or math.nan
    dtype = real_dtype(xp, accumulation_dtype(xp, x))
    total = xp.sum(xp.ones_like(xp.sum(x, axis=tuple(range(axes, x.ndim))), dtype=dtype))
    return xp.where(total == 0, math.nan, total)


def mean_scale(m: Array | float, /) -> float:
    """Return a power of two that keeps a sum over m squares in range where their mean is: at most 1/√m."""
    if not isinstance(m, int | float):
        return _UNKNOWN_SCALE
    return 2.0 ** -math.ceil(math.log2(m) / 2) if m > 0 else 1.0


def exponents(xp: Namespace, x: Array, /) -> tuple[Array, Array]:
    """Return about ``log2 |x_i|`` for each row, a whole number and a constant to autodiff; and which rows are zero."""
    n, most = x.shape[-1], LARGEST_SCALE * exponent_range(xp, x)
    # The mean magnitude: unlike the maximum, Dask has it for blocks of no rows.
    size = xp.sum(xp.abs(x) * (1 / n if isinstance(n, int) and n > 0 else 1.0), axis=-1)
    is_zero = xp.equal(size, 0)
    return clipped(xp, xp.floor(xp.log2(xp.where(is_zero, 1.0, size))), -most, most), is_zero


def exponent_range(xp: Namespace, x: Array, /) -> int:
    """Return the binary exponent at which the dtype overflows."""
    return 128 if floating_bits(xp, x.dtype) == 32 else 1024


def _sum_examples(xp: Namespace, x: Array, /) -> Array:
    """Sum over the first axis, in the accumulation dtype."""
    return xp.sum(x, axis=0, dtype=accumulation_dtype(xp, x))
