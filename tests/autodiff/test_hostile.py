"""Programs that are odd, wrong or hostile: a right gradient, or one error that says what to do."""

import collections
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback as pb
from pullback._autodiff.tape import LostGradientError, open_depth
from pullback._core.dtypes import epsilon
from tests.autodiff.test_transforms import close
from tests.harness.backend import Backend

X = np.asarray([1.0, -2.0, 3.0])


def total(x: Any) -> Any:
    return array_namespace(x).sum(x)


# Arguments and results.


def test_odd_containers() -> None:
    shared = pb.grad(lambda p: p["a"] @ p["b"])({"a": X, "b": X})
    assert np.array_equal(shared["a"], X)
    found = pb.grad(lambda p: p["a"] @ p["a"])(collections.defaultdict(list, a=X))
    assert type(found) is collections.defaultdict
    assert np.array_equal(found["a"], 2 * X)
    for wrong in ({1.0}, collections.deque([X]), object()):
        with pytest.raises(TypeError, match=r"^grad: an argument to differentiate must be an array"):
            pb.grad(lambda p: p)(wrong)


@pytest.mark.parametrize("nothing", [None, [], {}, (), {"a": None}])
def test_nothing_to_differentiate(nothing: Any) -> None:
    with pytest.raises(TypeError, match=r"^grad: there is no array to differentiate; got"):
        pb.grad(lambda _: 1.0)(nothing)
    with pytest.raises(TypeError, match=r"^grad: there is no array to differentiate; got \(\)"):
        pb.grad(lambda _: 1.0, argnums=())(nothing)


def test_argnums_in_any_order() -> None:
    found = pb.grad(lambda a, b, *, c: a @ b + c @ c, argnums=(-1, 0))(X, 2 * X, c=X)
    assert [g.tolist() for g in found] == [X.tolist(), (2 * X).tolist()]


def test_mutated_arguments() -> None:
    """A function that changes its containers changes its own, and an array its own value."""
    given = [X, X]
    found = pb.grad(lambda p: p.append(p[0]) or p[0] @ p[2])(given)
    assert len(given) == 2
    assert [g.tolist() for g in found] == [(2 * X).tolist(), [0.0] * 3]

    def double(a: Any, b: Any) -> Any:
        a *= 2.0
        return a @ b

    assert np.array_equal(pb.grad(double, (0, 1))(X, X), [2 * X, 2 * X])


def test_outputs_that_do_not_depend_on_the_arguments(backend_one_device: Backend) -> None:
    b = backend_one_device
    x = b.asarray(X)
    for function in (lambda _: 1.0, lambda _: b.asarray(np.asarray(1.0))):
        assert np.array_equal(b.numpy(pb.grad(function)(x)), np.zeros(3))
    out, tangent = pb.jvp(lambda _: b.asarray(np.ones(3)), (x,), (x,))
    assert np.array_equal(b.numpy(out), np.ones(3))
    assert np.array_equal(b.numpy(tangent), np.zeros(3))
    same, (pulled,) = pb.jvp(lambda x: x, (x,), (x,)), pb.vjp(lambda x: x, x)[1](x)
    assert all(np.array_equal(b.numpy(y), X) for y in (*same, pulled))


def test_outputs_that_do_not_move(backend_one_device: Backend) -> None:
    """Of masks, integers and Python numbers, the tangent is zero and the cotangent counts for nothing."""
    b = backend_one_device
    x = b.asarray(X)

    def parts(x: Any) -> Any:
        xp = array_namespace(x)
        return {"x": 2 * x, "mask": x > 0, "whole": xp.astype(x, xp.int64), "number": 2.0, "count": 3}

    out, tangent = pb.jvp(parts, (x,), (x,))
    assert np.array_equal(b.numpy(tangent["x"]), 2 * X)
    assert not np.any(b.numpy(tangent["mask"]))
    assert np.array_equal(b.numpy(tangent["whole"]), np.zeros(3))
    assert (tangent["number"], tangent["count"]) == (0.0, 0)
    (pulled,) = pb.vjp(parts, x)[1](out)
    assert np.array_equal(b.numpy(pulled), 4 * X)
    only, still = pb.jvp(lambda x: x > 0, (x,), (x,))
    assert tuple(only.shape) == tuple(still.shape)


# Errors, leaks, threads and long programs.


def test_after_an_error_nothing_is_open_and_nothing_is_held() -> None:
    held: list[Any] = []

    def fail(x: Any) -> Any:
        y = array_namespace(x).sin(x)
        held.append(weakref.ref(y))
        raise KeyError

    with pytest.raises(KeyError):
        pb.grad(lambda x: pb.grad(fail)(x) @ x)(X)
    gc.collect()
    assert open_depth() == 0
    assert [ref() is None for ref in held] == [True]


def test_leaked_arrays_and_generators() -> None:
    def leak(function: Callable[[Any], Any]) -> Iterator[Any]:
        kept: list[Any] = []

        def run(x: Any) -> Any:
            def make() -> Iterator[Any]:
                while True:
                    yield function(x)

            kept.append(make())
            next(kept[0])
            return x @ x

        pb.grad(run)(X)
        return kept[0]

    uses: list[Callable[[Any], Any]] = [
        lambda x: x[0],
        lambda x: x * 2,
        lambda x: array_namespace(x).sum(x),
        lambda x: array_namespace(x).exp(x),
        lambda x: array_namespace(x).unstack(x),
        lambda x: array_namespace(x).flip(x),
        pb.relu_forward,
        pb.checkpoint(lambda y: y * y),
    ]
    for use in uses:
        with pytest.raises(LostGradientError, match="used after that function returned"):
            next(leak(use))


def in_thread(function: Callable[[], Any]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_threads() -> None:
    """Threads record apart; a function may have threads of its own."""

    def program(x: Any) -> Any:
        y = x
        for _ in range(20):
            y = array_namespace(y).tanh(y) * 1.1
        return pb.grad(lambda z: total(z * z * y))(y * 2.0) @ x

    found: list[Any] = [None] * 4
    barrier = threading.Barrier(4)

    def work(i: int) -> None:
        barrier.wait()
        found[i] = pb.grad(program)(X + i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[i], pb.grad(program)(X + i)) for i in range(4))

    def parallel(x: Any) -> Any:
        parts: list[Any] = []
        in_thread(lambda: parts.append(x * x))
        return total(parts[0])

    assert np.array_equal(pb.grad(parallel)(X), 2 * X)


def test_arrays_of_two_tapes() -> None:
    """An array that another thread or an earlier call differentiates is no constant here."""
    uses: list[Callable[[Any, Any], Any]] = [
        lambda _, y: y @ y,
        lambda x, y: total(x * y),
        lambda x, y: total(y - x),
        lambda x, y: x @ y,
        lambda x, y: total(array_namespace(x).hypot(x, y)),
        lambda x, y: total(pb.affine_forward(array_namespace(x).reshape(x, (1, 3)), array_namespace(y).eye(3) * y)),
        lambda x, y: total(array_namespace(x).reshape(x, (1, 3)) @ array_namespace(y).reshape(y, (3, 1))),
        lambda x, y: total(pb.custom_vjp(lambda x, y: x * y, lambda g, x, y: (g * y, g * x))(x, y)),
        lambda _, y: pb.grad(lambda y: y @ y)(y) @ y,
    ]
    for use in uses:
        kept: list[Any] = []

        def keep(y: Any, kept: list[Any] = kept) -> Any:
            kept.append(y)
            return y @ y

        pb.grad(keep)(X)
        with pytest.raises(LostGradientError):
            pb.grad(lambda x, use=use, kept=kept: use(x, kept[0]))(X)

    matrices: list[Any] = []

    def keep_matrix(y: Any) -> Any:
        matrices.append(y)
        return total(y)

    pb.grad(keep_matrix)(np.eye(3))
    with pytest.raises(LostGradientError):
        pb.grad(lambda x: total(x @ matrices[0]))(np.eye(3))

    def grad_in_a_thread(x: Any, of: Callable[[Any], Any]) -> Any:
        raised: list[Exception] = []

        def work() -> None:
            try:
                of(x)
            except LostGradientError as error:
                raised.append(error)

        in_thread(work)
        raise raised[0]

    for of in (
        lambda x: pb.grad(lambda z: z @ x)(x),
        lambda x: pb.grad(lambda z: z @ x)(X),
        lambda x: pb.value_and_grad(lambda _: x @ x)(X),
    ):
        with pytest.raises(LostGradientError, match="runs in another thread"):
            pb.grad(grad_in_a_thread)(X, of=of)


def test_a_tape_of_a_hundred_thousand_operations() -> None:
    def chain(x: Any) -> Any:
        for _ in range(100_000):
            x = x * 1.00001
        return total(x)

    assert np.allclose(pb.grad(chain)(X), 1.00001**100_000)


def test_recursion_and_closures_over_other_levels() -> None:
    def power(x: Any, n: int) -> Any:
        return x if n == 0 else x * power(x, n - 1)

    assert np.allclose(pb.grad(lambda x: total(power(x, 9)))(X), 10 * X**9)
    nested = pb.grad(lambda x: pb.grad(lambda y: pb.grad(lambda z: (z * x * y) @ z)(y) @ x)(x) @ x)
    assert np.array_equal(nested(X), 16 * X**3)


# In place.


def test_masks_and_counts_change_in_place(backend_one_device: Backend) -> None:
    """An operation in place on constants shows in all names of the array, where the library's arrays change."""
    b = backend_one_device
    x = b.asarray(X)

    def program(x: Any) -> Any:
        xp = array_namespace(x)
        mask = x > -9
        same = mask
        mask &= x < 2
        mask ^= x < -5
        mask |= x > 5
        count = xp.zeros_like(x, dtype=xp.int64)
        one = count
        count += 1
        count <<= 2
        count >>= 1
        count //= 1
        count %= 3
        return xp.sum(xp.where(same, x, 0.0) * xp.astype(one, x.dtype))

    value, gradient = pb.value_and_grad(program)(x)
    assert close(b, value, b.numpy(program(x)))
    assert np.array_equal(b.numpy(gradient), [2.0, 2.0, 0.0] if hasattr(x, "__iand__") else [0.0] * 3)


def test_masked_assignment() -> None:
    def zero(x: Any) -> Any:
        y = x * 2.0
        y[y < 0] = 0.0
        return y @ y

    def scale(x: Any) -> Any:
        y = x * 2.0
        y[y < 0] *= x[x < 0]
        return total(y)

    assert np.array_equal(pb.grad(zero)(X), [8.0, 0.0, 24.0])
    assert np.array_equal(pb.grad(scale)(X), [2.0, -8.0, 2.0])


def test_writing_into_plain_arrays() -> None:
    """An array of NumPy itself cannot take what is differentiated; the error says what to write."""

    def add(x: Any) -> Any:
        a = np.zeros(3)
        a += x
        return total(a)

    def multiply(x: Any) -> Any:
        return total(np.multiply(x, x, out=np.zeros(3)))

    def put(x: Any) -> Any:
        a = np.zeros(3)
        a[:] = x
        return total(a)

    for wrong in (add, multiply):
        with pytest.raises(TypeError, match=r"Write a = a \+ x in place of a \+= x, or write into constant\(a\)"):
            pb.grad(wrong)(X)
    with pytest.raises(LostGradientError):
        pb.grad(put)(X)

    def add_at(x: Any) -> Any:
        np.add.at(x, [0, 0], 1.0)
        return x @ x

    with pytest.raises(TypeError, match=r"numpy\.add\.at is not followed by gradients"):
        pb.grad(add_at)(X)


# Dtypes that a package adds to NumPy.


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2"])
def test_dtypes_of_other_packages(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    x = np.asarray([0.5, 1.0, -2.0], dtype=dtype)

    def program(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.tanh(x) ** 2 + x * x) + xp.mean(x)

    value, gradient = pb.value_and_grad(program)(x)
    assert value.dtype == gradient.dtype == dtype
    exact = x.astype(np.float64)
    right = 2 * np.tanh(exact) * (1 - np.tanh(exact) ** 2) + 2 * exact + 1 / 3
    eps = epsilon(array_namespace(X), dtype)
    assert np.allclose(gradient.astype(np.float64), right, rtol=8 * eps, atol=8 * eps)
    (product,) = pb.hvp(program, (x,), (x,))
    assert product.dtype == dtype
    z, w = x.reshape(1, 3), np.ones((3, 2), dtype=dtype)
    dw = pb.grad(lambda w: array_namespace(w).sum(pb.affine_forward(pb.constant(z), w)))(w)
    assert dw.dtype == dtype
    assert np.array_equal(dw.astype(np.float64), np.broadcast_to(exact[:, None], (3, 2)))


def test_dtypes_that_are_not_differentiated() -> None:
    for dtype in (object, bool, np.int8, np.longdouble, "datetime64[s]", "U1"):
        with pytest.raises(TypeError, match=r"^grad: an argument to differentiate must have a floating dtype; got"):
            pb.grad(total)(np.zeros(2, dtype=dtype))
