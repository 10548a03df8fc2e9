"""Searching, sorting and sets."""

from typing import Any

from pullback._autodiff.rules.registry import WITHOUT_DERIVATIVE, rule
from pullback._autodiff.rules.scatter import add_at, unsort
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace

WITHOUT_DERIVATIVE |= {
    *("all", "any", "argmax", "argmin", "argsort", "count_nonzero", "isin", "nonzero", "searchsorted"),
}


@rule
def where(xp: Namespace, condition: Array, x1: Any, x2: Any, /) -> Any:
    return xp.where(condition, x1, x2), None, (_where, condition), (_where_not, condition)


def _where(xp: Namespace, g: Array, condition: Array, /) -> Array:
    return xp.where(condition, g, 0)


def _where_not(xp: Namespace, g: Array, condition: Array, /) -> Array:
    return xp.where(condition, 0, g)


@rule
def sort(xp: Namespace, x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    return xp.sort(x, axis=axis, descending=descending, stable=stable), (_sort, x, axis, descending)


def _sort(xp: Namespace, g: Array, x: Array, axis: int, descending: bool, /) -> Array:
    # Equal entries stay in order, whichever way the values were sorted.
    return unsort(xp, g, xp.argsort(x, axis=axis, descending=descending, stable=True), axis)


@rule
def unique_values(xp: Namespace, x: Array, /) -> Any:
    return xp.unique_values(x), (_unique_values, x)


@rule
def unique_counts(xp: Namespace, x: Array, /) -> Any:
    return xp.unique_counts(x), (_unique, x)


@rule
def unique_inverse(xp: Namespace, x: Array, /) -> Any:
    return xp.unique_inverse(x), (_unique, x)


@rule
def unique_all(xp: Namespace, x: Array, /) -> Any:
    return xp.unique_all(x), (_unique, x)


def _unique(xp: Namespace, gs: tuple[Array, ...], x: Array, /) -> Array:
    return _unique_values(xp, gs[0], x)


def _unique_values(xp: Namespace, g: Array, x: Array, /) -> Array:
    """Share the cotangent of a value equally among the entries that have it."""
    places = xp.reshape(xp.unique_inverse(x).inverse_indices, (-1,))
    counts = add_at(xp, xp.ones_like(xp.reshape(x, (-1,))), places, 0, g.shape[0])
    return xp.reshape(xp.take(g / counts, places, axis=0), x.shape)
