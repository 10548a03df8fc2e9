"""Scalar options become Python floats once, in one place, and are checked there."""

import importlib
import math
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import pullback
from pullback._core.arguments import float_option
from tests.harness.backend import Backend

CONCRETE = [0.5, np.float64(0.5), np.float32(0.5), np.float16(0.5), np.asarray(0.5), Fraction(1, 2)]


@pytest.mark.parametrize("value", [*CONCRETE, 1, np.int64(1), np.asarray(1), True], ids=repr)
def test_becomes_a_python_float(value: Any) -> None:
    got = float_option("f", "x", value)
    assert type(got) is float
    assert got == value


@pytest.mark.parametrize("value", [0, 0.0, -1, np.int64(0), np.float32(-1), np.asarray(-1.0), math.nan, math.inf])
def test_out_of_range(value: Any) -> None:
    number = str(float(value))
    with pytest.raises(ValueError, match=rf"^f: x must be finite and above 0; got {number}$"):
        float_option("f", "x", value, above=0)


def test_range() -> None:
    assert float_option("f", "x", math.inf, above=0, most=math.inf) == math.inf
    assert float_option("f", "x", 1, most=1) == 1
    with pytest.raises(ValueError, match=r"^f: x must be at most 1; got 1\.5\. Take less$"):
        float_option("f", "x", 1.5, most=1, advice="Take less")
    with pytest.raises(ValueError, match=r"^f: x must be above 0; got nan$"):
        float_option("f", "x", math.nan, above=0, most=math.inf)
    with pytest.raises(ValueError, match=r"^f: x must be finite; got -inf$"):
        float_option("f", "x", -math.inf)
    assert float_option("f", "x", 0, least=0, below=1) == 0
    for value in (-0.5, 1, sys.float_info.max, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^f: x must be finite and at least 0 and below 1; got"):
            float_option("f", "x", value, least=0, below=1)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (1j, "complex"),
        (np.complex64(1), r"an array of shape \(\) and dtype complex64"),
        (np.ones(1), r"an array of shape \(1,\) and dtype float64"),
        (np.ones(3, np.float32), r"an array of shape \(3,\) and dtype float32"),
        ("0.5", "str"),
        (None, "NoneType"),
        ([0.5], "list"),
    ],
    ids=repr,
)
def test_not_a_real_number(value: Any, got: str) -> None:
    with pytest.raises(TypeError, match=rf"^f: x must be a real number; got {got}\. Pass a Python float$"):
        float_option("f", "x", value)


class Traced:
    """A number whose value is not known, as tracers are."""

    shape = ()

    def __float__(self) -> float:
        msg = "no value"
        raise TypeError(msg)


def test_traced_number() -> None:
    message = (
        r"^f: x must be a number whose value is known during the call; got a traced or lazy Traced\. "
        r"Pass a Python float, which jax\.jit takes by static_argnames=\('x',\)$"
    )
    with pytest.raises(TypeError, match=message):
        float_option("f", "x", Traced())


def test_number_of_the_backend(backend_one_device: Backend) -> None:
    """A 0-d array is a number where it holds its value; it is never computed, and no derivative is lost."""
    value = backend_one_device.asarray(np.asarray(0.25), "float32")
    x = backend_one_device.asarray(np.asarray([-1.0, 1.0]), "float32")
    if backend_one_device.lazy:
        with pytest.raises(TypeError, match=r"slope must be a number whose value is known .*; got a traced or lazy"):
            backend_one_device.call(pullback.leaky_relu_forward, x, slope=value)
    elif backend_one_device.library == "torch":
        message = r"^leaky_relu_forward: slope has no derivative; got a Tensor\. Pass a number, float\(slope\)$"
        with pytest.raises(TypeError, match=message):
            pullback.leaky_relu_forward(x, slope=value)
    else:
        h = pullback.leaky_relu_forward(x, slope=value)
        assert h.dtype == x.dtype
        np.testing.assert_array_equal(backend_one_device.numpy(h), [-0.25, 1.0])


@pytest.mark.parametrize("value", CONCRETE, ids=repr)
def test_option_keeps_the_dtype(backend_one_device: Backend, value: Any) -> None:
    x = backend_one_device.asarray(np.asarray([-1.0, 1.0]), "float32")
    for h in (pullback.leaky_relu_forward(x, slope=value), pullback.leaky_relu_backward(x, x, slope=value)):
        assert h.dtype == x.dtype


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by PyTorch, of itself
@pytest.mark.backends("torch")
@pytest.mark.parametrize("transform", ["grad", "jacfwd", "vmap"])
def test_option_under_transforms_of_torch(transform: str) -> None:
    """An error, for a number taken of the tensor has no derivative, which would be 0 without a word."""
    torch: Any = importlib.import_module("torch")
    x = torch.asarray(0.5)[None] if transform == "vmap" else torch.asarray(0.5)
    with pytest.raises(TypeError, match=r"^leaky_relu_forward: slope has no derivative; got a Tensor\. "):
        getattr(torch.func, transform)(lambda slope: pullback.leaky_relu_forward(torch.ones(2), slope=slope).sum())(x)


class Followed:
    """A 0-d array that a library's autograd may follow, as PyTorch's."""

    shape = ()
    requires_grad = False

    def __float__(self) -> float:
        return 0.5


def test_array_that_autograd_follows() -> None:
    with pytest.raises(TypeError, match=r"^f: x has no derivative; got a Followed\. Pass a number, float\(x\)$"):
        float_option("f", "x", Followed())


@pytest.mark.backends("jax")
def test_option_under_jit() -> None:
    """The way out that the error names works: the option is static."""
    jax: Any = importlib.import_module("jax")
    x = jax.numpy.asarray([-1.0, 1.0])
    message = r"slope must be a number whose value is known .*; got a traced or lazy .*static_argnames=\('slope',\)"
    with pytest.raises(TypeError, match=message):
        jax.jit(pullback.leaky_relu_forward)(x, slope=0.5)
    h = jax.jit(pullback.leaky_relu_forward, static_argnames=("slope",))(x, slope=0.5)
    np.testing.assert_array_equal(h, [-0.5, 1.0])
