"""Accurate sums as operations of the tape, so that derivatives of every order use them."""

from typing import Any

from pullback._autodiff.rules.arithmetic import identity
from pullback._autodiff.rules.strong import conj
from pullback._autodiff.typing import Array
from pullback._core import tracing
from pullback._core.operators import Operator
from pullback._core.reduction_policy import SHORT
from pullback._core.reductions import (
    accumulation_dtype,
    can_reshape_rows,
    contract_rows,
    dot_last,
    product,
    sum_all,
    sum_last,
    sum_rows,
)
from pullback._core.typing import Namespace


def _sum_rows(xp: Namespace, y: Array, /) -> Any:
    return sum_rows(xp, y), (identity,)


def _sum_all(xp: Namespace, x: Array, /) -> Any:
    return sum_all(xp, x), (identity,)


def _sum_last(xp: Namespace, x: Array, /) -> Any:
    return sum_last(xp, x), (identity,)


def _dot_last(xp: Namespace, x: Array, y: Array, /) -> Any:
    return dot_last(xp, x, y), (_times, y), (_times, x)


def _times(xp: Namespace, g: Array, y: Array, /) -> Array:
    return g * conj(xp, y)


def _contract_rows(xp: Namespace, x: Array, y: Array, /) -> Any:
    return contract_rows(xp, x, y), (_to_x, y), (_to_y, x)


def _to_x(xp: Namespace, g: Array, y: Array, /) -> Array:
    return product(xp, conj(xp, y), g.T)


def _to_y(xp: Namespace, g: Array, x: Array, /) -> Array:
    return product(xp, conj(xp, x), g)


def _product(xp: Namespace, x: Array, w: Array, /) -> Any:
    return product(xp, x, w), (_product_x, w), (_product_w, x)


def _product_x(xp: Namespace, g: Array, w: Array, /) -> Array:
    return product(xp, g, conj(xp, w).T)


def _product_w(xp: Namespace, g: Array, x: Array, /) -> Array:
    return contract_rows(xp, conj(xp, x), g)


def _operator(xp: Namespace, x: Array, operator: Operator, /) -> Any:
    return operator.product(xp, x), (_adjoint, operator)


def _adjoint(xp: Namespace, g: Array, operator: Operator, /) -> Array:
    return operator.adjoint(xp).product(xp, g)


def _sum_axes(xp: Namespace, x: Array, axes: tuple[int, ...], /) -> Any:
    return sum_axes(xp, x, axes), (identity,)


def sum_axes(xp: Namespace, x: Array, axes: tuple[int, ...], /) -> Array:
    """Sum over some axes, which are kept with size 1, in the accumulation dtype; return the dtype of `x`."""
    if type(x) in tracing.sums:
        return xp.call_internal(_sum_axes, x, axes)
    few = axes == (x.ndim - 1,) and can_reshape_rows(x) and x.shape[-1] <= SHORT
    if few and x.dtype in (xp.float32, xp.float64):
        # A chain of so few entries is as accurate as the dtype.
        return sum_last(xp, x)
    total = xp.sum(x, axis=axes, dtype=accumulation_dtype(xp, x), keepdims=True)
    return xp.astype(total, x.dtype, copy=False)


_RULES = {
    "contract_rows": _contract_rows,
    "dot_last": _dot_last,
    "operator": _operator,
    "product": _product,
    "sum_all": _sum_all,
    "sum_last": _sum_last,
    "sum_rows": _sum_rows,
}


def record_sum(name: str, xp: Any, *arguments: Any) -> Array:
    """Record a function of `reductions`, or the product with an operator, as one operation."""
    return xp.call_internal(_RULES[name], *arguments)
