"""The inner product and the trace: the laws on every shape and dtype, long sums, and what they refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pullback import (
    affine_backward,
    frobenius_inner,
    frobenius_inner_backward,
    trace_of_product,
    trace_of_product_backward,
)
from tests.harness.backend import Backend
from tests.harness.pair_cases import FROBENIUS, FROBENIUS_SHAPES, TRACE, TRACE_SHAPES, Shape
from tests.harness.pair_laws import LAWS, LAYOUTS, SHAPE_LAWS, ReferencedPair, given, layouts

SHAPES: list[tuple[ReferencedPair, dict[str, Shape]]] = [
    *((FROBENIUS, shapes) for shapes in FROBENIUS_SHAPES.values()),
    *((TRACE, shapes) for shapes in TRACE_SHAPES.values()),
]
PAIRS = [(FROBENIUS, FROBENIUS_SHAPES["3-d"]), (TRACE, TRACE_SHAPES["wide"])]


@pytest.mark.parametrize("law", SHAPE_LAWS)
@pytest.mark.parametrize(("pair", "shapes"), SHAPES, ids=lambda x: x.name if isinstance(x, ReferencedPair) else str(x))
def test_shapes(backend_one_device: Backend, pair: ReferencedPair, shapes: dict[str, Shape], law: str) -> None:
    LAWS[law](backend_one_device, pair, given(backend_one_device, pair, shapes, "float32"))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("pair", "shapes"), PAIRS, ids=["frobenius", "trace"])
def test_dtypes(backend: Backend, dtype: str, pair: ReferencedPair, shapes: dict[str, Shape], law: str) -> None:
    LAWS[law](backend, pair, given(backend, pair, shapes, dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("pair", "shapes"), PAIRS, ids=["frobenius", "trace"])
def test_layouts(backend_one_device: Backend, pair: ReferencedPair, shapes: dict[str, Shape], layout: str) -> None:
    layouts(layout, backend_one_device, pair, given(backend_one_device, pair, shapes, "complex64"))


def test_long_sums(backend_one_device: Backend) -> None:
    """The error of a float32 sum is that of its terms, each rounded once: half an eps, and never their number's."""
    x = np.full((400_000, 2), 0.1, dtype="float32")
    exact = float(np.float64(x[0, 0]) ** 2) * x.size
    value = float(backend_one_device.numpy(frobenius_inner(backend_one_device.blocks(x), backend_one_device.blocks(x))))
    bound = 2.0**-23 if "float64" in backend_one_device.dtypes else 1e-4
    assert abs(value - exact) <= bound * exact
    trace = float(
        backend_one_device.numpy(trace_of_product(backend_one_device.blocks(x), backend_one_device.blocks(x.T.copy())))
    )
    assert abs(trace - exact) <= bound * exact


def test_complex_gradients_of_real_primals(backend_one_device: Backend) -> None:
    x, y = np.asarray([[1.0, 2.0]]), np.asarray([[3.0 + 1j, 4.0 - 2j]])
    real, other = backend_one_device.asarray(x), backend_one_device.asarray(y)
    assert complex(backend_one_device.numpy(frobenius_inner(real, other))) == 11 - 3j
    assert complex(backend_one_device.numpy(frobenius_inner(other, real))) == 11 + 3j
    dvalue = backend_one_device.asarray(np.asarray(1 + 1j))
    dx, dy = backend_one_device.numpy(frobenius_inner_backward(dvalue, real, other))
    assert (dx.tolist(), dy.tolist()) == ([[4, 2]], [[1 + 1j, 2 + 2j]])
    dx, dw = backend_one_device.numpy(trace_of_product_backward(dvalue, real, backend_one_device.asarray(y.T.copy())))
    assert (dx.tolist(), dw.tolist()) == ([[4, 2]], [[1 + 1j], [2 + 2j]])


def test_trace_is_the_affine_map_with_an_identity_upstream(backend_one_device: Backend) -> None:
    x, w = (backend_one_device.asarray(np.arange(12.0).reshape(shape)) for shape in ((3, 4), (4, 3)))
    one, identity = backend_one_device.asarray(np.ones(())), backend_one_device.asarray(np.eye(3))
    gradients = backend_one_device.numpy(trace_of_product_backward(one, x, w))
    for got, right in zip(gradients, backend_one_device.numpy(affine_backward(identity, x, w))[:2], strict=True):
        np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("shape", [(4, 3), (3,), (1, 3, 4), (3, 4, 1), ()])
def test_frobenius_refuses_shapes(backend_one_device: Backend, shape: Shape) -> None:
    x, y, one = (backend_one_device.asarray(np.ones(of)) for of in ((3, 4), shape, ()))
    message = r"x and y must have the same shape; got x \(3, 4\) and y \("
    with pytest.raises(ValueError, match=f"^frobenius_inner: {message}"):
        frobenius_inner(x, y)
    with pytest.raises(ValueError, match=f"^frobenius_inner_backward: {message}"):
        frobenius_inner_backward(one, x, y)


@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((3, 4), (4, 2)), ((3,), (3,)), ((2, 3, 4), (4, 3, 2))], ids=str)
def test_trace_refuses_shapes(backend_one_device: Backend, shapes: tuple[Shape, Shape]) -> None:
    x, w, one = (backend_one_device.asarray(np.ones(of)) for of in (*shapes, ()))
    message = r"x and w must be matrices of shapes \(n, k\) and \(k, n\); got x \("
    with pytest.raises(ValueError, match=f"^trace_of_product: {message}"):
        trace_of_product(x, w)
    with pytest.raises(ValueError, match=f"^trace_of_product_backward: {message}"):
        trace_of_product_backward(one, x, w)


@pytest.mark.parametrize("backward", [frobenius_inner_backward, trace_of_product_backward])
def test_backwards_reject_another_shape_than_the_values(
    backend_one_device: Backend, backward: Callable[..., Any]
) -> None:
    x, dvalue = backend_one_device.asarray(np.ones((3, 3))), backend_one_device.asarray(np.ones((1,)))
    with pytest.raises(
        ValueError, match=r"_backward: dvalue must have the shape of the value, \(\); got dvalue \(1,\)$"
    ):
        backward(dvalue, x, x)
