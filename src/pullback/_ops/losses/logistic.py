"""Logistic loss: the binary cross entropy of logits."""

from pullback._core.pair import Pair
from pullback._core.reductions import dot_last, sum_last
from pullback._core.stable import decay, is_positive
from pullback._core.typing import Array
from pullback._ops.losses.reduction import Loss, Reduction, read_outputs, reduced, scaled


def logistic(a: Array, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean") -> Loss:
    """Binary cross entropy of the sigmoid of `a` with the targets `y`, and its gradient.

    Parameters
    ----------
    a : Array, shape (..., n)
        Logits, real: any number of leading batch axes, as in `squared_error`, and n labels for each example.
    y : Array, shape (..., n)
        Targets between 0 and 1, floating or integers: whether, or how probably, each label holds.
    weights : Array, shape (...), optional
        A weight for each example, as in `squared_error`.
    reduction : {"mean", "sum", "none"}, default "mean"
        Over the examples, as in `squared_error`.

    Returns
    -------
    Loss
        ``(value, da)``, with dtypes as in `squared_error`.

    Raises
    ------
    TypeError, ValueError
        As `squared_error` does.

    See Also
    --------
    logistic_hessian_product : Its curvature.
    softmax_cross_entropy : For classes of which exactly one holds.

    Notes
    -----
    An example's loss is ``Σ_j log(1 + exp(a_j)) - y_j a_j`` and its gradient ``sigmoid(a) - y`` [1]_. With
    ``e = exp(-|a|)``, which does not overflow, and s = 1 where a > 0 and 0 elsewhere, they are ``a (s - y) + log1p(e)``
    and ``(s - y) ± e / (1 + e)``: small errors of well classified examples do not drown in rounding.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import logistic
    >>> value, da = logistic(np.asarray([[0.0], [np.log(3.0)]]), np.asarray([[0], [1]]))
    >>> round(float(value), 6)
    0.490415
    >>> da
    array([[ 0.25 ],
           [-0.125]])
    """
    xp, cast_output, ready = read_outputs("logistic", weights, reduction, a=a, y=y)
    dtype = a.dtype
    a, y, weights = ready
    rest = decay(xp, a)
    value = sum_last(xp, xp.log1p(rest))
    # What the sigmoid lacks to the nearer of 0 and 1, with its sign. In place, since fresh memory costs NumPy more than
    # the arithmetic.
    rest /= rest + 1
    da = is_positive(xp, a)
    rest *= da * -2 + 1
    da -= y
    value += dot_last(xp, a, da)
    da += rest
    value, da = reduced(xp, value, da, weights, reduction)
    return Loss(cast_output(value), cast_output(da, dtype))


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
    xp, cast_output, ready = read_outputs("logistic_hessian_product", weights, reduction, v=v, a=a, y=y)
    dtype = a.dtype
    v, a, y, weights = ready
    out = decay(xp, a)
    # The nearer of p and 1 - p, and from it their product.
    out /= out + 1
    out -= out * out
    out *= v
    return cast_output(scaled(xp, out, weights, reduction), dtype)


LOGISTIC = Pair(
    "logistic",
    logistic,
    None,
    inputs={"a": (4, 3), "y": [[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]]},
    needs=("a", "y"),
    hessian_product=logistic_hessian_product,
    real=True,
)
