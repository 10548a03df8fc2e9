"""The pairs of this package inside functions that are differentiated: one operation each, right to every order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback as pb
from pullback._autodiff.tape import Tape
from pullback._core.pair import Pair
from pullback._ops import PAIRS
from tests.autodiff.test_transforms import close
from tests.harness.backend import Backend

ACTIVATIONS = [pair for pair in PAIRS if pair.backward is not None and len(pair.inputs) == 1]
LOSSES = [pair for pair in PAIRS if pair.backward is None]
LINEAR = [pair for pair in PAIRS if pair.backward is not None and len(pair.inputs) > 1]


def arrays(backend: Backend, pair: Pair) -> tuple[list[Any], list[Any]]:
    """Draw the inputs of a pair, for NumPy and for the backend."""
    rng = np.random.default_rng(5)
    exact = [rng.standard_normal(x) if isinstance(x, tuple) else np.asarray(x) for x in pair.inputs.values()]
    return exact, [backend.asarray(x) for x in exact]


def nodes(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any]) -> int:
    """Count the operations that are recorded."""
    counts = []
    leave = Tape.__exit__

    def count(self: Tape, *args: object) -> None:
        counts.append(len(self.nodes))
        leave(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Tape, "__exit__", count)
        function()
    return counts[0]


@pytest.mark.parametrize("pair", ACTIVATIONS, ids=lambda pair: pair.name)
def test_activations(backend_one_device: Backend, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    (_,), (a,) = arrays(backend_one_device, pair)
    out, pull = pb.vjp(pair.forward, a)
    plain = pair.forward(a)
    assert np.array_equal(backend_one_device.numpy(out), backend_one_device.numpy(plain))
    (got,) = pull(a)
    expected = pair.backward(a, plain if pair.saves == "output" else a)  # type: ignore[misc] # an activation has one
    assert np.array_equal(backend_one_device.numpy(got), backend_one_device.numpy(expected))
    assert nodes(monkeypatch, lambda: pb.vjp(pair.forward, a)) == 2  # the argument and the call


@pytest.mark.parametrize("pair", ACTIVATIONS, ids=lambda pair: pair.name)
def test_second_derivatives_of_activations(backend_one_device: Backend, pair: Pair) -> None:
    (exact,), (a,) = arrays(backend_one_device, pair)

    def gradient(a: Any) -> Any:
        return pb.grad(lambda a: array_namespace(a).sum(pair.forward(a) * pb.constant(weights)))(a)

    weights = backend_one_device.asarray(np.cos(np.arange(12.0)).reshape(4, 3))
    _, tangent = pb.jvp(gradient, (a,), (weights,))
    _, pull = pb.vjp(gradient, a)
    assert close(backend_one_device, pull(weights)[0], backend_one_device.numpy(tangent))
    if backend_one_device.real == "float64":
        h = 1e-5
        step = h * np.cos(np.arange(12.0)).reshape(4, 3)
        ahead, behind = (
            backend_one_device.numpy(gradient(backend_one_device.asarray(exact + s))) for s in (step, -step)
        )
        assert np.allclose(backend_one_device.numpy(tangent), (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("pair", LOSSES, ids=lambda pair: pair.name)
def test_losses(
    backend_one_device: Backend, monkeypatch: pytest.MonkeyPatch, pair: Pair, reduction: str, *, weighted: bool
) -> None:
    _, (a, y) = arrays(backend_one_device, pair)
    options: dict[str, Any] = {"reduction": reduction}
    if weighted:
        options["weights"] = backend_one_device.asarray(np.asarray([1.0, 0.5, 0.0, 2.0]))

    def value(a: Any) -> Any:
        return pair.forward(a, y, **options).value

    plain = pair.forward(a, y, **options)
    out, pull = pb.vjp(value, a)
    assert np.array_equal(backend_one_device.numpy(out), backend_one_device.numpy(plain.value))
    (got,) = pull(out * 0 + 1)
    assert close(backend_one_device, got, backend_one_device.numpy(plain.da))
    assert nodes(monkeypatch, lambda: pb.vjp(value, a)) == 3  # the argument, the value and the gradient
    _, pull = pb.vjp(lambda a: pair.forward(a, y, **options).da, a)
    product = pair.hessian_product(a, a, y, **options)  # type: ignore[misc] # a loss has one
    assert close(backend_one_device, pull(a)[0], backend_one_device.numpy(product))
    if reduction != "none":
        (second,) = pb.hvp(value, (a,), (a,))
        assert close(backend_one_device, second, backend_one_device.numpy(product))


@pytest.mark.parametrize("name", ["squared_error", "logistic", "poisson", "huber"])
def test_losses_of_active_labels_and_weights(backend_one_device: Backend, name: str) -> None:
    """A pair has no derivative for these: they are recorded function by function."""
    loss = getattr(pb, name)
    rng = np.random.default_rng(6)
    exact = rng.standard_normal((4, 3)), rng.uniform(size=(4, 3)), rng.uniform(0.5, 1.5, size=4)
    a, y, weights = map(backend_one_device.asarray, exact)
    value = pb.value_and_grad(lambda a, y, w: loss(a, y, weights=w).value, (0, 1, 2))
    out, gradients = value(a, y, weights)
    assert close(backend_one_device, out, backend_one_device.numpy(loss(a, y, weights=weights).value))
    if backend_one_device.real == "float64":
        h = 1e-6
        for i, x in enumerate(exact):
            step = np.zeros_like(x)
            step.flat[0] = h
            moved = [
                getattr(pb, name)(
                    *(e + s * step if j == i else e for j, e in enumerate(exact[:2])),
                    weights=exact[2] + (s * step if i == 2 else 0),
                ).value
                for s in (1, -1)
            ]
            got = backend_one_device.numpy(gradients[i]).flat[0]
            assert abs((moved[0] - moved[1]) / (2 * h) - got) < 1e-7


@pytest.mark.parametrize("pair", LINEAR, ids=lambda pair: pair.name)
def test_linear_pairs(backend_one_device: Backend, pair: Pair) -> None:
    _, inputs = arrays(backend_one_device, pair)
    out, pull = pb.vjp(pair.forward, *inputs)
    plain = pair.forward(*inputs)
    assert close(backend_one_device, out, backend_one_device.numpy(plain))
    got = pull(plain)
    known = dict(zip(pair.inputs, inputs, strict=True))
    expected = pair.backward(plain, *(known[name] for name in pair.needs))  # type: ignore[misc] # these have one
    for g, e in zip(got, expected, strict=True):
        assert close(backend_one_device, g, backend_one_device.numpy(e))


def test_plain_arrays_beside_traced_ones(backend_one_device: Backend) -> None:
    """Data that the function takes from around it are lifted by the pairs themselves."""
    rng = np.random.default_rng(7)
    exact = rng.standard_normal((6, 3)), rng.standard_normal((3, 2)), rng.integers(0, 2, (6, 2))
    z, w, y = map(backend_one_device.asarray, exact)
    got = pb.grad(lambda w: pb.logistic(pb.affine_forward(z, w), y).value)(w)
    da = pb.logistic(pb.affine_forward(z, w), y).da
    assert close(backend_one_device, got, backend_one_device.numpy(pb.affine_backward(da, z, w).dw))


def test_long_sums_are_accurate() -> None:
    """The float32 gradients of a long batch have the error of the pairs, and so do their second derivatives."""
    rng = np.random.default_rng(8)
    z = rng.uniform(size=(100_000, 8)).astype(np.float32)
    w, b, scale = (rng.uniform(size=s).astype(np.float32) for s in ((8, 4), 4, 4))

    def loss(w: Any, b: Any, scale: Any) -> Any:
        a = (pb.constant(z) @ w + b) * scale
        return array_namespace(a).sum(a * a)

    got = pb.grad(loss, (0, 1, 2))(w, b, scale)
    wide = pb.grad(
        lambda w, b, scale: array_namespace(w).sum(((pb.constant(z.astype(float)) @ w + b) * scale) ** 2), (0, 1, 2)
    )(w.astype(float), b.astype(float), scale.astype(float))
    for g, e in zip(got, wide, strict=True):
        assert np.max(np.abs(g - e)) <= 1e-6 * np.max(np.abs(e))


def test_sums_of_equal_entries_are_exact() -> None:
    """A bias of a million rows has the gradient of its rows' number, and no row of ones is summed."""
    z, w = np.ones((1_000_003, 2), dtype=np.float32), np.ones((2, 3), dtype=np.float32)
    b, scale = np.ones(3, dtype=np.float32), np.asarray([[0.1], [0.2]], dtype=np.float32)
    db = pb.grad(lambda b: array_namespace(b).sum((pb.constant(z) @ w + b) * np.float32(0.5)))(b)
    assert np.array_equal(db, np.full(3, 500_001.5, dtype=np.float32))
    got = pb.grad(lambda s: array_namespace(s).sum(s + pb.constant(w)) * 2.0)(scale)
    assert np.array_equal(got, np.full((2, 1), 6.0, dtype=np.float32))
    none = pb.grad(lambda b: array_namespace(b).sum(b + pb.constant(z[:0, :1])))(b)
    assert np.array_equal(none, np.zeros(3, dtype=np.float32))


def test_vector_of_weights(backend_one_device: Backend) -> None:
    """A logistic regression with a vector of weights has the gradients and the Hessian products of a column."""
    rng = np.random.default_rng(6)
    z, w, b, y = (backend_one_device.asarray(rng.random(shape)) for shape in ((6, 3), (3, 1), (1,), (6, 1)))

    def value(w: Any, b: Any) -> Any:
        return pb.logistic(pb.affine_forward(z, w, b), y if w.ndim == 2 else y[:, 0]).value

    def product(*x: Any) -> Any:
        return pb.jvp(pb.grad(value, (0, 1)), x, x)[1]

    functions: list[Callable[..., Any]] = [pb.grad(value, (0, 1)), product]
    for function in functions:
        column, vector = function(w, b), function(w[:, 0], b[0])
        for got, right in zip(vector, column, strict=True):
            assert close(backend_one_device, got, backend_one_device.numpy(right)[..., 0])


@pytest.mark.parametrize("pair", LOSSES, ids=lambda pair: pair.name)
def test_losses_of_a_vector(backend_one_device: Backend, pair: Pair) -> None:
    """The derivative of the losses of a vector of outputs, one for each example or, of the softmax, one in all."""
    rng = np.random.default_rng(7)
    labels = np.asarray(1) if pair.name == "softmax_cross_entropy" else np.asarray([1, 0, 1, 1])
    a, y, v = (backend_one_device.asarray(x) for x in (rng.standard_normal(4), labels, rng.standard_normal(4)))
    losses, pull = pb.vjp(lambda a: pair.forward(a, y, reduction="none").value, a)
    factor = v if losses.ndim else v[0]
    (got,) = pull(factor)
    right = factor * pair.forward(a, y, reduction="none").da
    assert np.array_equal(backend_one_device.numpy(got), backend_one_device.numpy(right))
    assert pair.hessian_product is not None
    _, change = pb.jvp(lambda a: pair.forward(a, y, reduction="sum").da, (a,), (v,))
    right = pair.hessian_product(v, a, y, reduction="sum")
    assert close(backend_one_device, change, backend_one_device.numpy(right))
