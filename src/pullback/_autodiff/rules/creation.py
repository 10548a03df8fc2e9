"""Arrays made of active ones."""

from typing import Any

from array_api_compat import device as device_of

from pullback._autodiff.rules.manipulation import same, to_its_device
from pullback._autodiff.rules.registry import UNSUPPORTED, rule
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace

UNSUPPORTED["arange"] = "its length depends on its arguments. Write start + step * arange(n)"
UNSUPPORTED["from_dlpack"] = "another library may share the memory. Use asarray(x), which stays within the library"


@rule
def asarray(xp: Namespace, obj: Any, /, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:
    if isinstance(obj, list | tuple):
        leaves = _leaves(obj)
        # Of nested lists, Dask computes the arrays.
        items = _stacked(xp, obj) if any(hasattr(leaf, "chunks") for leaf in leaves.values()) else obj
        out = xp.asarray(items, dtype=dtype, device=device, copy=copy)
        return out, *((_entry, place) for place in leaves)
    out = xp.asarray(obj, dtype=dtype, device=device, copy=copy)
    if device is None:
        return out, (same,)
    return out, (to_its_device, device_of(obj) if hasattr(obj, "dtype") else None)


def _leaves(obj: Any, /) -> dict[tuple[int, ...], Any]:
    """Return the items of nested sequences, by their index."""
    if not isinstance(obj, list | tuple):
        return {(): obj}
    return {(i, *place): leaf for i, item in enumerate(obj) for place, leaf in _leaves(item).items()}


def _stacked(xp: Namespace, obj: Any, /) -> Array:
    """Return the array of nested sequences by stacking its parts."""
    return xp.stack([_stacked(xp, item) for item in obj]) if isinstance(obj, list | tuple) else xp.asarray(obj)


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
