"""Relative errors of activations and losses in units of eps, NumPy's beside the same code on numbers of 50 digits."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import array_namespace

import pullback
from benchmarks.report import Row, Section
from tests.harness.digits import Errors, compared, exact, grid

DTYPES = ("float32", "float64")
# Inputs from here on have their limits in all functions.
ENDS = {"float32": 110.0, "float64": 760.0}
FROM_INPUT = ("silu", "gelu")
ELEMENTWISE = ("relu", "leaky_relu", "softplus", "sigmoid", "tanh", *FROM_INPUT)
SOFTMAXES = ("softmax", "log_softmax")
# Each with the labels of a confident prediction: at a root, the gradient has no digits of its own.
LOSSES = {"squared_error": 0, "huber": 0, "logistic": 1, "poisson": 0}
BOUND = 8.0

Call = tuple[str, Callable[..., Any], tuple[Any, ...]]


def sections(_peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the table."""
    calls = [(dtype, *call) for dtype in DTYPES for call in _calls(dtype, 50 if quick else 400)]
    yield Section(
        name="digits",
        title="relative error in units of the dtype's eps, where the value is a normal number: the largest",
        columns=("function", "dtype", "median", "largest", "at", "bound"),
        rows=(_row(*call) for call in calls),
        length=len(calls),
    )


def _calls(dtype: str, count: int) -> Iterator[Call]:
    """Yield each function with its arrays: an upstream gradient of 1, or of one label."""
    a = grid(dtype, most=ENDS[dtype], count=count)
    for name in ELEMENTWISE:
        forward, backward = (getattr(pullback, f"{name}_{way}") for way in ("forward", "backward"))
        yield f"{name}_forward", forward, (a,)
        yield f"{name}_backward", backward, (np.ones_like(a), a if name in FROM_INPUT else forward(a))
    # Far apart, and few of their differences are numbers of the dtype.
    apart = 40 if dtype == "float32" else 300
    a = np.random.default_rng(0).uniform(-apart, apart, (count, 5)).astype(dtype)
    for name in SOFTMAXES:
        yield f"{name}_forward", getattr(pullback, f"{name}_forward"), (a,)
    label = np.zeros_like(a)
    label[:, 0] = -1
    yield "log_softmax_backward", pullback.log_softmax_backward, (label, pullback.log_softmax_forward(a))
    a = a.copy()
    a[: count // 2, 0] += 40
    for kind, of in (("indices", _indices), ("one-hot", _one_hot)):
        yield from _of_loss("softmax_cross_entropy", f", {kind}", of, a)
    a = grid(dtype, most=80 if dtype == "float32" else 700, count=count)[:, None]
    for name, y in LOSSES.items():
        yield from _of_loss(name, f" of {y}", partial(_constant, y), a)


def _of_loss(name: str, kind: str, labels: Callable[[Any], Any], a: Any) -> Iterator[Call]:
    """Yield value, gradient and Hessian product of a loss for each example."""
    loss, product = (getattr(pullback, f"{name}{part}") for part in ("", "_hessian_product"))
    first = np.zeros_like(a)
    first[:, 0] = 1
    yield f"{name}{kind}", lambda a: loss(a, labels(a), reduction="none").value, (a,)
    yield f"{name}{kind}, da", lambda a: loss(a, labels(a), reduction="none").da, (a,)
    yield f"{name}_hessian_product{kind}", lambda v, a: product(v, a, labels(a), reduction="sum"), (first, a)


def _constant(y: int, a: Any) -> Any:
    return a * 0 + y


def _indices(a: Any) -> Any:
    xp = array_namespace(a)
    return xp.zeros(a.shape[:-1], dtype=xp.int64)


def _one_hot(a: Any) -> Any:
    xp = array_namespace(a)
    return xp.astype(_indices(a)[..., None] == xp.arange(a.shape[-1]), a.dtype)


def _row(dtype: str, name: str, function: Callable[..., Any], arrays: tuple[Any, ...]) -> Row:
    """Measure one function."""
    errors = compared(function(*arrays), exact(function, *arrays), dtype)
    factor, why = _allowance(name, arrays[-1], errors)
    worst = np.unravel_index(np.argmax(errors.eps), errors.eps.shape)
    at = ", ".join(f"{x:.6g}" for x in np.atleast_1d(arrays[-1][worst[:1]]))
    cells = (name, dtype, f"{np.median(errors.eps):.2f}", f"{errors.worst():.2f}", at, f"≤ {BOUND:g}{why}")
    return Row(cells, holds=bool(np.all(errors.eps <= BOUND * factor)))


def _allowance(name: str, a: Any, errors: Errors) -> tuple[Any, str]:
    """Return what the bound of each entry is multiplied by: more than 1 for a rounded exponent and at a root."""
    factor, why = np.ones(errors.eps.shape), ""
    if name.startswith("gelu"):
        wide = a.astype("float64")
        factor, why = 1 + abs(np.sqrt(8 / np.pi) * (wide + 0.044715 * wide**3)) / BOUND, " + exponent"
    if name in {"silu_backward", "gelu_backward"}:
        near = np.maximum(0.5 / np.maximum(abs(errors.exact.astype("float64")), 1e-9), 1)
        factor, why = factor * np.where(abs(a) < 3, near, 1), f"{why}, more at its root"
    return factor, why
