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


def test_log_softmax_of_ties(backend_one_device: Backend) -> None:
    """Each of several largest logits counts."""
    x = backend_one_device.rows(np.asarray([[0.0, 0.0, -1.0], [5.0, -40.0, -41.0], [-np.inf, 1.0, 1.0]]))
    got = stable.log_softmax(backend_one_device.xp, x)
    first = -np.log(2 + np.exp(-1.0))
    second = -np.log1p(np.exp(-45.0) + np.exp(-46.0))
    right = [[first, first, first - 1], [second, -45.0, -46.0], [-np.inf, -np.log(2), -np.log(2)]]
    np.testing.assert_allclose(backend_one_device.numpy(got), right, rtol=1e-6)


@pytest.mark.backends("numpy", "strict", "dask", "torch", "jax")  # whose numbers have a float's digits, not 50
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_exact_exponents(backend_one_device: Backend, name: str) -> None:
    """Exponents differ from the exact ones by a number for each row; the sum of exponentials is finite."""
    top = np.concatenate([np.geomspace(1e-3, 1e6, 60), -np.geomspace(1e-3, 1e6, 60), [0.0]]).astype(name)[:, None]
    end = -np.log(np.finfo(name).tiny)
    x = (top - np.asarray([0, 0.1, 0.4, 1]) * end).astype(name)
    held = map(backend_one_device.asarray, (x, top))
    exponent, largest, error = (
        np.zeros(()) if part is None else backend_one_device.numpy(part)
        for part in stable.exact_exponents(backend_one_device.xp, *held)
    )
    assert np.all(np.isfinite(1 / np.sum(np.exp(exponent), axis=-1)))
    wide = "longdouble"
    right = x.astype(wide) - top.astype(wide)
    got = exponent.astype(wide) + error - largest
    assert np.all(abs(got - right) <= 4 * np.finfo(name).eps)
