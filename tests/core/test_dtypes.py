"""Kinds and spacings of dtypes, also of those that another package adds to NumPy."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pullback._core.dtypes import epsilon, is_dtype


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(("dtype", "eps"), [("float32", 2.0**-23), (ml_dtypes.bfloat16, 2.0**-7)])
def test_epsilon(dtype: Any, eps: float) -> None:
    assert epsilon(np, np.dtype(dtype)) == eps


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(
    ("dtype", "kinds"),
    [
        ("float32", {"real floating"}),
        ("complex64", {"complex floating"}),
        ("int8", {"integral"}),
        (ml_dtypes.bfloat16, {"real floating"}),
        (ml_dtypes.int4, set()),
        ("m8[s]", set()),
    ],
)
def test_kinds_of_dtypes(dtype: Any, kinds: set[str]) -> None:
    asked = ("real floating", "complex floating", "integral")
    assert {kind for kind in asked if is_dtype(np, np.dtype(dtype), kind)} == kinds
