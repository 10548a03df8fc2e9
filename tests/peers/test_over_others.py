"""Gradients are ordinary code to PyTorch and JAX, which differentiate, map and compile them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from array_api_compat import array_namespace
from torch._dynamo.testing import CompileCounter
from torch.fx.experimental.proxy_tensor import make_fx

import pullback as pb

jax.config.update("jax_enable_x64", True)  # noqa: FBT003 - its signature

_rng = np.random.default_rng(0)
W, Z = _rng.standard_normal((3, 2)), _rng.standard_normal((4, 3))


def loss(w: Any, z: Any) -> Any:
    xp = array_namespace(w, z)
    h = xp.tanh(z @ w)
    return xp.sum(h * h) + pb.softplus_forward(h)[0, 0]


GRADIENT = pb.grad(loss)(W, Z)
PRODUCT = pb.hvp(lambda w: loss(w, pb.constant(Z)), (W,), (W,))[0]


def close(got: Any, expected: Any) -> bool:
    return bool(np.max(np.abs(np.asarray(got) - expected)) <= 1e-14 * (1 + np.max(np.abs(expected))))


def _requires_grad(w: Any, z: Any) -> Any:
    w = w.clone().requires_grad_()
    g = pb.grad(loss)(w, z)
    assert close(g.detach(), GRADIENT)
    return torch.autograd.grad(torch.sum(g * w.detach()), w)[0]


TORCH: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "requires_grad": (_requires_grad, PRODUCT),
    "no_grad": (torch.no_grad()(pb.grad(loss)), GRADIENT),
    "func.grad": (lambda w, z: torch.func.grad(lambda u: torch.sum(pb.grad(loss)(u, z) * w))(w), PRODUCT),
    "func.vjp": (lambda w, z: torch.func.vjp(lambda u: pb.grad(loss)(u, z), w)[1](w)[0], PRODUCT),
    "func.vmap": (lambda w, z: torch.func.vmap(pb.grad(loss), (0, None))(torch.stack([w, 2 * w]), z)[0], GRADIENT),
    "functionalize": (torch.func.functionalize(pb.grad(loss)), GRADIENT),
    "make_fx": (lambda w, z: make_fx(pb.grad(loss))(2 * w, z)(w, z), GRADIENT),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("way", TORCH)
def test_over_torch(way: str) -> None:
    transform, expected = TORCH[way]
    assert close(transform(torch.asarray(W), torch.asarray(Z)), expected)


def test_backward_to_a_constant() -> None:
    """An argument that is constant to `grad` may be differentiated by PyTorch."""
    z = torch.asarray(Z).requires_grad_()
    value, _ = pb.value_and_grad(loss)(torch.asarray(W), z)
    value.backward()
    assert z.grad is not None
    assert close(z.grad, pb.grad(loss, 1)(W, Z))


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
def test_compile() -> None:
    """The gradient compiles in few graphs, and not again for other values."""
    counter = CompileCounter()
    compiled = torch.compile(pb.grad(loss), backend=counter)
    for scale in (1.0, 2.0, 3.0):
        assert close(compiled(scale * torch.asarray(W), torch.asarray(Z)), pb.grad(loss)(scale * W, Z))
    assert counter.frame_count <= 8


JAX: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "jit": (lambda w, z: jax.jit(pb.value_and_grad(loss))(w, z)[1], GRADIENT),
    "vmap": (lambda w, z: jax.vmap(pb.grad(loss), (0, None))(jnp.stack([2 * w, w]), z)[1], GRADIENT),
    "jvp": (lambda w, z: jax.jvp(lambda u: pb.grad(loss)(u, z), (w,), (w,))[1], PRODUCT),
    "grad": (lambda w, z: jax.grad(lambda u: jnp.sum(pb.grad(loss)(u, z) * w))(w), PRODUCT),
    "jit of hvp": (
        jax.jit(lambda w, z: pb.hvp(lambda u: loss(u, pb.constant(z)), (w,), (w,))[0]),
        PRODUCT,
    ),
    "fori_loop": (lambda w, z: jax.lax.fori_loop(0, 1, lambda _, u: pb.grad(loss)(u, z), w), GRADIENT),
}


@pytest.mark.parametrize("way", JAX)
def test_over_jax(way: str) -> None:
    transform, expected = JAX[way]
    assert close(transform(jnp.asarray(W), jnp.asarray(Z)), expected)


def test_transforms_of_others_inside_ours_raise() -> None:
    """Those of PyTorch and JAX take their own arrays: nothing is lost silently."""
    inside: list[tuple[Callable[[Any], Any], Any]] = [
        (lambda w: torch.sum(torch.func.grad(lambda u: loss(u, torch.asarray(Z)))(w)), torch.asarray(W)),
        (lambda w: jnp.sum(jax.grad(lambda u: loss(u, jnp.asarray(Z)))(w)), jnp.asarray(W)),
        (jax.jit(lambda u: jnp.sum(u * u)), jnp.asarray(W)),
    ]
    for function, w in inside:
        with pytest.raises((TypeError, ValueError)):
            pb.grad(function)(w)
