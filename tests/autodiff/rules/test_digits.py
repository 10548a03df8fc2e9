"""The rules at 50 digits: a constant of 16 digits, or a formula that is only nearly right, shows."""

from collections.abc import Callable, Sequence
from typing import Any

import mparray
import numpy as np
import pytest
from array_api_compat import array_namespace
from mpmath import mp, mpf

from pullback._autodiff import jvp, vjp
from tests.autodiff.rules.laws import (
    floats,
    function_of,
    inner,
    pull_function,
    reference,
    second_by_grad,
    second_by_jvp,
)
from tests.autodiff.rules.table import CASES
from tests.autodiff.rules.test_rules import VARIANTS

# Other tests run these branches; coverage would take as long as the 50 digits.
pytestmark = pytest.mark.no_cover

STEP = mpf(10) ** -10  # a difference of fourth order is wrong by 1e-40 then
DIGITS = mpf(10) ** -30

# mparray's log2, floor_divide and linspace fail, as does its asarray of arrays; it has no extensions.
GAPS = (
    *("log2", "remainder", "x % y", "4.9 % x", "x // y", "asarray of a list", "linspace", "linalg.", "fft."),
    "take_along_axis, last",
)


def difference(function: Callable[..., Any], xs: Sequence[Any], vs: Sequence[Any], /) -> list[Any]:
    def at(k: int) -> Any:
        return function(*(x + v * (k * STEP) for x, v in zip(xs, vs, strict=True)))

    parts = zip(at(1), at(-1), at(2), at(-2), strict=True)
    return [(8 * (a - b) - (c - d)) / (12 * STEP) for a, b, c, d in parts]


def assert_digits(law: str, got: Sequence[Any], right: Sequence[Any], /) -> None:
    for a, b in zip(got, right, strict=True):
        if 0 in b.shape:
            continue
        error, size = (mparray.max(mparray.abs(x))[()] for x in (a - b, b))
        assert error <= DIGITS * (1 + size), f"{law}: {a}, expected {b}"


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("name", [x for x in CASES if not x.startswith(GAPS) and not x.endswith((*VARIANTS, "none"))])
def test_digits(name: str) -> None:
    with mp.workdps(50):
        case, ref = CASES[name], reference(name)
        arrays = [mparray.asarray(np.asarray(x)) for x in case.arrays]
        xs, function = [arrays[i] for i in floats(case.arrays)], function_of(case, arrays)
        ws, vs = (list(map(mparray.asarray, directions)) for directions in (ref.ws, ref.vs))
        gradients = vjp(function, *xs)[1](tuple(ws))
        tangents = jvp(function, tuple(xs), tuple(vs))[1]
        assert_digits("jvp", tangents, difference(function, xs, vs))
        assert_digits("vjp", [mparray.asarray(inner(gradients, vs))], [mparray.asarray(inner(tangents, ws))])
        second = difference(pull_function(function, ws), xs, vs)
        assert_digits("grad of grad", second_by_grad(function, xs, ws, vs), second)
        assert_digits("jvp of grad", second_by_jvp(function, xs, ws, vs), second)


# What mparray lacks, by mpmath's own functions: the derivative of NumPy's float64 values to the last few digits.


def _symmetric(x: Any) -> Any:
    return (x + x.T) / 2


def _transform(x: Any) -> list[Any]:
    """Return real and imaginary parts of the Fourier transforms of rows."""
    n = x.cols
    turns = [[mp.expjpi(mpf(-2 * j * k) / n) for k in range(n)] for j in range(n)]
    rows = [[sum(x[i, k] * turn for k, turn in enumerate(row)) for row in turns] for i in range(x.rows)]
    return [part for row in rows for z in row for part in (z.real, z.imag)]


def _parts(xp: Any, z: Any) -> Any:
    return xp.stack([xp.real(z), xp.imag(z)], axis=-1)


def _convolved(x: Any) -> list[Any]:
    """Return the circular convolution of each row with itself."""
    n = x.cols
    return [sum(x[i, k] * x[i, (j - k) % n] for k in range(n)) for i in range(x.rows) for j in range(n)]


RIGHT = mp.matrix([[1.5, -0.25], [0.5, 2.0], [-1.0, 0.75]])
LACKING: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "inv": (lambda xp, x: xp.linalg.inv(x), mp.inverse),
    "det": (lambda xp, x: xp.linalg.det(x), lambda x: [mp.det(x)]),
    "slogdet": (lambda xp, x: xp.linalg.slogdet(x)[1], lambda x: [mp.log(abs(mp.det(x)))]),
    "solve": (
        lambda xp, x: xp.linalg.solve(x, xp.asarray(np.asarray(RIGHT.tolist(), dtype=float))),
        lambda x: mp.inverse(x) * RIGHT,
    ),
    "matrix_power": (lambda xp, x: xp.linalg.matrix_power(x, 3), lambda x: x * x * x),
    "negative matrix_power": (lambda xp, x: xp.linalg.matrix_power(x, -2), lambda x: mp.inverse(x * x)),
    "cholesky": (
        lambda xp, x: xp.linalg.cholesky((x + xp.matrix_transpose(x)) / 2),
        lambda x: mp.cholesky(_symmetric(x)),
    ),
    "eigvalsh": (
        lambda xp, x: xp.linalg.eigvalsh((x + xp.matrix_transpose(x)) / 2),
        lambda x: mp.eigsy(_symmetric(x), eigvals_only=True),
    ),
    "svdvals": (lambda xp, x: xp.linalg.svdvals(x), lambda x: mp.svd_r(x, compute_uv=False)),
    "pinv": (lambda xp, x: xp.linalg.pinv(x[:, :2]), lambda x: mp.inverse(x[:, :2].T * x[:, :2]) * x[:, :2].T),
    "nuclear norm": (
        lambda xp, x: xp.linalg.matrix_norm(x, ord="nuc"),
        lambda x: [sum(mp.svd_r(x, compute_uv=False))],
    ),
    "fft": (lambda xp, x: _parts(xp, xp.fft.fft(x)), _transform),
    "fft and back": (lambda xp, x: xp.fft.irfft(xp.fft.rfft(x) ** 2, n=3), _convolved),
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("name", LACKING)
def test_linear_algebra_and_transforms(name: str) -> None:
    call, exact = LACKING[name]
    rng = np.random.default_rng(5)
    x, v = np.diag([3.0, 2.0, 1.0]) + 0.3 * rng.standard_normal((3, 3)), rng.standard_normal((3, 3))

    def function(x: Any) -> Any:
        return call(array_namespace(x), x)

    out, pull = vjp(function, x)
    w = rng.standard_normal(out.shape)
    (gradient,) = pull(w)
    with mp.workdps(50):
        point, along = mp.matrix(x.tolist()), mp.matrix(v.tolist())

        def at(k: int) -> Any:
            moved = exact(point + along * (k * STEP))
            return list(moved)

        slopes = [
            (8 * (a - b) - (c - d)) / (12 * STEP) for a, b, c, d in zip(at(1), at(-1), at(2), at(-2), strict=True)
        ]
        expected = sum(slope * mpf(float(factor)) for slope, factor in zip(slopes, w.reshape(-1), strict=True))
    size = float(np.sum(np.abs(gradient * v)))
    assert abs(float(np.sum(gradient * v)) - float(expected)) <= 64 * np.finfo(float).eps * np.linalg.cond(x) * size
