"""The idea of the official suite: each function of the standard, called with what is drawn for its signature.

The traced namespace returns the values of the plain one to the bit, with their dtype and shape, whether the arrays are
constants or active, and it raises where that raises.
"""

import operator
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np
import pytest
from array_api_compat import array_namespace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pullback as pb
from pullback._core import trees
from tests.autodiff.rules.calls import ALL, BOOL, CALLS, SHAPES, Call, arrays, xps
from tests.autodiff.rules.test_names import standard
from tests.harness.backend import Backend

# JAX compiles each function for each shape, and what others draw is drawn on NumPy already.
EXAMPLES = {"numpy": 25, "strict": 20, "torch": 6, "jax": 1, "dask": 2, "cupy": 25}
PROFILE = settings(
    derandomize=True, database=None, deadline=None, print_blob=False, suppress_health_check=list(HealthCheck)
)


def test_every_function_is_called() -> None:
    assert set(standard()) == set(CALLS)


def checked(backend: Backend, calls: Any, check: Callable[[Any], None], times: int = 1, /) -> None:
    """Check calls that are drawn, as many as the backend's or some times that."""

    @settings(PROFILE, max_examples=times * EXAMPLES[backend.library])
    @given(calls)
    def run(call: Any) -> None:
        check(call)

    with np.errstate(all="ignore"):
        run()


def is_array(x: Any, /) -> bool:
    return isinstance(x, np.ndarray)


def on(backend: Backend, tree: Any, /) -> Any:
    """Put the NumPy arrays of arguments on a backend, and replace names of dtypes by the dtypes."""

    def put(x: Any) -> Any:
        if is_array(x):
            return backend.asarray(x, x.dtype.name)
        return backend.dtype(x) if isinstance(x, str) and x in ALL else x

    return trees.rebuild(tree, put)


class Failed:
    """An error in place of a result."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __repr__(self) -> str:
        return repr(self.error)


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a function returns, or the error that it raises."""
    try:
        return function(*args)
    except Exception as error:  # noqa: BLE001 - libraries raise errors of all types
        return Failed(error)


def recorded(backend: Backend, function: Callable[..., Any], call: Call, /, *, active: bool) -> Any:
    """Return what a function of a namespace makes of traced arrays: all that are floating, or none, are active."""
    one = backend.asarray(np.asarray(1.0))
    given = on(backend, tuple(call))
    floating = [x for x in trees.leaves(tuple(call)) if active and is_array(x) and x.dtype.kind in "fc"]

    def run(one: Any, *primals: Any) -> Any:
        remaining = iter(primals)
        drawn = iter(trees.leaves(tuple(call)))

        def lifted(x: Any) -> Any:
            of = next(drawn)
            if not is_array(of):
                return x
            return next(remaining) if active and of.dtype.kind in "fc" else pb.constant(x)

        args, kwargs = trees.rebuild(given, lifted)
        return one, function(array_namespace(one), *args, **kwargs)

    return pb.vjp(run, one, *(backend.asarray(x, x.dtype.name) for x in floating), has_aux=True)[-1]


def described(backend: Backend, x: Any, /) -> Any:
    """Describe a result: its arrays by type, dtype, shape and bytes, where NaN has no sign."""
    if hasattr(x, "dtype") and hasattr(x, "ndim"):
        value = np.asarray(backend.numpy(x))
        missing = np.isnan(value) if value.dtype.kind in "fc" else np.zeros(value.shape, dtype=bool)
        return type(x), x.dtype, value.shape, missing.tobytes(), np.where(missing, 0, value).tobytes()
    if hasattr(x, "bits"):
        return x.bits, float(x.min), float(x.max), str(x.dtype)
    if isinstance(x, float | complex):
        return type(x), repr(x)  # NaN equals nothing
    return (type(x), *(described(backend, part) for part in x)) if isinstance(x, tuple | list) else (type(x), x)


def _all(description: Any, /) -> Any:
    return description


def without_values(description: Any, /) -> Any:
    """Leave the bytes out of a description."""
    return description[:3]


def without_types(description: Any, /) -> Any:
    """Leave the types of arrays out: in place, a number of NumPy's stands for an array without axes."""
    return [part[1:] for part in description[1:]]


def compare(
    backend: Backend, function: Callable[..., Any], call: Call, /, *, what: Callable[[Any], Any] = _all
) -> None:
    """Compare what the plain namespace and the traced one make of a call."""

    def plain() -> Any:
        args, kwargs = on(backend, tuple(call))
        return what(described(backend, function(backend.xp, *args, **kwargs)))

    right = outcome(plain)
    for active in (False, True):
        got = outcome(lambda active=active: what(described(backend, recorded(backend, function, call, active=active))))
        kind = "active arrays" if active else "constants"
        if isinstance(right, Failed):
            assert isinstance(got, Failed), f"{kind}: {got}, where the plain namespace raises {right}"
        else:
            assert got == right, f"{kind}: {got}, expected {right}"


def named(name: str, /) -> Callable[..., Any]:
    """Return a function of the standard as one of its namespace."""

    def function(xp: Any, *args: Any, **kwargs: Any) -> Any:
        for part in name.split("."):
            xp = getattr(xp, part)
        return xp(*args, **kwargs)

    return function


@pytest.mark.parametrize("name", sorted(CALLS))
def test_functions(backend_one_mode: Backend, name: str) -> None:
    b = backend_one_mode
    what = without_values if name.startswith("empty") else _all
    checked(b, CALLS[name], lambda call: compare(b, named(name), call, what=what))


BINARY: dict[str, tuple[Callable[..., Any], ...]] = {
    **{
        name: (getattr(operator, op), getattr(operator, f"i{op}"))
        for name, op in (
            ("add", "add"),
            ("subtract", "sub"),
            ("multiply", "mul"),
            ("divide", "truediv"),
            ("pow", "pow"),
            ("floor_divide", "floordiv"),
            ("remainder", "mod"),
            ("matmul", "matmul"),
            ("bitwise_left_shift", "lshift"),
            ("bitwise_right_shift", "rshift"),
        )
    },
    "bitwise_and": (operator.and_, operator.iand),
    "bitwise_or": (operator.or_, operator.ior),
    "bitwise_xor": (operator.xor, operator.ixor),
    **{
        name: (getattr(operator, op),)
        for name, op in (
            ("equal", "eq"),
            ("not_equal", "ne"),
            ("less", "lt"),
            ("less_equal", "le"),
            ("greater", "gt"),
            ("greater_equal", "ge"),
        )
    },
}


@pytest.mark.parametrize("name", BINARY)
def test_operators(backend_one_mode: Backend, name: str) -> None:
    """Operators, reflected ones, and those in place: what is left in all names of the array."""
    b, (op, *in_place) = backend_one_mode, BINARY[name]

    def changed(xp: Any, x: Any, y: Any) -> Any:
        x = xp.asarray(x, copy=True) if hasattr(x, "dtype") else x
        same = x
        x = in_place[0](x, y)
        return x, same

    def check(call: Call) -> None:
        compare(b, lambda _, x, y: op(x, y), call)
        if in_place:
            compare(b, changed, call, what=without_types)

    # The operator `@` of some libraries promotes no dtypes.
    calls = CALLS[name].filter(lambda call: name != "matmul" or call.args[0].dtype == call.args[1].dtype)
    checked(b, calls, check)


UNARY: dict[str, Callable[[Any], Any]] = {
    "abs": operator.abs,
    "bitwise_invert": operator.invert,
    "negative": operator.neg,
    "positive": operator.pos,
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_operators(backend_one_mode: Backend, name: str) -> None:
    b = backend_one_mode
    checked(b, CALLS[name], lambda call: compare(b, lambda _, x: UNARY[name](x), call))


ATTRIBUTES: dict[str, Callable[[Any], Any]] = {
    "dtype, ndim and shape": lambda x: (x.dtype, x.ndim, tuple(x.shape)),
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "size": array_api_compat.size,
    "device": array_api_compat.device,
    "to_device": lambda x: array_api_compat.to_device(x, array_api_compat.device(x)),
    "bool": bool,
    "int": int,
    "float": lambda x: float(pb.stop_gradient(x)),
    "complex": lambda x: complex(pb.stop_gradient(x)),
    "index": operator.index,
    "len": len,
    "iter": list,
}


# What array-api-strict, or Dask, does not have is there nonetheless.
LACKING = {"len": "strict", "iter": "strict", "mT": "dask"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=[pytest.mark.backends(*(b for b in EXAMPLES if b != LACKING[x]))] if x in LACKING else [])
        for x in ATTRIBUTES
    ],
)
def test_attributes(backend_one_mode: Backend, name: str) -> None:
    b = backend_one_mode
    if b.lazy and name in {"bool", "int", "float", "complex", "index"}:
        with pytest.raises(TypeError, match="of a lazy array would compute it"):
            recorded(b, lambda _, x: ATTRIBUTES[name](x), Call((np.asarray(1),), {}), active=False)
        return
    sizes = {"T": 2, "mT": 3}.get(name)
    shapes = SHAPES if sizes is None else xps.array_shapes(min_dims=2, max_dims=sizes, min_side=0, max_side=3)
    calls = st.builds(lambda x: Call((x,), {}), arrays(ALL, shapes))
    checked(b, calls, lambda call: compare(b, lambda _, x: ATTRIBUTES[name](x), call))


@st.composite
def indexed(draw: Callable[[Any], Any]) -> Call:
    """Draw an array and an index of it: integers, slices, None and an ellipsis, a mask, or integer arrays."""
    x = draw(arrays(ALL))
    form = draw(st.integers(0, 5))
    if form == 0:
        return Call((x, draw(arrays(BOOL, x.shape))), {})
    if form == 1 and x.ndim and x.shape[0]:
        inside = st.integers(-x.shape[0], x.shape[0] - 1)
        return Call((x, draw(arrays(("int64",), st.tuples(st.integers(0, 3)), lambda _: inside))), {})
    return Call((x, draw(xps.indices(x.shape, allow_newaxis=True))), {})


def test_getitem(backend_one_mode: Backend) -> None:
    b = backend_one_mode
    checked(b, indexed(), lambda call: compare(b, lambda _, x, key: x[key], call), 5)


def test_setitem(backend_one_mode: Backend) -> None:
    """Assignments of a number and of an array that fits change the array, its other names and its views."""
    b = backend_one_mode

    def write(xp: Any, x: Any, key: Any) -> Any:
        y = xp.asarray(x, copy=True)
        part = y[..., :1] if y.ndim else y
        y[key] = True if y.dtype == xp.bool else 2
        y[key] = y[key]
        return y, part

    checked(b, indexed(), lambda call: compare(b, write, call, what=without_types), 5)
