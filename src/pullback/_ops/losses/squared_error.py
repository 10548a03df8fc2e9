"""Squared error: half the squared distance from the targets."""

from pullback._core.pair import Pair
from pullback._core.tracing import record
from pullback._core.typing import Array, ArrayT, Namespace
from pullback._ops.losses.reduction import CheckedLoss, Loss, Reducer, Reduction, check_loss, read_outputs


def squared_error(
    a: ArrayT, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> Loss[ArrayT]:
    """Compute half the squared error and its gradient, for targets of any size.

    Parameters
    ----------
    a : Array, shape (..., n) or (m,)
        Outputs, real: n for each example, with any number of leading batch axes. A vector is a batch of m examples with
        one output each.
    y : Array, shape (..., n) or (m,)
        Targets, of the shape of `a`, ``y[:, None]`` for outputs of shape (m, 1): any numbers, floating or integer.
        Booleans count as 0 and 1.
    weights : Array, shape (...) or (..., n), optional
        A weight for each example or for each output, floating or integer. Only their ratios matter to a mean. An
        example or an output of weight 0 is absent, also where it holds NaN, as a missing target does; an input of the
        model that is NaN there must be replaced, see Notes.
    reduction : {"mean", "sum", "none"}, default "mean"
        Reduction over the examples; the losses of an example's outputs are always summed. The weighted mean is
        ``Σ weights loss / Σ weights``, and n times that with weights of outputs, so that weights that are the same for
        all outputs of an example are weights of examples. It is NaN for no examples and for weights whose sum is 0.

    Returns
    -------
    Loss
        ``(value, da)``, in the namespace and on the device of the inputs; `value` in the promoted dtype of their
        floating ones, `da` in the dtype of `a`. Dtypes narrower than float32 are computed in float32.

    Raises
    ------
    TypeError
        If an argument is not an array or comes from another library than the others, if `a` has no real floating
        dtype, `weights` neither that nor an integer dtype, or `y` none of these and not bool.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `reduction` is none of the three.

    See Also
    --------
    squared_error_hessian_product : Its curvature.
    huber : Grows linearly for large errors.

    Notes
    -----
    An example's loss is ``½ Σ_j (a_j - y_j)²`` and its gradient ``a - y``. It is scikit-learn's ``HalfSquaredError``,
    and half of PyTorch's ``mse_loss``, whose mean runs over all outputs. The weighted mean is that of both.

    A mean overflows only where the loss of an example does. The row of `da` for an example of weight 0 is 0, but
    ``0 * NaN`` is NaN in the backward of a layer. If inputs may be NaN or infinite there, replace them before the
    forward: ``z = xp.where(weights[..., None] == 0, 0.0, z)``.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import squared_error
    >>> a, y = np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([[1.0, 0.0], [0.0, 0.0]])
    >>> value, da = squared_error(a, y)
    >>> float(value)
    7.25
    >>> da
    array([[0. , 1. ],
           [1.5, 2. ]])
    """
    recorded = record(SQUARED_ERROR, (a, y), weights=weights, reduction=reduction)
    if recorded is not None:
        return recorded
    return _check(a, y, weights=weights, reduction=reduction).loss(a.dtype)


def squared_error_hessian_product(
    v: ArrayT, a: ArrayT, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> ArrayT:
    """Compute the product of the Hessian of `squared_error`, the identity for an example, with a vector.

    Parameters
    ----------
    v : Array, shape (..., n) or (m,)
        Vector of the shape of `a`, usually a tangent of the outputs.
    a : Array, shape (..., n) or (m,)
        Outputs of `squared_error`.
    y : Array, shape (..., n) or (m,)
        Targets of `squared_error`.
    weights : Array, shape (...) or (..., n), optional
        Weights of `squared_error`. The product is 0 for an example of weight 0.
    reduction : {"mean", "sum", "none"}, default "mean"
        Reduction of `squared_error`: the Hessian of each example is multiplied by its factor in the reduced loss, so
        that "none" gives the same as "sum".

    Returns
    -------
    Array, shape (..., n) or (m,)
        ``H v``, the derivative of the loss's `da` along `v`, in the dtype and on the device of `a`.

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
    _, cast_output, reducer, ready = read_outputs("squared_error_hessian_product", weights, reduction, v=v, a=a, y=y)
    # A copy, which may be scaled in place.
    return cast_output(reducer.scaled(ready[0] * 1.0), a.dtype)


def _check(a: Array, y: Array, /, *, weights: Array | None, reduction: Reduction) -> CheckedLoss:
    """Check the arguments of `squared_error`."""
    return check_loss("squared_error", _formula, a, y, weights, reduction)


def _formula(_: Namespace, a: Array, y: Array, reducer: Reducer, /) -> tuple[Array, Array]:
    """Return the reduced loss and its gradient."""
    da = a - y
    # Halved before it is squared, so that it overflows only where the loss does.
    return reducer.reduced(da * 0.5, da)


SQUARED_ERROR = Pair(
    "squared_error",
    squared_error,
    None,
    inputs={"a": (4, 3), "y": [[3, 0, 5], [0, 4, 0], [6, 0, 7], [0, 0, 3]]},
    needs=("a", "y"),
    hessian_product=squared_error_hessian_product,
    check=_check,
    real=True,
)
