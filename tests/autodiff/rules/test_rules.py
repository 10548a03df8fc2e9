"""The rules of all functions obey the laws, on each library."""

from typing import Any

import numpy as np
import pytest

from pullback._autodiff import jvp, vjp
from tests.autodiff.rules.laws import (
    DIFFERENCE,
    C,
    assert_close,
    floats,
    function_of,
    inner,
    outputs,
    reference,
    same_values,
    second_by_grad,
    second_by_jvp,
)
from tests.autodiff.rules.table import CASES
from tests.harness.backend import Backend


@pytest.mark.parametrize("name", CASES)
def test_laws(backend_one_device: Backend, name: str) -> None:
    """The vjp and the jvp are the derivative, adjoint to each other, and so are both second derivatives."""
    b, case, ref = backend_one_device, CASES[name], reference(name)
    arrays = [b.asarray(x, str(np.asarray(x).dtype)) for x in case.arrays]
    xs, function = [arrays[i] for i in floats(case.arrays)], function_of(case, arrays)
    ws, vs = ([b.asarray(x, str(x.dtype)) for x in directions] for directions in (ref.ws, ref.vs))
    out, pull = vjp(function, *xs)
    gradients = pull(tuple(ws))
    for x, g in zip(xs, gradients, strict=True):
        assert (tuple(g.shape), g.dtype, getattr(g, "device", None)) == (
            tuple(x.shape),
            x.dtype,
            getattr(x, "device", None),
        )
    _, tangents = jvp(function, tuple(xs), tuple(vs))
    found, moved = list(map(b.numpy, gradients)), list(map(b.numpy, tangents))
    eps = max(np.finfo(x.dtype).eps for x in ref.xs)
    tolerance = max(DIFFERENCE, C * eps)
    assert_close("vjp", found, ref.gradients, tolerance)
    assert_close("jvp", moved, ref.tangents, tolerance)
    scale = max(1.0, float(inner(list(map(np.abs, moved)), list(map(np.abs, ref.ws)))))
    assert abs(inner(moved, ref.ws) - inner(found, ref.vs)) <= C * eps * scale, "adjoint identity"
    assert_close("grad of grad", list(map(b.numpy, second_by_grad(function, xs, ws, vs))), ref.second, tolerance)
    assert_close("jvp of grad", list(map(b.numpy, second_by_jvp(function, xs, ws, vs))), ref.second, tolerance)
    assert all(map(same_values, map(b.numpy, outputs(out)), map(b.numpy, function(*xs))))


@pytest.mark.parametrize("name", CASES)
def test_values_of_constants(backend_one_device: Backend, name: str) -> None:
    """Constants of the traced namespace have the values of the plain one."""
    b, case = backend_one_device, CASES[name]
    arrays = [b.asarray(x, str(np.asarray(x).dtype)) for x in case.arrays]
    function, xs = function_of(case, arrays), [arrays[i] for i in floats(case.arrays)]

    def constant(x: Any) -> Any:
        xp = x.__array_namespace__()
        return x, function(*map(xp.asarray, xs))

    _, _, values = vjp(constant, b.asarray(np.ones(2)), has_aux=True)
    plain = function(*xs)
    assert type(values) is type(plain)
    assert all(map(same_values, map(b.numpy, values), map(b.numpy, plain)))
