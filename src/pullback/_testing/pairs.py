"""The pairs of this package, each with small inputs: what `pullback check` checks. A new pair is a new entry."""

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from pullback._core.typing import Array, Namespace
from pullback._ops.affine import affine_backward, affine_double_backward, affine_forward, affine_jvp
from pullback._ops.forms import (
    frobenius_inner,
    frobenius_inner_backward,
    quadratic_form,
    quadratic_form_backward,
    trace_of_product,
    trace_of_product_backward,
)
from pullback._ops.losses.cross_entropy import softmax_cross_entropy
from pullback._ops.losses.huber import huber
from pullback._ops.losses.logistic import logistic
from pullback._ops.losses.poisson import poisson
from pullback._ops.losses.reduction import Loss
from pullback._ops.losses.squared_error import squared_error
from pullback._ops.matmul import matmul_backward, matmul_double_backward, matmul_forward, matmul_jvp
from pullback._ops.stack import GELU, LEAKY_RELU, LOG_SOFTMAX, RELU, SIGMOID, SILU, SOFTMAX, SOFTPLUS, TANH, Activation
from pullback._testing.check import check_pair
from pullback._testing.report import Finding, PairReport
from pullback._testing.sampling import draw_upstream


class Pair(NamedTuple):
    """A pair and what `check_pair` needs to know of it."""

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    inputs: dict[str, tuple[int, ...] | list[Any]]  # the shape of an array to draw, or its integers
    needs: tuple[str, ...]
    jvp: Callable[..., Any] | None = None
    double_backward: Callable[..., Any] | None = None
    real: bool = False  # whether it takes no complex numbers

    def dtypes(self, xp: Namespace, /) -> list[str]:
        """Return the dtypes to check in: those of the standard that the library has, and the pair takes."""
        kinds = ("real floating",) if self.real else ("real floating", "complex floating")
        return list(xp.__array_namespace_info__().dtypes(kind=kinds))

    def check(self, xp: Namespace, /) -> "Checked":
        """Check the pair on the default device of a library, in each dtype."""
        checked = Checked([], [])
        for dtype in self.dtypes(xp):
            random = Random(self.name)  # noqa: S311 - not for secrets
            try:
                report = check_pair(
                    self.forward,
                    self.backward,
                    *(_input(xp, random, what, dtype) for what in self.inputs.values()),
                    names=tuple(self.inputs),
                    needs=self.needs,
                    jvp=self.jvp,
                    double_backward=self.double_backward,
                )
            except Exception as error:  # noqa: BLE001 - whatever a library raises is a fault of the pair on it
                what = f"{self.name} in {dtype}"
                if not (error.args and isinstance(error.args[0], PairReport)):
                    checked.faults.append(f"{what} raises {type(error).__name__}: {' '.join(str(error).split())}")
                    continue
                report = error.args[0]
                checked.faults.extend(f"{what} breaks the {finding}" for finding in report.broken)
            checked.findings.extend(report.findings)
        return checked


class Checked(NamedTuple):
    """What a pair came to on a library, in all dtypes."""

    findings: list[Finding]
    faults: list[str]

    def part(self, law: str, /) -> str:
        """Return the largest error that a law found, as a part of its tolerance; "-" if there is none."""
        double = "(double backward)"
        parts = [
            finding.error / finding.tolerance
            for finding in self.findings
            if finding.tolerance > 0 and law == (double if finding.of.endswith(double) else finding.law)
        ]
        return f"{max(parts):.3f}" if parts else "-"


def _input(xp: Namespace, random: Random, what: tuple[int, ...] | list[Any], dtype: str, /) -> Array:
    """Draw an array, or make one of integers; in chunks, if it can have them."""
    x = xp.asarray(what) if isinstance(what, list) else draw_upstream(random, xp.zeros(what, dtype=getattr(xp, dtype)))
    rechunk = getattr(x, "rechunk", None)
    out: Array = x if rechunk is None else rechunk(2)
    return out


def _affine_jvp(z: Array, w: Array, _: Array, *tangents: Array) -> Array:
    z_tangent, w_tangent, b_tangent = tangents
    return affine_jvp(z, w, z_tangent=z_tangent, w_tangent=w_tangent, b_tangent=b_tangent)


def _matmul_jvp(x1: Array, x2: Array, x1_tangent: Array, x2_tangent: Array) -> Array:
    return matmul_jvp(x1, x2, x1_tangent=x1_tangent, x2_tangent=x2_tangent)


def _loss(loss: Callable[..., Loss], y: list[Any], /) -> Pair:
    """Make a pair of a loss, whose value and gradient come in one call. Integer targets have no gradient."""

    def value(a: Array, y: Array) -> Array:
        return loss(a, y).value

    def gradient(dvalue: Array, a: Array, y: Array) -> Array:
        return loss(a, y).da * dvalue

    return Pair(loss.__name__, value, gradient, {"a": (4, 3), "y": y}, ("a", "y"), real=True)


def _activation(activation: Activation, /) -> Pair:
    """Make a pair of an activation, whose backward takes the input."""
    forward, backward, saves = activation

    def gradient(dh: Array, a: Array) -> Array:
        return backward(dh, a if saves == "input" else forward(a))

    # A tangent takes no number across zero, where some have a kink.
    return Pair(forward.__name__.removesuffix("_forward"), forward, gradient, {"a": (4, 3)}, ("a",), real=True)


# The counts leave errors on both sides of the kink of `huber`, none on it.
_COUNTS = [[3, 0, 5], [0, 4, 0], [6, 0, 7], [0, 0, 3]]
_LABELS = [[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]]

PAIRS = [
    Pair(
        "affine",
        affine_forward,
        affine_backward,
        {"z": (4, 2, 3), "w": (3, 5), "b": (5,)},
        ("z", "w"),
        _affine_jvp,
        affine_double_backward,
    ),
    Pair(
        "matmul",
        matmul_forward,
        matmul_backward,
        {"x1": (3, 1, 2, 3), "x2": (2, 3, 4)},
        ("x1", "x2"),
        _matmul_jvp,
        matmul_double_backward,
    ),
    Pair("frobenius_inner", frobenius_inner, frobenius_inner_backward, {"x": (4, 3), "y": (4, 3)}, ("x", "y")),
    Pair("trace_of_product", trace_of_product, trace_of_product_backward, {"x": (4, 3), "w": (3, 4)}, ("x", "w")),
    Pair("quadratic_form", quadratic_form, quadratic_form_backward, {"x": (4, 3), "A": (3, 3)}, ("x", "A")),
    _loss(squared_error, _COUNTS),
    _loss(huber, _COUNTS),
    _loss(logistic, _LABELS),
    _loss(poisson, _COUNTS),
    _loss(softmax_cross_entropy, [0, 1, 2, 0]),
    *map(_activation, (RELU, LEAKY_RELU, SOFTPLUS, SIGMOID, TANH, SILU, GELU, SOFTMAX, LOG_SOFTMAX)),
]
