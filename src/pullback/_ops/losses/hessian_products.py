"""The Hessians of the losses for the outputs, as products with a vector: what a Gauss–Newton product needs of a loss.

Each takes the arguments of its loss after the vector. It is symmetric and never negative.
"""

from pullback._losses import Reduction, check_delta, read_outputs, scaled
from pullback._stable import decay
from pullback._typing import Array


def squared_error_hessian_product(
    v: Array, a: Array, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> Array:
    """Multiply `v` by the Hessian of `squared_error` for the outputs: the identity for an example.

    Parameters
    ----------
    v : Array, shape (..., n)
        Vector, of the shape of `a`: usually the tangent of the outputs.
    a : Array, shape (..., n)
        Outputs of `squared_error`.
    y : Array, shape (..., n)
        Targets of `squared_error`.
    weights : Array, shape (...), optional
        Weights of `squared_error`. What `v` has for an example of weight 0 does not count.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `squared_error`: each example's own Hessian, times its weight in the reduced loss. So "none" gives what
        "sum" gives.

    Returns
    -------
    Array, shape (..., n)
        ``H v``, the change of the loss's `da` along `v`, in the dtype and on the device of `a`.

    Raises
    ------
    TypeError
        As `squared_error` does, or if `v` has no real floating dtype.
    ValueError
        As `squared_error` does, or if `v` has not the shape of `a`.

    See Also
    --------
    squared_error : The loss.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import squared_error_hessian_product
    >>> a = np.ones((2, 1))
    >>> squared_error_hessian_product(np.asarray([[2.0], [4.0]]), a, a)
    array([[1.],
           [2.]])
    """
    xp, like, ready = read_outputs("squared_error_hessian_product", weights, reduction, v=v, a=a, y=y)
    dtype = a.dtype
    v, a, y, weights = ready
    # A copy, since it is scaled in place.
    return like(scaled(xp, v * 1.0, weights, reduction), dtype)


def huber_hessian_product(  # noqa: PLR0913 - the options of the loss
    v: Array, a: Array, y: Array, /, *, delta: float = 1.0, weights: Array | None = None, reduction: Reduction = "mean"
) -> Array:
    """Multiply `v` by the Hessian of `huber`: 1 for an error of up to `delta`, and 0 for a larger one.

    Parameters
    ----------
    v : Array, shape (..., n)
        Vector, of the shape of `a`.
    a : Array, shape (..., n)
        Outputs of `huber`.
    y : Array, shape (..., n)
        Targets of `huber`.
    delta : float, default 1.0
        The error, above 0, from which on the loss is linear.
    weights : Array, shape (...), optional
        Weights of `huber`, as in `squared_error_hessian_product`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `squared_error_hessian_product`.

    Returns
    -------
    Array, shape (..., n)
        ``H v``, in the dtype and on the device of `a`.

    Raises
    ------
    TypeError, ValueError
        As `squared_error_hessian_product` does; ValueError also if `delta` is not above 0.

    See Also
    --------
    huber : The loss.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import huber_hessian_product
    >>> huber_hessian_product(np.ones((2, 1)), np.asarray([[0.5], [4.0]]), np.zeros((2, 1)), reduction="sum")
    array([[1.],
           [0.]])
    """
    xp, like, ready = read_outputs("huber_hessian_product", weights, reduction, v=v, a=a, y=y)
    check_delta("huber_hessian_product", delta)
    dtype = a.dtype
    v, a, y, weights = ready
    return like(scaled(xp, xp.where(xp.abs(a - y) > delta, 0.0, v), weights, reduction), dtype)


def logistic_hessian_product(
    v: Array, a: Array, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> Array:
    """Multiply `v` by the Hessian of `logistic`: for an output, ``p (1 - p)`` with ``p = sigmoid(a)``.

    Parameters
    ----------
    v : Array, shape (..., n)
        Vector, of the shape of `a`.
    a : Array, shape (..., n)
        Logits of `logistic`.
    y : Array, shape (..., n)
        Targets of `logistic`.
    weights : Array, shape (...), optional
        Weights of `logistic`, as in `squared_error_hessian_product`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `squared_error_hessian_product`.

    Returns
    -------
    Array, shape (..., n)
        ``H v``, in the dtype and on the device of `a`.

    Raises
    ------
    TypeError, ValueError
        As `squared_error_hessian_product` does.

    See Also
    --------
    logistic : The loss.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import logistic_hessian_product
    >>> logistic_hessian_product(np.asarray([[1.0]]), np.asarray([[0.0]]), np.asarray([[1]]))
    array([[0.25]])
    """
    xp, like, ready = read_outputs("logistic_hessian_product", weights, reduction, v=v, a=a, y=y)
    dtype = a.dtype
    v, a, y, weights = ready
    out = decay(xp, a)
    # The nearer of p and 1 - p, and from it their product.
    out /= out + 1
    out -= out * out
    out *= v
    return like(scaled(xp, out, weights, reduction), dtype)


def poisson_hessian_product(
    v: Array, a: Array, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> Array:
    """Multiply `v` by the Hessian of `poisson`: for an output, ``exp(a)``.

    Parameters
    ----------
    v : Array, shape (..., n)
        Vector, of the shape of `a`.
    a : Array, shape (..., n)
        Logarithms of the rates of `poisson`.
    y : Array, shape (..., n)
        Counts of `poisson`.
    weights : Array, shape (...), optional
        Weights of `poisson`, as in `squared_error_hessian_product`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `squared_error_hessian_product`.

    Returns
    -------
    Array, shape (..., n)
        ``H v``, in the dtype and on the device of `a`.

    Raises
    ------
    TypeError, ValueError
        As `squared_error_hessian_product` does.

    See Also
    --------
    poisson : The loss.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import poisson_hessian_product
    >>> poisson_hessian_product(np.asarray([[3.0]]), np.asarray([[0.0]]), np.asarray([[2]]))
    array([[3.]])
    """
    xp, like, ready = read_outputs("poisson_hessian_product", weights, reduction, v=v, a=a, y=y)
    dtype = a.dtype
    v, a, y, weights = ready
    out = xp.exp(a)
    out *= v
    return like(scaled(xp, out, weights, reduction), dtype)
