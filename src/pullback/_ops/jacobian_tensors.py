"""The derivative of ``a = z w + b``, entry by entry: tensors of order four, and one slice of them."""

import math
from collections.abc import Collection
from typing import Generic, NamedTuple

from pullback._core.arguments import check_factors, check_known, check_wrt, shapes, validate_arrays
from pullback._core.dtypes import floating_bits, is_dtype
from pullback._core.memory import place
from pullback._core.typing import Array, ArrayT, Namespace

_INPUTS = ("z", "w", "b")


class AffineJacobians(NamedTuple, Generic[ArrayT]):
    """Jacobians of the output of `affine_forward`; None where `wrt` did not ask.

    Attributes
    ----------
    dz : Array or None
        ``∂a/∂z``, shape (..., n, ..., k).
    dw : Array or None
        ``∂a/∂w``, shape (..., n, k, n).
    db : Array or None
        ``∂a/∂b``, shape (..., n, n).
    """

    dz: ArrayT | None
    dw: ArrayT | None
    db: ArrayT | None


def affine_jacobians(
    z: ArrayT, w: ArrayT, /, *, wrt: Collection[str] = _INPUTS, max_bytes: int = 2**30
) -> AffineJacobians[ArrayT]:
    """Compute the derivative of each entry of ``a = z w + b`` for each entry of an input.

    Parameters
    ----------
    z : Array, shape (..., k)
        Input batch of the forward; for a matrix, shape (m, k).
    w : Array, shape (k, n)
        Weights of the forward.
    wrt : collection of str, default ("z", "w", "b")
        The inputs to differentiate for. The tensors of the others are not computed.
    max_bytes : int, default 2**30
        Largest size of a tensor. A larger one is a ValueError.

    Returns
    -------
    AffineJacobians
        ``(dz, dw, db)``, of shapes (m, n, m, k), (m, n, k, n) and (m, n, n) for a matrix `z`: first the axes of the
        output, then those of the input, in the namespace and on the device of the inputs and in their promoted dtype.
        None where `wrt` did not ask.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, `wrt` names something else, or a tensor has more
        than `max_bytes` or a size that is not known.

    See Also
    --------
    JacobianOperator : The same derivative as products, without a tensor.
    weight_jacobian_slice : The slice for one weight.

    Notes
    -----
    ``∂a_ij/∂z_kl = δ_ik w_lj``, ``∂a_ij/∂w_kl = z_ik δ_jl`` and ``∂a_ij/∂b_l = δ_jl`` [1]_: nearly all entries are
    zero. For complex arrays these are holomorphic derivatives, without a conjugate.

    References
    ----------
    .. [1] J. R. Magnus and H. Neudecker, "Matrix Differential Calculus with Applications in Statistics and
       Econometrics", 3rd edition, 2019, chapter 9.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import affine_jacobians
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> dz, dw, db = affine_jacobians(z, np.asarray([[5.0, 6.0], [7.0, 8.0]]))
    >>> dw[:, :, 0, 1]
    array([[0., 1.],
           [0., 3.]])
    """
    xp, _, cast_output, _ = validate_arrays("affine_jacobians", ("z", "w"), z, w)
    check_wrt("affine_jacobians", wrt, _INPUTS)
    check_factors("affine_jacobians", z, w)
    if wrt:
        check_known("affine_jacobians", z, w)
    # Entries are moved, not computed with: narrow dtypes need no wider one.
    z, w = cast_output(z), cast_output(w)
    (k, n), batch, ones = w.shape, z.shape[:-1], (1,) * (z.ndim - 1)
    bits = floating_bits(xp, z.dtype) * (2 if is_dtype(xp, z.dtype, "complex floating") else 1)
    # A Python number would promote a dtype that is not NumPy's own.
    zero = xp.zeros((), dtype=z.dtype, **place(z))
    dz = dw = db = None
    if "z" in wrt:
        _check_size("z", (*batch, n, *batch, k), bits // 8, max_bytes)
        same_row = xp.reshape(_eye(xp, math.prod(batch), z), (*batch, 1, *batch, 1))
        dz = xp.where(same_row, xp.reshape(w.T, (n, *ones, k)), zero)
    if "w" in wrt:
        _check_size("w", (*batch, n, k, n), bits // 8, max_bytes)
        dw = xp.where(_eye(xp, n, z)[:, None, :], z[..., None, :, None], zero)
    if "b" in wrt:
        _check_size("b", (*batch, n, n), bits // 8, max_bytes)
        db = xp.where(_eye(xp, n, z), xp.ones((*batch, 1, 1), dtype=z.dtype, **place(z)), zero)
    return AffineJacobians(dz, dw, db)


def weight_jacobian_slice(z: ArrayT, k: int, l: int, n: int, /) -> ArrayT:
    """Compute the derivative of ``a = z w + b`` for the single weight ``w_kl``.

    Parameters
    ----------
    z : Array, shape (..., K)
        Input batch of the forward.
    k : int
        Row of the weight, in 0 … K - 1.
    l : int
        Column of the weight, in 0 … n - 1.
    n : int
        Number of columns of the weights.

    Returns
    -------
    Array, shape (..., n)
        Column `k` of `z`, in column `l` of zeros: namespace, dtype and device of `z`.

    Raises
    ------
    TypeError
        If `z` is not an array or has no floating dtype, or an index is not an integer.
    ValueError
        If `z` has no axis, or an index is out of range.

    See Also
    --------
    affine_jacobians : These derivatives for all weights.

    Notes
    -----
    ``∂a/∂w_kl = z E_kl`` with the single-entry matrix ``E_kl``, 1 at (k, l) and 0 elsewhere [1]_.

    References
    ----------
    .. [1] K. B. Petersen and M. S. Pedersen, "The Matrix Cookbook", 2012, section 9.7.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import weight_jacobian_slice
    >>> weight_jacobian_slice(np.asarray([[1.0, 2.0], [3.0, 4.0]]), 0, 1, 3)
    array([[0., 1., 0.],
           [0., 3., 0.]])
    """
    xp, *_ = validate_arrays("weight_jacobian_slice", ("z",), z)
    if z.ndim == 0:
        msg = f"weight_jacobian_slice: z must have at least one axis, shape (..., K); got {shapes(z=z)}"
        raise ValueError(msg)
    for name, x in (("k", k), ("l", l), ("n", n)):
        if not isinstance(x, int):
            msg = (
                f"weight_jacobian_slice: {name} must be an integer of Python; got {type(x).__name__}. Pass int({name})"
            )
            raise TypeError(msg)
    if k < 0 or (isinstance(z.shape[-1], int) and k >= z.shape[-1]):
        msg = f"weight_jacobian_slice: k must be one of the columns of z, 0 … K - 1; got {k} and {shapes(z=z)}"
        raise ValueError(msg)
    if not 0 <= l < n:
        msg = f"weight_jacobian_slice: l must be one of the n columns, 0 … n - 1; got {l} and n = {n}"
        raise ValueError(msg)
    zero = xp.zeros((), dtype=z.dtype, **place(z))
    return xp.where(xp.arange(n, **place(z)) == l, z[..., k : k + 1], zero)


def _eye(xp: Namespace, n: int, like: Array, /) -> Array:
    """Return the (n, n) mask of the diagonal."""
    index = xp.arange(n, **place(like))
    return index[:, None] == index


def _check_size(of: str, shape: tuple[int, ...], itemsize: int, max_bytes: int, /) -> None:
    """Check that a tensor has at most `max_bytes`."""
    size = math.prod(shape) * itemsize
    if size > max_bytes:
        msg = (
            f"affine_jacobians: ∂a/∂{of} must have at most max_bytes = {max_bytes:,} bytes; got {size:,} for the shape "
            f"{shape}. JacobianOperator(z, w) multiplies with it without forming it"
        )
        raise ValueError(msg)
