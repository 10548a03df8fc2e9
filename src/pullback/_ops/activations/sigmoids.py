"""Saturating activations: sigmoid and tanh, each with its backward.

The output determines the derivative, and the next layer saves it anyway: the backwards take the output.
"""

from pullback._core.arguments import validate_real_arrays
from pullback._core.memory import multiply
from pullback._core.pair import Pair
from pullback._core.stable import sigmoid
from pullback._core.tracing import recorders
from pullback._core.typing import ArrayT


def sigmoid_forward(a: ArrayT, /) -> ArrayT:
    """Compute the logistic sigmoid, ``h = 1 / (1 + exp(-a))``.

    Parameters
    ----------
    a : Array
        Input, real, of any shape.

    Returns
    -------
    Array
        The output `h`, of the shape, dtype and device of `a`. Dtypes narrower than float32 are computed in float32 and
        returned narrow.

    Raises
    ------
    TypeError
        If `a` is not an array or has no real floating dtype.

    See Also
    --------
    sigmoid_backward : Its gradient. It takes the output.

    Notes
    -----
    It is computed from ``exp(-|a|)``, which does not overflow. The relative error is a few units of rounding for every
    input, also where `h` is nearly 0.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import sigmoid_forward
    >>> sigmoid_forward(np.asarray([0.0, np.log(3.0)]))
    array([0.5 , 0.75])
    """
    if type(a) in recorders:
        return recorders[type(a)](SIGMOID, (a,))
    xp, cast_output, (a,) = validate_real_arrays("sigmoid_forward", ("a",), a)
    return cast_output(sigmoid(xp, a))


def sigmoid_backward(dh: ArrayT, h: ArrayT, /) -> ArrayT:
    """Compute the gradient of `sigmoid_forward`, ``da = dh h (1 - h)``.

    Parameters
    ----------
    dh : Array
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    h : Array
        Output of the forward.

    Returns
    -------
    Array
        ``da = ∂L/∂a``, of the shape, dtype and device of `h`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no real floating dtype, or comes from another library than the other.
    ValueError
        If the shapes differ or the arrays lie on different devices.

    See Also
    --------
    sigmoid_forward : The map.

    Notes
    -----
    From the output, the gradient needs no exponential. An output near 1 has lost digits of ``1 - h``: in float32, `h`
    is 1 and the gradient is 0 from about ``a = 17`` on. The loss `logistic` takes the logits and has all digits there.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import sigmoid_backward
    >>> sigmoid_backward(np.asarray([16.0, 16.0]), np.asarray([0.5, 0.75]))
    array([4., 3.])
    """
    _, cast_output, ready = validate_real_arrays("sigmoid_backward", ("dh", "h"), dh, h)
    dtype = h.dtype
    dh, h = ready
    return cast_output(multiply(multiply(1 - h, h), dh), dtype)


def tanh_forward(a: ArrayT, /) -> ArrayT:
    """Compute the hyperbolic tangent, ``h = tanh(a)``.

    Parameters
    ----------
    a : Array
        Input, real, of any shape.

    Returns
    -------
    Array
        The output `h`, of the shape, dtype and device of `a`. Dtypes narrower than float32 are computed in float32 and
        returned narrow.

    Raises
    ------
    TypeError
        If `a` is not an array or has no real floating dtype.

    See Also
    --------
    tanh_backward : Its gradient. It takes the output.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import tanh_forward
    >>> tanh_forward(np.asarray([0.0, np.log(3.0)]))
    array([0. , 0.8])
    """
    if type(a) in recorders:
        return recorders[type(a)](TANH, (a,))
    xp, cast_output, (a,) = validate_real_arrays("tanh_forward", ("a",), a)
    return cast_output(xp.tanh(a))


def tanh_backward(dh: ArrayT, h: ArrayT, /) -> ArrayT:
    """Compute the gradient of `tanh_forward`, ``da = dh (1 - h²)``.

    Parameters
    ----------
    dh : Array
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    h : Array
        Output of the forward.

    Returns
    -------
    Array
        ``da = ∂L/∂a``, of the shape, dtype and device of `h`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no real floating dtype, or comes from another library than the other.
    ValueError
        If the shapes differ or the arrays lie on different devices.

    See Also
    --------
    tanh_forward : The map.

    Notes
    -----
    From the output, the gradient needs no exponential. An output near ±1 has lost digits of ``1 - h²``: in float32,
    `h` is ±1 and the gradient is 0 from about ``|a| = 10`` on.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import tanh_backward
    >>> tanh_backward(np.asarray([1.0, 4.0]), np.asarray([0.0, 0.5]))
    array([1., 3.])
    """
    _, cast_output, ready = validate_real_arrays("tanh_backward", ("dh", "h"), dh, h)
    dtype = h.dtype
    dh, h = ready
    # Not 1 - h², which has few digits where h is near 1.
    return cast_output(multiply(multiply(1 - h, h + 1), dh), dtype)


SIGMOID = Pair("sigmoid", sigmoid_forward, sigmoid_backward, inputs={"a": (4, 3)}, needs=("output",), real=True)
TANH = Pair("tanh", tanh_forward, tanh_backward, inputs={"a": (4, 3)}, needs=("output",), real=True)
