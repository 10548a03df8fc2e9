"""The affine map ``a = z w + b``: forward, backward, tangent and double backward."""

from collections.abc import Collection
from typing import Any, Generic, NamedTuple

from pullback._core.arguments import (
    check_bias,
    check_directions,
    check_factors,
    check_upstream,
    check_wrt,
    identity,
    shapes,
    validate_arrays,
    validate_optional_arrays,
)
from pullback._core.dtypes import real_like
from pullback._core.memory import add
from pullback._core.operators import ARRAYS, Operator, is_operator
from pullback._core.pair import Pair
from pullback._core.reductions import add_to_rows, contract_rows, product, sum_rows, sum_vector
from pullback._core.typing import Array, ArrayT, Elementwise, Matrix, Namespace

_INPUTS = ("z", "w", "b")
_NO_TANGENT = "affine_jvp: at least one tangent must be given; got none. Pass z_tangent, w_tangent or b_tangent"


class AffineGradients(NamedTuple, Generic[ArrayT]):
    """Gradients of a real loss for the inputs of `affine_forward`; None where `wrt` did not ask.

    Attributes
    ----------
    dz : Array or None
        Gradient for the input batch: shape, dtype and device of `z`.
    dw : Array or None
        Gradient for the weights: shape, dtype and device of `w`.
    db : Array or None
        Gradient for the bias: shape (n,), or () for a vector of weights; dtype and device of `w`.
    """

    dz: ArrayT | None
    dw: ArrayT | None
    db: ArrayT | None


class AffineDoubleGradients(NamedTuple, Generic[ArrayT]):
    """Gradients for the inputs of `affine_backward`; None where no cotangent leads to one.

    Attributes
    ----------
    dda : Array or None
        Gradient for the upstream gradient: shape, dtype and device of `da`. None without any cotangent.
    dz : Array or None
        Gradient for the input batch: shape, dtype and device of `z`. None without `ddw`.
    dw : Array or None
        Gradient for the weights: shape, dtype and device of `w`. None without `ddz`.
    """

    dda: ArrayT | None
    dz: ArrayT | None
    dw: ArrayT | None


def affine_forward(z: ArrayT, w: ArrayT, b: ArrayT | None = None, /) -> ArrayT:
    """Apply the affine map ``a = z w + b``.

    Parameters
    ----------
    z : Array, shape (..., k)
        Input batch: any number of leading batch axes, none for a single example. Or a sparse matrix or a linear
        operator of shape (m, k), see Notes.
    w : Array, shape (k, n) or (k,)
        Weights. A vector is the weights of a single output.
    b : Array, shape (n,) or (), optional
        Bias, added to every row: 0-d with a vector of weights.

    Returns
    -------
    Array, shape (..., n), or (...) with a vector of weights
        The output, in the namespace and on the device of the inputs and in their promoted dtype. Dtypes narrower
        than float32 are computed in float32 and returned narrow.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    affine_backward : The gradients of this map.
    affine_jvp : The tangent of this map.
    matmul_forward : The product alone, in all the shapes that the standard allows.

    Notes
    -----
    A sparse batch is anything with `shape`, `dtype`, ``@`` and ``.T`` that is no array of the standard: SciPy's and
    CuPy's sparse arrays, PyTorch's sparse tensors, JAX's ``BCOO``, ``scipy.sparse.linalg.LinearOperator``. It is a
    constant of the model; the output is dense, in the library of `w`. It does not multiply Dask's arrays: a step of
    `pullback.dask.accumulate` makes sparse blocks of dense ones.

    In indices, ``a_ij = Σ_l z_il w_lj + b_j``. The bias is added to the product in place where the array is plain
    memory, as NumPy's and CuPy's are: the output is then the only array of its size.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import affine_forward
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> w = np.asarray([[5.0, 6.0], [7.0, 8.0]])
    >>> affine_forward(z, w, np.asarray([0.5, -0.5]))
    array([[19.5, 21.5],
           [43.5, 49.5]])

    A model with one output, as scikit-learn's linear models have:

    >>> affine_forward(z, w[:, 0], np.asarray(0.5))
    array([19.5, 43.5])
    """
    if type(z) not in ARRAYS and is_operator(z, w):
        return _forward_of_operator(z, w, b)
    if b is None:
        xp, _, cast_output, (z, w) = validate_arrays("affine_forward", _INPUTS[:2], z, w)
    else:
        xp, _, cast_output, (z, w, b) = validate_arrays("affine_forward", _INPUTS, z, w, b)
    # Fast path: compare shapes exactly. Unknown sizes and invalid shapes fall through to the full checks.
    if w.ndim != 2 or z.shape[-1:] != w.shape[:1] or (b is not None and b.shape != w.shape[1:]):
        check_factors("affine_forward", z, w, vector=True)
        check_bias("affine_forward", "b", b, w)
    return cast_output(checked_forward(xp, z, w, b))


def affine_backward(da: ArrayT, z: ArrayT, w: ArrayT, /, *, wrt: Collection[str] = _INPUTS) -> AffineGradients[ArrayT]:
    """Compute the gradients of ``a = z w + b`` for its inputs from the upstream gradient.

    Parameters
    ----------
    da : Array, shape (..., n), or (...) with a vector of weights
        Upstream gradient ``∂L/∂a`` of a real loss L, of the shape of the output.
    z : Array, shape (..., k)
        Input batch of the forward, also a sparse one.
    w : Array, shape (k, n) or (k,)
        Weights of the forward.
    wrt : collection of str, default ("z", "w", "b")
        The inputs to differentiate for. The gradients of the others are not computed. A sparse batch has no gradient:
        pass ``("w", "b")``.

    Returns
    -------
    AffineGradients
        ``(dz, dw, db)``, each with the shape, dtype and device of its primal (`db` with the dtype of `w`), and None
        where `wrt` did not ask.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `wrt` names something else, or
        ``"z"`` where that is sparse.

    See Also
    --------
    affine_forward : The map.
    affine_double_backward : The gradients of these gradients.

    Notes
    -----
    ``dz = da wᴴ``, ``dw = zᴴ da`` and ``db = Σ_rows da``: the adjoints of the map's three tangents [1]_. For complex
    arrays, minus the gradient is the direction of steepest descent (PyTorch's convention; JAX's is its conjugate). A
    real primal with a complex upstream gradient gets the real part.

    Sums over the rows have two levels: blocks of rows are summed in the arrays' dtype, and the partial sums in the
    accumulation dtype, float64 where the device has it. The float32 error of `dw` and `db` does not grow with the
    number of rows. A chunked array (Dask's) is summed chunk by chunk instead.

    References
    ----------
    .. [1] M. B. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
       differentiation", Advances in Automatic Differentiation, 2008, section 2.2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import affine_backward
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> w = np.asarray([[5.0, 6.0], [7.0, 8.0]])
    >>> da = np.asarray([[1.0, 10.0], [100.0, 1000.0]])
    >>> dz, dw, db = affine_backward(da, z, w)
    >>> dz
    array([[  65.,   87.],
           [6500., 8700.]])
    >>> dw
    array([[ 301., 3010.],
           [ 402., 4020.]])
    >>> db
    array([ 101., 1010.])
    """
    if type(z) not in ARRAYS and is_operator(z, w):
        return _backward_of_operator(da, z, w, wrt)
    xp, conj, cast_output, ready = validate_arrays("affine_backward", ("da", "z", "w"), da, z, w)
    if wrt is not _INPUTS:
        check_wrt("affine_backward", wrt, _INPUTS)
    # Fast path, as in the forward.
    shape = z.shape
    if w.ndim != 2 or shape[-1:] != w.shape[:1] or da.shape != (*shape[:-1], w.shape[1]):
        check_factors("affine_backward", z, w, vector=True)
        check_upstream("affine_backward", da, z, w)
    z_dtype, w_dtype = z.dtype, w.dtype
    da, z, w = ready
    dz, dw, db = found = checked_backward(xp, conj, da, z, w, wrt)
    if cast_output is identity:
        return found
    return AffineGradients(
        dz if dz is None else cast_output(dz, z_dtype),
        dw if dw is None else cast_output(dw, w_dtype),
        db if db is None else cast_output(db, w_dtype),
    )


def affine_jvp(
    z: ArrayT,
    w: ArrayT,
    /,
    *,
    z_tangent: ArrayT | None = None,
    w_tangent: ArrayT | None = None,
    b_tangent: ArrayT | None = None,
) -> ArrayT:
    """Compute the tangent of ``a = z w + b`` from tangents of its inputs.

    Parameters
    ----------
    z : Array, shape (..., k)
        Input batch of the forward, also a sparse one.
    w : Array, shape (k, n) or (k,)
        Weights of the forward.
    z_tangent : Array, shape (..., k), optional
        Tangent of `z`. None, the default, is a tangent of zero and costs nothing. A sparse batch has none.
    w_tangent : Array, shape (k, n) or (k,), optional
        Tangent of `w`.
    b_tangent : Array, shape (n,) or (), optional
        Tangent of the bias. The result does not depend on the bias itself.

    Returns
    -------
    Array, shape (..., n), or (...) with a vector of weights
        The tangent of the output, in the promoted dtype of all arrays that were given. Dtypes narrower than float32
        are computed in float32 and returned narrow.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If no tangent is given, the shapes do not fit, the arrays lie on different devices, or `z_tangent` is given for
        a sparse batch.

    See Also
    --------
    affine_backward : The adjoint, from a gradient of the output to gradients of the inputs.
    JacobianOperator : Both as a linear operator on flat vectors.

    Notes
    -----
    ``ȧ = ż w + z ẇ + ḃ`` [1]_. Nothing is truncated: the map is affine in each of its inputs.

    References
    ----------
    .. [1] M. B. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
       differentiation", Advances in Automatic Differentiation, 2008, section 2.2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import affine_jvp
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> w = np.asarray([[5.0, 6.0], [7.0, 8.0]])
    >>> affine_jvp(z, w, w_tangent=np.asarray([[0.0, 1.0], [0.0, 0.0]]))
    array([[0., 1.],
           [0., 3.]])
    """
    tangents = {"z_tangent": z_tangent, "w_tangent": w_tangent, "b_tangent": b_tangent}
    if is_operator(z, w):
        return _jvp_of_operator(z, w, tangents)
    xp, _, cast_output, ready = validate_optional_arrays("affine_jvp", {"z": z, "w": w, **tangents}, tangents)
    check_factors("affine_jvp", z, w, vector=True)
    check_directions("affine_jvp", tangents, z, w)
    z, w, z_tangent, w_tangent, b_tangent = ready
    is_vector = w.ndim == 1
    if is_vector:
        w = w[:, None]
        w_tangent = None if w_tangent is None else w_tangent[:, None]
        b_tangent = None if b_tangent is None else b_tangent[None]
    a = None
    if z_tangent is not None:
        a = product(xp, z_tangent, w)
    if w_tangent is not None:
        change = product(xp, z, w_tangent)
        a = change if a is None else add(a, change)
    if b_tangent is not None:
        # Alone, it needs the rows of z, whose number may not be known: the sum of no columns is zero for each.
        a = xp.sum(z[..., :0], axis=-1, keepdims=True) + b_tangent if a is None else add_to_rows(xp, a, b_tangent)
    if a is None:
        raise ValueError(_NO_TANGENT)
    return cast_output(a[..., 0] if is_vector else a)


def affine_double_backward(  # noqa: PLR0913, PLR0917 - the cotangents and the inputs of the backward
    ddz: ArrayT | None, ddw: ArrayT | None, ddb: ArrayT | None, da: ArrayT, z: ArrayT, w: ArrayT, /
) -> AffineDoubleGradients[ArrayT]:
    """Compute the gradients for the inputs of `affine_backward` from cotangents of its results.

    Parameters
    ----------
    ddz : Array, shape (..., k), or None
        Cotangent ``∂S/∂dz`` of a real S that depends on the gradients. None is a cotangent of zero. A sparse batch has
        no gradient, and so no cotangent.
    ddw : Array, shape (k, n) or (k,), or None
        Cotangent ``∂S/∂dw``.
    ddb : Array, shape (n,) or (), or None
        Cotangent ``∂S/∂db``.
    da : Array, shape (..., n), or (...) with a vector of weights
        Upstream gradient that was passed to the backward.
    z : Array, shape (..., k)
        Input batch that was passed to the backward, also a sparse one.
    w : Array, shape (k, n) or (k,)
        Weights that were passed to the backward.

    Returns
    -------
    AffineDoubleGradients
        ``(dda, dz, dw)``, each with the shape, dtype and device of its primal. A gradient that no cotangent leads to
        is None and costs nothing: `dda` without any cotangent, `dz` without `ddw`, `dw` without `ddz`. `dz` is None for
        a sparse batch, too.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `ddz` is given for a sparse batch.

    See Also
    --------
    affine_backward : The map that is differentiated here.

    Notes
    -----
    ``dda = ddz w + z ddw + ddb``, ``dz = da ddwᴴ`` and ``dw = ddzᴴ da``: the backward is linear in each of its inputs
    as the forward is [1]_. So `dda` is the tangent of the forward along the cotangents, and `dz` and `dw` are backwards
    with a cotangent in the place of the weights and of the batch. Third and higher orders are compositions of these
    functions.

    If a primal is real, only the real part of a complex cotangent contributes.

    References
    ----------
    .. [1] A. Griewank and A. Walther, "Evaluating Derivatives", 2nd edition, 2008, chapter 5.

    Examples
    --------
    The norm of the weight gradient as a penalty, ``S = ‖dw‖² / 2``, whose cotangent is `dw` itself:

    >>> import numpy as np
    >>> from pullback import affine_backward, affine_double_backward
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> w = np.asarray([[5.0, 6.0], [7.0, 8.0]])
    >>> da = np.asarray([[1.0, 0.0], [0.0, 1.0]])
    >>> _, dw, _ = affine_backward(da, z, w, wrt=("w",))
    >>> dda, dz, _ = affine_double_backward(None, dw, None, da, z, w)
    >>> dda
    array([[ 5., 11.],
           [11., 25.]])
    >>> dz
    array([[1., 2.],
           [3., 4.]])
    """
    cotangents = {"ddz": ddz, "ddw": ddw, "ddb": ddb}
    if is_operator(z, w):
        return _double_backward_of_operator(cotangents, da, z, w)
    xp, _, cast_output, _ = validate_optional_arrays(
        "affine_double_backward", {**cotangents, "da": da, "z": z, "w": w}, cotangents
    )
    check_factors("affine_double_backward", z, w, vector=True)
    check_upstream("affine_double_backward", da, z, w)
    check_directions("affine_double_backward", cotangents, z, w)
    ddz = None if ddz is None else real_like(xp, ddz, z.dtype)
    ddw = None if ddw is None else real_like(xp, ddw, w.dtype)
    ddb = None if ddb is None else real_like(xp, ddb, w.dtype)
    dda = dz = dw = None
    if not (ddz is None and ddw is None and ddb is None):
        dda = cast_output(affine_jvp(z, w, z_tangent=ddz, w_tangent=ddw, b_tangent=ddb), da.dtype)
    if ddw is not None:
        dz = affine_backward(da, z, ddw, wrt=("z",)).dz
    if ddz is not None:
        dw = affine_backward(da, ddz, w, wrt=("w",)).dw
    return AffineDoubleGradients(dda, dz, dw)


def checked_forward(xp: Namespace, z: Array, w: Array, b: Array | None, /) -> Array:
    """Return ``z w + b`` of checked arrays."""
    a = product(xp, z, w)
    if b is None:
        return a
    return add_to_rows(xp, a, b) if w.ndim == 2 else add(a, b)


def checked_backward(  # noqa: PLR0913, PLR0917 - the arguments of the backward
    xp: Namespace, conj: Elementwise, da: Array, z: Array, w: Array, wrt: Collection[str], /
) -> AffineGradients[Any]:
    """Return the gradients of checked arrays, in the dtype that they promote to."""
    dz = dw = db = None
    if w.ndim == 1 and z.ndim == 2:
        if "z" in wrt:
            dz = product(xp, da[:, None], conj(w)[None, :])
        if "w" in wrt:
            dw = contract_rows(xp, conj(z), da)
        if "b" in wrt:
            db = sum_vector(xp, da)
        return AffineGradients(dz, dw, db)
    if w.ndim == 1:
        dz, dw, db = checked_backward(xp, conj, da[..., None], z, w[:, None], wrt)
        return AffineGradients(dz, dw if dw is None else dw[:, 0], db if db is None else db[0])
    if "z" in wrt:
        dz = product(xp, da, conj(w).T)
    if "w" in wrt:
        dw = contract_rows(xp, conj(z), da)
    if "b" in wrt:
        db = sum_rows(xp, da)
    return AffineGradients(dz, dw, db)


def _forward_of_operator(z: Matrix, w: ArrayT, b: ArrayT | None, /) -> ArrayT:
    """Return ``z w + b`` for a sparse batch or an operator."""
    arrays: dict[str, Any] = {"w": w} if b is None else {"w": w, "b": b}
    xp, _, _, ready = validate_arrays("affine_forward", tuple(arrays), *arrays.values())
    operator: Any = Operator("affine_forward", xp, z)
    check_factors("affine_forward", operator, w, vector=True)
    check_bias("affine_forward", "b", b, w)
    a: Any = operator.product(xp, ready[0])
    return a if b is None else a + ready[1]


def _backward_of_operator(da: ArrayT, z: Matrix, w: ArrayT, wrt: Collection[str], /) -> AffineGradients[ArrayT]:
    """Return the gradients for the weights and the bias with a sparse batch or an operator."""
    xp, _, _, (upstream, _) = validate_arrays("affine_backward", ("da", "w"), da, w)
    check_wrt("affine_backward", wrt, _INPUTS)
    if "z" in wrt:
        msg = (
            "affine_backward: wrt must not name 'z' where z is sparse or an operator, since the gradient is dense; "
            f"got {tuple(wrt)}. Pass wrt=('w', 'b')"
        )
        raise ValueError(msg)
    operator: Any = Operator("affine_backward", xp, z)
    check_factors("affine_backward", operator, w, vector=True)
    check_upstream("affine_backward", da, operator, w)
    dw: Any = operator.adjoint(xp).product(xp, upstream) if "w" in wrt else None
    db: Any = None
    if "b" in wrt:
        db = sum_rows(xp, upstream) if w.ndim == 2 else sum_rows(xp, upstream[:, None])[..., 0]
    dw, db = (None if x is None else xp.astype(real_like(xp, x, w.dtype), w.dtype, copy=False) for x in (dw, db))
    return AffineGradients(None, dw, db)


def _jvp_of_operator(z: Matrix, w: ArrayT, tangents: dict[str, ArrayT | None], /) -> ArrayT:
    """Return the tangent for a sparse batch or an operator, which has none itself."""
    xp, _, _, ready = validate_optional_arrays("affine_jvp", {"w": w, **tangents}, tangents)
    _check_constant("affine_jvp", "z_tangent", tangents["z_tangent"])
    operator: Any = Operator("affine_jvp", xp, z)
    check_factors("affine_jvp", operator, w, vector=True)
    check_directions("affine_jvp", tangents, operator, w)
    _, _, w_tangent, b_tangent = ready
    if w_tangent is not None:
        a = operator.product(xp, w_tangent)
        return a if b_tangent is None else a + b_tangent
    if b_tangent is None:
        raise ValueError(_NO_TANGENT)
    dtype = b_tangent.dtype if z.dtype is None else xp.result_type(b_tangent.dtype, z.dtype)
    return xp.broadcast_to(xp.astype(b_tangent, dtype, copy=False), (z.shape[0], *b_tangent.shape)) + 0


def _double_backward_of_operator(
    cotangents: dict[str, ArrayT | None], da: ArrayT, z: Matrix, w: ArrayT, /
) -> AffineDoubleGradients[ArrayT]:
    """Return the gradient for the upstream gradient with a sparse batch or an operator."""
    xp, *_ = validate_optional_arrays("affine_double_backward", {**cotangents, "da": da, "w": w}, cotangents)
    _check_constant("affine_double_backward", "ddz", cotangents["ddz"])
    operator: Any = Operator("affine_double_backward", xp, z)
    check_factors("affine_double_backward", operator, w, vector=True)
    check_upstream("affine_double_backward", da, operator, w)
    check_directions("affine_double_backward", cotangents, operator, w)
    _, ddw, ddb = (None if x is None else real_like(xp, x, w.dtype) for x in cotangents.values())
    if ddw is None and ddb is None:
        return AffineDoubleGradients(None, None, None)
    dda = affine_jvp(z, w, w_tangent=ddw, b_tangent=ddb)
    return AffineDoubleGradients(xp.astype(real_like(xp, dda, da.dtype), da.dtype, copy=False), None, None)


def _check_constant(function: str, name: str, x: Array | None, /) -> None:
    """Check that a sparse batch or an operator has no tangent or cotangent."""
    if x is not None:
        rule = "must be None where z is sparse or an operator, which is a constant"
        msg = f"{function}: {name} {rule}; got {shapes(**{name: x})}"
        raise ValueError(msg)


AFFINE = Pair(
    "affine",
    affine_forward,
    affine_backward,
    inputs={"z": (4, 2, 3), "w": (3, 5), "b": (5,)},
    needs=("z", "w"),
    jvp=affine_jvp,
    double_backward=affine_double_backward,
)
