"""Losses of each output by itself, added up over an example's outputs; each with its upstream gradient, in one call."""

from pullback._losses import Loss, Reduction, check_delta, read_outputs, reduced
from pullback._stable import clipped, decay, is_positive
from pullback._sums import dot_last, sum_last
from pullback._typing import Array


def squared_error(a: Array, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean") -> Loss:
    """Half the squared distance of `a` from the targets `y`, and its gradient.

    Parameters
    ----------
    a : Array, shape (..., n)
        Outputs, real: any number of leading batch axes. A vector is a single example: the outputs of a model with one
        for each example have the shape (m, 1).
    y : Array, shape (..., n)
        Targets, floating or integers.
    weights : Array, shape (...), optional
        A weight for each example, floating or integer. One of weight 0 does not count, even where it is not finite.
    reduction : {"mean", "sum", "none"}, default "mean"
        Over the examples, not over their outputs, which are always added up. The mean with weights is
        ``Σ weights loss / Σ weights``; over no examples, or with no weight, it is NaN.

    Returns
    -------
    Loss
        ``(value, da)``, in the namespace and on the device of the inputs; `value` in the promoted dtype of their
        floating ones, `da` in the dtype of `a`. Dtypes narrower than float32 are computed in float32.

    Raises
    ------
    TypeError
        If an argument is not an array or comes from another library than the others, `a` has no real floating dtype,
        or `y` or `weights` neither that nor an integer one.
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
    xp, like, ready = read_outputs("squared_error", weights, reduction, a=a, y=y)
    dtype = a.dtype
    a, y, weights = ready
    da = a - y
    value, da = reduced(xp, dot_last(xp, da, da), da, weights, reduction)
    return Loss(like(value * 0.5), like(da, dtype))


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
    xp, like, ready = read_outputs("huber", weights, reduction, a=a, y=y)
    check_delta("huber", delta)
    dtype = a.dtype
    a, y, weights = ready
    error = a - y
    da = clipped(xp, error, -delta, delta)
    error -= da * 0.5
    value, da = reduced(xp, dot_last(xp, da, error), da, weights, reduction)
    return Loss(like(value), like(da, dtype))


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
    xp, like, ready = read_outputs("logistic", weights, reduction, a=a, y=y)
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
    return Loss(like(value), like(da, dtype))


def poisson(a: Array, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean") -> Loss:
    """Poisson loss of the rates ``exp(a)`` for the counts `y`, and its gradient.

    Parameters
    ----------
    a : Array, shape (..., n)
        Logarithms of the rates, real: any number of leading batch axes, as in `squared_error`.
    y : Array, shape (..., n)
        Counts, or other numbers of at least 0, floating or integers.
    weights : Array, shape (...), optional
        A weight for each example, as in `squared_error`.
    reduction : {"mean", "sum", "none"}, default "mean"
        Over the examples, as in `squared_error`.

    Returns
    -------
    Loss
        ``(value, da)``, with dtypes as in `squared_error`. Both are infinite where ``exp(a)`` is.

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
    is the same for all `a`, and its gradient ``exp(a) - y`` [1]_. So are scikit-learn's ``HalfPoissonLoss`` and
    PyTorch's ``poisson_nll_loss``.

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
    xp, like, ready = read_outputs("poisson", weights, reduction, a=a, y=y)
    dtype = a.dtype
    a, y, weights = ready
    da = xp.exp(a)
    losses = y * a
    losses -= da
    value = -sum_last(xp, losses)
    da -= y
    value, da = reduced(xp, value, da, weights, reduction)
    return Loss(like(value), like(da, dtype))
