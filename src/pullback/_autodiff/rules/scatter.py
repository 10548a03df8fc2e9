"""Sums of the entries that share an index, and permutations: linear operations of the tape that are no functions."""

import math
from typing import Any

from array_api_compat import array_namespace

from pullback._autodiff.typing import Array
from pullback._core.memory import place
from pullback._core.reductions import swap_axes
from pullback._core.typing import Namespace


def add_at(xp: Namespace, g: Array, places: Array, axis: int, n: int, /) -> Array:
    """Return the sums of the slices of `g` (..., m, ...) along `axis` that have each of the places 0, ..., n - 1."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_add_at, g, places, axis, n)
    rows = swap_axes(xp, g, axis, 0) if axis else g
    out = xp.zeros((n, *rows.shape[1:]), dtype=g.dtype, **place(g))
    if hasattr(out, "at"):
        out = out.at[places].add(rows)
    elif hasattr(out, "index_add"):
        out = out.index_add(0, places, rows)
    elif 0 not in (*rows.shape, n):
        out = _fold(xp, rows, places, n)
    return swap_axes(xp, out, axis, 0) if axis else out


def _add_at(xp: Namespace, g: Array, places: Array, axis: int, n: int, /) -> Any:
    return add_at(xp, g, places, axis, n), (_take, places, axis)


def _take(xp: Namespace, h: Array, places: Array, axis: int, /) -> Array:
    return xp.take(h, places, axis=axis)


def _fold(xp: Namespace, rows: Array, places: Array, n: int, /) -> Array:
    """Sort the rows by their places, and add those of one place in pairs, and pairs of pairs."""
    m, ones = rows.shape[0], (1,) * (rows.ndim - 1)
    order = xp.argsort(places)
    places, rows = xp.take(places, order, axis=0), xp.take(rows, order, axis=0)
    step = 1
    while step < m:
        same = places[step:] == places[:-step]
        # A lazy array is not asked whether any row is left to add.
        if not (hasattr(same, "chunks") or bool(xp.any(same))):
            break
        more = xp.where(xp.reshape(same, (m - step, *ones)), rows[step:, ...], 0)
        rows = xp.concat([rows[:-step, ...] + more, rows[m - step :, ...]], axis=0)
        step *= 2
    wanted = xp.arange(n, dtype=places.dtype, **place(places))
    first = xp.searchsorted(places, wanted)
    first = xp.where(first < m, first, m - 1)
    found = xp.take(places, first, axis=0) == wanted
    return xp.where(xp.reshape(found, (n, *ones)), xp.take(rows, first, axis=0), 0)


def put_rows(xp: Namespace, g: Array, mask: Array, /) -> Array:
    """Return zeros with the rows of `g` where a mask is true, chunk by chunk: how many there are is unknown."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_put_rows, g, mask)
    rows = mask[(..., *(None,) * (g.ndim - 1))]
    return g.map_blocks(_put_in_block, rows, dtype=g.dtype, chunks=(mask.chunks[0], *g.chunks[1:]))


def _put_in_block(g: Array, mask: Array, /) -> Array:
    xp = array_namespace(g)
    out = xp.zeros((mask.shape[0], *g.shape[1:]), dtype=g.dtype, **place(g))
    out[xp.reshape(mask, (-1,))] = g
    return out


def _put_rows(xp: Namespace, g: Array, mask: Array, /) -> Any:
    return put_rows(xp, g, mask), (_take_rows, mask)


def _take_rows(_: Namespace, h: Array, mask: Array, /) -> Array:
    return h[mask]


def unsort(xp: Namespace, g: Array, order: Array, axis: int, /) -> Array:
    """Undo ``take_along_axis(x, order)``, for an `order` that is a permutation along the axis."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_unsort, g, order, axis)
    return _along_axis(xp, g, xp.argsort(order, axis=axis), axis)


def _unsort(xp: Namespace, g: Array, order: Array, axis: int, /) -> Any:
    return unsort(xp, g, order, axis), (sort_by, order, axis)


def sort_by(xp: Namespace, h: Array, order: Array, axis: int, /) -> Array:
    """Return ``take_along_axis(h, order)``, for an `order` that is a permutation along the axis."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_sort_by, h, order, axis)
    return _along_axis(xp, h, order, axis)


def _sort_by(xp: Namespace, h: Array, order: Array, axis: int, /) -> Any:
    return sort_by(xp, h, order, axis), (unsort, order, axis)


def _along_axis(xp: Namespace, x: Array, indices: Array, axis: int, /) -> Array:
    """Return ``take_along_axis(x, indices)``, which not all libraries have, for indices of the shape of `x`."""
    if hasattr(xp, "take_along_axis"):
        return xp.take_along_axis(x, indices, axis=axis)
    x, indices = swap_axes(xp, x, axis, -1), swap_axes(xp, indices, axis, -1)
    *rows, n = x.shape
    starts = xp.reshape(xp.arange(math.prod(rows), dtype=indices.dtype) * n, (*rows, 1))
    flat = xp.take(xp.reshape(x, (-1,)), xp.reshape(indices + starts, (-1,)), axis=0)
    return swap_axes(xp, xp.reshape(flat, x.shape), axis, -1)
