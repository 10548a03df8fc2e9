"""The affine pair: the laws on every shape and dtype, the case worked by hand, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from backend import Backend
from laws import EPS, LAWS, LAYOUTS, SHAPE_LAWS, C, given, layouts
from pairs import AFFINE, AFFINE_SHAPES

from pullback import affine_backward, affine_forward


@pytest.mark.parametrize("law", SHAPE_LAWS)
@pytest.mark.parametrize("shape", AFFINE_SHAPES)
def test_shapes(eager: Backend, law: str, shape: str) -> None:
    LAWS[law](eager, AFFINE, given(eager, AFFINE, AFFINE_SHAPES[shape], "float32"))


@pytest.mark.parametrize("law", LAWS)
def test_dtypes(backend: Backend, dtype: str, law: str) -> None:
    LAWS[law](backend, AFFINE, given(backend, AFFINE, AFFINE_SHAPES["3-d"], dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of", ["float32", "complex64"])
def test_layouts(backend: Backend, of: str, layout: str) -> None:
    layouts(layout, backend, AFFINE, given(backend, AFFINE, AFFINE_SHAPES["3-d"], of))


def test_by_hand(backend: Backend, dtype: str) -> None:
    z, da = backend.rows([[1, 2], [3, 4]], dtype), backend.rows([[1, 10], [100, 1000]], dtype)
    w, b = backend.asarray([[5, 6], [7, 8]], dtype), backend.asarray([0.5, -0.5], dtype)
    a = backend.numpy(backend.call(affine_forward, z, w, b))
    dz, dw, db = backend.numpy(backend.call(affine_backward, da, z, w))
    assert a.tolist() == [[19.5, 21.5], [43.5, 49.5]]
    assert dz.tolist() == [[65, 87], [_in(dtype, 6500), _in(dtype, 8700)]]
    assert dw.tolist() == [[_in(dtype, 301), _in(dtype, 3010)], [_in(dtype, 402), _in(dtype, 4020)]]
    assert db.tolist() == [101, _in(dtype, 1010)]


def _in(dtype: str, x: float) -> float:
    """Round to a narrow dtype, to nearest and ties to even: a float16 has 11 bits and a bfloat16 8."""
    unit = 2.0 ** (np.frexp(x)[1] - {"float16": 11, "bfloat16": 8}.get(dtype, 24))
    return float(np.round(x / unit) * unit)


def test_without_bias(backend: Backend) -> None:
    z, w = backend.rows([[1.0, 2.0], [3.0, 4.0]]), backend.asarray([[5.0, 6.0], [7.0, 8.0]])
    expected = [[19.0, 22.0], [43.0, 50.0]]
    assert backend.numpy(backend.call(affine_forward, z, w)).tolist() == expected
    assert backend.numpy(backend.call(affine_forward, z, w, None)).tolist() == expected


MIXED = [
    ("float32", "float64", "float64"),
    ("float64", "float32", "float64"),
    ("float32", "complex64", "complex64"),
    ("complex64", "float32", "complex64"),
    ("float64", "complex64", "complex128"),
    ("float16", "float32", "float32"),
    ("float32", "float16", "float32"),
]


@pytest.mark.parametrize(("of_z", "of_w", "promoted"), MIXED)
def test_mixed_dtypes(eager: Backend, of_z: str, of_w: str, promoted: str) -> None:
    """The forward promotes; each gradient has its primal's dtype, a real one the real part of a complex gradient."""
    of_z, of_w, promoted = (x if x in eager.dtypes else "float32" for x in (of_z, of_w, promoted))
    rng = np.random.default_rng(3)
    z, w, b, da = (rng.standard_normal(shape).astype("float16") for shape in ((6, 3), (3, 4), (4,), (6, 4)))
    w = w * (1 + 2j) if "complex" in of_w else w
    z = z * (2 - 1j) if "complex" in of_z else z
    da = da * (1 - 1j) if "complex" in promoted else da
    upstream, batch = eager.rows(da, promoted), eager.rows(z, of_z)
    weights, bias = eager.asarray(w, of_w), eager.asarray(b, of_w)
    a = eager.call(affine_forward, batch, weights, bias)
    gradients = eager.call(affine_backward, upstream, batch, weights)
    assert a.dtype == eager.dtype(promoted)
    assert [x.dtype for x in gradients] == [eager.dtype(x) for x in (of_z, of_w, of_w)]
    z, w, b, da = (x.astype("complex128") for x in (z, w, b, da))
    expected: list[Any] = [z @ w + b, da @ w.conj().T, z.conj().T @ da, da.sum(axis=0)]
    for got, exact, dtype in zip((a, *gradients), expected, (promoted, of_z, of_w, of_w), strict=True):
        wanted = exact if "complex" in dtype else exact.real
        coarsest = max(EPS[x] for x in (of_z, of_w, dtype))
        np.testing.assert_allclose(
            eager.numpy(got), wanted, rtol=0, atol=C * np.sqrt(6) * coarsest * np.abs(exact).max()
        )


def test_complex_gradient_is_steepest_descent(backend: Backend) -> None:
    """For L = Σ|a|²/2, ∂L/∂a = a; L is quadratic, so its central difference with step 1 is exactly Re⟨dw, ẇ⟩."""
    rng = np.random.default_rng(4)
    z, w, move = (rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)) for _ in range(3))
    batch, weights = backend.rows(z), backend.asarray(w)
    a = backend.call(affine_forward, batch, weights)
    dw = backend.numpy(backend.call(affine_backward, a, batch, weights, wrt=("w",)).dw)
    change = (np.sum(np.abs(z @ (w + move)) ** 2) - np.sum(np.abs(z @ (w - move)) ** 2)) / 4
    np.testing.assert_allclose(np.vdot(dw, move).real, change, rtol=1e-4)
    assert np.sum(np.abs(z @ (w - 1e-3 * dw)) ** 2) < np.sum(np.abs(z @ w) ** 2)


def test_narrow_sums_keep_growing(eager: Backend) -> None:
    """A running float16 sum of ones stops at 2,048 and a bfloat16 one at 256; 5,000 and 4,992 are numbers of theirs."""
    for dtype, rows in (("float16", 5000), ("bfloat16", 4992)):
        if dtype in eager.dtypes:
            ones = eager.blocks(np.ones((rows, 2)), dtype)
            _, dw, db = eager.call(affine_backward, ones, ones, eager.asarray(np.ones((2, 2)), dtype))
            assert eager.numpy(dw).tolist() == [[rows, rows], [rows, rows]]
            assert eager.numpy(db).tolist() == [rows, rows]


FORWARD_ERRORS = {
    "w 1-d": ((2, 3), (3,), (4,), r"w must be a matrix, shape \(k, n\); got w \(3,\)$"),
    "w 3-d": ((2, 3), (1, 3, 4), (4,), r"w must be a matrix, shape \(k, n\); got w \(1, 3, 4\)$"),
    "z 0-d": ((), (3, 4), (4,), r"z must have at least one axis, shape \(\.\.\., k\); got z \(\)$"),
    "k": (
        (32, 64),
        (63, 10),
        (10,),
        r"the last axis of z must equal the first axis of w; got z \(32, 64\) and w \(63, 10\)$",
    ),
    "b 2-d": (
        (2, 3),
        (3, 4),
        (1, 4),
        r"b must have one entry for each .*, shape \(n,\); got b \(1, 4\) and w \(3, 4\)$",
    ),
    "b 0-d": ((2, 3), (3, 4), (), r"b must have one entry for each .*, shape \(n,\); got b \(\) and w \(3, 4\)$"),
    "b of 1": ((2, 3), (3, 4), (1,), r"b must have one entry for each .*; got b \(1,\) and w \(3, 4\)$"),
}


@pytest.mark.parametrize("case", FORWARD_ERRORS)
def test_forward_refuses_shapes(eager: Backend, case: str) -> None:
    *shapes, message = FORWARD_ERRORS[case]
    z, w, b = (eager.asarray(np.ones(shape)) for shape in shapes)
    with pytest.raises(ValueError, match=f"^affine_forward: {message}"):
        affine_forward(z, w, b)


BACKWARD_ERRORS = {
    "w 1-d": ((2, 4), (2, 3), (3,), r"w must be a matrix, shape \(k, n\); got w \(3,\)$"),
    "z 0-d": ((2, 4), (), (3, 4), r"z must have at least one axis, shape \(\.\.\., k\); got z \(\)$"),
    "k": ((2, 4), (2, 5), (3, 4), r"the last axis of z must .* of w; got z \(2, 5\) and w \(3, 4\)$"),
    "da's n": (
        (2, 5),
        (2, 3),
        (3, 4),
        r"da must have the shape of the output .* got da \(2, 5\) and z \(2, 3\) and w ",
    ),
    "da's rows": ((3, 4), (2, 3), (3, 4), r"da must have the shape of the output .* got da \(3, 4\) and z \(2, 3\)"),
    "da's axes": ((4,), (2, 3), (3, 4), r"da must have the shape of the output .* got da \(4,\) and z \(2, 3\)"),
    "da 0-d": ((), (3,), (3, 4), r"da must have the shape of the output z w, \(\.\.\., n\); got da \(\) and z \(3,\)"),
}


@pytest.mark.parametrize("case", BACKWARD_ERRORS)
def test_backward_refuses_shapes(eager: Backend, case: str) -> None:
    *shapes, message = BACKWARD_ERRORS[case]
    da, z, w = (eager.asarray(np.ones(shape)) for shape in shapes)
    with pytest.raises(ValueError, match=f"^affine_backward: {message}"):
        affine_backward(da, z, w)
