"""The affine map ``a = z w + b`` and its backward."""

from collections.abc import Collection
from typing import NamedTuple

from pullback._arguments import agree, check_wrt, read, same_shape, shapes
from pullback._sums import contract_rows, product, sum_rows
from pullback._typing import Array

_INPUTS = ("z", "w", "b")


class AffineGradients(NamedTuple):
    """Gradients of a real loss for the inputs of `affine_forward`; None where `wrt` did not ask.

    Attributes
    ----------
    dz : Array or None
        Gradient for the input batch: shape, dtype and device of `z`.
    dw : Array or None
        Gradient for the weights: shape, dtype and device of `w`.
    db : Array or None
        Gradient for the bias: shape (n,), dtype and device of `w`.
    """

    dz: Array | None
    dw: Array | None
    db: Array | None


def affine_forward(z: Array, w: Array, b: Array | None = None, /) -> Array:
    """Apply the affine map ``a = z w + b``.

    Parameters
    ----------
    z : Array, shape (..., k)
        Input batch: any number of leading batch axes, none for a single example.
    w : Array, shape (k, n)
        Weights.
    b : Array, shape (n,), optional
        Bias, added to every row.

    Returns
    -------
    Array, shape (..., n)
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
    matmul_forward : The product alone, in all the shapes that the standard allows.

    Notes
    -----
    In indices, ``a_ij = Σ_l z_il w_lj + b_j``. The bias is added to the product in place, so that the output is the
    only array of its size.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import affine_forward
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> w = np.asarray([[5.0, 6.0], [7.0, 8.0]])
    >>> affine_forward(z, w, np.asarray([0.5, -0.5]))
    array([[19.5, 21.5],
           [43.5, 49.5]])
    """
    if b is None:
        xp, _, like, (z, w) = read("affine_forward", _INPUTS[:2], z, w)
    else:
        xp, _, like, (z, w, b) = read("affine_forward", _INPUTS, z, w, b)
    _check_shapes("affine_forward", z, w)
    if b is not None and not (b.ndim == 1 and agree(b.shape[0], w.shape[1])):
        msg = f"affine_forward: b must have one entry for each column of w, shape (n,); got {shapes(b=b, w=w)}"
        raise ValueError(msg)
    a = product(xp, z, w)
    if b is not None:
        a += b
    return like(a)


def affine_backward(da: Array, z: Array, w: Array, /, *, wrt: Collection[str] = _INPUTS) -> AffineGradients:
    """Pull the upstream gradient of ``a = z w + b`` back to its inputs.

    Parameters
    ----------
    da : Array, shape (..., n)
        Upstream gradient ``∂L/∂a`` of a real loss L, of the shape of the output.
    z : Array, shape (..., k)
        Input batch of the forward.
    w : Array, shape (k, n)
        Weights of the forward.
    wrt : collection of str, default ("z", "w", "b")
        The inputs to differentiate for. What is not named is not computed.

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
        If the shapes do not fit, the arrays lie on different devices, or `wrt` names something else.

    See Also
    --------
    affine_forward : The map.

    Notes
    -----
    ``dz = da wᴴ``, ``dw = zᴴ da`` and ``db = Σ_rows da``: the adjoints of the map's three tangents [1]_. For complex
    arrays, minus the gradient is the direction of steepest descent (PyTorch's convention; JAX's is its conjugate). A
    real primal with a complex upstream gradient gets the real part.

    Sums over the rows are taken in blocks, in the arrays' dtype, and the blocks are added up in the widest dtype of
    the device: the float32 error of `dw` and `db` does not grow with the number of rows. A chunked array (Dask's) is
    summed chunk by chunk instead.

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
    xp, conj, like, ready = read("affine_backward", ("da", "z", "w"), da, z, w)
    if wrt is not _INPUTS:
        check_wrt("affine_backward", wrt, _INPUTS)
    # What all but lazy arrays and mistakes pass, in one line: a small call is mostly checks.
    if w.ndim != 2 or da.shape != (*z.shape[:-1], w.shape[1]) or z.shape[-1:] != w.shape[:1]:
        _check_shapes("affine_backward", z, w)
        if not same_shape(da.shape, (*z.shape[:-1], w.shape[1])):
            msg = f"affine_backward: da must have the shape of the output z w, (..., n); got {shapes(da=da, z=z, w=w)}"
            raise ValueError(msg)
    z_dtype, w_dtype = z.dtype, w.dtype
    da, z, w = ready
    dz = dw = db = None
    if "z" in wrt:
        dz = like(product(xp, da, conj(w).T), z_dtype)
    if "w" in wrt:
        dw = like(contract_rows(xp, conj(z), da), w_dtype)
    if "b" in wrt:
        db = like(sum_rows(xp, da), w_dtype)
    return AffineGradients(dz, dw, db)


def _check_shapes(function: str, z: Array, w: Array, /) -> None:
    """Check that z (..., k) and w (k, n) fit."""
    if w.ndim != 2:
        msg = f"{function}: w must be a matrix, shape (k, n); got {shapes(w=w)}"
        raise ValueError(msg)
    if z.ndim == 0:
        msg = f"{function}: z must have at least one axis, shape (..., k); got {shapes(z=z)}"
        raise ValueError(msg)
    if not agree(z.shape[-1], w.shape[0]):
        msg = f"{function}: the last axis of z must equal the first axis of w; got {shapes(z=z, w=w)}"
        raise ValueError(msg)
