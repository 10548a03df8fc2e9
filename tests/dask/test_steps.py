"""Quantities of layers as steps of `accumulate`: what they give of the whole batch at once, block by block."""

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest

from pullback import (
    TANH,
    Affine,
    affine_backward,
    affine_forward,
    clipped_gradients,
    per_example_gradients,
    per_example_norms,
    second_moments,
    softmax_cross_entropy,
    stack_backward,
    stack_forward,
)
from tests.harness.batches import accumulate, compute

M, K, N = 5000, 6, 5


def norms(upstream: Any, z: Any) -> tuple[Any]:
    return (per_example_norms(upstream, z),)


def train(z: Any, y: Any, *parameters: Any) -> tuple[Any, ...]:
    """Return the sum of the losses and its gradients."""
    w1, b1, w2 = parameters
    a, kept = stack_forward([Affine(w1, b1), TANH, Affine(w2)], z)
    value, upstream = softmax_cross_entropy(a, y, reduction="sum")
    layers: Any = stack_backward(upstream, kept, wrt=("layers",)).layers
    first, _, second = layers
    return value, *first, second.w


STEPS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "second moments": (second_moments, ()),
    "clipped": (lambda upstream, z: clipped_gradients(upstream, z, 1.5), ()),
    "norms": (norms, (0,)),
    "gradients": (per_example_gradients, (0, 1)),
}


@pytest.mark.parametrize("positions", [(), (3,)], ids=str)
@pytest.mark.parametrize("name", STEPS)
def test_examples(name: str, positions: tuple[int, ...]) -> None:
    step, rows = STEPS[name]
    rng = np.random.default_rng(50)
    upstream, z = (rng.standard_normal((M, *positions, size)) for size in (N, K))
    blocks = (da.from_array(x, chunks=(1700, *x.shape[1:])) for x in (upstream, z))
    got = compute(*accumulate(step, *blocks, rows=rows))
    for x, expected in zip(got, step(upstream, z), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-12, atol=1e-10)


def test_vector_of_weights() -> None:
    """A step of a model with a single output has sums of shape (k,) and ()."""
    rng = np.random.default_rng(51)
    z, y, w = rng.standard_normal((M, K)), rng.standard_normal(M), rng.standard_normal(K)

    def step(z: Any, y: Any, w: Any) -> tuple[Any, ...]:
        return affine_backward(affine_forward(z, w) - y, z, w, wrt=("w", "b"))[1:]

    blocks = (da.from_array(x, chunks=(1700, *x.shape[1:])) for x in (z, y))
    got = compute(*accumulate(step, *blocks, shared=(w,)))
    assert [x.shape for x in got] == [(K,), ()]
    for x, expected in zip(got, step(z, y, w), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-12, atol=1e-10)


def test_training() -> None:
    rng = np.random.default_rng(51)
    z, y = rng.standard_normal((M, K)), rng.integers(N, size=M)
    parameters = [rng.standard_normal(shape) for shape in ((K, 4), (4,), (4, N))]
    lazy = (da.from_array(x, chunks=1700) for x in (z, y))
    got = compute(*accumulate(train, *lazy, shared=parameters))
    for x, expected in zip(got, train(z, y, *parameters), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-12, atol=1e-10)
