"""Tweedie's losses of positive targets, given the logarithms of their means; the gamma loss is that of power 2."""

from pullback._core.arguments import float_option
from pullback._core.memory import multiply, subtract
from pullback._core.pair import Pair
from pullback._core.stable import may_be_infinite
from pullback._core.tracing import record
from pullback._core.typing import Array, ArrayT, Namespace
from pullback._ops.losses.reduction import CheckedLoss, Loss, Reducer, Reduction, check_loss, read_outputs

_GAMMA = 2.0


def gamma(a: ArrayT, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean") -> Loss[ArrayT]:
    """Compute the gamma loss of means ``exp(a)`` and its gradient, for targets above 0.

    Parameters
    ----------
    a : Array, shape (..., n) or (m,)
        Logarithms of the means, real: n for each example, with any number of leading batch axes. A vector is a batch of
        m examples with one output each.
    y : Array, shape (..., n) or (m,)
        Targets, of the shape of `a`, ``y[:, None]`` for outputs of shape (m, 1): numbers above 0, floating or integer.
        Their values are not checked.
    weights : Array, shape (...) or (..., n), optional
        A weight for each example or for each output, as in `squared_error`. One of weight 0 is absent, also where its
        label is NaN.
    reduction : {"mean", "sum", "none"}, default "mean"
        Reduction over the examples, as in `squared_error`.

    Returns
    -------
    Loss
        ``(value, da)``, with dtypes as in `squared_error`. Both are infinite where ``y exp(-a)`` is.

    Raises
    ------
    TypeError, ValueError
        As `squared_error` does.

    See Also
    --------
    gamma_hessian_product : Its curvature.
    tweedie : The losses of other powers.

    Notes
    -----
    An example's loss is ``Σ_j a_j + y_j exp(-a_j)``, the negative log likelihood of a gamma distribution without the
    terms that are the same for all `a`, and its gradient ``1 - y exp(-a)`` [1]_. scikit-learn's ``HalfGammaLoss`` is
    the same. The error of the gradient is small relative to ``1 + y exp(-a)``.

    References
    ----------
    .. [1] P. McCullagh and J. A. Nelder, "Generalized Linear Models", 1989, chapter 8.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import gamma
    >>> value, da = gamma(np.asarray([0.0, np.log(2.0)]), np.asarray([3.0, 2.0]), reduction="none")
    >>> value
    array([3.        , 1.69314718])
    >>> da
    array([-2.,  0.])
    """
    recorded = record(GAMMA, (a, y), weights=weights, reduction=reduction)
    if recorded is not None:
        return recorded
    return _check_gamma(a, y, weights=weights, reduction=reduction).loss(a.dtype)


def gamma_hessian_product(
    v: ArrayT, a: ArrayT, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> ArrayT:
    """Compute the product of the Hessian of `gamma` with a vector: ``y exp(-a) v``.

    Parameters
    ----------
    v : Array, shape (..., n) or (m,)
        Vector of the shape of `a`, usually a tangent of the logarithms of the means.
    a : Array, shape (..., n) or (m,)
        Logarithms of the means of `gamma`.
    y : Array, shape (..., n) or (m,)
        Targets of `gamma`.
    weights : Array, shape (...) or (..., n), optional
        Weights of `gamma`, as in `squared_error_hessian_product`.
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
    gamma : The loss.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import gamma_hessian_product
    >>> gamma_hessian_product(np.asarray([3.0]), np.asarray([0.0]), np.asarray([2.0]))
    array([6.])
    """
    return _product("gamma_hessian_product", _GAMMA, v, a, y, weights, reduction)


def tweedie(
    a: ArrayT, y: Array, /, *, power: float = 1.5, weights: Array | None = None, reduction: Reduction = "mean"
) -> Loss[ArrayT]:
    """Compute Tweedie's loss of means ``exp(a)`` and its gradient, for targets whose variance is a power of their mean.

    Parameters
    ----------
    a : Array, shape (..., n) or (m,)
        Logarithms of the means, real: n for each example, with any number of leading batch axes. A vector is a batch of
        m examples with one output each.
    y : Array, shape (..., n) or (m,)
        Targets, of the shape of `a`, ``y[:, None]`` for outputs of shape (m, 1): numbers of at least 0, or above 0 for
        a power of 2 and more, floating or integer. Their values are not checked.
    power : float, default 1.5
        Power p of the mean that the variance is proportional to, at least 1: 1 is the loss of `poisson`, 2 that of
        `gamma`, and 3 that of the inverse Gaussian distribution. A number that is known during the call.
    weights : Array, shape (...) or (..., n), optional
        A weight for each example or for each output, as in `squared_error`. One of weight 0 is absent, also where its
        label is NaN.
    reduction : {"mean", "sum", "none"}, default "mean"
        Reduction over the examples, as in `squared_error`.

    Returns
    -------
    Loss
        ``(value, da)``, with dtypes as in `squared_error`. Both are infinite where an exponential is.

    Raises
    ------
    TypeError, ValueError
        As `squared_error` does; TypeError also if `power` is no number that is known during the call, and ValueError
        if it is below 1.

    See Also
    --------
    tweedie_hessian_product : Its curvature.

    Notes
    -----
    An example's loss is ``Σ_j exp((2 - p) a_j) / (2 - p) - y_j exp((1 - p) a_j) / (1 - p)``, with `a` itself in place
    of a quotient of 0, and its gradient ``exp((2 - p) a) - y exp((1 - p) a)`` [1]_: half the deviance without the terms
    that are the same for all `a`. scikit-learn's ``HalfTweedieLoss`` is the same.

    Rounding ``(2 - p) a`` and ``(1 - p) a`` gives the exponentials a relative error of up to half of their exponent, in
    units of rounding.

    References
    ----------
    .. [1] B. Jørgensen, "The Theory of Dispersion Models", 1997, chapter 4.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import tweedie
    >>> value, da = tweedie(np.asarray([0.0, np.log(4.0)]), np.asarray([3.0, 0.0]), reduction="none")
    >>> value
    array([8., 4.])
    >>> da
    array([-2.,  2.])
    """
    recorded = record(TWEEDIE, (a, y), weights=weights, reduction=reduction, power=power)
    if recorded is not None:
        return recorded
    return _check_tweedie(a, y, power=power, weights=weights, reduction=reduction).loss(a.dtype)


def tweedie_hessian_product(  # noqa: PLR0913 - the options of the loss
    v: ArrayT,
    a: ArrayT,
    y: Array,
    /,
    *,
    power: float = 1.5,
    weights: Array | None = None,
    reduction: Reduction = "mean",
) -> ArrayT:
    """Compute the product of the Hessian of `tweedie` with a vector.

    Parameters
    ----------
    v : Array, shape (..., n) or (m,)
        Vector of the shape of `a`, usually a tangent of the logarithms of the means.
    a : Array, shape (..., n) or (m,)
        Logarithms of the means of `tweedie`.
    y : Array, shape (..., n) or (m,)
        Targets of `tweedie`.
    power : float, default 1.5
        Power of `tweedie`.
    weights : Array, shape (...) or (..., n), optional
        Weights of `tweedie`, as in `squared_error_hessian_product`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `squared_error_hessian_product`.

    Returns
    -------
    Array, shape (..., n) or (m,)
        ``H v``, in the dtype and on the device of `a`.

    Raises
    ------
    TypeError, ValueError
        As `squared_error_hessian_product` and, for `power`, `tweedie` do.

    See Also
    --------
    tweedie : The loss.

    Notes
    -----
    An output's product is ``((2 - p) exp((2 - p) a) + (p - 1) y exp((1 - p) a)) v``. For a power above 2, it may be
    negative: the loss is not convex.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import tweedie_hessian_product
    >>> tweedie_hessian_product(np.asarray([1.0]), np.asarray([0.0]), np.asarray([3.0]))
    array([2.])
    """
    power = _power("tweedie_hessian_product", power)
    return _product("tweedie_hessian_product", power, v, a, y, weights, reduction)


def _check_gamma(a: Array, y: Array, /, *, weights: Array | None, reduction: Reduction) -> CheckedLoss:
    """Check the arguments of `gamma`."""
    return check_loss("gamma", _formula, a, y, weights, reduction, _GAMMA)


def _check_tweedie(a: Array, y: Array, /, *, power: float, weights: Array | None, reduction: Reduction) -> CheckedLoss:
    """Check the arguments of `tweedie`."""
    return check_loss("tweedie", _formula, a, y, weights, reduction, _power("tweedie", power))


def _formula(xp: Namespace, a: Array, y: Array, reducer: Reducer, power: float, /) -> tuple[Array, Array]:
    """Return the reduced loss of a power and its gradient."""
    up, down, linear = _exponentials(xp, power, a, y)
    losses = linear if power == _GAMMA else up / (2 - power)
    losses = losses - y * (linear if power == 1 else down / (1 - power))
    return reducer.total_of_outputs(losses), reducer.scaled(subtract(up, y * down))


def _product(  # noqa: PLR0913, PLR0917 - the arguments of the product
    function: str, power: float, v: ArrayT, a: ArrayT, y: Array, weights: Array | None, reduction: Reduction, /
) -> ArrayT:
    """Return the Hessian product of a power."""
    xp, cast_output, reducer, ready = read_outputs(function, weights, reduction, v=v, a=a, y=y)
    dtype = a.dtype
    v, a, y = ready
    # Roots of the exponentials are in range where those, without v, are not.
    up, down, _ = _exponentials(xp, power, a * 0.5, y)
    out = multiply(multiply(v * (2 - power), up), up) + multiply(multiply(multiply(v * (power - 1), y), down), down)
    return cast_output(reducer.scaled(out), dtype)


def _exponentials(xp: Namespace, power: float, a: Array, y: Array, /) -> tuple[Array, Array, Array]:
    """Return ``exp((2 - p) a)``, ``exp((1 - p) a)`` and `a`, finite where they do not count in the loss."""
    up, down = (xp.exp(a * rate) if rate else xp.ones_like(a) for rate in (2 - power, 1 - power))
    if may_be_infinite(xp, up) or may_be_infinite(xp, down) or may_be_infinite(xp, a):
        # The exponents are replaced, not the exponentials: autodiff would multiply those by a derivative of 0.
        ends = xp.equal(y, 0) if power > 1 else y <= up
        if power == 1:
            a = xp.where(xp.logical_and(xp.isinf(a), ends), 0.0, a)
        else:
            down = xp.exp(xp.where(ends, 0.0, a * (1 - power)))
        if power >= _GAMMA:
            a = xp.where(xp.isinf(down), 0.0, a)
        if power > _GAMMA:
            up = xp.exp(a * (2 - power))
    return up, down, a


def _power(function: str, power: float, /) -> float:
    """Return the power of the mean that the variance is proportional to."""
    return float_option(function, "power", power, least=1.0)


GAMMA = Pair(
    "gamma",
    gamma,
    None,
    inputs={"a": (4, 3), "y": [[3, 1, 5], [2, 4, 1], [6, 2, 7], [1, 1, 3]]},
    needs=("a", "y"),
    hessian_product=gamma_hessian_product,
    check=_check_gamma,
    real=True,
)
TWEEDIE = Pair(
    "tweedie",
    tweedie,
    None,
    inputs={"a": (4, 3), "y": [[3, 0, 5], [0, 4, 0], [6, 0, 7], [0, 0, 3]]},
    needs=("a", "y"),
    hessian_product=tweedie_hessian_product,
    check=_check_tweedie,
    real=True,
)
