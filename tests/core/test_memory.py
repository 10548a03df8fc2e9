"""Steps in the memory of an array run where nothing but that memory is at stake."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pullback._core.memory import add, divide, is_gpu_memory, is_plain_memory, multiply, subtract
from tests.harness.autodiff import gradients, vmap
from tests.harness.backend import Backend

STEPS = [(add, operator.add), (subtract, operator.sub), (multiply, operator.mul), (divide, operator.truediv)]


@pytest.mark.parametrize(("step", "right"), STEPS, ids=[right.__name__ for _, right in STEPS])
@pytest.mark.parametrize("is_array", [False, True])
def test_steps(
    backend_one_device: Backend, step: Callable[..., Any], right: Callable[..., Any], *, is_array: bool
) -> None:
    """The value is that of the operator; the memory is the first argument's where that is plain, else new."""
    values = np.asarray([[1.0, -2.0], [3.0, 0.5]])
    x = backend_one_device.asarray(values) + 0
    y = backend_one_device.asarray(2 * values) if is_array else 4.0
    out = step(x, y)
    np.testing.assert_array_equal(backend_one_device.numpy(out), right(values, 2 * values if is_array else 4.0))
    assert (out is x) == is_plain_memory(x)
    assert is_plain_memory(x) == (backend_one_device.library in {"numpy", "cupy", "dpnp"})
    on_device = backend_one_device.library in {"cupy", "dpnp"} or "cuda" in backend_one_device.device_name
    assert is_gpu_memory(x) == on_device


@pytest.mark.backends("jax", "torch")
def test_steps_are_differentiable_and_batched(backend_one_device: Backend) -> None:
    xp, x = backend_one_device.xp, backend_one_device.asarray(np.asarray([1.0, 2.0]))

    def function(x: Any) -> Any:
        y = xp.exp(x)
        return xp.sum(divide(multiply(subtract(add(xp.exp(y), y), 1), y), y))

    right = np.exp(np.exp([1.0, 2.0])) * np.exp([1.0, 2.0]) + np.exp([1.0, 2.0])
    for got in gradients(backend_one_device, function, x).values():
        np.testing.assert_allclose(got, right, rtol=1e-14)
    batch = backend_one_device.asarray(np.ones((3, 2)))
    got = vmap(backend_one_device, lambda x, y: multiply(x + 0, y), (None, 0))(x, batch)
    assert backend_one_device.numpy(got).tolist() == [[1, 2]] * 3
