"""The laws of tangents and double backwards are falsifiable: each one fails on functions that break it."""

from dataclasses import replace
from typing import Any

import pytest

from pullback import AffineDoubleGradients, affine_double_backward, affine_jvp
from tests.harness.backend import Backend, load
from tests.harness.order_laws import ORDER_LAWS
from tests.harness.pair_cases import AFFINE, affine_shapes
from tests.harness.pair_laws import LAWS, ReferencedPair, given

SQUARE = affine_shapes(5, 3, n=3)


def no_bias(z: Any, w: Any, *, z_tangent: Any, w_tangent: Any, b_tangent: Any) -> Any:
    zero = b_tangent if b_tangent is None else b_tangent * 0
    return affine_jvp(z, w, z_tangent=z_tangent, w_tangent=w_tangent, b_tangent=zero)


def transposed(ddz: Any, ddw: Any, ddb: Any, *arrays: Any) -> AffineDoubleGradients:
    return affine_double_backward(*[ddz, None if ddw is None else ddw.T, ddb, *arrays])


def forgetful(ddz: Any, ddw: Any, ddb: Any, *arrays: Any) -> AffineDoubleGradients:
    return affine_double_backward(*[ddz, ddw, ddb, *arrays])._replace(dz=None)


def rows(*arrays: Any) -> AffineDoubleGradients:
    gradients = affine_double_backward(*arrays)
    return gradients if gradients.dw is None else gradients._replace(dw=gradients.dw[None, ...])


BROKEN: dict[str, tuple[str, ReferencedPair, str]] = {
    "tangent without a bias": ("tangent", replace(AFFINE, jvp=no_bias), "of ('b',) is"),
    "adjoint without a bias": ("check", replace(AFFINE, jvp=no_bias), "BROKEN adjoint identity of db: got "),
    "double backward of a transpose": ("double backward", replace(AFFINE, double_backward=transposed), "dda of"),
    "double backward with None": ("double backward", replace(AFFINE, double_backward=forgetful), "dz of"),
    "double backward with an axis": ("double backward", replace(AFFINE, double_backward=rows), "structure of dw"),
    "difference of a transpose": (
        "check",
        replace(AFFINE, double_backward=transposed),
        "BROKEN central difference of dda (double backward): got ",
    ),
}


@pytest.mark.backends("numpy", "strict")
@pytest.mark.parametrize("case", BROKEN)
def test_broken(backend_one_device: Backend, case: str) -> None:
    law, broken, words = BROKEN[case]
    drawn = given(backend_one_device, AFFINE, SQUARE, "complex64")
    laws = {**LAWS, **ORDER_LAWS}
    laws[law](backend_one_device, AFFINE, drawn)
    with pytest.raises(AssertionError) as told:
        laws[law](backend_one_device, broken, drawn)
    assert words in str(told.value)


def test_writing() -> None:
    """On NumPy, whatever the backend: not every library lets a function write."""

    def jvp(z: Any, w: Any, **tangents: Any) -> Any:
        a = affine_jvp(z, w, **tangents)
        tangents["z_tangent"] *= 2
        return a

    numpy = next(x for x in load("numpy") if x.mode == "plain")  # whose arrays can be written to
    with pytest.raises(AssertionError, match=r"BROKEN purity of the tangent of z: .* became "):
        LAWS["check"](numpy, replace(AFFINE, jvp=jvp), given(numpy, AFFINE, SQUARE, "float32"))
