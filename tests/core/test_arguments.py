"""What every function refuses of the arrays and options that it is given, in words that say what to do."""

import re
from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest

from pullback import (
    JacobianOperator,
    affine_backward,
    affine_double_backward,
    affine_forward,
    affine_jacobians,
    affine_jvp,
    frobenius_inner,
    frobenius_inner_backward,
    matmul_backward,
    matmul_double_backward,
    matmul_forward,
    matmul_jvp,
    quadratic_form,
    quadratic_form_backward,
    softmax_cross_entropy,
    trace_of_product,
    trace_of_product_backward,
)
from tests.harness.backend import Backend


def affine_tangent(z: Any, w: Any, z_tangent: Any, w_tangent: Any, b_tangent: Any) -> Any:
    return affine_jvp(z, w, z_tangent=z_tangent, w_tangent=w_tangent, b_tangent=b_tangent)


def matmul_tangent(x1: Any, x2: Any, x1_tangent: Any, x2_tangent: Any) -> Any:
    return matmul_jvp(x1, x2, x1_tangent=x1_tangent, x2_tangent=x2_tangent)


# Arguments in order, each with a shape that fits.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, tuple[int, ...]]]] = {
    "affine_forward": (affine_forward, {"z": (5, 3), "w": (3, 4), "b": (4,)}),
    "affine_backward": (affine_backward, {"da": (5, 4), "z": (5, 3), "w": (3, 4)}),
    "matmul_forward": (matmul_forward, {"x1": (5, 3), "x2": (3, 4)}),
    "matmul_backward": (matmul_backward, {"da": (5, 4), "x1": (5, 3), "x2": (3, 4)}),
    "affine_jvp": (
        affine_tangent,
        {"z": (5, 3), "w": (3, 4), "z_tangent": (5, 3), "w_tangent": (3, 4), "b_tangent": (4,)},
    ),
    "matmul_jvp": (matmul_tangent, {"x1": (5, 3), "x2": (3, 4), "x1_tangent": (5, 3), "x2_tangent": (3, 4)}),
    "affine_double_backward": (
        affine_double_backward,
        {"ddz": (5, 3), "ddw": (3, 4), "ddb": (4,), "da": (5, 4), "z": (5, 3), "w": (3, 4)},
    ),
    "matmul_double_backward": (
        matmul_double_backward,
        {"ddx1": (5, 3), "ddx2": (3, 4), "da": (5, 4), "x1": (5, 3), "x2": (3, 4)},
    ),
    "affine_jacobians": (affine_jacobians, {"z": (5, 3), "w": (3, 4)}),
    "JacobianOperator": (JacobianOperator, {"z": (5, 3), "w": (3, 4)}),
    "frobenius_inner": (frobenius_inner, {"x": (5, 3), "y": (5, 3)}),
    "frobenius_inner_backward": (frobenius_inner_backward, {"dvalue": (), "x": (5, 3), "y": (5, 3)}),
    "trace_of_product": (trace_of_product, {"x": (5, 3), "w": (3, 5)}),
    "trace_of_product_backward": (trace_of_product_backward, {"dvalue": (), "x": (5, 3), "w": (3, 5)}),
    "quadratic_form": (quadratic_form, {"x": (5, 3), "A": (3, 3)}),
    "quadratic_form_backward": (quadratic_form_backward, {"dvalue": (5,), "x": (5, 3), "A": (3, 3)}),
    "softmax_cross_entropy": (softmax_cross_entropy, {"a": (5, 3), "y": (5, 3)}),
}
ARGUMENTS = [(name, argument) for name, (_, shapes) in CALLS.items() for argument in shapes]


def arrays(backend: Backend, name: str) -> dict[str, Any]:
    return {x: backend.asarray(np.ones(shape)) for x, shape in CALLS[name][1].items()}


def refuses(error: type[Exception], message: str, name: str, given: dict[str, Any], **options: Any) -> None:
    with pytest.raises(error, match=f"^{name}: {message}"):
        CALLS[name][0](*given.values(), **options)


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
@pytest.mark.parametrize("what", [[[1.0, 2.0], [3.0, 4.0]], 1.0, 1, None, "array"], ids=str)
def test_not_an_array(backend_one_device: Backend, name: str, argument: str, what: Any) -> None:
    if what is None and (
        (name, argument) == ("affine_forward", "b") or argument.endswith("_tangent") or "dd" in argument
    ):
        return  # no bias is an option, nor is a tangent or a cotangent
    way_out = "" if what in (None, "array") else rf"\. Convert .* numpy\.asarray\({argument}\)"
    message = rf"{argument} must be an array; got {type(what).__name__}{way_out}$"
    refuses(TypeError, message, name, {**arrays(backend_one_device, name), argument: what})


@pytest.mark.parametrize(("name", "argument"), [x for x in ARGUMENTS if x[0] != "softmax_cross_entropy"])
@pytest.mark.parametrize("of", ["int32", "uint8", "bool"])
def test_not_floating(backend_one_device: Backend, name: str, argument: str, of: str) -> None:
    given = arrays(backend_one_device, name)
    given[argument] = backend_one_device.asarray(np.ones(given[argument].shape), of)
    message = rf"{argument} must have a floating dtype; got .*{of}\. Cast it .* xp\.astype\({argument}, xp\.float32\)$"
    refuses(TypeError, message, name, given)


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_two_libraries(backend_one_device: Backend, name: str, argument: str) -> None:
    given = arrays(backend_one_device, name)
    other: Any = np if backend_one_device.library == "strict" else array_api_strict
    given[argument] = other.ones(given[argument].shape)
    ours = backend_one_device.xp.__name__.removeprefix("array_api_compat.")
    got = " and ".join(f"{x} of {other.__name__ if x == argument else ours}" for x in given)
    message = rf"the arrays must come from one library; got {got}\. Convert them to one library first$"
    refuses(TypeError, message, name, given)


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_two_devices_of_strict(name: str, argument: str) -> None:
    given: dict[str, Any] = {x: array_api_strict.ones(shape) for x, shape in CALLS[name][1].items()}
    given[argument] = array_api_strict.ones(given[argument].shape, device=array_api_strict.Device("device1"))
    message = rf"the arrays must lie on one device; got .*{argument} on \S*\('device1'\).* Move .*compat\.to_device$"
    refuses(ValueError, message, name, given)


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_two_devices(backend_one_device: Backend, name: str, argument: str) -> None:
    given = arrays(backend_one_device, name)
    if getattr(given[argument], "device", None) is None:
        return  # Dask's arrays have none
    for device in backend_one_device.xp.__array_namespace_info__().devices():
        if device not in (None, backend_one_device.device):
            other = backend_one_device.xp.ones(
                given[argument].shape, dtype=backend_one_device.xp.float32, device=device
            )
            message = r"the arrays must lie on one device; got .* Move them first"
            refuses(ValueError, message, name, {**given, argument: other})


WRT = {
    "affine_backward": ("z", "w", "b"),
    "affine_jacobians": ("z", "w", "b"),
    "JacobianOperator": ("z", "w", "b"),
    "matmul_backward": ("x1", "x2"),
    "frobenius_inner_backward": ("x", "y"),
    "trace_of_product_backward": ("x", "w"),
    "quadratic_form_backward": ("x", "A"),
}


@pytest.mark.parametrize("name", WRT)
@pytest.mark.parametrize("wrt", ["z", "x1", "", ("q",), ("w", "bias"), {"x1": 0, "X2": 1}], ids=str)
def test_wrt(backend_one_device: Backend, name: str, wrt: Any) -> None:
    names = re.escape(str(WRT[name]))
    message = rf"wrt must be a tuple of names out of {names}; got "
    refuses(ValueError, message, name, arrays(backend_one_device, name), wrt=wrt)


@pytest.mark.parametrize("reduction", ["average", "", None, "MEAN"])
def test_reduction(backend_one_device: Backend, reduction: Any) -> None:
    message = rf"reduction must be one of \('mean', 'sum', 'none'\); got {reduction!r}$"
    refuses(
        ValueError,
        message,
        "softmax_cross_entropy",
        arrays(backend_one_device, "softmax_cross_entropy"),
        reduction=reduction,
    )
