"""Rectifying activations: relu, leaky_relu and softplus, each with its backward.

The output determines the derivative, and the next layer saves it anyway: the backwards take the output.
"""

from pullback._core.arguments import float_option, validate_real_arrays
from pullback._core.memory import is_plain_memory, multiply
from pullback._core.pair import Pair
from pullback._core.stable import clipped, is_positive, positive_part, softplus, step
from pullback._core.tracing import recorders
from pullback._core.typing import ArrayT


def relu_forward(a: ArrayT, /) -> ArrayT:
    """Compute the rectified linear unit, ``h = max(a, 0)``.

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
    relu_backward : Its gradient. It takes the output.

    Notes
    -----
    JAX and PyTorch, differentiating this function, get the derivative 0 at 0, as `relu_backward` has it.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import relu_forward
    >>> relu_forward(np.asarray([-1.0, 2.0]))
    array([0., 2.])
    """
    if type(a) in recorders:
        return recorders[type(a)](RELU, (a,))
    xp, cast_output, (a,) = validate_real_arrays("relu_forward", ("a",), a)
    return cast_output(positive_part(xp, a))


def relu_backward(dh: ArrayT, h: ArrayT, /) -> ArrayT:
    """Compute the gradient of `relu_forward`, ``da = dh [h > 0]``.

    Parameters
    ----------
    dh : Array
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    h : Array
        Output of the forward, positive where the input is.

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
    relu_forward : The map.

    Notes
    -----
    The derivative at 0 is 0, by convention. It multiplies `dh`: a NaN in `dh` or in `h` gives NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import relu_backward
    >>> relu_backward(np.asarray([10.0, 10.0]), np.asarray([0.0, 2.0]))
    array([ 0., 10.])
    """
    xp, cast_output, ready = validate_real_arrays("relu_backward", ("dh", "h"), dh, h)
    dtype = h.dtype
    dh, h = ready
    return cast_output(multiply(step(xp, h), dh), dtype)


def leaky_relu_forward(a: ArrayT, /, *, slope: float = 0.01) -> ArrayT:
    """Compute the leaky rectified linear unit, ``h = max(a, slope a)``.

    Parameters
    ----------
    a : Array
        Input, real, of any shape.
    slope : float, default 0.01
        Derivative for negative inputs: above 0 and at most 1.

    Returns
    -------
    Array
        The output `h`, as in `relu_forward`.

    Raises
    ------
    TypeError
        As `relu_forward` does; also if `slope` is not a real number, or is traced or lazy.
    ValueError
        If `slope` is not above 0, or above 1.

    See Also
    --------
    leaky_relu_backward : Its gradient. It takes the output.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import leaky_relu_forward
    >>> leaky_relu_forward(np.asarray([-1.0, 2.0]), slope=0.5)
    array([-0.5,  2. ])
    """
    if type(a) in recorders:
        return recorders[type(a)](LEAKY_RELU, (a,), slope=slope)
    xp, cast_output, (a,) = validate_real_arrays("leaky_relu_forward", ("a",), a)
    slope = _slope("leaky_relu_forward", slope)
    # The maximum takes a third of the time, but libraries differ in its derivative at a tie.
    h = xp.maximum(a, a * slope) if is_plain_memory(a) else a * clipped(xp, is_positive(xp, a), slope)
    return cast_output(h)


def leaky_relu_backward(dh: ArrayT, h: ArrayT, /, *, slope: float = 0.01) -> ArrayT:
    """Compute the gradient of `leaky_relu_forward`: `dh`, times `slope` where ``h <= 0``.

    Parameters
    ----------
    dh : Array
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    h : Array
        Output of the forward, positive where the input is.
    slope : float, default 0.01
        Derivative for negative inputs: above 0 and at most 1.

    Returns
    -------
    Array
        ``da = ∂L/∂a``, of the shape, dtype and device of `h`.

    Raises
    ------
    TypeError, ValueError
        As `relu_backward` does; TypeError also if `slope` is not a real number, or is traced or lazy; ValueError also
        if it is not above 0, or above 1.

    See Also
    --------
    leaky_relu_forward : The map.

    Notes
    -----
    The derivative at 0 is `slope`, by convention. It multiplies `dh`: a NaN in `dh` or in `h` gives NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import leaky_relu_backward
    >>> leaky_relu_backward(np.asarray([10.0, 10.0]), np.asarray([-0.5, 2.0]), slope=0.5)
    array([ 5., 10.])
    """
    xp, cast_output, ready = validate_real_arrays("leaky_relu_backward", ("dh", "h"), dh, h)
    slope = _slope("leaky_relu_backward", slope)
    dtype = h.dtype
    dh, h = ready
    return cast_output(multiply(clipped(xp, step(xp, h), slope), dh), dtype)


def softplus_forward(a: ArrayT, /) -> ArrayT:
    """Compute the softplus, ``h = log(1 + exp(a))``.

    Parameters
    ----------
    a : Array
        Input, real, of any shape.

    Returns
    -------
    Array
        The output `h`, as in `relu_forward`.

    Raises
    ------
    TypeError
        As `relu_forward` does.

    See Also
    --------
    softplus_backward : Its gradient. It takes the output.

    Notes
    -----
    It is computed as ``max(a, 0) + log1p(exp(-|a|))``, which does not overflow. The relative error is a few units of
    rounding for every input.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import softplus_forward
    >>> softplus_forward(np.asarray([0.0, np.log(3.0)]))
    array([0.69314718, 1.38629436])
    """
    if type(a) in recorders:
        return recorders[type(a)](SOFTPLUS, (a,))
    xp, cast_output, (a,) = validate_real_arrays("softplus_forward", ("a",), a)
    return cast_output(softplus(xp, a))


def softplus_backward(dh: ArrayT, h: ArrayT, /) -> ArrayT:
    """Compute the gradient of `softplus_forward`, ``da = dh sigmoid(a)``.

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
    TypeError, ValueError
        As `relu_backward` does.

    See Also
    --------
    softplus_forward : The map.

    Notes
    -----
    The output determines the derivative with all its digits: ``sigmoid(a) = 1 - exp(-h)``, by ``expm1``.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import softplus_backward
    >>> softplus_backward(np.asarray([10.0, 20.0]), np.log(np.asarray([2.0, 4.0])))
    array([ 5., 15.])
    """
    xp, cast_output, ready = validate_real_arrays("softplus_backward", ("dh", "h"), dh, h)
    dtype = h.dtype
    dh, h = ready
    return cast_output(multiply(-xp.expm1(-h), dh), dtype)


def _slope(function: str, slope: float, /) -> float:
    """Read the slope: above 0 for the output to have the sign of the input, at most 1 for ``max(a, slope a)``."""
    return float_option(function, "slope", slope, above=0.0, most=1.0, advice="With 0 it is relu")


RELU = Pair("relu", relu_forward, relu_backward, inputs={"a": (4, 3)}, needs=("output",), real=True)
LEAKY_RELU = Pair(
    "leaky_relu", leaky_relu_forward, leaky_relu_backward, inputs={"a": (4, 3)}, needs=("output",), real=True
)
SOFTPLUS = Pair("softplus", softplus_forward, softplus_backward, inputs={"a": (4, 3)}, needs=("output",), real=True)
