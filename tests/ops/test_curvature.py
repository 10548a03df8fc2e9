"""Curvature: K-FAC factors and the Fisher diagonal by definition, Gauss–Newton products beside the matrix itself."""

import math
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device

from pullback import (
    AffineGradients,
    affine_backward,
    fisher_diagonal,
    gauss_newton_product,
    kfac_factors,
    softmax_cross_entropy_hessian_product,
    squared_error_hessian_product,
)
from tests.harness.backend import Backend, sampled
from tests.harness.pair_laws import EPS, LAYOUTS, C, wide
from tests.harness.per_example_cases import FISHER, SHAPES, check, draw


@pytest.mark.parametrize("of", FISHER)
@pytest.mark.parametrize("shape", sampled(SHAPES, 2))
def test_fisher_shapes(backend_one_device: Backend, shape: str, of: str) -> None:
    da, z = (backend_one_device.rows(x, "float32") for x in draw(SHAPES[shape], "float32"))
    check(backend_one_device, FISHER[of], da, z, "float32")


@pytest.mark.parametrize("of", FISHER)
def test_fisher_dtypes(backend: Backend, dtype: str, of: str) -> None:
    da, z = (backend.rows(x, dtype) for x in draw(SHAPES["2-d"], dtype))
    check(backend, FISHER[of], da, z, dtype)


def check_factors(backend: Backend, da: Any, z: Any, dtype: str, *, without: bool = False) -> None:
    """Require both factors by definition, z with a column of ones and perhaps without, and the structure."""
    rows = [wide(x).reshape(math.prod(x.shape[:-1]), x.shape[-1]) for x in backend.numpy((da, z))]
    ones = np.concatenate([rows[1], np.ones((len(rows[1]), 1))], axis=1)
    for bias, inputs in ((True, ones), (False, rows[1]))[: 1 + without]:
        factors = backend.call(kfac_factors, da, z, bias=bias)
        assert factors._fields == ("a", "g")
        for x, y in zip(factors, (inputs, rows[0]), strict=True):
            m = len(y) or np.nan
            exact, size = y.conj().T @ y / m, np.abs(y).T @ np.abs(y) / m
            got = backend.numpy(x)
            assert (got.shape, x.dtype, str(device(x))) == (exact.shape, backend.dtype(dtype), str(device(z)))
            assert array_namespace(x) is backend.xp
            eps = min(EPS[dtype], EPS["float32"])
            tolerance = C * (EPS[dtype] * np.abs(exact) + np.sqrt(len(y)) * eps * size)
            assert np.all((np.abs(got - exact) <= tolerance) | (np.isnan(got) & np.isnan(exact)))


@pytest.mark.parametrize("shape", sampled(SHAPES, 2))
def test_factors_shapes(backend_one_device: Backend, shape: str) -> None:
    da, z = (backend_one_device.rows(x, "float32") for x in draw(SHAPES[shape], "float32"))
    check_factors(backend_one_device, da, z, "float32", without=True)


def test_factors_dtypes(backend: Backend, dtype: str) -> None:
    da, z = draw(SHAPES["gram"], dtype)
    check_factors(backend, backend.rows(da, dtype), backend.rows(z, dtype), dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_factors_layouts(backend_one_device: Backend, layout: str) -> None:
    da, z = (
        LAYOUTS[layout](backend_one_device.xp, backend_one_device.asarray(x, "complex64"))
        for x in draw(SHAPES["gram"], "complex64")
    )
    check_factors(backend_one_device, da, z, "complex64")


def test_factors_of_a_vector_of_weights(backend_one_device: Backend) -> None:
    """The factor of a single output is a number: a v g is a step in a vector of weights."""
    da, z = (backend_one_device.rows(x) for x in draw(((7,), 3, 1), "float64"))
    column, vector = (backend_one_device.numpy(backend_one_device.call(kfac_factors, x, z)) for x in (da, da[:, 0]))
    np.testing.assert_array_equal(vector[0], column[0])
    np.testing.assert_array_equal(vector[1], column[1][0, 0])
    assert vector[1].shape == ()


def test_gauss_newton_of_a_vector_of_weights(backend_one_device: Backend) -> None:
    rng = np.random.default_rng(42)
    vw, vb, z = (backend_one_device.asarray(rng.standard_normal(shape)) for shape in ((3, 1), (1,), (7, 3)))
    column = backend_one_device.numpy(gauss_newton_product(vw, vb, z, lambda v: v))
    vector = backend_one_device.numpy(gauss_newton_product(vw[:, 0], vb[0], z, lambda v: v))
    for got, right in zip(vector, column, strict=True):
        np.testing.assert_allclose(got, right[..., 0], backend_one_device.rounding_of_shapes)


def test_factors_of_one_example_are_exact(backend_one_device: Backend) -> None:
    """Of a single example, the Fisher information v ↦ ⟨grad, v⟩ grad is a v g and nothing else; complex ones too."""
    da, z = draw(((1,), 3, 4), "complex64")
    v = np.random.default_rng(33).standard_normal((4, 4)) * (1 + 2j)
    grad = np.concatenate([z, np.ones((1, 1))], axis=1).conj().T @ da
    a, g = backend_one_device.numpy(
        backend_one_device.call(
            kfac_factors, backend_one_device.rows(da, "complex64"), backend_one_device.rows(z, "complex64")
        )
    )
    np.testing.assert_allclose(a @ v @ g, np.vdot(grad, v) * grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [8, 100])
@pytest.mark.parametrize(("of", "largest"), [("float16", 250.0), ("float32", 1.8e19), ("float64", 1.3e154)])
def test_means_of_sums_out_of_range(backend_one_device: Backend, of: str, largest: float, rows: int) -> None:
    """The mean of the squares is a number of the dtype, and their sum is not."""
    for dtype in {of} & set(backend_one_device.dtypes):
        da = backend_one_device.rows(np.full((rows, 2), largest), dtype)
        z = backend_one_device.rows(np.full((rows, 1), largest), dtype)
        one = backend_one_device.rows(np.ones((rows, 1)), dtype)
        exact, tolerance = wide(backend_one_device.numpy(da))[0, 0] ** 2, C * np.sqrt(rows) * EPS[dtype]
        a, g = backend_one_device.numpy(backend_one_device.call(kfac_factors, da, z))
        np.testing.assert_allclose(a, [[exact, np.sqrt(exact)], [np.sqrt(exact), 1]], rtol=tolerance)
        np.testing.assert_allclose(g, np.full((2, 2), exact), rtol=tolerance)
        for got in backend_one_device.numpy(backend_one_device.call(fisher_diagonal, da, one)):
            np.testing.assert_allclose(got.ravel(), [exact] * 2, rtol=tolerance)


def test_narrow_gauss_newton_keeps_growing(backend_one_device: Backend) -> None:
    """Neither the tangent nor the products of the Hessian are rounded to the narrow dtype, whose range they leave."""
    for dtype in {"float16", "bfloat16"} & set(backend_one_device.dtypes):
        z = backend_one_device.rows(np.full((300, 2), 300.0), dtype)
        vw = backend_one_device.asarray(np.full((2, 1), 300.0), dtype)

        def product(vw: Any, z: Any) -> Any:
            return gauss_newton_product(vw, None, z, lambda v: v * 2.0**-20)

        (dw, _) = backend_one_device.numpy(backend_one_device.call(product, vw, z))
        np.testing.assert_allclose(dw, 300 * 300 * 180_000 * 2.0**-20, rtol=EPS[dtype])


def jacobian(z: Any, n: int) -> Any:
    """Return ∂a/∂(w, b) of shape (m, n, k, n) and (m, n, n), flattened to (m n, k n + n)."""
    m, k = z.shape
    dw = np.einsum("ik,jn->ijkn", z, np.eye(n)).reshape(m * n, k * n)
    return np.concatenate([dw, np.tile(np.eye(n), (m, 1))], axis=1)


def test_gauss_newton(backend: Backend, dtype: str) -> None:
    """Beside Jᴴ H J v with the matrices written out; H is an elementwise product."""
    rng = np.random.default_rng(34)
    z, scale = draw(((6,), 3, 4), dtype)[1], 1 + rng.random((6, 4))
    vw, vb = rng.standard_normal((3, 4)), rng.standard_normal(4)
    held = [backend.rows(z, dtype), backend.rows(scale, dtype), *(backend.asarray(x, dtype) for x in (vw, vb))]
    z, scale, vw, vb = (wide(backend.numpy(x)) for x in held)

    def product(vw: Any, vb: Any, z: Any, scale: Any) -> Any:
        return gauss_newton_product(vw, vb, z, lambda v: scale * v)

    got = backend.call(product, held[2], held[3], held[0], held[1])
    j = jacobian(z, 4)
    v = np.concatenate([vw.ravel(), vb])
    exact = j.conj().T @ (scale.ravel() * (j @ v))
    size = np.abs(j).T @ (np.abs(scale).ravel() * (np.abs(j) @ np.abs(v)))
    flat = np.concatenate([backend.numpy(got.dw).ravel(), backend.numpy(got.db)])
    # Narrow dtypes round the tangent and H's product in between.
    assert np.all(np.abs(flat - exact) <= C * (np.sqrt(6 * 4 * 4) * EPS[dtype] * size))
    for x, like in zip(got, held[2:], strict=True):
        assert (x.shape, x.dtype, array_namespace(x)) == (like.shape, like.dtype, backend.xp)


def test_gauss_newton_without_bias(backend: Backend) -> None:
    z, vw = backend.rows([[1.0, 2.0], [3.0, 4.0]]), backend.asarray([[1.0], [0.0]])

    def product(vw: Any, z: Any) -> Any:
        return gauss_newton_product(vw, None, z, lambda v: v * 2)

    dw, db = backend.numpy(backend.call(product, vw, z))
    assert (dw.tolist(), db) == ([[20.0], [28.0]], None)


def test_gauss_newton_is_the_change_of_the_gradient(backend_one_device: Backend) -> None:
    """Of ½ ‖z w + b - y‖², quadratic in w and b, a step changes the gradient by the product."""
    rng = np.random.default_rng(35)
    z, y, w, v = (rng.standard_normal(shape) for shape in ((9, 3), (9, 2), (3, 2), (3, 2)))
    batch, still, moved = backend_one_device.rows(z), backend_one_device.asarray(w), backend_one_device.asarray(w + v)

    def gradient(w: Any, at: Any) -> AffineGradients:
        return affine_backward(backend_one_device.rows(z @ at - y), batch, w, wrt=("w", "b"))

    vb = backend_one_device.asarray(np.zeros(2))
    got = backend_one_device.numpy(
        backend_one_device.call(gauss_newton_product, backend_one_device.asarray(v), vb, batch, lambda x: x)
    )
    pairs = zip(
        backend_one_device.numpy(gradient(moved, w + v))[1:],
        backend_one_device.numpy(gradient(still, w))[1:],
        strict=True,
    )
    for x, (after, before) in zip(got, pairs, strict=True):
        np.testing.assert_allclose(x, after - before, rtol=0, atol=100 * EPS[backend_one_device.real])


LOSSES: dict[str, tuple[Any, Any]] = {
    "squared error": (squared_error_hessian_product, lambda p: np.eye(len(p))),
    "softmax": (softmax_cross_entropy_hessian_product, lambda p: np.diag(p) - np.outer(p, p)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_gauss_newton_of_losses(backend: Backend, loss: str) -> None:
    """The mean over the examples of J_iᵀ H_i J_i v, with the matrices written out."""
    rng = np.random.default_rng(36)
    (_, z), w, vw, vb = draw(((6,), 3, 4), "float64"), *(rng.standard_normal(shape) for shape in ((3, 4), (3, 4), (4,)))
    a, y = z @ w, np.eye(4)[rng.integers(4, size=6)]
    product, hessian = LOSSES[loss]

    def call(vw: Any, vb: Any, z: Any, a: Any, y: Any) -> Any:
        return gauss_newton_product(vw, vb, z, lambda v: product(v, a, y))

    steps = (backend.asarray(x) for x in (vw, vb))
    got = backend.call(call, *steps, *(backend.rows(x) for x in (z, a, y)))
    exact = 0
    for j, logits in zip(jacobian(z, 4).reshape(6, 4, -1), a, strict=True):
        p = np.exp(logits) / np.exp(logits).sum()
        exact += j.T @ hessian(p) @ j @ np.concatenate([vw.ravel(), vb]) / 6
    flat = np.concatenate([backend.numpy(got.dw).ravel(), backend.numpy(got.db)])
    np.testing.assert_allclose(flat, exact, rtol=0, atol=100 * EPS[backend.real])


def test_refuses_shapes(backend_one_device: Backend) -> None:
    x, y = backend_one_device.asarray(np.ones((2, 3))), backend_one_device.asarray(np.ones((5, 4)))
    for function in (kfac_factors, fisher_diagonal):
        name = f"^{function.__name__}: da and z must have"
        with pytest.raises(ValueError, match=rf"{name} the same shape but for the last axis; got da \(2, 3\) and z"):
            function(x, y)
        with pytest.raises(ValueError, match=rf"{name} at least two axes.* got da \(3,\) and z \(4,\)"):
            function(x[0, :], y[0, :])
    with pytest.raises(ValueError, match=r"^affine_forward: the last axis of z must equal the first axis of w; got"):
        gauss_newton_product(x, None, y, lambda v: v)
