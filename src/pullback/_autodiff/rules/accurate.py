"""The accurate sums of this package as operations of the tape: derivatives of derivatives use them, too."""

from typing import Any

from pullback._autodiff.rules.strong import conj
from pullback._autodiff.typing import Array
from pullback._core import reductions
from pullback._core.reductions import accumulation_dtype
from pullback._core.typing import Namespace


def sum_rows(xp: Namespace, y: Array, /) -> Array:
    """Sum over all axes but the last."""
    record = getattr(xp, "call_internal", None)
    return reductions.sum_rows(xp, y) if record is None else record(_sum_rows, y)


def _sum_rows(xp: Namespace, y: Array, /) -> Any:
    return sum_rows(xp, y), (_same,)


def _same(xp: Namespace, g: Array, /) -> Array:
    """Return a cotangent that broadcasts to its primal."""
    del xp
    return g


def sum_all(xp: Namespace, x: Array, /) -> Array:
    """Sum over all axes."""
    record = getattr(xp, "call_internal", None)
    return reductions.sum_all(xp, x) if record is None else record(_sum_all, x)


def _sum_all(xp: Namespace, x: Array, /) -> Any:
    return sum_all(xp, x), (_same,)


def sum_axes(xp: Namespace, x: Array, axes: tuple[int, ...], /) -> Array:
    """Sum over some axes, which are kept with size 1, in the accumulation dtype; return the dtype of `x`."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_sum_axes, x, axes)
    total = xp.sum(x, axis=axes, dtype=accumulation_dtype(xp, x), keepdims=True)
    return xp.astype(total, x.dtype, copy=False)


def _sum_axes(xp: Namespace, x: Array, axes: tuple[int, ...], /) -> Any:
    return sum_axes(xp, x, axes), (_same,)


def contract_rows(xp: Namespace, x: Array, y: Array, /) -> Array:
    """Return ``Σ_r x_rk y_rn`` over all axes but the last."""
    record = getattr(xp, "call_internal", None)
    return reductions.contract_rows(xp, x, y) if record is None else record(_contract_rows, x, y)


def _contract_rows(xp: Namespace, x: Array, y: Array, /) -> Any:
    return contract_rows(xp, x, y), (_to_x, y), (_to_y, x)


def _to_x(xp: Namespace, g: Array, y: Array, /) -> Array:
    return product(xp, conj(xp, y), g.T)


def _to_y(xp: Namespace, g: Array, x: Array, /) -> Array:
    return product(xp, conj(xp, x), g)


def product(xp: Namespace, x: Array, w: Array, /) -> Array:
    """Return ``x @ w`` for a matrix `w`: a single product, whatever the batch axes of `x`."""
    record = getattr(xp, "call_internal", None)
    return reductions.product(xp, x, w) if record is None else record(_product, x, w)


def _product(xp: Namespace, x: Array, w: Array, /) -> Any:
    return product(xp, x, w), (_product_x, w), (_product_w, x)


def _product_x(xp: Namespace, g: Array, w: Array, /) -> Array:
    return product(xp, g, conj(xp, w).T)


def _product_w(xp: Namespace, g: Array, x: Array, /) -> Array:
    return contract_rows(xp, conj(xp, x), g)
