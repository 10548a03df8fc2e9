"""Where a function has no derivative: the limit, or PyTorch's value where that is finite; and strong zeros."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback
from pullback._autodiff import grad, hvp, jvp, vjp
from tests.autodiff.rules.laws import assert_close
from tests.harness.backend import Backend

INF, NAN = np.inf, np.nan
EACH = 1e-15

# The function of arrays, its arguments, and the gradient of the sum of its values for each of them.
KINKS: dict[str, tuple[Callable[..., Any], list[Any], list[Any]]] = {
    "abs": (lambda xp, x: xp.abs(x), [[0.0, -0.0, -2.0]], [[0, 0, -1]]),
    "sign": (lambda xp, x: x * xp.sign(x), [[0.0, -2.0]], [[0, -1]]),
    "copysign": (lambda xp, x, y: xp.copysign(x, y), [[0.0, 2.0, -2.0], [1.0, -1.0, -0.0]], [[0, -1, 1], [0, 0, 0]]),
    "max": (lambda xp, x: xp.max(x), [[1.0, 3.0, 3.0, 2.0]], [[0, 0.5, 0.5, 0]]),
    "min": (lambda xp, x: xp.min(x, axis=0), [[[1.0, 3.0], [1.0, 4.0]]], [[[0.5, 1], [0.5, 0]]]),
    "max of NaN": (lambda xp, x: xp.max(x), [[1.0, NAN, NAN]], [[0, 0.5, 0.5]]),
    "maximum": (lambda xp, x, y: xp.maximum(x, y), [[1.0, 2.0, 3.0], 2.0], [[0, 0.5, 1], 1.5]),
    "minimum": (lambda xp, x, y: xp.minimum(x, y), [[1.0, 2.0, 3.0], 2.0], [[1, 0.5, 0], 1.5]),
    "maximum and a number": (lambda xp, x: xp.maximum(x, 0.0), [[-1.0, 0.0, 1.0]], [[0, 0.5, 1]]),
    "maximum of infinities": (lambda xp, x, y: xp.maximum(x, y), [[INF, -INF], [INF, 0.0]], [[0.5, 0], [0.5, 1]]),
    "clip": (lambda xp, x: xp.clip(x, -1.0, 1.0), [[-2.0, -1.0, 0.0, 1.0, 2.0]], [[0, 1, 1, 1, 0]]),
    "clip to arrays": (
        lambda xp, x, low, high: xp.clip(x, low, high),
        [[0.0, 1.0, 2.0, 3.0], [1.0] * 4, [2.0] * 4],
        [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]],
    ),
    "std": (lambda xp, x: xp.std(x, axis=1), [[[2.0, 2.0], [3.0, 1.0]]], [[[0, 0], [0.5, -0.5]]]),
    "x**0": (lambda xp, x: xp.pow(x, 0.0), [[0.0, 2.0, -1.0]], [[0, 0, 0]]),
    "x**0 of integers": (lambda _, x: x**0, [[0.0, 2.0]], [[0, 0]]),
    "0**1": (lambda _, x: x**1, [[0.0, 2.0]], [[1, 1]]),
    "0**2": (lambda _, x: x**2.0, [[0.0, -2.0]], [[0, -4]]),
    "x**y": (lambda _, x, y: x**y, [[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 2.0, 0.0]], [[0, 1, 0, 0], [0, 0, 0, 0]]),
    "0**x": (lambda _, x: 0.0**x, [[0.0, 0.5, 3.0]], [[0, 0, 0]]),
    "prod": (lambda xp, x: xp.prod(x, axis=1), [[[0.0, 2.0], [0.0, 0.0]]], [[[2, 0], [0, 0]]]),
    "cumulative_prod": (lambda xp, x: xp.cumulative_prod(x), [[2.0, 0.0, 3.0]], [[1, 8, 0]]),
    "logaddexp": (lambda xp, x, y: xp.logaddexp(x, y), [[-INF, INF, INF, 0.0], [-INF, INF, 0.0, -INF]],
                  [[0.5, 0.5, 1, 1], [0.5, 0.5, 0, 0]]),
    "hypot": (lambda xp, x, y: xp.hypot(x, y), [[0.0, 3.0], [0.0, 4.0]], [[0, 0.6], [0, 0.8]]),
    "hypot at infinity": (lambda xp, x, y: xp.hypot(x, y), [[INF, 1.0, INF, -INF, INF], [1.0, -INF, INF, INF, NAN]],
                          [[1, 0, 0.5**0.5, -(0.5**0.5), 1], [0, -1, 0.5**0.5, 0.5**0.5, 0]]),
    "atan2 at infinity": (lambda xp, x, y: xp.atan2(x, y), [[INF, 1.0, INF, -INF], [1.0, -INF, INF, 1.0]],
                          [[0, 0, 0, 0], [0, 0, 0, 0]]),
    "atan2": (lambda xp, x, y: xp.atan2(x, y), [[0.0, 0.0], [0.0, 2.0]], [[0, 0.5], [0, 0]]),
    "where and log": (lambda xp, x: xp.where(x > 0, xp.log(xp.maximum(x, 0.0)), 0.0), [[2.0]], [[0.5]]),
}  # fmt: skip


@pytest.mark.parametrize("name", KINKS)
def test_kink(backend_one_chunking: Backend, name: str) -> None:
    call, values, right = KINKS[name]
    b = backend_one_chunking
    xs = [b.asarray(np.asarray(x)) for x in values]

    def pulled(*xs: Any) -> Any:
        out, pull = vjp(lambda *xs: call(array_namespace(*xs), *xs), *xs)
        return pull(array_namespace(out).ones_like(out))

    found = b.call(pulled, *xs)
    assert_close(name, list(map(b.numpy, found)), [np.asarray(x, dtype=float) for x in right], EACH)


# What is infinite or NaN where the mask is false, and has a derivative that is so, too.
MASKED: dict[str, tuple[Callable[..., Any], float]] = {
    "log": (lambda xp, x: xp.log(x), 0.0),
    "log2": (lambda xp, x: xp.log2(x), 0.0),
    "log10": (lambda xp, x: xp.log10(x), 0.0),
    "log1p": (lambda xp, x: xp.log1p(x - 1), 0.0),
    "sqrt": (lambda xp, x: xp.sqrt(x), 0.0),
    "1 / x": (lambda _, x: 1 / x, 0.0),
    "reciprocal": (lambda xp, x: xp.reciprocal(x), 0.0),
    "x / x": (lambda _, x: x / x, 0.0),
    "x**0.5": (lambda _, x: x**0.5, 0.0),
    "x**-1": (lambda _, x: x**-1.0, 0.0),
    "x**x": (lambda _, x: x**x, 0.0),
    "x**x of a negative number": (lambda _, x: x**x, -1.0),
    "asin": (lambda xp, x: xp.asin(x - 1), 0.0),
    "acos": (lambda xp, x: xp.acos(x - 1), 0.0),
    "acosh": (lambda xp, x: xp.acosh(x + 1), 0.0),
    "atanh": (lambda xp, x: xp.atanh(x - 1), 0.0),
    "exp": (lambda xp, x: xp.exp(x), 1e4),
    "expm1": (lambda xp, x: xp.expm1(x), 1e4),
    "sinh": (lambda xp, x: xp.sinh(x), 1e4),
    "cosh": (lambda xp, x: xp.cosh(x), 1e4),
    "log(1 + exp(x))": (lambda xp, x: xp.log1p(xp.exp(x)), 1e4),
    "remainder": (lambda xp, x: xp.remainder(xp.ones_like(x), x), 0.0),
    "hypot": (lambda xp, x: xp.hypot(x, x), INF),
}


@pytest.mark.filterwarnings("ignore:.*(divide by zero|invalid value|overflow|in scalar).*:RuntimeWarning")
@pytest.mark.parametrize("name", MASKED)
def test_strong_zero(backend_one_chunking: Backend, name: str) -> None:
    """A value that a mask leaves out contributes nothing to derivatives of any order, forwards or backwards."""
    call, outside = MASKED[name]
    b = backend_one_chunking

    def total(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.where(x != outside, call(xp, x), 0.0))

    inside = 1.25
    x, v, one = (b.asarray(np.asarray(a)) for a in ([outside, inside], [1.0, 1.0], [inside]))
    derivatives = b.call(grad(total), x), b.call(hvp, total, (x,), (v,))[0]
    alone = b.call(grad(total), one), b.call(hvp, total, (one,), (v[1:],))[0]
    for found, right in zip(map(b.numpy, derivatives), map(b.numpy, alone), strict=True):
        assert found[0] == 0
        assert found[1] == right[0]
    tangent = b.numpy(b.call(jvp, total, (x,), (v,))[1])
    assert tangent == b.numpy(b.call(jvp, total, (one,), (v[1:],))[1])


@pytest.mark.filterwarnings("ignore:.*(divide by zero|invalid value|overflow).*:RuntimeWarning")
@pytest.mark.parametrize("name", ["log", "exp", "x**x"])
@pytest.mark.parametrize("masked", [False, True])
def test_strong_zeros_of_long_arrays(backend_one_chunking: Backend, name: str, *, masked: bool) -> None:
    """Arrays that are searched for zeros beforehand have the gradients of short ones, entry by entry."""
    call, outside = MASKED[name]
    b = backend_one_chunking

    def total(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.where(x != outside, call(xp, x), 0.0))

    short = np.asarray([outside if masked else 2.0, 1.25])
    right = b.numpy(b.call(grad(total), b.asarray(short)))
    found = b.numpy(b.call(grad(total), b.asarray(np.tile(short, 300))))
    np.testing.assert_allclose(found, np.tile(right, 300), rtol=4e-16, atol=0)


@pytest.mark.parametrize("upstream", [[[2.0], [3.0]], [[INF], [NAN]]])
def test_extremum_of_infinite_cotangents(backend_one_chunking: Backend, upstream: list[list[float]]) -> None:
    """An entry that is not the largest has gradient zero, whatever the cotangent."""
    b = backend_one_chunking

    def pulled(x: Any, g: Any) -> Any:
        _, pull = vjp(lambda x: array_namespace(x).max(x, axis=1, keepdims=True), x)
        return pull(g)[0]

    x, g = (b.asarray(np.asarray(a)) for a in ([[1.0, 2.0], [4.0, 3.0]], upstream))
    (first,), (second,) = upstream
    np.testing.assert_array_equal(b.numpy(b.call(pulled, x, g)), [[0, first], [second, 0]])


@pytest.mark.parametrize("columns", [3, 40])
@pytest.mark.parametrize("keepdims", [False, True])
def test_maximum_of_many_rows(backend_one_chunking: Backend, columns: int, *, keepdims: bool) -> None:
    """The maximum of each of many rows, and its derivative: shared among ties, and among NaN."""
    b = backend_one_chunking
    rows = np.random.default_rng(columns).standard_normal((150, columns))
    rows[3, :2], rows[5, [0, -1]], rows[7], rows[9, 1], rows[11, 1] = 9.0, NAN, 2.0, INF, -INF
    x, weights = b.asarray(rows), np.arange(1.0, 151.0)[:, None]
    # XLA's maximum passes NaN over in some rows.
    top = b.numpy(b.xp.max(x, axis=1, keepdims=True))
    hit = (rows == top) | np.isnan(rows)

    def pulled(x: Any, g: Any) -> Any:
        out, pull = vjp(lambda x: array_namespace(x).max(x, axis=-1, keepdims=keepdims), x)
        return out, pull(g)[0]

    g = weights if keepdims else weights[:, 0]
    out, found = b.call(pulled, x, b.asarray(g))
    np.testing.assert_array_equal(b.numpy(out), top if keepdims else top[:, 0])
    np.testing.assert_allclose(b.numpy(found), weights * hit / np.sum(hit, axis=1, keepdims=True), rtol=1e-15)


@pytest.mark.parametrize("columns", [1, 3, 100])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sum_of_many_rows(backend_one_chunking: Backend, columns: int, *, keepdims: bool) -> None:
    """The sum of each of many rows is that of the library up to rounding, and no view of its argument."""
    b = backend_one_chunking
    rows = np.random.default_rng(columns).standard_normal((150, columns))
    x = b.asarray(rows)
    out, pull = vjp(lambda x: array_namespace(x).sum(x, axis=1, keepdims=keepdims), x)
    right = np.sum(rows, axis=1, keepdims=keepdims)
    np.testing.assert_allclose(b.numpy(out), right, rtol=0, atol=1e-14 * columns)
    assert not np.shares_memory(b.numpy(out), b.numpy(x))
    weights = np.reshape(np.arange(150.0), right.shape)
    expected = np.broadcast_to(weights.reshape(150, 1), rows.shape)
    np.testing.assert_array_equal(b.numpy(pull(b.asarray(weights))[0]), expected)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_infinite_derivatives(backend_one_chunking: Backend) -> None:
    """An infinite derivative is infinite where it counts."""
    b = backend_one_chunking
    x = b.asarray(np.zeros(2))
    for f in (lambda x: array_namespace(x).sqrt(x), lambda x: x**0.5):
        assert np.all(np.isposinf(b.numpy(b.call(grad(lambda x, f=f: array_namespace(x).sum(f(x))), x))))


@pytest.mark.parametrize(
    "name", ["gelu", "leaky_relu", "log_softmax", "relu", "sigmoid", "silu", "softmax", "softplus", "tanh"]
)
def test_activations_at_infinity(backend_one_chunking: Backend, name: str) -> None:
    """The derivative at an infinite number is that at a large one."""
    forward: Callable[[Any], Any] = getattr(pullback, f"{name}_forward")
    b, weights = backend_one_chunking, np.asarray([[1.0, 2.0, 3.0]])

    def pulled(x: Any) -> Any:
        _, pull = vjp(forward, x)
        return pull(b.asarray(weights))[0]

    for sign in (1, -1):
        infinite, large = (b.asarray(np.asarray([[0.5, sign * size, -1.0]])) for size in (INF, 1e4))
        assert np.allclose(b.numpy(b.call(pulled, infinite)), b.numpy(b.call(pulled, large)))


def test_second_derivatives_at_ties() -> None:
    """Where the function is smooth, so are its derivatives: at ties of logaddexp, and powers of 0."""

    def hessian(f: Callable[..., Any], *xs: float) -> Any:
        args = tuple(map(np.asarray, xs))
        return [hvp(f, args, tuple(map(np.asarray, row))) for row in np.eye(len(xs))]

    def ns(x: Any) -> Any:
        return array_namespace(x)

    assert np.allclose(hessian(lambda x, y: ns(x).logaddexp(x, y), 1.0, 1.0), [[0.25, -0.25], [-0.25, 0.25]])
    assert np.allclose(hessian(lambda x: x**3, 0.0), [[0]])
    assert np.allclose(hessian(lambda x: x**2.0, 0.0), [[2]])
    assert np.allclose(hessian(lambda x, y: x**y, 2.0, 0.0), [[0, 0.5], [0.5, np.log(2) ** 2]])
    assert np.allclose(hessian(lambda x, y: x * y * ns(x).abs(x), 0.0, 1.0), [[0, 0], [0, 0]])


def test_powers_of_zero_forwards() -> None:
    """An infinite logarithm counts for nothing where its factor is 0, in both directions and as a number, too."""
    for base in (0.0, np.asarray(0.0)):
        for exponent in (np.asarray(1.25), np.asarray([1.25, 0.0])):
            with np.errstate(divide="ignore"):
                _, tangent = jvp(lambda y, base=base: base**y, (exponent,), (exponent + 1,))
            assert np.array_equal(tangent, np.zeros_like(exponent))


def test_sort_is_stable() -> None:
    """Among equal entries, the cotangents go to them in order."""
    x = np.asarray([2.0, 1.0, 2.0, 1.0])
    weights = np.asarray([1.0, 10, 100, 1000])

    def weighted(x: Any, **options: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.sort(x, **options) * xp.asarray(weights))

    assert np.array_equal(grad(weighted)(x), [100, 1, 1000, 10])
    assert np.array_equal(grad(lambda x: weighted(x, descending=True))(x), [1, 100, 10, 1000])


def test_equal_values_share() -> None:
    """The cotangent of a unique value is shared among the entries that have it."""
    x = np.asarray([[2.0, 1.0], [2.0, 2.0]])
    weights = np.asarray([3.0, 6.0])

    def weighted(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.unique_values(x) * xp.asarray(weights))

    assert np.array_equal(grad(weighted)(x), [[2, 3], [2, 2]])


def test_crossed_limits_of_clip() -> None:
    """Where the lower limit lies above the upper one, the value is the upper one."""

    def total(x: Any, low: Any, high: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.clip(x, low, high))

    args = (np.asarray([0.0, 2.0, 4.0]), np.full(3, 3.0), np.ones(3))
    assert [g.tolist() for g in grad(total, argnums=(0, 1, 2))(*args)] == [[0] * 3, [0] * 3, [1] * 3]


@pytest.mark.parametrize("name", ["svd", "qr"])
def test_null_spaces_are_refused_when_pulled_back(name: str) -> None:
    """The value is right; a derivative that does not exist is an error and not zero."""
    x = np.asarray([[1.0, 2.0], [3.0, 5.0], [0.5, -1.0]])
    choices: dict[str, dict[str, Any]] = {"svd": {"full_matrices": True}, "qr": {"mode": "complete"}}

    def factor(x: Any) -> Any:
        return getattr(x.__array_namespace__().linalg, name)(x, **choices[name])[0]

    out, pull = vjp(factor, x)
    assert out.shape == (3, 3)
    with pytest.raises(NotImplementedError, match=rf"^linalg\.{name} with .* a basis of the null space is not unique"):
        pull(out)
