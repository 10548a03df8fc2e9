"""Sums of the entries that share an index, and permutations: linear operations of the tape that are no functions."""

from typing import Any

from array_api_compat import device

from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace


def add_at(xp: Namespace, g: Array, places: Array, axis: int, n: int, /) -> Array:
    """Return the sums of the slices of `g` (..., m, ...) along `axis` that have each of the places 0, ..., n - 1."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_add_at, g, places, axis, n)
    rows = xp.moveaxis(g, axis, 0) if axis else g
    out = xp.zeros((n, *rows.shape[1:]), dtype=g.dtype, device=device(g))
    if hasattr(out, "at"):
        out = out.at[places].add(rows)
    elif hasattr(out, "index_add"):
        out = out.index_add(0, places, rows)
    elif 0 not in (*rows.shape, n):
        out = _fold(xp, rows, places, n)
    return xp.moveaxis(out, 0, axis) if axis else out


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
    wanted = xp.arange(n, dtype=places.dtype, device=device(places))
    first = xp.searchsorted(places, wanted)
    first = xp.where(first < m, first, m - 1)
    found = xp.take(places, first, axis=0) == wanted
    return xp.where(xp.reshape(found, (n, *ones)), xp.take(rows, first, axis=0), 0)


def unsort(xp: Namespace, g: Array, order: Array, axis: int, /) -> Array:
    """Undo ``take_along_axis(x, order)``, for an `order` that is a permutation along the axis."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_unsort, g, order, axis)
    return xp.take_along_axis(g, xp.argsort(order, axis=axis), axis=axis)


def _unsort(xp: Namespace, g: Array, order: Array, axis: int, /) -> Any:
    return unsort(xp, g, order, axis), (_sorted, order, axis)


def _sorted(xp: Namespace, h: Array, order: Array, axis: int, /) -> Array:
    return xp.take_along_axis(h, order, axis=axis)
