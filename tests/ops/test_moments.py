"""Second moments, variance and signal of single examples' gradients: by definition, in blocks, and at their edges."""

from typing import Any

import numpy as np
import pytest

from pullback import gradient_signal_to_noise, gradient_variance, second_moments
from pullback._ops.per_example import blocking
from tests.harness.backend import Backend
from tests.harness.pair_laws import LAYOUTS
from tests.harness.per_example_cases import MOMENTS, SHAPES, check, draw


@pytest.mark.parametrize("of", MOMENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(backend_one_device: Backend, shape: str, of: str) -> None:
    da, z = (backend_one_device.rows(x, "float32") for x in draw(SHAPES[shape], "float32"))
    check(backend_one_device, MOMENTS[of], da, z, "float32")


@pytest.mark.parametrize("of", MOMENTS)
def test_dtypes(backend: Backend, dtype: str, of: str) -> None:
    da, z = (backend.rows(x, dtype) for x in draw(SHAPES["2-d"], dtype))
    check(backend, MOMENTS[of], da, z, dtype)


@pytest.mark.parametrize("of", MOMENTS)
def test_positions(backend: Backend, of: str) -> None:
    da, z = (backend.rows(x, "float32") for x in draw(SHAPES["formed"], "float32"))
    check(backend, MOMENTS[of], da, z, "float32")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of", MOMENTS)
def test_layouts(backend_one_device: Backend, of: str, layout: str) -> None:
    # What is done here to the rows of an array, Dask cannot do where their number is unknown.
    da, z = (
        LAYOUTS[layout](backend_one_device.xp, backend_one_device.asarray(x, "complex64"))
        for x in draw(((3, 1, 2), 4, 5), "complex64")
    )
    check(backend_one_device, MOMENTS[of], da, z, "complex64")


@pytest.mark.parametrize("of", MOMENTS)
def test_blocks(backend_one_device: Backend, monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    """Three examples to a block, and a rest."""
    monkeypatch.setattr(blocking, "_MOST", 18)
    monkeypatch.setattr(blocking, "_ROWS", 3)
    for shape in (((7,), 3, 4), ((7, 4), 2, 3)):
        da, z = (backend_one_device.rows(x, "float32") for x in draw(shape, "float32"))
        check(backend_one_device, MOMENTS[of], da, z, "float32")


def test_narrow_sums_keep_growing(backend_one_device: Backend) -> None:
    """A running float16 sum of ones would stop at 2,048."""
    for dtype in {"float16"} & set(backend_one_device.dtypes):
        for shape in ((5000, 2), (5000, 1, 2)):
            ones = backend_one_device.blocks(np.ones(shape), dtype)
            dw, db = backend_one_device.numpy(backend_one_device.call(second_moments, ones, ones))
            assert (dw.tolist(), db.tolist()) == ([[5000] * 2] * 2, [5000] * 2)


def test_small_variance_of_a_large_gradient(backend_one_device: Backend) -> None:
    """Of gradients 4096 ± 1 the variance is 1, which float32 squares of 1.7e7 have no room for."""
    if "float64" not in backend_one_device.dtypes:
        return  # nothing wider to add up in
    da, z = np.asarray([[4095.0], [4097.0]] * 50), np.ones((100, 1))
    arrays = backend_one_device.blocks(da, "float32"), backend_one_device.blocks(z, "float32")
    dw, db = backend_one_device.numpy(backend_one_device.call(gradient_variance, *arrays))
    assert (dw.tolist(), db.tolist()) == ([[1.0]], [1.0])


def test_signal_without_noise(backend: Backend) -> None:
    """The same gradient in all examples: infinity where it is not zero, 0 where it is; neither warns."""
    da, z = backend.rows([[2.0, 0.0]] * 4, "float32"), backend.rows([[3.0, 0.0]] * 4, "float32")
    dw, db = backend.numpy(backend.call(gradient_signal_to_noise, da, z))
    assert (dw.tolist(), db.tolist()) == ([[np.inf, 0], [0, 0]], [np.inf, 0])


def test_rounded_variance_is_not_negative(backend_one_device: Backend) -> None:
    rng = np.random.default_rng(32)
    da, z = (backend_one_device.rows(np.repeat(rng.random((1, size)), 7, axis=0)) for size in (9, 8))
    dw, db = backend_one_device.numpy(backend_one_device.call(gradient_variance, da, z))
    assert dw.min() >= 0
    assert db.min() >= 0


@pytest.mark.parametrize("of", MOMENTS)
def test_nan_stays_in_its_output(backend: Backend, of: str) -> None:
    da, z = np.ones((4, 3)), np.ones((4, 2))
    da[1, 0] = np.nan
    dw, db = backend.numpy(backend.call(MOMENTS[of].call, backend.rows(da), backend.rows(z)))
    assert np.isnan(dw).tolist() == [[True, False, False]] * 2
    assert np.isnan(db).tolist() == [True, False, False]


@pytest.mark.parametrize("function", [second_moments, gradient_variance, gradient_signal_to_noise])
def test_refuses_shapes(backend_one_device: Backend, function: Any) -> None:
    x, y = backend_one_device.asarray(np.ones((2, 3))), backend_one_device.asarray(np.ones((5, 4)))
    with pytest.raises(
        ValueError, match=rf"^{function.__name__}: da and z must have the same shape but .* got da \(2, 3\)"
    ):
        function(x, y)
    with pytest.raises(
        ValueError, match=rf"^{function.__name__}: da and z must have at least two axes.* got da \(3,\)"
    ):
        function(x[0, :], y)
