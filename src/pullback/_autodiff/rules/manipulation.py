"""Functions that move entries: shapes, axes and order."""

from typing import Any

from pullback._autodiff.rules.registry import rule
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace


@rule
def T(xp: Namespace, x: Array, /) -> Any:  # noqa: N802 - the attribute's name
    del xp
    return x.T, (_transpose,)


def _transpose(xp: Namespace, g: Array, /) -> Array:
    del xp
    return g.T
