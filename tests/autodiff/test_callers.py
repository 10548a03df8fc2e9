"""Errors name the function of a library that converted an array."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy
from array_api_compat import array_namespace

import pullback as pb

pytestmark = pytest.mark.backends("numpy")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: scipy.signal.lfilter(x, 1.0, x), "scipy.signal.lfilter"),
        (lambda x: scipy.ndimage.gaussian_filter(x, 1.0), "scipy.ndimage.gaussian_filter"),
        (lambda x: scipy.interpolate.PchipInterpolator([0.0, 1.0], x), "scipy.interpolate.PchipInterpolator"),
    ],
    ids=["NumPy's dispatch", "a conversion", "a class"],
)
def test_the_function_and_the_way_out(function: Callable[..., Any], name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: numpy.* custom_vjp"):
        pb.grad(function)(np.asarray([1.0, 2.0]))


def test_no_name_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "__name__", "__main__")
    with pytest.raises(TypeError, match=r"^numpy\.asarray cannot follow"):
        pb.grad(np.asarray)(np.asarray(1.0))


def test_squares_of_infinity_that_are_left_out() -> None:
    """A square under a zero cotangent contributes zero, as in the incremental variance of scikit-learn."""

    def function(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(xp.where(x > 0, x, (x + np.inf) ** 2))

    np.testing.assert_array_equal(pb.grad(function)(np.asarray([1.0, 2.0])), 1.0)
