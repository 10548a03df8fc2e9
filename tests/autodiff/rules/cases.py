"""The table of what the rules are tested on: a call of each function with the shapes, axes and options that matter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.autodiff.rules.draws import Draws

_draws = Draws(42)
normal, positive, apart, unit = _draws.normal, _draws.positive, _draws.apart, _draws.unit
away, cplx = _draws.away, _draws.cplx


@dataclass(frozen=True)
class Case:
    """A call of a function: ``call(xp, *arrays)``, differentiated by its arrays of floating dtype."""

    call: Callable[..., Any]
    arrays: tuple[Any, ...]


def _unary(name: str) -> Callable[..., Any]:
    return lambda xp, x: getattr(xp, name)(x)


def _binary(name: str) -> Callable[..., Any]:
    return lambda xp, x, y: getattr(xp, name)(x, y)


def _to_right(name: str, number: complex) -> Callable[..., Any]:
    return lambda xp, x: getattr(xp, name)(x, number)


def _to_left(name: str, number: complex) -> Callable[..., Any]:
    return lambda xp, x: getattr(xp, name)(number, x)


CASES: dict[str, Case] = {}

_DOMAINS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("acos", "asin", "atanh"), unit),
    **dict.fromkeys(("log", "log1p", "log2", "log10", "sqrt", "reciprocal"), positive),
    "acosh": lambda *shape: 1 + positive(*shape),
    **dict.fromkeys(("asinh", "atan", "cos", "cosh", "exp", "expm1", "negative", "positive"), normal),
    **dict.fromkeys(("sin", "sinh", "square", "tanh", "abs"), normal),
    "tan": unit,
}
for _name, _draw in _DOMAINS.items():
    CASES[_name] = Case(_unary(_name), (_draw(2, 3),))
    CASES[f"{_name} of a number"] = Case(_unary(_name), (_draw(),))
    CASES[f"{_name}, complex"] = Case(_unary(_name), (cplx(2, 3),))
for _name in ("sign", "conj", "real", "imag"):
    CASES[f"{_name}, complex"] = Case(_unary(_name), (cplx(2, 3),))
for _name in ("sign", "conj", "real"):
    CASES[_name] = Case(_unary(_name), (apart(2, 3),))

_ARITHMETIC = ("add", "subtract", "multiply", "divide")
for _name in (*_ARITHMETIC, "pow", "atan2", "hypot", "logaddexp", "maximum", "minimum", "copysign", "remainder"):
    _numbers = away(9)
    _x, _y = _numbers[:6].reshape(2, 3), _numbers[6:]
    _number = 0.3 if _name == "remainder" else 1.03
    if _name == "pow":
        _x = np.abs(_x)
    CASES[_name] = Case(_binary(_name), (_x, away(2, 3)))
    CASES[f"{_name}, broadcast"] = Case(_binary(_name), (_x, _y))
    CASES[f"{_name}, outer"] = Case(_binary(_name), (_x[:, :1], _y[:2]))
    CASES[f"{_name}, number on the right"] = Case(_to_right(_name, 1.03), (_x,))
    CASES[f"{_name}, number on the left"] = Case(_to_left(_name, _number), (_x,))
    CASES[f"{_name}, no rows"] = Case(_binary(_name), (_x[:0], _y))
for _name in (*_ARITHMETIC, "pow"):
    CASES[f"{_name}, complex"] = Case(_binary(_name), (cplx(2, 3), cplx(3)))
    CASES[f"{_name}, real and complex"] = Case(_binary(_name), (positive(2, 3), cplx(3)))
    CASES[f"{_name}, complex and number"] = Case(_to_right(_name, 2.5 - 1j), (cplx(2, 3),))
    CASES[f"{_name}, number and complex"] = Case(_to_left(_name, 2.5 - 1j), (cplx(2, 3),))
CASES |= {
    "x**2": Case(lambda _, x: x**2, (normal(3),)),
    "x**2, complex": Case(lambda _, x: x**2, (cplx(3),)),
    "x**3": Case(lambda _, x: x**3, (normal(3),)),
    "x**-1": Case(lambda _, x: x**-1.0, (positive(3),)),
    "x**0.5": Case(lambda _, x: x**0.5, (positive(3),)),
    "x**y": Case(lambda _, x, y: x**y, (positive(2, 3), normal(3))),
    "2**x": Case(lambda _, x: 2**x, (normal(2, 3),)),
    "x % y": Case(lambda _, x, y: x % y, (np.asarray([[2.3, -1.7]]), np.asarray([[0.6], [1.4]]))),
    "4.9 % x": Case(lambda _, x: 4.9 % x, (positive(3),)),
    "x * 3 - 1": Case(lambda _, x: x * 3 - 1, (normal(3),)),
    "2 / x": Case(lambda _, x: 2 / x, (positive(3),)),
    "1 - x": Case(lambda _, x: 1 - x, (normal(3),)),
    "abs(x)": Case(lambda _, x: abs(-x), (positive(3),)),
    "clip": Case(lambda xp, x: xp.clip(x, -0.5, 0.7), (apart(2, 3),)),
    "clip from below": Case(lambda xp, x: xp.clip(x, -0.5), (apart(2, 3),)),
    "clip from above": Case(lambda xp, x: xp.clip(x, max=0.7), (apart(2, 3),)),
    "clip to arrays": Case(
        lambda xp, x, low, high: xp.clip(x, low, high),
        (np.asarray([[0.1, 1.4, 0.7], [1.2, -0.3, 2.9]]), np.asarray([0.3, -1.2, 0.6]), np.asarray([[1.3], [0.8]])),
    ),
    "clip by keywords": Case(lambda xp, x, low: xp.clip(x, min=low), (apart(2, 3), unit(2, 3))),
    "floor": Case(lambda xp, x: x * xp.floor(x), (apart(4),)),
    "x // y": Case(lambda _, x, y: x * (x // y), (apart(4), positive(4))),
    "where": Case(lambda xp, m, x, y: xp.where(m, x, y), (normal(2, 3) > 0, normal(3), normal(2, 1))),
    "where, number": Case(lambda xp, m, x: xp.where(m, x, 0.5), (normal(2, 3) > 0, normal(2, 3))),
    "where, number first": Case(lambda xp, m, x: xp.where(m, 0.5, x), (normal(2, 3) > 0, normal(3))),
    "where, complex": Case(lambda xp, m, x, y: xp.where(m, x, y), (normal(2, 3) > 0, cplx(3), cplx(2, 1))),
}

# Reductions: over each axis and several, of arrays with entries 0, and of none.
_X = np.asarray([1.3, -0.4, 0.9, -1.7, 0.6, 1.1, -0.8, 1.9, -1.2, 0.2, 1.6, -0.5]).reshape(2, 3, 2)
_AXES: dict[str, dict[str, Any]] = {
    "all": {},
    "axis 0": {"axis": 0},
    "axis -1": {"axis": -1},
    "two axes": {"axis": (-1, 0)},
    "keepdims": {"axis": 1, "keepdims": True},
}
for _name in ("sum", "mean", "prod", "max", "min", "var", "std"):
    for _axes, _options in _AXES.items():
        CASES[f"{_name}, {_axes}"] = Case(
            lambda xp, x, name=_name, options=_options: getattr(xp, name)(x, **options), (_X,)
        )
    CASES[f"{_name} of a number"] = Case(
        _unary(_name) if _name != "std" else lambda xp, x: xp.std(xp.stack([x, 2 * x])), (positive(),)
    )
    if _name not in ("max", "min", "var", "std"):
        CASES[f"{_name}, complex"] = Case(lambda xp, x, name=_name: getattr(xp, name)(x, axis=1), (cplx(2, 3),))
    if _name not in ("max", "min", "var", "std"):
        CASES[f"{_name}, no columns"] = Case(lambda xp, x, name=_name: getattr(xp, name)(x, axis=0), (normal(2, 0),))
for _name in ("sum", "mean", "prod"):
    CASES[f"{_name}, no rows"] = Case(
        lambda xp, x, name=_name: xp.sum(x, axis=0) if name == "mean" else getattr(xp, name)(x, axis=0), (normal(0, 3),)
    )
CASES |= {
    "var, correction": Case(lambda xp, x: xp.var(x, axis=0, correction=1), (normal(4, 2),)),
    "std, correction": Case(lambda xp, x: xp.std(x, axis=(0, 1), correction=1, keepdims=True), (normal(4, 2),)),
    "prod with a zero": Case(
        lambda xp, x: xp.prod(x, axis=1), (np.asarray([[1.5, 0, -2], [0, 0, 3], [0, 0, 0], [2, 1, 0.5]]),)
    ),
    "prod with zeros, all": Case(lambda xp, x: xp.prod(x), (np.asarray([[1.5, 0.0], [0.5, 3.0]]),)),
}
for _name in ("cumulative_sum", "cumulative_prod"):
    for _axes, _x, _options in (
        ("one axis", normal(5), {}),
        ("axis 0", _X, {"axis": 0}),
        ("axis -2", _X, {"axis": -2}),
        ("initial", normal(2, 3), {"axis": 1, "include_initial": True}),
        ("zeros", np.asarray([[2.0, 0, -1, 0, 3], [0, 1, 2, 3, 4]]), {"axis": 1}),
        ("complex", cplx(2, 3), {"axis": -1}),
        ("none", normal(2, 0), {"axis": 1}),
        ("one", normal(2, 1), {"axis": 1}),
    ):
        CASES[f"{_name}, {_axes}"] = Case(
            lambda xp, x, name=_name, options=_options: getattr(xp, name)(x, **options), (_x,)
        )

# Manipulation.
CASES |= {
    "reshape": Case(lambda xp, x: xp.reshape(x, (3, 2)), (normal(2, 3),)),
    "reshape, -1": Case(lambda xp, x: xp.reshape(x, (-1,)), (normal(2, 3),)),
    "reshape of a number": Case(lambda xp, x: xp.reshape(x, (1, 1)), (normal(),)),
    "permute_dims": Case(lambda xp, x: xp.permute_dims(x, (2, 0, 1)), (normal(2, 3, 4),)),
    "permute_dims, negative": Case(lambda xp, x: xp.permute_dims(x, (-1, 0, -2)), (normal(2, 3, 4),)),
    "permute_dims by keyword": Case(lambda xp, x: xp.permute_dims(x, axes=(1, 0)), (normal(2, 3),)),
    "matrix_transpose": Case(lambda xp, x: xp.matrix_transpose(x), (normal(2, 3, 4),)),
    "x.T": Case(lambda _, x: x.T, (cplx(2, 3),)),
    "x.mT": Case(lambda _, x: x.mT, (normal(2, 3, 4),)),
    "moveaxis": Case(lambda xp, x: xp.moveaxis(x, 0, -1), (normal(2, 3, 4),)),
    "moveaxis, two": Case(lambda xp, x: xp.moveaxis(x, (0, 1), (-1, 0)), (normal(2, 3, 4),)),
    "expand_dims": Case(lambda xp, x: xp.expand_dims(x, axis=-1), (normal(2, 3),)),
    "expand_dims, first": Case(lambda xp, x: xp.expand_dims(x, axis=0), (normal(2, 3),)),
    "squeeze": Case(lambda xp, x: xp.squeeze(x, axis=(0, -1)), (normal(1, 3, 1),)),
    "squeeze, one": Case(lambda xp, x: xp.squeeze(x, axis=1), (normal(2, 1, 3),)),
    "flip": Case(lambda xp, x: xp.flip(x), (normal(2, 3),)),
    "flip, axis": Case(lambda xp, x: xp.flip(x, axis=-1), (normal(2, 3),)),
    "roll": Case(lambda xp, x: xp.roll(x, 2), (normal(2, 3),)),
    "roll, axis": Case(lambda xp, x: xp.roll(x, -1, axis=1), (normal(2, 3),)),
    "roll, two axes": Case(lambda xp, x: xp.roll(x, (1, 2), axis=(0, 1)), (normal(2, 3),)),
    "concat": Case(lambda xp, x, y: xp.concat([x, y]), (normal(2, 3), normal(1, 3))),
    "concat, axis": Case(lambda xp, x, y: xp.concat((x, y, x), axis=-1), (normal(2, 3), cplx(2, 1))),
    "concat, flat": Case(lambda xp, x, y: xp.concat([x, y], axis=None), (normal(2, 3), normal(4))),
    "stack": Case(lambda xp, x, y: xp.stack([x, y]), (normal(3), cplx(3))),
    "stack, axis": Case(lambda xp, x, y: xp.stack([x, y, x], axis=-1), (normal(2, 3), normal(2, 3))),
    "unstack": Case(lambda xp, x: xp.unstack(x), (normal(2, 3),)),
    "unstack, axis": Case(lambda xp, x: xp.unstack(x, axis=-1)[1:], (normal(2, 3),)),
    "repeat": Case(lambda xp, x: xp.repeat(x, 2), (normal(2, 3),)),
    "repeat, axis": Case(lambda xp, x: xp.repeat(x, 3, axis=-1), (normal(2, 3),)),
    "repeat, each": Case(lambda xp, x, n: xp.repeat(x, n, axis=1), (normal(2, 3), np.asarray([2, 0, 3]))),
    "tile": Case(lambda xp, x: xp.tile(x, (2, 3)), (normal(2, 3),)),
    "tile, more axes": Case(lambda xp, x: xp.tile(x, (2, 1, 2)), (normal(2, 3),)),
    "tile, fewer axes": Case(lambda xp, x: xp.tile(x, (2,)), (normal(2, 3),)),
    "broadcast_to": Case(lambda xp, x: xp.broadcast_to(x, (2, 2, 3)), (normal(2, 1),)),
    "broadcast_arrays": Case(lambda xp, x, y: xp.broadcast_arrays(x, y), (normal(2, 1), normal(3))),
    "broadcast_arrays, one used": Case(lambda xp, x, y: xp.broadcast_arrays(x, y)[1], (normal(2, 1), normal(3))),
    "meshgrid": Case(lambda xp, x, y, z: xp.meshgrid(x, y, z), (normal(2), normal(3), normal(2))),
    "meshgrid, ij": Case(lambda xp, x, y: xp.meshgrid(x, y, indexing="ij"), (normal(2), normal(3))),
    "meshgrid, one": Case(lambda xp, x: xp.meshgrid(x), (normal(2),)),
    "tril": Case(lambda xp, x: xp.tril(x, k=-1), (normal(3, 3),)),
    "triu": Case(lambda xp, x: xp.triu(x, k=1), (normal(2, 3, 3),)),
    "diff": Case(lambda xp, x: xp.diff(x), (normal(2, 4),)),
    "diff, twice": Case(lambda xp, x: xp.diff(x, axis=0, n=2), (normal(4, 2),)),
    "diff, joined": Case(
        lambda xp, x, y, z: xp.diff(x, axis=1, prepend=y, append=z), (normal(2, 3), normal(2, 1), normal(2, 2))
    ),
    "astype to complex": Case(lambda xp, x: xp.astype(x, xp.complex128), (normal(2, 3),)),
    "asarray of a list": Case(lambda xp, x, y: xp.asarray([[x[0], y], [y, x[1]]]), (normal(2), normal())),
    "asarray, dtype": Case(lambda xp, x: xp.asarray(x, dtype=xp.complex128), (normal(2),)),
    "asarray, copy": Case(lambda xp, x: xp.asarray(x, copy=True), (normal(2),)),
    "beyond the standard: full": Case(lambda xp, x: xp.full((2, 3), x, dtype=x.dtype), (normal(),)),
    "beyond the standard: full of one axis": Case(lambda xp, x: xp.full(3, x, dtype=x.dtype), (normal(),)),
    "beyond the standard: full_like": Case(lambda xp, x, y: x * xp.full_like(x, y), (normal(2, 3), normal())),
    "linspace": Case(lambda xp, x, y: xp.linspace(x, y, 5, dtype=x.dtype), (normal(), normal())),
    "linspace, open": Case(lambda xp, x, y: xp.linspace(x, y, 4, endpoint=False, dtype=x.dtype), (normal(), normal())),
}

# Indexing.
_KEYS: dict[str, Any] = {
    "0, ...": (0, ...),
    "-1, ...": (-1, ...),
    "1:, ...": (slice(1, None), ...),
    "::2, ...": (slice(None, None, 2), ...),
    "::-2, ...": (slice(None, None, -2), ...),
    "2:1, ...": (slice(2, 1), ...),
    "1, 0, ...": (1, 0, ...),
    "..., 1": (..., 1),
    ":, 1:, :": (slice(None), slice(1, None), slice(None)),
    "None, :, 0, ...": (None, slice(None), 0, ...),
    "..., None": (..., None),
    "0, None, ..., None": (0, None, ..., None),
    "...": ...,
}
for _key_name, _key in _KEYS.items():
    CASES[f"x[{_key_name}]"] = Case(lambda _, x, key=_key: x[key], (normal(3, 2, 2),))
CASES |= {
    "x[i]": Case(lambda _, x, i: x[i], (normal(4), np.asarray([2, 0, 2, -1]))),
    "beyond the standard: x[i], rows": Case(lambda _, x, i: x[i, ...], (normal(4, 2), np.asarray([2, 0, 2, -1]))),
    "x[i], matrix": Case(lambda _, x, i: x[i], (normal(4), np.asarray([[2, 0, 2], [-1, 3, 3]]))),
    "beyond the standard: x[..., i]": Case(lambda _, x, i: x[..., i], (normal(2, 2, 3), np.asarray([2, 0, 0]))),
    "beyond the standard: x[:, i]": Case(lambda _, x, i: x[:, i], (normal(2, 3, 2), np.asarray([[2, 0, 0]]))),
    "x[i, j]": Case(lambda _, x, i, j: x[i, j], (normal(2, 3), np.asarray([1, 0, 1]), np.asarray([2, 0, 2]))),
    "x[i, 1]": Case(lambda _, x, i: x[i, 1], (normal(3, 2), np.asarray([2, 0, 2]))),
    "beyond the standard: x[0]": Case(lambda _, x: x[0], (normal(3, 2, 2),)),
    "beyond the standard: x[-1, None, 1:]": Case(lambda _, x: x[-1, None, 1:], (normal(3, 2, 2),)),
    "beyond the standard: x[list]": Case(lambda _, x: x[[1, 0, 1]], (normal(3, 2),)),
    "x[mask]": Case(lambda _, x, m: x[m], (normal(2, 3), np.asarray([[True, False, True], [False, True, True]]))),
    "x[mask], rows": Case(lambda _, x, m: x[m], (normal(3, 2), np.asarray([True, False, True]))),
    "take": Case(lambda xp, x, i: xp.take(x, i), (normal(4), np.asarray([2, 0, 2]))),
    "take, axis": Case(lambda xp, x, i: xp.take(x, i, axis=-1), (normal(2, 4), np.asarray([3, 0, 3, 3]))),
    "take, middle": Case(lambda xp, x, i: xp.take(x, i, axis=1), (cplx(2, 3, 2), np.asarray([1, 1, 0]))),
    "take_along_axis": Case(
        lambda xp, x, i: xp.take_along_axis(x, i, axis=0), (normal(3, 2), np.asarray([[2, 0], [2, 1]]))
    ),
    "take_along_axis, last": Case(
        lambda xp, x, i: xp.take_along_axis(x, i), (normal(2, 3), np.asarray([[2, 2], [0, 1]]))
    ),
    "sort": Case(lambda xp, x: xp.sort(x), (apart(2, 4),)),
    "sort, descending": Case(lambda xp, x: xp.sort(x, axis=0, descending=True), (apart(4, 2),)),
    "sort, one axis": Case(lambda xp, x: xp.sort(x, stable=False), (apart(5),)),
    "unique_values": Case(lambda xp, x: xp.sort(xp.unique_values(x)), (apart(5),)),
    "unique_counts": Case(lambda xp, x: xp.unique_counts(x)[0], (apart(5),)),
    "unique_inverse": Case(lambda xp, x: xp.unique_inverse(x)[0], (apart(2, 2),)),
    "unique_all": Case(lambda xp, x: xp.unique_all(x)[0], (apart(5),)),
}


def _assign(xp: Any, x: Any, value: Any, key: Any) -> Any:
    y = xp.asarray(x, copy=True)
    if hasattr(y, "at"):
        return x * y.at[key].set(value)
    y[key] = value
    return x * y


CASES |= {
    "x[0] = v": Case(lambda xp, x, v: _assign(xp, x, v, (0, ...)), (normal(3, 2), normal(2))),
    "x[1:] = v, broadcast": Case(lambda xp, x, v: _assign(xp, x, v, (slice(1, None), ...)), (normal(3, 2), normal())),
    "x[..., 1] = v": Case(lambda xp, x, v: _assign(xp, x, v, (..., 1)), (normal(3, 2), normal(3))),
    "x[:, ::-1] = v": Case(
        lambda xp, x, v: _assign(xp, x, v, (slice(None), slice(None, None, -1))), (normal(3, 2), normal(3, 2))
    ),
    "x[0] = 2": Case(lambda xp, x: _assign(xp, x, 2.0, (0, ...)), (normal(3, 2),)),
    "x[mask] = v": Case(
        lambda xp, x, m, v: _assign(xp, x, v, m), (normal(3, 2), np.asarray([[1, 0], [0, 0], [1, 1]]) > 0, normal())
    ),
    "beyond the standard: x[i] = v": Case(
        lambda xp, x, i, v: _assign(xp, x, v, i), (normal(4), np.asarray([2, 0, 2]), normal(3))
    ),
}
