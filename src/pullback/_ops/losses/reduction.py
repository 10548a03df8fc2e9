"""What all losses share: their result, the checks of their arguments, and the reduction over examples."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias

from pullback._core.arguments import (
    cached_namespace,
    is_dtype,
    same_shape,
    shapes,
    validate_arrays,
    validate_library_and_device,
)
from pullback._core.reductions import sum_all
from pullback._core.typing import Array, Cast, Namespace

Reduction: TypeAlias = Literal["mean", "sum", "none"]
_REDUCTIONS = ("mean", "sum", "none")


class Loss(NamedTuple):
    """A loss and its gradient.

    Attributes
    ----------
    value : Array
        The loss: a 0-d array, or one entry for each example with ``reduction="none"``.
    da : Array
        The upstream gradient ``∂value/∂a``, for a backward to take: shape, dtype and device of `a`. With
        ``reduction="none"``, the gradient of each example's own loss.
    """

    value: Array
    da: Array


def read_loss(
    function: str, weights: Array | None, reduction: str, /, **arrays: Array
) -> tuple[Namespace, Cast, list[Any]]:
    """Check the arguments of a loss, `a` and `y` and others of the shape of `a`, but for the shape of `y`.

    Returns their namespace, the cast of a result, and the arrays, weights last, in the dtype to compute in; a `y` of
    integers as it is.
    """
    given = arrays if weights is None else {**arrays, "weights": weights}
    floating = given
    xp = cached_namespace(*given.values())
    if xp is None:
        xp = validate_library_and_device(function, tuple(given), *given.values())
        floating = _floating(function, xp, given)
    _check_shapes(function, given)
    if reduction not in _REDUCTIONS:
        msg = f"{function}: reduction must be one of {_REDUCTIONS}; got {reduction!r}"
        raise ValueError(msg)
    _, _, cast_output, ready = validate_arrays(function, tuple(floating), *floating.values())
    given.update(zip(floating, ready, strict=True))
    if weights is not None:
        weights = xp.astype(given.pop("weights"), given["a"].dtype, copy=False)
    return xp, cast_output, [*given.values(), weights]


def _floating(function: str, xp: Namespace, given: dict[str, Array], /) -> dict[str, Array]:
    """Return the arrays that are not of integers, as only targets and weights may be."""
    floating: dict[str, Array] = {}
    for name, x in given.items():
        # Asking for the kind of a dtype takes as long as a small sum: once will do for all that have it.
        if not any(x.dtype == other.dtype for other in floating.values()):
            either = name in {"y", "weights"}
            if either and is_dtype(xp, x.dtype, "integral"):
                continue
            if not is_dtype(xp, x.dtype, "real floating"):
                kind = "a real floating dtype or an integer one" if either else "a real floating dtype"
                msg = f"{function}: {name} must have {kind}; got {x.dtype}"
                raise TypeError(msg)
        floating[name] = x
    return floating


def _check_shapes(function: str, given: dict[str, Array], /) -> None:
    """Check all shapes but that of `y`."""
    a = given["a"]
    if a.ndim == 0:
        msg = f"{function}: a must have a last axis, of the outputs for an example, shape (..., n); got {shapes(a=a)}"
        raise ValueError(msg)
    if "v" in given and not same_shape(given["v"].shape, a.shape):
        msg = f"{function}: v must have the shape of a; got {shapes(v=given['v'], a=a)}"
        raise ValueError(msg)
    if "weights" in given and not same_shape(given["weights"].shape, a.shape[:-1]):
        msg = (
            f"{function}: weights must have one entry for each example, the shape of a without its last axis; "
            f"got {shapes(weights=given['weights'], a=a)}"
        )
        raise ValueError(msg)


def read_outputs(
    function: str, weights: Array | None, reduction: str, /, **arrays: Array
) -> tuple[Namespace, Cast, list[Any]]:
    """Check the arguments of a loss whose targets `y`, which come last, have the shape of `a`."""
    xp, cast_output, (*others, y, weights) = read_loss(function, weights, reduction, **arrays)
    if not same_shape(arrays["y"].shape, arrays["a"].shape):
        msg = f"{function}: y must have the shape of a; got {shapes(y=arrays['y'], a=arrays['a'])}"
        raise ValueError(msg)
    return xp, cast_output, [*others, xp.astype(y, others[0].dtype, copy=False), weights]


def reduced(xp: Namespace, value: Array, da: Array, weights: Array | None, reduction: str, /) -> tuple[Array, Array]:
    """Weigh and reduce losses (..., 1) and their gradients (..., n), which nothing else holds: `da` is overwritten."""
    value = value[..., 0]
    da = scaled(xp, da, weights, reduction)
    if weights is not None:
        value = _mask_zero_weight(xp, value, weights) * weights
    if reduction == "none":
        return value, da
    value = sum_all(xp, value)
    return (value / _total(xp, da, weights) if reduction == "mean" else value), da


def scaled(xp: Namespace, x: Array, weights: Array | None, reduction: str, /) -> Array:
    """Give each example of `x` its weight in the reduced loss; `x` (..., n) is overwritten."""
    if weights is not None:
        x = _mask_zero_weight(xp, x, weights[..., None])
        x *= (weights / _total(xp, x, weights) if reduction == "mean" else weights)[..., None]
    elif reduction == "mean":
        x /= _total(xp, x, None)
    return x


def _mask_zero_weight(xp: Namespace, x: Array, weights: Array, /) -> Array:
    """Return 0 in place of what has weight 0: a product alone makes NaN of what is not finite."""
    out: Array = xp.where(xp.equal(weights, 0), 0.0, x)
    return out


def _total(xp: Namespace, x: Array, weights: Array | None, /) -> Array | float:
    """Return the weight of all examples, or their number; NaN for none, of which there is no mean."""
    total: Any
    if weights is not None:
        total = sum_all(xp, weights)
    elif all(isinstance(size, int) for size in x.shape[:-1]):
        return math.prod(x.shape[:-1]) or math.nan
    else:  # counted lazily where it is not known
        total = sum_all(xp, xp.sum(xp.zeros_like(x), axis=-1) + 1)
    out: Array = xp.where(total == 0, math.nan, total)
    return out
