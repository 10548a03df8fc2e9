"""The softmax cross entropy against a float64 reference, at the edges of its numbers, and what it refuses."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device

from pullback import softmax_cross_entropy, softmax_cross_entropy_hessian_product
from tests.harness.backend import Backend, sampled
from tests.harness.pair_laws import EPS, C


def reference(a: Any, y: Any, reduction: str = "none") -> tuple[Any, Any]:
    """Follow the definition in float64: ``-Σ y log p`` and ``p Σ y - y`` for each example."""
    a = a.astype("float64")
    target = np.eye(a.shape[-1])[y] if y.dtype.kind in "iu" else y.astype("float64")
    log_p = a - np.max(a, axis=-1, keepdims=True, initial=-np.inf)
    log_p = log_p - np.log(np.sum(np.exp(log_p), axis=-1, keepdims=True))
    value = -np.sum(np.where(target == 0, 0.0, target * np.where(target == 0, 0.0, log_p)), axis=-1)
    da = np.exp(log_p) * np.sum(target, axis=-1, keepdims=True) - target
    if reduction == "mean":
        return np.mean(value), da / value.size
    return (np.sum(value), da) if reduction == "sum" else (value, da)


def check(backend: Backend, a: Any, y: Any, reduction: str = "none", dtype: str | None = None) -> None:
    """Compare with the reference: values to C·√n·eps of the largest logit's size, gradients of the weights' sum."""
    put = backend.rows if a.ndim > 1 else backend.asarray
    logits, targets = put(a, dtype), put(y)
    loss = backend.call(softmax_cross_entropy, logits, targets, reduction=reduction)
    with np.errstate(invalid="ignore"):
        value, da = backend.numpy(loss)
    eps = EPS[dtype or backend.real]
    expected_value, expected_da = reference(backend.numpy(logits), y, reduction)
    size = np.max(np.abs(a[np.isfinite(a)]), initial=1.0) * (value.size if reduction != "sum" else expected_da.size)
    tolerance = C * np.sqrt(a.shape[-1]) * eps
    np.testing.assert_allclose(value, expected_value, rtol=tolerance, atol=tolerance * size)
    np.testing.assert_allclose(da, expected_da, rtol=tolerance, atol=tolerance * size)


REDUCTIONS = ("mean", "sum", "none")
SHAPES = [(7, 4), (4,), (3, 2, 5), (1, 3), (6, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_shapes(backend_one_device: Backend, kind: str, reduction: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    y = rng.integers(shape[-1], size=shape[:-1]) if kind == "indices" else rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    check(backend_one_device, rng.standard_normal(shape), y, reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_modes(backend: Backend, reduction: str) -> None:
    rng = np.random.default_rng(8)
    check(backend, rng.standard_normal((7, 4)), rng.integers(4, size=7), reduction)
    check(backend, rng.standard_normal((7, 4)), rng.random((7, 4)), reduction)


def test_dtypes(backend: Backend, dtype: str) -> None:
    if dtype.startswith("complex"):
        return  # a loss has real logits: see test_refuses_dtypes
    rng = np.random.default_rng(9)
    check(backend, rng.standard_normal((5, 3)), rng.integers(3, size=5), "mean", dtype)
    a, y = backend.rows(np.ones((5, 3)), dtype), backend.rows(rng.integers(3, size=5))
    before = backend.numpy(a), backend.numpy(y)
    loss = backend.call(softmax_cross_entropy, a, y)
    assert loss._fields == ("value", "da")
    for x in loss:
        assert array_namespace(x) is backend.xp
        assert x.dtype == a.dtype
        assert str(device(x)) == str(device(a))
    assert loss.value.shape == ()
    assert str(loss.da.shape) == str(a.shape)
    assert all(np.array_equal(backend.numpy(x), was) for x, was in zip((a, y), before, strict=True))


@pytest.mark.parametrize(
    ("of_a", "of_y", "promoted"), [("float32", "float64", "float64"), ("float64", "float32", "float64")]
)
def test_mixed_dtypes(backend_one_device: Backend, of_a: str, of_y: str, promoted: str) -> None:
    rng = np.random.default_rng(10)
    a, y = backend_one_device.rows(rng.random((4, 3)), of_a), backend_one_device.rows(rng.random((4, 3)), of_y)
    loss = backend_one_device.call(softmax_cross_entropy, a, y)
    assert loss.value.dtype == backend_one_device.dtype(promoted)
    assert loss.da.dtype == a.dtype


def test_gradient_is_the_values(backend_one_device: Backend) -> None:
    """The central difference of the float64 reference, with an error of h² = 1e-10 and a rounding of eps/h."""
    rng = np.random.default_rng(11)
    a, move, y = rng.standard_normal((5, 4)), rng.standard_normal((5, 4)), rng.random((5, 4))
    da = backend_one_device.numpy(
        backend_one_device.call(softmax_cross_entropy, backend_one_device.rows(a), backend_one_device.rows(y)).da
    )
    change = (reference(a + 1e-5 * move, y, "mean")[0] - reference(a - 1e-5 * move, y, "mean")[0]) / 2e-5
    np.testing.assert_allclose(np.sum(da * move), change, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "int64"])
def test_integer_kinds(backend_one_device: Backend, kind: str) -> None:
    """Also fewer indices than classes: a uint8 says 255 of 300, and is not compared with 44 where it means 300."""
    rng = np.random.default_rng(12)
    classes, indices = (300, [0, 44, 255]) if kind == "uint8" else (130, [0, 3, 127])
    check(backend_one_device, rng.standard_normal((3, classes)), np.asarray(indices, dtype=kind))


def test_large_logits(backend: Backend) -> None:
    a = np.asarray([[1e4, -1e4, 0.0], [-1e4, 1e4, 9999.0], [1e4, 1e4, 1e4]])
    check(backend, a, np.asarray([1, 1, 2]))
    check(backend, a, np.full((3, 3), 1 / 3))


def test_probabilities_that_do_not_sum_to_one(backend: Backend) -> None:
    rng = np.random.default_rng(13)
    for reduction in REDUCTIONS:
        check(backend, rng.standard_normal((3, 4)), rng.standard_normal((3, 4)), reduction)
        check(backend, rng.standard_normal((3, 4)), np.zeros((3, 4)), reduction)


def test_impossible_class_of_no_weight(backend: Backend) -> None:
    """A logit of -inf has probability 0, and with weight 0 adds 0 to the loss."""
    a = np.asarray([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 3.0]])
    check(backend, a, np.asarray([2, 2]))
    check(backend, a, np.asarray([[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]]))


def test_impossible_class(backend: Backend) -> None:
    """The loss of an impossible class is infinite, and its gradient is still p - y."""
    a = np.asarray([[0.0, -np.inf], [0.0, 0.0]])
    value, da = backend.numpy(
        backend.call(softmax_cross_entropy, backend.rows(a), backend.rows(np.asarray([1, 1])), reduction="none")
    )
    assert value[0] == np.inf
    assert da[0].tolist() == [1, -1]


@pytest.mark.parametrize("bad", [-1, 3, 100])
def test_index_out_of_range(backend: Backend, bad: int) -> None:
    """NaN, in its own example only."""
    a, y = np.zeros((4, 3)), np.asarray([0, bad, 2, 1])
    value, da = backend.numpy(backend.call(softmax_cross_entropy, backend.rows(a), backend.rows(y), reduction="none"))
    assert np.isnan(value).tolist() == [False, True, False, False]
    assert np.isnan(da).all(axis=1).tolist() == [False, True, False, False]
    assert np.isnan(da).any(axis=1).tolist() == [False, True, False, False]


def test_padding(backend_one_device: Backend) -> None:
    """An index out of range does not count with weight 0, and class indices agree with the probabilities 0 and 1."""
    rng = np.random.default_rng(14)
    a, y, weights = rng.standard_normal((4, 3)), np.asarray([0, -100, 2, 3]), np.asarray([2, 0, 1, 0])
    logits, counts = backend_one_device.rows(a), backend_one_device.rows(weights)
    value, da = backend_one_device.numpy(softmax_cross_entropy(logits, backend_one_device.rows(y), weights=counts))
    one_hot = backend_one_device.rows(np.eye(3)[[0, 0, 2, 0]])
    right, right_da = backend_one_device.numpy(softmax_cross_entropy(logits, one_hot, weights=counts))
    tolerance = C * np.sqrt(3) * EPS[backend_one_device.real]
    np.testing.assert_allclose(value, right, rtol=tolerance)
    np.testing.assert_allclose(da, right_da, rtol=tolerance, atol=tolerance)
    assert not da[[1, 3]].any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_hessian_of_indices(backend: Backend, reduction: str) -> None:
    """That of probabilities 0 and 1, whatever the index, and NaN for one that is out of range."""
    rng = np.random.default_rng(15)
    a, v = backend.rows(rng.standard_normal((4, 3))), backend.rows(rng.standard_normal((4, 3)))
    product = partial(backend.call, softmax_cross_entropy_hessian_product, v, a, reduction=reduction)
    got = backend.numpy(product(backend.rows(np.asarray([0, 1, 3, 2]))))
    right = backend.numpy(product(backend.rows(np.eye(3)[[0, 1, 1, 2]])))
    assert np.isnan(got).all(axis=1).tolist() == [False, False, True, False]
    tolerance = C * np.sqrt(3) * EPS[backend.real]
    np.testing.assert_allclose(got[[0, 1, 3]], right[[0, 1, 3]], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("as_labels", [np.asarray, np.eye(3).__getitem__], ids=["indices", "probabilities"])
def test_infinite_logit(backend: Backend, as_labels: Callable[[list[int]], Any]) -> None:
    """It counts as the largest number: the loss of its class is 0, that of another one this number."""
    a = np.zeros((3, 3))
    a[:2, 1] = np.inf
    y = as_labels([1, 0, 2])
    value, da = backend.numpy(backend.call(softmax_cross_entropy, backend.rows(a), backend.rows(y), reduction="none"))
    np.testing.assert_allclose(value[:2], [0, np.finfo(value.dtype).max], rtol=EPS[backend.real])
    assert da[:2].tolist() == [[0, 0, 0], [-1, 1, 0]]
    assert np.isfinite(value[2])
    v = backend.rows(np.asarray([[1.0, 2.0, 3.0]] * 3))
    product = backend.numpy(
        backend.call(softmax_cross_entropy_hessian_product, v, backend.rows(a), backend.rows(y), reduction="none")
    )
    assert not product[:2].any()


def test_nan_stays_in_its_example(backend: Backend) -> None:
    a = np.zeros((3, 3))
    a[1, 1] = np.nan
    value, da = backend.numpy(
        backend.call(softmax_cross_entropy, backend.rows(a), backend.rows(np.asarray([0, 1, 2])), reduction="none")
    )
    assert np.isnan(value).tolist() == [False, True, False]
    assert np.isnan(da).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("shape", sampled([(0, 3), (2, 0, 3), (0, 2, 3)]), ids=str)
def test_no_examples(backend: Backend, shape: tuple[int, ...]) -> None:
    """The sum over no examples is 0, their mean NaN, and neither warns."""
    for y in (np.zeros(shape[:-1], dtype="int64"), np.zeros(shape)):
        for reduction in REDUCTIONS:
            logits = backend.rows(np.zeros(shape))
            value, da = backend.numpy(backend.call(softmax_cross_entropy, logits, backend.rows(y), reduction=reduction))
            assert da.shape == shape
            expected = {"mean": [np.nan], "sum": [0.0], "none": []}[reduction]
            np.testing.assert_array_equal(np.ravel(value), expected)


def test_narrow_mean_of_many(backend_one_device: Backend) -> None:
    """5,000 examples, each with a loss of log 2: a running float16 sum would stop at 2,048."""
    for dtype in {"float16", "bfloat16"} & set(backend_one_device.dtypes):
        a, y = backend_one_device.blocks(np.zeros((5000, 2)), dtype), backend_one_device.blocks(np.zeros(5000, "int64"))
        value = backend_one_device.numpy(backend_one_device.call(softmax_cross_entropy, a, y).value)
        assert abs(value - np.log(2)) <= EPS[dtype]


_INTEGERS = r"y of integers holds class indices and must have the shape of a without its last axis; got "
_FLOATS = r"y of floats or booleans holds a weight for each class and must have the shape of a; got "
ERRORS = {
    "no classes": ((2, 0), (2,), "int64", r"a must have a last axis of at least one class.*; got a \(2, 0\)$"),
    "a 0-d": ((), (), "int64", r"a must have a last axis, of the outputs .*, shape \(\.\.\., n\); got a \(\)$"),
    "rows": ((3, 2), (4,), "int64", f"{_INTEGERS}y \\(4,\\) and a \\(3, 2\\)\\. Probabilities, .* floating dtype"),
    "one-hot": ((3, 2), (3, 2), "int64", f"{_INTEGERS}y \\(3, 2\\) and a \\(3, 2\\)\\. Probabilities, also 0 and 1"),
    "floats": ((3, 2), (3,), "float32", f"{_FLOATS}y \\(3,\\) and a \\(3, 2\\)\\. Class indices .* integer dtype"),
    "booleans": ((3, 2), (3,), "bool", f"{_FLOATS}y \\(3,\\) and a \\(3, 2\\)\\. Class indices .* integer dtype"),
    "classes": ((3, 2), (3, 4), "float32", f"{_FLOATS}y \\(3, 4\\) and a \\(3, 2\\)\\. "),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses_shapes(backend_one_device: Backend, case: str) -> None:
    of_a, of_y, dtype, message = ERRORS[case]
    a, y = backend_one_device.asarray(np.ones(of_a)), backend_one_device.asarray(np.ones(of_y), dtype)
    with pytest.raises(ValueError, match=f"^softmax_cross_entropy: {message}"):
        softmax_cross_entropy(a, y)
    with pytest.raises(ValueError, match=f"^softmax_cross_entropy_hessian_product: {message}"):
        softmax_cross_entropy_hessian_product(a, a, y)


DTYPE_ERRORS = [
    ("complex64", "int64", r"a must have a real floating dtype; got .*complex64$"),
    ("int32", "int64", r"a must have a real floating dtype; got .*int32$"),
    ("float32", "complex64", r"y must have a real floating dtype, an integer one or bool; got .*complex64$"),
]


@pytest.mark.parametrize(("of_a", "of_y", "message"), DTYPE_ERRORS)
def test_refuses_dtypes(backend_one_device: Backend, of_a: str, of_y: str, message: str) -> None:
    shape = (3,) if of_y == "int64" else (3, 2)
    a, y = backend_one_device.asarray(np.ones((3, 2)), of_a), backend_one_device.asarray(np.ones(shape), of_y)
    with pytest.raises(TypeError, match=f"^softmax_cross_entropy: {message}"):
        softmax_cross_entropy(a, y)
