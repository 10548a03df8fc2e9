"""Blocks of dtypes that are not the usual ones."""

import dask.array as da
import ml_dtypes
import numpy as np
import pytest

from pullback import affine_backward
from tests.harness.batches import accumulate, compute

Z = np.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
W = np.asarray([[1.0, 0.0, 2.0], [0.5, 1.0, 0.0]])


def test_ml_dtypes() -> None:
    """Sums of narrow blocks are float32 until they are whole: 300 ones are 300 ones."""
    z = np.ones((300, 2), ml_dtypes.bfloat16)
    batch = da.from_array(z, chunks=(7, -1))
    dz, dw, db = compute(*accumulate(affine_backward, batch, batch, shared=(np.eye(2, dtype=z.dtype),), rows=("dz",)))
    assert dz.dtype == z.dtype
    np.testing.assert_array_equal(dz, z)
    np.testing.assert_array_equal(np.astype(dw, float), np.full((2, 2), 300.0))
    np.testing.assert_array_equal(np.astype(db, float), np.full(2, 300.0))


@pytest.mark.parametrize("of", [">f4", ">f8", ">f2", ">c8"])
def test_big_endian(of: str) -> None:
    d, z = (da.from_array(x.astype(of), chunks=(2, -1)) for x in (np.ones((3, 3)), Z))
    dz, dw, db = compute(*accumulate(affine_backward, d, z, shared=(W.astype(of),), rows=("dz",)))
    np.testing.assert_array_equal(dz, np.ones((3, 3)) @ W.T)
    np.testing.assert_array_equal(dw, Z.T @ np.ones((3, 3)))
    np.testing.assert_array_equal(db, np.full(3, 3.0))
