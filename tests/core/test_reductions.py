"""Sums over the batch: right at the sizes where blocks begin, and as accurate as float32 can be at any length."""

from typing import Any

import numpy as np
import pytest

from pullback import affine_backward, affine_forward, matmul_backward
from pullback._core import reductions
from pullback._core.reduction_policy import GPU_LONG, GPU_WIDTH, VECTOR
from tests.harness.backend import Backend, sampled
from tests.harness.pair_laws import EPS, C

# Around the limits of one block, a few, and blocks with a rest; of a narrow product and of a wide one.
SIZES = [(rows, 2, 3) for rows in (127, 128, 256, 257, 512, 513, 1279, 1280, 1536, 1537, 2500, 20_000)]
SIZES += [(rows, 50, 50) for rows in (256, 300, 512, 513, 8192, 20_000)]
SIZES += [(300, 70, 70)]
SIZES += [(rows, 3, 200) for rows in (300, 1280, 3000)]


# Dask divides by zero where it chooses the chunks of many rows without columns.
NO_COLUMNS = pytest.param(0, marks=pytest.mark.backends("numpy", "strict", "torch", "jax", "cupy"))


@pytest.mark.parametrize("sizes", sampled(SIZES), ids=str)
@pytest.mark.parametrize("of", ["float32", "complex64"])
def test_blocks(backend_one_device: Backend, sizes: tuple[int, int, int], of: str) -> None:
    rows, k, n = sizes
    rng = np.random.default_rng(rows)
    z, da = (_uniform(rng, (rows, size), of) for size in (k, n))
    arrays = (backend_one_device.blocks(x) for x in (da, z, np.ones((k, n), of)))
    gradients = backend_one_device.call(affine_backward, *arrays, wrt=("w", "b"))
    wide_z, wide_da = z.astype("complex128"), da.astype("complex128")
    _check(backend_one_device.numpy(gradients.dw), wide_z.conj().T @ wide_da, rows)
    _check(backend_one_device.numpy(gradients.db), wide_da.sum(axis=0), rows)


@pytest.mark.parametrize("rows", [1, 256, 300, 1280, VECTOR, VECTOR + 1])
@pytest.mark.parametrize("of", ["float32", "complex64", "float64"])
def test_blocks_of_a_vector(backend_one_device: Backend, rows: int, of: str) -> None:
    """The weights of a single output, whose gradients are the same sums."""
    rng = np.random.default_rng(rows)
    z, da = (_uniform(rng, shape, of) for shape in ((rows, 3), (rows,)))
    arrays = (backend_one_device.blocks(x) for x in (da, z, np.ones(3, of)))
    gradients = backend_one_device.call(affine_backward, *arrays)
    wide_z, wide_da = z.astype("complex128"), da.astype("complex128")
    eps = EPS[backend_one_device.real if of == "float64" else of]
    _check(backend_one_device.numpy(gradients.dw), wide_z.conj().T @ wide_da, rows, eps)
    _check(backend_one_device.numpy(gradients.db), wide_da.sum(), rows, eps)
    _check(backend_one_device.numpy(gradients.dz), np.stack([wide_da] * 3, axis=1), 1, eps)


@pytest.mark.parametrize("rows", [1, 200, 600, GPU_LONG + 1, GPU_WIDTH // 2 + 1, GPU_WIDTH + 9])
@pytest.mark.parametrize("n", [NO_COLUMNS, 1, 2])
def test_blocks_on_a_gpu(backend_one_device: Backend, monkeypatch: pytest.MonkeyPatch, rows: int, n: int) -> None:
    """The sums of a GPU are right on each library."""
    monkeypatch.setattr(reductions, "is_gpu_memory", lambda _: True)
    rng = np.random.default_rng(rows)
    z, da = (_uniform(rng, (rows, size), "float32") for size in (3, n))
    arrays = (backend_one_device.blocks(x) for x in (da, z, np.ones((3, n), "float32")))
    gradients = backend_one_device.call(affine_backward, *arrays, wrt=("w", "b"))
    _check(backend_one_device.numpy(gradients.dw), z.astype(float).T @ da, rows)
    _check(backend_one_device.numpy(gradients.db), da.astype(float).sum(axis=0), rows)


@pytest.mark.parametrize("batch", [(1024,), (1031,), (2048,), (70, 30)], ids=str)
@pytest.mark.parametrize("n", [0, 1, 3, 128, 129])
def test_bias_of_many_rows(backend_one_device: Backend, batch: tuple[int, ...], n: int) -> None:
    """Rows are joined for it, if their number has a divisor: to the last bit what it is without."""
    rng = np.random.default_rng(n)
    z, w, b = (backend_one_device.blocks(_uniform(rng, shape, "float32")) for shape in ((*batch, 2), (2, n), (n,)))
    without = backend_one_device.numpy(backend_one_device.call(affine_forward, z, w))
    np.testing.assert_array_equal(
        backend_one_device.numpy(backend_one_device.call(affine_forward, z, w, b)),
        without + backend_one_device.numpy(b),
    )


@pytest.mark.parametrize("rows", [300, 1024, 2500])
def test_blocks_of_batches(backend_one_device: Backend, rows: int) -> None:
    """The right factor of each of the three entries of a batch is contracted over its own rows, in blocks."""
    rng = np.random.default_rng(rows)
    x1, da = (_uniform(rng, (3, rows, size), "float32") for size in (2, 4))
    arrays = (backend_one_device.blocks(x) for x in (da, x1, np.ones((3, 2, 4), "float32")))
    got = backend_one_device.numpy(backend_one_device.call(matmul_backward, *arrays, wrt=("x2",)).dx2)
    _check(got, x1.astype("float64").mT @ da, rows)


@pytest.mark.parametrize("leading", [(50, 41), (5, 0), (0, 5), (1, 2100)], ids=str)
def test_flattened_batches(backend_one_device: Backend, leading: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    z, da = (_uniform(rng, (*leading, size), "float32") for size in (2, 3))
    w = backend_one_device.asarray(np.ones((2, 3)), "float32")
    gradients = backend_one_device.call(affine_backward, backend_one_device.blocks(da), backend_one_device.blocks(z), w)
    wide_z, wide_da = z.astype("float64").reshape(-1, 2), da.astype("float64").reshape(-1, 3)
    _check(backend_one_device.numpy(gradients.dw), wide_z.T @ wide_da, len(wide_z))
    _check(backend_one_device.numpy(gradients.db), wide_da.sum(axis=0), len(wide_z))


def test_error_does_not_grow(backend_one_device: Backend) -> None:
    """From 10⁵ rows on, the float32 error is at most 3e-7 of the largest entry: a running sum's is 1e-4 and more."""
    if "float64" not in backend_one_device.dtypes:
        return  # nothing wider to add up in
    rng = np.random.default_rng(6)
    z, da = rng.random((300_000, 4), dtype="float32"), rng.random((300_000, 2), dtype="float32") * np.float32(0.2)
    _, dw, db = backend_one_device.numpy(
        backend_one_device.call(
            affine_backward,
            backend_one_device.blocks(da),
            backend_one_device.blocks(z),
            backend_one_device.blocks(np.ones((4, 2)), "float32"),
        )
    )
    for got, exact in ((dw, z.astype("float64").T @ da), (db, da.sum(axis=0, dtype="float64"))):
        assert np.max(np.abs(got - exact)) <= 3e-7 * np.max(np.abs(exact))


@pytest.mark.parametrize("of", ["float32", "complex64"])
def test_infinity_in_a_long_column(backend_one_device: Backend, of: str) -> None:
    """It stays in its own column, and in its own part of a complex number."""
    da = np.ones((3000, 3), dtype=of)
    da[1500, 1] = np.inf
    with np.errstate(invalid="ignore"):
        arrays = (backend_one_device.blocks(x) for x in (da, np.ones((3000, 2), of), np.ones((2, 3), of)))
        db = backend_one_device.numpy(backend_one_device.call(affine_backward, *arrays, wrt=("b",)).db)
    assert db.tolist() == [3000, np.inf, 3000]


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    x = rng.random(shape)
    return (x + 1j * rng.random(shape) if "complex" in dtype else x).astype(dtype)


def _check(got: Any, exact: Any, rows: int, eps: float = EPS["float32"]) -> None:
    """All terms lie in [0, 1): a sum's magnitude is its own."""
    assert np.max(np.abs(got - exact), initial=0) <= C * np.sqrt(rows) * eps * np.max(np.abs(exact), initial=0)
