"""The laws are falsifiable: each one fails on a pair that breaks it, and says which pair, backend and law that was."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace
from backend import TRACED, Backend, load
from laws import LAWS, given
from pairs import AFFINE, Shape, affine_shapes

from pullback import AffineGradients, affine_backward, affine_forward

# A square w, so that a transposed gradient has the right shape.
SQUARE: dict[str, Shape] = affine_shapes(5, 3, n=3)


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


BROKEN: dict[str, tuple[str, Callable[..., dict[str, Any]], str]] = {
    "value of a transpose": ("value", transposed, "float32"),
    "value without a conjugate": ("value", no_conjugate, "complex64"),
    "value of a mean": ("value", mean_of_rows, "float32"),
    "value with a factor": ("value", scaled_by_rows, "float32"),
    "adjoint of a transpose": ("adjoint", transposed, "float32"),
    "adjoint without a conjugate": ("adjoint", no_conjugate, "complex64"),
    "adjoint of a mean": ("adjoint", mean_of_rows, "float32"),
    "difference of a transpose": ("difference", transposed, "float32"),
    "difference without a conjugate": ("difference", no_conjugate, "complex64"),
    "difference with a mean": ("difference", mean_of_rows, "float32"),
    "structure: dtype": ("structure", promoted, "float32"),
    "structure: shape": ("structure", extra_axis, "float32"),
    "wrt: all of them": ("wrt", everything, "float32"),
    "smeared": ("nan and inf", smeared, "float32"),
    "mended": ("nan and inf", mended, "float32"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_gradient(eager: Backend, case: str) -> None:
    law, change, of = BROKEN[case]
    pair = replace(AFFINE, name="broken", backward=edit(change))
    LAWS[law](eager, AFFINE, given(eager, AFFINE, SQUARE, of))
    told = rf"(?s)^broken on {re.escape(str(eager))} breaks the law of .* is\n.*\nand should be\n"
    with pytest.raises(AssertionError, match=told):
        LAWS[law](eager, pair, given(eager, pair, SQUARE, of))


def test_broken_forward(eager: Backend) -> None:
    pair = replace(AFFINE, forward=lambda z, w, b: affine_forward(z, w, b) + 1e-4)
    with pytest.raises(AssertionError, match="breaks the law of value: a is"):
        LAWS["value"](eager, pair, given(eager, pair, SQUARE, "float32"))


def test_broken_fields(eager: Backend) -> None:
    class Renamed(AffineGradients):
        _fields = ("dx", "dw", "db")

    pair = replace(AFFINE, backward=lambda *args: Renamed(*affine_backward(*args)))
    with pytest.raises(AssertionError, match="breaks the law of structure: the fields"):
        LAWS["structure"](eager, pair, given(eager, pair, SQUARE, "float32"))


def test_writing() -> None:
    """On NumPy, whatever the backend: not every library lets a pair write."""

    def backward(da: Any, z: Any, w: Any) -> AffineGradients:
        gradients = affine_backward(da, z, w)
        z *= 2
        return gradients

    pair, numpy = replace(AFFINE, backward=backward), load("numpy")[0]
    with pytest.raises(AssertionError, match="breaks the law of purity: z is"):
        LAWS["purity"](numpy, pair, given(numpy, pair, SQUARE, "float32"))


def test_computing(backend: Backend) -> None:
    """A pair that looks at a value breaks laziness where the backend is lazy or traces, and only there."""

    def backward(da: Any, z: Any, w: Any, **options: Any) -> AffineGradients:
        gradients = affine_backward(da, z, w, **options)
        return gradients if float(array_namespace(da).max(da)) < np.inf else gradients._replace(dz=None)

    pair = replace(AFFINE, backward=backward)
    case = given(backend, pair, SQUARE, "float32")
    if backend.lazy or backend.mode in TRACED:
        with pytest.raises(Exception, match=r"computed inside a pair|[Tt]racer|Data-dependent|data-dependent|item"):
            LAWS["laziness"](backend, pair, case)
    else:
        LAWS["laziness"](backend, pair, case)


def test_another_library(eager: Backend) -> None:
    """A gradient that left for another library, as one that was computed does, breaks laziness."""
    other = load("strict" if eager.library == "numpy" else "numpy")[0]

    def backward(da: Any, z: Any, w: Any) -> AffineGradients:
        return affine_backward(da, z, w)._replace(db=other.asarray(np.ones(3)))

    pair = replace(AFFINE, backward=backward)
    with pytest.raises(AssertionError, match="breaks the law of laziness: a result's namespace"):
        LAWS["laziness"](eager, pair, given(eager, pair, SQUARE, "float32"))
