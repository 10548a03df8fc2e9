"""Gradients through calls of SciPy, scikit-learn, array_api_extra and einops as they stand.

Each call of the lists in this folder has the outcome that its line states, on each library: one that is listed as right
and is not fails, and so does one that is listed as refused and has become right.
"""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.spatial

import pullback as pb
from benchmarks import saved
from tests.consumers.lists import BACKENDS, LISTS, Call, calls, stated
from tests.consumers.runner import ACTIVE, outcome, quietly, scalar_function
from tests.harness.backend import Backend

CALLS = [pytest.param(call, id=call.expression) for library in LISTS for call in calls(library)]
EAGER = pytest.mark.backends(*BACKENDS)


def test_scipy_asks_for_the_namespace() -> None:
    assert os.environ.get("SCIPY_ARRAY_API") == "1", "set it before SciPy is imported: the session `consumers` does"


@EAGER
@pytest.mark.parametrize("call", CALLS)
def test_outcome(backend_one_chunking: Backend, call: Call) -> None:
    # SciPy's compiled code takes no read-only arrays.
    kind, reason = outcome(call, replace(backend_one_chunking, mode="plain"))
    assert kind == call.outcome(backend_one_chunking.library), reason


@pytest.mark.backends("dask")
@pytest.mark.parametrize("call", CALLS)
def test_nothing_lazy_is_computed(backend_one_chunking: Backend, call: Call) -> None:
    """Recording a call on Dask computes nothing, whether it succeeds or is refused."""
    import dask  # noqa: PLC0415 - only where this backend was asked for

    computed = []

    def scheduler(*_: Any, **__: Any) -> Any:
        computed.append(call.expression)
        msg = "a lazy array was computed while it was recorded"
        raise AssertionError(msg)

    function, names = scalar_function(call, backend_one_chunking.blocks)
    arrays = [backend_one_chunking.blocks(ACTIVE[name]) for name in names]
    with dask.config.set(scheduler=scheduler), quietly():
        try:
            pb.grad(function, argnums=tuple(range(len(arrays))))(*arrays)
        except Exception as error:  # noqa: BLE001 - whatever a library raises for lazy arrays
            assert not isinstance(error, AssertionError), error  # noqa: PT017
    assert computed == []


@EAGER
def test_a_rotation_matrix_moves_along_rotations(backend_one_chunking: Backend) -> None:
    """`Rotation.from_matrix` leaves out its projection at an orthogonal matrix: the gradient holds along rotations."""
    b = replace(backend_one_chunking, mode="plain")
    rotation = scipy.spatial.transform.Rotation
    matrix = rotation.from_rotvec(np.asarray([0.4, -0.3, 0.7])).as_matrix()
    spin = np.asarray([[0.0, -0.2, 0.5], [0.2, 0.0, -0.9], [-0.5, 0.9, 0.0]])

    def function(r: Any) -> Any:
        return rotation.from_matrix(r).as_quat()[..., 0]

    gradient = b.numpy(pb.grad(function)(b.asarray(matrix)))
    turned = [rotation.from_rotvec(h * np.asarray([0.9, 0.5, 0.2])).as_matrix() @ matrix for h in (1e-6, -1e-6)]
    along = (function(turned[0]) - function(turned[1])) / 2e-6
    np.testing.assert_allclose(np.sum(gradient * (spin @ matrix)), along, rtol=1e-8)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("library", LISTS)
def test_shares(library: str) -> None:
    """Most calls that a library carries out are differentiated."""
    found = [call.outcome("numpy") for call in calls(library)]
    least = {"scipy": 0.8, "scikit_learn": 0.8, "array_api_extra": 1.0, "einops": 1.0}[library]
    assert found.count("right") >= least * (len(found) - found.count("missing"))


@pytest.mark.backends("numpy")
def test_the_saved_table_states_the_lists() -> None:
    """The guide shows a saved run: python -m benchmarks --only=consumers --save=benchmarks/results writes it."""
    columns = ["calls of", *BACKENDS.values()]
    assert [[row[column] for column in columns] for row in saved.rows("consumers", "consumers")] == stated()
