"""Absolute errors: alike on both sides, and the quantile loss, whose sides differ."""

from typing import Any

from pullback._core.arguments import float_option
from pullback._core.memory import multiply, subtract
from pullback._core.pair import Pair
from pullback._core.stable import is_positive, step
from pullback._core.tracing import record
from pullback._core.typing import Array, ArrayT, Namespace
from pullback._ops.losses.reduction import CheckedLoss, Loss, Reducer, Reduction, check_loss, read_outputs


def absolute_error(
    a: ArrayT, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> Loss[ArrayT]:
    """Compute the absolute error and its gradient, for targets of any size.

    Parameters
    ----------
    a : Array, shape (..., n) or (m,)
        Outputs, real: n for each example, with any number of leading batch axes. A vector is a batch of m examples with
        one output each.
    y : Array, shape (..., n) or (m,)
        Targets, of the shape of `a`, ``y[:, None]`` for outputs of shape (m, 1): any numbers, floating or integer.
        Booleans count as 0 and 1.
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
        As `squared_error` does.

    See Also
    --------
    quantile : The quantile loss; half the absolute error for the median.
    huber : A loss that is smooth for small errors.

    Notes
    -----
    An example's loss is ``Σ_j |a_j - y_j|`` and its gradient ``sign(a - y)``, with 0 for an error of 0. It is
    scikit-learn's ``AbsoluteError``, whose gradient for an error of 0 is -1, and PyTorch's ``l1_loss``, whose mean runs
    over all outputs. Its least mean is at the median of the targets. Its Hessian is 0, so that Newton's method does not
    apply.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import absolute_error
    >>> value, da = absolute_error(np.asarray([1.0, 2.0, 3.0]), np.asarray([3.0, 2.0, 2.5]), reduction="sum")
    >>> float(value)
    2.5
    >>> da
    array([-1.,  0.,  1.])
    """
    recorded = record(ABSOLUTE_ERROR, (a, y), weights=weights, reduction=reduction)
    if recorded is not None:
        return recorded
    return _check_absolute_error(a, y, weights=weights, reduction=reduction).loss(a.dtype)


def quantile(
    a: ArrayT, y: Array, /, *, q: float = 0.5, weights: Array | None = None, reduction: Reduction = "mean"
) -> Loss[ArrayT]:
    """Compute the quantile loss (pinball loss) and its gradient, for targets of any size.

    Parameters
    ----------
    a : Array, shape (..., n) or (m,)
        Outputs, real: n for each example, with any number of leading batch axes. A vector is a batch of m examples with
        one output each.
    y : Array, shape (..., n) or (m,)
        Targets, of the shape of `a`, ``y[:, None]`` for outputs of shape (m, 1): any numbers, floating or integer.
        Booleans count as 0 and 1.
    q : float, default 0.5
        Share of the targets that should lie below the outputs: above 0 and below 1. A number that is known during the
        call.
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
        As `squared_error` does; TypeError also if `q` is no number that is known during the call, and ValueError if it
        is not between 0 and 1.

    See Also
    --------
    absolute_error : Twice the loss of the median.

    Notes
    -----
    With the error ``r = a - y``, an output's loss is ``(1 - q) r`` for ``r > 0`` and ``-q r`` for ``r < 0``, and its
    gradient ``1 - q`` or ``-q``, with 0 for an error of 0 [1]_. It is scikit-learn's ``PinballLoss`` and
    ``mean_pinball_loss``. Its least mean is at the q-quantile of the targets. Its Hessian is 0, so that Newton's method
    does not apply.

    References
    ----------
    .. [1] R. Koenker and G. Bassett, "Regression quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import quantile
    >>> value, da = quantile(np.asarray([1.0, 2.0]), np.asarray([3.0, 0.0]), q=0.75, reduction="none")
    >>> value
    array([1.5, 0.5])
    >>> da
    array([-0.75,  0.25])
    """
    recorded = record(QUANTILE, (a, y), weights=weights, reduction=reduction, q=q)
    if recorded is not None:
        return recorded
    return _check_quantile(a, y, q=q, weights=weights, reduction=reduction).loss(a.dtype)


def absolute_error_hessian_product(
    v: ArrayT, a: ArrayT, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> ArrayT:
    """Compute the product of the Hessian of `absolute_error` with a vector, which is 0.

    Parameters
    ----------
    v : Array, shape (..., n) or (m,)
        Vector of the shape of `a`, usually a tangent of the outputs.
    a : Array, shape (..., n) or (m,)
        Outputs of `absolute_error`.
    y : Array, shape (..., n) or (m,)
        Targets of `absolute_error`.
    weights : Array, shape (...) or (..., n), optional
        Weights of `absolute_error`, as in `squared_error_hessian_product`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `squared_error_hessian_product`.

    Returns
    -------
    Array, shape (..., n) or (m,)
        ``H v``, zeros in the dtype and on the device of `a`: the gradient is constant on either side of an error of 0.

    Raises
    ------
    TypeError, ValueError
        As `squared_error_hessian_product` does.

    See Also
    --------
    absolute_error : The loss.

    Notes
    -----
    scikit-learn has ones in place of this Hessian, so that its Newton solvers take a step. Newton's method with this
    product does not.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import absolute_error_hessian_product
    >>> absolute_error_hessian_product(np.asarray([3.0]), np.asarray([1.0]), np.asarray([2.0]))
    array([0.])
    """
    return _product("absolute_error_hessian_product", v, a, y, weights, reduction)


def quantile_hessian_product(  # noqa: PLR0913 - the options of the loss
    v: ArrayT, a: ArrayT, y: Array, /, *, q: float = 0.5, weights: Array | None = None, reduction: Reduction = "mean"
) -> ArrayT:
    """Compute the product of the Hessian of `quantile` with a vector, which is 0.

    Parameters
    ----------
    v : Array, shape (..., n) or (m,)
        Vector of the shape of `a`, usually a tangent of the outputs.
    a : Array, shape (..., n) or (m,)
        Outputs of `quantile`.
    y : Array, shape (..., n) or (m,)
        Targets of `quantile`.
    q : float, default 0.5
        Share of `quantile`.
    weights : Array, shape (...) or (..., n), optional
        Weights of `quantile`, as in `squared_error_hessian_product`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `squared_error_hessian_product`.

    Returns
    -------
    Array, shape (..., n) or (m,)
        ``H v``, zeros in the dtype and on the device of `a`: the gradient is constant on either side of an error of 0.

    Raises
    ------
    TypeError, ValueError
        As `squared_error_hessian_product` and, for `q`, `quantile` do.

    See Also
    --------
    quantile : The loss.

    Notes
    -----
    scikit-learn has ones in place of this Hessian, so that its Newton solvers take a step. Newton's method with this
    product does not.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import quantile_hessian_product
    >>> quantile_hessian_product(np.asarray([3.0]), np.asarray([1.0]), np.asarray([2.0]))
    array([0.])
    """
    _share("quantile_hessian_product", q)
    return _product("quantile_hessian_product", v, a, y, weights, reduction)


def _product(  # noqa: PLR0913, PLR0917 - the arguments of the product
    function: str, v: ArrayT, a: ArrayT, y: Array, weights: Array | None, reduction: Reduction, /
) -> ArrayT:
    """Return 0 for each output, NaN where it has no value."""
    _, cast_output, reducer, ready = read_outputs(function, weights, reduction, v=v, a=a, y=y)
    return cast_output(reducer.scaled(ready[0] * 0), a.dtype)


def _check_absolute_error(a: Array, y: Array, /, *, weights: Array | None, reduction: Reduction) -> CheckedLoss:
    """Check the arguments of `absolute_error`."""
    return check_loss("absolute_error", _formula, a, y, weights, reduction, 1.0, 1.0)


def _check_quantile(a: Array, y: Array, /, *, q: float, weights: Array | None, reduction: Reduction) -> CheckedLoss:
    """Check the arguments of `quantile`."""
    q = _share("quantile", q)
    return check_loss("quantile", _formula, a, y, weights, reduction, 1.0 - q, q)


def _formula(  # noqa: PLR0913, PLR0917 - the options of the loss
    xp: Namespace, a: Array, y: Array, reducer: Reducer, above: float, below: float, /
) -> tuple[Array, Array]:
    """Return the reduced absolute errors, times a factor above and one below the targets, and their gradient."""
    error = a - y
    # A constant to autodiff.
    da = subtract(multiply(step(xp, error), above), multiply(is_positive(xp, -error), below))
    return reducer.reduced(error, da)


def _share(function: str, q: float, /) -> float:
    """Return the share of the targets that should lie below the outputs."""
    return float_option(function, "q", q, above=0.0, below=1.0)


# The targets leave errors on both sides of the kink, none on it.
_INPUTS: dict[str, Any] = {"a": (4, 3), "y": [[3, 0, 5], [0, 4, 0], [6, 0, 7], [0, 0, 3]]}
ABSOLUTE_ERROR = Pair(
    "absolute_error",
    absolute_error,
    None,
    inputs=_INPUTS,
    needs=("a", "y"),
    hessian_product=absolute_error_hessian_product,
    check=_check_absolute_error,
    real=True,
)
QUANTILE = Pair(
    "quantile",
    quantile,
    None,
    inputs=_INPUTS,
    needs=("a", "y"),
    hessian_product=quantile_hessian_product,
    check=_check_quantile,
    real=True,
)
