"""The matrix product ``x1 @ x2``, in every shape that the standard allows, and its backward."""

from collections.abc import Collection
from itertools import zip_longest
from typing import NamedTuple

from pullback._arguments import agree, check_wrt, read, same_shape, shapes
from pullback._sums import contract_rows, product
from pullback._typing import Array, Namespace

_INPUTS = ("x1", "x2")


class MatmulGradients(NamedTuple):
    """Gradients of a real loss for the inputs of `matmul_forward`; None where `wrt` did not ask.

    Attributes
    ----------
    dx1 : Array or None
        Gradient for the left factor: shape, dtype and device of `x1`.
    dx2 : Array or None
        Gradient for the right factor: shape, dtype and device of `x2`.
    """

    dx1: Array | None
    dx2: Array | None


def matmul_forward(x1: Array, x2: Array, /) -> Array:
    """Multiply ``a = x1 @ x2``, with the shapes and the broadcasting of the standard's ``matmul``.

    Parameters
    ----------
    x1 : Array, shape (..., m, k) or (k,)
        Left factor. A vector is a single row, and its axis is left out of the result.
    x2 : Array, shape (..., k, n) or (k,)
        Right factor. A vector is a single column, and its axis is left out of the result.

    Returns
    -------
    Array, shape (..., m, n)
        The product, its batch axes broadcast, in the promoted dtype of the factors. Dtypes narrower than float32 are
        computed in float32 and returned narrow.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    matmul_backward : The gradients of this product.
    affine_forward : The product with a matrix of weights, and a bias.

    Notes
    -----
    ``a_ij = Σ_l x1_il x2_lj``; see ``matmul`` in the array API standard [1]_.

    References
    ----------
    .. [1] https://data-apis.org/array-api/latest/API_specification/generated/array_api.matmul.html

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import matmul_forward
    >>> matmul_forward(np.ones((5, 1, 2, 3)), np.ones((4, 3, 6))).shape
    (5, 4, 2, 6)
    """
    xp, _, like, (x1, x2) = read("matmul_forward", _INPUTS, x1, x2)
    _output_shape("matmul_forward", x1, x2)
    return like(product(xp, x1, x2))


def matmul_backward(da: Array, x1: Array, x2: Array, /, *, wrt: Collection[str] = _INPUTS) -> MatmulGradients:
    """Pull the upstream gradient of ``a = x1 @ x2`` back to its factors.

    Parameters
    ----------
    da : Array, shape (..., m, n)
        Upstream gradient ``∂L/∂a`` of a real loss L, of the shape of the product.
    x1 : Array, shape (..., m, k) or (k,)
        Left factor of the forward.
    x2 : Array, shape (..., k, n) or (k,)
        Right factor of the forward.
    wrt : collection of str, default ("x1", "x2")
        The factors to differentiate for. What is not named is not computed.

    Returns
    -------
    MatmulGradients
        ``(dx1, dx2)``, each with the shape, dtype and device of its primal, and None where `wrt` did not ask.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `wrt` names something else.

    See Also
    --------
    matmul_forward : The product.

    Notes
    -----
    ``dx1 = Σ da x2ᴴ`` and ``dx2 = Σ x1ᴴ da`` [1]_, the sums over the batch axes along which the forward broadcast the
    factor. Those axes are contracted within the product: the gradient of each batch entry is never formed, except
    block by block where an array is chunked (Dask's). For complex arrays, minus the gradient is the direction of
    steepest descent.

    References
    ----------
    .. [1] M. B. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
       differentiation", Advances in Automatic Differentiation, 2008, section 2.2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import matmul_backward
    >>> x1, x2 = np.ones((5, 1, 2, 3)), np.ones((4, 3, 6))
    >>> dx1, dx2 = matmul_backward(np.ones((5, 4, 2, 6)), x1, x2)
    >>> dx1.shape, dx2.shape
    ((5, 1, 2, 3), (4, 3, 6))
    """
    xp, conj, like, (a, left, right) = read("matmul_backward", ("da", "x1", "x2"), da, x1, x2)
    check_wrt("matmul_backward", wrt, _INPUTS)
    if not same_shape(da.shape, _output_shape("matmul_backward", x1, x2)):
        msg = f"matmul_backward: da must have the shape of the product x1 @ x2; got {shapes(da=da, x1=x1, x2=x2)}"
        raise ValueError(msg)
    # A vector becomes the matrix that it stands for, and loses the axis again at the end.
    if x2.ndim == 1:
        a, right = a[..., None], right[:, None]
    if x1.ndim == 1:
        a, left = a[..., None, :], left[None, :]
    dx1 = dx2 = None
    if "x1" in wrt:
        dx1 = _undo_broadcast(xp, xp.matrix_transpose(a), xp.matrix_transpose(conj(right)), left.shape)
        dx1 = like(dx1[..., 0, :] if x1.ndim == 1 else dx1, x1.dtype)
    if "x2" in wrt:
        dx2 = _undo_broadcast(xp, conj(left), a, right.shape)
        dx2 = like(dx2[..., 0] if x2.ndim == 1 else dx2, x2.dtype)
    return MatmulGradients(dx1, dx2)


def _undo_broadcast(xp: Namespace, x: Array, y: Array, shape: tuple[int, ...], /) -> Array:
    """Return ``Σ xᵀ y`` in `shape`: over the rows, and over the batch axes that `shape` lacks or has as 1."""
    if y.ndim == 2 < x.ndim == len(shape):
        return product(xp, xp.matrix_transpose(x), y)
    batch = max(x.ndim, y.ndim) - 2
    absent = batch + 2 - len(shape)
    x, y = (t[(*[None] * (batch + 2 - t.ndim), ...)] for t in (x, y))
    summed = [
        axis
        for axis in range(batch)
        if axis < absent or (shape[axis - absent] == 1 and (x.shape[axis], y.shape[axis]) != (1, 1))
    ]
    kept = [axis for axis in range(batch) if axis not in summed]
    x, y = (xp.permute_dims(t, (*kept, *summed, batch, batch + 1)) for t in (x, y))
    total = contract_rows(xp, x, y, kept=len(kept))
    return total[(*(None if axis in summed else slice(None) for axis in range(absent, batch)), ...)]


def _output_shape(function: str, x1: Array, x2: Array, /) -> tuple[int, ...]:
    """Return the shape of ``x1 @ x2``, or say why there is none."""
    if x1.ndim == 0 or x2.ndim == 0:
        msg = f"{function}: x1 and x2 must have at least one axis; got {shapes(x1=x1, x2=x2)}"
        raise ValueError(msg)
    if not agree(x1.shape[-1], x2.shape[-2:][0]):
        msg = f"{function}: the last axis of x1 must equal the first matrix axis of x2; got {shapes(x1=x1, x2=x2)}"
        raise ValueError(msg)
    batch = []
    for size, other in zip_longest(reversed(x1.shape[:-2]), reversed(x2.shape[:-2]), fillvalue=1):
        if not (size == 1 or other == 1 or agree(size, other)):
            msg = f"{function}: the batch axes of x1 and x2 must be equal or 1; got {shapes(x1=x1, x2=x2)}"
            raise ValueError(msg)
        batch.append(other if size == 1 else size)
    return (*reversed(batch), *x1.shape[-2:-1], *(x2.shape[-1:] if x2.ndim > 1 else ()))
