"""Random programs: values, gradients and Hessian products are PyTorch's and JAX's."""

from collections.abc import Callable
from typing import Any

import array_api_compat.torch as xp_torch
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from array_api_compat import numpy as xp_numpy

import pullback as pb

jax.config.update("jax_enable_x64", True)  # noqa: FBT003 - its signature

# Other tests run these branches; coverage would take half as long again.
pytestmark = pytest.mark.no_cover

PROGRAMS = 200
SHAPE = (3, 4)
Step = Callable[[Any, Any], Any]


def _write(xp: Any, x: Any) -> Any:
    """Change a copy in place, through a view and by a key; JAX has functions for it."""
    if xp is jnp:
        y = (x * 1.0).at[0, :].multiply(2.0)
        return y.at[1:, 2].set(x[:2, 0] * x[1:, 1])
    y = x * 1.0
    first = y[0, :]
    first *= 2.0
    y[1:, 2] = x[:2, 0] * x[1:, 1]
    return y


def _add_in_place(xp: Any, x: Any) -> Any:
    del xp
    y = x * 0.5
    y += x * x
    y -= 0.25
    return y


STEPS: dict[str, Step] = {
    "tanh": lambda xp, x: xp.tanh(x),
    "sin": lambda xp, x: xp.sin(x) * 1.5,
    "exp": lambda xp, x: xp.exp(-x * x),
    "log1p": lambda xp, x: xp.log1p(x * x),
    "sqrt": lambda xp, x: xp.sqrt(x * x + 1.0),
    "divide": lambda xp, x: x / (2.0 + xp.cos(x)),
    "power": lambda _, x: (x * x + 0.5) ** 1.5,
    "softmax": lambda xp, x: xp.exp(x) / xp.sum(xp.exp(x), axis=-1, keepdims=True),
    "centre": lambda xp, x: x - xp.mean(x, axis=0),
    "scale": lambda xp, x: x / xp.std(x, axis=1, keepdims=True),
    "matmul": lambda xp, x: x @ (xp.matrix_transpose(x) @ x) * 0.1,
    "transpose": lambda xp, x: xp.reshape(xp.permute_dims(x, (1, 0)), SHAPE),
    "flip": lambda xp, x: x + xp.flip(x, axis=1),
    "roll": lambda xp, x: x * xp.roll(x, 1, axis=0),
    "concat": lambda xp, x: xp.concat([x[:, 2:], x[:, :2] * 2.0], axis=1),
    "where": lambda xp, x: xp.where(x > 0.1, x * x, -x),
    "maximum": lambda xp, x: xp.maximum(x, 0.3 * x - 0.1),
    "clip": lambda xp, x: x + xp.clip(x, -0.75, 0.65),
    "max": lambda xp, x: x * xp.max(x, axis=1, keepdims=True),
    "sort": lambda xp, x: xp.sort(x, axis=1) * x,
    "cumulative_sum": lambda xp, x: (jnp.cumulative_sum if xp is jnp else xp.cumulative_sum)(x, axis=1),
    "index": lambda _, x: x + x[1, :] * x[:, :1],
    "take": lambda xp, x: xp.take(x, xp.asarray([2, 0, 0]), axis=0) - 0.5 * x,
    "prod": lambda xp, x: x + 0.1 * xp.prod(x, axis=1, keepdims=True),
    "norm": lambda xp, x: x / xp.linalg.vector_norm(x, axis=1, keepdims=True),
    "write": _write,
    "add in place": _add_in_place,
}


def program(seed: int) -> tuple[list[str], Callable[[Any, Any], Any]]:
    """Draw a program of 3 to 12 steps, and return their names and the function ``(xp, x) -> scalar``."""
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.choice(list(STEPS), size=rng.integers(3, 13))]
    weights = rng.standard_normal(SHAPE)

    def run(xp: Any, x: Any) -> Any:
        for name in names:
            x = STEPS[name](xp, x)
            # Held in a range where rounding does not grow.
            x = xp.tanh(x) + 0.01 * x
        return xp.sum(x * xp.asarray(weights))

    return names, run


@pytest.mark.parametrize("group", range(10))
def test_random_programs(group: int) -> None:
    for seed in range(group * PROGRAMS // 10, (group + 1) * PROGRAMS // 10):
        names, run = program(seed)
        rng = np.random.default_rng(seed + 1_000_000)
        x, v = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)

        def ours(x: Any, run: Callable[[Any, Any], Any] = run) -> Any:
            return run(x.__array_namespace__() if not isinstance(x, np.ndarray) else xp_numpy, x)

        value, gradient = pb.value_and_grad(ours)(x)
        (product,) = pb.hvp(ours, (x,), (v,))
        _, forward = pb.jvp(pb.grad(ours), (x,), (v,))

        def theirs(x: Any, run: Callable[[Any, Any], Any] = run) -> Any:
            return run(xp_torch, x)

        xt, vt = torch.asarray(x), torch.asarray(v)
        expected = theirs(xt), torch.func.grad(theirs)(xt), torch.func.vjp(torch.func.grad(theirs), xt)[1](vt)[0]
        compare(names, "PyTorch", (value, gradient, product), expected)

        def jaxs(x: Any, run: Callable[[Any, Any], Any] = run) -> Any:
            return run(jnp, x)

        xj, vj = jnp.asarray(x), jnp.asarray(v)
        value_j, pull = jax.vjp(jax.value_and_grad(jaxs), xj)
        compare(names, "JAX", (value, gradient, product), (*value_j, pull((jnp.zeros(()), vj))[0]))
        compare(names, "our jvp", (forward,), (product,))


def compare(names: list[str], peer: str, got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    """Compare in float64: twelve steps of some ten operations lose a few digits."""
    for what, g, e in zip(("value", "gradient", "Hessian product"), got, expected, strict=False):
        e = np.asarray(e)  # noqa: PLW2901
        scale = 1 + np.max(np.abs(e))
        assert np.max(np.abs(g - e)) <= 1e-10 * scale, f"{what} of {names} beside {peer}: {g} and {e}"
