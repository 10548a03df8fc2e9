"""The quadratic form: the laws that hold for a form that is not affine."""

import numpy as np
import pytest

from pullback import quadratic_form, quadratic_form_backward
from tests.harness.backend import Backend
from tests.harness.pair_cases import QUADRATIC, QUADRATIC_SHAPES, Shape
from tests.harness.pair_laws import LAWS, LAYOUTS, given, layouts

# That of NaN and infinity starts from zero, which tells of maps that are affine.
QUADRATIC_LAWS = ("value", "check", "wrt")


@pytest.mark.parametrize("law", ["value", "check"])
@pytest.mark.parametrize("shape", QUADRATIC_SHAPES)
def test_shapes(backend_one_device: Backend, law: str, shape: str) -> None:
    LAWS[law](backend_one_device, QUADRATIC, given(backend_one_device, QUADRATIC, QUADRATIC_SHAPES[shape], "float32"))


@pytest.mark.parametrize("law", QUADRATIC_LAWS)
def test_dtypes(backend: Backend, dtype: str, law: str) -> None:
    LAWS[law](backend, QUADRATIC, given(backend, QUADRATIC, QUADRATIC_SHAPES["3-d"], dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend_one_device: Backend, layout: str) -> None:
    layouts(
        layout,
        backend_one_device,
        QUADRATIC,
        given(backend_one_device, QUADRATIC, QUADRATIC_SHAPES["3-d"], "complex64"),
    )


def test_symmetric(backend_one_device: Backend) -> None:
    """The gradient is 2 A x for a symmetric matrix, and for no other."""
    x, matrix = np.asarray([1.0, 2.0]), np.asarray([[1.0, 3.0], [3.0, 5.0]])
    one = backend_one_device.asarray(np.ones(()))
    dx = backend_one_device.numpy(
        quadratic_form_backward(one, backend_one_device.asarray(x), backend_one_device.asarray(matrix)).dx
    )
    assert dx.tolist() == (2 * matrix @ x).tolist()
    matrix[0, 1] = 0
    dx = backend_one_device.numpy(
        quadratic_form_backward(one, backend_one_device.asarray(x), backend_one_device.asarray(matrix)).dx
    )
    assert dx.tolist() == ((matrix + matrix.T) @ x).tolist() != (2 * matrix @ x).tolist()


def test_complex_gradients_of_real_primals(backend_one_device: Backend) -> None:
    """For L = Re (conj(d) xᵀ A x): the gradient of x is the real part of d conj((A + Aᵀ) x)."""
    x, matrix, d = np.asarray([[1.0, 2.0]]), np.asarray([[1j, 2.0], [3.0, 1 - 1j]]), np.asarray([2 + 1j])
    dx, dmatrix = backend_one_device.numpy(
        quadratic_form_backward(*(backend_one_device.asarray(y) for y in (d, x, matrix)))
    )
    assert dx.tolist() == (d[:, None] * np.conj(x @ (matrix + matrix.T))).real.tolist()
    assert dmatrix.tolist() == (d * np.outer(x, x)).tolist()


def test_nan_and_infinity_show_up_where_the_formula_sends_them(backend_one_device: Backend) -> None:
    def unfinite(dvalue: object, x: object, matrix: object) -> tuple[list[list[int]], list[list[int]]]:
        arrays = (backend_one_device.asarray(y) for y in (dvalue, x, matrix))
        with np.errstate(invalid="ignore"):
            dx, dmatrix = backend_one_device.numpy(quadratic_form_backward(*arrays))
        return np.argwhere(~np.isfinite(dx)).tolist(), np.argwhere(~np.isfinite(dmatrix)).tolist()

    dvalue, x, matrix = np.ones(2), np.ones((2, 3)), np.ones((3, 3))
    bad_d, bad_x, bad_matrix = dvalue.copy(), x.copy(), matrix.copy()
    bad_d[0], bad_x[1, 0], bad_matrix[0, 1] = np.inf, np.nan, np.nan
    everywhere = np.argwhere(np.ones((3, 3))).tolist()
    assert unfinite(bad_d, x, matrix) == ([[0, 0], [0, 1], [0, 2]], everywhere)
    cross = [indices for indices in everywhere if 0 in indices]
    assert unfinite(dvalue, bad_x, matrix) == ([[1, 0], [1, 1], [1, 2]], cross)
    assert unfinite(dvalue, x, bad_matrix) == ([[0, 0], [0, 1], [1, 0], [1, 1]], [])


ERRORS = {
    "x 0-d": ((), (3, 3), r"x must have at least one axis, shape \(\.\.\., k\); got x \(\)$"),
    "A 1-d": ((2, 3), (3,), r"A must have shape \(k, k\) for x \(\.\.\., k\); got x \(2, 3\) and A \(3,\)$"),
    "A not square": ((2, 3), (3, 4), r"A must have shape \(k, k\) for .*; got x \(2, 3\) and A \(3, 4\)$"),
    "k": ((2, 3), (2, 2), r"A must have shape \(k, k\) for .*; got x \(2, 3\) and A \(2, 2\)$"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses_shapes(backend_one_device: Backend, case: str) -> None:
    of_x, of_matrix, message = ERRORS[case]
    x, matrix = backend_one_device.asarray(np.ones(of_x)), backend_one_device.asarray(np.ones(of_matrix))
    with pytest.raises(ValueError, match=f"^quadratic_form: {message}"):
        quadratic_form(x, matrix)
    with pytest.raises(ValueError, match=f"^quadratic_form_backward: {message}"):
        quadratic_form_backward(x, x, matrix)


@pytest.mark.parametrize("shape", [(2, 1), (3,), ()])
def test_backward_refuses_another_shape_than_the_values(backend_one_device: Backend, shape: Shape) -> None:
    dvalue, x, matrix = (backend_one_device.asarray(np.ones(of)) for of in (shape, (2, 3), (3, 3)))
    message = r"^quadratic_form_backward: dvalue must have the shape of the value, \(2,\); got dvalue \("
    with pytest.raises(ValueError, match=message):
        quadratic_form_backward(dvalue, x, matrix)
