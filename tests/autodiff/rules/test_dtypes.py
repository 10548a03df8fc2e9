"""Gradients have the dtype and device of their primal, whatever it was cast and promoted to."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device, to_device

from pullback._autodiff import grad, hvp, jvp, vjp
from pullback._autodiff.tape import LostGradientError
from tests.harness.backend import Backend

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "mean": lambda xp, x: xp.mean(x, axis=0),
    "x[1:]": lambda _, x: x[1:, ...],
    "where": lambda xp, x: xp.where(xp.real(x) > 0 if xp.isdtype(x.dtype, "complex floating") else x > 0, x, 0),
    "multiply": lambda _, x: 2 * x * x,
    "divide": lambda _, x: 1 / (x + 3),
    "pow": lambda _, x: (x + 3) ** 2,
    "take": lambda xp, x: xp.take(x, xp.asarray([0, 1, 0], device=x.device), axis=0),
    "concat": lambda xp, x: xp.concat([x, 2 * x]),
    "abs": lambda xp, x: xp.abs(x),
    "tanh": lambda xp, x: xp.tanh(x),
    "sum": lambda xp, x: xp.sum(x, axis=1),
}
EPS = {"bfloat16": 2**-8, "float16": 2**-10, "float32": 2**-23, "complex64": 2**-23}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dtype(backend_one_chunking: Backend, dtype: str, name: str) -> None:
    b, call = backend_one_chunking, FUNCTIONS[name]
    x = np.asarray([[0.5, -1.25], [1.0, 0.75]])
    if "complex" in dtype:
        x = x * (1 - 0.5j)

    def pulled(x: Any) -> Any:
        xp = array_namespace(x)
        out, pull = vjp(lambda x: call(array_namespace(x), x), x)
        return pull(xp.ones_like(out))[0]

    found, right = b.call(pulled, b.asarray(x, dtype)), pulled(x)
    assert found.dtype == b.dtype(dtype)
    assert np.allclose(b.numpy(found), right, rtol=16 * EPS.get(dtype, 2**-52), atol=0)


PROMOTED: dict[str, Callable[..., Any]] = {
    **{
        name: lambda xp, x, y, name=name: getattr(xp, name)(x, y)
        for name in ("add", "multiply", "divide", "pow", "atan2", "hypot", "maximum", "minimum", "logaddexp")
    },
    "where": lambda xp, x, y: xp.where(x > y, x, y),
    "concat": lambda xp, x, y: xp.concat([x, y]),
    "stack": lambda xp, x, y: xp.stack([x, y]),
    "x * y": lambda _, x, y: x * y,
    "x**y": lambda _, x, y: x**y,
    "sum to float64": lambda xp, x, y: xp.sum(x, dtype=xp.float64) * y,
    "prod to float64": lambda xp, x, y: xp.prod(x, dtype=xp.float64) * y,
    "cumulative_sum to float64": lambda xp, x, y: xp.cumulative_sum(x, dtype=xp.float64) * y,
    "cumulative_prod to float64": lambda xp, x, y: xp.cumulative_prod(x, dtype=xp.float64) * y,
    "astype": lambda xp, x, y: xp.astype(x, xp.float64) * y,
}


@pytest.mark.parametrize("name", PROMOTED)
def test_promotion(backend_one_chunking: Backend, name: str) -> None:
    """Each argument of a promoted call has a gradient of its own dtype."""
    b, call = backend_one_chunking, PROMOTED[name]
    x, y = np.asarray([0.5, 1.25, 2.0]), np.asarray([1.5, 0.75, 2.5])

    def total(x: Any, y: Any) -> Any:
        xp = array_namespace(x, y)
        return xp.sum(call(xp, x, y))

    found = b.call(grad(total, argnums=(0, 1)), b.asarray(x, "float32"), b.asarray(y, "float64"))
    assert [g.dtype for g in found] == [b.dtype("float32"), b.dtype("float64")]
    right = grad(total, argnums=(0, 1))(x, y)
    assert all(np.allclose(b.numpy(g), r, rtol=16 * EPS["float32"]) for g, r in zip(found, right, strict=True))


def test_integers_are_constants() -> None:
    """A cast to integers has no derivative, and what is made of it no gradient."""

    def total(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(x * xp.astype(x, xp.int64))

    assert np.array_equal(grad(total)(np.asarray([1.5, 2.5])), [1, 2])


@pytest.mark.backends("strict")
def test_devices(backend_one_device: Backend) -> None:
    """A cotangent moves back to the device that its primal came from."""
    b = backend_one_device
    other = b.xp.Device("device1")
    x = b.asarray(np.asarray([1.0, 2.0]))
    moves: list[Callable[..., Any]] = [
        lambda _, x: x.to_device(other),
        lambda _, x: to_device(x, other),
        lambda xp, x: xp.asarray(x, device=other),
        lambda xp, x: xp.astype(x, xp.float32, device=other),
    ]
    for move in moves:

        def total(x: Any, move: Callable[..., Any] = move) -> Any:
            xp = array_namespace(x)
            y = move(xp, x)
            assert device(y) == other
            return xp.sum(y * y)

        found = grad(total)(x)
        assert device(found) == device(x)
        assert np.array_equal(b.numpy(found), [2, 4])


@pytest.mark.backends("jax")  # whose tests have two devices, and which fills an array from another one
@pytest.mark.parametrize("name", ["full", "full_like"])
def test_an_array_filled_from_another_device(backend_one_device: Backend, name: str) -> None:
    b = backend_one_device
    other = next(x for x in b.xp.__array_namespace_info__().devices() if x not in (None, b.device))

    def total(x: Any) -> Any:
        xp = array_namespace(x)
        y = xp.full((2, 3), x, device=other) if name == "full" else xp.full_like(xp.zeros((2, 3), device=other), x)
        assert device(y) == other
        return xp.sum(y * y)

    x = b.asarray(np.asarray(2.0))
    for found in (grad(total)(x), hvp(total, (x,), (x,))[0]):
        assert device(found) == b.device
        assert b.numpy(found) == 24
    out, tangent = jvp(total, (x,), (x,))
    assert device(tangent) == device(out) == other
    assert b.numpy(tangent) == 48


def test_refusals() -> None:
    """What would lose a gradient is an error that says what to write."""

    def total(x: Any, call: Callable[..., Any]) -> Any:
        return array_namespace(x).sum(call(array_namespace(x), x))

    x = np.asarray(3.0)
    with pytest.raises(NotImplementedError, match=r"arange cannot be differentiated: .* Write start \+ step \* arange"):
        grad(lambda x: total(x, lambda xp, x: xp.arange(0.0, x)))(x)
    with pytest.raises(NotImplementedError, match=r"from_dlpack cannot be differentiated: .* Use asarray\(x\)"):
        grad(lambda x: total(x, lambda xp, x: xp.from_dlpack(x)))(x)
    with pytest.raises(TypeError, match="add: the arguments must be arrays or Python numbers; got Traced and str"):
        grad(lambda x: total(x, lambda xp, x: xp.add(x, "a")))(x)
    assert grad(lambda x: total(x, lambda xp, x: x * xp.arange(4.0)))(x) == 6
    assert issubclass(LostGradientError, TypeError)
