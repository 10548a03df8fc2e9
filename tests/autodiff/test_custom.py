"""Functions with a derivative of their own, and functions that are run twice."""

from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback as pb
from pullback._autodiff.tape import LostGradientError
from tests.autodiff.test_transforms import close
from tests.harness.backend import Backend


def scale(x: Any, s: Any, *, power: int = 1) -> Any:
    return x * s**power


def scale_backward(g: Any, x: Any, s: Any, *, power: int = 1) -> Any:
    xp = array_namespace(g, x, s)
    return g * s**power, xp.sum(g * x, axis=0) * power * s ** (power - 1)


def scale_jvp(x: Any, s: Any, dx: Any, ds: Any, *, power: int = 1) -> Any:
    return dx * s**power + x * ds * power * s ** (power - 1)


def draw(backend: Backend) -> tuple[Any, Any]:
    rng = np.random.default_rng(9)
    return backend.asarray(rng.standard_normal((4, 3))), backend.asarray(rng.uniform(0.5, 1.5, 3))


@pytest.mark.parametrize("jvp", [None, scale_jvp], ids=["recorded", "jvp"])
def test_custom_vjp_of_every_order(backend_one_device: Backend, jvp: Any) -> None:
    x, s = draw(backend_one_device)
    custom = pb.custom_vjp(scale, scale_backward, jvp=jvp)

    def loss(function: Any, x: Any, s: Any) -> Any:
        a = function(x, s, power=2)
        return array_namespace(a).sum(a * a)

    for order in (
        lambda f: pb.grad(lambda x, s: loss(f, x, s), (0, 1))(x, s),
        lambda f: pb.jvp(lambda x, s: f(x, s, power=2), (x, s), (x, s)),
        lambda f: pb.hvp(lambda x, s: loss(f, x, s), (x, s), (x, s)),
        lambda f: pb.grad(lambda x: loss(f, x, pb.constant(s)))(x),
        lambda f: pb.jvp(lambda s: f(pb.constant(x), s, power=2), (s,), (s,)),
    ):
        got, expected = order(custom), order(scale)
        pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
        for g, e in pairs:
            assert close(backend_one_device, g, backend_one_device.numpy(e))


def test_custom_vjp_takes_what_it_needs(backend_one_device: Backend) -> None:
    x, _ = draw(backend_one_device)
    exp = pb.custom_vjp(lambda x: array_namespace(x).exp(x), lambda g, out: g * out, needs=("output",))
    got = pb.grad(lambda x: array_namespace(x).sum(exp(x)))(x)
    assert close(backend_one_device, got, np.exp(backend_one_device.numpy(x)))
    assert close(backend_one_device, exp(x), np.exp(backend_one_device.numpy(x)))


def test_custom_vjp_of_several_outputs(backend_one_device: Backend) -> None:
    x, _ = draw(backend_one_device)
    both = pb.custom_vjp(lambda x: (x * 2, x * 3), lambda g, h: g * 2 + h * 3, needs=())
    for k, factor in ((0, 2), (1, 3)):
        got = pb.grad(lambda x, k=k: array_namespace(x).sum(both(x)[k]))(x)
        assert close(backend_one_device, got, np.full((4, 3), float(factor)))


def test_compiled_code() -> None:
    x = np.asarray([1.0, 2.0, 4.0])

    def forward(x: Any) -> Any:
        assert type(x) is np.ndarray
        return np.cumsum(x)

    def backward(g: Any) -> Any:
        return np.cumsum(np.asarray(g)[::-1])[::-1]

    with_jvp = pb.custom_vjp(forward, backward, needs=(), jvp=lambda _, t: np.cumsum(t))
    without = pb.custom_vjp(forward, backward, needs=())
    for function in (with_jvp, without):
        assert np.array_equal(pb.grad(lambda x, f=function: f(x) @ f(x))(x), 2 * backward(np.cumsum(x)))
    assert np.array_equal(pb.jvp(with_jvp, (x,), (x,))[1], np.cumsum(x))
    with pytest.raises(LostGradientError):
        pb.jvp(without, (x,), (x,))


def test_custom_vjp_rejects() -> None:
    x = np.ones(2)
    with pytest.raises(ValueError, match=r"^custom_vjp: needs must name parameters of the forward, \('x',\)"):
        pb.custom_vjp(lambda x: x, lambda g: g, needs=("y",))
    with pytest.raises(ValueError, match=r"must return a gradient for each of 1 inputs; got 2"):
        pb.grad(lambda x: pb.custom_vjp(lambda x: x, lambda g, _: (g, g))(x) @ x)(x)
    with pytest.raises(TypeError, match=r"returned None for input 0, which is differentiated"):
        pb.grad(lambda x: pb.custom_vjp(lambda x: x, lambda *_: None)(x) @ x)(x)


def test_checkpoint(backend_one_device: Backend) -> None:
    x, s = draw(backend_one_device)

    def part(p: Any, *, power: Any) -> Any:
        return {"h": array_namespace(p["x"]).tanh(p["x"] * power), "s": p["s"]}

    def loss(function: Any, x: Any, s: Any) -> Any:
        out = function({"x": x, "s": s}, power=s)
        return array_namespace(x).sum(out["h"] * out["s"] * out["h"])

    for order in (
        lambda f: pb.grad(lambda x, s: loss(f, x, s), (0, 1))(x, s),
        lambda f: pb.hvp(lambda x, s: loss(f, x, s), (x, s), (x, s)),
        lambda f: pb.jvp(lambda x, s: loss(f, x, s), (x, s), (x, s)),
    ):
        for g, e in zip(order(pb.checkpoint(part)), order(part), strict=True):
            assert close(backend_one_device, g, backend_one_device.numpy(e))
    assert close(backend_one_device, pb.checkpoint(scale)(x, s), backend_one_device.numpy(scale(x, s)))
    with pytest.raises(TypeError, match=r"^checkpoint: arrays that are differentiated must be arguments"):
        pb.grad(lambda x: array_namespace(x).sum(pb.checkpoint(lambda y: y * x)(x)))(x)
