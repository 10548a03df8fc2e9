"""Huber's loss: squared for small errors, linear for large ones."""

import math

from pullback._core.arguments import float_option
from pullback._core.memory import subtract
from pullback._core.pair import Pair
from pullback._core.reductions import dot_last
from pullback._core.stable import clipped
from pullback._core.tracing import record
from pullback._core.typing import Array
from pullback._ops.losses.reduction import Loss, Reduction, read_outputs


def huber(
    a: Array, y: Array, /, *, delta: float = 1.0, weights: Array | None = None, reduction: Reduction = "mean"
) -> Loss:
    """Huber's loss of `a` for the targets `y`: squared up to an error of `delta`, linear above; and its gradient.

    Parameters
    ----------
    a : Array, shape (..., n)
        Outputs, real: any number of leading batch axes, as in `squared_error`.
    y : Array, shape (..., n)
        Targets, floating or integers.
    delta : float, default 1.0
        The error, above 0, from which on the loss is linear.
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
        As `squared_error` does; ValueError also if `delta` is not above 0.

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
    delta = _delta("huber", delta)
    xp, cast_output, reducer, ready = read_outputs("huber", weights, reduction, a=a, y=y)
    dtype = a.dtype
    a, y = ready
    error = a - y
    da = clipped(xp, error, -delta, delta)
    # ½ delta less, where the loss is linear.
    error = subtract(error, da * 0.5)
    value = reducer.total(dot_last(xp, da, error))
    return Loss(cast_output(value), cast_output(reducer.scaled(da), dtype))


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
    delta = _delta("huber_hessian_product", delta)
    xp, cast_output, reducer, ready = read_outputs("huber_hessian_product", weights, reduction, v=v, a=a, y=y)
    dtype = a.dtype
    v, a, y = ready
    size = xp.abs(a - y)
    # 0, or NaN where the error is.
    linear = xp.minimum(size, 0.0)
    return cast_output(reducer.scaled(xp.where(size <= delta, v, linear)), dtype)


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
    real=True,
)
