"""Huber's loss: squared for small errors, linear for large ones."""

import math

from pullback._core.arguments import float_option
from pullback._core.memory import add, multiply, subtract
from pullback._core.pair import Pair
from pullback._core.stable import clipped
from pullback._core.tracing import record
from pullback._core.typing import Array, ArrayT, Namespace
from pullback._ops.losses.reduction import CheckedLoss, Loss, Reducer, Reduction, check_loss, read_outputs


def huber(
    a: ArrayT, y: Array, /, *, delta: float = 1.0, weights: Array | None = None, reduction: Reduction = "mean"
) -> Loss[ArrayT]:
    """Compute Huber's loss and its gradient, for targets of any size.

    The loss is half the squared error up to an error of `delta`, and linear above.

    Parameters
    ----------
    a : Array, shape (..., n) or (m,)
        Outputs, real: n for each example, with any number of leading batch axes. A vector is a batch of m examples with
        one output each.
    y : Array, shape (..., n) or (m,)
        Targets, of the shape of `a`, ``y[:, None]`` for outputs of shape (m, 1): any numbers, floating or integer.
        Booleans count as 0 and 1.
    delta : float, default 1.0
        Error above which the loss is linear: above 0, infinity for half the squared error. A number that is known
        during the call, not a traced or lazy array.
    weights : Array, shape (...) or (..., n), optional
        A weight for each example or for each output, as in `squared_error`. One of weight 0 is absent, also where its
        label is NaN.
    reduction : {"mean", "sum", "none"}, default "mean"
        Reduction over the examples, as in `squared_error`.

    Returns
    -------
    Loss
        ``(value, da)``, with dtypes as in `squared_error`.

    Raises
    ------
    TypeError, ValueError
        As `squared_error` does; TypeError also if `delta` is no number that is known during the call, and ValueError
        if it is not above 0.

    See Also
    --------
    huber_hessian_product : Its curvature.
    squared_error : The limit for a large `delta`.

    Notes
    -----
    With ``r = a - y`` and ``c = clip(r, -delta, delta)``, an example's loss is ``Σ_j c_j (r_j - c_j / 2)``, which is
    ``½ r²`` or ``delta (|r| - ½ delta)`` for an output [1]_, and its gradient ``c``. PyTorch's ``huber_loss`` and
    scikit-learn's ``HuberLoss`` have the same scale.

    References
    ----------
    .. [1] P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import huber
    >>> value, da = huber(np.asarray([[0.5], [4.0]]), np.zeros((2, 1)), reduction="none")
    >>> value
    array([0.125, 3.5  ])
    >>> da
    array([[0.5],
           [1. ]])
    """
    recorded = record(HUBER, (a, y), weights=weights, reduction=reduction, delta=delta)
    if recorded is not None:
        return recorded
    return _check(a, y, delta=delta, weights=weights, reduction=reduction).loss(a.dtype)


def huber_hessian_product(  # noqa: PLR0913 - the options of the loss
    v: ArrayT,
    a: ArrayT,
    y: Array,
    /,
    *,
    delta: float = 1.0,
    weights: Array | None = None,
    reduction: Reduction = "mean",
) -> ArrayT:
    """Compute the product of the Hessian of `huber` with a vector: 1 for an error of up to `delta`, 0 for a larger one.

    Parameters
    ----------
    v : Array, shape (..., n) or (m,)
        Vector of the shape of `a`, usually a tangent of the outputs.
    a : Array, shape (..., n) or (m,)
        Outputs of `huber`.
    y : Array, shape (..., n) or (m,)
        Targets of `huber`.
    delta : float, default 1.0
        Error above which the loss is linear, as in `huber`.
    weights : Array, shape (...) or (..., n), optional
        Weights of `huber`, as in `squared_error_hessian_product`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `squared_error_hessian_product`.

    Returns
    -------
    Array, shape (..., n) or (m,)
        ``H v``, in the dtype and on the device of `a`.

    Raises
    ------
    TypeError, ValueError
        As `squared_error_hessian_product` and, for `delta`, `huber` do.

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
    delta = _delta("huber_hessian_product", delta)
    xp, cast_output, reducer, ready = read_outputs("huber_hessian_product", weights, reduction, v=v, a=a, y=y)
    dtype = a.dtype
    v, a, y = ready
    size = xp.abs(a - y)
    # 1 for a small error, 0 for a large one, and NaN where the error is.
    curvature = add(xp.astype(size <= delta, v.dtype), clipped(xp, size, None, 0.0))
    return cast_output(reducer.scaled(multiply(curvature, v)), dtype)


def _check(a: Array, y: Array, /, *, delta: float, weights: Array | None, reduction: Reduction) -> CheckedLoss:
    """Check the arguments of `huber`."""
    return check_loss("huber", _formula, a, y, weights, reduction, _delta("huber", delta))


def _formula(xp: Namespace, a: Array, y: Array, reducer: Reducer, delta: float, /) -> tuple[Array, Array]:
    """Return the reduced loss and its gradient."""
    error = a - y
    da = clipped(xp, error, -delta, delta)
    # ½ delta less, where the loss is linear.
    error = subtract(error, da * 0.5)
    return reducer.reduced(error, da)


def _delta(function: str, delta: float, /) -> float:
    """Return the error from which on Huber's loss is linear; infinity makes it the squared error."""
    return float_option(function, "delta", delta, above=0.0, most=math.inf)


# The targets leave errors on both sides of the kink, none on it.
HUBER = Pair(
    "huber",
    huber,
    None,
    inputs={"a": (4, 3), "y": [[3, 0, 5], [0, 4, 0], [6, 0, 7], [0, 0, 3]]},
    needs=("a", "y"),
    hessian_product=huber_hessian_product,
    check=_check,
    real=True,
)
