"""The activations as layers: each with the backward of its own forward, and given what that takes."""

import numpy as np
import pytest

import pullback
from pullback import Activation, stack_backward, stack_forward
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS

ACTIVATIONS = {name: x for name, x in vars(pullback).items() if isinstance(x, Activation)}


def test_all() -> None:
    forwards = {x for name, x in vars(pullback).items() if name.endswith("_forward")}
    of_maps = {pullback.affine_forward, pullback.matmul_forward, pullback.stack_forward}
    assert {x.forward for x in ACTIVATIONS.values()} == forwards - of_maps


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradient(backend_one_device: Backend, name: str) -> None:
    """Beside the central difference in float64; its error is h² times a third derivative, and rounding over h."""
    layer = ACTIVATIONS[name]
    assert (layer.forward.__name__, layer.backward.__name__) == (f"{name.lower()}_forward", f"{name.lower()}_backward")
    rng = np.random.default_rng(41)
    a, da, move = (rng.standard_normal((5, 4)) for _ in range(3))
    h = 1e-5 if backend_one_device.real == "float64" else 1e-2
    output, kept = stack_forward([layer], backend_one_device.asarray(a))
    dz = backend_one_device.numpy(stack_backward(backend_one_device.asarray(da), kept).dz)
    ahead, behind = (
        backend_one_device.numpy(stack_forward([layer], backend_one_device.asarray(a + x * move)).a) for x in (h, -h)
    )
    assert output.shape == a.shape
    expected = np.sum(da * (ahead - behind) / (2 * h))
    np.testing.assert_allclose(np.sum(dz * move), expected, rtol=0, atol=20 * (h**2 + EPS[backend_one_device.real] / h))
