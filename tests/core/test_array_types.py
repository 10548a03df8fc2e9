"""Arrays that are not plain: each is an error with a way out that works, or passes through with the right result."""

import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.sparse as sp

from pullback import (
    affine_backward,
    affine_forward,
    affine_jacobians,
    check_pair,
    matmul_forward,
    per_example_norms,
    relu_forward,
    squared_error,
    weight_jacobian_slice,
)
from pullback._core import arguments
from tests.harness.backend import Backend

Z = np.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
W = np.asarray([[1.0, 0.0, 2.0], [0.5, 1.0, 0.0]])


def _matrix(x: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(x)


class Table:
    """A table as pandas, polars and xarray have them: no array, with a method that makes one."""

    def to_numpy(self) -> Any:
        return Z


# What is not an array that pullback takes: the error for it, and its way out, as a function.
UNSUPPORTED: dict[str, tuple[Any, str, str, Callable[[Any], Any]]] = {
    "masked": (
        np.ma.array(Z, mask=Z < 2),
        "not be masked; got MaskedArray. Fill it first, for example with {}.filled(0)",
        "filled",
        lambda z: z.filled(0),
    ),
    "matrix": (
        _matrix(Z),
        "multiply entry by entry, as arrays do; got a matrix. Convert it first, with numpy.asarray({})",
        "asarray",
        np.asarray,
    ),
    "objects": (
        Z.astype(object),
        "hold numbers; got an array of objects. Convert it first, with {}.astype(float)",
        "astype",
        lambda z: z.astype(float),
    ),
    "scipy.sparse array": (
        sp.csr_array(Z),
        "be an array; got csr_array. Convert it first, with {}.toarray()",
        "toarray",
        lambda z: z.toarray(),
    ),
    "scipy.sparse matrix": (
        sp.coo_matrix(Z),
        "be an array; got coo_matrix. Convert it first, with {}.toarray()",
        "toarray",
        lambda z: z.toarray(),
    ),
    "table": (
        Table(),
        "be an array; got Table. Convert it first, with {}.to_numpy()",
        "to_numpy",
        lambda z: z.to_numpy(),
    ),
    "list": (
        Z.tolist(),
        "be an array; got list. Convert it first, for example with numpy.asarray({})",
        "asarray",
        np.asarray,
    ),
    "longdouble": (
        Z.astype(np.longdouble),
        (
            f"have a dtype no wider than float64; got {np.dtype(np.longdouble)}. "
            "Cast it first, for example with xp.astype({}, xp.float64)"
        ),
        "float64",
        lambda z: np.astype(z, np.float64),
    ),
    "complex longdouble": (
        Z.astype(np.clongdouble),
        (
            f"have a dtype no wider than complex128; got {np.dtype(np.clongdouble)}. "
            "Cast it first, for example with xp.astype({}, xp.complex128)"
        ),
        "complex128",
        lambda z: np.astype(z, np.complex128),
    ),
    "integers": (
        Z.astype(int),
        f"have a floating dtype; got {np.dtype(int)}. Cast it first, for example with xp.astype({{}}, xp.float32)",
        "float32",
        lambda z: np.astype(z, np.float32),
    ),
    "4-bit integers": (
        Z.astype(ml_dtypes.int4),
        "have a floating dtype; got int4. Cast it first, for example with xp.astype({}, xp.float32)",
        "float32",
        lambda z: np.astype(z, np.float32),
    ),
    "text": (
        Z.astype(str),
        "have a floating dtype; got <U32. Cast it first, for example with xp.astype({}, xp.float32)",
        "float32",
        lambda z: np.astype(z, np.float32),
    ),
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_refused_with_a_way_out(kind: str) -> None:
    what, message, method, way_out = UNSUPPORTED[kind]
    assert method in message
    # The affine map accepts sparse batches.
    function, name = (matmul_forward, "x1") if "sparse" in kind else (affine_forward, "z")
    with pytest.raises(TypeError) as error:
        function(what, W)
    assert str(error.value) == f"{function.__name__}: {name} must {message.format(name)}"
    z = way_out(what)
    np.testing.assert_array_equal(affine_forward(z, W.astype(z.dtype)), z @ W)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("kind", [x for x in UNSUPPORTED if "integers" not in x])
def test_refused_as_targets_of_a_loss(kind: str) -> None:
    with pytest.raises(TypeError, match=r"^squared_error: y must "):
        squared_error(Z, UNSUPPORTED[kind][0])


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("what", [None, "z", {}], ids=str)
def test_no_way_out_for_what_is_nothing_like_an_array(what: Any) -> None:
    with pytest.raises(TypeError, match=rf"^affine_forward: z must be an array; got {type(what).__name__}$"):
        affine_forward(what, W)


@pytest.mark.backends("numpy")
def test_refused_after_plain_arrays_passed() -> None:
    """What passed once is known by its exact type, which a subclass does not have."""
    affine_forward(Z, W)
    for what in (np.ma.array(Z), _matrix(Z)):
        with pytest.raises(TypeError, match=r"^affine_forward: z must "):
            affine_forward(what, W)
        with pytest.raises(TypeError, match=r"^affine_forward: w must "):
            affine_forward(Z.T, what)


class Sub(np.ndarray):
    """A subclass of arrays that changes nothing, as those with units do at most by an error."""


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("of", [Sub, np.recarray], ids=lambda of: of.__name__)
def test_subclass_passes_through(of: Any) -> None:
    a = affine_forward(Z.view(of), W)
    assert type(a) is of
    np.testing.assert_array_equal(a, Z @ W)


@pytest.mark.backends("numpy")
def test_memmap(tmp_path: Any) -> None:
    z = np.memmap(tmp_path / "z", dtype="f8", mode="w+", shape=Z.shape)
    z[...] = Z
    np.testing.assert_array_equal(affine_forward(z, W), Z @ W)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e5m2", "float8_e4m3fn"])
def test_ml_dtypes(dtype: str) -> None:
    """They are computed in float32 and returned narrow, as float16 is."""
    narrow = np.dtype(getattr(ml_dtypes, dtype))
    da, z, w = (x.astype(narrow) for x in (np.ones((300, 3)), np.ones((300, 2)), W))
    a = affine_forward(z, w, w[0, :])
    assert a.dtype == narrow
    np.testing.assert_array_equal(a, np.tile(W.sum(axis=0) + W[0], (300, 1)).astype(narrow))
    gradients = affine_backward(da, z, w)
    assert {x.dtype for x in gradients if x is not None} == {narrow}
    # A running sum of ones in bfloat16 stops at 256.
    np.testing.assert_array_equal(gradients.db, np.full(3, 300.0).astype(narrow))
    for x in (relu_forward(z), per_example_norms(da, z), *squared_error(z, z)):
        assert x.dtype == narrow


@pytest.mark.backends("numpy")
def test_ml_dtypes_obey_the_laws_of_a_pair() -> None:
    z, w, b = (x.astype(ml_dtypes.bfloat16) for x in (Z, W, W[0]))
    assert check_pair(affine_forward, affine_backward, z, w, b, names=("z", "w", "b"), needs=("z", "w")).findings
    for x in affine_jacobians(z, w):
        assert x is not None
        assert x.dtype == z.dtype
    assert weight_jacobian_slice(z, 0, 1, 3).dtype == z.dtype


@pytest.mark.backends("numpy")
def test_ml_dtypes_promote() -> None:
    z, w = Z.astype(ml_dtypes.bfloat16), W.astype(np.float16)
    assert affine_forward(z, W.astype(np.float32)).dtype == np.float32
    assert affine_forward(z, W.astype(np.complex64)).dtype == np.complex64
    dz = affine_backward(np.ones((3, 3), np.complex64), z, W.astype(np.float32)).dz
    assert dz is not None
    assert dz.dtype == z.dtype
    message = r"^affine_forward: the dtypes of the arrays must have a common one; got z bfloat16 and w float16\. Cast "
    with pytest.raises(TypeError, match=message):
        affine_forward(z, w)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("of", [">f4", ">f8", ">f2", ">c8"])
def test_big_endian(of: str) -> None:
    """A forward returns the machine's own order; a gradient has the dtype of its primal, with its order."""
    da, z, w = (x.astype(of) for x in (np.ones((3, 3)), Z, W))
    a, gradients = affine_forward(z, w), affine_backward(da, z, w)
    assert a.dtype == np.dtype(of[1:])
    np.testing.assert_array_equal(a, Z @ W)
    for x, right in zip(gradients, (np.ones((3, 3)) @ W.T, Z.T @ np.ones((3, 3)), np.full(3, 3.0)), strict=True):
        assert x is not None
        assert x.dtype == np.dtype(of)
        np.testing.assert_array_equal(x, right)


@pytest.mark.backends("dask")
def test_blocks_of_dask() -> None:
    """Dask tells what its blocks are, also after plain arrays of the same dtype have passed."""
    import dask.array as da  # noqa: PLC0415

    z, w = da.from_array(Z, chunks=2), da.from_array(W)
    affine_forward(z, w)
    masked, matrix = da.ma.masked_array(z, z < 2), z.map_blocks(_matrix, meta=_matrix(Z[:0]))
    with pytest.raises(TypeError, match=r"must not be masked; .* for example with dask\.array\.ma\.filled\(z, 0\)$"):
        affine_forward(masked, w)
    np.testing.assert_array_equal(affine_forward(da.ma.filled(masked, 0), w), np.where(Z < 2, 0, Z) @ W)
    with pytest.raises(TypeError, match=r"got a matrix\. Convert it first, with z\.map_blocks\(numpy\.asarray\)$"):
        affine_forward(matrix, w)
    np.testing.assert_array_equal(affine_forward(matrix.map_blocks(np.asarray), w), Z @ W)


@pytest.mark.backends("torch")
def test_masked_tensor() -> None:
    import torch  # noqa: PLC0415

    z, w = torch.asarray(Z), torch.asarray(W)
    with pytest.warns(UserWarning, match="prototype"):
        masked = torch.masked.masked_tensor(z, z > 1)
    with pytest.raises(TypeError, match=r"got MaskedTensor\. Fill it first, for example with z\.to_tensor\(0\)$"):
        affine_forward(masked, w)
    np.testing.assert_array_equal(affine_forward(masked.to_tensor(0), w), np.where(Z > 1, Z, 0) @ W)


@pytest.mark.backends("torch")
def test_first_calls_of_a_process(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """Compiled calls of two dtypes work before any eager call: the caches that they fill do not break their guards."""
    for cache in (arguments._usual, arguments._plain):  # noqa: SLF001
        for key in [*cache]:
            monkeypatch.delitem(cache, key)
    for dtype in ("float64", "float32"):
        zero = backend.asarray(np.zeros((3, 1)), dtype)
        assert backend.numpy(backend.call(squared_error, zero, zero + 1).value) == 0.5


@pytest.mark.backends("jax")
def test_weak_types_do_not_widen() -> None:
    """An array whose dtype nobody chose takes the other's, as in JAX: a gradient has the dtype of its primal."""
    import jax.numpy as jnp  # noqa: PLC0415

    weak, w = jnp.full((4, 2), 1.0), jnp.ones((2, 3), dtype=jnp.bfloat16)
    assert weak.weak_type
    for a in (affine_forward(weak, w), matmul_forward(weak, w), affine_forward(w.mT, weak.mT)):
        assert a.dtype == jnp.bfloat16
    gradients = affine_backward(jnp.full((4, 3), 1.0), weak, w)
    assert [x.dtype for x in gradients if x is not None] == [weak.dtype, w.dtype, w.dtype]
    loss = squared_error(jnp.ones((4, 3), jnp.bfloat16), jnp.full((4, 3), 0.0))
    assert loss.value.dtype == loss.da.dtype == jnp.bfloat16


@pytest.mark.backends("jax")
def test_traced_weak_types(backend: Backend) -> None:
    jnp = backend.xp
    weak, w = jnp.full((4, 2), 1.0), jnp.ones((2, 3), dtype=jnp.float16)
    assert backend.call(affine_forward, weak, w).dtype == jnp.float16
