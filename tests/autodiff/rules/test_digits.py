"""The rules at 50 digits: a constant of 16 digits, or a formula that is only nearly right, shows."""

from collections.abc import Callable, Sequence
from typing import Any

import mparray
import numpy as np
import pytest
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
