"""Gradients of single examples, their norms and their clipped sum: by definition, in blocks, and at their edges."""

from typing import Any

import numpy as np
import pytest

from pullback import clipped_gradients, per_example_gradients, per_example_norms
from pullback._ops.per_example import blocking
from tests.harness.backend import Backend, sampled
from tests.harness.pair_laws import EPS, LAYOUTS
from tests.harness.per_example_cases import FISHER, MOMENTS, PER_EXAMPLE, SHAPES, check, draw, exact


@pytest.mark.parametrize("of", PER_EXAMPLE)
@pytest.mark.parametrize("shape", sampled(SHAPES, 2))
def test_shapes(backend_one_device: Backend, shape: str, of: str) -> None:
    da, z = (backend_one_device.rows(x, "float32") for x in draw(SHAPES[shape], "float32"))
    check(backend_one_device, PER_EXAMPLE[of], da, z, "float32")


@pytest.mark.parametrize("shape", [((7,), 3, 1), ((4, 2), 6, 1), ((0,), 3, 1)], ids=str)
@pytest.mark.parametrize("of", PER_EXAMPLE | MOMENTS | FISHER)
def test_vector_of_weights(backend_one_device: Backend, of: str, shape: Any) -> None:
    """Upstream gradients without an axis of outputs give what a column gives, without that axis."""
    da, z = (backend_one_device.rows(x, "float32") for x in draw(shape, "float32"))
    call = (PER_EXAMPLE | MOMENTS | FISHER)[of].call
    column, vector = (backend_one_device.numpy(backend_one_device.call(call, x, z)) for x in (da, da[..., 0]))
    if not isinstance(column, tuple):
        np.testing.assert_array_equal(vector, column)  # norms have no axis of outputs
        return
    for got, right in zip(vector, column, strict=True):
        assert (got is None) == (right is None)
        if got is not None:
            assert got.shape == right.shape[:-1]
            np.testing.assert_array_equal(got, right[..., 0])


@pytest.mark.parametrize("of", PER_EXAMPLE)
def test_dtypes(backend: Backend, dtype: str, of: str) -> None:
    da, z = (backend.rows(x, dtype) for x in draw(SHAPES["2-d"], dtype))
    check(backend, PER_EXAMPLE[of], da, z, dtype)


@pytest.mark.parametrize("of", PER_EXAMPLE)
def test_positions(backend: Backend, of: str) -> None:
    for shape in ("gram", "formed"):
        da, z = (backend.rows(x, "float32") for x in draw(SHAPES[shape], "float32"))
        check(backend, PER_EXAMPLE[of], da, z, "float32")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of", PER_EXAMPLE)
def test_layouts(backend_one_device: Backend, of: str, layout: str) -> None:
    # What is done here to the rows of an array, Dask cannot do where their number is unknown.
    da, z = (
        LAYOUTS[layout](backend_one_device.xp, backend_one_device.asarray(x, "complex64"))
        for x in draw(((3, 1, 2), 4, 5), "complex64")
    )
    check(backend_one_device, PER_EXAMPLE[of], da, z, "complex64")


@pytest.mark.parametrize("of", PER_EXAMPLE)
def test_blocks(backend_one_device: Backend, monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    """Two examples to a block, and a rest."""
    monkeypatch.setattr(blocking, "_MOST", 20)
    for shape in (((5, 2), 6, 5), ((5, 4), 2, 3)):
        da, z = (backend_one_device.rows(x, "float32") for x in draw(shape, "float32"))
        check(backend_one_device, PER_EXAMPLE[of], da, z, "float32")


@pytest.mark.parametrize(("of_da", "of_z"), [("float32", "float64"), ("float32", "complex64"), ("float16", "float32")])
def test_mixed_dtypes(backend_one_device: Backend, of_da: str, of_z: str) -> None:
    of_da, of_z = (x if x in backend_one_device.dtypes else "float32" for x in (of_da, of_z))
    da, z = draw(SHAPES["2-d"], "float16")[0].astype("float16"), draw(SHAPES["2-d"], of_z)[1]
    for quantity in PER_EXAMPLE.values():
        check(backend_one_device, quantity, backend_one_device.rows(da, of_da), backend_one_device.rows(z, of_z), of_z)


def test_sum_is_the_gradient_of_the_batch(backend_one_device: Backend) -> None:
    """A clip that nothing reaches leaves the gradient of the batch."""
    da, z = draw(SHAPES["formed"], "float64")
    dw, db = backend_one_device.numpy(
        backend_one_device.call(clipped_gradients, backend_one_device.rows(da), backend_one_device.rows(z), 1e6)
    )
    of = exact(da, z)
    np.testing.assert_allclose(dw, of.dw.sum(0), rtol=0, atol=40 * EPS[backend_one_device.real] * of.dw_size.max())
    np.testing.assert_allclose(db, of.db.sum(0), rtol=0, atol=40 * EPS[backend_one_device.real] * of.db_size.max())


def test_clipped_norm(backend_one_device: Backend) -> None:
    """One example longer than the clip keeps its direction; one of norm zero stays; neither warns."""
    da, z = np.asarray([[30.0, 40.0], [0.0, 0.0]]), np.asarray([[2.0, 2.0], [5.0, 5.0]])
    dw, db = backend_one_device.numpy(
        backend_one_device.call(clipped_gradients, backend_one_device.rows(da), backend_one_device.rows(z), 1.5)
    )
    np.testing.assert_allclose(db, [0.3, 0.4], rtol=10 * EPS[backend_one_device.real])
    np.testing.assert_allclose(dw, [[0.6, 0.8], [0.6, 0.8]], rtol=10 * EPS[backend_one_device.real])


def test_infinite_clip(backend_one_device: Backend) -> None:
    da, z = np.asarray([[3.0], [0.0]]), np.asarray([[2.0], [5.0]])
    dw, _ = backend_one_device.numpy(
        backend_one_device.call(clipped_gradients, backend_one_device.rows(da), backend_one_device.rows(z), np.inf)
    )
    assert dw.tolist() == [[6.0]]


def test_norms_beyond_the_range_of_squares(backend_one_device: Backend) -> None:
    """float32 squares of 1e-15 and of 1e15 multiply to 1e60, float16 ones of 300 are infinite: the norms are none."""
    da, z = backend_one_device.rows([[3e15, 4e15]], "float32"), backend_one_device.rows([[0.0, 1e10]], "float32")
    np.testing.assert_allclose(
        backend_one_device.numpy(backend_one_device.call(per_example_norms, da, z)), [5e25], rtol=1e-6
    )
    if "float64" in backend_one_device.dtypes:  # to which Gram matrices of positions are widened
        da, z = (
            backend_one_device.rows([[[3e15, 4e15] * 3]], "float32"),
            backend_one_device.rows([[[0.0, 1e10] * 3]], "float32"),
        )
        np.testing.assert_allclose(
            backend_one_device.numpy(backend_one_device.call(per_example_norms, da, z)), [15e25], rtol=1e-6
        )
    if "float16" in backend_one_device.dtypes:
        da, z = (
            backend_one_device.rows([[300.0, 400.0], [3e-6, 4e-6]], "float16"),
            backend_one_device.rows([[0.0], [0.0]], "float16"),
        )
        norms = backend_one_device.numpy(backend_one_device.call(per_example_norms, da, z))
        np.testing.assert_allclose(norms, [500.0, 5e-6], rtol=0.01)


@pytest.mark.parametrize("positions", [2, 4])
def test_cancelling_positions(backend_one_device: Backend, positions: int) -> None:
    """The gradient is zero; its squared norm may be rounded below that, and is not NaN."""
    rng = np.random.default_rng(31)
    for k, n in ((6, 5), (2, 3)):
        half = rng.random((20, positions // 2, k)), rng.random((20, positions // 2, n))
        z, da = np.concatenate([half[0]] * 2, axis=1), np.concatenate([half[1], -half[1]], axis=1)
        norms = backend_one_device.numpy(
            backend_one_device.call(
                per_example_norms, backend_one_device.rows(da, "float32"), backend_one_device.rows(z, "float32")
            )
        )
        assert np.all(norms <= np.sqrt(EPS["float32"]) * positions * np.sqrt((k + 1) * n))


def test_narrow_positions_keep_growing(backend_one_device: Backend) -> None:
    """A running float16 sum of ones would stop at 2,048."""
    for dtype in {"float16"} & set(backend_one_device.dtypes):
        ones = backend_one_device.blocks(np.ones((1, 5000, 1)), dtype)
        dw, db = backend_one_device.numpy(backend_one_device.call(per_example_gradients, ones, ones))
        assert (dw.tolist(), db.tolist()) == ([[[5000]]], [[5000]])


@pytest.mark.parametrize("shape", ["2-d", "gram", "formed"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_example(backend: Backend, bad: float, shape: str) -> None:
    da, z = (np.ones_like(x) for x in draw(SHAPES[shape], "float32"))
    da[1, ..., 0] = bad
    da, z = backend.rows(da, "float32"), backend.rows(z, "float32")
    others = [i != 1 for i in range(z.shape[0])] if isinstance(z.shape[0], int) else [True, False, True]
    with np.errstate(invalid="ignore"):
        norms = backend.numpy(backend.call(per_example_norms, da, z))
        dw, db = backend.numpy(backend.call(per_example_gradients, da, z))
        clipped = backend.numpy(backend.call(clipped_gradients, da, z, backend.asarray(1.0)))
    finite = np.isfinite(norms)
    assert finite[: len(others)].tolist() == others
    assert not finite[1]
    assert (np.isfinite(dw[1]).any(axis=0).tolist(), np.isfinite(db[1]).tolist()) == (
        2 * ([False] + [True] * (db.shape[1] - 1),)
    )
    assert np.isfinite(dw[2]).all()
    # The example's norm is NaN or infinite, so that no entry of it passes unclipped: not those of the other outputs.
    assert np.isnan(clipped[0][:, 0]).all()
    assert np.isnan(clipped[1][1:]).all() or np.isinf(bad)


SHAPE_ERRORS = {
    "m of a vector": ((3,), (2, 4), r"da and z must .*, which da of a vector of weights has not; got da \(3,\) and z "),
    "no example": ((), (4,), r"da and z must have at least two axes, .* got da \(\) and z \(4,\)"),
    "an example": ((3,), (4,), r"da and z must have .* z \(4,\)\. A single example is da\[None, :\] and z\[None, :\]$"),
    "m": ((2, 3), (5, 4), r"da and z must have the same shape but for the last axis; got da \(2, 3\) and z \(5, 4\)$"),
    "positions": ((2, 6, 3), (2, 5, 4), r"da and z must have the same shape .* got da \(2, 6, 3\) and z \(2, 5, 4\)$"),
    "axes": ((2, 3), (2, 1, 4), r"da and z must have the same shape .* got da \(2, 3\) and z \(2, 1, 4\)$"),
}


def clip(da: Any, z: Any) -> Any:
    return clipped_gradients(da, z, 1.0)


@pytest.mark.parametrize("case", SHAPE_ERRORS)
@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("per_example_gradients", per_example_gradients),
        ("per_example_norms", per_example_norms),
        ("clipped_gradients", clip),
    ],
)
def test_refuses_shapes(backend_one_device: Backend, function: str, call: Any, case: str) -> None:
    *shapes, message = SHAPE_ERRORS[case]
    da, z = (backend_one_device.asarray(np.ones(shape)) for shape in shapes)
    with pytest.raises(ValueError, match=f"^{function}: {message}"):
        call(da, z)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.float32(-1), np.int64(0), np.asarray(-2.0)])
def test_refuses_clips(backend_one_device: Backend, bad: Any) -> None:
    x = backend_one_device.asarray(np.ones((2, 3)))
    with pytest.raises(ValueError, match=rf"^clipped_gradients: max_norm must be above 0; got {float(bad)}$"):
        clipped_gradients(x, x, bad)


def test_clip_of_any_number_type(backend_one_device: Backend) -> None:
    """A scalar of NumPy or an array without axes changes neither the value nor the dtype."""
    da, z = (backend_one_device.rows(x, "float32") for x in draw(SHAPES["2-d"], "float32"))
    limits: list[Any] = [2.0, 2, np.float64(2), np.int64(2), np.asarray(2.0), backend_one_device.asarray(2.0)]
    wanted, *others = (list[Any](clipped_gradients(da, z, limit)) for limit in limits)
    for got in others:
        for x, y in zip(got, wanted, strict=True):
            assert x.dtype == backend_one_device.dtype("float32")
            np.testing.assert_allclose(backend_one_device.numpy(x), backend_one_device.numpy(y), rtol=1e-5)


def test_clip_of_each_example(backend_one_device: Backend) -> None:
    da, z = np.asarray([[3.0, 4.0], [30.0, 40.0], [0.3, 0.4]]), np.zeros((3, 2))
    limits = backend_one_device.rows([1.0, 10.0, 1.0])
    arrays = backend_one_device.rows(da), backend_one_device.rows(z)
    _, db = backend_one_device.numpy(backend_one_device.call(clipped_gradients, *arrays, limits))
    np.testing.assert_allclose(db, [6.9, 9.2], rtol=10 * EPS[backend_one_device.real])


def test_refuses_clips_of_each_example(backend_one_device: Backend) -> None:
    x = backend_one_device.asarray(np.ones((2, 3)))
    limits = backend_one_device.asarray(np.ones(3))
    with pytest.raises(ValueError, match=r"^clipped_gradients: max_norm must be a number, or have .* max_norm \(3,\)"):
        clipped_gradients(x, x, limits)
    word: Any = "large"
    with pytest.raises(TypeError, match=r"^clipped_gradients: max_norm must be a real number; got str"):
        clipped_gradients(x, x, word)


def test_refuses_negative_clips_of_one_example() -> None:
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"^clipped_gradients: every entry of max_norm must be above 0; got -1$"):
        clipped_gradients(x, x, np.asarray([1.0, -1.0]))


def test_negative_clip_that_is_not_checked(backend: Backend) -> None:
    """A lazy or traced array cannot be: its sign must not turn the gradients round."""
    if not hasattr(type(backend.asarray(1.0)), "__array_interface__"):
        x = backend.rows(np.ones((2, 3)))
        with np.errstate(invalid="ignore"):
            dw, db = backend.numpy(backend.call(clipped_gradients, x, x, backend.asarray(-1.0)))
        assert np.all(np.isnan(dw))
        assert np.all(np.isnan(db))


def test_refuses_integers(backend_one_device: Backend) -> None:
    x = backend_one_device.asarray(np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"^per_example_norms: z must have a floating dtype; got .*int64"):
        per_example_norms(x, backend_one_device.asarray(np.ones((2, 3), "int64")))
