"""The traced array and its namespace: no gradient is silently lost, nothing is computed, no caller's array written."""

import copy
import operator
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import array_api_compat
import array_api_strict
import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback as pb
from pullback._autodiff.tape import LostGradientError
from tests.autodiff.test_transforms import close
from tests.harness.backend import Backend


def record(function: Callable[[Any], Any], x: Any) -> Any:
    """Differentiate a function whose result does not matter, and return what it returned."""
    return pb.grad(lambda x: (x @ x, function(x)), has_aux=True)(x)[1]


@pytest.fixture
def x(backend_one_device: Backend) -> Any:
    return backend_one_device.asarray(np.asarray([1.0, -2.0, 3.0]))


def test_namespace_is_not_the_librarys(x: Any) -> None:
    library = array_namespace(x)

    def look(x: Any) -> None:
        xp = array_namespace(x)
        assert xp is array_namespace(x, x * 2)
        assert xp is not library
        assert xp != library
        assert xp.__name__ != library.__name__
        assert not array_api_compat.is_numpy_namespace(xp)
        assert not hasattr(xp, "convolve")
        assert "pullback.constant(x)" in repr(xp)
        with pytest.raises(AttributeError, match="functions of the array API standard"):
            _ = xp.convolve
        assert xp.isdtype(x.dtype, "real floating")
        assert xp.result_type(x, x.dtype) == x.dtype
        assert xp.finfo(x.dtype).bits in {32, 64}
        assert xp.pi == library.pi

    record(look, x)


def test_attributes(x: Any) -> None:
    def look(y: Any) -> None:
        assert (y.dtype, y.ndim, tuple(y.shape)) == (x.dtype, x.ndim, tuple(x.shape))
        assert y.size in {3, None}
        assert array_api_compat.device(y) == array_api_compat.device(x)
        assert repr(y).startswith("Traced(active, level 1, ")
        assert repr(pb.stop_gradient(y)).startswith("Traced(constant, level 1, ")
        assert hasattr(y, "chunks") == hasattr(x, "chunks")

    record(look, x)


BINARY: tuple[Callable[..., Any], ...] = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul),
    *(operator.lt, operator.le, operator.eq, operator.ne, operator.ge, operator.gt),
)


@pytest.mark.parametrize("op", BINARY)
def test_operators_are_those_of_the_library(backend_one_device: Backend, x: Any, op: Callable[..., Any]) -> None:
    exact, other = backend_one_device.numpy(x), np.asarray([0.5, 2.0, -1.0])
    y = backend_one_device.asarray(other)

    def check(function: Callable[[Any], Any], expected: Any) -> None:
        got = backend_one_device.numpy(record(function, x))
        assert (got.dtype == bool) == (expected.dtype == bool)
        assert close(backend_one_device, got * 1.0, expected * 1.0)

    check(lambda x: op(x, pb.constant(y)), op(exact, other))
    check(lambda x: op(pb.constant(y), x), op(other, exact))
    if op is not operator.matmul:
        check(lambda x: op(x, 2.0), op(exact, 2.0))
        check(lambda x: op(2.0, x), op(2.0, exact))


@pytest.mark.parametrize("op", [operator.neg, operator.pos, operator.abs])
def test_unary_operators(backend_one_device: Backend, x: Any, op: Callable[[Any], Any]) -> None:
    assert close(backend_one_device, record(op, x), op(backend_one_device.numpy(x)))


def test_masks_and_integers(backend_one_device: Backend, x: Any) -> None:
    def masks(x: Any) -> tuple[Any, ...]:
        positive, small = x > 0, x < 2
        return positive & small, positive | small, positive ^ small, ~positive

    exact = backend_one_device.numpy(x)
    p, s = exact > 0, exact < 2
    for got, expected in zip(record(masks, x), (p & s, p | s, p ^ s, ~p), strict=True):
        assert np.array_equal(backend_one_device.numpy(got), expected)


def test_plain_arrays_beside_traced_ones(backend_one_device: Backend, x: Any) -> None:
    y = backend_one_device.asarray(np.asarray([0.5, 2.0, -1.0]))
    got = pb.grad(lambda x: (x * y) @ x)(x)
    expected = 2 * backend_one_device.numpy(x) * backend_one_device.numpy(y)
    assert close(backend_one_device, got, expected)
    if backend_one_device.library == "strict":
        with pytest.raises(TypeError):
            pb.grad(lambda x: (y * x) @ x)(x)
    else:
        assert close(backend_one_device, pb.grad(lambda x: (y * x) @ x)(x), expected)


LEAVES: dict[str, Callable[[Any], Any]] = {
    "numpy.asarray": np.asarray,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "complex": lambda x: complex(x[0]),
}


@pytest.mark.parametrize("way", LEAVES)
def test_no_way_out_loses_the_gradient(x: Any, way: str) -> None:
    with pytest.raises((LostGradientError, TypeError)):
        record(LEAVES[way], x)


def test_dlpack_of_an_active_array(x: Any) -> None:
    with pytest.raises(LostGradientError, match="from_dlpack cannot follow the gradient"):
        record(lambda x: x.__dlpack__(), x)


def test_dask_does_not_tokenize_active_arrays(x: Any) -> None:
    """Dask asks an object for its token by this method."""
    with pytest.raises(LostGradientError, match="Dask's tokenize cannot follow the gradient"):
        record(lambda x: x.__dask_tokenize__(), x)


@pytest.mark.backends("dask")
def test_lazy_constants_are_not_computed_by_a_conversion(backend_one_device: Backend, x: Any) -> None:
    """A library that converts its arguments, or counts with them, would compute the graph."""
    with pytest.raises(TypeError, match=r"numpy\.asarray of a lazy array would compute it"):
        record(lambda y: y * np.asarray(pb.constant(x)), x)
    with pytest.raises(NotImplementedError, match="its length depends on its arguments"):
        record(lambda y: backend_one_device.call(array_namespace(y).arange, pb.constant(x)[0]) + y, x)


def test_float(backend_one_device: Backend, x: Any) -> None:
    if backend_one_device.lazy:
        with pytest.raises(TypeError, match="float of a lazy array would compute it"):
            pb.value_and_grad(lambda x: float(x @ x))(x)
        return
    value, gradient = pb.value_and_grad(lambda x: float(x @ x))(x)
    assert value == 14.0
    assert close(backend_one_device, gradient, 2 * backend_one_device.numpy(x))
    with pytest.raises(LostGradientError, match=r"^grad: float\(\) of an active array at .*test_traced\.py:\d+"):
        pb.grad(lambda x: float(x[0]) * (x @ x))(x)
    assert close(
        backend_one_device,
        pb.grad(lambda x: float(pb.stop_gradient(x[0])) * (x @ x))(x),
        2 * backend_one_device.numpy(x),
    )


@pytest.mark.backends("strict")
def test_derivatives_of_numbers_lie_on_the_device_of_the_arguments(backend_one_mode: Backend) -> None:
    """A function that returns a Python number says nothing of the device, and the library's first one is no answer."""
    device = next(x for x in backend_one_mode.xp.__array_namespace_info__().devices() if x != backend_one_mode.device)
    x = backend_one_mode.xp.asarray([1.0, 2.0, 3.0], device=device)
    value, gradient = pb.value_and_grad(lambda x: float(x @ x))(x)
    assert value == 14.0
    assert gradient.device == device
    assert close(backend_one_mode, gradient, [2.0, 4.0, 6.0])
    for number in (2.0, 3):
        out, tangent = pb.jvp(lambda _, number=number: number, (x,), (x,))
        assert out == number
        assert tangent.device == device


def _convert_first(convert: Callable[[Any], Any], x: Any) -> Any:
    return convert(x[0])


def test_branches(backend_one_device: Backend, x: Any) -> None:
    if backend_one_device.lazy:
        for convert in (bool, int, operator.index):
            with pytest.raises(TypeError, match="of a lazy array would compute it"):
                record(partial(_convert_first, convert), x)
        return
    got = pb.grad(lambda x: x @ x if x[0] > 0 else -(x @ x))(x)
    assert close(backend_one_device, got, 2 * backend_one_device.numpy(x))
    assert record(lambda x: int(x[2]), x) == 3


def test_iteration_and_length(backend_one_device: Backend, x: Any) -> None:
    if backend_one_device.mode == "unknown rows":
        return
    assert record(len, x) == 3
    got = pb.grad(lambda x: sum(part * part for part in x))(x)
    assert close(backend_one_device, got, 2 * backend_one_device.numpy(x))
    with pytest.raises(TypeError, match="array without axes"):
        record(lambda x: len(x[0]), x)
    with pytest.raises(TypeError, match="array without axes"):
        record(lambda x: list(x[0]), x)


def test_caller_arrays_never_change(backend_one_device: Backend, x: Any) -> None:
    before = backend_one_device.numpy(x).copy()

    def f(x: Any) -> Any:
        x += 1.0
        x *= x
        x[0] = 5.0
        return array_namespace(x).sum(x)

    if backend_one_device.library == "jax":
        with pytest.raises(TypeError, match=r"^arrays of jax\.numpy do not change in place"):
            pb.grad(f)(x)
        return
    gradient = pb.grad(f)(x)
    assert np.array_equal(backend_one_device.numpy(x), before)
    assert close(backend_one_device, gradient, 2 * (before + 1) * [0, 1, 1])


def test_leaked_array(x: Any) -> None:
    kept = []

    def keep(x: Any) -> Any:
        kept.append(x)
        return x @ x

    pb.grad(keep)(x)
    with pytest.raises(LostGradientError, match="used after that function returned"):
        _ = kept[0] * 2.0


def test_array_of_an_inner_level_in_an_outer_one(x: Any) -> None:
    def f(x: Any) -> Any:
        kept = []

        def keep(y: Any) -> Any:
            kept.append(y)
            return y @ x

        pb.grad(keep)(x)
        return array_namespace(x).sum(kept[0]) + x @ x

    with pytest.raises((LostGradientError, TypeError)):
        pb.grad(f)(x)


def test_outer_arrays_and_functions_in_an_inner_gradient(backend_one_device: Backend, x: Any) -> None:
    def f(x: Any) -> Any:
        xp = array_namespace(x)
        inner = pb.grad(lambda y: xp.sum(xp.exp(y) * x))(x)
        return inner @ x

    e = np.exp(backend_one_device.numpy(x))
    v = backend_one_device.numpy(x)
    assert close(backend_one_device, pb.grad(f)(x), e * v * v + 2 * e * v)


def test_mixed_libraries() -> None:
    with pytest.raises(TypeError, match="do not mix"):
        pb.grad(lambda x: x @ array_api_strict.ones(3))(np.ones(3))


NUMPY: dict[str, Callable[[Any], Any]] = {
    "multiply": partial(np.multiply, 2.0),
    "exp": np.exp,
    "tanh": np.tanh,
    "sum": lambda x: np.sum(x, axis=0) * x,
    "add": lambda x: np.add(np.ones(3), x),
}


@pytest.mark.parametrize("name", NUMPY)
def test_functions_of_numpy_itself(name: str) -> None:
    function = NUMPY[name]
    x = np.asarray([0.5, 1.0, 2.0])
    expected = pb.grad(lambda x: function(x) @ function(x))(x)
    h = 1e-6
    for i in range(3):
        step = h * np.eye(3)[i]
        slope = (function(x + step) @ function(x + step) - function(x - step) @ function(x - step)) / (2 * h)
        assert abs(slope - expected[i]) < 1e-6 * (1 + abs(slope))


NOT_FOLLOWED: dict[str, Callable[[Any], Any]] = {
    "convolve": lambda x: np.convolve(x, x),
    "interp": lambda x: np.interp(x, x, x),
    "eigvals": np.linalg.eigvals,
    "add.reduce": np.add.reduce,
    "median": np.median,
}


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_functions_that_are_not_followed(name: str) -> None:
    with pytest.raises((TypeError, LostGradientError, AttributeError)):
        record(NOT_FOLLOWED[name], np.ones(3))


@pytest.mark.parametrize(
    ("method", "function"), [("mean", "xp.mean(x)"), ("dot", "x @ y"), ("ravel", "xp.reshape(x, (-1,))")]
)
def test_methods_outside_the_standard_name_the_function(method: str, function: str) -> None:
    message = rf"^an array that is differentiated .* no {method}\. Write {re.escape(function)}, with xp = "
    with pytest.raises(AttributeError, match=message):
        pb.grad(lambda x: getattr(x, method)())(np.ones(3))
    pb.grad(lambda x: x @ x if not hasattr(x, method) else None)(np.ones(3))
