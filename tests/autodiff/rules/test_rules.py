"""The rules of all functions obey the laws, on each library."""

from collections.abc import Callable
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
    reference,
    same_values,
    second_by_grad,
    second_by_jvp,
    with_constants,
)
from tests.autodiff.rules.table import CASES
from tests.harness.backend import Backend

# Second orders consist of first orders of rules: libraries that are slow to call get a sample of them.
SECOND = list(CASES)[::8]


def derivatives(function: Callable[..., Any], xs: Any, ws: Any, vs: Any, *, second: bool) -> Any:
    """Return values, plain, traced and of constants, and all first and second derivatives."""
    out, pull = vjp(function, *xs)
    _, _, constants = vjp(with_constants(function, xs), xs[0], has_aux=True)
    return (
        (function(*xs), out, constants),
        (pull(tuple(ws)), jvp(function, tuple(xs), tuple(vs))[1]),
        (second_by_grad(function, xs, ws, vs), second_by_jvp(function, xs, ws, vs)) if second else (),
    )


# Variants of shapes and arguments, which no library treats in its own way.
VARIANTS = ("of a number", ", outer", ", no rows", ", no columns", "on the left", ", keepdims", ", two axes")
PARAMETERS = [
    pytest.param(name, marks=[pytest.mark.backends("numpy", "strict")] if name.endswith(VARIANTS) else [])
    for name in CASES
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_laws(backend_one_chunking: Backend, name: str) -> None:
    """The vjp and the jvp are the derivative, adjoint to each other, and so are both second derivatives.

    The values are those of the plain namespace, be the arrays active or constant. Nothing lazy is computed.
    """
    b, case, ref = backend_one_chunking, CASES[name], reference(name)
    # Dask factors and transforms one chunk at a time.
    put = b.blocks if name.startswith(("linalg.", "fft.")) else b.asarray
    arrays = [put(x, str(np.asarray(x).dtype)) for x in case.arrays]
    xs, function = [arrays[i] for i in floats(case.arrays)], function_of(case, arrays)
    ws, vs = ([put(x, str(x.dtype)) for x in directions] for directions in (ref.ws, ref.vs))
    twice = b.library in {"numpy", "strict"} or name in SECOND
    values, first, second = b.call(derivatives, function, xs, ws, vs, second=twice)
    expected = b.numpy(tuple(values[0]))
    for kind, value in zip(("plain", "active", "constant"), values, strict=True):
        assert type(value) is type(values[0])
        assert all(map(same_values, b.numpy(tuple(value)), expected)), f"values of {kind} arrays"
    for x, g in zip(xs, first[0], strict=True):
        described = [(tuple(y.shape), y.dtype, getattr(y, "device", None)) for y in (g, x)]
        assert described[0] == described[1]
    gradients, tangents = (list(found) for found in b.numpy(tuple(map(tuple, first))))
    assert_close("vjp", gradients, ref.gradients, DIFFERENCE)
    assert_close("jvp", tangents, ref.tangents, DIFFERENCE)
    scale = max(1.0, float(inner(list(map(np.abs, tangents)), list(map(np.abs, ref.ws)))))
    assert abs(inner(tangents, ref.ws) - inner(gradients, ref.vs)) <= C * np.finfo(float).eps * scale, "adjoint"
    for law, found in zip(("grad of grad", "jvp of grad"), b.numpy(tuple(map(tuple, second))), strict=False):
        assert_close(law, list(found), ref.second, DIFFERENCE)
