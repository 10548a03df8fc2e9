"""Lazy arrays that tell when they are computed."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from pullback._core.typing import Array


class ComputedError(Exception):
    """A block of a lazy array was computed where nothing should be."""


def watched(arrays: Sequence[Any], /) -> list[Array]:
    """Return arrays of which the lazy ones raise `ComputedError` when a block is computed."""
    return [x.map_blocks(_raise, dtype=x.dtype) if is_lazy(x) else x for x in arrays]


def is_lazy(x: Any, /) -> bool:  # noqa: ANN401 - an array of any library
    """Whether an array is computed later, block by block."""
    return hasattr(x, "compute") and hasattr(x, "map_blocks")


def computes(call: Callable[[], Any], /) -> bool:
    """Whether a call computes a watched array."""
    try:
        call()
    except ComputedError:
        return True
    return False


def _raise(block: Any, /) -> Any:  # noqa: ANN401 - a block of any library
    """Raise for a block that has entries; a library may compute an empty one to learn the type of a result."""
    if math.prod(block.shape):
        raise ComputedError
    return block
