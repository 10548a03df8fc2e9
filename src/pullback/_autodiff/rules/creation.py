"""Arrays made of active ones."""

from typing import Any

from array_api_compat import device as device_of

from pullback._autodiff.rules.manipulation import to_its_device
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
        return out, *((_entry, place, _other_device(out, leaf)) for place, leaf in leaves.items())
    out = xp.asarray(obj, dtype=dtype, device=device, copy=copy)
    return out, (to_its_device, _other_device(out, obj))


def _leaves(obj: Any, /) -> dict[tuple[int, ...], Any]:
    """Return the items of nested sequences, by their index."""
    if not isinstance(obj, list | tuple):
        return {(): obj}
    return {(i, *place): leaf for i, item in enumerate(obj) for place, leaf in _leaves(item).items()}


def _stacked(xp: Namespace, obj: Any, /) -> Array:
    """Return the array of nested sequences by stacking its parts."""
    return xp.stack([_stacked(xp, item) for item in obj]) if isinstance(obj, list | tuple) else xp.asarray(obj)


def _other_device(out: Array, x: Any, /) -> Any:
    """Return the device of an argument, None where it has none or the array that is made of it lies there, too."""
    if not hasattr(x, "dtype"):
        return None
    place = device_of(x)
    return None if place == device_of(out) else place


def _entry(xp: Namespace, g: Array, place: tuple[int, ...], device: Any, /) -> Array:
    return to_its_device(xp, g[(*place, ...)], device)


@rule
def full(xp: Namespace, shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    sizes = len(shape) if isinstance(shape, tuple | list) else 1
    out = xp.full(shape, fill_value, dtype=dtype, device=device)
    return out, *(None,) * sizes, (to_its_device, _other_device(out, fill_value))


@rule
def full_like(xp: Namespace, x: Array, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    out = xp.full_like(x, fill_value, dtype=dtype, device=device)
    return out, None, (to_its_device, _other_device(out, fill_value))


@rule
def linspace(
    xp: Namespace, start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Any:
    out = xp.linspace(start, stop, num, dtype=dtype, device=device, endpoint=endpoint)
    ends = ((start, 1, 0), (stop, 0, 1))
    return out, *((_linspace, *weights, num, endpoint, _other_device(out, x)) for x, *weights in ends)


def _linspace(xp: Namespace, g: Array, start: int, stop: int, num: int, endpoint: bool, device: Any, /) -> Array:
    out = g * xp.linspace(start, stop, num, dtype=g.dtype, device=device_of(g), endpoint=endpoint)
    return to_its_device(xp, out, device)
