"""Norms and clipped sums over the whole range of a dtype: right wherever the result is a number of the dtype."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from pullback import clipped_gradients, per_example_norms
from tests.harness.backend import Backend, sampled
from tests.harness.pair_laws import EPS, C

# The way to a norm: by rows, by Gram matrices over the positions, or by the gradients themselves.
ROUTES: dict[str, tuple[tuple[int, ...], int, int]] = {
    "rows": ((4,), 3, 5),
    "gram": ((4, 2), 6, 5),
    "formed": ((4, 4), 2, 3),
    "formed, two axes": ((4, 2, 2), 2, 3),
}
LARGEST = {"float32": 127, "complex64": 127, "float64": 1023, "complex128": 1023}


def norms_without_bias(da: Any, z: Any) -> Any:
    return per_example_norms(da, z, bias=False)


def draw(route: str, dtype: str, seed: int = 60) -> tuple[Any, Any]:
    """Draw numbers of magnitude 1."""
    rng = np.random.default_rng(seed)
    leading, k, n = ROUTES[route]
    parts = [rng.uniform(1, 2, (2, *leading, size)) * rng.choice([-1, 1], (2, *leading, size)) for size in (n, k)]
    da, z = ((x + 1j * y if dtype.startswith("complex") else x).astype(dtype) for x, y in parts)
    return da, z


def loops(da: Any, z: Any, *, bias: bool) -> tuple[Any, Any]:
    """Return the norms in float64, example by example, and the norms of the absolute values."""
    out = []
    for x, y in zip(da, z, strict=True):
        rows = [a.reshape(-1, a.shape[-1]).astype("complex128") for a in (x, y)]
        for of_da, of_z in (rows, [np.abs(a) for a in rows]):
            dw, db = of_z.conj().T @ of_da, of_da.sum(0)
            out.append(math.hypot(*np.abs(dw).ravel(), *(np.abs(db) if bias else ())))
    norms, sizes = np.asarray(out).reshape(-1, 2).T
    return norms, sizes


def close(got: Any, exact: Any, size: Any, dtype: str, terms: int) -> None:
    """Require the squares to agree, whose error does not depend on what cancels."""
    ratio, wanted = np.asarray(got, dtype="float64") / size, exact / size
    assert np.all(np.abs(ratio**2 - wanted**2) <= C * np.sqrt(terms) * EPS[dtype])


@pytest.mark.parametrize("route", sampled(ROUTES, 2))
def test_powers_of_two_factor_out(backend_one_device: Backend, route: str) -> None:
    """The norm of a product does not depend on which factor is large and which is small."""
    for dtype in set(LARGEST) & set(backend_one_device.dtypes):
        of_da, of_z = draw(route, dtype)
        exact, size = loops(of_da, of_z, bias=False)
        most = LARGEST[dtype] - 8
        for a, b in ((most, 0), (most, -most), (2, -most), (most // 2,) * 2, (-most // 2,) * 2):
            arrays = (backend_one_device.rows(x * np.ldexp(1.0, p), dtype) for x, p in ((of_da, a), (of_z, b)))
            got = backend_one_device.numpy(backend_one_device.call(norms_without_bias, *arrays)).astype("float64")
            close(np.ldexp(np.ldexp(got, -a), -b), exact, size, dtype, 40)


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "rows"])
def test_powers_of_two_of_positions_factor_out(backend_one_device: Backend, route: str) -> None:
    """Each position may have its own: neither factor of a position says how much it adds to the gradient."""
    for dtype in set(LARGEST) & set(backend_one_device.dtypes):
        of_da, of_z = draw(route, dtype)
        exact, size = loops(of_da, of_z, bias=False)
        powers = np.random.default_rng(61).integers(-LARGEST[dtype] + 4, LARGEST[dtype] - 4, of_z.shape[:-1])[..., None]
        da, z = of_da * np.ldexp(1.0, powers), of_z * np.ldexp(1.0, -powers)
        arrays = backend_one_device.rows(da, dtype), backend_one_device.rows(z, dtype)
        got = backend_one_device.numpy(backend_one_device.call(norms_without_bias, *arrays))
        close(got, exact, size, dtype, 40)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("route", sampled(ROUTES, 2))
def test_any_exponents(backend_one_device: Backend, route: str, *, bias: bool) -> None:
    """Beside float64, which holds the products of float32 numbers of any exponents."""
    call = per_example_norms if bias else norms_without_bias
    for seed in range(6):
        rng = np.random.default_rng(seed)
        da, z = draw(route, "float32", seed)
        # Each entry has an exponent of its own, or each position, or each example.
        shapes = [(x.shape, (*x.shape[:-1], 1), (len(x), *(1,) * (x.ndim - 1)))[seed % 3] for x in (da, z)]
        powers = (np.ldexp(np.float32(1), rng.integers(-90, 60, shape)) for shape in shapes)
        da, z = (x * power for x, power in zip((da, z), powers, strict=True))
        da[rng.random(da.shape) < 0.2] = 0
        exact, size = loops(da, z, bias=bias)
        got = backend_one_device.numpy(
            backend_one_device.call(call, backend_one_device.rows(da), backend_one_device.rows(z))
        )
        known = exact > 2.0**-120
        assert known.any()
        close(got[known], exact[known], size[known], "float32", 40)


def test_range(backend: Backend) -> None:
    """Squares of 1e20 and of 1e-25 are out of the range of float32, and the norms are not."""
    cases: list[Any] = [
        ([[1e20, 0]], [[0.5, 0]], 1.1180340e20),
        ([[1e20, 0]], [[1e-18, 0]], 1e20),
        ([[1e-25, 0]], [[0.5, 0]], 1.1180340e-25),
        ([[[1e20, 0]] * 2], [[[0.5, 0]] * 2], 2.2360680e20),
        ([[[1e-25] * 9] * 2], [[[0.5] * 9] * 2], 2e-25 * math.sqrt(9 * (1 + 9 / 4))),
    ]
    for da, z, wanted in cases:
        arrays = backend.rows(da, "float32"), backend.rows(z, "float32")
        got = backend.numpy(backend.call(per_example_norms, *arrays))
        np.testing.assert_allclose(got, [wanted], rtol=1e-6)
    arrays = backend.rows([[1e20, 0]], "float32"), backend.rows([[1e-18, 0]], "float32")
    np.testing.assert_allclose(backend.numpy(backend.call(norms_without_bias, *arrays)), [100], rtol=1e-6)


def test_clip_of_large_and_small_gradients(backend: Backend) -> None:
    """Each example keeps its direction, also where its norm is no number of the dtype, and small ones stay."""
    unit = partial(clipped_gradients, max_norm=1.0)
    cases: list[Any] = [
        ([[1e20, 0]], [[0.5, 0]], [2 / math.sqrt(5), 0]),
        ([[1e30, 0], [0, 0]], [[1e30, 0], [1, 0]], [1e-30, 0]),
        ([[1e-25, 2e-25]], [[1e-9, 0]], [1e-25, 2e-25]),
        ([[[1e20, 0]] * 4], [[[0.5, 0]] * 4], [2 / math.sqrt(5), 0]),
        ([[[1e30, 0]] * 4], [[[1e30, 0]] * 4], [1e-30, 0]),
    ]
    for da, z, wanted in cases:
        arrays = backend.rows(da, "float32"), backend.rows(z, "float32")
        dw, db = backend.numpy(backend.call(unit, *arrays))
        np.testing.assert_allclose(db, wanted, rtol=2e-6)
        np.testing.assert_allclose(dw[0], np.ravel(z)[0] * np.asarray(wanted), rtol=2e-6)


def test_small_clip_of_a_large_gradient(backend: Backend) -> None:
    da, z = backend.rows([[3e38, 1e30]], "float32"), backend.rows([[0.0, 0.0]], "float32")
    for limit in (1e30, 1e-6):
        _, db = backend.numpy(backend.call(clipped_gradients, da, z, backend.asarray(limit, "float32")))
        np.testing.assert_allclose(db, [limit, limit * 1e30 / 3e38], rtol=2e-6)


def test_sum_of_squares_that_is_out_of_range_over_the_batch(backend_one_device: Backend) -> None:
    """No norm of the batch is, so that none is scaled."""
    da, z = backend_one_device.rows([[1e18]] * 9, "float32"), backend_one_device.rows([[0.0]] * 9, "float32")
    norms = backend_one_device.numpy(backend_one_device.call(per_example_norms, da, z))
    np.testing.assert_allclose(norms, [1e18] * 9, rtol=1e-6)


def test_blocks_of_which_one_is_scaled(backend_one_device: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pullback._ops.per_example.blocking._MOST", 1)
    da = np.ones((3, 4, 3))
    da[1] *= 1e25
    da[2] = 0
    arrays = backend_one_device.rows(da, "float32"), backend_one_device.rows(np.ones((3, 4, 2)), "float32")
    norms = backend_one_device.numpy(backend_one_device.call(per_example_norms, *arrays))
    np.testing.assert_allclose(norms, [12, 12e25, 0], rtol=1e-6)
