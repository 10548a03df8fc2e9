"""Gated activations: silu and gelu, the input times a function of it from 0 to 1, each with its backward.

They fall and then rise: the output does not determine the input, and the backwards take the input.
"""

import math

from pullback._core.arguments import validate_real_arrays
from pullback._core.memory import add, divide, multiply
from pullback._core.pair import Pair
from pullback._core.stable import clipped, root_where, sigmoid_roots
from pullback._core.tracing import recorders
from pullback._core.typing import Array, ArrayT, Namespace

# Beyond these inputs, each gate is 0 or 1 in every dtype. Zero times an input bounded by them is 0, the limit.
_SIGMOID_ENDS = 800.0
_NORMAL_ENDS = 40.0
_SCALE = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


def silu_forward(a: ArrayT, /) -> ArrayT:
    """Compute the sigmoid linear unit, ``h = a sigmoid(a)``, also known as swish.

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
    silu_backward : Its gradient. It takes the input.

    Notes
    -----
    It falls to -0.278 at ``a = -1.278`` and rises from there. The relative error is a few units of rounding for every
    input, also where `h` is nearly 0.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import silu_forward
    >>> silu_forward(np.asarray([0.0, np.log(3.0)])).round(6)
    array([0.      , 0.823959])
    """
    if type(a) in recorders:
        return recorders[type(a)](SILU, (a,))
    xp, cast_output, (a,) = validate_real_arrays("silu_forward", ("a",), a)
    return cast_output(_times_sigmoid(xp, clipped(xp, a, -_SIGMOID_ENDS), a))


def silu_backward(dh: ArrayT, a: ArrayT, /) -> ArrayT:
    """Compute the gradient of `silu_forward`.

    Parameters
    ----------
    dh : Array
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    a : Array
        Input of the forward, which the output does not determine.

    Returns
    -------
    Array
        ``da = ∂L/∂a``, of the shape, dtype and device of `a`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no real floating dtype, or comes from another library than the other.
    ValueError
        If the shapes differ or the arrays lie on different devices.

    See Also
    --------
    silu_forward : The map.

    Notes
    -----
    ``da = dh s (1 + a (1 - s))`` with ``s = sigmoid(a)``, which is computed again and not saved by the forward.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import silu_backward
    >>> silu_backward(np.asarray([10.0]), np.asarray([0.0]))
    array([5.])
    """
    xp, cast_output, ready = validate_real_arrays("silu_backward", ("dh", "a"), dh, a)
    dtype = a.dtype
    dh, a = ready
    da = _derivative(xp, clipped(xp, a, -_SIGMOID_ENDS, _SIGMOID_ENDS), a)
    return cast_output(multiply(da, dh), dtype)


def gelu_forward(a: ArrayT, /, *, exact: bool = False) -> ArrayT:
    """Compute the Gaussian error linear unit, ``h = a Φ(a)``, by default in its tanh form.

    Parameters
    ----------
    a : Array
        Input, real, of any shape.
    exact : bool, default False
        Whether to use the error function and not its tanh form. It takes a namespace that has ``erfc``, as PyTorch's.

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
        If `exact` is asked for and the namespace has no ``erfc``, which the standard does not name.

    See Also
    --------
    gelu_backward : Its gradient. It takes the input.

    Notes
    -----
    The tanh form is ``h = ½ a (1 + tanh(√(2/π) (a + 0.044715 a³)))``, less than 5e-4 from the exact one,
    ``½ a (1 + erf(a / √2))`` [1]_. It is what PyTorch has as ``approximate="tanh"`` and JAX by default. It is computed
    as ``a sigmoid(x)`` with ``x = 2 √(2/π) (a + 0.044715 a³)``, so that negative inputs keep their digits. Rounding x
    gives a relative error of about ``|x|`` units of rounding: 25 at ``a = -6``, where one unit of the input itself
    makes 55.

    References
    ----------
    .. [1] D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", 2016, arXiv:1606.08415.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import gelu_forward
    >>> gelu_forward(np.asarray([-1.0, 0.0, 1.0])).round(6)
    array([-0.158808,  0.      ,  0.841192])
    """
    if type(a) in recorders:
        return recorders[type(a)](GELU, (a,), exact=exact)
    xp, cast_output, (a,) = validate_real_arrays("gelu_forward", ("a",), a)
    bounded = clipped(xp, a, -_NORMAL_ENDS)
    if not exact:
        logit = _logit(clipped(xp, bounded, None, _NORMAL_ENDS))
        return cast_output(_times_sigmoid(xp, bounded, logit))
    _check_erfc("gelu_forward", xp)
    return cast_output(multiply(bounded * 0.5, xp.erfc(a * -math.sqrt(0.5))))


def gelu_backward(dh: ArrayT, a: ArrayT, /, *, exact: bool = False) -> ArrayT:
    """Compute the gradient of `gelu_forward`.

    Parameters
    ----------
    dh : Array
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    a : Array
        Input of the forward, which the output does not determine.
    exact : bool, default False
        Whether to use the error function and not its tanh form. It takes a namespace that has ``erfc``, as PyTorch's.

    Returns
    -------
    Array
        ``da = ∂L/∂a``, of the shape, dtype and device of `a`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no real floating dtype, or comes from another library than the other.
    ValueError
        If the shapes differ or the arrays lie on different devices, or if `exact` is asked for and the namespace has no
        ``erfc``.

    See Also
    --------
    gelu_forward : The map.

    Notes
    -----
    The exact form has ``da = dh (Φ(a) + a φ(a))``, with the normal distribution Φ and its density φ. The gradient of
    the tanh form is that of the tanh form itself, ``da = dh s (1 + a x' (1 - s))`` with ``s = sigmoid(x)``.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import gelu_backward
    >>> gelu_backward(np.asarray([10.0]), np.asarray([0.0]))
    array([5.])
    """
    xp, cast_output, ready = validate_real_arrays("gelu_backward", ("dh", "a"), dh, a)
    dtype = a.dtype
    dh, a = ready
    x = clipped(xp, a, -_NORMAL_ENDS, _NORMAL_ENDS)
    if exact:
        _check_erfc("gelu_backward", xp)
        density = xp.exp(multiply(x * x, -0.5)) * (0.5 * _SCALE)
        da = add(multiply(density, x), 0.5 * xp.erfc(x * -math.sqrt(0.5)))
    else:
        slope = add(multiply(x * x, 6 * _SCALE * _CUBIC), 2 * _SCALE)
        da = _derivative(xp, multiply(slope, x), _logit(x))
    return cast_output(multiply(da, dh), dtype)


def _times_sigmoid(xp: Namespace, y: Array, x: Array, /) -> Array:
    """Return ``y sigmoid(x)`` for a `y` that nothing else holds."""
    positive, root, total = sigmoid_roots(xp, x)
    root = root_where(xp, positive, root)
    y = multiply(y, root)
    return multiply(y, divide(root, total))


def _derivative(xp: Namespace, y: Array, x: Array, /) -> Array:
    """Return ``s (1 + y (1 - s))`` with ``s = sigmoid(x)``, for a `y` that nothing else holds.

    It is the derivative of ``a sigmoid(x)`` for `a`, where y is `a` times the derivative of x.
    """
    positive, root, total = sigmoid_roots(xp, x)
    other = root_where(xp, 1 - positive, root)
    root = root_where(xp, positive, root)
    # Not 1 - s, whose rounding error is multiplied by y.
    complement = divide(multiply(other, other), total)
    y = multiply(add(multiply(y, complement), 1), root)
    return multiply(y, divide(root, total))


def _logit(x: Array, /) -> Array:
    """Return the x with ``sigmoid(x) = ½ (1 + tanh(√(2/π) (a + 0.044715 a³)))``."""
    return multiply(add(multiply(x * x, 2 * _SCALE * _CUBIC), 2 * _SCALE), x)


def _check_erfc(function: str, xp: Namespace, /) -> None:
    """Check that the namespace has the complementary error function."""
    if not hasattr(xp, "erfc"):
        msg = (
            f"{function}: the exact form takes a namespace with erfc, which the array API standard does not name; "
            f"got {xp.__name__}. Leave out exact for the tanh form"
        )
        raise ValueError(msg)


SILU = Pair("silu", silu_forward, silu_backward, inputs={"a": (4, 3)}, needs=("a",), real=True)
GELU = Pair("gelu", gelu_forward, gelu_backward, inputs={"a": (4, 3)}, needs=("a",), real=True)
