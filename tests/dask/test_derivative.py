"""Derivatives of functions that call `accumulate`: exact, block by block, and each block is read as often as said."""

import tracemalloc
from collections.abc import Callable
from typing import Any, NoReturn

import dask
import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from array_api_compat import array_namespace

from pullback import (
    checkpoint,
    constant,
    custom_vjp,
    grad,
    hessian,
    hvp,
    jacobian_operator,
    jvp,
    stop_gradient,
    value_and_grad,
    vjp,
)
from pullback._core import trees
from pullback.dask import _plan
from tests.harness.batches import Reader, accumulate, compute
from tests.harness.pair_laws import EPS, C

M, K, H = 46, 3, 2
Loss = Callable[..., Any]


@pytest.fixture(autouse=True)
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a block of each chunk, and a strip of each four rows."""
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    monkeypatch.setattr(_plan, "_STRIP_ROWS", (4, 4))


def rows_of(m: int = M) -> Any:
    return np.random.default_rng(8).standard_normal((m, K))


def parameters() -> Any:
    rng = np.random.default_rng(9)
    return {"w": rng.standard_normal((K, H)) / 2, "more": [rng.standard_normal(H), None]}


def lazy(x: Any, chunks: Any = 10) -> Any:
    return da.from_array(x, chunks={0: chunks})


def at_once(step: Any, *batch: Any, shared: Any = (), rows: Any = ()) -> Any:
    """Do what `accumulate` does, on the whole batch."""
    del rows
    return step(*map(constant, (*batch, *shared)))


def assert_close(got: Any, right: Any, size: float = 1.0, eps: float = EPS["float64"]) -> None:
    """Compare trees: each array to C·√M·eps of its largest entry, times the `size` of what cancels in it."""
    assert trees.paths(got) == trees.paths(right)
    for x, y in zip(trees.leaves(got), trees.leaves(right), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_allclose(x, y, rtol=0, atol=C * np.sqrt(M) * eps * size * max(1, np.max(np.abs(y))))


# Losses that couple all rows, written for `accumulate` and for `at_once`.


def hidden(x: Any, p: Any) -> Any:
    xp = array_namespace(x, p["w"])
    return xp.tanh(x @ p["w"] + p["more"][0])


def total(x: Any, **options: Any) -> Any:
    return array_namespace(x).sum(x, **options)


def log_partition(run: Any, x: Any, p: Any) -> Any:
    xp = array_namespace(p["w"])
    mass = run(lambda x, p: total(array_namespace(x).exp(hidden(x, p))), x, shared=(p,))
    return xp.log(mass)


def batch_statistics(run: Any, x: Any, p: Any) -> Any:
    """Normalise each feature by its mean and variance in the batch."""

    def moments(x: Any, p: Any) -> Any:
        a = hidden(x, p)
        return {"sum": total(a, axis=0), "squares": total(a * a, axis=0)}

    def loss(x: Any, p: Any, mean: Any, variance: Any) -> Any:
        a = (hidden(x, p) - mean) / (variance + 0.1) ** 0.5
        return total((a - x[:, :1]) ** 4)

    found = run(moments, x, shared=(p,))
    mean = found["sum"] / M
    return run(loss, x, shared=(p, mean, found["squares"] / M - mean**2)) / M


def contrastive(run: Any, x: Any, p: Any) -> Any:
    """Compare the products of all pairs of features over the batch with the identity."""
    xp = array_namespace(p["w"])
    products = run(lambda x, p: hidden(x, p).T @ hidden(x, p), x, shared=(p,)) / M
    return xp.sum((products - xp.eye(H, dtype=products.dtype)) ** 2)


def centred_rows(run: Any, x: Any, p: Any) -> Any:
    """Centre rows that one call returns, by a mean that another computes of them."""
    a = run(hidden, x, shared=(p,), rows=("result",))
    mean = run(lambda a: total(a, axis=0), a) / M

    def loss(a: Any, x: Any, mean: Any) -> Any:
        return total((a - mean) ** 4 * x[:, :H])

    return run(loss, a, x, shared=(mean,))


LOSSES: dict[str, tuple[Loss, int]] = {
    "log-partition": (log_partition, 2),
    "batch statistics": (batch_statistics, 4),
    "contrastive": (contrastive, 2),
    "centred rows": (centred_rows, 9),  # each pass computes the rows again, and a cotangent of rows is a pass
}
SIZE = 100.0  # what cancels in these derivatives: sums of M fourth powers of numbers of up to 3


@pytest.mark.parametrize("chunks", [10, M, (20, 0, 26)], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name: str, chunks: Any) -> None:
    """Of NumPy's parameters: computed, of their structure, and each block is read twice for each call."""
    loss, reads = LOSSES[name]
    x, p = rows_of(), parameters()
    reader = Reader(x)
    lazies = da.from_array(reader, chunks=(chunks, K))
    got = value_and_grad(lambda p: loss(accumulate, lazies, p))(p)
    assert reader.reads.tolist() == [reads] * M
    right = value_and_grad(lambda p: loss(at_once, x, p))(p)
    assert_close(got, right, SIZE)
    assert all(isinstance(leaf, np.ndarray) for leaf in trees.leaves(got[1]))


@pytest.mark.parametrize("name", LOSSES)
def test_lazy_parameters(name: str) -> None:
    """All is lazy, and nothing computed while it is recorded."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError

    loss, _ = LOSSES[name]
    x, p = rows_of(), parameters()
    with dask.config.set(scheduler=refuse):
        lazies = value_and_grad(lambda p: loss(accumulate, lazy(x), p))(trees.rebuild(p, da.from_array))
    got = trees.fill(lazies, compute(*trees.leaves(lazies)))
    assert_close(got, value_and_grad(lambda p: loss(at_once, x, p))(p), SIZE)


def tangents(p: Any) -> Any:
    return trees.rebuild(p, lambda x: np.cos(np.arange(np.size(x))).reshape(np.shape(x)))


@pytest.mark.parametrize("name", LOSSES)
def test_other_transforms(name: str) -> None:
    loss, _ = LOSSES[name]
    x, p = rows_of(), parameters()
    t = tangents(p)

    def ours(p: Any) -> Any:
        return loss(accumulate, lazy(x), p)

    def right(p: Any) -> Any:
        return loss(at_once, x, p)

    assert_close(jvp(ours, (p,), (t,)), jvp(right, (p,), (t,)), SIZE)
    assert_close(hvp(ours, (p,), (t,)), hvp(right, (p,), (t,)), SIZE)
    third = [grad(lambda p, f=f: sum(map(total, trees.leaves(hvp(f, (p,), (t,))))))(p) for f in (ours, right)]
    assert_close(third[0], third[1], SIZE**2)


def test_passes() -> None:
    """A value is one pass, a gradient two, a product with the Hessian four; a tangent comes with the value."""
    p = parameters()
    for evaluate, passes in (
        (lambda f: stop_gradient(f(p)), 1),
        (lambda f: grad(f)(p), 2),
        (lambda f: jvp(f, (p,), (tangents(p),)), 1),
        (lambda f: jvp(grad(f), (p,), (tangents(p),)), 2),
        (lambda f: hvp(f, (p,), (tangents(p),)), 4),
    ):
        reader = Reader(rows_of())
        lazies = da.from_array(reader, chunks=(10, K))
        found: Any = evaluate(lambda p, x=lazies: log_partition(accumulate, x, p))
        if isinstance(found, da.Array):
            compute(found)
        assert reader.reads.tolist() == [passes] * M


def test_hessian() -> None:
    x, w = rows_of(), np.ones(K) / 4

    def loss(w: Any, run: Any, x: Any) -> Any:
        return array_namespace(w).log(run(lambda x, w: total(array_namespace(w).exp(x @ w)), x, shared=(w,)))

    got = hessian(lambda w: loss(w, accumulate, lazy(x)))(w)
    q = np.exp(x @ w)
    q /= q.sum()
    assert_close(got, (x * q[:, None]).T @ x - np.outer(q @ x, q @ x))


@pytest.mark.parametrize("task_bytes", [1, 2**23], ids=["a chunk a task", "several chunks a task"])
def test_gradient_of_the_batch(monkeypatch: pytest.MonkeyPatch, task_bytes: int) -> None:
    """Lazy, as the batch is; that of NumPy's parameters next to it is not."""
    monkeypatch.setattr(_plan, "TASK_BYTES", task_bytes)
    x, p = rows_of(), parameters()
    for name, (loss, _) in LOSSES.items():
        right = grad(lambda x, p, loss=loss: loss(at_once, x, p), (0, 1))(x, p)
        of_batch, of_parameters = grad(lambda x, p, loss=loss: loss(accumulate, x, p), (0, 1))(lazy(x), p)
        assert isinstance(of_batch, da.Array), name
        assert_close(of_parameters, right[1], SIZE)
        assert_close(compute(of_batch)[0], right[0], SIZE)
    lazies = grad(lambda x: log_partition(accumulate, x, p))(lazy(x))
    assert_close(compute(lazies)[0], grad(lambda x: log_partition(at_once, x, p))(x))


@pytest.mark.parametrize("in_memory", [False, True])
def test_tangent_of_the_batch(*, in_memory: bool) -> None:
    """Tangents of rows have the blocks of the rows, whether they are lazy or not."""
    x, p = rows_of(), parameters()
    t, moved = tangents(x), tangents(p)
    for loss, _ in LOSSES.values():
        right = jvp(lambda x, p, loss=loss: loss(at_once, x, p), (x, p), (t, moved))
        given = t if in_memory else lazy(t)
        got = jvp(lambda x, p, loss=loss: loss(accumulate, x, p), (lazy(x), p), (given, moved))
        assert_close(compute(*map(da.asarray, got)), right, SIZE)


def test_parameters_of_which_one_is_lazy() -> None:
    """Each gradient and each product with the Hessian has the library of its own parameter."""
    x, w = rows_of(), np.ones(K)

    def loss(w: Any, v: Any, run: Any, x: Any) -> Any:
        return run(lambda x, w, v: total((x @ w) ** 2 * (x @ v)), x, shared=(w, v))

    def both(w: Any, v: Any, *others: Any) -> Any:
        first = grad(lambda w, v: loss(w, v, *others), (0, 1))(w, v)
        return first, hvp(lambda w, v: loss(w, v, *others), (w, v), (w, v))

    for got, right in zip(both(w, da.from_array(2 * w), accumulate, lazy(x)), both(w, 2 * w, at_once, x), strict=True):
        assert isinstance(got[0], np.ndarray)
        assert isinstance(got[1], da.Array)
        assert_close((got[0], *compute(got[1])), right, SIZE)


def test_operations_on_rows() -> None:
    """Rows of NumPy's parameters are lazy: what is done with them is recorded by Dask."""
    x, p = rows_of(), parameters()

    def loss(run: Any, x: Any, p: Any) -> Any:
        a = run(hidden, x, shared=(p,), rows=(0,))
        xp = array_namespace(a)
        a = xp.where(a > 0, a, xp.exp(a)) ** 2
        a = xp.concat([a, xp.permute_dims(xp.stack([a[:, 0], a[:, 1]]), (1, 0))], axis=1)
        return run(lambda a, w: total(a * a) * total(w * w), a, shared=(p["w"],))

    for f in (grad, lambda f: lambda p: hvp(f, (p,), (tangents(p),)), lambda f: lambda p: jvp(f, (p,), (tangents(p),))):
        got = f(lambda p: loss(accumulate, lazy(x), p))(p)
        assert_close(got, f(lambda p: loss(at_once, x, p))(p), SIZE)


def test_unknown_rows() -> None:
    x, p = rows_of(), parameters()
    keep = x[:, 0] > 0
    lazies = lazy(x)
    lazies = lazies[lazies[:, 0] > 0]
    for loss, _ in LOSSES.values():
        got = grad(lambda p, loss=loss: loss(accumulate, lazies, p))(p)
        assert_close(got, grad(lambda p, loss=loss: loss(at_once, x[keep], p))(p), SIZE)
    of_batch = grad(lambda x: log_partition(accumulate, x, p))(lazies)
    assert_close(compute(of_batch)[0], grad(lambda x: log_partition(at_once, x, p))(x[keep]))


def test_arguments_that_are_constant() -> None:
    """A batch and parameters that are arguments, but not differentiated, are constants, and stop_gradient holds."""
    x, p = rows_of(), parameters()

    def loss(w: Any, x: Any, p: Any, run: Any) -> Any:
        p = {**p, "w": w}
        size = run(lambda x, p: total(hidden(x, p) ** 2), x, shared=({**p, "w": stop_gradient(w)},))
        return log_partition(run, x, p) * size

    got = value_and_grad(loss)(p["w"], lazy(x), p, accumulate)
    assert_close(got, value_and_grad(loss)(p["w"], x, p, at_once), SIZE)


def test_sum_without_parameters_is_lazy() -> None:
    """It is a constant, which `compute` takes, and `accumulate` in its turn."""
    x = rows_of()

    def loss(w: Any, x: Any) -> Any:
        mean = accumulate(lambda x: total(x, axis=0), x) / M
        computed = compute(mean)[0]
        return accumulate(lambda x, w, mean: total(((x - mean) @ w) ** 2), x, shared=(w, mean)) + computed @ w

    w = np.ones(K)
    centred = x - x.mean(axis=0)
    assert_close(grad(loss)(w, lazy(x)), 2 * centred.T @ (centred @ w) + x.mean(axis=0))


def test_constant_of_an_outer_function() -> None:
    """An inner function that holds a parameter of an outer one constant does not lose its gradient."""
    x, w = rows_of(), np.ones(K)
    double = custom_vjp(lambda v: v * 2, lambda g: g * 2, needs=())

    def outer(w: Any, run: Any, x: Any, twice: Any) -> Any:
        def inner(v: Any, w: Any) -> Any:
            return run(lambda x, w: total((x @ w) ** 3), x, shared=(w,)) * total(twice(w) * v * v)

        return total(grad(inner)(w * 0 + 1, w))

    got = grad(outer)(w, accumulate, lazy(x), double)
    assert_close(got, grad(outer)(w, at_once, x, lambda v: v * 2), SIZE)


def test_checkpoint() -> None:
    x, p = rows_of(), parameters()

    @checkpoint
    def loss(p: Any) -> Any:
        return log_partition(accumulate, lazy(x), p) ** 2

    def right(p: Any) -> Any:
        return log_partition(at_once, x, p) ** 2

    assert_close(grad(loss)(p), grad(right)(p))
    assert_close(jvp(loss, (p,), (tangents(p),)), jvp(right, (p,), (tangents(p),)))


def test_steps_that_are_gradients() -> None:
    """A step of value_and_grad is differentiated in turn: the squared norm of a gradient."""
    x, p = rows_of(), parameters()

    def loss(p: Any, run: Any, x: Any) -> Any:
        step = value_and_grad(lambda x, p: total(hidden(x, p) ** 3), argnums=1)
        value, gradient = run(step, x, shared=(p,))
        return value + sum(total(g * g) for g in trees.leaves(gradient))

    assert_close(grad(loss)(p, accumulate, lazy(x)), grad(loss)(p, at_once, x), SIZE)


def test_results_without_a_derivative() -> None:
    """Counts are constants, and a result that is not used costs nothing."""
    x, w = rows_of(), np.ones(K)

    def step(x: Any, w: Any) -> Any:
        xp = array_namespace(x, w)
        return {"count": total(xp.astype(x @ w > 0, xp.int64)), "sum": total((x @ w) ** 2), "unused": total(x @ w)}

    def loss(w: Any) -> Any:
        found = accumulate(step, lazy(x), shared=(w,))
        return found["sum"] / array_namespace(w).astype(found["count"], w.dtype)

    assert_close(grad(loss)(w), 2 * x.T @ (x @ w) / np.sum(x @ w > 0))
    assert_close(
        grad(lambda w: accumulate(step, lazy(x), shared=(w,))["count"] * w[0])(w), np.eye(K)[0] * np.sum(x @ w > 0)
    )
    assert accumulate(lambda *_: (), lazy(x), shared=(w,)) == ()
    assert_close(grad(lambda w: w[0] + len(accumulate(lambda *_: (), lazy(x), shared=(w,))))(w), np.eye(K)[0])


def test_vjp_with_rows() -> None:
    """A function may return rows: their cotangent is a Dask array."""
    x, p = rows_of(), parameters()
    g = np.random.default_rng(1).standard_normal((M, H))
    out, pull = vjp(lambda p: accumulate(hidden, lazy(x), shared=(p,), rows=(0,)), p)
    right, pull_right = vjp(lambda p: hidden(constant(x), p), p)
    assert isinstance(out, da.Array)
    assert_close(compute(out)[0], right)
    for chunks in (10, 7, M):
        assert_close(pull(lazy(g, chunks)), pull_right(g))
    assert_close(pull(g), pull_right(g))


def test_jacobian_operator_of_rows() -> None:
    """A Gauss-Newton product, whose vectors of rows may be lazy or in memory."""
    x, w = rows_of(), parameters()["w"]
    step: Any = lambda x, w: array_namespace(x, w).tanh(x @ w)  # noqa: E731
    operator = jacobian_operator(lambda w: accumulate(step, lazy(x), shared=(w,), rows=(0,)), w)
    right = jacobian_operator(lambda w: step(constant(x), w), w)
    v = np.cos(np.arange(w.size))
    pushed = operator.matvec(v)
    assert isinstance(pushed, da.Array)
    assert_close(compute(pushed)[0], right.matvec(v))
    assert_close(operator.rmatvec(compute(pushed)[0]), right.rmatvec(right.matvec(v)))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_computing_in_the_same_thread(scheduler: str) -> None:
    """A step is run while the tape is open, on this thread or another."""
    x, p = rows_of(), parameters()
    step = value_and_grad(lambda x, w: total((x @ w) ** 2), argnums=1)
    with dask.config.set(scheduler=scheduler):

        def loss(p: Any) -> Any:
            value, gradient = compute(*accumulate(step, lazy(x), shared=(np.ones(K),)))
            return total(p["w"][:, 0] * gradient) * value + batch_statistics(accumulate, lazy(x), p)

        got = grad(loss)(p)
    value, gradient = step(x, np.ones(K))
    right = grad(lambda p: total(p["w"][:, 0] * gradient) * value + batch_statistics(at_once, x, p))(p)
    assert_close(got, right, SIZE)


@pytest.mark.parametrize("inner", [False, True])
def test_rejects_arrays_that_step_holds(*, inner: bool) -> None:
    def loss(w: Any) -> Any:
        def step(x: Any) -> Any:
            return grad(lambda v: total(x @ (v * w)))(np.ones(K)) if inner else total(x @ w)

        return total(accumulate(step, lazy(rows_of())))

    message = r"an array that is differentiated reached result from outside of step. Give it to step in shared$"
    with pytest.raises(TypeError, match=message):
        grad(loss)(np.ones(K))


def test_rejects_arrays_of_two_tapes() -> None:
    """An array of a function that has returned cannot be recorded with those of another."""
    kept: list[Any] = []

    def keep(w: Any) -> Any:
        kept.append(w)
        return total(w)

    grad(keep)(np.ones(K))

    def loss(w: Any) -> Any:
        return accumulate(lambda x, v, w: total(x @ v * (x @ w)), lazy(rows_of()), shared=(*kept, w))

    with pytest.raises(TypeError, match=r"an array of one differentiated function was used in another one"):
        grad(loss)(np.ones(K))


def test_same_bits() -> None:
    x, p = rows_of(), parameters()
    found = []
    for options in ({"scheduler": "synchronous"}, {"num_workers": 1}, {"num_workers": 8}):
        with dask.config.set(options):
            got = value_and_grad(lambda p: batch_statistics(accumulate, lazy(x), p))(p)
            found.append([leaf.tobytes() for leaf in trees.leaves(got)])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("count", [20, 80])
def test_memory(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The peak is that of a few blocks, however many there are."""
    monkeypatch.setattr(_plan, "_STRIP_ROWS", (1024, 16_384))
    rows, k = 4096, 64
    x = da.ones((rows * count, k), chunks=(rows, k))

    def loss(w: Any) -> Any:
        mean = accumulate(lambda x, w: total(x @ w, axis=0), x, shared=(w,)) / (rows * count)
        return accumulate(lambda x, w, mean: total((x @ w - mean) ** 2), x, shared=(w, mean))

    w = np.ones((k, 4))
    with dask.config.set(num_workers=2):
        grad(loss)(w)
        tracemalloc.start()
        try:
            grad(loss)(w)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak <= 8 * rows * k * 8


def test_narrow_and_complex_parameters() -> None:
    x = rows_of()
    w = np.ones(K, "float16")

    def loss(w: Any) -> Any:
        return array_namespace(w).log(accumulate(lambda x, w: total((x @ w) ** 2), lazy(x.astype("f2")), shared=(w,)))

    value, gradient = value_and_grad(loss)(w)
    assert value.dtype == gradient.dtype == "float16"
    wide = x.astype("f2").astype("f8")
    right = 2 * wide.T @ (wide @ np.ones(K)) / np.sum((wide @ np.ones(K)) ** 2)
    assert np.all(np.abs(gradient - right) <= 4 * EPS["float16"] * np.max(np.abs(right)))
    z = np.arange(K) + 1j
    got = grad(lambda z: accumulate(lambda x, z: total(abs(x @ z) ** 2), lazy(x), shared=(z,)) ** 2)(z)
    assert_close(got, 4 * np.sum(abs(x @ z) ** 2) * (x.T @ (x @ z)), SIZE)


def blocks(x: Any, convert: Any) -> Any:
    return lazy(x).map_blocks(convert, meta=convert(np.empty((0, 0))))


LIBRARIES: dict[str, Any] = {"torch": torch.asarray, "jax": lambda x: jnp.asarray(x, dtype="float32")}


@pytest.mark.parametrize("library", LIBRARIES)
def test_other_libraries(library: str) -> None:
    convert = LIBRARIES[library]
    x, p = rows_of(), parameters()
    got = value_and_grad(lambda p: batch_statistics(accumulate, blocks(x, convert), p))(trees.rebuild(p, convert))
    assert all(isinstance(leaf, type(convert(x))) for leaf in trees.leaves(got))
    right = trees.rebuild(value_and_grad(lambda p: batch_statistics(at_once, x, p))(p), convert)
    eps = EPS["float32" if library == "jax" else "float64"]
    assert_close(trees.rebuild(got, np.asarray), trees.rebuild(right, np.asarray), SIZE, eps)


def test_second_order_of_another_library() -> None:
    x, w = rows_of(), np.ones(K)

    def loss(run: Any, x: Any, w: Any) -> Any:
        return run(lambda x, w: total((x @ w) ** 4), x, shared=(w,)) ** 2

    w_torch = torch.asarray(w)
    (got,) = hvp(lambda w: loss(accumulate, blocks(x, torch.asarray), w), (w_torch,), (w_torch,))
    assert_close((got.numpy(),), hvp(lambda w: loss(at_once, x, w), (w,), (w,)), SIZE)


def test_parameters_of_another_library() -> None:
    with pytest.raises(
        ValueError, match=r"step must take zero rows, .* raised TypeError: .*torch and .*numpy do not mix"
    ):
        grad(lambda w: accumulate(lambda x, w: total(constant(x) @ w), lazy(rows_of()), shared=(w,)))(torch.ones(K))


def test_jit() -> None:
    """Tracers of JAX cannot be computed with: an error, and no wrong result."""
    x = blocks(rows_of(), LIBRARIES["jax"])
    with pytest.raises((jax.errors.JAXTypeError, ValueError, TypeError)):
        jax.jit(grad(lambda w: accumulate(lambda x, w: total(x @ w), x, shared=(w,)) ** 2))(jnp.ones(K))
