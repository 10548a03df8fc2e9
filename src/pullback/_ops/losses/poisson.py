"""Poisson loss: the negative log likelihood of counts, given the logarithms of their rates."""

from pullback._core.memory import multiply, subtract
from pullback._core.pair import Pair
from pullback._core.stable import may_be_infinite, without_infinities
from pullback._core.tracing import record
from pullback._core.typing import Array, ArrayT, Namespace
from pullback._ops.losses.reduction import CheckedLoss, Loss, Reducer, Reduction, check_loss, read_outputs


def poisson(a: ArrayT, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean") -> Loss[ArrayT]:
    """Compute the Poisson loss of rates ``exp(a)`` and its gradient, for counts of at least 0.

    Parameters
    ----------
    a : Array, shape (..., n) or (m,)
        Logarithms of the rates, real: n for each example, with any number of leading batch axes. A vector is a batch of
        m examples with one rate each.
    y : Array, shape (..., n) or (m,)
        Counts, of the shape of `a`, ``y[:, None]`` for outputs of shape (m, 1), or other numbers of at least 0,
        floating or integer. Booleans count as 0 and 1. Their values are not checked.
    weights : Array, shape (...) or (..., n), optional
        A weight for each example or for each output, as in `squared_error`. One of weight 0 is absent, also where its
        label is NaN.
    reduction : {"mean", "sum", "none"}, default "mean"
        Reduction over the examples, as in `squared_error`.

    Returns
    -------
    Loss
        ``(value, da)``, with dtypes as in `squared_error`. Both are infinite where ``exp(a)`` is. The loss is 0 for a
        rate of 0, that is a logarithm of -inf, and a count of 0.

    Raises
    ------
    TypeError, ValueError
        As `squared_error` does.

    See Also
    --------
    poisson_hessian_product : Its curvature.

    Notes
    -----
    An example's loss is ``Σ_j exp(a_j) - y_j a_j``, the negative log likelihood without the term ``log(y_j!)``, which
    is the same for all `a`, and its gradient ``exp(a) - y`` [1]_. scikit-learn's ``HalfPoissonLoss`` and PyTorch's
    ``poisson_nll_loss`` are the same. The error of the gradient is small relative to ``exp(a) + y``, that of the loss
    relative to ``exp(a) + y |a|``.

    References
    ----------
    .. [1] P. McCullagh and J. A. Nelder, "Generalized Linear Models", 1989, chapter 6.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import poisson
    >>> value, da = poisson(np.asarray([[0.0], [np.log(2.0)]]), np.asarray([[0], [3]]), reduction="sum")
    >>> round(float(value), 6)
    0.920558
    >>> da
    array([[ 1.],
           [-1.]])
    """
    recorded = record(POISSON, (a, y), weights=weights, reduction=reduction)
    if recorded is not None:
        return recorded
    return _check(a, y, weights=weights, reduction=reduction).loss(a.dtype)


def poisson_hessian_product(
    v: ArrayT, a: ArrayT, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> ArrayT:
    """Compute the product of the Hessian of `poisson` with a vector: ``exp(a) v``.

    Parameters
    ----------
    v : Array, shape (..., n) or (m,)
        Vector of the shape of `a`, usually a tangent of the logarithms of the rates.
    a : Array, shape (..., n) or (m,)
        Logarithms of the rates of `poisson`.
    y : Array, shape (..., n) or (m,)
        Counts of `poisson`.
    weights : Array, shape (...) or (..., n), optional
        Weights of `poisson`, as in `squared_error_hessian_product`.
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
    poisson : The loss.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import poisson_hessian_product
    >>> poisson_hessian_product(np.asarray([[3.0]]), np.asarray([[0.0]]), np.asarray([[2]]))
    array([[3.]])
    """
    xp, cast_output, reducer, ready = read_outputs("poisson_hessian_product", weights, reduction, v=v, a=a, y=y)
    dtype = a.dtype
    v, a, _ = ready
    # √exp(a) is in range where exp(a), without v, is not.
    root = xp.exp(a * 0.5)
    if may_be_infinite(xp, root):
        root = without_infinities(xp, root, xp.equal(v, 0))
    out = multiply(v * root, root)
    return cast_output(reducer.scaled(out), dtype)


def _check(a: Array, y: Array, /, *, weights: Array | None, reduction: Reduction) -> CheckedLoss:
    """Check the arguments of `poisson`."""
    return check_loss("poisson", _formula, a, y, weights, reduction)


def _formula(xp: Namespace, a: Array, y: Array, reducer: Reducer, /) -> tuple[Array, Array]:
    """Return the reduced loss and its gradient."""
    infinite = may_be_infinite(xp, a)
    rate = xp.exp(a)
    if infinite:
        # An infinite rate outweighs any count, and a rate of 0 fits a count of 0.
        a = without_infinities(xp, a, y <= rate)
    losses = subtract(a * y, rate)
    return 0.0 - reducer.total_of_outputs(losses), reducer.scaled(subtract(rate, y))


POISSON = Pair(
    "poisson",
    poisson,
    None,
    inputs={"a": (4, 3), "y": [[3, 0, 5], [0, 4, 0], [6, 0, 7], [0, 0, 3]]},
    needs=("a", "y"),
    hessian_product=poisson_hessian_product,
    check=_check,
    real=True,
)
