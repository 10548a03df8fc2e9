"""The matmul family: the laws on every shape and dtype, shapes that nobody thought of, and what it refuses."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import BroadcastableShapes, mutually_broadcastable_shapes

from pullback import matmul_backward, matmul_double_backward, matmul_forward, matmul_jvp
from tests.harness.backend import Backend, sampled
from tests.harness.order_laws import ORDER_LAWS
from tests.harness.pair_cases import MATMUL, MATMUL_SHAPES, matmul_shapes
from tests.harness.pair_laws import LAWS, LAYOUTS, SHAPE_LAWS, layouts, relaid
from tests.harness.pair_laws import given as drawn


@pytest.mark.parametrize("law", SHAPE_LAWS)
@pytest.mark.parametrize("shape", sampled(MATMUL_SHAPES))
def test_shapes(backend_one_device: Backend, law: str, shape: str) -> None:
    LAWS[law](backend_one_device, MATMUL, drawn(backend_one_device, MATMUL, MATMUL_SHAPES[shape], "float32"))


@pytest.mark.parametrize("law", LAWS)
def test_dtypes(backend: Backend, dtype: str, law: str) -> None:
    LAWS[law](backend, MATMUL, drawn(backend, MATMUL, MATMUL_SHAPES["batches (B, 1) and C"], dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of", ["float32", "complex64"])
def test_layouts(backend: Backend, of: str, layout: str) -> None:
    layouts(layout, backend, MATMUL, drawn(backend, MATMUL, MATMUL_SHAPES["batches (B, 1) and C"], of))


@pytest.mark.parametrize("law", ["tangent", "double backward"])
@pytest.mark.parametrize("shape", sampled(MATMUL_SHAPES))
def test_shapes_of_orders(backend_one_device: Backend, law: str, shape: str) -> None:
    ORDER_LAWS[law](backend_one_device, MATMUL, drawn(backend_one_device, MATMUL, MATMUL_SHAPES[shape], "float32"))


@pytest.mark.parametrize("law", ORDER_LAWS)
def test_dtypes_of_orders(backend: Backend, dtype: str, law: str) -> None:
    ORDER_LAWS[law](backend, MATMUL, drawn(backend, MATMUL, MATMUL_SHAPES["3-d 2-d"], dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_orders(backend_one_device: Backend, layout: str) -> None:
    case = relaid(layout, backend_one_device, drawn(backend_one_device, MATMUL, MATMUL_SHAPES["3-d 2-d"], "complex64"))
    ORDER_LAWS["tangent"](backend_one_device, MATMUL, case)
    ORDER_LAWS["double backward"](backend_one_device, MATMUL, case)


def test_double_backward_is_made_of_the_family(backend_one_device: Backend) -> None:
    ddx1, ddx2, da, x1, x2 = (
        backend_one_device.asarray(np.arange(float(np.prod(shape))).reshape(shape))
        for shape in ((5, 1, 2, 3), (4, 3, 6), (5, 4, 2, 6), (5, 1, 2, 3), (4, 3, 6))
    )
    expected = (
        matmul_jvp(x1, x2, x1_tangent=ddx1, x2_tangent=ddx2),
        matmul_backward(da, x1, ddx2).dx1,
        matmul_backward(da, ddx1, x2).dx2,
    )
    for got, right in zip(matmul_double_backward(ddx1, ddx2, da, x1, x2), expected, strict=True):
        np.testing.assert_array_equal(backend_one_device.numpy(got), backend_one_device.numpy(right))
    assert matmul_double_backward(None, None, da, x1, x2) == (None, None, None)


SIGNATURE = "(n?,k),(k,m?)->(n?,m?)"


@pytest.mark.backends("numpy", "strict")
@settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck))
@given(shapes=mutually_broadcastable_shapes(signature=SIGNATURE, max_dims=3, min_side=0, max_side=3), data=st.data())
def test_any_shape(backend_one_device: Backend, shapes: BroadcastableShapes, data: st.DataObject) -> None:
    law = data.draw(st.sampled_from(["value", "check"]))
    LAWS[law](
        backend_one_device, MATMUL, drawn(backend_one_device, MATMUL, matmul_shapes(*shapes.input_shapes), "float32")
    )


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
def test_refuses_shapes(backend_one_device: Backend, case: str) -> None:
    shape1, shape2, message = ERRORS[case]
    x1, x2 = backend_one_device.asarray(np.ones(shape1)), backend_one_device.asarray(np.ones(shape2))
    with pytest.raises(ValueError, match=f"^matmul_forward: {message}"):
        matmul_forward(x1, x2)
    with pytest.raises(ValueError, match=f"^matmul_backward: {message}"):
        matmul_backward(x1, x1, x2)


@pytest.mark.parametrize("shape", [(2, 5), (3, 4), (4,), (1, 2, 4), ()])
def test_backward_refuses_another_shape_than_the_products(backend_one_device: Backend, shape: tuple[int, ...]) -> None:
    da, x1, x2 = (backend_one_device.asarray(np.ones(x)) for x in (shape, (2, 3), (3, 4)))
    message = r"matmul_backward: da must have the shape of the product x1 @ x2; got da \(.*\) and x1 \(2, 3\) and x2 "
    with pytest.raises(ValueError, match=message):
        matmul_backward(da, x1, x2)


def test_orders_reject_shapes(backend_one_device: Backend) -> None:
    da, x1, x2, other = (backend_one_device.asarray(np.ones(x)) for x in ((2, 4), (2, 3), (3, 4), (4, 3)))
    with pytest.raises(
        ValueError, match=r"^matmul_jvp: the last axis of x1 must equal the first matrix axis of x2; got "
    ):
        matmul_jvp(x1, da, x1_tangent=x1)
    with pytest.raises(
        ValueError, match=r"^matmul_jvp: x1_tangent must have the shape of x1; got x1_tangent \(4, 3\) and x1 "
    ):
        matmul_jvp(x1, x2, x1_tangent=other)
    with pytest.raises(
        ValueError, match=r"^matmul_jvp: x2_tangent must have the shape of x2; got x2_tangent \(4, 3\) and x2 "
    ):
        matmul_jvp(x1, x2, x2_tangent=other)
    with pytest.raises(
        ValueError, match=r"^matmul_double_backward: da must have the shape of the product x1 @ x2; got da "
    ):
        matmul_double_backward(x1, x2, other, x1, x2)
    with pytest.raises(
        ValueError, match=r"^matmul_double_backward: ddx1 must have the shape of x1; got ddx1 \(4, 3\) and x1 "
    ):
        matmul_double_backward(other, x2, da, x1, x2)
    with pytest.raises(
        ValueError, match=r"^matmul_double_backward: ddx2 must have the shape of x2; got ddx2 \(4, 3\) and x2 "
    ):
        matmul_double_backward(x1, other, da, x1, x2)


def test_jvp_refuses_no_tangent(backend_one_device: Backend) -> None:
    x1, x2 = backend_one_device.asarray(np.ones((2, 3))), backend_one_device.asarray(np.ones((3, 4)))
    message = r"^matmul_jvp: at least one tangent must be given; got none\. Pass x1_tangent or x2_tangent$"
    with pytest.raises(ValueError, match=message):
        matmul_jvp(x1, x2)
