"""Logistic loss: the binary cross entropy of logits."""

from typing import Any

from pullback._core.arguments import float_option
from pullback._core.memory import add, divide, multiply, subtract
from pullback._core.pair import Pair
from pullback._core.stable import decay, is_positive, may_be_infinite, without_infinities
from pullback._core.tracing import record
from pullback._core.typing import Array, ArrayT, Namespace
from pullback._ops.losses.reduction import CheckedLoss, Loss, Reducer, Reduction, check_loss, read_outputs


def logistic(
    a: ArrayT,
    y: Array,
    /,
    *,
    weights: Array | None = None,
    positive_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> Loss[ArrayT]:
    """Compute the logistic loss and its gradient, for labels of 0 and 1 or probabilities.

    The labels are not -1 and +1, for which the loss has no lower bound: convert those with ``y > 0``. The loss is the
    binary cross entropy of the sigmoid of the logits with the labels.

    Parameters
    ----------
    a : Array, shape (..., n) or (m,)
        Logits, real: n independent ones for each example, with any number of leading batch axes. A vector is a batch of
        m examples with one logit each.
    y : Array, shape (..., n) or (m,)
        Labels, of the shape of `a`, ``y[:, None]`` for outputs of shape (m, 1): 0 and 1, booleans, or probabilities in
        between, floating or integer. Their values are not checked.
    weights : Array, shape (...) or (..., n), optional
        A weight for each example or for each output, as in `squared_error`. One of weight 0 is absent, also where its
        label is NaN.
    positive_weight : float, default 1.0
        Factor of the loss of labels of 1, above 0, as PyTorch's ``pos_weight``: the mean is not divided by it. A number
        that is known during the call.
    reduction : {"mean", "sum", "none"}, default "mean"
        Reduction over the examples, as in `squared_error`.

    Returns
    -------
    Loss
        ``(value, da)``, with dtypes as in `squared_error`.

    Raises
    ------
    TypeError, ValueError
        As `squared_error` does; also if `positive_weight` is no number above 0 that is known during the call.

    See Also
    --------
    logistic_hessian_product : Its curvature.
    softmax_cross_entropy : For classes that exclude each other.

    Notes
    -----
    An example's loss is ``Σ_j log(1 + exp(a_j)) - y_j a_j`` and its gradient ``sigmoid(a) - y`` [1]_. With
    ``e = exp(-|a|)``, which does not overflow, and s = 1 where a > 0 and 0 elsewhere, they are ``a (s - y) + log1p(e)``
    and ``(s - y) ± e / (1 + e)``: losses and gradients of confident predictions lose no digits. An infinite logit with
    the matching label has loss 0.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import logistic
    >>> value, da = logistic(np.asarray([0.0, np.log(3.0)]), np.asarray([0, 1]))
    >>> round(float(value), 6)
    0.490415
    >>> da
    array([ 0.25 , -0.125])
    """
    recorded = record(LOGISTIC, (a, y), weights=weights, positive_weight=positive_weight, reduction=reduction)
    if recorded is not None:
        return recorded
    return _check(a, y, weights=weights, positive_weight=positive_weight, reduction=reduction).loss(a.dtype)


def logistic_hessian_product(  # noqa: PLR0913 - the options of the loss
    v: ArrayT,
    a: ArrayT,
    y: Array,
    /,
    *,
    weights: Array | None = None,
    positive_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> ArrayT:
    """Compute the product of the Hessian of `logistic` with a vector: ``p (1 - p) v`` with ``p = sigmoid(a)``.

    Parameters
    ----------
    v : Array, shape (..., n) or (m,)
        Vector of the shape of `a`, usually a tangent of the logits.
    a : Array, shape (..., n) or (m,)
        Logits of `logistic`.
    y : Array, shape (..., n) or (m,)
        Labels of `logistic`.
    weights : Array, shape (...) or (..., n), optional
        Weights of `logistic`, as in `squared_error_hessian_product`.
    positive_weight : float, default 1.0
        Factor of the loss of labels of 1, as in `logistic`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `squared_error_hessian_product`.

    Returns
    -------
    Array, shape (..., n) or (m,)
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
    factor = float_option("logistic_hessian_product", "positive_weight", positive_weight, above=0.0)
    xp, cast_output, reducer, ready = read_outputs("logistic_hessian_product", weights, reduction, v=v, a=a, y=y)
    dtype = a.dtype
    v, a, y = ready
    # √(p (1 - p)), whose factors stay in range where their product, without v, does not.
    root = decay(xp, a * 0.5)
    root = divide(root, root * root + 1)
    out = multiply(v * root, root)
    if factor != 1.0:
        out = multiply(out, y * (factor - 1) + 1)
    return cast_output(reducer.scaled(out), dtype)


def _check(
    a: Array, y: Array, /, *, weights: Array | None, positive_weight: float, reduction: Reduction
) -> CheckedLoss:
    """Check the arguments of `logistic`."""
    factor = float_option("logistic", "positive_weight", positive_weight, above=0.0)
    return check_loss("logistic", _formula, a, y, weights, reduction, factor)


def _formula(xp: Namespace, a: Array, y: Array, reducer: Reducer, factor: float, /) -> tuple[Array, Array]:
    """Return the reduced loss and its gradient."""
    scale: Any = None
    if factor != 1.0:
        # The loss of a probability, times the weight of both labels together.
        scale = y * (factor - 1) + 1
        y = y * factor / scale
    # In place, since fresh memory costs NumPy more than the arithmetic.
    rest = decay(xp, a)
    losses = xp.log1p(rest)
    da = is_positive(xp, a)
    # The distance of the sigmoid from the nearer of 0 and 1, with its sign.
    rest = divide(rest, rest + 1)
    rest = multiply(rest, add(da * -2, 1))
    da = subtract(da, y)
    if may_be_infinite(xp, a):
        a = without_infinities(xp, a, xp.equal(da, 0))
    losses = add(losses, a * da)
    if scale is not None:
        losses = multiply(losses, scale)
    da = add(da, rest)
    if scale is not None:
        da = multiply(da, scale)
    return reducer.total_of_outputs(losses), reducer.scaled(da)


LOGISTIC = Pair(
    "logistic",
    logistic,
    None,
    inputs={"a": (4, 3), "y": [[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]]},
    needs=("a", "y"),
    hessian_product=logistic_hessian_product,
    check=_check,
    real=True,
)
