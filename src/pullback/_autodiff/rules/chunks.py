"""Axes in one chunk, which Fourier transforms of chunked arrays ask for."""

from typing import Any

from pullback._autodiff.rules.arithmetic import identity
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace


def one_chunk(xp: Namespace, x: Array, axes: tuple[int, ...], /) -> Array:
    """Return a chunked array with one chunk along some axes; other arrays as they are."""
    if not hasattr(x, "chunks"):
        return x
    record = getattr(xp, "call_internal", None)
    return x.rechunk(dict.fromkeys(axes, -1)) if record is None else record(_one_chunk, x, axes)


def _one_chunk(xp: Namespace, x: Array, axes: tuple[int, ...], /) -> Any:
    return one_chunk(xp, x, axes), (identity,)
