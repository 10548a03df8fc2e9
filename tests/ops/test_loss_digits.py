"""Relative errors of the losses, their gradients and Hessian products, in units of the dtype's eps.

The bound is 8 where the exact value is a normal number. One error is not that of a formula: a Poisson loss or gradient
is a difference of an exponential and a number of the same size, so that its error is measured beside the two.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device

import pullback
from tests.harness.backend import Backend
from tests.harness.digits import Errors, errors, grid
from tests.harness.loss_cases import CASES

# array-api-strict computes with NumPy. Coverage would take as long as the 50 digits.
pytestmark = [pytest.mark.backends("numpy", "jax", "torch"), pytest.mark.no_cover]

BOUND = 8.0
WIDTHS = ("float32", "float64")
# Logits beyond which exponentials underflow, and everything has its limit.
ENDS = {"float32": 110.0, "float64": 760.0}
ELEMENTWISE = [name for name, case in CASES.items() if hasattr(pullback, name) and not case.rowwise]

# The sum of what the value or, if true, the gradient for a target of 1 is a difference of.
DIFFERENCES: dict[str, Callable[[Any, bool], Any]] = {
    "poisson": lambda a, da: np.exp(a) + np.where(da, 1.0, abs(a)),
    "gamma": lambda a, da: np.exp(-a) + np.where(da, 1.0, abs(a)),
    "tweedie": lambda a, da: 2 * (np.exp(a / 2) + np.exp(-a / 2)),  # noqa: ARG005
}


def require(errors: Errors, bound: Any = BOUND) -> None:
    wrong = errors.eps > bound
    table = "\n".join(
        f"{got!r} and not {float(exact)!r}, by {eps:.1f} eps"
        for got, exact, eps in zip(errors.got[wrong], errors.exact[wrong], errors.eps[wrong], strict=True)
    )
    assert not np.any(wrong), table


def functions(name: str, *, indices: bool = False) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the value and the gradient of a loss for each example; class indices come as floats."""
    loss = getattr(pullback, name)

    def labels(y: Any) -> Any:
        return array_namespace(y).astype(y, array_namespace(y).int64) if indices else y

    yield "value", lambda a, y: loss(a, labels(y), reduction="none").value
    yield "da", lambda a, y: loss(a, labels(y), reduction="none").da


def vectors(shape: tuple[int, ...]) -> Iterator[Any]:
    """Yield tangents: ones, and sizes with which a curvature that underflows by itself has a normal product."""
    yield np.ones(shape)
    yield 10.0 ** np.random.default_rng(0).uniform(-20, 20, shape)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_outputs(backend_one_device: Backend, name: str, width: str) -> None:
    a = grid(width, most=ENDS[width])[:, None]
    if name in {"squared_error", "huber", "absolute_error", "quantile"}:
        a = a * 1e6
    for label in (0.0, 1.0):
        y = np.full(a.shape, label)
        for part, function in functions(name):
            with np.errstate(over="ignore"):
                got = errors(backend_one_device, width, function, a, y)
            bound = np.full(got.eps.shape, BOUND)
            if name in DIFFERENCES and label:
                terms = DIFFERENCES[name](np.clip(a.astype("float64"), -700, 700), part == "da")
                exact = np.maximum(abs(got.exact.astype("float64")), np.finfo(width).tiny)
                with np.errstate(over="ignore"):
                    bound = bound * np.clip(np.reshape(terms, exact.shape) / exact, 1, 1e30)
            require(got, bound)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_products(backend_one_device: Backend, name: str, width: str) -> None:
    product = getattr(pullback, f"{name}_hessian_product")
    a = grid(width, most=ENDS[width])[:, None]
    for v in vectors(a.shape):
        with np.errstate(over="ignore"):
            got = errors(
                backend_one_device, width, lambda v, a: product(v, a, a * 0, reduction="sum"), v.astype(width), a
            )
        require(got)


def logits(width: str) -> Any:
    """Return logits of four classes, few of whose differences are numbers of the dtype."""
    scale = 1.1 if width == "float32" else 8.8
    a = np.random.default_rng(1).integers(-600, 601, (150, 4)) * (scale / 16)
    a[:20, 1:] = a[:20, :1] - 16 - np.arange(60).reshape(20, 3) / 4  # confident predictions
    a[20:24, 1] = a[20:24, 0]
    a[50:100] += 90 * scale
    return a.astype(width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["indices", "one-hot", "smooth"])
def test_softmax_cross_entropy(backend_one_device: Backend, kind: str, width: str) -> None:
    a = logits(width)
    for label in range(4):
        y = np.full(len(a), label) if kind == "indices" else np.broadcast_to(np.eye(4)[label], a.shape)
        if kind == "smooth":
            y = y * 0.75 + 0.0625
        for part, function in functions("softmax_cross_entropy", indices=kind == "indices"):
            got = errors(backend_one_device, width, function, a, y)
            bound = np.full(got.eps.shape, BOUND)
            if kind == "smooth" and part == "da":  # a difference of two numbers of at most 1
                bound = bound * np.maximum(1 / abs(got.exact.astype("float64")), 1)
            require(got, bound)


@pytest.mark.parametrize("width", WIDTHS)
def test_softmax_product(backend_one_device: Backend, width: str) -> None:
    """Along one class, where the product is a sum of positive terms times the class's probability."""
    a = logits(width)
    for label in range(4):
        v = np.broadcast_to(np.eye(4)[label], a.shape)
        for scale in (1.0, 1e20):

            def product(v: Any, a: Any) -> Any:
                xp = array_namespace(a)
                y = xp.zeros(a.shape[:-1], dtype=xp.int64, device=device(a))
                return pullback.softmax_cross_entropy_hessian_product(v, a, y, reduction="sum")

            require(errors(backend_one_device, width, product, v * scale, a))


def test_known_values(backend_one_device: Backend) -> None:
    """A confident prediction in float32: log1p(exp(-20)), and not 0."""
    a = backend_one_device.asarray(np.asarray([[20.0, 0.0]]), "float32")
    right, tolerance = np.log1p(np.exp(-20.0)), 8 * 2.0**-23
    one_hot = backend_one_device.asarray(np.asarray([[1.0, 0.0]]), "float32")
    for y in (backend_one_device.asarray(np.asarray([0])), one_hot):
        value, da = backend_one_device.numpy(pullback.softmax_cross_entropy(a, y))
        np.testing.assert_allclose(value, right, rtol=tolerance)
        np.testing.assert_allclose(da, [[-right, right]], rtol=tolerance)
