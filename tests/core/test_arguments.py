"""Errors for wrong arrays and options: the validators on every backend, and each function's use of them once."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import pytest

from pullback import JacobianOperator, affine_jacobians
from pullback._core.pair import Pair
from pullback._ops import PAIRS
from tests.harness.backend import Backend


class Call(NamedTuple):
    """A function that takes arrays by position, and arguments that fit, by name."""

    function: Callable[..., Any]
    arrays: dict[str, Any]
    optional: tuple[str, ...] = ()
    real: bool = False
    integers: tuple[str, ...] = ()  # the arguments that may be of integers


def positional(function: Any) -> list[str]:
    """Return the names of the parameters of a function that take arrays by position."""
    parameters = inspect.signature(function).parameters.values()
    return [x.name for x in parameters if x.kind is inspect.Parameter.POSITIONAL_ONLY]


def calls_of(pair: Pair) -> list[Call]:
    """Return a call of each function of a pair."""
    inputs = {x: np.ones(of) if isinstance(of, tuple) else np.asarray(of) for x, of in pair.inputs.items()}
    output = pair.forward(*inputs.values())
    if pair.hessian_product is not None:
        integers = tuple(x for x in inputs if x not in pair.differentiable)
        hessian = Call(pair.hessian_product, {"v": inputs["a"], **inputs}, real=pair.real, integers=integers)
        return [Call(pair.forward, inputs, real=pair.real, integers=integers), hessian]
    optional = tuple(x for x in inputs if x not in pair.needs and pair.saves == "input")
    calls = [Call(pair.forward, inputs, optional, pair.real)]
    needed = [output if x == "output" else inputs[x] for x in pair.needs]
    upstream, *names = positional(pair.backward)
    taken = dict(zip(names, needed, strict=True))
    assert pair.backward is not None
    calls.append(Call(pair.backward, {upstream: output, **taken}, real=pair.real))
    if pair.jvp is not None:
        tangents = {f"{x}_tangent": array for x, array in inputs.items()}
        calls.append(Call(by_position(pair.jvp, len(taken)), {**taken, **tangents}, tuple(tangents)))
    if pair.double_backward is not None:
        cotangents = {f"dd{x}": array for x, array in inputs.items()}
        calls.append(Call(pair.double_backward, {**cotangents, upstream: output, **taken}, tuple(cotangents)))
    return calls


def by_position(jvp: Any, count: int) -> Callable[..., Any]:
    """Return a jvp that takes its tangents by position, after `count` inputs."""
    names = [x.name for x in inspect.signature(jvp).parameters.values() if x.kind is inspect.Parameter.KEYWORD_ONLY]

    def call(*arrays: Any) -> Any:
        return jvp(*arrays[:count], **dict(zip(names, arrays[count:], strict=True)))

    call.__name__ = jvp.__name__
    return call


AFFINE = {"z": np.ones((5, 3)), "w": np.ones((3, 4))}
OTHERS = [Call(affine_jacobians, AFFINE), Call(JacobianOperator, AFFINE)]
CALLS = {call.function.__name__: call for call in [*(x for pair in PAIRS for x in calls_of(pair)), *OTHERS]}
ARGUMENTS = [(name, argument) for name, call in CALLS.items() for argument in call.arrays]
# A function of each validator, to be tried on every backend; the others on NumPy alone.
VALIDATORS = ("affine_forward", "affine_jvp", "relu_backward", "logistic")
NUMPY = pytest.mark.backends("numpy")
EVERYWHERE = [
    pytest.param(*case, marks=[] if case[0] in VALIDATORS else NUMPY, id="-".join(case)) for case in ARGUMENTS
]
REAL = [x for x in EVERYWHERE if CALLS[str(x.values[0])].real]
SEVERAL = [x for x in EVERYWHERE if len(CALLS[str(x.values[0])].arrays) > 1]
FLOATING = [x for x in EVERYWHERE if x.values[1] not in CALLS[str(x.values[0])].integers]


def arrays(backend: Backend, name: str) -> dict[str, Any]:
    return {x: backend.asarray(array) for x, array in CALLS[name].arrays.items()}


def refuses(error: type[Exception], message: str, name: str, given: dict[str, Any], **options: Any) -> None:
    with pytest.raises(error, match=f"^{name}: {message}"):
        CALLS[name].function(*given.values(), **options)


@pytest.mark.parametrize(("name", "argument"), EVERYWHERE)
def test_rejects_a_list(backend_one_device: Backend, name: str, argument: str) -> None:
    message = rf"{argument} must be an array; got list\. Convert .* numpy\.asarray\({argument}\)$"
    refuses(TypeError, message, name, {**arrays(backend_one_device, name), argument: [[1.0, 2.0], [3.0, 4.0]]})


NOT_ARRAYS = [
    (name, argument, what)
    for name, argument in ARGUMENTS
    for what in (1.0, 1, None, "array")
    if name in VALIDATORS and not (what is None and argument in CALLS[name].optional)
]


@pytest.mark.parametrize(("name", "argument", "what"), NOT_ARRAYS, ids=str)
def test_rejects_what_is_not_an_array(backend_one_device: Backend, name: str, argument: str, what: Any) -> None:
    way_out = "" if what in (None, "array") else rf"\. Convert .* numpy\.asarray\({argument}\)"
    message = rf"{argument} must be an array; got {type(what).__name__}{way_out}$"
    refuses(TypeError, message, name, {**arrays(backend_one_device, name), argument: what})


@pytest.mark.parametrize("of", ["int32", "uint8", "bool"])
@pytest.mark.parametrize(("name", "argument"), FLOATING)
def test_rejects_integers(backend_one_device: Backend, name: str, argument: str, of: str) -> None:
    given = arrays(backend_one_device, name)
    given[argument] = backend_one_device.asarray(np.ones(given[argument].shape), of)
    kind = "a real floating dtype" if CALLS[name].integers else "a floating dtype"
    refuses(TypeError, rf"{argument} must have {kind}; got .*{of}", name, given)


@pytest.mark.parametrize(("name", "argument"), REAL)
def test_rejects_complex_numbers_for_a_real_pair(backend_one_device: Backend, name: str, argument: str) -> None:
    given = arrays(backend_one_device, name)
    given[argument] = backend_one_device.asarray(np.ones(given[argument].shape), "complex64")
    refuses(TypeError, rf"{argument} must have a real floating dtype.*; got .*complex64", name, given)


@pytest.mark.parametrize(("name", "argument"), SEVERAL)
def test_rejects_two_libraries(backend_one_device: Backend, name: str, argument: str) -> None:
    given = arrays(backend_one_device, name)
    other: Any = np if backend_one_device.library == "strict" else array_api_strict
    given[argument] = other.ones(given[argument].shape)
    ours = backend_one_device.xp.__name__.removeprefix("array_api_compat.")
    got = " and ".join(f"{x} of {other.__name__ if x == argument else ours}" for x in given)
    message = rf"the arrays must come from one library; got {got}\. Convert them to one library first$"
    refuses(TypeError, message, name, given)


@NUMPY
@pytest.mark.parametrize(("name", "argument"), SEVERAL)
def test_rejects_two_devices_of_strict(name: str, argument: str) -> None:
    given: dict[str, Any] = {x: array_api_strict.asarray(array) for x, array in CALLS[name].arrays.items()}
    given[argument] = array_api_strict.asarray(given[argument], device=array_api_strict.Device("device1"))
    message = rf"the arrays must lie on one device; got .*{argument} on \S*\('device1'\).* Move .*compat\.to_device$"
    refuses(ValueError, message, name, given)


@pytest.mark.backends("strict", "torch", "jax")  # the libraries whose tests have several devices on every machine
@pytest.mark.parametrize("name", [name for name in VALIDATORS if len(CALLS[name].arrays) > 1])
def test_rejects_two_devices(backend_one_device: Backend, name: str) -> None:
    given = arrays(backend_one_device, name)
    first = next(iter(given))
    xp, own = backend_one_device.xp, backend_one_device.device
    others = [device for device in xp.__array_namespace_info__().devices() if device not in (None, own)]
    assert others
    for device in others:
        other = xp.ones(given[first].shape, dtype=xp.float32, device=device)
        message = r"the arrays must lie on one device; got .* Move them first"
        refuses(ValueError, message, name, {**given, first: other})


WRT = {pair.backward.__name__: tuple(pair.inputs) for pair in PAIRS if pair.backward and len(pair.inputs) > 1}
WRT |= {call.function.__name__: ("z", "w", "b") for call in OTHERS}


@NUMPY
@pytest.mark.parametrize("name", WRT)
@pytest.mark.parametrize("wrt", ["z", "x1", "", ("q",), ("w", "bias"), {"x1": 0, "X2": 1}], ids=str)
def test_rejects_an_unknown_wrt(name: str, wrt: Any) -> None:
    names = re.escape(str(WRT[name]))
    message = rf"wrt must be a tuple of names out of {names}; got "
    refuses(ValueError, message, name, CALLS[name].arrays, wrt=wrt)


LOSSES = [call.function.__name__ for call in CALLS.values() if call.integers]


@NUMPY
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["average", "", None, "MEAN"])
def test_rejects_an_unknown_reduction(name: str, reduction: Any) -> None:
    message = rf"reduction must be one of \('mean', 'sum', 'none'\); got {reduction!r}$"
    refuses(ValueError, message, name, CALLS[name].arrays, reduction=reduction)
