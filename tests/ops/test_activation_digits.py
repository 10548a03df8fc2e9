"""Relative errors of the activations and of their backwards, in units of the dtype's eps.

The bound is 8 where no rounded number is exponentiated. The cubic in the exponent of gelu is rounded: it is wrong by up
to about its size times eps, and so is its exponential. One unit of rounding of the input changes gelu by more.
"""

from typing import Any

import numpy as np
import pytest

import pullback
from tests.harness.backend import Backend
from tests.harness.digits import Errors, errors, grid
from tests.harness.pair_laws import EPS
from tests.ops.test_activations import CASES

# array-api-strict computes with NumPy. Coverage would take as long as the 50 digits.
pytestmark = [pytest.mark.backends("numpy", "jax", "torch"), pytest.mark.no_cover]

BOUND = 8.0
WIDTHS = ("float32", "float64")
# Inputs beyond which exponentials underflow, and everything has its limit.
ENDS = {"float32": 110.0, "float64": 760.0}


# The activations that mparray has all functions for.
ORACLES = ("relu", "leaky_relu", "softplus", "sigmoid", "tanh", "silu", "gelu")


def require(got: Errors, bound: Any, *inputs: Any) -> None:
    wrong = np.broadcast_to(got.eps > bound, got.got.shape)
    columns = [np.broadcast_to(x, wrong.shape)[wrong].tolist() for x in (*inputs, got.got, got.eps)]
    exact = [float(x) for x in got.exact[wrong]]
    assert not np.any(wrong), "\n".join(map(str, zip(*columns, exact, strict=True)))


def exponent(name: str, a: Any) -> Any:
    """Return the size of the rounded number that an activation exponentiates, 0 for none."""
    if name == "gelu":
        return abs(2 * np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))
    return 0 * a


@pytest.mark.parametrize("width", WIDTHS)
def test_elementwise_forwards(backend_one_device: Backend, width: str) -> None:
    a = grid(width, most=ENDS[width])
    for name in ORACLES:
        got = errors(backend_one_device, width, CASES[name].forward, a)
        require(got, BOUND + exponent(name, a.astype("float64")), a)


@pytest.mark.parametrize("width", WIDTHS)
def test_backwards_from_the_output(backend_one_device: Backend, width: str) -> None:
    """Relative to what the output says, however near it is to 0, 1 or -1."""
    a = grid(width, most=ENDS[width])
    for name in ("relu", "leaky_relu", "softplus", "sigmoid", "tanh"):
        h = backend_one_device.numpy(CASES[name].forward(backend_one_device.asarray(a, width)))
        require(errors(backend_one_device, width, CASES[name].backward, 0 * h + 1.5, h), BOUND, h)


@pytest.mark.parametrize("width", WIDTHS)
def test_backwards_from_the_input(backend_one_device: Backend, width: str) -> None:
    """Relative to the two terms of the derivative where these cancel, about its root; elsewhere to itself."""
    a = grid(width, most=ENDS[width])
    wide = a.astype("float64")
    for name in ("silu", "gelu"):
        got = errors(backend_one_device, width, CASES[name].backward, 0 * a + 1.0, a)
        terms = np.where(abs(wide) < 3, np.maximum(0.5 / np.maximum(abs(got.exact.astype("float64")), 1e-9), 1), 1)
        require(got, (BOUND + exponent(name, wide)) * terms, a)


# Logits whose differences are numbers of both dtypes, and such that are not.
EXACT = np.random.default_rng(0).integers(-600, 601, (40, 5)) / 16


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("level", [0, -40, 60, 85, 100, 170, 300, -700, 1e4])
def test_softmaxes(backend_one_device: Backend, level: float, width: str) -> None:
    """Far below and above 0 and around the largest exponent, with the second logit near or far from the first."""
    scale = 1 if width == "float32" else 8
    for a in (EXACT, EXACT * 1.1 * scale + level * scale, EXACT * 0.01 + level):
        for function in (pullback.softmax_forward, pullback.log_softmax_forward):
            require(errors(backend_one_device, width, function, a), BOUND, a)


@pytest.mark.parametrize("width", WIDTHS)
def test_log_softmax_backward(backend_one_device: Backend, width: str) -> None:
    """The gradient of a label's log likelihood has all digits, also where its probability is nearly 1."""
    h = backend_one_device.numpy(pullback.log_softmax_forward(backend_one_device.asarray(EXACT, width)))
    for label in range(5):
        dh = np.zeros(h.shape)
        dh[:, label] = -0.75
        require(errors(backend_one_device, width, pullback.log_softmax_backward, dh, h), BOUND, dh, h)


@pytest.mark.parametrize("width", WIDTHS)
def test_softmax_backward(backend_one_device: Backend, width: str) -> None:
    """Relative to what is subtracted: an output that is rounded to 1 does not tell the distance from 1."""
    h = backend_one_device.numpy(pullback.softmax_forward(backend_one_device.asarray(EXACT, width)))
    dh = np.random.default_rng(1).standard_normal(h.shape).astype(width)
    got = errors(backend_one_device, width, pullback.softmax_backward, dh, h)
    terms = h * (abs(dh) + np.sum(abs(dh) * h, axis=-1, keepdims=True))
    tiny = np.finfo(width).tiny
    require(got, BOUND * np.maximum(terms / np.maximum(abs(got.exact.astype("float64")), tiny), 1), dh, h)


@pytest.mark.parametrize(
    ("function", "inputs", "right"),
    [
        (pullback.log_softmax_forward, [20, 0], [-2.0611536203e-9, -20.000000002061153]),
        (pullback.gelu_forward, [-6, -5], [-8.4396467e-11, -2.2917962e-7]),
        (pullback.silu_forward, [-90, 90], [-7.3746114e-38, 90]),
        (pullback.sigmoid_forward, [-80, 0], [1.8048514e-35, 0.5]),
        (pullback.softplus_forward, [-80, 0], [1.8048514e-35, np.log(2)]),
    ],
)
def test_values_in_float32(backend_one_device: Backend, function: Any, inputs: list[float], right: list[float]) -> None:
    """Values in the tails, as numbers; their own error in eps is that of the exponents."""
    got = backend_one_device.numpy(function(backend_one_device.asarray(np.asarray(inputs), "float32")))
    np.testing.assert_allclose(got, right, rtol=40 * EPS["float32"])
