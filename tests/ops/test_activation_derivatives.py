"""Derivatives of the activations and of their backwards by JAX and PyTorch, of first and second order."""

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from tests.harness.autodiff import gradients, hessians, vmap
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS, C
from tests.ops.test_activations import CASES

pytestmark = pytest.mark.backends("jax", "torch")

# Zero, where the stable forms split; small and usual inputs; and those whose exponentials underflow.
SIZES = [0, 1e-30, 0.5, 1, 3, 9, 20, 50, 90, 110, 760, 1e4, 1e30]
POINTS = np.asarray([-x for x in SIZES] + SIZES)
# One shape: JAX compiles for each.
LOGITS = [
    [0.0, 0.0, 0.0],
    [1.0, 1.0, 0.0],
    [-1.0, 2.0, 0.5],
    [20.0, 0.0, -20.0],
    [0.0, 100.0, 100.0],
    [1e4, -1e4, 0.0],
    [0.0, -np.inf, 1.0],
]
WIDTHS = ("float32", "float64")


def _sigmoid(a: Any) -> Any:
    return 1 / (1 + mpmath.exp(-a))


def _gelu(a: Any) -> Any:
    return a * _sigmoid(2 * mpmath.sqrt(2 / mpmath.pi) * (a + mpmath.mpf(0.044715) * a**3))


# The maps that are smooth everywhere, on numbers of many digits.
SMOOTH: dict[str, Callable[[Any], Any]] = {
    "softplus": lambda a: mpmath.log1p(mpmath.exp(a)),
    "sigmoid": _sigmoid,
    "tanh": mpmath.tanh,
    "silu": lambda a: a * _sigmoid(a),
    "gelu": _gelu,
    "gelu, exact": lambda a: a * mpmath.ncdf(a),
}
# The derivative of each output-saving activation, as a function of the output.
SLOPES: dict[str, Callable[[Any], Any]] = {
    "softplus": lambda h: -mpmath.expm1(-h),
    "sigmoid": lambda h: h * (1 - h),
    "tanh": lambda h: 1 - h * h,
}


def derivative(name: str, a: float, order: int) -> float:
    """Return a derivative of an activation; where exponentials are out of range, its limit."""
    if abs(a) > 1e3:
        return float(order == 1 and a > 0 and name not in {"sigmoid", "tanh"})
    with mpmath.workdps(60):
        return float(mpmath.diff(SMOOTH[name], mpmath.mpf(a), order))


def slope(name: str, kept: float, order: int) -> float:
    """Return what the backward multiplies the upstream gradient by, or a derivative of that for what it takes."""
    if name not in SLOPES:
        return derivative(name, kept, order + 1)
    with mpmath.workdps(60):
        return float(mpmath.diff(SLOPES[name], mpmath.mpf(kept), order))


def each(function: Callable[[str, float, int], float], name: str, points: Any, order: int) -> Any:
    return np.asarray([function(name, float(x), order) for x in points])


def require(got: dict[str, Any], right: Any, tolerance: float) -> None:
    for way, values in got.items():
        assert np.all(abs(values - right) <= tolerance), f"{way} gives\n{values}\nand not\n{right}"


def summed(backend: Backend, function: Callable[..., Any], *arrays: Any) -> Callable[[Any], Any]:
    """Return a scalar function: the sum of what `function` gives for its last argument."""
    return lambda x: backend.xp.sum(function(*arrays, x))


def smooth(backend: Backend) -> list[str]:
    return [name for name in SMOOTH if CASES[name].exists(backend)]


# The second derivative of gelu, and so the rounding error of one, is up to about 5 at the points above.
FACTOR = 8 * C


@pytest.mark.parametrize("width", WIDTHS)
def test_forwards_are_smooth(backend_one_device: Backend, width: str) -> None:
    for name in smooth(backend_one_device):
        x = backend_one_device.asarray(POINTS, width)
        points = np.asarray(backend_one_device.numpy(x), "float64")
        function = summed(backend_one_device, CASES[name].forward)
        tolerance = FACTOR * EPS[width]
        require(gradients(backend_one_device, function, x), each(derivative, name, points, 1), tolerance)
        require(hessians(backend_one_device, function, x), np.diag(each(derivative, name, points, 2)), tolerance)


@pytest.mark.parametrize("width", WIDTHS)
def test_backwards_are_smooth(backend_one_device: Backend, width: str) -> None:
    """In what they take from the forward; in the upstream gradient they are linear."""
    for name in smooth(backend_one_device):
        x = backend_one_device.asarray(POINTS, width)
        kept = CASES[name].forward(x) if CASES[name].saves == "h" else x
        points = np.asarray(backend_one_device.numpy(kept), "float64")
        dh = backend_one_device.asarray(np.ones(points.shape), width)
        backward = summed(backend_one_device, CASES[name].backward, dh)
        tolerance = FACTOR * EPS[width]
        require(gradients(backend_one_device, backward, kept), each(slope, name, points, 1), tolerance)
        require(hessians(backend_one_device, backward, kept), np.diag(each(slope, name, points, 2)), tolerance)
        linear = summed(backend_one_device, lambda kept, dh, name=name: CASES[name].backward(dh, kept), kept)
        require(gradients(backend_one_device, linear, dh), each(slope, name, points, 0), tolerance)
        require(hessians(backend_one_device, linear, dh), 0, 0)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "leaky_relu of 0.3"])
def test_kinks(backend_one_device: Backend, name: str) -> None:
    """Autodiff and the backward take the same derivative at 0, and both are constants elsewhere."""
    x = backend_one_device.asarray(POINTS)
    one = backend_one_device.asarray(np.ones(POINTS.shape))
    h = CASES[name].forward(x)
    right = backend_one_device.numpy(CASES[name].backward(one, h))
    at_zero = {"relu": 0.0, "leaky_relu": 0.01, "leaky_relu of 0.3": 0.3}[name]
    np.testing.assert_allclose(right, np.where(POINTS > 0, 1, at_zero), rtol=EPS[backend_one_device.real])
    forward = summed(backend_one_device, CASES[name].forward)
    backward = summed(backend_one_device, CASES[name].backward, one)
    require(gradients(backend_one_device, forward, x), right, 0)
    require(hessians(backend_one_device, forward, x), 0, 0)
    require(gradients(backend_one_device, backward, h), 0, 0)


def _softmax_derivatives(p: Any, v: Any) -> tuple[Any, Any]:
    """Return gradient and Hessian of ``Σ v_i softmax(a)_i``."""
    eye = np.eye(len(p))
    jacobian = np.diag(p) - np.outer(p, p)
    hessian = np.einsum("ik,ij->ijk", jacobian, eye - p) - np.einsum("i,jk->ijk", p, jacobian)
    return v @ jacobian, np.einsum("i,ijk->jk", v, hessian)


def _log_softmax_derivatives(p: Any, v: Any) -> tuple[Any, Any]:
    """Return gradient and Hessian of ``Σ v_i log softmax(a)_i``."""
    return v - p * np.sum(v), -np.sum(v) * (np.diag(p) - np.outer(p, p))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes_are_smooth(backend_one_device: Backend, name: str, width: str) -> None:
    """At ties of the largest logit, whose derivative libraries share out as they like, and where one dominates."""
    weights = np.arange(1.0, 4.0) / 4
    v = backend_one_device.asarray(weights, width)
    forward = summed(backend_one_device, lambda x: v * CASES[name].forward(x))
    backward = summed(backend_one_device, CASES[name].backward, v)
    derivatives = {"softmax": _softmax_derivatives, "log_softmax": _log_softmax_derivatives}[name]
    tolerance = 4 * C * EPS[width]
    for logits in LOGITS:
        a = backend_one_device.asarray(np.asarray(logits), width)
        p = np.exp(np.asarray(logits) - np.max(logits))
        p /= np.sum(p)
        first, second = derivatives(p, weights)
        require(gradients(backend_one_device, forward, a), first, tolerance)
        require(hessians(backend_one_device, forward, a), second, tolerance)
        h = CASES[name].forward(a)
        require(gradients(backend_one_device, backward, h), _of_backward(name, p, weights), tolerance)


def _of_backward(name: str, p: Any, dh: Any) -> Any:
    """Return the gradient of the sum of a backward's entries for the output that it takes."""
    if name == "softmax":
        return dh - np.sum(dh * p) - dh * np.sum(p)
    return -p * np.sum(dh)


@pytest.mark.parametrize("name", [name for name in CASES if name != "gelu, exact"])
def test_vmap(backend_one_device: Backend, name: str) -> None:
    """Either argument of a backward may be the same for the whole batch."""
    case = CASES[name]
    rng = np.random.default_rng(3)
    a, dh = (rng.standard_normal((5, 3)) for _ in range(2))
    kept = backend_one_device.asarray(case.kept(a))
    dh, a = backend_one_device.asarray(dh), backend_one_device.asarray(a)
    eps = 8 * EPS[backend_one_device.real]
    got = vmap(backend_one_device, case.forward, (0,))(a)
    np.testing.assert_allclose(
        backend_one_device.numpy(got), backend_one_device.numpy(case.forward(a)), rtol=eps, atol=eps
    )
    for axes in ((0, 0), (0, None), (None, 0)):
        rows = [(dh[i if axes[0] == 0 else 0, :], kept[i if axes[1] == 0 else 0, :]) for i in range(5)]
        right = np.stack([backend_one_device.numpy(case.backward(*row)) for row in rows])
        args = (dh if axes[0] == 0 else dh[0, :], kept if axes[1] == 0 else kept[0, :])
        got = vmap(backend_one_device, case.backward, axes)(*args)
        np.testing.assert_allclose(backend_one_device.numpy(got), right, rtol=eps, atol=eps)
