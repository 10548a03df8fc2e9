"""Sums of products of all entries: the Frobenius inner product and the trace of a product, with their backwards."""

from collections.abc import Collection
from typing import Generic, NamedTuple

from pullback._core.arguments import check_value, check_wrt, compatible_size, same_shape, shapes, validate_arrays
from pullback._core.pair import Pair
from pullback._core.reductions import contract_rows, product, sum_all
from pullback._core.typing import Array, ArrayT

_FROBENIUS = ("x", "y")
_TRACE = ("x", "w")


class FrobeniusInnerGradients(NamedTuple, Generic[ArrayT]):
    """Gradients of a real loss for the inputs of `frobenius_inner`; None where `wrt` did not ask.

    Attributes
    ----------
    dx : Array or None
        Gradient for the first array: shape, dtype and device of `x`.
    dy : Array or None
        Gradient for the second array: shape, dtype and device of `y`.
    """

    dx: ArrayT | None
    dy: ArrayT | None


class TraceOfProductGradients(NamedTuple, Generic[ArrayT]):
    """Gradients of a real loss for the inputs of `trace_of_product`; None where `wrt` did not ask.

    Attributes
    ----------
    dx : Array or None
        Gradient for the left factor: shape, dtype and device of `x`.
    dw : Array or None
        Gradient for the right factor: shape, dtype and device of `w`.
    """

    dx: ArrayT | None
    dw: ArrayT | None


def frobenius_inner(x: ArrayT, y: ArrayT, /) -> ArrayT:
    """Compute the Frobenius inner product ``⟨x, y⟩ = Σ conj(x) y`` over all axes.

    Parameters
    ----------
    x : Array
        First array, of any shape. If it is complex, it enters as its conjugate.
    y : Array, the shape of `x`
        Second array.

    Returns
    -------
    Array, shape ()
        The inner product, in the promoted dtype of the inputs, summed in the accumulation dtype of the device.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes differ or the arrays lie on different devices.

    See Also
    --------
    frobenius_inner_backward : The gradients of this inner product.

    Notes
    -----
    For matrices ``⟨x, y⟩ = tr(xᴴ y)`` [1]_. It is the inner product in which a backward is the adjoint of its forward.

    References
    ----------
    .. [1] G. H. Golub and C. F. Van Loan, "Matrix Computations", 4th edition, 2013, section 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import frobenius_inner
    >>> x = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> float(frobenius_inner(x, x))
    30.0
    """
    xp, conj, cast_output, ready = validate_arrays("frobenius_inner", _FROBENIUS, x, y)
    _check_frobenius("frobenius_inner", x, y)
    x, y = ready
    return cast_output(sum_all(xp, conj(x) * y))


def frobenius_inner_backward(
    dvalue: ArrayT, x: ArrayT, y: ArrayT, /, *, wrt: Collection[str] = _FROBENIUS
) -> FrobeniusInnerGradients[ArrayT]:
    """Compute the gradients of ``⟨x, y⟩ = Σ conj(x) y`` for its inputs from the upstream gradient.

    Parameters
    ----------
    dvalue : Array, shape ()
        Upstream gradient of a real loss.
    x : Array
        First array of the forward.
    y : Array, the shape of `x`
        Second array of the forward.
    wrt : collection of str, default ("x", "y")
        The inputs to differentiate for. The gradients of the others are not computed.

    Returns
    -------
    FrobeniusInnerGradients
        ``(dx, dy)``, each with the shape, dtype and device of its primal, and None where `wrt` did not ask.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `wrt` names something else.

    See Also
    --------
    frobenius_inner : The inner product.

    Notes
    -----
    ``dx = conj(dvalue) y`` and ``dy = dvalue x``. For complex arrays, minus the gradient is the direction of steepest
    descent, and a real primal gets the real part.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import frobenius_inner_backward
    >>> x, y = np.asarray([1.0, 2.0]), np.asarray([3.0, 4.0])
    >>> dx, dy = frobenius_inner_backward(np.asarray(10.0), x, y)
    >>> dx, dy
    (array([30., 40.]), array([10., 20.]))
    """
    _, conj, cast_output, ready = validate_arrays("frobenius_inner_backward", ("dvalue", *_FROBENIUS), dvalue, x, y)
    check_wrt("frobenius_inner_backward", wrt, _FROBENIUS)
    _check_frobenius("frobenius_inner_backward", x, y)
    check_value("frobenius_inner_backward", dvalue, ())
    x_dtype, y_dtype = x.dtype, y.dtype
    dvalue, x, y = ready
    dx = cast_output(conj(dvalue) * y, x_dtype) if "x" in wrt else None
    dy = cast_output(dvalue * x, y_dtype) if "y" in wrt else None
    return FrobeniusInnerGradients(dx, dy)


def trace_of_product(x: ArrayT, w: ArrayT, /) -> ArrayT:
    """Compute the trace ``tr(x w)`` without the product of the matrices.

    Parameters
    ----------
    x : Array, shape (n, k)
        Left factor.
    w : Array, shape (k, n)
        Right factor.

    Returns
    -------
    Array, shape ()
        The trace, in the promoted dtype of the inputs, summed in the accumulation dtype of the device.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    trace_of_product_backward : The gradients of this trace.

    Notes
    -----
    ``tr(x w) = Σ_ij x_ij w_ji = tr(w x)`` [1]_: n k products, where the matrix product needs n² k.

    References
    ----------
    .. [1] K. B. Petersen and M. S. Pedersen, "The Matrix Cookbook", 2012, section 1.1.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import trace_of_product
    >>> float(trace_of_product(np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([[5.0, 6.0], [7.0, 8.0]])))
    69.0
    """
    xp, _, cast_output, ready = validate_arrays("trace_of_product", _TRACE, x, w)
    _check_trace("trace_of_product", x, w)
    x, w = ready
    return cast_output(sum_all(xp, x * w.T))


def trace_of_product_backward(
    dvalue: ArrayT, x: ArrayT, w: ArrayT, /, *, wrt: Collection[str] = _TRACE
) -> TraceOfProductGradients[ArrayT]:
    """Compute the gradients of ``tr(x w)`` for its factors from the upstream gradient.

    Parameters
    ----------
    dvalue : Array, shape ()
        Upstream gradient of a real loss.
    x : Array, shape (n, k)
        Left factor of the forward.
    w : Array, shape (k, n)
        Right factor of the forward.
    wrt : collection of str, default ("x", "w")
        The factors to differentiate for. The gradients of the others are not computed.

    Returns
    -------
    TraceOfProductGradients
        ``(dx, dw)``, each with the shape, dtype and device of its primal, and None where `wrt` did not ask.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `wrt` names something else.

    See Also
    --------
    trace_of_product : The trace.
    affine_backward : Equal to this for the upstream gradient ``dvalue`` times the identity.

    Notes
    -----
    ``dx = dvalue wᴴ`` and ``dw = dvalue xᴴ`` [1]_. For complex arrays, minus the gradient is the direction of steepest
    descent, and a real primal gets the real part.

    References
    ----------
    .. [1] K. B. Petersen and M. S. Pedersen, "The Matrix Cookbook", 2012, section 2.5.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import trace_of_product_backward
    >>> x, w = np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([[5.0, 6.0], [7.0, 8.0]])
    >>> dx, dw = trace_of_product_backward(np.asarray(1.0), x, w)
    >>> dw
    array([[1., 3.],
           [2., 4.]])
    """
    _, conj, cast_output, ready = validate_arrays("trace_of_product_backward", ("dvalue", *_TRACE), dvalue, x, w)
    check_wrt("trace_of_product_backward", wrt, _TRACE)
    _check_trace("trace_of_product_backward", x, w)
    check_value("trace_of_product_backward", dvalue, ())
    x_dtype, w_dtype = x.dtype, w.dtype
    dvalue, x, w = ready
    dx = cast_output(dvalue * conj(w).T, x_dtype) if "x" in wrt else None
    dw = cast_output(dvalue * conj(x).T, w_dtype) if "w" in wrt else None
    return TraceOfProductGradients(dx, dw)


def _check_frobenius(function: str, x: Array, y: Array, /) -> None:
    """Check that x and y have one shape."""
    if not same_shape(x.shape, y.shape):
        msg = f"{function}: x and y must have the same shape; got {shapes(x=x, y=y)}"
        raise ValueError(msg)


def _check_trace(function: str, x: Array, w: Array, /) -> None:
    """Check that x (n, k) and w (k, n) fit on both sides."""
    if not (x.ndim == 2 and same_shape(x.shape, w.shape[::-1])):
        msg = f"{function}: x and w must be matrices of shapes (n, k) and (k, n); got {shapes(x=x, w=w)}"
        raise ValueError(msg)


_QUADRATIC = ("x", "A")


class QuadraticFormGradients(NamedTuple, Generic[ArrayT]):
    """Gradients of a real loss for the inputs of `quadratic_form`; None where `wrt` did not ask.

    Attributes
    ----------
    dx : Array or None
        Gradient for the vectors: shape, dtype and device of `x`.
    dA : Array or None
        Gradient for the matrix: shape, dtype and device of `A`.
    """

    dx: ArrayT | None
    dA: ArrayT | None


def quadratic_form(x: ArrayT, A: ArrayT, /) -> ArrayT:
    """Compute the quadratic form ``xᵀ A x`` of each vector of a batch.

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
    xp, _, cast_output, ready = validate_arrays("quadratic_form", _QUADRATIC, x, A)
    _check_quadratic("quadratic_form", x, A)
    x, A = ready
    return cast_output(xp.sum(product(xp, x, A) * x, axis=-1))


def quadratic_form_backward(
    dvalue: ArrayT, x: ArrayT, A: ArrayT, /, *, wrt: Collection[str] = _QUADRATIC
) -> QuadraticFormGradients[ArrayT]:
    """Compute the gradients of ``xᵀ A x`` for its inputs from the upstream gradient.

    Parameters
    ----------
    dvalue : Array, shape (...)
        Upstream gradient of a real loss, one entry for each vector.
    x : Array, shape (..., k)
        Vectors of the forward.
    A : Array, shape (k, k)
        Matrix of the forward.
    wrt : collection of str, default ("x", "A")
        The inputs to differentiate for. The gradients of the others are not computed.

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
    xp, conj, cast_output, ready = validate_arrays("quadratic_form_backward", ("dvalue", *_QUADRATIC), dvalue, x, A)
    check_wrt("quadratic_form_backward", wrt, _QUADRATIC)
    _check_quadratic("quadratic_form_backward", x, A)
    check_value("quadratic_form_backward", dvalue, x.shape[:-1])
    x_dtype, A_dtype = x.dtype, A.dtype
    dvalue, x, A = ready
    scale, conjugate = dvalue[..., None], conj(x)
    dx = cast_output(scale * product(xp, conjugate, conj(A + A.T)), x_dtype) if "x" in wrt else None
    dA = cast_output(contract_rows(xp, conjugate, scale * conjugate), A_dtype) if "A" in wrt else None
    return QuadraticFormGradients(dx, dA)


def _check_quadratic(function: str, x: Array, A: Array, /) -> None:
    """Check that A (k, k) fits x (..., k)."""
    if x.ndim == 0:
        msg = f"{function}: x must have at least one axis, shape (..., k); got {shapes(x=x)}"
        raise ValueError(msg)
    if not (A.ndim == 2 and compatible_size(A.shape[0], A.shape[1]) and compatible_size(A.shape[0], x.shape[-1])):
        msg = f"{function}: A must have shape (k, k) for x (..., k); got {shapes(x=x, A=A)}"
        raise ValueError(msg)


FROBENIUS_INNER = Pair(
    "frobenius_inner",
    frobenius_inner,
    frobenius_inner_backward,
    inputs={"x": (4, 3), "y": (4, 3)},
    needs=("x", "y"),
)
TRACE_OF_PRODUCT = Pair(
    "trace_of_product",
    trace_of_product,
    trace_of_product_backward,
    inputs={"x": (4, 3), "w": (3, 4)},
    needs=("x", "w"),
)
QUADRATIC_FORM = Pair(
    "quadratic_form",
    quadratic_form,
    quadratic_form_backward,
    inputs={"x": (4, 3), "A": (3, 3)},
    needs=("x", "A"),
)
