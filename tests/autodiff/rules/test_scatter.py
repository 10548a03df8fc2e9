"""Sums of the entries that share an index: right on each library, accurate, and traceable."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

from pullback._autodiff import grad, hvp, vjp
from pullback._autodiff.rules.scatter import add_at
from tests.harness.backend import Backend


@pytest.mark.parametrize("rows", [0, 1, 2, 30])
@pytest.mark.parametrize("places", [1, 3, 50])
def test_add_at(backend_one_chunking: Backend, rows: int, places: int) -> None:
    b, rng = backend_one_chunking, np.random.default_rng(rows)
    for axis, shape in ((0, (rows,)), (0, (rows, 2)), (1, (2, rows, 3))):
        g, indices = rng.standard_normal(shape), rng.integers(0, places, rows)
        right = np.zeros((*shape[:axis], places, *shape[axis + 1 :]))
        np.add.at(np.moveaxis(right, axis, 0), indices, np.moveaxis(g, axis, 0))
        found = b.call(add_at, b.xp, b.asarray(g), b.asarray(indices), axis, places)
        assert np.allclose(b.numpy(found), right, rtol=0, atol=1e-13)


@pytest.mark.backends("numpy", "strict")
def test_accuracy(backend_one_device: Backend) -> None:
    """Entries are added in pairs: float32 keeps its digits over 100,000 of them."""
    b, rng = backend_one_device, np.random.default_rng(0)
    g, indices = rng.uniform(0, 1, 100_000).astype(np.float32), rng.integers(0, 3, 100_000)
    right = np.zeros(3)
    np.add.at(right, indices, g)
    found = b.numpy(b.call(add_at, b.xp, b.asarray(g, "float32"), b.asarray(indices), 0, 3))
    assert np.all(np.abs(found - right) <= 4 * np.finfo(np.float32).eps * right)


def test_values_that_are_not_finite(backend_one_chunking: Backend) -> None:
    """NaN and infinity reach their own place alone."""
    b = backend_one_chunking
    g, indices = b.asarray(np.asarray([1.0, np.nan, 2.0, np.inf])), b.asarray(np.asarray([0, 2, 0, 3]))
    found = b.numpy(b.call(add_at, b.xp, g, indices, 0, 5))
    assert np.array_equal(found, [3, 0, np.nan, np.inf, 0], equal_nan=True)


@pytest.mark.backends("numpy", "strict", "dask", "jax")  # PyTorch's own take has no others than int32 and int64
@pytest.mark.parametrize("integers", ["int8", "uint8", "int32", "int64"])
def test_dtypes_of_indices(backend_one_chunking: Backend, integers: str) -> None:
    """Indices of narrow dtypes count from the end of a long axis, too."""
    b = backend_one_chunking
    values = [0, 3, 3] if integers == "uint8" else [0, -1, -1]
    x, indices = b.asarray(np.arange(300.0)), b.asarray(np.asarray(values), integers)

    def total(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.take(x, xp.asarray(indices), axis=0))

    right = np.bincount(np.asarray(values) % 300, minlength=300)
    assert np.array_equal(b.numpy(b.call(grad(total), x)), right)


INDICES = np.asarray([2, 0, 2, 1])
TRACED: dict[str, Callable[..., Any]] = {
    "x[i]": lambda xp, x: x[xp.asarray(INDICES)],
    "x[i, j]": lambda xp, x: x[xp.asarray(INDICES), xp.asarray(INDICES)],
    "take": lambda xp, x: xp.take(x, xp.asarray(INDICES), axis=1),
    "take_along_axis": lambda xp, x: xp.take_along_axis(x, xp.asarray([[2, 2, 0]]), axis=0),
    "where": lambda xp, x: xp.where(x > 0, xp.log(xp.abs(x)), 0.0),
    "max": lambda xp, x: xp.max(x, axis=0),
    "sort": lambda xp, x: xp.sort(x, axis=0),
    "cumulative_prod": lambda xp, x: xp.cumulative_prod(x, axis=1),
    "prod": lambda xp, x: xp.prod(x),
    "std": lambda xp, x: xp.std(x, axis=1),
    "x[1:, ::-1]": lambda _, x: x[1:, ::-1],
}


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", TRACED)
def test_jit(backend: Backend, name: str) -> None:
    """Gradients compile: no rule asks for a value."""
    call = TRACED[name]
    x = np.random.default_rng(3).standard_normal((3, 3))

    def total(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.square(call(xp, x)))

    found = backend.numpy(backend.call(grad(total), backend.asarray(x)))
    right = grad(total)(x)
    assert np.max(np.abs(found - right)) <= 64 * np.finfo(found.dtype).eps * (1 + np.max(np.abs(right)))


UNKNOWN: dict[str, Callable[..., Any]] = {
    "mean": lambda xp, x: xp.mean(x, axis=0),
    "mean of all": lambda xp, x: xp.mean(x),
    "var": lambda xp, x: xp.var(x, axis=0, correction=1),
    "std": lambda xp, x: xp.std(x, axis=0),
    "sum": lambda xp, x: xp.sum(x, axis=-1),
    "x[:, 1]": lambda _, x: x[:, 1],
    "x[..., ::-2]": lambda _, x: x[..., ::-2],
    "x[:, :0]": lambda xp, x: xp.sum(x[:, :0], axis=1) + x[:, 0],
    "x[None, ...]": lambda _, x: x[None, ..., 0],
    "x[:, None, :]": lambda _, x: x[:, None, :] * x[:, :, None],
    "where": lambda xp, x: xp.where(x > 0, x, x[:, :1]),
    "matrix_transpose": lambda xp, x: xp.matrix_transpose(x),
    "flip": lambda xp, x: xp.flip(x, axis=1),
    "cumulative_sum": lambda xp, x: xp.cumulative_sum(x, axis=1),
}


@pytest.mark.backends("numpy", "dask")
def test_unknown_rows(backend_one_device: Backend) -> None:
    """Rows of unknown number have gradients, and nothing is computed. A sample of the calls would miss the mode."""
    b = backend_one_device
    x = np.random.default_rng(3).standard_normal((5, 3))
    for name, call in UNKNOWN.items():

        def total(x: Any, call: Callable[..., Any] = call) -> Any:
            xp = array_namespace(x)
            return xp.sum(xp.square(call(xp, x)))

        def product(x: Any, total: Callable[..., Any] = total) -> Any:
            return hvp(total, (x,), (x,))[0]

        found = b.numpy(b.call(grad(total), b.rows(x)))
        right = grad(total)(x)
        assert np.max(np.abs(found - right)) <= 64 * np.finfo(found.dtype).eps * (1 + np.max(np.abs(right))), name
        assert np.allclose(b.numpy(b.call(product, b.rows(x))), product(x), rtol=0, atol=1e-12), name


@pytest.mark.backends("dask")
def test_unknown_selections(backend_one_device: Backend) -> None:
    """A selection by a lazy mask has a gradient, which is 0 for the entries not selected."""
    b = backend_one_device

    def total(x: Any) -> Any:
        return array_namespace(x).sum(x[x > 1])

    assert np.array_equal(b.numpy(b.call(grad(total), b.asarray(np.arange(6.0)))), [0, 0, 1, 1, 1, 1])


@pytest.mark.backends("dask")
def test_lists_stay_lazy(backend_one_device: Backend) -> None:
    b = backend_one_device

    def total(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.asarray([[x[0], 2.0], [3.0, x[1] * x[1]]]))

    assert np.array_equal(b.numpy(b.call(grad(total), b.asarray(np.asarray([2.0, 3.0])))), [1, 6])


@pytest.mark.backends("numpy")
def test_last_of_equal_indices() -> None:
    """Of values that are written to one place, the last one stays, and gets the cotangent."""

    def written(v: Any) -> Any:
        xp = array_namespace(v)
        y = xp.zeros((3, 2))
        y[[0, 2, 0], 1] = v
        return y

    _, pull = vjp(written, np.asarray([1.0, 2.0, 3.0]))
    assert np.array_equal(pull(np.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))[0], [0, 6, 2])
