"""The matrix product ``x1 @ x2``, in every shape of the standard: forward, backward, tangent and double backward."""

from collections.abc import Collection
from itertools import zip_longest
from typing import Generic, NamedTuple

from pullback._core.arguments import (
    check_alike,
    check_wrt,
    compatible_size,
    same_shape,
    shapes,
    validate_arrays,
    validate_optional_arrays,
)
from pullback._core.dtypes import real_like
from pullback._core.memory import add
from pullback._core.pair import Pair
from pullback._core.reductions import contract_rows, product
from pullback._core.typing import Array, ArrayT, Namespace

_INPUTS = ("x1", "x2")


class MatmulGradients(NamedTuple, Generic[ArrayT]):
    """Gradients of a real loss for the inputs of `matmul_forward`; None where `wrt` did not ask.

    Attributes
    ----------
    dx1 : Array or None
        Gradient for the left factor: shape, dtype and device of `x1`.
    dx2 : Array or None
        Gradient for the right factor: shape, dtype and device of `x2`.
    """

    dx1: ArrayT | None
    dx2: ArrayT | None


class MatmulDoubleGradients(NamedTuple, Generic[ArrayT]):
    """Gradients for the inputs of `matmul_backward`; None where no cotangent leads to one.

    Attributes
    ----------
    dda : Array or None
        Gradient for the upstream gradient: shape, dtype and device of `da`. None without any cotangent.
    dx1 : Array or None
        Gradient for the left factor: shape, dtype and device of `x1`. None without `ddx2`.
    dx2 : Array or None
        Gradient for the right factor: shape, dtype and device of `x2`. None without `ddx1`.
    """

    dda: ArrayT | None
    dx1: ArrayT | None
    dx2: ArrayT | None


def matmul_forward(x1: ArrayT, x2: ArrayT, /) -> ArrayT:
    """Compute the product ``a = x1 @ x2`` with the shapes and the broadcasting of the standard's ``matmul``.

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
    matmul_jvp : The tangent of this product.
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
    xp, _, cast_output, (x1, x2) = validate_arrays("matmul_forward", _INPUTS, x1, x2)
    _output_shape("matmul_forward", x1, x2)
    return cast_output(product(xp, x1, x2))


def matmul_backward(
    da: ArrayT, x1: ArrayT, x2: ArrayT, /, *, wrt: Collection[str] = _INPUTS
) -> MatmulGradients[ArrayT]:
    """Compute the gradients of ``a = x1 @ x2`` for its factors from the upstream gradient.

    Parameters
    ----------
    da : Array, shape (..., m, n)
        Upstream gradient ``∂L/∂a`` of a real loss L, of the shape of the product.
    x1 : Array, shape (..., m, k) or (k,)
        Left factor of the forward.
    x2 : Array, shape (..., k, n) or (k,)
        Right factor of the forward.
    wrt : collection of str, default ("x1", "x2")
        The factors to differentiate for. The gradients of the others are not computed.

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
    matmul_double_backward : The gradients of these gradients.

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
    xp, conj, cast_output, (a, left, right) = validate_arrays("matmul_backward", ("da", "x1", "x2"), da, x1, x2)
    check_wrt("matmul_backward", wrt, _INPUTS)
    _check_upstream("matmul_backward", da, x1, x2)
    # A vector is computed with as a matrix of one row or column.
    if x2.ndim == 1:
        a, right = a[..., None], right[:, None]
    if x1.ndim == 1:
        a, left = a[..., None, :], left[None, :]
    dx1 = dx2 = None
    if "x1" in wrt:
        factor = _undo_broadcast(xp, xp.matrix_transpose(a), xp.matrix_transpose(conj(right)), left.shape)
        dx1 = cast_output(factor[..., 0, :] if x1.ndim == 1 else factor, x1.dtype)
    if "x2" in wrt:
        factor = _undo_broadcast(xp, conj(left), a, right.shape)
        dx2 = cast_output(factor[..., 0] if x2.ndim == 1 else factor, x2.dtype)
    return MatmulGradients(dx1, dx2)


def matmul_jvp(
    x1: ArrayT, x2: ArrayT, /, *, x1_tangent: ArrayT | None = None, x2_tangent: ArrayT | None = None
) -> ArrayT:
    """Compute the tangent of ``a = x1 @ x2`` from tangents of its factors.

    Parameters
    ----------
    x1 : Array, shape (..., m, k) or (k,)
        Left factor of the forward.
    x2 : Array, shape (..., k, n) or (k,)
        Right factor of the forward.
    x1_tangent : Array, the shape of `x1`, optional
        Tangent of `x1`. None, the default, is a tangent of zero and costs nothing.
    x2_tangent : Array, the shape of `x2`, optional
        Tangent of `x2`.

    Returns
    -------
    Array, shape (..., m, n)
        The tangent of the product, in the promoted dtype of all arrays that were given. Dtypes narrower than float32
        are computed in float32 and returned narrow.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If no tangent is given, the shapes do not fit, or the arrays lie on different devices.

    See Also
    --------
    matmul_backward : The adjoint, from a gradient of the product to gradients of the factors.

    Notes
    -----
    ``ȧ = ẋ1 x2 + x1 ẋ2`` [1]_.

    References
    ----------
    .. [1] M. B. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
       differentiation", Advances in Automatic Differentiation, 2008, section 2.2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import matmul_jvp
    >>> x1, x2 = np.asarray([1.0, 2.0]), np.asarray([[5.0, 6.0], [7.0, 8.0]])
    >>> matmul_jvp(x1, x2, x1_tangent=np.asarray([0.0, 1.0]))
    array([7., 8.])
    """
    tangents = {"x1_tangent": x1_tangent, "x2_tangent": x2_tangent}
    xp, _, cast_output, ready = validate_optional_arrays("matmul_jvp", {"x1": x1, "x2": x2, **tangents}, tangents)
    _output_shape("matmul_jvp", x1, x2)
    check_alike("matmul_jvp", "x1_tangent", x1_tangent, "x1", x1)
    check_alike("matmul_jvp", "x2_tangent", x2_tangent, "x2", x2)
    x1, x2, x1_tangent, x2_tangent = ready
    if x1_tangent is not None:
        a = product(xp, x1_tangent, x2)
        if x2_tangent is not None:
            a = add(a, product(xp, x1, x2_tangent))
    elif x2_tangent is not None:
        a = product(xp, x1, x2_tangent)
    else:
        msg = "matmul_jvp: at least one tangent must be given; got none. Pass x1_tangent or x2_tangent"
        raise ValueError(msg)
    return cast_output(a)


def matmul_double_backward(
    ddx1: ArrayT | None, ddx2: ArrayT | None, da: ArrayT, x1: ArrayT, x2: ArrayT, /
) -> MatmulDoubleGradients[ArrayT]:
    """Compute the gradients for the inputs of `matmul_backward` from cotangents of its results.

    Parameters
    ----------
    ddx1 : Array, the shape of `x1`, or None
        Cotangent ``∂S/∂dx1`` of a real S that depends on the gradients. None is a cotangent of zero.
    ddx2 : Array, the shape of `x2`, or None
        Cotangent ``∂S/∂dx2``.
    da : Array, shape (..., m, n)
        Upstream gradient that was passed to the backward.
    x1 : Array, shape (..., m, k) or (k,)
        Left factor that was passed to the backward.
    x2 : Array, shape (..., k, n) or (k,)
        Right factor that was passed to the backward.

    Returns
    -------
    MatmulDoubleGradients
        ``(dda, dx1, dx2)``, each with the shape, dtype and device of its primal. A gradient that no cotangent leads to
        is None and costs nothing: `dda` without any cotangent, `dx1` without `ddx2`, `dx2` without `ddx1`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    matmul_backward : The map that is differentiated here.

    Notes
    -----
    ``dda = ddx1 x2 + x1 ddx2``, ``dx1 = Σ da ddx2ᴴ`` and ``dx2 = Σ ddx1ᴴ da``, the sums over broadcast batch axes
    [1]_: `dda` is the tangent of the product along the cotangents, and the other two are backwards with a cotangent in
    the place of a factor. Third and higher orders are compositions of these functions.

    If a primal is real, only the real part of a complex cotangent contributes.

    References
    ----------
    .. [1] A. Griewank and A. Walther, "Evaluating Derivatives", 2nd edition, 2008, chapter 5.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import matmul_double_backward
    >>> x1, x2 = np.ones((5, 1, 2, 3)), np.ones((4, 3, 6))
    >>> dda, dx1, dx2 = matmul_double_backward(None, x2, np.ones((5, 4, 2, 6)), x1, x2)
    >>> dda.shape, dx1.shape, dx2 is None
    ((5, 4, 2, 6), (5, 1, 2, 3), True)
    """
    cotangents = {"ddx1": ddx1, "ddx2": ddx2}
    xp, _, cast_output, _ = validate_optional_arrays(
        "matmul_double_backward", {**cotangents, "da": da, "x1": x1, "x2": x2}, cotangents
    )
    _check_upstream("matmul_double_backward", da, x1, x2)
    check_alike("matmul_double_backward", "ddx1", ddx1, "x1", x1)
    check_alike("matmul_double_backward", "ddx2", ddx2, "x2", x2)
    ddx1 = None if ddx1 is None else real_like(xp, ddx1, x1.dtype)
    ddx2 = None if ddx2 is None else real_like(xp, ddx2, x2.dtype)
    dda = dx1 = dx2 = None
    if not (ddx1 is None and ddx2 is None):
        dda = cast_output(matmul_jvp(x1, x2, x1_tangent=ddx1, x2_tangent=ddx2), da.dtype)
    if ddx2 is not None:
        dx1 = matmul_backward(da, x1, ddx2, wrt=("x1",)).dx1
    if ddx1 is not None:
        dx2 = matmul_backward(da, ddx1, x2, wrt=("x2",)).dx2
    return MatmulDoubleGradients(dda, dx1, dx2)


def _undo_broadcast(xp: Namespace, x: Array, y: Array, shape: tuple[int, ...], /) -> Array:
    """Return ``Σ xᵀ y`` in the shape of a factor: over the rows, and over the batch axes along which it broadcast."""
    if y.ndim == 2 < x.ndim == len(shape):
        # One matrix for all entries of a batch that is not summed.
        return product(xp, xp.matrix_transpose(x), y)
    ndim = max(x.ndim, y.ndim)
    x, y = (t[(*[None] * (ndim - t.ndim), ...)] for t in (x, y))
    summed = _broadcast_axes(x.shape, y.shape, shape)
    kept = [axis for axis in range(ndim - 2) if axis not in summed]
    # The summed axes are next to the rows, so that one contraction sums over all of them.
    order = (*kept, *summed, ndim - 2, ndim - 1)
    total = contract_rows(xp, xp.permute_dims(x, order), xp.permute_dims(y, order), kept=len(kept))
    # Of the summed axes, `total` has none, and the factor has those of size 1.
    of_factor = range(ndim - len(shape), ndim - 2)
    return total[(*(None if axis in summed else slice(None) for axis in of_factor), ...)]


def _broadcast_axes(x: tuple[int, ...], y: tuple[int, ...], factor: tuple[int, ...], /) -> list[int]:
    """Return the batch axes of shapes x and y of one length that a factor lacks, or has as 1 where x or y is longer."""
    absent = len(x) - len(factor)
    return [
        axis
        for axis in range(len(x) - 2)
        if axis < absent or (factor[axis - absent] == 1 and not x[axis] == y[axis] == 1)
    ]


def _check_upstream(function: str, da: Array, x1: Array, x2: Array, /) -> None:
    """Check that da has the shape of the product."""
    if not same_shape(da.shape, _output_shape(function, x1, x2)):
        msg = f"{function}: da must have the shape of the product x1 @ x2; got {shapes(da=da, x1=x1, x2=x2)}"
        raise ValueError(msg)


def _output_shape(function: str, x1: Array, x2: Array, /) -> tuple[int, ...]:
    """Return the shape of ``x1 @ x2``, or say why there is none."""
    if x1.ndim == 0 or x2.ndim == 0:
        msg = f"{function}: x1 and x2 must have at least one axis; got {shapes(x1=x1, x2=x2)}"
        raise ValueError(msg)
    if not compatible_size(x1.shape[-1], x2.shape[-2:][0]):
        msg = f"{function}: the last axis of x1 must equal the first matrix axis of x2; got {shapes(x1=x1, x2=x2)}"
        raise ValueError(msg)
    batch = []
    for size, other in zip_longest(reversed(x1.shape[:-2]), reversed(x2.shape[:-2]), fillvalue=1):
        if not (size == 1 or other == 1 or compatible_size(size, other)):
            msg = f"{function}: the batch axes of x1 and x2 must be equal or 1; got {shapes(x1=x1, x2=x2)}"
            raise ValueError(msg)
        batch.append(other if size == 1 else size)
    return (*reversed(batch), *x1.shape[-2:-1], *(x2.shape[-1:] if x2.ndim > 1 else ()))


MATMUL = Pair(
    "matmul",
    matmul_forward,
    matmul_backward,
    inputs={"x1": (3, 1, 2, 3), "x2": (2, 3, 4)},
    needs=("x1", "x2"),
    jvp=matmul_jvp,
    double_backward=matmul_double_backward,
)
