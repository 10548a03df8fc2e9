"""The laws are falsifiable: each one fails on a pair that breaks it, and says which pair, backend and law that was."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

from pullback import AffineGradients, affine_backward, affine_forward
from tests.harness.backend import TRACED, Backend, load
from tests.harness.pair_cases import AFFINE, Shape, affine_shapes
from tests.harness.pair_laws import LAWS, given

# A square w, so that a transposed gradient has the right shape.
FIRST_ORDER = replace(AFFINE, jvp=None, double_backward=None)
SQUARE: dict[str, Shape] = affine_shapes(5, 3, n=3)


VALUE = r" breaks the law of {} is\n.*\nand should be\n"
CHECK = r": check_pair: .* break a law\nBROKEN {}"


def edit(change: Callable[..., dict[str, Any]]) -> Callable[..., AffineGradients]:
    """Break the affine backward: `change` takes its arguments and gradients, and returns the wrong ones."""

    def backward(da: Any, z: Any, w: Any, **options: Any) -> AffineGradients:
        gradients = affine_backward(da, z, w, **options)
        return gradients._replace(**change(da, z, w, gradients))

    return backward


def transposed(_da: Any, _z: Any, _w: Any, g: AffineGradients) -> dict[str, Any]:
    return {"dw": g.dw.T} if g.dw is not None else {}


def no_conjugate(da: Any, z: Any, _w: Any, g: AffineGradients) -> dict[str, Any]:
    return {"dw": z.T @ da} if g.dw is not None else {}


def mean_of_rows(_da: Any, _z: Any, _w: Any, g: AffineGradients) -> dict[str, Any]:
    return {"db": g.db / 5} if g.db is not None else {}


def scaled_by_rows(_da: Any, _z: Any, _w: Any, g: AffineGradients) -> dict[str, Any]:
    return {"dz": g.dz * 1.001} if g.dz is not None else {}


def promoted(_da: Any, z: Any, _w: Any, g: AffineGradients) -> dict[str, Any]:
    xp = array_namespace(z)
    return {"dw": xp.astype(g.dw, xp.complex64)} if g.dw is not None else {}


def extra_axis(_da: Any, _z: Any, _w: Any, g: AffineGradients) -> dict[str, Any]:
    return {"db": g.db[None, :]} if g.db is not None else {}


def everything(da: Any, z: Any, w: Any, _g: AffineGradients) -> dict[str, Any]:
    return affine_backward(da, z, w)._asdict()


def smeared(_da: Any, z: Any, _w: Any, g: AffineGradients) -> dict[str, Any]:
    return {"dw": g.dw + 0 * array_namespace(z).sum(z)} if g.dw is not None else {}


def mended(_da: Any, z: Any, _w: Any, g: AffineGradients) -> dict[str, Any]:
    xp = array_namespace(z)
    return {"dw": xp.where(xp.isfinite(g.dw), g.dw, 0.0)} if g.dw is not None else {}


# The law, the wrong gradients, a dtype, and how the message goes on after the pair and the backend.
BROKEN: dict[str, tuple[str, Callable[..., dict[str, Any]], str, str]] = {
    "value of a transpose": ("value", transposed, "float32", VALUE.format("value: w")),
    "value without a conjugate": ("value", no_conjugate, "complex64", VALUE.format("value: w")),
    "value of a mean": ("value", mean_of_rows, "float32", VALUE.format("value: b")),
    "value with a factor": ("value", scaled_by_rows, "float32", VALUE.format("value: z")),
    "difference of a transpose": ("check", transposed, "float32", CHECK.format("central difference of dw: got")),
    "difference without a conjugate": ("check", no_conjugate, "complex64", CHECK.format("central difference of dw")),
    "difference of a mean": ("check", mean_of_rows, "float32", CHECK.format("central difference of db: got")),
    "difference with a factor": ("check", scaled_by_rows, "float32", CHECK.format("central difference of dz: got")),
    "structure: dtype": ("check", promoted, "float32", CHECK.format("structure of dw: .* complex64 on .* float32 on")),
    "structure: shape": ("check", extra_axis, "float32", CHECK.format(r"structure of db: .* \(1, 3\), .* \(3,\)\n")),
    "wrt: all of them": ("wrt", everything, "float32", VALUE.format("wrt: d. with wrt=.*")),
    "smeared": ("nonfinite", smeared, "float32", VALUE.format("NaN and infinity in z: dw, not finite at")),
    "mended": ("nonfinite", mended, "float32", VALUE.format("NaN and infinity in .*: dw, not finite at")),
}


# The laws read NumPy arrays, whatever library computed them: that they can fail is no matter of the library.
@pytest.mark.backends("numpy", "strict")
@pytest.mark.parametrize("case", BROKEN)
def test_broken_gradient(backend_one_device: Backend, case: str) -> None:
    law, change, of, told = BROKEN[case]
    pair = replace(FIRST_ORDER, name="broken", backward=edit(change))
    LAWS[law](backend_one_device, AFFINE, given(backend_one_device, AFFINE, SQUARE, of))
    with pytest.raises(AssertionError, match=rf"(?s)^broken on {re.escape(str(backend_one_device))}{told}"):
        LAWS[law](backend_one_device, pair, given(backend_one_device, pair, SQUARE, of))


def test_broken_forward(backend_one_device: Backend) -> None:
    pair = replace(FIRST_ORDER, forward=lambda z, w, b: affine_forward(z, w, b) + 1e-4)
    with pytest.raises(AssertionError, match="breaks the law of value: a is"):
        LAWS["value"](backend_one_device, pair, given(backend_one_device, pair, SQUARE, "float32"))


def test_broken_fields(backend_one_device: Backend) -> None:
    class Renamed(AffineGradients):
        _fields = ("dx", "dw", "db")

    pair = replace(FIRST_ORDER, backward=lambda *args: Renamed(*affine_backward(*args)))
    with pytest.raises(AssertionError, match="BROKEN structure of the fields: dx, dw, db, expected dz, dw, db\n"):
        LAWS["check"](backend_one_device, pair, given(backend_one_device, pair, SQUARE, "float32"))


def test_writing() -> None:
    """On NumPy, whatever the backend: not every library lets a pair write."""

    def backward(da: Any, z: Any, w: Any) -> AffineGradients:
        gradients = affine_backward(da, z, w)
        z *= 2
        return gradients

    pair = replace(FIRST_ORDER, backward=backward)
    numpy = next(x for x in load("numpy") if x.mode == "plain")  # whose arrays can be written to
    with pytest.raises(AssertionError, match=r"BROKEN purity of z: .* became .*, expected as it was\n"):
        LAWS["check"](numpy, pair, given(numpy, pair, SQUARE, "float32"))


def test_computing(backend: Backend) -> None:
    """A pair that looks at a value fails where the backend is lazy or traces, and only there."""

    def backward(da: Any, z: Any, w: Any, **options: Any) -> AffineGradients:
        gradients = affine_backward(da, z, w, **options)
        return gradients if float(array_namespace(da).max(da)) < np.inf else gradients._replace(dz=None)

    pair = replace(FIRST_ORDER, backward=backward)
    case = given(backend, pair, SQUARE, "float32")
    if backend.lazy or backend.mode in TRACED:
        with pytest.raises(Exception, match=r"computed inside a pair|[Tt]racer|Data-dependent|data-dependent|item"):
            LAWS["check"](backend, pair, case)
    else:
        LAWS["check"](backend, pair, case)


def test_another_library(backend_one_device: Backend) -> None:
    """A gradient that left for another library, as one that was computed does, has another structure."""
    other = load("strict" if backend_one_device.library == "numpy" else "numpy")[0]

    def backward(da: Any, z: Any, w: Any) -> AffineGradients:
        return affine_backward(da, z, w)._replace(db=other.asarray(np.ones(3)))

    pair = replace(FIRST_ORDER, backward=backward)
    with pytest.raises(
        AssertionError, match=rf"BROKEN structure of db: .*{other.xp.__name__.rpartition('.')[2]} .* on "
    ):
        LAWS["check"](backend_one_device, pair, given(backend_one_device, pair, SQUARE, "float32"))
