"""Ways out of the traced world, on each library: a gradient is right, or an error says that it would be lost."""

import copy
import io
import json
import math
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace
from scipy.sparse import csr_array

import pullback as pb
from tests.harness.autodiff import vmap
from tests.harness.backend import Backend

X = np.asarray([0.5, 1.0, 2.0])


def total(x: Any) -> Any:
    return array_namespace(x).sum(x)


def _then(way: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that takes a way out and goes on without what it found."""

    def function(x: Any) -> Any:
        way(x)
        return total(x * x)

    return function


# Those that end in a number or an object of another kind, on every library.
NEVER: dict[str, Callable[[Any], Any]] = {
    "asarray": np.asarray,
    "array": np.array,
    "asarray of a list": lambda x: np.asarray([x[0], x[1]]),
    "from_dlpack": np.from_dlpack,
    "dlpack": lambda x: x.__dlpack__(),
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "json": json.dumps,
    "hash": hash,
    "set": lambda x: {x},
    "complex": lambda x: complex(x[0]),
    "bytes": bytes,
    "memoryview": memoryview,
    "format": lambda x: f"{x[0]:.3f}",
    "round": lambda x: round(x[0]),
    "divmod": lambda x: divmod(x, 2.0),
    "save": lambda x: np.save(io.BytesIO(), x),
    "random": lambda x: np.random.default_rng(0).normal(x),
    "numpy.random scale": lambda x: np.random.default_rng(0).uniform(0, x[0]),
    "lexsort": lambda x: np.lexsort((x,)),
    "einsum": lambda x: np.einsum("i,i", x, x),
    "into an array": lambda x: np.zeros(3).__setitem__(slice(None), x),
    "into an entry": lambda x: np.zeros(3).__setitem__(0, x[0]),
    "add.at": lambda x: np.add.at(np.zeros(3), [0, 1, 2], x),
    "out": lambda x: np.multiply(x, 2.0, out=np.zeros(3)),
    "copyto": lambda x: np.copyto(np.zeros(3), x),
    "math": lambda x: math.sin(x[0]),
    "float": lambda x: float(x[0]),
    "fsum": lambda x: math.fsum([x[0], x[1]]),
    "statistics": lambda x: math.hypot(x[0], x[1]),
    "integer": lambda x: [1, 2, 3][x[0]],
    "range": lambda x: range(x[0]),
}


@pytest.mark.parametrize("way", NEVER)
def test_ways_out_that_raise(backend_one_chunking: Backend, way: str) -> None:
    b = backend_one_chunking
    with pytest.raises((TypeError, AttributeError, ValueError, IndexError)):
        b.call(pb.grad(_then(NEVER[way])), b.asarray(X))


# Those that stay within, or make what has no gradient, as a mask has none.
ALWAYS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "repr": (_then(repr), 2 * X),
    "str": (_then(str), 2 * X),
    "list": (lambda x: total(list(x)[1] * x), [1.0, 4.5, 1.0]),
    "sum": (lambda x: sum(x[i] * x[i] for i in range(3)), 2 * X),
    "a mask": (lambda x: total(array_namespace(x).where(x > 0.7, x, 0.0)), [0, 1, 1]),
    "argmax": (lambda x: total(x * array_namespace(x).astype(array_namespace(x).argmax(x), x.dtype)), [2, 2, 2]),
    "stop_gradient": (lambda x: total(pb.stop_gradient(x) * x), X),
    "unpacking": (lambda x: math.prod([*x]), [2.0, 1.0, 0.5]),
    "isinstance": (_then(lambda x: isinstance(x, float | np.ndarray)), 2 * X),
}


@pytest.mark.parametrize("way", ALWAYS)
def test_ways_that_keep_the_gradient(backend_one_chunking: Backend, way: str) -> None:
    b = backend_one_chunking
    function, expected = ALWAYS[way]
    assert np.array_equal(b.numpy(b.call(pb.grad(function), b.asarray(X))), np.asarray(expected, dtype=float))


@pytest.mark.parametrize("way", ["bool", "int", "index", "max", "sorted", "in"])
def test_decisions(backend_one_chunking: Backend, way: str) -> None:
    """A decision on a value has no gradient; on a lazy array, it is an error."""
    b = backend_one_chunking
    ways: dict[str, Callable[[Any], Any]] = {
        "bool": lambda x: x @ x if x[0] > 0 else x,
        "int": lambda x: (x @ x) * (int(x[2]) - 1),
        "index": lambda x: (x @ x) * [0, 0, 1][operator.index(array_namespace(x).argmax(x))],
        "max": lambda x: max(x) * 2 + 0 * total(x),
        "sorted": lambda x: sorted(x)[2] * 2 + 0 * total(x),
        "in": lambda x: x @ x if 2.0 in x else x,
    }
    if b.lazy:
        with pytest.raises(TypeError, match="of a lazy array would compute it"):
            b.call(pb.grad(ways[way]), b.asarray(X))
    else:
        expected = [0, 0, 2] if way in {"max", "sorted"} else 2 * X
        assert np.array_equal(b.numpy(b.call(pb.grad(ways[way]), b.asarray(X))), np.asarray(expected, dtype=float))


def in_place(y: Any, x: Any) -> Any:
    y += x
    return y


# Functions of the plain library. None may return a gradient of zero for what depends on the array.
PLAIN: dict[str, Callable[[Any, Any, Any], Any]] = {
    "exp": lambda xp, x, _: xp.exp(x),
    "sum": lambda xp, x, _: xp.sum(x),
    "multiply": lambda xp, x, y: xp.multiply(y, x),
    "where": lambda xp, x, y: xp.where(y > 0, x, y),
    "where of a mask": lambda xp, x, y: x * xp.where(x > 0, y, y),
    "stack": lambda xp, x, y: xp.stack([x, y]),
    "asarray": lambda xp, x, _: xp.asarray(x),
    "asarray of a list": lambda xp, x, _: xp.asarray([x[0], x[1]]),
    "full_like": lambda xp, x, y: xp.full_like(y, x[0]),
    "astype": lambda xp, x, _: xp.astype(x, xp.float32),
    "reshape": lambda xp, x, _: xp.reshape(x, (3, 1)),
    "take": lambda xp, x, y: xp.take(x, xp.asarray([0, 1, 2])) * y,
    "matmul": lambda xp, x, y: xp.matmul(y, x),
    "left operand": lambda _, x, y: y * x,
    "left matrix": lambda _, x, y: y @ x,
    "left power": lambda _, x, y: y**x,
    "linalg": lambda xp, x, _: xp.linalg.vector_norm(x),
    "from_dlpack": lambda xp, x, _: xp.from_dlpack(x),
    "in place": lambda _, x, y: in_place(y, x),
    "index": lambda _, x, y: y[x > 0] * total(x),
}


@pytest.mark.parametrize("way", PLAIN)
def test_functions_of_the_plain_library(backend_one_chunking: Backend, way: str) -> None:
    b, call = backend_one_chunking, PLAIN[way]

    def right(x: Any) -> Any:
        return total(call(array_namespace(x), x, pb.constant(X + 1)))

    def plain(x: Any) -> Any:
        return total(call(b.xp, x, b.asarray(X + 1)))

    found: Any
    try:
        found = b.numpy(pb.grad(plain)(b.asarray(X)))
    except (TypeError, AttributeError, ValueError, RuntimeError, IndexError, FutureWarning):
        found = None
    assert found is None or np.allclose(found, pb.grad(right)(X))


@pytest.mark.backends("torch")
def test_writing_into_tensors(backend_one_device: Backend) -> None:
    """PyTorch would go on with ``a = a + x``, of which a view of `a` knows nothing."""
    x, zeros = backend_one_device.asarray(X), backend_one_device.asarray(np.zeros(3))

    def add(x: Any) -> Any:
        part = zeros[:2]
        part += x[:2]
        return zeros @ x

    def put(x: Any) -> Any:
        zeros[0] = x[0]
        return zeros @ x

    for wrong in (add, put, zeros.add_):
        with pytest.raises(RuntimeError, match=r"Write a = a \+ x in place of a \+= x, or write into constant\(a\)"):
            pb.grad(wrong)(x)

    def lifted(x: Any) -> Any:
        a = pb.constant(zeros)
        part = a[:2]
        part += x[:2]
        return a @ x

    assert np.array_equal(backend_one_device.numpy(pb.grad(lifted)(x)), 2 * X * [1, 1, 0])


@pytest.mark.backends("jax", "torch")
def test_gradients_that_are_mapped(backend_one_device: Backend) -> None:
    """The library's vmap maps over pulls that fill an array with zeros, too."""
    b = backend_one_device
    rows = np.stack([X, 2 * X])

    def loss(x: Any) -> Any:
        return x[0] * x[1] + total(x[1:] ** 2)

    found = vmap(b, pb.grad(loss), (0,))(b.asarray(rows))
    assert np.allclose(b.numpy(found), np.stack([pb.grad(loss)(row) for row in rows]))


@pytest.mark.backends("jax", "torch")
def test_gradients_of_gathers_along_an_axis_are_mapped(backend_one_device: Backend) -> None:
    """PyTorch's vmap has no rule for moveaxis: sums at indices swap axes."""
    b = backend_one_device
    batch, places = np.random.default_rng(3).standard_normal((2, 3, 4)), b.asarray(np.asarray([2, 0, 2]))

    def gathered(x: Any) -> Any:
        return total(array_namespace(x).take(x, pb.constant(places), axis=1) ** 2)

    found = vmap(b, pb.grad(gathered), (0,))(b.asarray(batch))
    assert np.allclose(b.numpy(found), 2 * batch * np.asarray([1, 0, 2, 0]))


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "x @ c": operator.matmul,
    "c @ x": lambda x, c: c @ x,
    "x * c": operator.mul,
    "c * x": lambda x, c: c * x,
    "x - c": operator.sub,
    "maximum": lambda x, c: array_namespace(x).maximum(x, c),
    "constant": lambda x, c: x * pb.constant(c),
}
EVERY, LEFT = tuple(OPERATORS), ("x @ c", "x * c", "x - c")
# What is no array of numbers, where it may stand, and the error. Sparse and masked arrays on the left take over.
OPERANDS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...], str]] = {
    "matrix": (np.matrix, EVERY, r"got matrix\. Convert it first, with numpy\.asarray\(x\)"),
    "list": (
        np.ndarray.tolist,
        tuple(name for name in EVERY if name != "maximum"),
        r"got list\. Convert it first, for example with numpy\.asarray\(x\)",
    ),
    "tuple": (lambda c: tuple(c.tolist()), LEFT, r"got tuple\. Convert it first, .* numpy\.asarray\(x\)"),
    "sparse": (csr_array, LEFT, r"got csr_array\. Convert it first, with x\.toarray\(\)"),
    "objects": (lambda c: c.astype(object), EVERY, r"must hold numbers; got an array of objects\. .*astype"),
    "masked": (np.ma.masked_array, (*LEFT, "maximum", "constant"), r"must not be masked; got MaskedArray"),
}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, (_, names, _) in OPERANDS.items() for name in names])
def test_operand_that_is_no_array_of_numbers(kind: str, name: str) -> None:
    convert, _, error = OPERANDS[kind]
    operand = convert(np.ones((2, 2)))
    with pytest.raises(TypeError, match=error):
        pb.grad(lambda x: total(OPERATORS[name](x, operand)))(np.ones((2, 2)))


def test_matrix_converts_where_the_error_says() -> None:
    c = np.ones((2, 2)).view(np.matrix)
    assert np.array_equal(pb.grad(lambda x: total(x @ np.asarray(c)))(np.ones((2, 2))), np.full((2, 2), 2.0))
    assert np.array_equal(pb.grad(lambda x: total(x * array_namespace(x).asarray(c)))(np.ones((2, 2))), np.ones((2, 2)))
