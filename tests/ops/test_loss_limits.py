"""The losses at the ends of their numbers: infinities, NaN, the largest means and weights; and the kinds of labels."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import pullback
from pullback import affine_backward, affine_forward, huber, logistic, poisson, softmax_cross_entropy, squared_error
from tests.harness.backend import Backend
from tests.harness.loss_cases import CASES, run
from tests.harness.pair_laws import EPS, C

INF, NAN = np.inf, np.nan


def losses(backend: Backend, loss: Any, a: Any, y: Any, weights: Any = None, **options: Any) -> tuple[Any, Any]:
    """Return the value and the gradient in NumPy."""
    arrays = [backend.rows(np.asarray(x)) for x in (a, y)]
    factors = None if weights is None else backend.rows(np.asarray(weights))
    value, da = backend.numpy(run(backend, partial(loss, **options), arrays, factors, "none"))
    return value, da


def test_infinite_logits(backend_one_device: Backend) -> None:
    """A matching label has loss 0, and also half the weight of an infinite loss is infinite."""
    a, y = [[INF], [-INF], [INF], [-INF], [INF], [-INF]], [[1.0], [0.0], [0.0], [1.0], [0.5], [0.25]]
    value, da = losses(backend_one_device, logistic, a, y)
    assert value.tolist() == [0, 0, INF, INF, INF, INF]
    assert da[:, 0].tolist() == [0, 0, 1, -1, 0.5, -0.25]
    value, da = losses(backend_one_device, logistic, a, y, [2.0, 3.0, 0.0, 0.0, 0.5, 0.0])
    assert value.tolist() == [0, 0, 0, 0, INF, 0]
    assert da[:, 0].tolist() == [0, 0, 0, 0, 0.25, 0]


def test_infinite_log_rates(backend_one_device: Backend) -> None:
    """A rate of 0 fits a count of 0; an infinite rate fits none."""
    a, y = [[-INF], [-INF], [INF], [INF], [INF]], [[0.0], [2.0], [0.0], [3.0], [1.0]]
    value, da = losses(backend_one_device, poisson, a, y)
    assert value.tolist() == [0, INF, INF, INF, INF]
    assert da[:, 0].tolist() == [0, -2, INF, INF, INF]
    value, da = losses(backend_one_device, poisson, a, y, [2.0, 0.5, 0.0, 1.0, 0.0])
    assert value.tolist() == [0, INF, 0, INF, 0]
    assert da[:, 0].tolist() == [0, -1, 0, INF, 0]


def test_infinite_errors(backend_one_device: Backend) -> None:
    value, da = losses(backend_one_device, huber, [[INF], [-INF], [0.0]], np.zeros((3, 1)), delta=2.0)
    assert value.tolist() == [INF, INF, 0]
    assert da[:, 0].tolist() == [2, -2, 0]
    value, da = losses(backend_one_device, huber, [[3.0], [-4.0]], np.zeros((2, 1)), delta=INF)
    assert value.tolist() == [4.5, 8]
    assert da[:, 0].tolist() == [3, -4]


@pytest.mark.parametrize("kind", ["indices", "weights"])
def test_impossible_classes(backend_one_device: Backend, kind: str) -> None:
    a = [[0.0, -INF, 0.0], [0.0, -INF, -INF], [0.0, -INF, -INF]]
    y = np.asarray([0, 0, 2]) if kind == "indices" else np.eye(3)[[0, 0, 2]]
    value, da = losses(backend_one_device, softmax_cross_entropy, a, y)
    np.testing.assert_allclose(value, [np.log(2), 0, INF], rtol=EPS[backend_one_device.real])
    assert da.tolist() == [[-0.5, 0, 0.5], [0, 0, 0], [1, 0, -1]]
    weights = [1.0, 2.0, 0.0]
    value, da = losses(backend_one_device, softmax_cross_entropy, a, y, weights)
    assert value[1:].tolist() == [0, 0]
    assert da.tolist() == [[-0.5, 0, 0.5], [0, 0, 0], [0, 0, 0]]


def test_hessians_at_infinity(backend_one_device: Backend) -> None:
    """0 times an infinite curvature is 0, also where only the exponential is infinite in the dtype."""
    ends = backend_one_device.rows(np.asarray([[-INF], [INF], [0.0]]))
    v = backend_one_device.rows(np.asarray([[2.0], [2.0], [4.0]]))
    product = partial(backend_one_device.call, pullback.logistic_hessian_product, reduction="sum")
    assert backend_one_device.numpy(product(v, ends, v * 0 + 1)).tolist() == [[0], [0], [1]]
    a = backend_one_device.rows(np.asarray([[-INF], [INF], [1e4], [INF], [-INF]]))
    v = backend_one_device.rows(np.asarray([[2.0], [0.0], [0.0], [-1.0], [0.0]]))
    with np.errstate(over="ignore"):
        got = backend_one_device.numpy(
            backend_one_device.call(pullback.poisson_hessian_product, v, a, v * 0, reduction="sum")
        )
    assert got.tolist() == [[0], [0], [0], [-INF], [0]]
    a = backend_one_device.rows(np.asarray([[0.0, -INF, 0.0], [0.0, -INF, -INF]]))
    v = backend_one_device.rows(np.asarray([[2.0, 5.0, -2.0], [1.0, 2.0, 3.0]]))
    y = backend_one_device.rows(np.asarray([0, 0]))
    got = backend_one_device.numpy(
        backend_one_device.call(pullback.softmax_cross_entropy_hessian_product, v, a, y, reduction="sum")
    )
    assert got.tolist() == [[1, 0, -1], [0, 0, 0]]


@pytest.mark.parametrize("place", ["a", "y", "v", "weights"])
@pytest.mark.parametrize("name", CASES)
def test_nan(backend_one_device: Backend, name: str, place: str) -> None:
    """A NaN is a NaN in what depends on it, in its own example; the Hessian of the squared error is constant."""
    case = CASES[name]
    a, y, weights, v = case.draw(3, 4, 1)
    drawn = {"a": a, "y": y, "v": v, "weights": weights + 1}
    drawn[place][2] = NAN
    held = {x: backend_one_device.rows(array) for x, array in drawn.items()}
    loss = run(backend_one_device, case.loss, (held["a"], held["y"]), held["weights"], "none")
    product = run(backend_one_device, case.product, (held["v"], held["a"], held["y"]), held["weights"], "none")
    value, da = backend_one_device.numpy(loss)
    only = [False, False, True, False]
    assert np.isnan(value).tolist() == ([False] * 4 if place == "v" else only)
    assert np.isnan(da[:, 0]).tolist() == ([False] * 4 if place == "v" else only)
    flat = {"absolute_error", "quantile", "quantile of 0.9"}  # their Hessian is 0
    constant = {"a": {"squared_error"} | flat, "y": {"squared_error", "logistic", "poisson"} | flat}.get(place, set())
    assert np.isnan(backend_one_device.numpy(product)[:, 0]).tolist() == ([False] * 4 if name in constant else only)


def widths(backend: Backend) -> list[str]:
    """Return the dtypes to compute in."""
    return [dtype for dtype in ("float32", "float64") if dtype in backend.dtypes]


def test_largest_means(backend_one_device: Backend) -> None:
    """A mean is a number where the losses are, whatever their sum is; a loss where ½ r² is, whatever r² is."""
    for dtype in widths(backend_one_device):
        error = float(np.asarray(1.3e19 if dtype == "float32" else 1e154, dtype))
        for rows in (8, 300):
            a = backend_one_device.blocks(np.full((rows, 1), error), dtype)
            for weights in (None, backend_one_device.blocks(np.ones(rows), dtype)):
                loss = run(backend_one_device, squared_error, (a, a * 0), weights, "mean")
                value, da = backend_one_device.numpy(loss)
                np.testing.assert_allclose(value, error * (error / 2), rtol=8 * EPS[dtype])
                np.testing.assert_allclose(da, error / rows, rtol=8 * EPS[dtype])
        a = backend_one_device.asarray(np.full((1, 1), 1.75 * error), dtype)
        value, _ = backend_one_device.numpy(squared_error(a, a * 0, reduction="sum"))
        np.testing.assert_allclose(value, (1.75 * error) * (1.75 * error / 2), rtol=8 * EPS[dtype])


# The power, the logarithm of the mean, the target, and the limits of the loss, its gradient and its Hessian.
ENDS = [
    *[(1.0, -INF, 0.0, 0.0, 0.0, 0.0), (1.0, -INF, 2.0, INF, -2.0, 0.0), (1.0, INF, 2.0, INF, INF, INF)],
    *[(1.5, -INF, 0.0, 0.0, 0.0, 0.0), (1.5, -INF, 2.0, INF, -INF, INF), (1.5, INF, 2.0, INF, INF, INF)],
    *[(2.0, -INF, 0.0, -INF, 1.0, 0.0), (2.0, -INF, 2.0, INF, -INF, INF), (2.0, INF, 2.0, INF, 1.0, 0.0)],
    *[(3.0, -INF, 2.0, INF, -INF, INF), (3.0, INF, 2.0, 0.0, 0.0, 0.0)],
]


@pytest.mark.parametrize(("power", "a", "y", "value", "gradient", "curvature"), ENDS)
def test_ends_of_tweedie(  # noqa: PLR0913, PLR0917
    backend_one_device: Backend, power: float, a: float, y: float, value: float, gradient: float, curvature: float
) -> None:
    """Infinite logarithms, and finite ones whose exponentials are infinite, have the limits of the loss."""
    mean, target = (backend_one_device.rows(np.asarray([x])) for x in (a, y))
    with np.errstate(over="ignore"):
        loss = backend_one_device.numpy(pullback.tweedie(mean, target, power=power, reduction="none"))
        product = pullback.tweedie_hessian_product(target * 0 + 1, mean, target, power=power)
    assert loss[0].tolist() == [value]
    assert loss[1].tolist() == [gradient]
    assert backend_one_device.numpy(product).tolist() == [curvature]
    if power == 2.0:
        loss = backend_one_device.numpy(pullback.gamma(mean, target, reduction="none"))
        assert loss[0].tolist() == [value]


def test_target_of_zero_and_a_vanishing_mean(backend_one_device: Backend) -> None:
    """0 times an exponential that overflows is 0."""
    mean, target = (backend_one_device.rows(np.asarray([x])) for x in (-2000.0, 0.0))
    with np.errstate(over="ignore"):
        value, da = backend_one_device.numpy(pullback.tweedie(mean, target, reduction="none"))
    assert value.tolist() == da.tolist() == [0.0]


@pytest.mark.parametrize("name", CASES)
def test_scale_of_weights(backend_one_device: Backend, name: str) -> None:
    """The mean depends on the ratios of the weights alone, up to the ends of their range."""
    case = CASES[name]
    weights = np.asarray([1.0, 0.5, 0.25, 1.0, 1.0, 0.0, 0.125, 1.0])
    for dtype in widths(backend_one_device):
        a, y, _, v = (backend_one_device.rows(x, dtype) for x in case.draw(4, 8, 3))
        results = []
        for scale in (1.0, float(np.finfo(dtype).max), 2.0**-100 if dtype == "float32" else 2.0**-1000):
            factors = backend_one_device.rows(weights * scale, dtype)
            value, da = backend_one_device.numpy(run(backend_one_device, case.loss, (a, y), factors, "mean"))
            product = backend_one_device.numpy(run(backend_one_device, case.product, (v, a, y), factors, "mean"))
            results.append(np.concatenate([np.ravel(x) for x in (value, da, product)]))
        for got in results[1:]:
            np.testing.assert_allclose(got, results[0], rtol=8 * EPS[dtype], atol=EPS[dtype])


@pytest.mark.parametrize("name", CASES)
def test_booleans(backend_one_device: Backend, name: str) -> None:
    """Booleans count as 0 and 1 in every loss and Hessian product."""
    case = CASES[name]
    a, _, weights, v = (backend_one_device.rows(x) for x in case.draw(5, 4, 3))
    labels = np.asarray([[True, False, False], [False, True, False], [False, False, True], [True, True, False]])
    floats, booleans = (backend_one_device.rows(x) for x in (labels.astype("float64"), labels))
    for factors in (None, weights):
        for function, vector in ((case.loss, ()), (case.product, (v,))):
            got, right = (
                backend_one_device.numpy(run(backend_one_device, function, (*vector, a, y), factors, "mean"))
                for y in (booleans, floats)
            )
            assert np.array_equal(got[0], right[0])
            assert np.array_equal(got[-1], right[-1])


def test_signs_as_labels(backend_one_device: Backend) -> None:
    """The conversion of -1 and +1 that the docstring names."""
    a = np.asarray([[2.0], [-3.0], [0.5], [-0.25]])
    signs = np.asarray([[1.0], [-1.0], [-1.0], [1.0]])
    value = backend_one_device.numpy(
        backend_one_device.call(logistic, backend_one_device.rows(a), backend_one_device.rows(signs) > 0).value
    )
    np.testing.assert_allclose(value, np.mean(np.log1p(np.exp(-signs * a))), rtol=C * EPS[backend_one_device.real])


def test_absent_inputs(backend_one_device: Backend) -> None:
    """The recipe for inputs that are not finite where the weight is 0."""
    xp, put = backend_one_device.xp, backend_one_device.rows
    z = np.asarray([[1.0, 2.0], [NAN, INF], [0.5, 1.0]])
    y, w, weights = np.ones((3, 1)), np.ones((2, 1)), np.asarray([1.0, 0.0, 3.0])

    def step(z: Any, y: Any, weights: Any, w: Any) -> Any:
        z = xp.where(weights[..., None] == 0, 0.0, z)
        _, da = squared_error(affine_forward(z, w), y, weights=weights)
        return affine_backward(da, z, w, wrt=("w",)).dw

    dw = backend_one_device.numpy(
        backend_one_device.call(step, put(z), put(y), put(weights), backend_one_device.asarray(w))
    )
    kept = [0, 2]
    residuals = (z[kept] @ w - y[kept]) * (weights[kept] / 4)[:, None]
    np.testing.assert_allclose(dw, z[kept].T @ residuals, rtol=C * EPS[backend_one_device.real])


def test_delta_of_numpy(backend_one_device: Backend) -> None:
    """A NumPy scalar or 0-d array as delta changes no dtype."""
    a = backend_one_device.asarray(np.asarray([[0.5], [4.0]]), "float32")
    deltas: list[Any] = [np.float64(2.0), np.int64(2), np.asarray(2.0), np.float32(2.0)]
    for delta in deltas:
        value, da = huber(a, a * 0, delta=delta, reduction="none")
        assert value.dtype == da.dtype == a.dtype
        assert backend_one_device.numpy(value).tolist() == [0.125, 6]
        assert pullback.huber_hessian_product(a, a, a * 0, delta=delta).dtype == a.dtype


@pytest.mark.backends("jax")
def test_traced_delta(backend_one_device: Backend) -> None:
    """One error says what delta must be, and how to pass it."""
    import jax  # noqa: PLC0415 - only where this backend was asked for

    a = backend_one_device.asarray(np.ones((2, 1)))
    for function in (lambda delta: huber(a, a, delta=delta), lambda delta: _product(a, delta)):
        with pytest.raises(
            TypeError, match=r"^huber\w*: delta must be a number whose value is known .*static_argnames"
        ):
            jax.jit(function)(2.0)
    assert backend_one_device.numpy(jax.jit(huber, static_argnames=("delta",))(a * 3, a, delta=1.0).value) == 1.5


def _product(a: Any, delta: Any) -> Any:
    return pullback.huber_hessian_product(a, a, a, delta=delta)
