"""Norms of the gradients of single examples, without overflow or underflow on the way to a norm that is in range.

A norm is held as two factors, ``‖grad_i‖ = norm_i / root_i²``, because the norm itself may be out of range where the
clipped gradient is not. `root` is None where every entry is 1.

Squares are tried first where the arrays lie in the memory of this process, so that looking at the result is free. Only
the examples whose squares were out of range are scaled. Lazy, traced and remote arrays are always scaled.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from pullback._core.memory import is_host_memory, without_warnings
from pullback._core.reductions import accumulation_dtype, contract_rows
from pullback._core.stable import clipped, largest
from pullback._core.typing import Array, Elementwise, Namespace
from pullback._ops.per_example.blocking import (
    LARGEST_SCALE,
    blocks,
    exponent_range,
    exponents,
    positions,
    real_dtype,
    real_part,
    squared,
)

_Squares: TypeAlias = tuple[Array, tuple[Array, ...]]
"""Squared norms, and the squares that they are products of: one for each example, or a Gram matrix."""

_Route: TypeAlias = Callable[[Array, Array, Array | float | None], _Squares]
"""Takes da (m, ..., n), z (m, ..., k) and the value of the feature that belongs to the bias, None without one."""

# Up to this ratio, as a share of the exponents of the dtype, underflow changes a sum of 2^20 squares by 2^-18 of it.
_LARGEST_RATIO = 11 / 16


def norms(xp: Namespace, conj: Elementwise, da: Array, z: Array, /, *, bias: bool) -> tuple[Array, Array | None]:
    """Return the norms as ``(norm, root)``, both real and of the precision of `da`."""
    if da.ndim == 2:
        return _norms(xp, partial(_row_squares, xp, conj), da, z, bias=bias)
    da, z = positions(xp, da), positions(xp, z)
    t, k, n = z.shape[1], z.shape[-1], da.shape[-1]
    gram = z.ndim == 3 and t * (k + n) < k * n
    route = partial(_gram_squares if gram else _formed_squares, xp, conj)
    cut = blocks(2 * t * t if gram else k * n, 1, da, z)
    parts = [_norms(xp, route, *block, bias=bias) for block in cut]
    if len(parts) == 1:
        return parts[0]
    scaled = any(root is not None for _, root in parts)
    roots = [xp.ones_like(norm) if root is None else root for norm, root in parts] if scaled else []
    return xp.concat([norm for norm, _ in parts]), xp.concat(roots) if scaled else None


def _norms(xp: Namespace, route: _Route, da: Array, z: Array, /, *, bias: bool) -> tuple[Array, Array | None]:
    """Return ``(norm, root)`` of a block."""
    if not is_host_memory(da):
        return _scaled_norms(xp, route, da, z, bias=bias)
    bits = exponent_range(xp, da)
    with without_warnings(xp):
        total, factors = route(da, z, 1.0 if bias else None)
        norm = xp.sqrt(total)
        # A term that underflows changes the total by at most the smallest normal number times the other factor.
        size: Any = 1.0
        for factor in factors:
            size = _traces(xp, factor) + size
        ratio = size / total
        # Both sums are in range only if each term is.
        if float(norm @ norm + ratio @ ratio) < 2.0 ** (LARGEST_SCALE * bits):
            return xp.astype(norm, real_dtype(xp, da.dtype), copy=False), None
        in_range = (total * 2.0 ** (_LARGEST_RATIO * bits) >= size) & (total < math.inf)
    norm = xp.astype(norm, real_dtype(xp, da.dtype), copy=False)
    rest = xp.logical_not(in_range)
    root = xp.ones_like(norm)
    norm[rest], root[rest] = _scaled_norms(xp, route, da[rest], z[rest], bias=bias)
    return norm, root


def _scaled_norms(xp: Namespace, route: _Route, da: Array, z: Array, /, *, bias: bool) -> tuple[Array, Array]:
    """Return ``(norm, root)`` of a block, after scaling each row to a size of about 1.

    The scales are powers of two and constants to autodiff. The norm of a gradient of zero has derivative 0.
    """
    (of_da, is_empty), (of_z, z_is_zero) = exponents(xp, da), exponents(xp, z)
    if bias:
        of_z = clipped(xp, of_z, 0.0)
    else:
        is_empty = xp.logical_or(is_empty, z_is_zero)
    one = 2.0**-of_z
    da, z = da * (2.0**-of_da)[..., None], z * one[..., None]
    exponent = of_da + of_z
    if da.ndim > 2:
        # One scale for all positions of an example: that of the largest. Positions that add nothing do not count.
        of_positions = xp.where(is_empty, -4.0 * exponent_range(xp, da), exponent)
        exponent = of_positions
        while exponent.ndim > 1:
            exponent = _largest(xp, exponent)
        exponent = clipped(xp, exponent, -2 * LARGEST_SCALE * exponent_range(xp, da))
        below = of_positions - exponent[(slice(None), *[None] * (of_positions.ndim - 1))]
        da = da * (2.0**below)[..., None]
    total, _ = route(da, z, one if bias else None)
    # Rounding may leave less than nothing where the positions of an example cancel.
    is_zero = total <= 0
    norm = xp.where(is_zero, 0.0, xp.sqrt(xp.where(is_zero, 1.0, total)))
    return xp.astype(norm, real_dtype(xp, da.dtype), copy=False), 2.0 ** (exponent * -0.5)


def _row_squares(xp: Namespace, conj: Elementwise, da: Array, z: Array, one: Array | float | None, /) -> _Squares:
    """Multiply ``‖z_i‖² + 1`` and ``‖da_i‖²``."""
    of_z, of_da = _row_dot(xp, conj, z), _row_dot(xp, conj, da)
    if one is not None:
        of_z = of_z + (one if isinstance(one, float) else one * one)
    return of_z * of_da, (of_z, of_da)


def _gram_squares(xp: Namespace, conj: Elementwise, da: Array, z: Array, one: Array | float | None, /) -> _Squares:
    """Sum the products of two Gram matrices over the positions of (m, t, ·) arrays."""
    of_z, of_da = conj(z) @ xp.matrix_transpose(z), da @ xp.matrix_transpose(conj(da))
    wide = accumulation_dtype(xp, da)
    of_z, of_da = xp.astype(of_z, wide, copy=False), xp.astype(of_da, wide, copy=False)
    if one is not None:
        of_z = of_z + (one if isinstance(one, float) else one[:, :, None] * one[:, None, :])
    return xp.sum(real_part(xp, of_z * of_da), axis=(1, 2)), (of_z, of_da)


def _formed_squares(xp: Namespace, conj: Elementwise, da: Array, z: Array, one: Array | float | None, /) -> _Squares:
    """Form the gradients and sum their squares."""
    total = _sum_squares(xp, contract_rows(xp, conj(z), da, kept=1))
    if one is not None:
        da = da if isinstance(one, float) else da * one[..., None]
        db = xp.sum(da, axis=tuple(range(1, da.ndim - 1)), dtype=accumulation_dtype(xp, da))
        total = total + _sum_squares(xp, db)
    return total, ()


def _sum_squares(xp: Namespace, x: Array, /) -> Array:
    """Return ``Σ |x|²`` over every axis but the first, in the accumulation dtype."""
    squares = squared(xp, x)
    return xp.sum(squares, axis=tuple(range(1, x.ndim)), dtype=accumulation_dtype(xp, squares))


def _row_dot(xp: Namespace, conj: Elementwise, x: Array, /) -> Array:
    """Return ``‖x_i‖²`` for each row, as a product of matrices, which needs no array of squares."""
    return real_part(xp, (conj(x)[:, None, :] @ x[:, :, None])[:, 0, 0])


def _traces(xp: Namespace, x: Array, /) -> Array:
    """Return the traces of Gram matrices (m, t, t); squares (m,) are returned as they are."""
    if x.ndim == 1:
        return x
    m, t, _ = x.shape
    diagonals: Array = xp.reshape(x, (m, t * t))[:, :: t + 1]
    return xp.sum(real_part(xp, diagonals), axis=1)


def _largest(xp: Namespace, x: Array, /) -> Array:
    """Return the maximum over the last axis; 0 where that is empty."""
    return xp.sum(x, axis=-1) if x.shape[-1] == 0 else largest(xp, x)[..., 0]
