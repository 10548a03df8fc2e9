"""Weights of classes and of positive labels, and smoothed labels, against the same losses without these options."""

from typing import Any

import numpy as np
import pytest

import pullback as pb
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS

LABELS = np.asarray([0, 2, 1, 2, 0, 1])
WEIGHTS = np.asarray([0.5, 0.0, 2.0, 1.0, 3.0, 0.25])
OF_CLASSES = np.asarray([0.25, 2.0, 1.5])


def close(backend: Backend, got: Any, right: Any) -> None:
    for x, y in zip(backend.numpy(tuple(got)), backend.numpy(tuple(right)), strict=True):
        np.testing.assert_allclose(x, y, rtol=32 * EPS[backend.real], atol=4 * EPS[backend.real])


def drawn(backend: Backend) -> list[Any]:
    """Return logits, labels, weights, weights of classes and a tangent."""
    rng = np.random.default_rng(90)
    a, v = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    held = [backend.rows(x) for x in (a, LABELS, WEIGHTS)]
    return [*held, backend.asarray(OF_CLASSES), backend.rows(v)]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_weights(backend_one_device: Backend, reduction: str) -> None:
    """They are weights of the examples, by their class."""
    a, y, weights, of_classes, v = drawn(backend_one_device)
    for given, right in ((None, OF_CLASSES[LABELS]), (weights, OF_CLASSES[LABELS] * WEIGHTS)):
        factors = backend_one_device.rows(right)
        options: Any = {"weights": given, "class_weights": of_classes, "reduction": reduction}
        plain: Any = {"weights": factors, "reduction": reduction}
        close(backend_one_device, pb.softmax_cross_entropy(a, y, **options), pb.softmax_cross_entropy(a, y, **plain))
        products = (pb.softmax_cross_entropy_hessian_product(v, a, y, **x) for x in (options, plain))
        close(backend_one_device, *([x] for x in products))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_label_smoothing(backend_one_device: Backend, reduction: str) -> None:
    """Smoothed indices and smoothed one-hot rows are rows of probabilities."""
    a, y, weights, _, v = drawn(backend_one_device)
    one_hot = np.eye(3)[LABELS]
    smooth, rows = (backend_one_device.rows(x) for x in (one_hot * 0.7 + 0.1, one_hot))
    plain: Any = {"weights": weights, "reduction": reduction}
    options: Any = {**plain, "label_smoothing": 0.3}
    right = pb.softmax_cross_entropy(a, smooth, **plain)
    product = pb.softmax_cross_entropy_hessian_product(v, a, smooth, **plain)
    for labels in (y, rows):
        close(backend_one_device, pb.softmax_cross_entropy(a, labels, **options), right)
        got = pb.softmax_cross_entropy_hessian_product(v, a, labels, **options)
        close(backend_one_device, [got], [product])


def test_index_out_of_range(backend_one_device: Backend) -> None:
    """It makes its example NaN also with these options, and not where its weight is 0."""
    a, _, weights, of_classes, _ = drawn(backend_one_device)
    y = backend_one_device.rows(np.asarray([0, -100, 7, 2, 0, 1]))
    for options in ({"class_weights": of_classes}, {"label_smoothing": 0.1}):
        value, _ = backend_one_device.numpy(
            pb.softmax_cross_entropy(a, y, weights=weights, reduction="none", **options)
        )
        assert np.isnan(value).tolist() == [False, False, True, False, False, False]
        assert value[1] == 0


def test_options_inside_grad(backend_one_device: Backend) -> None:
    """A loss with these options is one operation of a gradient."""
    a, y, weights, of_classes, v = drawn(backend_one_device)

    def value(a: Any) -> Any:
        return pb.softmax_cross_entropy(
            a, y, weights=weights, class_weights=of_classes, label_smoothing=0.2, reduction="sum"
        ).value

    options: Any = {"weights": weights, "class_weights": of_classes, "label_smoothing": 0.2, "reduction": "sum"}
    close(backend_one_device, [pb.grad(value)(a)], [pb.softmax_cross_entropy(a, y, **options).da])
    product = pb.softmax_cross_entropy_hessian_product(v, a, y, **options)
    close(backend_one_device, pb.hvp(value, (a,), (v,)), [product])


def test_positive_weight(backend_one_device: Backend) -> None:
    """It is a weight of the outputs whose label is 1."""
    a, *_, v = drawn(backend_one_device)
    labels = np.eye(3)[LABELS]
    y, factors = (backend_one_device.rows(x) for x in (labels, 1 + 1.5 * labels))
    options: Any = {"positive_weight": 2.5, "reduction": "sum"}
    plain: Any = {"weights": factors, "reduction": "sum"}
    close(backend_one_device, pb.logistic(a, y, **options), pb.logistic(a, y, **plain))
    got, right = (pb.logistic_hessian_product(v, a, y, **x) for x in (options, plain))
    close(backend_one_device, [got], [right])


def test_refuses(backend_one_device: Backend) -> None:
    a, y, weights, of_classes, _ = drawn(backend_one_device)
    loss: Any = pb.softmax_cross_entropy
    shape = (
        r"^softmax_cross_entropy: class_weights must have one entry for each class, shape \(n,\); got class_weights "
    )
    with pytest.raises(ValueError, match=shape):
        loss(a, y, class_weights=of_classes[:2])
    with pytest.raises(
        ValueError, match=r"class_weights belong to class indices, .* Multiply y by class_weights instead$"
    ):
        loss(a, a, class_weights=of_classes)
    with pytest.raises(ValueError, match=r"weights must have one entry for each example"):
        loss(a, y, class_weights=of_classes, weights=a)
    with pytest.raises(TypeError, match=r"weights must be an array; got float"):
        loss(a, y, class_weights=of_classes, weights=1.0)
    with pytest.raises(TypeError, match=r"class_weights must be an array; got list"):
        loss(a, y, class_weights=[1.0, 2.0, 3.0], weights=weights)
    for share in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match=r"label_smoothing must be finite and at least 0 and below 1; got"):
            loss(a, y, label_smoothing=share)
    for function in (pb.logistic, lambda *x, **options: pb.logistic_hessian_product(a, *x, **options)):
        with pytest.raises(ValueError, match=r"positive_weight must be finite and above 0; got 0\.0$"):
            function(a, a, positive_weight=0.0)
