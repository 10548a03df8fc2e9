"""Levels that meet, operands that are no arrays, and conversions of constants."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback as pb
from pullback._autodiff.jacobians import _size
from pullback._autodiff.rules.indexing import _put_slice, _set_mask
from pullback._autodiff.shapes import like
from pullback._autodiff.tape import LostGradientError
from tests.autodiff.test_traced import record
from tests.autodiff.test_transforms import close
from tests.harness.backend import Backend

X = np.asarray([1.0, -2.0, 3.0])


@pytest.mark.parametrize(
    "op", [operator.add, operator.lt, operator.pow, operator.matmul, operator.and_, operator.iadd, operator.ipow]
)
def test_operands_that_are_no_arrays(op: Callable[[Any, Any], Any]) -> None:
    for left_is_traced in (True, False):

        def call(x: Any, left_is_traced: bool = left_is_traced) -> Any:  # noqa: FBT001
            x = x > 0 if op is operator.and_ else x
            return op(x, object()) if left_is_traced else op(object(), x)

        with pytest.raises(TypeError):
            record(call, X)


@pytest.mark.parametrize("of", [lambda x: x @ x, lambda x: np.sum(np.ones(2) * x)], ids=["matmul", "multiply"])
def test_masked_arrays(of: Callable[[Any], Any]) -> None:
    """They are refused as arguments, and as constants that meet an active array."""
    x = np.ma.array([1.0, 2.0], mask=[False, True])
    error = r"a function that is differentiated: x must not be masked; got MaskedArray\. .* example with x\.filled\(0\)"
    with pytest.raises(TypeError, match=error):
        pb.grad(of)(x)
    with pytest.raises(TypeError, match=error):
        pb.grad(lambda y: of(y * x))(np.ones(2))


def test_plain_masks_on_the_left() -> None:
    got = record(lambda x: ((x > 0).__rand__(np.asarray([True, True, False])), True & (x > 0)), X)
    assert [list(np.asarray(part)) for part in got] == [[True, False, False], [True, False, True]]


def test_outer_arrays_with_inner_ones() -> None:
    """The deeper level decides, whichever operand or namespace comes first."""

    def outer(x: Any) -> Any:
        xp = array_namespace(x)

        def inner(y: Any) -> Any:
            mask = x < y + 1.0
            assert not (xp.argmax(y) < 0)
            terms = xp.add(x, y) + (x + y) + xp.exp(y) * 0.0 + xp.zeros_like(y)
            return xp.sum(xp.where(mask, terms, 0.0)) + x @ y + xp.sum((x * x + 1.0) ** (y * 0.0 + 1.0))

        with pytest.raises(TypeError, match="an array of level 2 of differentiation was used at level 1"):
            pb.grad(lambda y: xp.lift(y) @ x)(x)
        return pb.grad(inner)(x) @ x

    log = np.log(X * X + 1)
    # The inner gradient is 2 + x, and 0 from the power, whose exponent does not move.
    assert np.allclose(pb.grad(outer)(X), 2 + 2 * X)
    assert np.isfinite(log).all()


def test_conversions_of_constants() -> None:
    def convert(x: Any) -> Any:
        one = pb.stop_gradient(x)
        assert array_namespace(x).__array_namespace_info__().default_device() == "cpu"
        assert complex(one[0]) == 1.0
        assert np.array_equal(np.asarray(one), X)
        assert one.__dlpack_device__() == X.__dlpack_device__()
        assert np.array_equal(np.from_dlpack(one), X)
        return pb.relu_forward(one)

    assert np.array_equal(record(convert, X), [1.0, 0.0, 3.0])
    assert pb.constant(X) is X
    double = pb.custom_vjp(lambda x: x * 2, lambda g: g * 2, needs=())
    assert np.array_equal(record(lambda x: double(pb.stop_gradient(x)), X), 2 * X)


def test_products_of_a_cotangent_that_was_not_broadcast() -> None:
    z, w = np.arange(6.0).reshape(2, 3), np.ones((3, 4))
    dz, dw = pb.grad(lambda z, w: array_namespace(z).sum(z @ w), (0, 1))(z, w)
    assert np.array_equal(dz, np.full((2, 3), 4.0))
    assert np.array_equal(dw, np.broadcast_to(np.sum(z, axis=0)[:, None], (3, 4)))
    assert np.array_equal(pb.grad(lambda w: array_namespace(w).sum(array_namespace(w).matmul(z, w)))(w), dw)


def test_unknown_and_complex_sizes() -> None:
    with pytest.raises(ValueError, match=r"^jacobian: all sizes must be known; got \(nan, 3\)"):
        _size((float("nan"), 3))
    _, unravel = pb.ravel_tree(X)
    assert np.array_equal(unravel(X + 1j), X)


def test_empty_slices_of_chunked_arrays() -> None:
    xp = array_namespace(X)
    assert np.array_equal(_put_slice(xp, np.ones((2, 0)), 1, 3, slice(0, 0)), np.zeros((2, 3)))


def test_take_of_all_entries() -> None:
    x = np.zeros((2, 3))
    got = pb.grad(lambda x: array_namespace(x).sum(array_namespace(x).take(x, np.asarray([0, 4, 4]))))(x)
    assert np.array_equal(got, [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])


def test_third_derivative_of_a_sort() -> None:
    def f(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.sort(x) ** 4 * xp.asarray([1.0, 2.0, 3.0]))

    got = pb.grad(lambda x: pb.hvp(f, (x,), (x,))[0] @ x)(X)
    assert np.allclose(got, 48 * X**3 * [2, 1, 3])


@pytest.mark.backends("torch")
def test_functions_of_torch_itself(backend_one_device: Backend) -> None:
    import torch  # noqa: PLC0415

    x = backend_one_device.asarray(X)
    t = torch.ones_like(x)
    programs: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.exp, np.exp(X)),
        (lambda x: torch.rsub(x, t), -np.ones(3)),
        (lambda x: torch.Tensor.__rsub__(t, x), np.ones(3)),
        (lambda x: torch.Tensor.__mul__(t, x), np.ones(3)),
        (lambda x: t - x, -np.ones(3)),
        (lambda x: torch.div(x, t), np.ones(3)),
        (lambda x: x + t // x, np.ones(3)),
    ]
    for program, expected in programs:
        got = pb.grad(lambda x, program=program: array_namespace(x).sum(program(x)))(x)
        assert np.allclose(backend_one_device.numpy(got), expected)
    with pytest.raises((TypeError, LostGradientError)):
        pb.grad(lambda x: torch.nan_to_num(x) @ x)(x)


def test_powers_and_products_in_place() -> None:
    w = np.asarray([[0.0, 2.0], [1.0, 0.0]])

    def f(x: Any) -> Any:
        y = x * 1.0
        kept = y
        y **= 2.0
        y @= w
        assert kept is y
        return array_namespace(x).sum(y * array_namespace(x).exp(np.zeros(2)))

    x = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    assert np.array_equal(pb.grad(f)(x), 2 * x * [2.0, 1.0])


def test_rejects_arguments_without_arrays() -> None:
    with pytest.raises(TypeError, match=r"^grad: there is no array to differentiate; got \(\{\},\)"):
        pb.grad(lambda _: X[0])({})
    with pytest.raises(TypeError, match=r"^vjp: there is no array to differentiate; got \(\)"):
        pb.vjp(lambda: X)


@pytest.mark.backends("dask")
def test_selections_of_chunked_arrays(backend_one_device: Backend) -> None:
    """Selections by a mask have unknown sizes; where what is selected is changed entry by entry, it has gradients."""
    b = backend_one_device
    exact = np.arange(12.0).reshape(6, 2)
    x = b.rows(exact)

    def rows(x: Any) -> Any:
        xp = array_namespace(x)
        chosen = x[x[:, 0] > 3, :]
        return xp.sum(chosen * chosen) + xp.mean(chosen)

    def entries(x: Any) -> Any:
        return array_namespace(x).sum(x[x > 4] ** 3)

    first, second = exact[:, :1] > 3, exact > 4
    expected = first * (2 * exact + 1 / 8)
    assert close(b, b.call(pb.grad(rows), x), expected)
    assert close(b, b.call(pb.hvp, rows, (x,), (x,))[0], first * 2 * exact)
    if b.mode != "unknown rows":
        assert close(b, b.call(pb.grad(entries), x), second * 3 * exact**2)


@pytest.mark.backends("dask")
def test_selections_that_cannot_be_pulled_back(backend_one_chunking: Backend) -> None:
    x = backend_one_chunking.asarray(np.arange(12.0).reshape(6, 2))
    for wrong, match in (
        (lambda x: x[:, x[0, :] > -1], "the mask must be the first index"),
        (lambda x: x[x[:, 0] > 3, 0], "the mask must be the first index"),
    ):
        with pytest.raises(NotImplementedError, match=match):
            pb.grad(lambda x, wrong=wrong: array_namespace(x).sum(wrong(x)))(x)
    with pytest.raises(NotImplementedError, match="the chunks of the result must be left as they are"):
        _set_mask(array_namespace(x), x[:, 0], like(x[:, 0]), (x[:1, 0] > 0,))
