"""Reductions."""

from typing import Any

from pullback._autodiff.rules.registry import rule
from pullback._autodiff.shapes import keep_dims
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace


@rule
def sum_(xp: Namespace, x: Array, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    out = xp.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)
    return out, (_spread, x.ndim, axis, keepdims)


def _spread(xp: Namespace, g: Array, ndim: int, axis: Any, keepdims: bool, /) -> Array:
    return keep_dims(xp, g, ndim, axis, keepdims)
