"""The losses under the autodiff and vmap of JAX and PyTorch: where |a| and max have kinks, the losses have none."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from pullback import huber, logistic
from tests.harness.autodiff import gradients, hessians, vmap
from tests.harness.backend import Backend
from tests.harness.loss_cases import CASES, weigh
from tests.harness.pair_laws import EPS, C

pytestmark = pytest.mark.backends("jax", "torch")

# Zeros, ties, and logits on either side that saturate every exponential; each with two kinds of labels.
LOGITS = np.asarray(
    [
        *[[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [-2.0, 0.0, -2.0], [0.5, 0.5, 0.5]],
        *[[30.0, -30.0, 0.0], [-40.0, 2.0, 40.0], [-30.0, -30.0, 30.0], [20.0, -1.0, -40.0]],
    ]
)
LOGITS = np.concatenate([LOGITS, LOGITS])
LABELS = np.asarray([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
LABELS = np.concatenate([LABELS, LABELS, LABELS[::-1], LABELS[::-1]])
VECTORS = np.random.default_rng(0).standard_normal(LOGITS.shape)
WEIGHTS = np.resize([1.0, 0.0, 2.0, 0.5], 16)


REDUCTIONS = {"mean": (None, "mean"), "weighted sum": (WEIGHTS, "sum"), "weighted mean": (WEIGHTS, "mean")}


def options_of(backend: Backend, reduction: str) -> dict[str, Any]:
    """Return the options of a loss."""
    weights, name = REDUCTIONS[reduction]
    return {"reduction": name} if weights is None else {"weights": backend.asarray(weights), "reduction": name}


def require(got: dict[str, Any], right: Any, size: Any) -> None:
    """Compare to C·√n·eps of what is added up for each entry; the exponentials of large logits vanish beside it."""
    for way, values in got.items():
        assert np.all(abs(values - right) <= C * np.sqrt(3) * EPS["float64"] * size), f"{way}: {values} and not {right}"


def products(backend: Backend, function: Any, a: Any) -> dict[str, Any]:
    """Return the Hessians times `VECTORS`."""
    return {way: np.tensordot(x, VECTORS, VECTORS.ndim) for way, x in hessians(backend, function, a).items()}


def dot(x: Any, y: Any) -> Any:
    return (x * y).sum()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_value(backend_one_device: Backend, name: str, reduction: str) -> None:
    """The derivatives of the value are those of the formula, and those that come with it."""
    backend, case, options = backend_one_device, CASES[name], options_of(backend_one_device, reduction)
    a, y, v = map(backend.asarray, (LOGITS, LABELS, VECTORS))
    scale = partial(weigh, weights=REDUCTIONS[reduction][0], reduction=options["reduction"])
    size = scale(case.size(LOGITS, LABELS) + 0 * LOGITS)

    def value(a: Any) -> Any:
        return case.loss(a, y, **options).value

    right = scale(case.gradient(LOGITS, LABELS))
    require(gradients(backend, value, a), right, size)
    require({"da": backend.numpy(case.loss(a, y, **options).da)}, right, size)
    if not case.kinked:
        right = scale(case.curvature(VECTORS, LOGITS, LABELS))
        bound = size * np.max(abs(VECTORS))
        require(products(backend, value, a), right, bound)
        require({"product": backend.numpy(case.product(v, a, y, **options))}, right, bound)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_gradient(backend_one_device: Backend, name: str, reduction: str) -> None:
    """The derivative of ⟨da, v⟩ is the Hessian product; that of ⟨H v, u⟩ along v is H u."""
    backend, case, options = backend_one_device, CASES[name], options_of(backend_one_device, reduction)
    a, y, v = map(backend.asarray, (LOGITS, LABELS, VECTORS))
    exact = backend.numpy(case.product(v, a, y, **options))
    size = np.max(abs(VECTORS)) * (case.size(LOGITS, LABELS) + 0 * exact)

    def change(a: Any) -> Any:
        return dot(case.loss(a, y, **options).da, v)

    def curvature(u: Any) -> Any:
        return dot(case.product(u, a, y, **options), v)

    require(gradients(backend, curvature, v), exact, size)
    if not case.kinked:
        require(gradients(backend, change, a), exact, size)


def test_known_values(backend_one_device: Backend) -> None:
    """A logistic regression that starts at 0: both derivatives, by hand."""
    zero, one = (backend_one_device.asarray(np.full((1, 1), x)) for x in (0.0, 1.0))
    for y, gradient in ((zero, 0.5), (one, -0.5)):

        def value(a: Any, y: Any = y) -> Any:
            return logistic(a, y).value

        for got in gradients(backend_one_device, value, zero).values():
            assert got.tolist() == [[gradient]]
        for got in hessians(backend_one_device, value, zero).values():
            assert got.ravel().tolist() == [0.25]


def test_kinks_of_huber(backend_one_device: Backend) -> None:
    """At an error of delta its gradient is delta on either side."""
    a = backend_one_device.asarray(np.asarray([[0.75], [-0.75], [0.0]]))

    def value(a: Any) -> Any:
        return huber(a, a * 0, delta=0.75, reduction="sum").value

    for got in gradients(backend_one_device, value, a).values():
        assert got.tolist() == [[0.75], [-0.75], [0.0]]


@pytest.mark.parametrize("name", CASES)
def test_absent_examples(backend_one_device: Backend, name: str) -> None:
    """The derivatives of an example of weight 0 are 0, even where it holds NaN."""
    backend, case = backend_one_device, CASES[name]
    a, y = LOGITS.copy(), LABELS.copy()
    a[1], y[1] = np.nan, np.nan
    held, weights = backend.asarray(a), backend.asarray(WEIGHTS)

    def value(a: Any) -> Any:
        return case.loss(a, backend.asarray(y), weights=weights).value

    for got in (*gradients(backend, value, held).values(), *products(backend, value, held).values()):
        assert np.isfinite(got).all()
        assert not got[1].any()


@pytest.mark.parametrize("batched", ["a", "y", "v", "weights"])
@pytest.mark.parametrize("name", CASES)
def test_vmap(backend_one_device: Backend, name: str, batched: str) -> None:
    """Each argument by itself may have a batch axis."""
    backend, case = backend_one_device, CASES[name]
    rng = np.random.default_rng(0)
    drawn = {"v": VECTORS, "a": LOGITS, "y": LABELS, "weights": WEIGHTS + 1}
    drawn[batched] = drawn[batched] + rng.random((2, *drawn[batched].shape))
    held = {x: backend.asarray(array) for x, array in drawn.items()}

    def both(v: Any, a: Any, y: Any, weights: Any) -> Any:
        return *case.loss(a, y, weights=weights), case.product(v, a, y, weights=weights)

    mapped = vmap(backend, both, tuple(0 if x == batched else None for x in held))(*held.values())
    for i in range(2):
        one = both(*(array[i] if x == batched else array for x, array in held.items()))
        for got, right in zip(mapped, one, strict=True):
            size = np.max(case.size(drawn["a"], drawn["y"])) * np.max(abs(drawn["v"]))
            require({batched: backend.numpy(got)[i]}, backend.numpy(right), size)


@pytest.mark.parametrize("index", [0, 2])
def test_class_indices(backend_one_device: Backend, index: int) -> None:
    """The derivatives for a class index are those for its weight of 1, also where logits tie."""
    backend, case = backend_one_device, CASES["softmax_cross_entropy"]
    one_hot, indices = np.zeros(LOGITS.shape), backend.asarray(np.full(len(LOGITS), index))
    one_hot[:, index] = 1
    a, v = backend.asarray(LOGITS), backend.asarray(VECTORS)
    size = case.size(LOGITS, one_hot)

    def value(a: Any) -> Any:
        return case.loss(a, indices, reduction="sum").value

    def change(a: Any) -> Any:
        return dot(case.loss(a, indices, reduction="sum").da, v)

    require(gradients(backend, value, a), case.gradient(LOGITS, one_hot), size)
    right, bound = case.curvature(VECTORS, LOGITS, one_hot), size * np.max(abs(VECTORS))
    require(products(backend, value, a), right, bound)
    require(gradients(backend, change, a), right, bound)
