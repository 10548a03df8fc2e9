"""Second moments, variance and signal of single examples' gradients: by definition, in blocks, and at their edges."""

from typing import Any

import numpy as np
import pytest

from pullback import gradient_signal_to_noise, gradient_variance, second_moments
from pullback._ops.per_example import blocking
from tests.harness.backend import Backend, sampled
from tests.harness.pair_laws import EPS, LAYOUTS
from tests.harness.per_example_cases import MOMENTS, SHAPES, check, draw


@pytest.mark.parametrize("of", MOMENTS)
@pytest.mark.parametrize("shape", sampled(SHAPES, 2))
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


# A spread of -1, 0 and 1 around a mean, of da, of z, or of both.
LARGE_MEANS: dict[str, tuple[Any, Any]] = {
    "of da": (lambda mean: mean + np.asarray([[-1.0], [0], [1]]), lambda _: np.ones((3, 1))),
    "of z": (lambda _: np.ones((3, 1)), lambda mean: mean + np.asarray([[-1.0], [0], [1]])),
    "of both": (lambda mean: mean * np.asarray([[1.0], [2], [1]]), lambda mean: mean * np.asarray([[2.0], [1], [1]])),
}


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("of", LARGE_MEANS)
def test_variance_of_a_large_mean(backend_one_device: Backend, of: str, *, positions: bool) -> None:
    """The squares of the mean take all digits of the dtype, and the variance has them all the same."""
    for dtype in {"float32", "float64"} & set(backend_one_device.dtypes):
        for mean in (3e3, 1e6) if dtype == "float32" else (1e8, 1e9):
            da, z = (x(mean) for x in LARGE_MEANS[of])
            if positions:  # of which one adds nothing
                da, z = (np.stack([x, 0 * x], axis=1) for x in (da, z))
            arrays = backend_one_device.rows(da, dtype), backend_one_device.rows(z, dtype)
            variance = backend_one_device.numpy(backend_one_device.call(gradient_variance, *arrays))
            ratio = backend_one_device.numpy(backend_one_device.call(gradient_signal_to_noise, *arrays))
            rows = [x.reshape(3, -1)[:, :1] for x in (z * da, da)]
            for got, signal, each in zip(variance, ratio, rows, strict=True):
                np.testing.assert_allclose(got.ravel(), each.var(0), rtol=30 * EPS[dtype])
                with np.errstate(divide="ignore"):
                    np.testing.assert_allclose(signal.ravel(), each.mean(0) ** 2 / each.var(0), rtol=30 * EPS[dtype])


def test_variance_in_blocks(backend_one_device: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mean that differs from block to block; the blocks of a lazy array are its chunks."""
    monkeypatch.setattr(blocking, "_MOST", 1)
    monkeypatch.setattr(blocking, "_ROWS", 4)
    rng = np.random.default_rng(33)
    da, z = 1e7 + rng.standard_normal((10, 3)), rng.standard_normal((10, 2)) - 1e7
    da[5:] *= 2
    for axes in ((), (1,)):
        arrays = (np.expand_dims(x, axes) for x in (da, z))
        got = backend_one_device.numpy(
            backend_one_device.call(gradient_variance, *(backend_one_device.rows(x) for x in arrays))
        )
        exact = np.var((z[:, :, None] * da[:, None, :]), axis=0), np.var(da, axis=0)
        for x, y in zip(got, exact, strict=True):
            np.testing.assert_allclose(x, y, rtol=100 * EPS[backend_one_device.real])


def test_squares_of_the_factors_out_of_range(backend_one_device: Backend) -> None:
    """Squares of 1e30 and 1e-30 are out of the range of float32, and those of the gradients are not."""
    da, z = [[3e30, 1e30], [0.0, 0.0], [3e-30, 1e-30]], [[1e-30, 2e-30], [1.0, 1.0], [1e30, 2e30]]
    arrays = backend_one_device.rows(da, "float32"), backend_one_device.rows(z, "float32")
    with np.errstate(over="ignore"):
        dw, _ = backend_one_device.numpy(backend_one_device.call(second_moments, *arrays))
    np.testing.assert_allclose(dw, [[18, 2], [72, 8]], rtol=1e-5)


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
        function(x[0, :], y[0, :])
