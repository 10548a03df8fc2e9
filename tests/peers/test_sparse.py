"""Sparse batches and linear operators: the outputs and gradients of dense ones, and a text classifier."""

import re
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sparse
from array_api_compat import array_namespace
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

import pullback as pb
from tests.harness.pair_laws import EPS, C

FORMS = {
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "coo_array": sp.coo_array,
    "csr_matrix": sp.csr_matrix,
    "pydata_coo": sparse.COO.from_numpy,
    "pydata_gcxs": sparse.GCXS.from_numpy,
    "operator": lambda z: aslinearoperator(sp.csr_array(z)),
}


def drawn(dtype: str, *, vector: bool) -> list[Any]:
    """Draw z, mostly 0, w, b and da."""
    rng = np.random.default_rng(60)
    n = () if vector else (3,)
    arrays = [rng.standard_normal(shape) for shape in ((300, 20), (20, *n), n, (300, *n))]
    if dtype.startswith("complex"):
        arrays = [x + 1j * rng.standard_normal(x.shape) for x in arrays]
    arrays[0][rng.random((300, 20)) < 0.9] = 0
    return [np.asarray(x, dtype) for x in arrays]


@pytest.mark.parametrize("vector", [False, True], ids=["matrix", "vector"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("form", FORMS)
def test_equals_dense(form: str, dtype: str, *, vector: bool) -> None:
    dense, w, b, da = drawn(dtype, vector=vector)
    z = FORMS[form](dense)
    wide = "complex128" if dtype == "complex64" else "float64"
    exact = pb.affine_backward(da.astype(wide), dense.astype(wide), w.astype(wide))
    got = pb.affine_backward(da, z, w, wrt=("w", "b"))
    assert got.dz is None
    a = pb.affine_forward(z, w, b)
    right = dense.astype(wide) @ w + b
    for x, y in ((a, right), (pb.affine_forward(z, w), right - b), (got.dw, exact.dw), (got.db, exact.db)):
        assert isinstance(x, np.ndarray)
        assert x.shape == y.shape  # type: ignore[union-attr]
        assert x.dtype == dtype
        np.testing.assert_allclose(x, y, rtol=0, atol=C * 10 * EPS[dtype] * np.abs(y).max())  # type: ignore[arg-type]
    assert pb.affine_backward(da, z, w, wrt=("b",)).dw is None
    assert pb.affine_backward(da, z, w, wrt=("w",)).db is None


@pytest.mark.parametrize(
    ("of_z", "of_w", "promoted"), [("float32", "float64", "float64"), ("float64", "float32", "float64")]
)
def test_mixed_dtypes(of_z: str, of_w: str, promoted: str) -> None:
    dense, w, b, da = drawn("float64", vector=False)
    z, w, b = sp.csr_array(dense.astype(of_z)), w.astype(of_w), b.astype(of_w)
    assert pb.affine_forward(z, w, b).dtype == promoted
    gradients = pb.affine_backward(da.astype(promoted), z, w, wrt=("w", "b"))
    assert [x.dtype for x in gradients[1:]] == [of_w, of_w]  # type: ignore[union-attr]


def test_real_weights_of_a_complex_batch() -> None:
    dense, _, _, da = drawn("complex128", vector=True)
    w = np.ones(20)
    got = pb.affine_backward(da, sp.csr_array(dense), w, wrt=("w", "b"))
    right = pb.affine_backward(da, dense, w)
    for x, y in zip(got[1:], right[1:], strict=True):
        assert x.dtype == "float64"  # type: ignore[union-attr]
        np.testing.assert_allclose(x, y, rtol=1e-12)  # type: ignore[arg-type]


def test_real_upstream_of_a_complex_batch() -> None:
    dense, w, _, _ = drawn("complex64", vector=True)
    da = np.ones(300, "float32")
    got = pb.affine_backward(da, sp.csr_array(dense), w, wrt=("w",)).dw
    np.testing.assert_allclose(got, pb.affine_backward(da, dense, w).dw, rtol=1e-5)  # type: ignore[arg-type]


def test_column_sums_are_accurate() -> None:
    """A million float32 rows of 0.1: a running float32 sum would be 1e-2 off."""
    z = sp.csr_array(np.full((1_000_000, 1), 0.1, "float32"))
    da = np.full((1_000_000, 1), 0.1, "float32")
    dw = pb.affine_backward(da, z, np.ones((1, 1), "float32"), wrt=("w",)).dw
    np.testing.assert_allclose(dw, 1e6 * float(np.float32(0.1)) ** 2, rtol=EPS["float32"])  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_constant_of_value_and_grad(form: str) -> None:
    """Values, gradients and Hessian products of a model of a sparse batch are those of a dense one."""
    dense, w, b, v = drawn("float64", vector=True)
    y = v > 0

    def loss(z: Any) -> Any:
        return lambda w, b: pb.logistic(pb.affine_forward(z, w, b), y).value

    batches = FORMS[form](dense), dense
    (got, got_gradients), (value, gradients) = (pb.value_and_grad(loss(z), (0, 1))(w, b) for z in batches)
    np.testing.assert_allclose(got, value, rtol=1e-13)
    products = [pb.hvp(loss(z), (w, b), (w, b)) for z in batches]
    pulled = [pb.grad(lambda w, z=z: pb.grad(loss(z))(w, b) @ w)(w) for z in batches]
    for pair in (zip(got_gradients, gradients, strict=True), zip(*products, strict=True), [pulled]):
        for x, right in pair:
            np.testing.assert_allclose(x, right, rtol=1e-11, atol=1e-13)


def test_blocks_of_accumulate() -> None:
    """Steps of sparse blocks are summed; da.map_blocks makes them of dense ones."""
    import dask.array as da  # noqa: PLC0415

    from pullback.dask import accumulate  # noqa: PLC0415

    dense, w, b, y = drawn("float64", vector=True)

    def step(z: Any, y: Any) -> Any:
        z = sp.csr_array(z)
        value, upstream = pb.squared_error(pb.affine_forward(z, w, b), y, reduction="sum")
        return value, *pb.affine_backward(upstream, z, w, wrt=("w", "b"))[1:]

    blocks = [da.from_array(x, chunks=(70, *x.shape[1:])) for x in (dense, y)]
    sums = accumulate(step, *blocks)
    for got, right in zip(sums, step(dense, y), strict=True):
        np.testing.assert_allclose(np.asarray(got), right, rtol=1e-11)


@pytest.mark.parametrize(("w", "right"), [((3,), (4,)), ((3, 2), (4, 2))])
def test_torch(w: Any, right: Any) -> None:
    """PyTorch's sparse tensors have the type of its dense ones; results are its dense tensors."""
    import torch  # noqa: PLC0415

    rng = np.random.default_rng(61)
    dense = np.where(rng.random((400, 3)) < 0.5, rng.random((400, 3)), 0)
    weights, upstream = torch.asarray(rng.random(w)), torch.asarray(rng.random((400, *right[1:])))
    coo = torch.asarray(dense).to_sparse()
    with warnings.catch_warnings(action="ignore"):  # PyTorch warns once that the layout is in beta
        csr = torch.asarray(dense).to_sparse_csr()
    for z in (coo, csr, coo.to(torch.float32)):
        a = pb.affine_forward(z, weights)
        assert a.dtype == torch.float64
        np.testing.assert_allclose(a, dense @ weights.numpy(), rtol=1e-6)
        dw = pb.affine_backward(upstream, z, weights, wrt=("w", "b")).dw
        np.testing.assert_allclose(dw, dense.T @ upstream.numpy(), rtol=1e-6)  # type: ignore[arg-type]


MATRICES = [form for form in FORMS if form != "operator"]


@pytest.mark.parametrize("vector", [False, True], ids=["matrix", "vector"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("form", FORMS)
def test_tangents_and_double_backward_equal_dense(form: str, dtype: str, *, vector: bool) -> None:
    dense, w, b, da = drawn(dtype, vector=vector)
    z = FORMS[form](dense)
    for tangents in ({"w": w}, {"b": b}, {"w": 2 * w, "b": b}):
        named = {f"{name}_tangent": x for name, x in tangents.items()}
        got, right = pb.affine_jvp(z, w, **named), pb.affine_jvp(dense, w, **named)
        assert (got.dtype, got.shape) == (right.dtype, right.shape)
        np.testing.assert_allclose(got, right, rtol=0, atol=C * 10 * EPS[dtype] * np.abs(right).max())
        double: Any = pb.affine_double_backward(None, tangents.get("w"), tangents.get("b"), da, z, w)
        assert double[1:] == (None, None)
        got = double.dda
        assert (got.dtype, got.shape) == (da.dtype, da.shape)
        np.testing.assert_allclose(got, right, rtol=0, atol=C * 10 * EPS[dtype] * np.abs(right).max())
    assert pb.affine_double_backward(None, None, None, da, z, w) == (None, None, None)


def test_tangent_of_the_bias_has_the_promoted_dtype() -> None:
    dense, w, b, _ = drawn("float32", vector=True)
    assert pb.affine_jvp(sp.csr_array(dense.astype("float64")), w, b_tangent=b).dtype == "float64"
    operator = aslinearoperator(sp.csr_array(dense))
    operator.dtype = None
    assert pb.affine_jvp(operator, w, b_tangent=b).dtype == "float32"


@pytest.mark.parametrize("vector", [False, True], ids=["matrix", "vector"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("form", MATRICES)
def test_single_examples_equal_dense(form: str, dtype: str, *, vector: bool) -> None:
    """Norms, clipped sums, squares: also for a row without entries and one without a gradient."""
    dense, _, _, da = drawn(dtype, vector=vector)
    dense[0, :], da[1] = 0, 0
    z = FORMS[form](dense)
    eps = C * 10 * EPS[dtype]
    for bias in (True, False):
        got, right = (pb.per_example_norms(da, x, bias=bias) for x in (z, dense))
        assert (got.dtype, got.shape) == (right.dtype, right.shape)
        np.testing.assert_allclose(got, right, rtol=eps)
        pairs = [[pb.clipped_gradients(da, x, 2.0, bias=bias) for x in (z, dense)]]
        pairs += [[pb.fisher_diagonal(da, x, bias=bias) for x in (z, dense)]]
        pairs += [[pb.second_moments(da, x) for x in (z, dense)]]
        for of_sparse, of_array in pairs:
            for x, y in zip(of_sparse, of_array, strict=True):
                assert (x is None) == (y is None)
                if y is not None:
                    assert (x.dtype, x.shape) == (y.dtype, y.shape)
                    np.testing.assert_allclose(x, y, rtol=eps, atol=eps)


def test_norms_whose_squares_are_out_of_range() -> None:
    z, da = np.asarray([[3e30, 0], [3e-30, 4e-30]], "float32"), np.asarray([1e-5, 1], "float32")
    norms = pb.per_example_norms(da, sp.csr_array(z), bias=False)
    np.testing.assert_allclose(norms, [3e25, 5e-30], rtol=4 * EPS["float32"])
    dw, _ = pb.clipped_gradients(da, sp.csr_array(z), 2.0, bias=False)
    np.testing.assert_allclose(dw, [2, 4e-30], rtol=4 * EPS["float32"])


def test_real_batch_of_complex_gradients() -> None:
    dense, _, _, da = drawn("complex128", vector=False)
    z = dense.real.copy()
    for function in (pb.per_example_norms, pb.second_moments, partial(pb.clipped_gradients, max_norm=1.0)):
        got, right = function(da, sp.csr_array(z)), function(da, z)
        assert len(got) == len(right)
        for x, y in zip(got, right, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12)


def test_norms_of_no_rows() -> None:
    z, da = sp.csr_array((0, 20), dtype="float64"), np.ones((0, 3))
    assert pb.per_example_norms(da, z).shape == (0,)
    assert np.all(np.isnan(pb.fisher_diagonal(da, z).dw))
    assert not np.any(pb.second_moments(da, z).dw)


def test_curvature_of_a_stack_of_a_sparse_batch() -> None:
    """Norms and clipped sums of a network, and the Gauss-Newton product of its first layer, as of a dense batch."""
    dense, w, b, da = drawn("float64", vector=False)
    layers: list[Any] = [pb.Affine(w, b), pb.TANH, pb.Affine(np.ones((3, 2)))]
    results = []
    for z in (sp.csr_array(dense), dense):
        a, saved = pb.stack_forward(layers, z)
        upstream = np.cos(a)
        product = pb.gauss_newton_product(w, b, z, lambda v: v * da)
        clipped = pb.stack_clipped_gradients(upstream, saved, 0.5).layers
        trained = pb.stack_backward(upstream, saved, wrt=("layers",)).layers
        parts = [x for layer in (clipped[0], clipped[2], trained[0]) for x in layer if x is not None]  # type: ignore[index, union-attr]
        results.append([pb.stack_norms(upstream, saved), *product, *parts])
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)
    _, saved = pb.stack_forward(layers, sp.csr_array(dense))
    with pytest.raises(ValueError, match=r"^stack_backward: wrt must not name 'z' .* Pass wrt=\('layers',\)$"):
        pb.stack_backward(upstream, saved)


def test_norms_are_differentiated() -> None:
    """A penalty on the norms of the gradients, with the batch as a constant."""
    dense, w, b, y = drawn("float64", vector=True)

    def penalty(z: Any) -> Any:
        def of(w: Any) -> Any:
            da = pb.squared_error(pb.affine_forward(z, w, b), y, reduction="sum").da
            moments = pb.second_moments(da, z).dw
            xp = array_namespace(da)
            return xp.sum(pb.per_example_norms(da, z)) + xp.sum(moments)

        return of

    (got, (second,)), (right, (exact,)) = (
        (pb.grad(penalty(z))(w), pb.hvp(penalty(z), (w,), (w,))) for z in (sp.csr_array(dense), dense)
    )
    np.testing.assert_allclose(got, right, rtol=1e-10)
    np.testing.assert_allclose(second, exact, rtol=1e-9)


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_single_examples_of_torch(layout: str) -> None:
    import torch  # noqa: PLC0415

    dense, _, _, da = drawn("float32", vector=False)
    with warnings.catch_warnings(action="ignore"):  # PyTorch warns once that the layout is in beta
        z = getattr(torch.asarray(dense), layout)()
        norms = pb.per_example_norms(torch.asarray(da), z)
        dw, db = pb.clipped_gradients(torch.asarray(da), z, 1.0)
        moments = pb.second_moments(torch.asarray(da), z).dw
    right = pb.clipped_gradients(da, dense, 1.0)
    np.testing.assert_allclose(norms, pb.per_example_norms(da, dense), rtol=1e-5)
    np.testing.assert_allclose(dw, right.dw, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(db, right.db, rtol=1e-4, atol=1e-4)  # type: ignore[arg-type]
    np.testing.assert_allclose(moments, pb.second_moments(da, dense).dw, rtol=1e-5)


def test_single_examples_need_entries() -> None:
    dense, w, _, da = drawn("float64", vector=False)
    z = sp.csr_array(dense)
    for function in (pb.per_example_gradients, pb.gradient_variance, pb.gradient_signal_to_noise, pb.kfac_factors):
        name = function.__name__
        with pytest.raises(TypeError, match=rf"^{name}: z must be an array, .* got csr_array\. .* z\.toarray\(\)$"):
            function(da, z)
    operator = aslinearoperator(z)
    with pytest.raises(TypeError, match=r"^per_example_norms: z must have the squares .* with z @ numpy\.eye\(k\)$"):
        pb.per_example_norms(da, operator)
    np.testing.assert_array_equal(operator @ np.eye(20), dense)  # the way out
    for wrong in (da[:5, :], da[None, :, :]):
        with pytest.raises(ValueError, match=r"^second_moments: da must have one row for each row of z, .* got da"):
            pb.second_moments(wrong, z)
    with pytest.raises(ValueError, match=r"^affine_jvp: z_tangent must be None .* got z_tangent \(300, 20\)$"):
        pb.affine_jvp(z, w, z_tangent=dense)
    with pytest.raises(ValueError, match=r"^affine_double_backward: ddz must be None .* got ddz \(300, 20\)$"):
        pb.affine_double_backward(dense, None, None, da, z, w)
    with pytest.raises(ValueError, match=r"^affine_jvp: at least one tangent must be given"):
        pb.affine_jvp(z, w)


def test_rejects_lazy_arrays_and_computes_none() -> None:
    import dask  # noqa: PLC0415
    import dask.array as da  # noqa: PLC0415

    def refuse(*_: Any, **_options: Any) -> None:
        pytest.fail("computed")

    dense, w, _, upstream = drawn("float64", vector=False)
    z = sp.csr_array(dense)
    calls: list[tuple[str, Any]] = [
        ("affine_forward", lambda: pb.affine_forward(z, da.from_array(w))),
        ("affine_backward", lambda: pb.affine_backward(da.from_array(upstream), z, da.from_array(w), wrt=("w",))),
        ("clipped_gradients", lambda: pb.clipped_gradients(da.from_array(upstream), z, 1.0)),
    ]
    with dask.config.set(scheduler=refuse):
        for name, call in calls:
            with pytest.raises(TypeError, match=rf"^{name}: z must be an array of Dask .* pullback\.dask\.accumulate$"):
                call()


def test_sparse_arrays_of_jax() -> None:
    import jax.numpy as jnp  # noqa: PLC0415
    from jax.experimental.sparse import BCOO  # noqa: PLC0415

    dense, w, b, da = drawn("float32", vector=False)
    z, weights, bias, upstream = BCOO.fromdense(jnp.asarray(dense)), *map(jnp.asarray, (w, b, da))
    np.testing.assert_allclose(pb.affine_forward(z, weights, bias), dense @ w + b, rtol=1e-4, atol=1e-4)
    dw = pb.affine_backward(upstream, z, weights, wrt=("w",)).dw
    np.testing.assert_allclose(dw, dense.T @ da, rtol=1e-3, atol=1e-3)  # type: ignore[arg-type]
    message = r"^per_example_norms: z must have the squares .* got BCOO\. Convert it first, with z\.todense\(\)$"
    with pytest.raises(TypeError, match=message):
        pb.per_example_norms(upstream, z)


def test_rejects_weights_of_another_library() -> None:
    import array_api_strict  # noqa: PLC0415
    import torch  # noqa: PLC0415

    for form in (sp.csr_array, sparse.COO.from_numpy):
        for weights in (torch.ones(3, dtype=torch.float64), array_api_strict.ones(3)):
            message = r"^affine_forward: z must multiply arrays of the library of w, .*; got (csr|COO)"
            with pytest.raises(TypeError, match=message):
                pb.affine_forward(form(np.eye(3)), weights)


def test_refuses() -> None:
    dense, w, b, da = drawn("float64", vector=False)
    z = sp.csr_array(dense)
    with pytest.raises(
        ValueError, match=r"^affine_backward: wrt must not name 'z' where z is sparse .* Pass wrt=\('w', 'b'\)$"
    ):
        pb.affine_backward(da, z, w)
    with pytest.raises(ValueError, match=r"^affine_backward: wrt must be a tuple of names"):
        pb.affine_backward(da, z, w, wrt="w")
    with pytest.raises(
        ValueError, match=r"^affine_forward: the last axis of z must equal .* got z \(300, 20\) and w \(3, 3\)$"
    ):
        pb.affine_forward(z, w[:3, :])
    with pytest.raises(ValueError, match=r"^affine_forward: b must have one entry for each column"):
        pb.affine_forward(z, w, b[:1])
    with pytest.raises(ValueError, match=r"^affine_backward: da must have the shape of the output"):
        pb.affine_backward(da[:5, :], z, w, wrt=("w",))
    with pytest.raises(
        TypeError, match=r"^affine_forward: z must have .* int64\. Cast it first, with z\.astype\('float64'\)$"
    ):
        pb.affine_forward(z.astype("int64"), w)
    with pytest.raises(TypeError, match=r"^affine_forward: z must have a floating dtype; got int64\. Cast it first$"):
        pb.affine_forward(aslinearoperator(z.astype("int64")), w)
    with pytest.raises(TypeError, match=r"^grad: .* got csr_array\. It is .*: name the other arguments in argnums$"):
        pb.grad(lambda z, w: pb.affine_forward(z, w) @ w)(z, w)
    with pytest.raises(TypeError, match=r"^affine_forward: z @ w must be a dense array of the library of w"):
        pb.affine_forward(_Other(dense), w)
    with pytest.raises(TypeError, match=r"^affine_forward: z must be an array; got coo_array\. .* z\.toarray\(\)$"):
        pb.affine_forward(sp.coo_array(np.ones(3)), np.ones((3, 2)))
    # Where no sparse batch is accepted, the error says how to convert it.
    with pytest.raises(TypeError, match=r"^matmul_forward: x1 must be an array; got csr_array\. .* x1\.toarray\(\)$"):
        pb.matmul_forward(z, w)


class _Other:
    """A matrix whose product is sparse."""

    def __init__(self, dense: Any) -> None:
        self.matrix = sp.csr_array(dense)
        self.shape, self.dtype, self.T = dense.shape, dense.dtype, self.matrix.T

    def __matmul__(self, other: Any) -> Any:
        return self.matrix @ sp.csr_array(other)


def test_operator_without_a_dtype() -> None:
    dense, w, b, _ = drawn("float64", vector=False)
    operator = LinearOperator(dense.shape, matvec=lambda x: dense @ x, rmatvec=lambda x: dense.T @ x, dtype=None)
    operator.dtype = None
    np.testing.assert_allclose(pb.affine_forward(operator, w, b), dense @ w + b, rtol=1e-12)


def test_text_classifier() -> None:
    """Functions' docstrings, hashed: which ones mention an array? The coefficients of scikit-learn's regression."""
    texts = [x.__doc__ for x in vars(np).values() if getattr(x, "__doc__", None) and callable(x)]
    y = np.asarray([bool(re.search(r"\baxis\b", x)) for x in texts])
    z = HashingVectorizer(n_features=256, alternate_sign=False).transform(texts)
    assert sp.issparse(z)
    start, unravel = pb.ravel_tree((np.zeros(256), np.zeros(())))

    def loss(vector: Any) -> Any:
        w, b = unravel(vector)
        return pb.logistic(pb.affine_forward(z, w, b), y, reduction="sum").value + 0.5 * (w @ w)

    found = minimize(pb.value_and_grad(loss), start, jac=True, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 1e-15})
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(z, y)
    np.testing.assert_allclose(found.x[:-1], reference.coef_[0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.x[-1], reference.intercept_[0], rtol=0, atol=1e-4)
