"""The quadratic form ``xᵀ A x`` and its backward."""

from collections.abc import Collection
from typing import NamedTuple

from pullback._arguments import agree, check_value, check_wrt, read, shapes
from pullback._sums import contract_rows, product
from pullback._typing import Array

_INPUTS = ("x", "A")


class QuadraticFormGradients(NamedTuple):
    """Gradients of a real loss for the inputs of `quadratic_form`; None where `wrt` did not ask.

    Attributes
    ----------
    dx : Array or None
        Gradient for the vectors: shape, dtype and device of `x`.
    dA : Array or None
        Gradient for the matrix: shape, dtype and device of `A`.
    """

    dx: Array | None
    dA: Array | None


def quadratic_form(x: Array, A: Array, /) -> Array:
    """Take the quadratic form ``xᵀ A x`` of each vector of a batch.

    Parameters
    ----------
    x : Array, shape (..., k)
        Vectors: any number of leading batch axes, none for a single vector.
    A : Array, shape (k, k)
        Matrix; it need not be symmetric.

    Returns
    -------
    Array, shape (...)
        A value for each vector, in the promoted dtype of the inputs. Dtypes narrower than float32 are computed in
        float32 and returned narrow.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    quadratic_form_backward : The gradients of this form.

    Notes
    -----
    ``xᵀ A x = Σ_kl x_k A_kl x_l`` [1]_, also for complex arrays: the form is bilinear and conjugates nothing.

    References
    ----------
    .. [1] K. B. Petersen and M. S. Pedersen, "The Matrix Cookbook", 2012, section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import quadratic_form
    >>> quadratic_form(np.asarray([[1.0, 0.0], [1.0, 1.0]]), np.asarray([[1.0, 2.0], [3.0, 4.0]]))
    array([ 1., 10.])
    """
    xp, _, like, ready = read("quadratic_form", _INPUTS, x, A)
    _check_shapes("quadratic_form", x, A)
    x, A = ready
    return like(xp.sum(product(xp, x, A) * x, axis=-1))


def quadratic_form_backward(
    dvalue: Array, x: Array, A: Array, /, *, wrt: Collection[str] = _INPUTS
) -> QuadraticFormGradients:
    """Pull the upstream gradient of ``xᵀ A x`` back to its inputs.

    Parameters
    ----------
    dvalue : Array, shape (...)
        Upstream gradient of a real loss, one entry for each vector.
    x : Array, shape (..., k)
        Vectors of the forward.
    A : Array, shape (k, k)
        Matrix of the forward.
    wrt : collection of str, default ("x", "A")
        The inputs to differentiate for. What is not named is not computed.

    Returns
    -------
    QuadraticFormGradients
        ``(dx, dA)``, each with the shape, dtype and device of its primal, and None where `wrt` did not ask.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `wrt` names something else.

    See Also
    --------
    quadratic_form : The form.

    Notes
    -----
    ``dx = dvalue conj((A + Aᵀ) x)``, which is ``2 dvalue A x`` for a real symmetric matrix only, and
    ``dA = Σ dvalue conj(x xᵀ)`` over the batch [1]_. For complex arrays, minus the gradient is the direction of
    steepest descent, and a real primal gets the real part.

    References
    ----------
    .. [1] K. B. Petersen and M. S. Pedersen, "The Matrix Cookbook", 2012, section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import quadratic_form_backward
    >>> x, A = np.asarray([1.0, 1.0]), np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> dx, dA = quadratic_form_backward(np.asarray(1.0), x, A)
    >>> dx
    array([ 7., 13.])
    >>> dA
    array([[1., 1.],
           [1., 1.]])
    """
    xp, conj, like, ready = read("quadratic_form_backward", ("dvalue", *_INPUTS), dvalue, x, A)
    check_wrt("quadratic_form_backward", wrt, _INPUTS)
    _check_shapes("quadratic_form_backward", x, A)
    check_value("quadratic_form_backward", dvalue, x.shape[:-1])
    x_dtype, A_dtype = x.dtype, A.dtype
    dvalue, x, A = ready
    scale, x = dvalue[..., None], conj(x)
    dx = like(scale * product(xp, x, conj(A + A.T)), x_dtype) if "x" in wrt else None
    dA = like(contract_rows(xp, x, scale * x), A_dtype) if "A" in wrt else None
    return QuadraticFormGradients(dx, dA)


def _check_shapes(function: str, x: Array, A: Array, /) -> None:
    """Check that A (k, k) fits x (..., k)."""
    if x.ndim == 0:
        msg = f"{function}: x must have at least one axis, shape (..., k); got {shapes(x=x)}"
        raise ValueError(msg)
    if not (A.ndim == 2 and agree(A.shape[0], A.shape[1]) and agree(A.shape[0], x.shape[-1])):
        msg = f"{function}: A must have shape (k, k) for x (..., k); got {shapes(x=x, A=A)}"
        raise ValueError(msg)
