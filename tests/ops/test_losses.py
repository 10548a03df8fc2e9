"""Every loss against its formula and the exact derivative of that; at the edges of its numbers; and what it refuses."""

import math
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device

import pullback
from pullback import huber, logistic, poisson, softmax_cross_entropy, squared_error
from tests.harness.backend import Backend, sampled
from tests.harness.loss_cases import CASES, Given, check_loss, check_product, given, run
from tests.harness.pair_laws import EPS, LAYOUTS, C

SHAPES = [(7, 4), (4,), (3, 2, 5), (1, 3), (6, 1), (2, 70), (70, 3)]
ELEMENTWISE = [name for name in CASES if not CASES[name].rowwise]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_shapes(backend_one_device: Backend, name: str, shape: tuple[int, ...]) -> None:
    a, y, weights, v = CASES[name].draw(1, *shape)
    plain, weighted = (
        given(backend_one_device, None, a, y, None, v),
        given(backend_one_device, None, a, y, weights, v),
    )
    check_loss(backend_one_device, CASES[name], plain, "none", EPS[backend_one_device.real])
    check_loss(backend_one_device, CASES[name], weighted, "mean", EPS[backend_one_device.real])
    check_product(backend_one_device, CASES[name], weighted, "mean", EPS[backend_one_device.real])


@pytest.mark.parametrize("name", CASES)
def test_reductions(backend_one_device: Backend, name: str) -> None:
    a, y, weights, v = CASES[name].draw(11, 4, 2)
    for given_weights, reduction in ((weights, "none"), (weights, "sum"), (None, "sum")):
        arrays = given(backend_one_device, None, a, y, given_weights, v)
        check_loss(backend_one_device, CASES[name], arrays, reduction, EPS[backend_one_device.real])
        check_product(backend_one_device, CASES[name], arrays, reduction, EPS[backend_one_device.real])


@pytest.mark.parametrize("name", CASES)
def test_dtypes(backend: Backend, dtype: str, name: str) -> None:
    """Values; and namespace, shapes, dtype and device of what comes back; nothing is written into the arguments."""
    if dtype.startswith("complex"):
        return  # see test_refuses_dtypes
    case = CASES[name]
    arrays = given(backend, dtype, *case.draw(2, 7, 4))
    check_loss(backend, case, arrays, "mean", EPS[dtype])
    check_product(backend, case, arrays, "mean", EPS[dtype])
    a, y, weights, v = arrays.held
    loss = run(backend, case.loss, (a, y), weights, "mean")
    product = run(backend, case.product, (v, a, y), weights, "mean")
    assert loss._fields == ("value", "da")
    for x in (*loss, product):
        assert array_namespace(x) is backend.xp
        assert x.dtype == a.dtype
        assert str(device(x)) == str(device(a))
    assert loss.value.shape == ()
    assert str(loss.da.shape) == str(product.shape) == str(a.shape)
    for x, was in zip(arrays.held, arrays.exact, strict=True):
        assert np.array_equal(backend.numpy(x), was)


@pytest.mark.parametrize("name", CASES)
def test_without_weights(backend: Backend, name: str) -> None:
    a, y, _, v = CASES[name].draw(3, 7, 4)
    arrays = given(backend, None, a, y, None, v)
    check_loss(backend, CASES[name], arrays, "mean", EPS[backend.real])
    check_product(backend, CASES[name], arrays, "mean", EPS[backend.real])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_layouts(backend_one_device: Backend, name: str, layout: str) -> None:
    a, y, weights, v = CASES[name].draw(4, 7, 4)
    held = given(backend_one_device, None, a, y, weights + 1, v).held
    if backend_one_device.mode != "unknown rows":
        held = tuple(LAYOUTS[layout](backend_one_device.xp, x) for x in held)
    arrays = Given(held, tuple(np.asarray(backend_one_device.numpy(x), "float64") for x in held))
    check_loss(backend_one_device, CASES[name], arrays, "mean", EPS[backend_one_device.real])
    check_product(backend_one_device, CASES[name], arrays, "mean", EPS[backend_one_device.real])


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_values(backend_one_device: Backend, name: str) -> None:
    """⟨da, v⟩ is the derivative of the formula's value along v, exact but for rounding."""
    a, y, _, v = CASES[name].draw(5, 7, 4)
    arrays = given(backend_one_device, None, a, y, None, v)
    a, y, _, v = arrays.exact
    da = backend_one_device.numpy(backend_one_device.call(CASES[name].loss, *arrays.held[:2], reduction="sum").da)
    magnitude = np.sum(abs(v) * CASES[name].size(a, y))
    assert (
        abs(np.sum(da * v) - np.sum(CASES[name].slope(v, a, y)))
        <= C * np.sqrt(28) * EPS[backend_one_device.real] * magnitude
    )


@pytest.mark.parametrize("name", CASES)
def test_weight_of_zero(backend_one_device: Backend, name: str) -> None:
    """An example of weight 0 does not count, whatever it holds."""
    case = CASES[name]
    a, y, weights, v = case.draw(6, 5, 3)
    kept = given(backend_one_device, None, a[1:], y[1:], weights[1:], v[1:])
    for bad, reduction in ((np.nan, "mean"), (np.inf, "sum"), (-np.inf, "none")):
        a[0], y[0], v[0] = bad, bad, bad
        held = given(backend_one_device, None, a, y, weights, v).held
        with np.errstate(invalid="ignore"):  # inf - inf
            value, da = backend_one_device.numpy(run(backend_one_device, case.loss, held[:2], held[2], reduction))
            product = backend_one_device.numpy(
                run(backend_one_device, case.product, (held[3], *held[:2]), held[2], reduction)
            )
        right, right_da = backend_one_device.numpy(
            run(backend_one_device, case.loss, kept.held[:2], kept.held[2], reduction)
        )
        rest = value[1:] if reduction == "none" else value
        tolerance = C * 3 * EPS[backend_one_device.real]  # sums of five and of four numbers
        np.testing.assert_allclose(rest, right, rtol=tolerance, atol=tolerance * 10)
        np.testing.assert_allclose(da[1:], right_da, rtol=tolerance, atol=tolerance * 10)
        assert not da[0].any()
        assert not product[0].any()
        assert np.isfinite(product).all()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_weights_of_outputs(backend_one_device: Backend, name: str) -> None:
    """Each output has a weight; a missing target, of weight 0, may be NaN."""
    case = CASES[name]
    a, y, _, v = case.draw(12, 5, 3)
    weights = np.random.default_rng(13).random((5, 3))
    weights[0, 1] = weights[2, :] = 0
    arrays = given(backend_one_device, None, a, y, weights, v)
    y[0, 1] = y[2, :] = np.nan
    missing = Given(given(backend_one_device, None, a, y, weights, v).held, arrays.exact)
    for reduction in ("mean", "sum", "none"):
        check_loss(backend_one_device, case, missing, reduction, EPS[backend_one_device.real])
        check_product(backend_one_device, case, missing, reduction, EPS[backend_one_device.real])


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_weights_of_outputs_that_are_those_of_examples(backend_one_device: Backend, name: str) -> None:
    a, y, weights, _ = CASES[name].draw(14, 5, 3)
    held = [backend_one_device.rows(x) for x in (a, y, weights, np.broadcast_to(weights[:, None], a.shape))]
    for reduction in ("mean", "sum", "none"):
        of_examples, of_outputs = (
            backend_one_device.numpy(run(backend_one_device, CASES[name].loss, held[:2], held[i], reduction))
            for i in (2, 3)
        )
        for got, right in zip(of_outputs, of_examples, strict=True):
            np.testing.assert_allclose(got, right, rtol=16 * EPS[backend_one_device.real], atol=1e-30)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_vector(backend_one_device: Backend, name: str) -> None:
    """A vector is a batch of examples with one output each: the mean of m losses, and not their sum."""
    case = CASES[name]
    column = case.draw(15, 6, 1)
    rtol = backend_one_device.rounding_of_shapes
    held = [backend_one_device.rows(x) for x in column]
    flat = [backend_one_device.rows(x.ravel()) for x in column]
    for i in (None, 2):
        for reduction in ("mean", "sum", "none"):
            weights = [None if i is None else x[i] for x in (held, flat)]
            right, got = (
                backend_one_device.numpy(run(backend_one_device, case.loss, x[:2], w, reduction))
                for x, w in zip((held, flat), weights, strict=True)
            )
            np.testing.assert_allclose(got[0], right[0], rtol)
            np.testing.assert_allclose(got[1], right[1][:, 0], rtol)
            right, got = (
                backend_one_device.numpy(run(backend_one_device, case.product, (x[3], *x[:2]), w, reduction))
                for x, w in zip((held, flat), weights, strict=True)
            )
            np.testing.assert_allclose(got, right[:, 0], rtol)


@pytest.mark.parametrize("name", CASES)
def test_no_weight_at_all(backend_one_device: Backend, name: str) -> None:
    """There is no mean of nothing: NaN; the sum is 0, and so are the gradients."""
    a, y, weights, v = CASES[name].draw(7, 3, 2)
    held = given(backend_one_device, None, a, y, 0 * weights, v).held
    for reduction, expected in (("mean", np.nan), ("sum", 0.0)):
        value, _ = backend_one_device.numpy(run(backend_one_device, CASES[name].loss, held[:2], held[2], reduction))
        np.testing.assert_array_equal(value, expected)
    assert not backend_one_device.numpy(run(backend_one_device, CASES[name].loss, held[:2], held[2], "sum"))[1].any()


@pytest.mark.parametrize("name", CASES)
def test_integers(backend_one_device: Backend, name: str) -> None:
    """Weights of integers count examples; targets of integers are numbers, but for the softmax's class indices."""
    case = CASES[name]
    a, y, _, _ = case.draw(8, 5, 3)
    y, counts = y if case.rowwise else np.round(y), np.asarray([0, 1, 2, 3, 1])
    logits, floats = backend_one_device.rows(a), backend_one_device.rows(y)
    whole = floats if case.rowwise else backend_one_device.rows(y.astype("int32"))
    value, da = backend_one_device.numpy(
        run(backend_one_device, case.loss, (logits, whole), backend_one_device.rows(counts), "mean")
    )
    right, right_da = backend_one_device.numpy(
        run(backend_one_device, case.loss, (logits, floats), backend_one_device.rows(counts.astype("float64")), "mean")
    )
    np.testing.assert_array_equal(value, right)
    np.testing.assert_array_equal(da, right_da)
    repeated = backend_one_device.numpy(
        backend_one_device.call(
            case.loss, *(backend_one_device.rows(np.repeat(x, counts, axis=0)) for x in (a, y))
        ).value
    )
    tolerance = C * 5 * EPS[backend_one_device.real]
    np.testing.assert_allclose(value, repeated, rtol=tolerance, atol=tolerance * np.max(case.size(a, y)))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("of_a", "of_rest"), [("float32", "float64"), ("float64", "float32")])
def test_mixed_dtypes(backend_one_device: Backend, name: str, of_a: str, of_rest: str) -> None:
    a, y, weights, v = CASES[name].draw(9, 4, 3)
    logits, rest = backend_one_device.rows(a, of_a), [backend_one_device.rows(x, of_rest) for x in (y, weights, v)]
    loss = run(backend_one_device, CASES[name].loss, (logits, rest[0]), rest[1], "mean")
    assert loss.value.dtype == backend_one_device.dtype("float64")
    assert loss.da.dtype == logits.dtype
    assert (
        run(backend_one_device, CASES[name].product, (rest[2], logits, rest[0]), rest[1], "mean").dtype == logits.dtype
    )


@pytest.mark.parametrize("shape", sampled([(0, 3), (2, 0, 3), (0, 0)]), ids=str)
@pytest.mark.parametrize("name", CASES)
def test_no_examples(backend_one_device: Backend, name: str, shape: tuple[int, ...]) -> None:
    """The sum over no examples is 0, their mean NaN, and neither warns."""
    if shape[-1] == 0 and CASES[name].rowwise:
        return  # there must be a class
    a, weights = backend_one_device.rows(np.zeros(shape)), backend_one_device.rows(np.zeros(shape[:-1]))
    for given_weights, reduction in ((None, "mean"), (weights, "mean"), (None, "sum"), (weights, "none")):
        value, da = backend_one_device.numpy(
            run(backend_one_device, CASES[name].loss, (a, a), given_weights, reduction)
        )
        assert da.shape == shape
        expected = {"mean": [np.nan], "sum": [0.0], "none": []}[reduction]
        np.testing.assert_array_equal(np.ravel(value), expected)
        assert (
            backend_one_device.numpy(
                run(backend_one_device, CASES[name].product, (a, a, a), given_weights, reduction)
            ).shape
            == shape
        )


def test_no_outputs(backend_one_device: Backend) -> None:
    for name in ELEMENTWISE:
        a = backend_one_device.rows(np.zeros((3, 0)))
        value, da = backend_one_device.numpy(backend_one_device.call(CASES[name].loss, a, a))
        assert value == 0
        assert da.shape == (3, 0)


# The loss of power 3 is 0 for an infinite mean.
BAD = [(name, bad) for name in CASES for bad in (np.nan, np.inf) if (name, bad) != ("tweedie of 3", np.inf)]


@pytest.mark.parametrize(("name", "bad"), BAD)
def test_nan_and_infinity(backend_one_device: Backend, name: str, bad: float) -> None:
    """They make the loss of their example NaN or infinite, and no other's."""
    case = CASES[name]
    a, y, _, v = case.draw(10, 3, 3)
    a[1, 1] = bad
    held = given(backend_one_device, None, a, y, None, v).held
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf
        value, da = backend_one_device.numpy(backend_one_device.call(case.loss, *held[:2], reduction="none"))
        total = backend_one_device.numpy(backend_one_device.call(case.loss, *held[:2]).value)
        product = backend_one_device.numpy(backend_one_device.call(case.product, held[3], *held[:2]))
    assert np.isfinite(value).tolist() == [True, False, True]
    assert not np.isfinite(total)
    touched = np.zeros((3, 3), dtype=bool)
    touched[1, slice(None) if case.rowwise else 1] = True
    np.testing.assert_array_equal(~np.isfinite(da), touched & (not (case.bounded and bad == np.inf)))
    assert np.isfinite(product[~touched]).all()


def test_range(backend_one_device: Backend, dtype: str) -> None:
    """Numbers as large as the dtype's neither overflow nor warn, where the loss itself does not."""
    if dtype.startswith("complex"):
        return
    largest = float(backend_one_device.xp.finfo(backend_one_device.dtype(dtype)).max)
    ends = np.asarray([[largest], [-largest], [0.0]])
    zeros = np.zeros((3, 1))
    a, y = backend_one_device.rows(ends, dtype), backend_one_device.rows(zeros, dtype)
    value, da = backend_one_device.numpy(backend_one_device.call(logistic, a, y, reduction="none"))
    np.testing.assert_allclose(value, [largest, 0, np.log(2)], rtol=EPS[dtype])
    assert da.tolist() == [[1], [0], [0.5]]
    value, da = backend_one_device.numpy(
        backend_one_device.call(logistic, a, backend_one_device.rows(zeros + 1, dtype), reduction="none")
    )
    np.testing.assert_allclose(value, [0, largest, np.log(2)], rtol=EPS[dtype])
    assert da.tolist() == [[0], [-1], [-0.5]]
    assert backend_one_device.numpy(
        backend_one_device.call(pullback.logistic_hessian_product, y + 1, a, y, reduction="sum")
    ).tolist() == [
        [0],
        [0],
        [0.25],
    ]
    value, da = backend_one_device.numpy(backend_one_device.call(huber, a, y, reduction="none"))
    np.testing.assert_allclose(value, [largest, largest, 0], rtol=EPS[dtype])
    assert da.tolist() == [[1], [-1], [0]]
    value, da = backend_one_device.numpy(backend_one_device.call(poisson, -abs(a), y, reduction="none"))
    assert value.tolist() == [0, 0, 1]
    assert da.tolist() == [[0], [0], [1]]
    value, da = backend_one_device.numpy(backend_one_device.call(squared_error, a, a, reduction="none"))
    assert value.tolist() == [0, 0, 0]
    # The differences of logits must be numbers of the dtype.
    pairs = backend_one_device.rows(np.asarray([[largest / 2, -largest / 2], [-largest / 2, 0.0]]), dtype)
    value, da = backend_one_device.numpy(
        backend_one_device.call(softmax_cross_entropy, pairs, backend_one_device.rows(np.asarray([0, 1])))
    )
    assert value == 0
    assert not da.any()


def test_infinite_rate(backend_one_device: Backend) -> None:
    a, y = backend_one_device.rows(np.asarray([[1e4], [0.0]])), backend_one_device.rows(np.asarray([[3.0], [1.0]]))
    with np.errstate(over="ignore"):
        value, da = backend_one_device.numpy(backend_one_device.call(poisson, a, y, reduction="none"))
    assert value.tolist() == [np.inf, 1]
    assert da.tolist() == [[np.inf], [0]]


def test_well_classified_examples(backend_one_device: Backend) -> None:
    """Loss and gradient of an example that is nearly certain are exp(-|a|) to first order: not lost in rounding."""
    a, y = np.asarray([[30.0], [-30.0]]), np.asarray([[1.0], [0.0]])
    value, da = backend_one_device.numpy(
        backend_one_device.call(logistic, backend_one_device.rows(a), backend_one_device.rows(y), reduction="none")
    )
    tiny, tolerance = np.exp(-30.0), 8 * EPS[backend_one_device.real]
    np.testing.assert_allclose(value, [np.log1p(tiny)] * 2, rtol=tolerance)
    np.testing.assert_allclose(da, [[-tiny / (1 + tiny)], [tiny / (1 + tiny)]], rtol=tolerance)


def test_narrow_mean_of_many(backend_one_device: Backend) -> None:
    """5,000 losses of ½ and weights of 1: a running float16 sum would stop at 2,048."""
    for dtype in {"float16", "bfloat16"} & set(backend_one_device.dtypes):
        a, y, weights = (
            backend_one_device.blocks(x, dtype) for x in (np.ones((5000, 1)), np.zeros((5000, 1)), np.ones(5000))
        )
        assert backend_one_device.numpy(backend_one_device.call(squared_error, a, y).value) == 0.5
        assert backend_one_device.numpy(squared_error(a, y, weights=weights).value) == 0.5


def test_long_sum(backend_one_device: Backend) -> None:
    """The float32 sum of 2·10⁵ losses of 0.005, to 1e-6: one chain of additions would be 1e-3 off."""
    a = backend_one_device.blocks(np.full((200_000, 1), 0.1), "float32")
    value = backend_one_device.numpy(backend_one_device.call(squared_error, a, a * 0, reduction="sum").value)
    np.testing.assert_allclose(value, 100_000 * float(np.float32(0.1)) ** 2, rtol=1e-6)


FUNCTIONS = {name: getattr(pullback, name) for name in CASES if name in pullback.__all__}
PRODUCTS = {name: getattr(pullback, name) for name in pullback.__all__ if name.endswith("_hessian_product")}


def refuses(error: type[Exception], name: str, message: str, *arrays: Any, **options: Any) -> None:
    vector = arrays[:1] if name in PRODUCTS and len(arrays) == 2 else ()
    with pytest.raises(error, match=f"^{name}: {message}"):
        {**FUNCTIONS, **PRODUCTS}[name](*vector, *arrays, **options)


@pytest.mark.parametrize("name", [*FUNCTIONS, *PRODUCTS])
def test_refuses(backend_one_device: Backend, name: str) -> None:
    """Each function says its own name, and finds what is wrong with each argument."""
    x = backend_one_device.asarray(np.ones((3, 2)))
    complex_x = backend_one_device.asarray(np.ones((3, 2)), "complex64")
    booleans = backend_one_device.asarray(np.ones((3, 2)), "bool")
    whole = backend_one_device.asarray(np.ones((3, 2)), "int64")
    refuses(TypeError, name, r"a must be an array; got list\.", *([x] if name in PRODUCTS else []), [1.0], x)
    refuses(TypeError, name, r"y must be an array; got NoneType$", x, None)
    refuses(TypeError, name, r"weights must be an array; got float\.", x, x, weights=1.0)
    vector = [x] if name in PRODUCTS else []
    refuses(TypeError, name, r"a must have a real floating dtype; got .*complex64$", *vector, complex_x, x)
    refuses(TypeError, name, r"a must have a real floating dtype; got .*int64$", *vector, whole, x)
    refuses(TypeError, name, r"a must have a real floating dtype; got .*bool$", *vector, booleans, x)
    labels = r"y must have a real floating dtype, an integer one or bool; got .*complex64$"
    refuses(TypeError, name, labels, *vector, x, complex_x)
    factors = r"weights must have a real floating dtype or an integer one; got .*bool$"
    refuses(TypeError, name, factors, x, x, weights=booleans[:, 0])
    scalar = backend_one_device.asarray(np.ones(()))
    outputs = (
        r"a must have a last axis, of .*; got a \(\)$" if "softmax" in name else r"a must have a last axis, .* \(m,\)"
    )
    refuses(ValueError, name, outputs, scalar, scalar)
    rows = r"weights must have one entry for each example, .*; got weights \(2,\) and a \(3, 2\)$"
    refuses(ValueError, name, rows, x, x, weights=x[0, :])
    for reduction in ("average", "", None, "MEAN"):
        message = rf"reduction must be one of \('mean', 'sum', 'none'\); got {reduction!r}$"
        refuses(ValueError, name, message, x, x, reduction=reduction)
    if name in PRODUCTS:
        shape = r"v must have the shape of a; got v \(3, 1\) and a \(3, 2\)$"
        refuses(ValueError, name, shape, x[:, :1], x, x)
        refuses(TypeError, name, r"v must have a real floating dtype; got .*int64$", whole, x, x)
        refuses(TypeError, name, r"v must be an array; got NoneType$", None, x, x)
    if "softmax" not in name:
        for y in (x[:, :1], x[:, 0], x[:2, :]):
            refuses(ValueError, name, r"y must have the shape of a; got y \(.*\) and a \(3, 2\)$", *vector, x, y)
        column = x[:, :1]
        got = r"got y \(3,\) and a \(3, 1\)\. Pass y\[:, None\]$"
        refuses(ValueError, name, rf"y must have the shape of a; {got}", column, x[:, 0])
        got = r"got y \(3, 1\) and a \(3,\)\. Pass y\[:, 0\]$"
        refuses(ValueError, name, rf"y must have the shape of a; {got}", x[:, 0], column)
        got = r"got y \(3, 2\) and a \(3, 2, 1\)\. Pass y\[:, :, None\]$"
        refuses(ValueError, name, rf"y must have the shape of a; {got}", x[..., None], x)
        for weights in (scalar, column):
            message = r"weights must have one entry for each example, .*; got weights \(.*\) and a \(3,\)$"
            refuses(ValueError, name, message, x[:, 0], x[:, 0], weights=weights)


OPTIONS = {
    "huber": ("delta", "above 0", (0.0, -1.0, math.nan)),
    "quantile": ("q", "finite and above 0 and below 1", (0.0, 1.0, math.nan)),
    "tweedie": ("power", "finite and at least 1", (0.5, -1.0, math.inf, math.nan)),
}


@pytest.mark.parametrize("name", [x for x in (*FUNCTIONS, *PRODUCTS) if x.partition("_")[0] in OPTIONS])
def test_refuses_options(backend_one_device: Backend, name: str) -> None:
    x = backend_one_device.asarray(np.ones((3, 2)))
    option, rule, wrong = OPTIONS[name.partition("_")[0]]
    for value in wrong:
        refuses(ValueError, name, f"{option} must be {rule}; got {value!r}$", x, x, **{option: value})
    refuses(TypeError, name, rf"{option} must be a real number; got str\.", x, x, **{option: "1"})


class _Labels(np.ndarray[Any, Any]):
    """Labels of another type than the outputs."""


@pytest.mark.backends("numpy")
def test_labels_of_another_type_are_checked_each_time() -> None:
    """What passed for floating labels of a type does not pass for its integers."""
    a = np.asarray([[1.0, -2.0]])
    floats = np.asarray([[0.0, 1.0]])
    for labels in (floats, floats, np.asarray([[0, 1]])):
        loss = squared_error(a, labels.view(_Labels))
        np.testing.assert_array_equal(loss.da, a - labels)
