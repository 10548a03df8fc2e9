"""The operator multiplies as the tensors do, and SciPy's solvers take it for a matrix."""

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator, lsqr, svds

from pullback import JacobianOperator, affine_jacobians
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS, C, wide

ALL = ("z", "w", "b")
SHAPES = {"2-d": ((5, 3), (3, 4)), "3-d": ((2, 3, 3), (3, 2)), "1-d": ((3,), (3, 4)), "no rows": ((0, 3), (3, 2))}


def matrix(z: Any, w: Any, wrt: tuple[str, ...] = ALL) -> Any:
    """Return the operator's matrix, made of the tensors of the exact inputs."""
    size = int(np.prod((*z.shape[:-1], w.shape[1])))
    jacobians = affine_jacobians(wide(z), wide(w))
    tensors: list[Any] = [getattr(jacobians, f"d{x}") for x in ALL if x in wrt]
    return np.concatenate([x.reshape(size, int(np.prod(x.shape[z.ndim :]))) for x in tensors], axis=1)


def method(name: str, wrt: tuple[str, ...] = ALL) -> Callable[..., Any]:
    """Return a function of arrays alone, which can be traced."""

    def call(z: Any, w: Any, x: Any) -> Any:
        return getattr(JacobianOperator(z, w, wrt=wrt), name)(x)

    return call


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if "complex" in dtype else x


METHODS = ("matvec", "rmatvec", "matmat", "rmatmat")


def check(backend: Backend, shape: str, dtype: str, name: str, wrt: tuple[str, ...], columns: tuple[int, ...]) -> None:  # noqa: PLR0913, PLR0917
    rng = np.random.default_rng(40)
    held = [backend.asarray(drawn(rng, of, dtype), dtype) for of in SHAPES[shape]]
    exact = [wide(backend.numpy(x)) for x in held]
    right = matrix(exact[0], exact[1], wrt)
    right = right.conj().T if name.startswith("r") else right
    x = backend.asarray(drawn(rng, (right.shape[1], *columns), dtype), dtype)
    got = backend.call(method(name, wrt), *held, x)
    assert got.dtype == x.dtype
    result, vectors = backend.numpy(got), wide(backend.numpy(x))
    assert result.shape == (right.shape[0], *columns)
    magnitude = np.abs(right) @ np.abs(vectors)
    eps = min(EPS[dtype], EPS["float32"])
    tolerance = C * np.sqrt(right.shape[1]) * eps * magnitude + EPS[dtype] * np.abs(right @ vectors)
    assert np.all(np.abs(result - right @ vectors) <= tolerance)


@pytest.mark.parametrize("name", METHODS)
def test_dtypes(backend: Backend, dtype: str, name: str) -> None:
    check(backend, "3-d", dtype, name, ALL, (2,) if name.endswith("mat") else ())


@pytest.mark.parametrize(
    ("shape", "wrt"),
    [("2-d", ("z",)), ("2-d", ("b", "w")), ("3-d", ALL), ("1-d", ALL), ("no rows", ALL)],
    ids=str,
)
def test_shapes(backend_one_device: Backend, shape: str, wrt: tuple[str, ...]) -> None:
    for name in METHODS:
        check(backend_one_device, shape, "float32", name, wrt, (2,) if name.endswith("mat") else ())
    check(backend_one_device, shape, "float32", "matvec", wrt, (1,))
    check(backend_one_device, shape, "float32", "rmatvec", wrt, (1,))


@pytest.mark.parametrize("wrt", [("z",), ("b", "w"), ALL], ids=str)
def test_attributes(backend_one_device: Backend, wrt: tuple[str, ...]) -> None:
    z, w = (
        backend_one_device.asarray(np.ones((2, 5, 3)), "float32"),
        backend_one_device.asarray(np.ones((3, 4)), "complex64"),
    )
    operator = JacobianOperator(z, w, wrt=wrt)
    assert operator.shape == (40, sum({"z": 30, "w": 12, "b": 4}[x] for x in wrt))
    assert operator.dtype == backend_one_device.dtype("complex64")


def test_vector_of_weights(backend_one_device: Backend) -> None:
    """The operator of a single output is that of a column."""
    rng = np.random.default_rng(41)
    z, w = (backend_one_device.asarray(rng.standard_normal(shape)) for shape in ((5, 3), (3, 1)))
    column, vector = JacobianOperator(z, w), JacobianOperator(z, w[:, 0])
    assert vector.shape == column.shape == (5, 19)
    v, u = (backend_one_device.asarray(rng.standard_normal(size)) for size in (19, 5))
    for got, right in ((vector.matvec(v), column.matvec(v)), (vector.rmatvec(u), column.rmatvec(u))):
        np.testing.assert_array_equal(backend_one_device.numpy(got), backend_one_device.numpy(right))


def test_complex_vectors_of_a_real_operator(backend_one_device: Backend) -> None:
    """The adjoint is linear over the complex numbers, which a gradient of a real input is not."""
    z, w = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2) - 2
    operator = JacobianOperator(backend_one_device.asarray(z), backend_one_device.asarray(w))
    u, v = np.arange(4) * (1 - 2j), np.arange(operator.shape[1]) * (2 + 1j)
    np.testing.assert_array_equal(
        backend_one_device.numpy(operator.rmatvec(backend_one_device.asarray(u))), matrix(z, w).T @ u
    )
    np.testing.assert_array_equal(
        backend_one_device.numpy(operator.matvec(backend_one_device.asarray(v))), matrix(z, w) @ v
    )


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_scipy_takes_it_for_a_matrix(dtype: str) -> None:
    rng = np.random.default_rng(41)
    z, w, v, u = (drawn(rng, shape, dtype) for shape in ((6, 3), (3, 4), (34, 2), (24, 2)))
    operator = aslinearoperator(JacobianOperator(z, w))
    assert (operator.shape, operator.dtype) == ((24, 34), np.dtype(dtype))
    exact = matrix(z, w)
    tolerance = C * np.sqrt(34) * EPS["float64"] * np.abs(exact).max() * 34
    for got, right in ((operator @ v, exact @ v), (operator.H @ u, exact.conj().T @ u), (operator.T @ u, exact.T @ u)):
        np.testing.assert_allclose(got, right, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_lsqr(dtype: str) -> None:
    """The weights and the bias that fit a batch best, without a matrix of the problem."""
    rng = np.random.default_rng(42)
    z, w, target = (drawn(rng, shape, dtype) for shape in ((30, 3), (3, 2), (30, 2)))
    found = lsqr(JacobianOperator(z, w, wrt=("w", "b")), target.ravel(), atol=1e-14, btol=1e-14)[0]
    design = np.concatenate([z, np.ones((30, 1))], axis=1)
    exact = np.linalg.lstsq(design, target)[0]
    # lsqr stops at 1e-14 of the norms, and its error is at most that times the square of the condition.
    np.testing.assert_allclose(found, exact.ravel(), rtol=0, atol=1e-13 * np.linalg.cond(design) ** 2)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_svds(dtype: str) -> None:
    rng = np.random.default_rng(43)
    z, w = (drawn(rng, shape, dtype) for shape in ((6, 3), (3, 4)))
    largest = svds(JacobianOperator(z, w), k=3, return_singular_vectors=False, rng=rng)
    exact = np.linalg.svd(matrix(z, w), compute_uv=False)
    np.testing.assert_allclose(np.sort(largest)[::-1], exact[:3], rtol=1e-10)


def test_refuses_vectors(backend_one_device: Backend) -> None:
    z, w = backend_one_device.asarray(np.ones((5, 3))), backend_one_device.asarray(np.ones((3, 4)))
    operator = JacobianOperator(z, w)
    ones = {shape: backend_one_device.asarray(np.ones(shape)) for shape in ((30,), (1, 31), (31, 2), (20, 2), (31, 0))}
    message = r"^JacobianOperator\.matvec: v must have shape \(31,\) or \(31, 1\); got v "
    for shape in ((30,), (1, 31), (31, 2)):
        with pytest.raises(ValueError, match=message):
            operator.matvec(ones[shape])
    with pytest.raises(ValueError, match=r"^JacobianOperator\.rmatvec: u must have shape \(20,\) or \(20, 1\); got u "):
        operator.rmatvec(ones[20, 2])
    message = r"^JacobianOperator\.matmat: v must have shape \(31, K\), K ≥ 1; got v "
    for shape in ((30,), (20, 2), (31, 0)):
        with pytest.raises(ValueError, match=message):
            operator.matmat(ones[shape])
    with pytest.raises(ValueError, match=r"^JacobianOperator\.rmatmat: u must have shape \(20, K\), K ≥ 1; got u "):
        operator.rmatmat(ones[31, 2])
    with pytest.raises(TypeError, match=r"^JacobianOperator\.matvec: v must be an array; got list\."):
        operator.matvec([1.0] * 31)
    other = np if backend_one_device.library == "strict" else array_api_strict
    with pytest.raises(
        TypeError, match=r"^JacobianOperator\.rmatvec: the arrays must come from one library; got u of "
    ):
        operator.rmatvec(other.ones(20))


def test_refuses_inputs(backend_one_device: Backend) -> None:
    z, w = backend_one_device.asarray(np.ones((5, 3))), backend_one_device.asarray(np.ones((3, 4)))
    with pytest.raises(
        ValueError, match=r"^JacobianOperator: the last axis of z must equal the first axis of w; got z "
    ):
        JacobianOperator(w, w)
    with pytest.raises(ValueError, match=r"^JacobianOperator: wrt must be a tuple of names out of .*; got 'w'$"):
        JacobianOperator(z, w, wrt="w")
    with pytest.raises(
        ValueError, match=r"^JacobianOperator: wrt must name at least one of \('z', 'w', 'b'\); got \(\)$"
    ):
        JacobianOperator(z, w, wrt=())
    rows = backend_one_device.rows(np.ones((5, 3)))
    if backend_one_device.mode == "unknown rows":
        with pytest.raises(
            ValueError, match=r"^JacobianOperator: the sizes of z and w must be known; got z \(nan, 3\)"
        ):
            JacobianOperator(rows, w)
    else:
        assert JacobianOperator(rows, w).shape == (20, 31)
