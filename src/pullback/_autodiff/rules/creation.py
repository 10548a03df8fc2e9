"""Arrays made of active ones."""

from typing import Any

from array_api_compat import device as device_of

from pullback._autodiff.rules.manipulation import same, to_its_device
from pullback._autodiff.rules.registry import REFUSED, rule
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace

REFUSED["arange"] = "its length depends on its arguments. Write start + step * arange(n)"
REFUSED["from_dlpack"] = "another library may share the memory. Use asarray(x), which stays within the library"


@rule
def asarray(xp: Namespace, obj: Any, /, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:
    out = xp.asarray(obj, dtype=dtype, device=device, copy=copy)
    if isinstance(obj, list | tuple):
        return out, *((_entry, place) for place in _places(obj))
    if device is None:
        return out, (same,)
    return out, (to_its_device, device_of(obj) if hasattr(obj, "dtype") else None)


def _places(obj: Any, /) -> list[tuple[int, ...]]:
    """Return the index of each item of nested sequences."""
    if not isinstance(obj, list | tuple):
        return [()]
    return [(i, *place) for i, item in enumerate(obj) for place in _places(item)]


def _entry(_: Namespace, g: Array, place: tuple[int, ...], /) -> Array:
    return g[(*place, ...)]


@rule
def full(xp: Namespace, shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    sizes = len(shape) if isinstance(shape, tuple | list) else 1
    return xp.full(shape, fill_value, dtype=dtype, device=device), *(None,) * sizes, (same,)


@rule
def full_like(xp: Namespace, x: Array, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return xp.full_like(x, fill_value, dtype=dtype, device=device), None, (same,)


@rule
def linspace(
    xp: Namespace, start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Any:
    out = xp.linspace(start, stop, num, dtype=dtype, device=device, endpoint=endpoint)
    return out, (_linspace, 1, 0, num, endpoint), (_linspace, 0, 1, num, endpoint)


def _linspace(xp: Namespace, g: Array, start: int, stop: int, num: int, endpoint: bool, /) -> Array:
    return g * xp.linspace(start, stop, num, dtype=g.dtype, device=device_of(g), endpoint=endpoint)
