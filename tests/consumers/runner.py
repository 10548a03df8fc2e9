"""Carry out a call of somebody else's library, and compare its gradient with a difference of fourth order."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import array_api_extra as xpx
import einops.array_api
import numpy as np
import sklearn
from array_api_compat import array_namespace
from scipy import (
    cluster,
    constants,
    differentiate,
    fft,
    integrate,
    interpolate,
    linalg,
    ndimage,
    optimize,
    signal,
    spatial,
    special,
    stats,
)
from scipy.optimize import elementwise as _elementwise  # noqa: F401 - loads the module
from sklearn import (
    decomposition,
    discriminant_analysis,
    kernel_approximation,
    linear_model,
    metrics,
    mixture,
    model_selection,
    naive_bayes,
    preprocessing,
    utils,
)

import pullback as pb
from tests.consumers.lists import Call
from tests.harness.backend import Backend

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(cluster, constants, differentiate, fft, integrate, interpolate, linalg, ndimage, optimize, signal, spatial),
        *(special, stats, decomposition, discriminant_analysis, kernel_approximation, linear_model, metrics, mixture),
        *(model_selection, naive_bayes, preprocessing, utils, einops),
    )
} | {"xpx": xpx, "np": np}

_rng = np.random.default_rng(3)
_square = _rng.normal(size=(3, 3))
ACTIVE: dict[str, Any] = {
    "x": np.asarray([1.31, 0.42, 2.23, 0.84, 1.75, 3.11]),
    "y": np.asarray([-0.61, 1.22, 0.13, -1.74, 0.75, 2.06]),
    "u": np.asarray([0.17, 0.62, 0.35, 0.81, 0.46, 0.95]),
    "z": _rng.normal(size=24),
    "m": _rng.normal(size=(6, 3)),
    "n": _rng.normal(size=(6, 3)),
    "s": _square @ _square.T + np.eye(3),
    "q": np.asarray([0.3, -0.5, 0.4, 0.9]),
    "v": np.asarray([0.4, -0.3, 0.7]),
    "w": np.asarray([1.1, 0.6, -0.8]),
    "r": np.asarray([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    "c": _rng.normal(size=6) + 1j * _rng.normal(size=6),
}
CONSTANT: dict[str, Any] = {
    "a": np.asarray(1.3),
    "b": np.asarray(2.4),
    "labels": np.asarray([0, 1, 1, 0, 1, 0]),
    "classes": np.asarray([0, 2, 1, 0, 1, 2]),
}


OUTCOMES: list[tuple[Call, str, str]] = []  # of this run, for the table that it prints


def _leaves(out: Any) -> list[Any]:
    """Return the floating arrays and floats of a result."""
    if isinstance(out, tuple | list):
        return [leaf for item in out for leaf in _leaves(item)]
    if isinstance(out, float):
        return [out]
    dtype = str(getattr(out, "dtype", ""))
    return [out] if "float" in dtype or "complex" in dtype else []


def _total(out: Any) -> Any:
    """Return a number in which each entry of a result counts differently; a lone float as it is."""
    leaves = _leaves(out)
    if len(leaves) == 1 and isinstance(leaves[0], float) and not hasattr(leaves[0], "dtype"):
        return leaves[0]
    total: Any = 0.0
    for k, leaf in enumerate(leaves):
        if not hasattr(leaf, "dtype"):
            total = total + leaf * (k + 1.0)
            continue
        xp = array_namespace(leaf)
        if "complex" in str(leaf.dtype):
            leaf = xp.real(leaf) + 0.7 * xp.imag(leaf)  # noqa: PLW2901
        weights = np.cos(0.9 * np.arange(int(np.prod(leaf.shape))) + k + 0.3).reshape(tuple(leaf.shape))
        total = total + xp.sum(leaf * xp.asarray(weights, dtype=leaf.dtype))
    return total


def _named(call: Call, arrays: dict[str, Any], /) -> list[str]:
    """Return the names of those arrays that a call takes; keywords and attributes are none."""
    return [name for name in arrays if re.search(rf"(?<![\w.]){name}\b(?!\s*=[^=])", call.expression)]


def scalar_function(call: Call, put: Callable[[Any], Any], /) -> tuple[Callable[..., Any], list[str]]:
    """Return a call as a scalar function of its arrays, and their names."""
    code = compile(call.expression, call.expression, "eval")
    names = _named(call, ACTIVE)
    constants_ = {name: put(CONSTANT[name]) for name in _named(call, CONSTANT)}

    def function(*arrays: Any) -> Any:
        xp = array_namespace(*arrays)
        given = dict(zip(names, arrays, strict=True)) | {name: xp.asarray(x) for name, x in constants_.items()}
        # Lambdas see the globals alone.
        return _total(eval(code, {**MODULES, "xp": xp, **given}))  # noqa: S307 - a line of this folder's lists

    return function, names


@contextmanager
def quietly() -> Iterator[None]:
    """Let scikit-learn ask for the namespace, and do not fail for what a library warns of."""
    with warnings.catch_warnings(), sklearn.config_context(array_api_dispatch=True), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _number(backend: Backend, x: Any) -> float:
    return float(x) if isinstance(x, float) else float(backend.numpy(x))


def outcome(call: Call, backend: Backend) -> tuple[str, str]:
    """Return ``right``, ``refused``, ``missing``, ``nan`` or ``branch``, and why; on arrays of the usual layout."""
    with quietly():
        kind, reason = _outcome(call, backend)
    OUTCOMES.append((call, kind, reason))
    return kind, reason


def _outcome(call: Call, backend: Backend) -> tuple[str, str]:
    function, names = scalar_function(call, backend.blocks)
    arrays = [ACTIVE[name] for name in names]
    rng = np.random.default_rng(5)
    directions = [
        rng.normal(size=x.shape) + (1j * rng.normal(size=x.shape) if np.iscomplexobj(x) else 0) for x in arrays
    ]

    def put(xs: list[Any]) -> list[Any]:
        return [backend.blocks(x, str(x.dtype)) for x in xs]

    def at(t: float) -> float:
        return _number(backend, function(*put([x + t * d for x, d in zip(arrays, directions, strict=True)])))

    try:
        plain = at(0.0)
        steps = [(8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h) for h in (2e-4, 1e-3)]
    except Exception as error:  # noqa: BLE001 - whatever a library raises
        return "missing", _first_line(error)
    try:
        value, gradients = pb.value_and_grad(function, argnums=tuple(range(len(arrays))))(*map(backend.blocks, arrays))
    except Exception as error:  # noqa: BLE001
        return "refused", _first_line(error)
    found = (float(np.sum(np.real(np.conj(backend.numpy(g)) * d))) for g, d in zip(gradients, directions, strict=True))
    got, change = sum(found), abs(_number(backend, value) - plain)
    # Rounding disturbs the short step, and derivatives of high order the long one.
    off = min(abs(got - step) for step in steps)
    if np.isnan(got) and not np.isnan(steps).any():
        return "nan", f"the derivative is {steps[0]}"
    if not (off <= 2e-6 * (1 + abs(got)) and change <= 1e-9 * (1 + abs(plain))):
        return "branch", f"{got}, by differences {steps[0]} and {steps[1]}; the value changed by {change}"
    return "right", f"{off / (1 + abs(got)):.0e}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]
