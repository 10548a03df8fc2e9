"""The tensors of derivatives, entry by entry what the map changes by, and what is refused of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

from pullback import affine_backward, affine_jacobians, affine_jvp, weight_jacobian_slice
from tests.harness.backend import Backend
from tests.harness.pair_cases import AFFINE, AFFINE_SHAPES, Shape
from tests.harness.pair_laws import inner, structure_of, wide


def drawn(backend: Backend, shapes: dict[str, Shape], dtype: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw z and w: as the backend holds them, and exactly the same in NumPy."""
    rng = np.random.default_rng(30)
    exact = {x: rng.standard_normal(shapes[x]) for x in ("z", "w")}
    if "complex" in dtype:
        exact = {x: array + 1j * rng.standard_normal(array.shape) for x, array in exact.items()}
    held = {x: backend.asarray(array, dtype) for x, array in exact.items()}
    return held, {x: wide(backend.numpy(array)) for x, array in held.items()}


def expected(exact: dict[str, Any], x: str) -> Any:
    """Return what the output changes by for each unit of an input: no rounding, since nothing else adds to it."""
    arrays = {**exact, "z": exact["z"] * (x != "b"), "b": np.zeros(exact["w"].shape[1])}
    units = np.eye(arrays[x].size).reshape(arrays[x].size, *arrays[x].shape)
    changes = [AFFINE.linear(arrays, **{x: unit}) for unit in units]
    output = AFFINE.map(arrays)
    columns = np.stack(changes, axis=-1) if changes else np.zeros((*output.shape, 0))
    return columns.reshape(*output.shape, *arrays[x].shape)


@pytest.mark.parametrize("shape", AFFINE_SHAPES)
def test_shapes(backend_one_device: Backend, shape: str) -> None:
    held, exact = drawn(backend_one_device, AFFINE_SHAPES[shape], "float32")
    jacobians = backend_one_device.call(affine_jacobians, held["z"], held["w"])
    assert jacobians._fields == ("dz", "dw", "db")
    for x, got in zip("zwb", jacobians, strict=True):
        np.testing.assert_array_equal(backend_one_device.numpy(got), expected(exact, x))


def test_dtypes(backend: Backend, dtype: str) -> None:
    held, exact = drawn(backend, AFFINE_SHAPES["3-d"], dtype)
    for x, got in zip("zwb", backend.call(affine_jacobians, held["z"], held["w"]), strict=True):
        namespace, _, *rest = structure_of(held["z"])
        assert structure_of(got) == (namespace, expected(exact, x).shape, *rest)
        np.testing.assert_array_equal(backend.numpy(got), expected(exact, x))


@pytest.mark.parametrize(("of_z", "of_w"), [("float32", "complex64"), ("float16", "float32")])
def test_promoted(backend_one_device: Backend, of_z: str, of_w: str) -> None:
    z = backend_one_device.asarray(np.ones((2, 3)), of_z if of_z in backend_one_device.dtypes else "float32")
    w = backend_one_device.asarray(np.ones((3, 2)), of_w)
    assert [x.dtype for x in affine_jacobians(z, w) if x is not None] == [backend_one_device.dtype(of_w)] * 3


def test_subsets(backend_one_device: Backend) -> None:
    held, exact = drawn(backend_one_device, AFFINE_SHAPES["2-d"], "float32")
    assert affine_jacobians(held["z"], held["w"], wrt=()) == (None, None, None)
    dz, dw, db = affine_jacobians(held["z"], held["w"], wrt=("w",))
    assert (dz, db) == (None, None)
    np.testing.assert_array_equal(backend_one_device.numpy(dw), expected(exact, "w"))


def test_nan_and_infinity_stay_in_their_entries(backend_one_device: Backend) -> None:
    z, w = np.ones((4, 3)), np.ones((3, 2))
    z[1, 2], w[0, 1] = np.inf, np.nan
    dz, dw, db = backend_one_device.numpy(
        affine_jacobians(backend_one_device.asarray(z), backend_one_device.asarray(w))
    )
    assert np.argwhere(np.isnan(dz)).tolist() == [[i, 1, i, 0] for i in range(4)]
    assert np.argwhere(np.isinf(dw)).tolist() == [[1, j, 2, j] for j in range(2)]
    assert np.count_nonzero(~np.isfinite(dz)) + np.count_nonzero(~np.isfinite(dw)) == 6
    assert np.all(np.isfinite(db))


def test_contractions_are_the_tangent_and_the_gradient(backend_one_device: Backend) -> None:
    """Contracted with a tangent, the tensor is the tangent of the output; with da, it is the conjugate gradient."""
    (z, w), (exact, moves) = (
        [backend_one_device.asarray(x) for x in _integers(30)],
        [_integers(seed) for seed in (30, 31)],
    )
    da = _integers(32, (4, 2))[0]
    jacobians = backend_one_device.numpy(affine_jacobians(z, w))
    tangent = backend_one_device.numpy(
        affine_jvp(z, w, z_tangent=backend_one_device.asarray(moves[0]), w_tangent=backend_one_device.asarray(moves[1]))
    )
    assert exact[0].shape == (4, 3)
    np.testing.assert_array_equal(np.tensordot(jacobians[0], moves[0]) + np.tensordot(jacobians[1], moves[1]), tangent)
    gradients = backend_one_device.numpy(affine_backward(backend_one_device.asarray(da), z, w))
    for jacobian, gradient in zip(jacobians, gradients, strict=True):
        np.testing.assert_array_equal(np.tensordot(da, jacobian.conj()), gradient)
    assert inner(da, tangent) == inner(gradients[0], moves[0]) + inner(gradients[1], moves[1])


def _integers(seed: int, *shapes: Shape) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-3, 4, x) + 1j * rng.integers(-3, 4, x) for x in shapes or ((4, 3), (3, 2))]


def test_refuses_what_is_too_large(backend_one_device: Backend) -> None:
    z, w = (
        backend_one_device.asarray(np.ones((4, 3)), "float32"),
        backend_one_device.asarray(np.ones((3, 2)), "float32"),
    )
    of_w = 4 * 2 * 3 * 2 * 4
    assert affine_jacobians(z, w, wrt=("w",), max_bytes=of_w).dw is not None
    message = (
        r"^affine_jacobians: ∂a/∂w must have at most max_bytes = 191 bytes; got 192 for the shape \(4, 2, 3, 2\)\. "
        r"JacobianOperator\(z, w\) multiplies with it without forming it$"
    )
    with pytest.raises(ValueError, match=message):
        affine_jacobians(z, w, wrt=("w",), max_bytes=of_w - 1)
    with pytest.raises(ValueError, match=r"∂a/∂z must have at most .*; got 384 for the shape \(4, 2, 4, 3\)"):
        affine_jacobians(z, w, max_bytes=200)
    with pytest.raises(ValueError, match=r"∂a/∂b must have at most .*; got 64 for the shape \(4, 2, 2\)"):
        affine_jacobians(z, w, wrt=("b",), max_bytes=63)
    with pytest.raises(ValueError, match=r"at most max_bytes = 127 bytes; got 128 for"):
        affine_jacobians(backend_one_device.asarray(np.ones((4, 3)), "complex64"), w, wrt=("b",), max_bytes=127)


def test_default_size_is_one_gibibyte() -> None:
    """A float32 tensor of the shape (2¹³, 4, 2¹³, 1) has it; this one is a row longer, and nothing is formed."""
    z = np.broadcast_to(np.float32(1), (2**13 + 1, 1))
    with pytest.raises(ValueError, match=r"max_bytes = 1,073,741,824 bytes; got 1,074,003,984 for"):
        affine_jacobians(z, np.ones((1, 4), dtype="float32"), wrt=("z",))


def test_refuses_sizes_that_are_not_known(backend_one_device: Backend) -> None:
    z, w = backend_one_device.rows(np.ones((4, 3))), backend_one_device.asarray(np.ones((3, 2)))
    if backend_one_device.mode == "unknown rows":
        message = r"^affine_jacobians: the sizes of z and w must be known; got z \(nan, 3\) and w .*compute_chunk_sizes"
        with pytest.raises(ValueError, match=message):
            affine_jacobians(z, w)
    else:
        assert affine_jacobians(z, w).db is not None


def test_refuses_shapes(backend_one_device: Backend) -> None:
    z, w = backend_one_device.asarray(np.ones((4, 3))), backend_one_device.asarray(np.ones((2, 2)))
    with pytest.raises(
        ValueError, match=r"^affine_jacobians: the last axis of z must equal the first axis of w; got z "
    ):
        affine_jacobians(z, w)


def entry(k: int, l: int, n: int) -> Callable[..., Any]:  # noqa: E741
    """Return a function of z alone: the integers are Python's, also where arrays are traced."""
    return lambda z: weight_jacobian_slice(z, k, l, n)


@pytest.mark.parametrize("shape", ["2-d", "3-d", "1-d", "no rows"])
def test_weight_jacobian_slice(backend: Backend, dtype: str, shape: str) -> None:
    held, exact = drawn(backend, AFFINE_SHAPES[shape], dtype)
    z = backend.rows(exact["z"], dtype) if exact["z"].ndim > 1 else held["z"]
    n = exact["w"].shape[1]
    for k, l in ((0, n - 1), (exact["z"].shape[-1] - 1, 0)):  # noqa: E741
        got = backend.call(entry(k, l, n), z)
        assert array_namespace(got) is array_namespace(z)
        assert got.dtype == z.dtype
        np.testing.assert_array_equal(backend.numpy(got), expected(exact, "w")[..., k, l])


INDEX_ERRORS = [
    ((3, 0, 2), ValueError, r"k must be one of the columns of z, 0 … K - 1; got 3 and z \(4, 3\)$"),
    ((-1, 0, 2), ValueError, r"k must be one of the columns of z, 0 … K - 1; got -1 and z \(4, 3\)$"),
    ((0, 2, 2), ValueError, r"l must be one of the n columns, 0 … n - 1; got 2 and n = 2$"),
    ((0, -1, 2), ValueError, r"l must be one of the n columns, 0 … n - 1; got -1 and n = 2$"),
    ((0, 0, 0), ValueError, r"l must be one of the n columns, 0 … n - 1; got 0 and n = 0$"),
    ((0.0, 0, 2), TypeError, r"k must be an integer of Python; got float\. Pass int\(k\)$"),
    ((0, np.int64(0), 2), TypeError, r"l must be an integer of Python; got int64\. Pass int\(l\)$"),
    ((0, 0, "2"), TypeError, r"n must be an integer of Python; got str\. Pass int\(n\)$"),
]


@pytest.mark.parametrize(("indices", "error", "message"), INDEX_ERRORS, ids=str)
def test_weight_jacobian_slice_refuses_indices(
    backend_one_device: Backend, indices: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^weight_jacobian_slice: {message}"):
        weight_jacobian_slice(backend_one_device.asarray(np.ones((4, 3))), *indices)


def test_weight_jacobian_slice_refuses_a_number(backend_one_device: Backend) -> None:
    message = r"^weight_jacobian_slice: z must have at least one axis, shape \(\.\.\., K\); got z \(\)$"
    with pytest.raises(ValueError, match=message):
        weight_jacobian_slice(backend_one_device.asarray(np.ones(())), 0, 0, 1)
