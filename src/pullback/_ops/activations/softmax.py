"""The softmax and its logarithm over the last axis, each with its backward."""

from pullback._core.arguments import shapes, validate_real_arrays
from pullback._core.memory import multiply, subtract
from pullback._core.pair import Pair
from pullback._core.reductions import dot_last, sum_last
from pullback._core.stable import log_softmax, softmax
from pullback._core.tracing import recorders
from pullback._core.typing import Array, ArrayT


def softmax_forward(a: ArrayT, /) -> ArrayT:
    """Compute the softmax over the last axis, ``h = exp(a) / Σ_j exp(a_j)``.

    Parameters
    ----------
    a : Array, shape (..., n)
        Logits, real: any number of leading batch axes, one entry for each of the n classes.

    Returns
    -------
    Array
        The output `h`, of the shape, dtype and device of `a`. Dtypes narrower than float32 are computed in float32 and
        returned narrow.

    Raises
    ------
    TypeError
        If `a` is not an array or has no real floating dtype.
    ValueError
        If `a` has no last axis of at least one class.

    See Also
    --------
    softmax_backward : Its gradient. It takes the output.

    Notes
    -----
    The exponentials are those of ``a - max(a)``, which do not overflow where the dtype can hold the differences of the
    logits. Rounding the difference gives a relative error of up to half of it, in units of rounding. A logit of -inf
    has probability 0; logits of inf share the probability 1. A row of -inf alone gives NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import softmax_forward
    >>> softmax_forward(np.asarray([0.0, np.log(3.0)]))
    array([0.25, 0.75])
    """
    if type(a) in recorders:
        return recorders[type(a)](SOFTMAX, (a,))
    xp, cast_output, ready = validate_real_arrays("softmax_forward", ("a",), a)
    _check_axis("softmax_forward", a=a)
    (a,) = ready
    return cast_output(softmax(xp, a))


def softmax_backward(dh: ArrayT, h: ArrayT, /) -> ArrayT:
    """Compute the gradient of `softmax_forward`, ``da = h (dh - Σ_j dh_j h_j)``.

    Parameters
    ----------
    dh : Array, shape (..., n)
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    h : Array, shape (..., n)
        Output of the forward, from which the gradient needs no exponential.

    Returns
    -------
    Array
        ``da = ∂L/∂a``, of the shape, dtype and device of `h`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no real floating dtype, or comes from another library than the other.
    ValueError
        If the shapes differ or the arrays lie on different devices, or if there is no last axis of at least one class.

    See Also
    --------
    softmax_forward : The map.

    Notes
    -----
    An output near 1 has lost digits of its distance from 1, and its gradient is a difference of nearly equal numbers.
    For log likelihoods, `log_softmax_backward` and `softmax_cross_entropy` have all digits.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import softmax_backward
    >>> softmax_backward(np.asarray([16.0, 0.0]), np.asarray([0.25, 0.75]))
    array([ 3., -3.])
    """
    xp, cast_output, ready = validate_real_arrays("softmax_backward", ("dh", "h"), dh, h)
    _check_axis("softmax_backward", h=h)
    dtype = h.dtype
    dh, h = ready
    return cast_output(multiply(dh - dot_last(xp, dh, h), h), dtype)


def log_softmax_forward(a: ArrayT, /) -> ArrayT:
    """Compute the logarithm of the softmax over the last axis, ``h = a - log Σ_j exp(a_j)``.

    Parameters
    ----------
    a : Array, shape (..., n)
        Logits, real: any number of leading batch axes, one entry for each of the n classes.

    Returns
    -------
    Array
        The output `h`, of the shape, dtype and device of `a`. Dtypes narrower than float32 are computed in float32 and
        returned narrow.

    Raises
    ------
    TypeError
        If `a` is not an array or has no real floating dtype.
    ValueError
        If `a` has no last axis of at least one class.

    See Also
    --------
    log_softmax_backward : Its gradient. It takes the output.

    Notes
    -----
    It is accurate where the softmax is rounded to 0 or 1: ``[20, 0]`` has ``-2.06e-9`` for the first logit also in
    float32. Logits of inf count as the largest number of the dtype: next to one, finite logits have minus that number.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import log_softmax_forward
    >>> log_softmax_forward(np.asarray([0.0, np.log(3.0)]))
    array([-1.38629436, -0.28768207])
    """
    if type(a) in recorders:
        return recorders[type(a)](LOG_SOFTMAX, (a,))
    xp, cast_output, ready = validate_real_arrays("log_softmax_forward", ("a",), a)
    _check_axis("log_softmax_forward", a=a)
    (a,) = ready
    return cast_output(log_softmax(xp, a))


def log_softmax_backward(dh: ArrayT, h: ArrayT, /) -> ArrayT:
    """Compute the gradient of `log_softmax_forward`, ``da = dh - exp(h) Σ_j dh_j``.

    Parameters
    ----------
    dh : Array, shape (..., n)
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    h : Array, shape (..., n)
        Output of the forward, whose exponential is the softmax.

    Returns
    -------
    Array
        ``da = ∂L/∂a``, of the shape, dtype and device of `h`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no real floating dtype, or comes from another library than the other.
    ValueError
        If the shapes differ or the arrays lie on different devices, or if there is no last axis of at least one class.

    See Also
    --------
    log_softmax_forward : The map.

    Notes
    -----
    It is computed as ``exp(h) (dh - Σ_j dh_j) - dh expm1(h)``. The gradient of a label's log likelihood has all digits
    also where the probability of the label is nearly 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import log_softmax_backward
    >>> log_softmax_backward(np.asarray([4.0, 0.0]), np.log(np.asarray([0.25, 0.75])))
    array([ 3., -3.])
    """
    xp, cast_output, ready = validate_real_arrays("log_softmax_backward", ("dh", "h"), dh, h)
    _check_axis("log_softmax_backward", h=h)
    dtype = h.dtype
    dh, h = ready
    # Not dh - exp(h) Σ_j dh_j, which has few digits where h is near 0: of a label's upstream gradient, none.
    others = multiply(dh - sum_last(xp, dh), xp.exp(h))
    return cast_output(subtract(others, multiply(xp.expm1(h), dh)), dtype)


def _check_axis(function: str, /, **array: Array) -> None:
    """Check that there is a last axis with a class."""
    ((name, x),) = array.items()
    if x.ndim == 0 or x.shape[-1] == 0:
        msg = f"{function}: {name} must have a last axis of at least one class, shape (..., n); got {shapes(**array)}"
        raise ValueError(msg)


SOFTMAX = Pair("softmax", softmax_forward, softmax_backward, inputs={"a": (4, 3)}, needs=("output",), real=True)
LOG_SOFTMAX = Pair(
    "log_softmax", log_softmax_forward, log_softmax_backward, inputs={"a": (4, 3)}, needs=("output",), real=True
)
