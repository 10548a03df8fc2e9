"""The parts of the stable forms at their edges: 0, NaN, infinity, ties and 0-d arrays."""

import numpy as np
import pytest

from pullback._core import stable
from tests.harness.backend import Backend

EDGES = [-np.inf, -2.0, -0.0, 0.0, 1e-30, 2.0, np.inf, np.nan]


def test_masks(backend_one_device: Backend) -> None:
    xp, x = backend_one_device.xp, backend_one_device.rows(np.asarray(EDGES))
    np.testing.assert_array_equal(backend_one_device.numpy(stable.is_positive(xp, x)), [0, 0, 0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(backend_one_device.numpy(stable.step(xp, x)), [0, 0, 0, 0, 1, 1, 1, np.nan])


def test_bounds(backend_one_device: Backend) -> None:
    xp, x = backend_one_device.xp, backend_one_device.rows(np.asarray(EDGES))
    positive = [0, 0, 0, 0, 1e-30, 2, np.inf, np.nan]
    np.testing.assert_allclose(backend_one_device.numpy(stable.positive_part(xp, x)), positive, rtol=1e-7)
    for low, high in ((-1.0, None), (None, 1.0), (-1.0, 1.0)):
        right = np.clip(EDGES, low, high)
        np.testing.assert_allclose(backend_one_device.numpy(stable.clipped(xp, x, low, high)), right, rtol=1e-7)


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_decay(backend_one_device: Backend, rate: float) -> None:
    xp, x = backend_one_device.xp, backend_one_device.rows(np.asarray(EDGES))
    got = backend_one_device.numpy(stable.decay(xp, x, rate))
    np.testing.assert_allclose(got, np.exp(-rate * np.abs(EDGES)), rtol=4e-7)


def test_scalars(backend_one_device: Backend) -> None:
    xp, x = backend_one_device.xp, backend_one_device.asarray(np.asarray(2.0))
    for function in (stable.step, stable.positive_part, stable.decay, stable.softplus, stable.sigmoid):
        assert function(xp, x).shape == ()


def test_sum_without_largest(backend_one_device: Backend) -> None:
    """Each of several largest logits but one counts as 1."""
    x = backend_one_device.rows(np.asarray([[0.0, 0.0, -1.0], [5.0, -40.0, -41.0], [-np.inf, 1.0, 1.0]]))
    x = stable.shifted(backend_one_device.xp, x)
    got = stable.sum_without_largest(backend_one_device.xp, x, backend_one_device.xp.exp(x))
    right = [[1 + np.exp(-1.0)], [np.exp(-45.0) + np.exp(-46.0)], [1.0]]
    np.testing.assert_allclose(backend_one_device.numpy(got), right, rtol=1e-6)
