"""The guide's functions: the gradients that NumPy's arrays give, on each library."""

from typing import Any

import numpy as np
import pytest

import pullback as pb
from pullback._core import trees
from tests.harness.backend import Backend
from tests.harness.guide_programs import PROGRAMS


@pytest.mark.parametrize(
    "name",
    [
        # SciPy's functions are NumPy's.
        pytest.param(x, marks=[pytest.mark.backends("numpy")] if x == "special functions" else [])
        for x in PROGRAMS
    ],
)
def test_gradients(backend_one_chunking: Backend, name: str) -> None:
    b = backend_one_chunking
    # A hundred iterations on many chunks are a graph of thousands of tasks.
    put_all = b.blocks if name == "implicit layer" else b.asarray

    def gradients(put: Any) -> Any:
        function, arguments = PROGRAMS[name](put)
        given = trees.rebuild(arguments, put)
        return pb.value_and_grad(function, tuple(range(len(given))))(*given)

    found, right = b.call(gradients, put_all), gradients(np.asarray)
    for got, expected in zip(trees.leaves(found), trees.leaves(right), strict=True):
        assert np.max(np.abs(b.numpy(got) - expected)) <= 1e-12 * (1 + np.max(np.abs(expected)))
