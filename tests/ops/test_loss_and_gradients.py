"""`loss_and_gradients` compared with the three separate calls: the same results up to rounding, and the same errors."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import pullback
from pullback import (
    affine_backward,
    affine_forward,
    grad,
    huber,
    jvp,
    logistic,
    poisson,
    softmax_cross_entropy,
    squared_error,
    value_and_grad,
)
from pullback._core import reduction_policy
from pullback._core.reduction_policy import LOSS_ROWS, loss_rows
from tests.harness.backend import Backend
from tests.harness.digits import exact
from tests.harness.loss_cases import CASES, Case, weigh, weighed_losses
from tests.harness.pair_laws import EPS, C

# A test knows which results there are.
loss_and_gradients: Any = pullback.loss_and_gradients
REDUCTIONS = ("mean", "sum", "none")
# So many columns that blocks have the least number of rows.
WIDE = 300
INPUTS = ("z", "w", "b")


@pytest.fixture(autouse=True)
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut batches into smaller blocks than those of users."""
    monkeypatch.setattr(reduction_policy, "LOSS_SIZE", 2**17)
    monkeypatch.setattr(reduction_policy, "LOSS_VECTOR", 2**17)
    monkeypatch.setattr(reduction_policy, "LOSS_LEAST", 0)


def separate(  # noqa: PLR0913 - the arguments of the call
    z: Any, y: Any, w: Any, b: Any = None, *, loss: Callable[..., Any], wrt: Any = ("w", "b"), **options: Any
) -> tuple[Any, ...]:
    """Chain the three calls."""
    value, da = loss(affine_forward(z, w, b), y, **options)
    return value, *affine_backward(da, z, w, wrt=wrt)


def unwrapped(case: Case) -> dict[str, Any]:
    """Return the loss of a case with its options."""
    return {"loss": getattr(case.loss, "func", case.loss), **getattr(case.loss, "keywords", {})}


def draw(case: Case, rows: int, k: int, *n: int, seed: int = 0) -> tuple[Any, ...]:
    """Return z, y, w, b and weights, of which one in three is 0."""
    rng = np.random.default_rng(seed)
    w, b = rng.standard_normal((k, *n)) / np.sqrt(k), np.asarray(rng.standard_normal(n))
    weights = rng.random(rows) * (np.arange(rows) % 3 > 0)
    return rng.standard_normal((rows, k)), case.targets(rng, (rows, *n)), w, b, weights


def bounds(case: Case, arrays: tuple[Any, ...], weights: Any, reduction: str) -> tuple[Any, ...]:
    """Return how far the value, dz, dw and db may be from the exact ones, in units of the dtype's eps.

    An output differs by C·√k times the terms of its sum; its loss by this times the gradient, and its entry of `da` by
    this times the curvature. Both have the rounding of their formula, and sums over m rows C·√m times their terms.
    """
    z, y, w, b = (np.asarray(x, "float64") for x in arrays)
    if w.ndim == 1:
        y, w, b = y[:, None], w[:, None], b[None]
    a = z @ w + b
    of_a = C * np.sqrt(z.shape[1]) * (abs(z) @ abs(w) + abs(b))
    rounding = C * np.sqrt(a.shape[1]) * (case.size(a, y) + 0 * a)
    curved = abs(case.curvature(np.ones_like(a), a, y))
    if case.rowwise:  # ones are no direction of its curvature
        curved, of_a = np.sum(abs(y), axis=-1, keepdims=True), np.max(of_a, axis=-1, keepdims=True, initial=0)
    slope = abs(case.gradient(a, y).real)
    of_value = np.sum(weigh(slope * of_a + rounding, weights, reduction), axis=-1)
    of_da, da = weigh(curved * of_a + rounding, weights, reduction), weigh(slope, weights, reduction)
    losses = abs(weighed_losses(case, a, y, weights, reduction))
    summed = of_da + C * np.sqrt(max(len(z), 1)) * da
    if reduction != "none":
        of_value = np.sum(of_value + C * np.sqrt(max(len(z), 1)) * losses)
    of_z = (of_da + C * np.sqrt(w.shape[1]) * da) @ abs(w).T
    return of_value + 2 * losses.max(initial=0), of_z, abs(z).T @ summed, np.sum(summed, axis=0)


def check(got: Any, right: Any, bound: tuple[Any, ...], eps: float) -> None:
    """Compare with the separate calls, each of which may differ by the bound."""
    for name, x, y, most in zip(("value", "dz", "dw", "db"), got, right, bound, strict=True):
        assert x.shape == y.shape, name
        assert x.dtype == y.dtype, name
        assert np.all(abs(x - y) <= 2 * eps * np.reshape(most, y.shape)), name


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [(), (3,)])
@pytest.mark.parametrize("name", CASES)
def test_separate_calls(backend_one_device: Backend, name: str, n: tuple[int, ...], *, weighted: bool) -> None:
    case, backend = CASES[name], backend_one_device
    if case.rowwise and not n:
        n = (1,)
    *arrays, weights = draw(case, 7, 4, *n)
    z, y = map(backend.rows, arrays[:2])
    w, b = map(backend.asarray, arrays[2:])
    held = [backend.rows(weights)] if weighted else []

    def call(function: Any, reduction: str) -> Any:
        def step(z: Any, y: Any, w: Any, b: Any, *weights: Any) -> Any:
            options = {"weights": weights[0]} if weights else {}
            return function(z, y, w, b, **unwrapped(case), **options, reduction=reduction, wrt=INPUTS)

        return backend.numpy(backend.call(step, z, y, w, b, *held))

    for reduction in REDUCTIONS:
        bound = bounds(case, tuple(arrays), weights if weighted else None, reduction)
        check(call(loss_and_gradients, reduction), call(separate, reduction), bound, EPS[backend.real])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_blocks(name: str, dtype: str) -> None:
    """Numbers of rows about those of one block and of two, for each reduction, with and without weights."""
    case = CASES[name]
    for rows, reduction, weighted, n in (
        (LOSS_ROWS - 1, "mean", True, 3),
        (LOSS_ROWS, "sum", False, 1),
        (LOSS_ROWS + 1, "mean", True, 2),
        (LOSS_ROWS + 1, "none", False, 3),
        (2 * LOSS_ROWS, "sum", True, 1),
        (2 * LOSS_ROWS + 1, "none", True, 2),
        (3 * LOSS_ROWS + 7, "mean", False, 3),
    ):
        shape = (n,) if n > 1 or case.rowwise else ()
        *arrays, weights = (np.asarray(x, dtype) for x in draw(case, rows, WIDE, *shape, seed=rows))
        options: dict[str, Any] = {**unwrapped(case), "reduction": reduction, "wrt": INPUTS}
        if weighted:
            options["weights"] = weights
        bound = bounds(case, tuple(arrays), weights.astype("float64") if weighted else None, reduction)
        check(loss_and_gradients(*arrays, **options), separate(*arrays, **options), bound, EPS[dtype])


def test_rows_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 2^17 entries, of at least 1024 rows; those of a batch with more axes are counted together."""
    assert loss_rows((5, WIDE), (WIDE, 3)) == LOSS_ROWS == 1024
    assert loss_rows((5, 28), (28,)) == loss_rows((5, 28), (28, 1)) == 4096
    assert loss_rows((5, 4, 4, 28), (28,)) == 256
    assert loss_rows((5, 10**6, 28), (28,)) == 1
    monkeypatch.undo()
    assert loss_rows((2**15 + 1, 24), (24, 2)) == 2**15
    # With one output, up to 2^23 entries are one block, and more are blocks of 2^19.
    assert loss_rows((2**18, 28), (28,)) == loss_rows((2**18, 28), (28, 1)) == 2**18
    assert loss_rows((2**18 + 1, 28), (28,)) == loss_rows((2**16 + 1, 4, 28), (28,)) * 4 == 2**14
    assert loss_rows((2**16, 4, 28), (28,)) == 2**16


def _arrays(rows: int = 2100, k: int = WIDE, *n: int) -> tuple[Any, ...]:
    return draw(CASES["squared_error"], rows, k, *n)[:4]


@pytest.mark.parametrize("layout", ["columns", "reversed", "strided", "broadcast", "read-only"])
def test_layouts(layout: str) -> None:
    z, y, w, b = _arrays()
    ways: dict[str, Callable[[Any], Any]] = {
        "columns": np.asfortranarray,
        "reversed": lambda x: x[::-1].copy()[::-1],
        "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
        "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
        "read-only": lambda x: x,
    }
    z, y = map(ways[layout], (z, y))
    z.flags.writeable = False
    right = separate(np.ascontiguousarray(z), np.ascontiguousarray(y), w, b, loss=huber, wrt=INPUTS)
    got = loss_and_gradients(z, y, w, b, loss=huber, wrt=INPUTS)
    for x, exact_x in zip(got, right, strict=True):
        np.testing.assert_allclose(x, exact_x, rtol=1e-11, atol=1e-13)


def test_leading_axes() -> None:
    """The first axis of a batch is cut."""
    rng = np.random.default_rng(3)
    z, w, b = rng.standard_normal((700, 3, WIDE)), rng.standard_normal((WIDE, 4)) / 17, rng.standard_normal(4)
    y, weights = rng.integers(0, 4, (700, 3)), rng.random((700, 3))
    for reduction in REDUCTIONS:
        options: dict[str, Any] = {"loss": softmax_cross_entropy, "weights": weights, "reduction": reduction}
        got, right = (f(z, y, w, b, **options, wrt=INPUTS) for f in (loss_and_gradients, separate))
        for x, exact_x in zip(got, right, strict=True):
            assert x.shape == exact_x.shape
            np.testing.assert_allclose(x, exact_x, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, LOSS_ROWS + 5])
def test_sizes(rows: int) -> None:
    """No rows have no mean; no columns, no outputs and one row are batches as any."""
    for k, n in ((0, 2), (3, 0), (3, 1), (3, 2)):
        z, y, w, b = _arrays(rows, k, n) if k else (np.ones((rows, 0)), np.ones((rows, n)), np.ones((0, n)), np.ones(n))
        for reduction in REDUCTIONS:
            got, right = (
                f(z, y, w, b, loss=squared_error, reduction=reduction, wrt=INPUTS)
                for f in (loss_and_gradients, separate)
            )
            for x, exact_x in zip(got, right, strict=True):
                np.testing.assert_allclose(x, exact_x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("labels", ["indices", "booleans", "one-hot", "float64 beside float32"])
def test_labels(labels: str) -> None:
    """Labels of other dtypes than the batch's, in more than one block."""
    rng = np.random.default_rng(4)
    index = rng.integers(0, 5, 2500)
    ways = {"indices": index, "booleans": index[:, None] == np.arange(5), "one-hot": np.eye(5)[index]}
    y = ways.get(labels, np.eye(5)[index])
    z, w, b = rng.standard_normal((2500, WIDE)), rng.standard_normal((WIDE, 5)) / 17, rng.standard_normal(5)
    if "float32" in labels:
        z, w, b = (x.astype("float32") for x in (z, w, b))
    smooth: dict[str, Any] = {"loss": softmax_cross_entropy, "label_smoothing": 0.1}
    weighted: dict[str, Any] = {"loss": softmax_cross_entropy, "class_weights": rng.random(5)}
    single: dict[str, Any] = {"loss": logistic, "positive_weight": 2.0}
    tolerance = 1e-5 if z.dtype == "float32" else 1e-11
    for loss in (smooth, weighted if labels == "indices" else single):
        got, right = (f(z, y, w, b, **loss) for f in (loss_and_gradients, separate))
        for name, x, exact_x in zip(("value", "dz", "dw", "db"), got, right, strict=True):
            assert (x is None) == (name == "dz")
            if name != "dz":
                assert x.dtype == exact_x.dtype
                np.testing.assert_allclose(x, exact_x, rtol=tolerance, atol=tolerance / 100)


@pytest.mark.parametrize("name", ["squared_error", "logistic", "poisson", "softmax_cross_entropy"])
@pytest.mark.parametrize(("rows", "most"), [(3000, 1e-6), (200_000, 3e-7)])
def test_accuracy_of_float32(name: str, rows: int, most: float) -> None:
    """Sums of terms of one sign, compared with float64."""
    case = CASES[name]
    z, y, w, b, weights = draw(case, rows, 4, 2)
    z, y = abs(z), y * 0
    if case.rowwise:
        y[:, 0] = 1
    for options in ({}, {"weights": weights}):
        got = loss_and_gradients(
            *(x.astype("float32") for x in (z, y, abs(w), abs(b))), loss=case.loss, **_narrow(options)
        )
        right = separate(
            *(x.astype("float32").astype("float64") for x in (z, y, abs(w), abs(b))), loss=case.loss, **options
        )
        for x, exact_x in zip((got.value, got.dw, got.db), (right[0], *right[2:]), strict=True):
            assert x.dtype == np.float32
            assert np.max(abs(x - exact_x)) <= most * np.max(abs(exact_x))


def _narrow(options: dict[str, Any]) -> dict[str, Any]:
    return {name: x.astype("float32") for name, x in options.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["squared_error", "logistic", "poisson", "softmax_cross_entropy"])
def test_digits(name: str, dtype: str) -> None:
    """Sums over two blocks of terms of one sign, whose outputs are exact, compared with 50 digits."""
    case = CASES[name]
    rng = np.random.default_rng(5)
    z, y = rng.integers(1, 9, (LOSS_ROWS + 100, 2)) / 8, np.zeros((LOSS_ROWS + 100, 3))
    y[:, 0] = case.rowwise
    w, b = rng.integers(1, 9, (2, 3)) / 16, np.full(3, 2.0)
    # Columns of zeros make blocks of the least number of rows.
    wide = np.zeros((len(z), WIDE)), np.zeros((WIDE, 3))
    got = loss_and_gradients(
        *(np.asarray(x, dtype) for x in (np.hstack([z, wide[0]]), y, np.vstack([w, wide[1]]), b)), loss=case.loss
    )
    rows, counts = np.unique(z, axis=0, return_counts=True)
    share = counts / len(z)
    right = [
        exact(lambda *x, i=i: loss_and_gradients(*x[:-1], weights=x[-1], loss=case.loss, reduction="sum")[i], *others)
        for i in (0, 2, 3)
        for others in [(rows, y[: len(rows)], w, b, share)]
    ]
    for x, digits in zip((got.value, got.dw[:2], got.db), right, strict=True):
        np.testing.assert_allclose(x, digits.astype("float64"), rtol=8 * EPS[dtype])


def test_outputs_are_never_whole() -> None:
    """The peak of memory lies below the size of the outputs, of which separate calls hold several."""
    rng = np.random.default_rng(6)
    z, y, w = rng.standard_normal((100_000, 2)), rng.integers(0, 16, 100_000), rng.standard_normal((2, 16))
    loss_and_gradients(z[:10], y[:10], w, loss=softmax_cross_entropy)
    tracemalloc.start()
    try:
        loss_and_gradients(z, y, w, loss=softmax_cross_entropy)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < z.shape[0] * w.shape[1] * 8 / 2


def test_weight_of_zero() -> None:
    """An example of weight 0 may have a label that is not finite, in any block."""
    z, y, w, b = _arrays(3 * LOSS_ROWS)
    weights = np.ones(len(z))
    y[[0, LOSS_ROWS + 3, -1]], weights[[0, LOSS_ROWS + 3, -1]] = np.nan, 0
    kept = weights != 0
    for loss in (squared_error, logistic, poisson):
        got = loss_and_gradients(z, y, w, b, loss=loss, weights=weights)
        right = separate(z[kept], y[kept], w, b, loss=loss)
        for x, exact_x in zip(got[2:], right[2:], strict=True):
            np.testing.assert_allclose(x, exact_x, rtol=1e-10, atol=1e-12)
    none = loss_and_gradients(z, y, w, b, loss=squared_error, weights=weights * 0)
    assert np.isnan(none.value)


def test_mean_that_overflows_as_a_sum() -> None:
    """A mean is finite where the sum is not, also across blocks."""
    z, y = np.ones((3 * LOSS_ROWS, WIDE)), np.full(3 * LOSS_ROWS, -1e154)
    for dtype, scale in (("float64", 1.0), ("float32", 1e-135)):
        arrays = [np.asarray(x, dtype) for x in (z, y * scale, np.zeros(WIDE), 0.0)]
        got = loss_and_gradients(*arrays, loss=squared_error)
        np.testing.assert_allclose(got.value, 0.5 * (1e154 * scale) ** 2, rtol=1e-5)
        np.testing.assert_allclose(got.db, 1e154 * scale, rtol=1e-5)


def test_results_that_are_not_asked_for() -> None:
    """As `affine_backward`, and there is no gradient for a bias that is None."""
    for rows in (5, 2 * LOSS_ROWS):
        z, y, w, b = _arrays(rows)
        for wrt in ((), ("w",), ("b",), ("z",), ["b", "z"], INPUTS):
            got = loss_and_gradients(z, y, w, b, loss=squared_error, wrt=wrt)
            assert {name[1:] for name in got._fields[1:] if getattr(got, name) is not None} == set(wrt)
        without = loss_and_gradients(z, y, w, loss=squared_error, wrt=INPUTS)
        assert without.db is None
        np.testing.assert_allclose(without.dw, separate(z, y, w, loss=squared_error)[2], rtol=1e-11, atol=1e-13)


def test_scalar_as_bias() -> None:
    """An entry of a vector of parameters is a scalar of NumPy; one of another dtype promotes."""
    for rows in (5, 2 * LOSS_ROWS):
        z, y, w, b = _arrays(rows)
        right = loss_and_gradients(z, y, w, b, loss=squared_error)
        for x, exact_x in zip(loss_and_gradients(z, y, w, b[()], loss=squared_error), right, strict=True):
            assert (x is exact_x is None) or np.all(x == exact_x)
        narrow = (z.astype("float32"), y, w.astype("float32"), b[()])
        got, right = loss_and_gradients(*narrow, loss=squared_error), separate(*narrow, loss=squared_error)
        assert got.value == right[0]
        assert got.dw is not None
        assert got.dw.dtype == np.float32


def test_loss_from_elsewhere() -> None:
    """Any function of outputs and labels that returns the value and the gradient, such as a loss with its options."""
    z, y, w, b = _arrays(5)
    got = loss_and_gradients(z, y, w, b, loss=partial(huber, delta=0.5))
    right = loss_and_gradients(z, y, w, b, loss=huber, delta=0.5)
    for x, exact_x in zip(got, right, strict=True):
        assert (x is exact_x is None) or np.all(x == exact_x)


def test_sparse_batch() -> None:
    z, y, w, b = _arrays(50)
    got = loss_and_gradients(scipy.sparse.csr_array(z), y, w, b, loss=logistic)
    right = loss_and_gradients(z, y, w, b, loss=logistic)
    for x, exact_x in zip(got[2:], right[2:], strict=True):
        np.testing.assert_allclose(x, exact_x, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="wrt must not name 'z' where z is sparse"):
        loss_and_gradients(scipy.sparse.csr_array(z), y, w, b, loss=logistic, wrt=INPUTS)


@pytest.mark.parametrize("rows", [20, LOSS_ROWS + 1])
def test_derivatives(rows: int) -> None:
    """On the tape, the derivative of the value is `dw`, and that of `dw` the Hessian."""
    rng = np.random.default_rng(7)
    z, y, w, b = _arrays(rows)
    y = np.round(rng.random(rows))
    v = rng.standard_normal(w.shape)
    found = loss_and_gradients(z, y, w, b, loss=logistic)
    value, (dw, db) = value_and_grad(lambda p: loss_and_gradients(z, y, *p, loss=logistic).value)((w, b))
    for x, exact_x in ((value, found.value), (dw, found.dw), (db, found.db)):
        np.testing.assert_allclose(x, exact_x, rtol=1e-11, atol=1e-14)
    _, along = jvp(lambda w: loss_and_gradients(z, y, w, b, loss=logistic).dw, (w,), (v,))
    p = 1 / (1 + np.exp(-(z @ w + b)))
    np.testing.assert_allclose(along, z.T @ (p * (1 - p) * (z @ v)) / rows, rtol=1e-10, atol=1e-13)
    for i in range(2):  # what is recorded beside plain parameters
        arrays: list[Any] = [y, np.ones(rows)]

        def value_of(x: Any, i: int = i, arrays: list[Any] = arrays) -> Any:
            given = [x if i == j else other for j, other in enumerate(arrays)]
            return loss_and_gradients(z, given[0], w, b, loss=squared_error, weights=given[1], reduction="sum").value

        a = z @ w + b
        np.testing.assert_allclose(grad(value_of)(arrays[i]), (y - a, (a - y) ** 2 / 2)[i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [6, 2 * LOSS_ROWS])
def test_errors_are_those_of_the_separate_calls(rows: int) -> None:
    z, y, w, b = _arrays(rows)
    W, B = np.ones((WIDE, 3)), np.ones(3)  # noqa: N806 - matrices
    index = np.zeros(rows, int)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((z.tolist(), y, w, b), {}),
        ((z, y.tolist(), w, b), {}),
        ((z, y, w[:-1], b), {}),
        ((z, y, w, B), {}),
        ((z, y, w, 0.5), {}),
        ((z.astype(int), y, w.astype(int), None), {}),
        ((z * 1j, y, w * 1j, None), {}),
        ((z, y[:-1], w, b), {}),
        ((z, y[:, None], w, b), {}),
        ((z, y, W, B), {}),
        ((z, y * 1j, w, b), {}),
        ((z, y, w, b), {"reduction": "average"}),
        ((z, y, w, b), {"weights": np.ones(rows - 1)}),
        ((z, y, w, b), {"weights": y > 0}),
        ((z, y, w, b), {"delta": -1.0, "loss": huber}),
        ((z, y, W, B), {"loss": softmax_cross_entropy}),
        ((z, index, w, b), {"loss": softmax_cross_entropy}),
        ((z, index, W, B), {"loss": softmax_cross_entropy, "label_smoothing": 2.0}),
        ((z, index, W, B), {"loss": softmax_cross_entropy, "class_weights": np.ones(2)}),
        ((np.ma.masked_array(z), y, w, b), {}),
        ((z, np.ma.masked_array(y), w, b), {}),
        ((z, y, np.ma.masked_array(w), b), {}),
    ]
    for arrays, options in wrong:
        call = {"loss": squared_error, **options}
        with pytest.raises((TypeError, ValueError)) as right:
            separate(*arrays, **call)
        with pytest.raises(right.type) as got:
            loss_and_gradients(*arrays, **call)
        assert str(got.value) == str(right.value)


def test_own_errors() -> None:
    z, y, w, b = _arrays(4)
    for wrt in ("w", ("w", "y"), 3):
        with pytest.raises(ValueError, match=r"^loss_and_gradients: wrt must be a tuple of names out of .*; got"):
            loss_and_gradients(z, y, w, b, loss=squared_error, wrt=wrt)
    with pytest.raises(TypeError, match="gamma"):
        loss_and_gradients(z, y, w, b, loss=squared_error, gamma=2.0)
