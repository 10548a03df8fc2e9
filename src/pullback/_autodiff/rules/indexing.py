"""Indexing: ``x[key]``, ``x[key] = v``, `take` and `take_along_axis`."""

import functools
import math
from typing import Any, NoReturn

from array_api_compat import device

from pullback._autodiff.rules.registry import rule
from pullback._autodiff.rules.scatter import add_at, put_rows
from pullback._autodiff.shapes import Like, like, zeros
from pullback._autodiff.typing import Array
from pullback._core.memory import place
from pullback._core.typing import Namespace

_PLACES = frozenset({int, slice, type(None), type(Ellipsis)})
_WHOLE = slice(None)


@rule
def getitem(xp: Namespace, x: Array, key: Any, /) -> Any:
    out, items = x[key], key if isinstance(key, tuple) else (key,)
    if all(type(item) in _PLACES for item in items):
        return out, (_set_basic, like(x), items)
    key = tuple(item if type(item) in _PLACES else _index_array(xp, x, item) for item in items)
    arrays = [item for item in key if type(item) not in _PLACES]
    if len(arrays) == 1 and xp.isdtype(arrays[0].dtype, "bool"):
        return out, (_set_mask, like(x), key)
    if len(arrays) == 1 and all(
        item is Ellipsis or (type(item) is slice and item == _WHOLE) for item in key if item is not arrays[0]
    ):
        place = next(i for i, item in enumerate(key) if item is arrays[0])
        axis = place if all(item is not Ellipsis for item in key[:place]) else x.ndim - (len(key) - place)
        return out, (_add_along, like(x), axis, arrays[0])
    return out, (_add_anywhere, like(x), key)


def _index_array(xp: Namespace, x: Array, item: Any, /) -> Array:
    """Return a part of an index as an array of the library, where it is a list or an array of NumPy."""
    own = type(item) is type(x) or hasattr(item, "__array_namespace__")
    return item if own else xp.asarray(item, device=device(x))


def _set_basic(xp: Namespace, g: Array, spec: Like, items: tuple[Any, ...], /) -> Array:
    """Return zeros with `g` at the place of integers and slices."""
    items = _for_each_axis(items, len(spec.shape))
    new = tuple(a for a, item in enumerate(item for item in items if type(item) is not int) if item is None)
    g = xp.squeeze(g, axis=new) if new else g
    items = tuple(item for item in items if item is not None)
    if 0 in g.shape:
        return zeros(xp, spec._replace(dtype=g.dtype), g)
    if not (_sets_items(getattr(xp, "raw", xp)) and all(type(size) is int or size is None for size in spec.shape)):
        return _gathered(xp, g, spec, items)
    return put(xp, zeros(xp, spec._replace(dtype=g.dtype), g), items or ..., g)


@functools.cache
def _sets_items(library: Namespace, /) -> bool:
    """Whether the arrays of a library have ``x[key] = v``, be it to say what they have instead."""
    return hasattr(library.empty((0,)), "__setitem__")


def _for_each_axis(items: tuple[Any, ...], ndim: int, /) -> tuple[Any, ...]:
    """Write an index of integers, slices and None out: what it leaves out is a slice of all."""
    rest = ndim - sum(item is not None and item is not Ellipsis for item in items)
    place = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    return (*items[:place], *(_WHOLE,) * rest, *items[place + 1 :])


def _gathered(xp: Namespace, g: Array, spec: Like, items: tuple[Any, ...], /) -> Array:
    """Do what an assignment does, which an array that does not change, or a chunked one of unknown size, lacks."""
    for axis, (item, size) in enumerate(zip(items, spec.shape, strict=True)):
        if type(item) is int:
            g = g[(*(_WHOLE,) * axis, None, ...)]
            item = slice(item, item % size + 1)  # noqa: PLW2901 - an integer is a slice of one
        if item != _WHOLE:
            g = _put_slice(xp, g, axis, size, item)
    return g


def _put_slice(xp: Namespace, g: Array, axis: int, size: int, item: slice, /) -> Array:
    """Return zeros of some size along an axis with `g` at a slice of it."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_record_slice, g, axis, size, item)
    taken = {at: i for i, at in enumerate(range(*item.indices(size)))}
    shape = (*(1,) * axis, size, *(1,) * (g.ndim - axis - 1))
    chosen = xp.reshape(xp.asarray([at in taken for at in range(size)], **place(g)), shape)
    if not taken:
        return xp.where(chosen, xp.sum(g, axis=axis, keepdims=True), 0)
    return xp.where(chosen, g[(*(_WHOLE,) * axis, [taken.get(at, 0) for at in range(size)])], 0)


def _record_slice(xp: Namespace, g: Array, axis: int, size: int, item: slice, /) -> Any:
    return _put_slice(xp, g, axis, size, item), (_gather, (*(_WHOLE,) * axis, item, ...))


def _set_mask(xp: Namespace, g: Array, spec: Like, key: Any, /) -> Array:
    """Return zeros with `g` where a mask is true."""
    if hasattr(g, "chunks"):
        mask, *rest = key
        if type(mask) in _PLACES or any(not (item is Ellipsis or item == _WHOLE) for item in rest):
            _raise_mask("the mask must be the first index, and others whole slices")
        flat = xp.reshape(mask, (-1,)) if mask.ndim > 1 else mask
        if len(flat.chunks[0]) != len(g.chunks[0]):
            _raise_mask("the chunks of the result must be left as they are")
        return xp.reshape(put_rows(xp, g, flat), spec.shape) if mask.ndim > 1 else put_rows(xp, g, flat)
    return put(xp, zeros(xp, spec._replace(dtype=g.dtype), g), key if len(key) > 1 else key[0], g)


def _raise_mask(rule: str, /) -> NoReturn:
    msg = (
        f"x[mask]: of chunked arrays, whose selections have unknown sizes, {rule}. Use where(mask, x, 0) in place of "
        "x[mask], or compute the sizes first"
    )
    raise NotImplementedError(msg)


def _add_along(xp: Namespace, g: Array, spec: Like, axis: int, indices: Array, /) -> Array:
    """Add `g` up at indices along an axis, which may occur more than once."""
    shape = spec.shape
    n = shape[axis]
    flat = xp.reshape(indices, (-1,))
    if indices.ndim != 1:
        g = xp.reshape(g, (*shape[:axis], flat.shape[0], *shape[axis + 1 :]))
    return add_at(xp, g, _from_start(xp, flat, n), axis, n)


def _from_start(xp: Namespace, indices: Array, n: int, /) -> Array:
    """Count negative indices from 0 on."""
    indices = xp.astype(indices, xp.arange(1).dtype, copy=False)
    return xp.where(indices < 0, indices + n, indices)


def _add_anywhere(xp: Namespace, g: Array, spec: Like, key: Any, /) -> Array:
    """Add `g` up at any index that has arrays."""
    return _add_flat(xp, g, spec, _places(xp, g, spec)[key])


def _places(xp: Namespace, g: Array, spec: Like, /) -> Array:
    """Return the place of each entry among all of the array."""
    return xp.reshape(xp.arange(math.prod(spec.shape), **place(g)), spec.shape)


def _add_flat(xp: Namespace, g: Array, spec: Like, places: Array, /) -> Array:
    added = add_at(xp, xp.reshape(g, (-1,)), xp.reshape(places, (-1,)), 0, math.prod(spec.shape))
    return xp.reshape(added, spec.shape)


def put(xp: Namespace, x: Array, key: Any, value: Any, /) -> Array:
    """Return `x`, which nothing else holds, with `value` at `key`."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(setitem, x, value, key)
    at = getattr(x, "at", None)
    if at is not None:  # arrays that do not change in place, as JAX's
        return at[key].set(value)
    try:
        x[key] = value
    except RuntimeError:
        # An array that torch.func.vmap maps over is not written into one that it does not map over.
        x = x + xp.zeros_like(xp.sum(xp.asarray(value)), dtype=x.dtype)
        x[key] = value
    return x


@rule
def setitem(xp: Namespace, x: Array, value: Any, key: Any, /) -> Any:
    out = put(xp, xp.asarray(x, copy=True), key, value)
    items = key if isinstance(key, tuple) else (key,)
    arrays = [_index_array(xp, x, item) for item in items if type(item) not in _PLACES]
    if not all(xp.isdtype(item.dtype, "bool") for item in arrays):
        return out, (_without, key), (_gather_last, key)
    if len(items) == len(arrays) == 1 and getattr(value, "ndim", None) == 0:
        return out, (_without, key), (_gather_mask, arrays[0])
    return out, (_without, key), (_gather, key)


def _without(xp: Namespace, g: Array, key: Any, /) -> Array:
    """Return `g` with zeros at `key`."""
    return put(xp, xp.asarray(g, copy=True), key, 0)


def _gather(_: Namespace, g: Array, key: Any, /) -> Array:
    return g[key]


def _gather_mask(xp: Namespace, g: Array, mask: Array, /) -> Array:
    """Return what a masked number gets, in an array of known size."""
    return xp.where(xp.reshape(mask, (*mask.shape, *(1,) * (g.ndim - mask.ndim))), g, 0)


def _gather_last(xp: Namespace, g: Array, key: Any, /) -> Array:
    """Return `g` at indices, and 0 for an entry that a later one overwrote."""
    taken = g[key]
    spec = like(g)
    order = xp.reshape(xp.arange(math.prod(taken.shape), **place(g)), taken.shape)
    last = put(xp, xp.asarray(_places(xp, g, spec), copy=True), key, order)
    return xp.where(last[key] == order, taken, 0)


@rule
def take(xp: Namespace, x: Array, indices: Array, /, *, axis: Any = None) -> Any:
    out = xp.take(x, indices) if axis is None else xp.take(x, indices, axis=axis)
    if axis is None and x.ndim != 1:
        return out, (_add_flat, like(x), _from_start(xp, indices, math.prod(x.shape)))
    return out, (_add_along, like(x), 0 if axis is None else axis % x.ndim, indices)


@rule
def take_along_axis(xp: Namespace, x: Array, indices: Array, /, *, axis: int = -1) -> Any:
    return xp.take_along_axis(x, indices, axis=axis), (_add_along_axis, like(x), indices, axis)


def _add_along_axis(xp: Namespace, g: Array, spec: Like, indices: Array, axis: int, /) -> Array:
    return _add_flat(xp, g, spec, xp.take_along_axis(_places(xp, g, spec), indices, axis=axis))
