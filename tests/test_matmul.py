"""The matmul pair: the laws on every shape and dtype, shapes that nobody thought of, and what it refuses."""

import numpy as np
import pytest
from backend import Backend
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import BroadcastableShapes, mutually_broadcastable_shapes
from laws import LAWS, LAYOUTS, SHAPE_LAWS, layouts
from laws import given as drawn
from pairs import MATMUL, MATMUL_SHAPES, matmul_shapes

from pullback import matmul_backward, matmul_forward


@pytest.mark.parametrize("law", SHAPE_LAWS)
@pytest.mark.parametrize("shape", MATMUL_SHAPES)
def test_shapes(eager: Backend, law: str, shape: str) -> None:
    LAWS[law](eager, MATMUL, drawn(eager, MATMUL, MATMUL_SHAPES[shape], "float32"))


@pytest.mark.parametrize("law", LAWS)
def test_dtypes(backend: Backend, dtype: str, law: str) -> None:
    LAWS[law](backend, MATMUL, drawn(backend, MATMUL, MATMUL_SHAPES["batches (B, 1) and C"], dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of", ["float32", "complex64"])
def test_layouts(backend: Backend, of: str, layout: str) -> None:
    layouts(layout, backend, MATMUL, drawn(backend, MATMUL, MATMUL_SHAPES["batches (B, 1) and C"], of))


SIGNATURE = "(n?,k),(k,m?)->(n?,m?)"


@settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck))
@given(shapes=mutually_broadcastable_shapes(signature=SIGNATURE, max_dims=3, min_side=0, max_side=3), data=st.data())
def test_any_shape(eager: Backend, shapes: BroadcastableShapes, data: st.DataObject) -> None:
    law = data.draw(st.sampled_from(["value", "structure"]))
    LAWS[law](eager, MATMUL, drawn(eager, MATMUL, matmul_shapes(*shapes.input_shapes), "float32"))


ERRORS = {
    "x1 0-d": ((), (3, 4), r"x1 and x2 must have at least one axis; got x1 \(\) and x2 \(3, 4\)$"),
    "x2 0-d": ((2, 3), (), r"x1 and x2 must have at least one axis; got x1 \(2, 3\) and x2 \(\)$"),
    "k": (
        (2, 5),
        (3, 4),
        r"the last axis of x1 must equal the first matrix axis of x2; got x1 \(2, 5\) and x2 \(3, 4\)",
    ),
    "k of vectors": ((2,), (3,), r"the last axis of x1 must equal .* of x2; got x1 \(2,\) and x2 \(3,\)$"),
    "k with a batch": ((3,), (3, 2, 4), r"the last axis of x1 must .* of x2; got x1 \(3,\) and x2 \(3, 2, 4\)$"),
    "batches": ((5, 2, 3), (4, 3, 6), r"the batch axes of x1 and x2 must be equal or 1; got x1 \(5, 2, 3\) and x2 "),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses_shapes(eager: Backend, case: str) -> None:
    shape1, shape2, message = ERRORS[case]
    x1, x2 = eager.asarray(np.ones(shape1)), eager.asarray(np.ones(shape2))
    with pytest.raises(ValueError, match=f"^matmul_forward: {message}"):
        matmul_forward(x1, x2)
    with pytest.raises(ValueError, match=f"^matmul_backward: {message}"):
        matmul_backward(x1, x1, x2)


@pytest.mark.parametrize("shape", [(2, 5), (3, 4), (4,), (1, 2, 4), ()])
def test_backward_refuses_another_shape_than_the_products(eager: Backend, shape: tuple[int, ...]) -> None:
    da, x1, x2 = (eager.asarray(np.ones(x)) for x in (shape, (2, 3), (3, 4)))
    message = r"matmul_backward: da must have the shape of the product x1 @ x2; got da \(.*\) and x1 \(2, 3\) and x2 "
    with pytest.raises(ValueError, match=message):
        matmul_backward(da, x1, x2)
