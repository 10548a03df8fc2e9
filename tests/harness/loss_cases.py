"""The losses under test, each with its formula in NumPy, and what their results may differ by.

The formulas hold for complex numbers too, so that a step of 1e-100 along the imaginary axis gives an exact derivative.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

import pullback
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS, C

_STEP = 1e-100


@dataclass(frozen=True)
class Case:
    """A loss and its Hessian product; its value and gradient for each example, and a bound on what they add up."""

    loss: Callable[..., Any]
    product: Callable[..., Any]
    value: Callable[[Any, Any], Any]
    gradient: Callable[[Any, Any], Any]
    size: Callable[[Any, Any], Any]
    targets: Callable[[np.random.Generator, tuple[int, ...]], Any]
    rowwise: bool = False  # whether the outputs of an example belong together
    kinked: bool = False  # whether zeros and ties of outputs and targets lie on kinks
    bounded: bool = False  # whether the gradient has a limit where an output is infinite

    def draw(self, seed: int, *shape: int) -> tuple[Any, Any, Any, Any]:
        """Return a, y, weights, the first of several being 0, and a tangent of a."""
        rng = np.random.default_rng(seed)
        weights = np.asarray(rng.random(shape[:-1] if self.rowwise or len(shape) > 1 else shape))
        weights.flat[: weights.size > 1] = 0
        return 2 * rng.standard_normal(shape), self.targets(rng, shape), weights, rng.standard_normal(shape)

    def examples(self, exact: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a, y, weights and v with an axis of outputs: a vector is a batch of single outputs."""
        if self.rowwise or exact[0].ndim > 1:
            return exact
        a, y, weights, v = exact
        return a[:, None], y[:, None], weights, v[:, None]

    def curvature(self, v: Any, a: Any, y: Any) -> Any:
        """Return the exact derivative of the gradient along v."""
        return self.gradient(a + 1j * _STEP * v, y).imag / _STEP

    def slope(self, v: Any, a: Any, y: Any) -> Any:
        """Return the exact derivative of the value along v."""
        return self.value(a + 1j * _STEP * v, y).imag / _STEP


def _huber_value(delta: float, a: Any, y: Any) -> Any:
    r = a - y
    sign = np.sign(r.real)
    return np.sum(np.where(abs(r.real) <= delta, r**2 / 2, delta * (sign * r - delta / 2)), axis=-1)


def _huber_gradient(delta: float, a: Any, y: Any) -> Any:
    r = a - y
    return np.where(abs(r.real) <= delta, r, delta * np.sign(r.real))


def _quantile_value(above: float, below: float, a: Any, y: Any) -> Any:
    return np.sum((a - y) * _quantile_gradient(above, below, a, y).real, axis=-1)


def _quantile_gradient(above: float, below: float, a: Any, y: Any) -> Any:
    r = (a - y).real
    return above * (r > 0) - below * (r < 0) + 0j * r


def _softmax(a: Any) -> Any:
    return np.exp(a) / np.sum(np.exp(a), axis=-1, keepdims=True)


def _distances(a: Any, y: Any) -> Any:
    return 1 + (abs(a) + abs(y)) ** 2


def _logits(a: Any, y: Any) -> Any:
    return 1 + abs(a) * (1 + abs(y))


def _tweedie(power: float) -> tuple[Any, Any, Any]:
    """Return the value, the gradient and the size of Tweedie's loss."""

    def terms(a: Any, y: Any) -> tuple[Any, Any]:
        up = a if power == 2 else np.exp((2 - power) * a) / (2 - power)
        down = a if power == 1 else np.exp((1 - power) * a) / (1 - power)
        return up, y * down

    def value(a: Any, y: Any) -> Any:
        up, down = terms(a, y)
        return np.sum(up - down, axis=-1)

    def gradient(a: Any, y: Any) -> Any:
        return np.exp((2 - power) * a) - y * np.exp((1 - power) * a)

    def size(a: Any, y: Any) -> Any:
        up, down = terms(a, y)
        exponentials = np.exp((2 - power) * a) + abs(y) * np.exp((1 - power) * a)
        return abs(up) + abs(down) + (1 + abs(power - 1) * abs(a)) * exponentials

    return value, gradient, size


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.standard_normal(shape)


CASES = {
    "squared_error": Case(
        pullback.squared_error,
        pullback.squared_error_hessian_product,
        lambda a, y: np.sum((a - y) ** 2, axis=-1) / 2,
        lambda a, y: a - y,
        _distances,
        _normal,
    ),
    "huber": Case(
        pullback.huber,
        pullback.huber_hessian_product,
        partial(_huber_value, 1.0),
        partial(_huber_gradient, 1.0),
        _distances,
        _normal,
        bounded=True,
        kinked=True,
    ),
    "huber of 0.3": Case(
        partial(pullback.huber, delta=0.3),
        partial(pullback.huber_hessian_product, delta=0.3),
        partial(_huber_value, 0.3),
        partial(_huber_gradient, 0.3),
        _distances,
        _normal,
        bounded=True,
        kinked=True,
    ),
    "absolute_error": Case(
        pullback.absolute_error,
        pullback.absolute_error_hessian_product,
        partial(_quantile_value, 1.0, 1.0),
        partial(_quantile_gradient, 1.0, 1.0),
        _distances,
        _normal,
        bounded=True,
        kinked=True,
    ),
    "quantile": Case(
        pullback.quantile,
        pullback.quantile_hessian_product,
        partial(_quantile_value, 0.5, 0.5),
        partial(_quantile_gradient, 0.5, 0.5),
        _distances,
        _normal,
        bounded=True,
        kinked=True,
    ),
    "quantile of 0.9": Case(
        partial(pullback.quantile, q=0.9),
        partial(pullback.quantile_hessian_product, q=0.9),
        partial(_quantile_value, 1 - 0.9, 0.9),
        partial(_quantile_gradient, 1 - 0.9, 0.9),
        _distances,
        _normal,
        bounded=True,
        kinked=True,
    ),
    "logistic": Case(
        pullback.logistic,
        pullback.logistic_hessian_product,
        lambda a, y: np.sum(np.log(1 + np.exp(a)) - y * a, axis=-1),
        lambda a, y: 1 / (1 + np.exp(-a)) - y,
        _logits,
        lambda rng, shape: np.round(2 * rng.random(shape)) / 2,
        bounded=True,
    ),
    "poisson": Case(
        pullback.poisson,
        pullback.poisson_hessian_product,
        lambda a, y: np.sum(np.exp(a) - y * a, axis=-1),
        lambda a, y: np.exp(a) - y,
        lambda a, y: np.exp(a) + abs(y * a) + abs(y),
        lambda rng, shape: rng.poisson(2.0, shape).astype("float64"),
    ),
    "gamma": Case(
        pullback.gamma,
        pullback.gamma_hessian_product,
        *_tweedie(2.0),
        lambda rng, shape: rng.gamma(2.0, size=shape),
        bounded=True,
    ),
    "tweedie": Case(
        pullback.tweedie,
        pullback.tweedie_hessian_product,
        *_tweedie(1.5),
        lambda rng, shape: rng.poisson(1.0, shape) * rng.gamma(2.0, size=shape),
    ),
    "tweedie of 1": Case(
        partial(pullback.tweedie, power=1),
        partial(pullback.tweedie_hessian_product, power=1),
        *_tweedie(1.0),
        lambda rng, shape: rng.poisson(2.0, shape).astype("float64"),
    ),
    "tweedie of 3": Case(
        partial(pullback.tweedie, power=3),
        partial(pullback.tweedie_hessian_product, power=3),
        *_tweedie(3.0),
        lambda rng, shape: rng.gamma(2.0, size=shape),
    ),
    "softmax_cross_entropy": Case(
        pullback.softmax_cross_entropy,
        pullback.softmax_cross_entropy_hessian_product,
        lambda a, y: np.log(np.sum(np.exp(a), axis=-1)) * np.sum(y, axis=-1) - np.sum(y * a, axis=-1),
        lambda a, y: _softmax(a) * np.sum(y, axis=-1, keepdims=True) - y,
        lambda a, y: np.max(_logits(a, y), axis=-1, keepdims=True) * np.sum(1 + abs(y), axis=-1, keepdims=True),
        lambda rng, shape: rng.random(shape),
        rowwise=True,
        bounded=True,
    ),
}


@dataclass(frozen=True)
class Given:
    """The arguments of one call: as the backend holds them, and with exactly the same values in NumPy."""

    held: tuple[Any, ...]
    exact: tuple[Any, ...]


def given(backend: Backend, dtype: str | None, *arrays: Any) -> Given:
    """Put a, y, weights and v on the backend; None stays None."""
    held = tuple(None if x is None else (backend.rows if np.ndim(x) else backend.asarray)(x, dtype) for x in arrays)
    return Given(held, tuple(None if x is None else np.asarray(backend.numpy(x), "float64") for x in held))


def weigh(x: Any, weights: Any, reduction: str) -> Any:
    """Return each example of x, or each output, with its weight in the reduced loss."""
    factor = np.ones(x.shape[:-1]) if weights is None else weights
    factor = factor if factor.ndim == x.ndim else factor[..., None]
    if reduction == "mean":
        factor = factor / (np.sum(factor) / factor.shape[-1])
    return x * factor


def weighed_losses(case: Case, a: Any, y: Any, weights: Any, reduction: str) -> Any:
    """Return the losses of the examples with their weights in the reduced loss."""
    if weights is None or weights.ndim != a.ndim:
        return weigh(case.value(a, y)[..., None], weights, reduction)[..., 0]
    return np.sum(weigh(case.value(a[..., None], y[..., None]), weights, reduction), axis=-1)


@cache
def _weighted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take the weights as the last argument: what traces a function takes an option for a constant."""
    return lambda *args, reduction: function(*args[:-1], weights=args[-1], reduction=reduction)


def run(backend: Backend, function: Callable[..., Any], arrays: Any, weights: Any, reduction: str) -> Any:
    """Call a loss or a product as the backend does."""
    if weights is None:
        return backend.call(function, *arrays, reduction=reduction)
    return backend.call(_weighted(function), *arrays, weights, reduction=reduction)


def check_loss(backend: Backend, case: Case, arrays: Given, reduction: str, eps: float) -> None:
    """Compare value and gradient with the formulas: to C·√K·eps of what is added up, and the rounding of the result."""
    a, y, weights, _ = case.examples(arrays.exact)
    value, da = backend.numpy(run(backend, case.loss, arrays.held[:2], arrays.held[2], reduction))
    fine = C * np.sqrt(a.shape[-1]) * min(eps, EPS["float32"])
    losses = weighed_losses(case, a, y, weights, reduction)
    sizes = weigh(case.size(a, y) + 0 * a, weights, reduction)
    bound = np.sum(sizes, axis=-1)
    if reduction != "none":
        losses, bound = np.sum(losses), np.sum(bound)
    assert value.shape == losses.shape
    assert np.all(abs(value - losses) <= fine * bound + eps * abs(losses))
    right = weigh(case.gradient(a, y), weights, reduction)
    right, sizes = (np.reshape(x, arrays.exact[0].shape) for x in (right, sizes))
    assert da.shape == right.shape
    assert np.all(abs(da - right) <= fine * sizes + eps * abs(right))


def check_product(backend: Backend, case: Case, arrays: Given, reduction: str, eps: float) -> None:
    """Compare the Hessian product with the exact derivative of the gradient's formula."""
    a, y, weights, v = case.examples(arrays.exact)
    got = backend.numpy(run(backend, case.product, (arrays.held[3], *arrays.held[:2]), arrays.held[2], reduction))
    right = weigh(case.curvature(v, a, y), weights, reduction)
    size = weigh(case.size(a, y) * np.max(abs(v), axis=-1, keepdims=True, initial=0.0), weights, reduction)
    right, size = (np.reshape(x + 0 * a, arrays.exact[0].shape) for x in (right, size))
    fine = C * np.sqrt(a.shape[-1]) * min(eps, EPS["float32"])
    assert got.shape == right.shape
    assert np.all(abs(got - right) <= fine * size + eps * abs(right))
