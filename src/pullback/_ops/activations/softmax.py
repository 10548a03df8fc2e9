"""The softmax and its logarithm over one axis, each with its backward."""

import math
from collections.abc import Callable
from operator import index
from typing import Any, TypeAlias

from pullback._core.arguments import compatible_size, shapes, validate_library_and_device, validate_real_arrays
from pullback._core.dtypes import is_dtype
from pullback._core.memory import multiply, subtract
from pullback._core.pair import Pair
from pullback._core.reductions import dot_last, sum_last, swap_axes
from pullback._core.stable import log_softmax, softmax
from pullback._core.tracing import lifted, recorders
from pullback._core.typing import Array, ArrayT, Namespace

_Map: TypeAlias = Callable[..., Any]
"""Takes the namespace and arrays, and computes over their last axis."""

_NO_CLASSES = ((), (0,))


def softmax_forward(a: ArrayT, /, *, axis: int = -1, mask: Array | None = None) -> ArrayT:
    """Compute the softmax over an axis, ``h = exp(a) / Σ_j exp(a_j)``.

    Parameters
    ----------
    a : Array, shape (..., n)
        Logits, real: any number of leading batch axes, one entry for each of the n classes. With `axis`, the classes
        lie along that axis.
    axis : int, default -1
        Axis of the classes.
    mask : Array of bool, optional
        True where a class is possible, as for ``jax.nn.softmax`` and in attention; a masked array of NumPy has it the
        other way round. It broadcasts to the shape of `a`. The sum is over the possible classes.

    Returns
    -------
    Array
        The output `h`, of the shape, dtype and device of `a`; 0 where `mask` is False. Dtypes narrower than float32
        are computed in float32 and returned narrow.

    Raises
    ------
    TypeError
        If `a` is not an array or has no real floating dtype, `mask` is not an array of bool of the library of `a`, or
        `axis` is no integer.
    ValueError
        If `a` has no such axis, or no class along it, or `mask` does not broadcast to its shape or lies on another
        device.

    See Also
    --------
    softmax_backward : Its gradient. It takes the output.

    Notes
    -----
    The exponentials are those of differences of the logits from a number near ``max(a)``, which do not overflow where
    the dtype can hold the differences. The relative error is a few units of rounding for every probability: the number
    is chosen such that the differences are exact, or the error of rounding them is corrected. A logit of -inf has
    probability 0; logits of inf share the probability 1. A row of -inf alone gives NaN.

    Masked logits count as -inf, whatever they are, NaN included, and their gradient is 0. A row without a possible
    class has the output 0 and the gradient 0.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import softmax_forward
    >>> a = np.asarray([[0.0, np.log(3.0)], [1.0, 2.0]])
    >>> softmax_forward(a[0, :])
    array([0.25, 0.75])
    >>> softmax_forward(a, mask=np.asarray([[True, False], [False, False]]))
    array([[1., 0.],
           [0., 0.]])
    """
    if mask is not None:
        a, mask = lifted((a, mask))
    if type(a) in recorders:
        return recorders[type(a)](SOFTMAX, (a,), axis=axis, mask=mask)
    return _forward("softmax_forward", softmax, 0.0, a, axis, mask)


def softmax_backward(dh: ArrayT, h: ArrayT, /, *, axis: int = -1, mask: Array | None = None) -> ArrayT:
    """Compute the gradient of `softmax_forward`, ``da = h (dh - Σ_j dh_j h_j)``.

    Parameters
    ----------
    dh : Array, shape (..., n)
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    h : Array, shape (..., n)
        Output of the forward, from which the gradient needs no exponential.
    axis : int, default -1
        Axis of the classes, as for the forward.
    mask : Array of bool, optional
        Mask of the forward. Upstream gradients of masked entries do not count.

    Returns
    -------
    Array
        ``da = ∂L/∂a``, of the shape, dtype and device of `h`; 0 where `mask` is False.

    Raises
    ------
    TypeError
        If an argument is not an array, has no real floating dtype (or `mask` not that of bool), or comes from another
        library than the others, or `axis` is no integer.
    ValueError
        If the shapes differ or the arrays lie on different devices, if there is no such axis or no class along it, or
        if `mask` does not broadcast to the shape of `h`.

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
    return _backward("softmax_backward", _softmax_pullback, dh, h, axis, mask)


def log_softmax_forward(a: ArrayT, /, *, axis: int = -1, mask: Array | None = None) -> ArrayT:
    """Compute the logarithm of the softmax over an axis, ``h = a - log Σ_j exp(a_j)``.

    Parameters
    ----------
    a : Array, shape (..., n)
        Logits, real: any number of leading batch axes, one entry for each of the n classes. With `axis`, the classes
        lie along that axis.
    axis : int, default -1
        Axis of the classes.
    mask : Array of bool, optional
        True where a class is possible, as for ``jax.nn.log_softmax``; a masked array of NumPy has it the other way
        round. It broadcasts to the shape of `a`. The sum is over the possible classes.

    Returns
    -------
    Array
        The output `h`, of the shape, dtype and device of `a`; -inf where `mask` is False. Dtypes narrower than float32
        are computed in float32 and returned narrow.

    Raises
    ------
    TypeError
        If `a` is not an array or has no real floating dtype, `mask` is not an array of bool of the library of `a`, or
        `axis` is no integer.
    ValueError
        If `a` has no such axis, or no class along it, or `mask` does not broadcast to its shape or lies on another
        device.

    See Also
    --------
    log_softmax_backward : Its gradient. It takes the output.

    Notes
    -----
    It is accurate where the softmax is rounded to 0 or 1: ``[20, 0]`` has ``-2.06e-9`` for the first logit also in
    float32. Logits of inf count as the largest number of the dtype: next to one, finite logits have minus that number.

    Masked logits count as -inf, whatever they are, NaN included: their output is -inf, the logarithm of 0, and their
    gradient is 0. So is the gradient of a row without a possible class, whose outputs are all -inf. A product of the
    output with zeros is NaN there: choose entries with ``xp.where(mask, h, 0.0)``.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import log_softmax_forward
    >>> log_softmax_forward(np.asarray([0.0, np.log(3.0)]))
    array([-1.38629436, -0.28768207])
    >>> log_softmax_forward(np.asarray([0.0, 0.0, 5.0]), mask=np.asarray([True, True, False]))
    array([-0.69314718, -0.69314718,        -inf])
    """
    if mask is not None:
        a, mask = lifted((a, mask))
    if type(a) in recorders:
        return recorders[type(a)](LOG_SOFTMAX, (a,), axis=axis, mask=mask)
    return _forward("log_softmax_forward", log_softmax, -math.inf, a, axis, mask)


def log_softmax_backward(dh: ArrayT, h: ArrayT, /, *, axis: int = -1, mask: Array | None = None) -> ArrayT:
    """Compute the gradient of `log_softmax_forward`, ``da = dh - exp(h) Σ_j dh_j``.

    Parameters
    ----------
    dh : Array, shape (..., n)
        Upstream gradient ``∂L/∂h``, of the shape of the output.
    h : Array, shape (..., n)
        Output of the forward, whose exponential is the softmax.
    axis : int, default -1
        Axis of the classes, as for the forward.
    mask : Array of bool, optional
        Mask of the forward. Upstream gradients of masked entries do not count; without the mask, they do.

    Returns
    -------
    Array
        ``da = ∂L/∂a``, of the shape, dtype and device of `h`; 0 where `mask` is False.

    Raises
    ------
    TypeError
        If an argument is not an array, has no real floating dtype (or `mask` not that of bool), or comes from another
        library than the others, or `axis` is no integer.
    ValueError
        If the shapes differ or the arrays lie on different devices, if there is no such axis or no class along it, or
        if `mask` does not broadcast to the shape of `h`.

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
    return _backward("log_softmax_backward", _log_softmax_pullback, dh, h, axis, mask)


def _softmax_pullback(xp: Namespace, dh: Array, h: Array, /) -> Array:
    """Return the gradient of the softmax over the last axis."""
    return multiply(dh - dot_last(xp, dh, h), h)


def _log_softmax_pullback(xp: Namespace, dh: Array, h: Array, /) -> Array:
    """Return the gradient of the logarithm of the softmax over the last axis."""
    # Not dh - exp(h) Σ_j dh_j, which has few digits where h is near 0: of a label's upstream gradient, none.
    others = multiply(dh - sum_last(xp, dh), xp.exp(h))
    return subtract(others, multiply(xp.expm1(h), dh))


def _forward(  # noqa: PLR0913, PLR0917 - the map, its arguments, and the output of a masked entry
    function: str, compute: _Map, absent: float, a: ArrayT, axis: int, mask: Array | None, /
) -> ArrayT:
    """Apply a map of the logits over an axis."""
    xp, cast_output, (x,) = validate_real_arrays(function, ("a",), a)
    if axis == -1 and mask is None and x.shape[-1:] not in _NO_CLASSES:
        return cast_output(compute(xp, x))
    axis = _read_axis(function, axis, a=x)
    if mask is None:
        return cast_output(_over_axis(xp, compute, axis, x))
    possible = _read_mask(function, xp, mask, a=x)
    # Not -inf in all of a row, whose derivatives would be NaN.
    x = xp.where(xp.any(possible, axis=axis, keepdims=True), xp.where(possible, x, -math.inf), 0.0)
    return cast_output(xp.where(possible, _over_axis(xp, compute, axis, x), absent))


def _backward(  # noqa: PLR0913, PLR0917 - the map and its arguments
    function: str, compute: _Map, dh: ArrayT, h: ArrayT, axis: int, mask: Array | None, /
) -> ArrayT:
    """Apply a map of the upstream gradient and the output over an axis."""
    if mask is not None:
        dh, h, mask = lifted((dh, h, mask))
    xp, cast_output, (upstream, x) = validate_real_arrays(function, ("dh", "h"), dh, h)
    if axis == -1 and mask is None and x.shape[-1:] not in _NO_CLASSES:
        return cast_output(compute(xp, upstream, x), h.dtype)
    axis = _read_axis(function, axis, h=x)
    if mask is None:
        return cast_output(_over_axis(xp, compute, axis, upstream, x), h.dtype)
    possible = _read_mask(function, xp, mask, h=x)
    da = _over_axis(xp, compute, axis, xp.where(possible, upstream, 0.0), x)
    return cast_output(xp.where(possible, da, 0.0), h.dtype)


def _over_axis(xp: Namespace, compute: _Map, axis: int, /, *arrays: Array) -> Any:  # noqa: ANN401 - an array
    """Apply a map over an axis, counted from the last, of arrays of one shape."""
    if axis == -1:
        return compute(xp, *arrays)
    return swap_axes(xp, compute(xp, *(swap_axes(xp, x, axis, -1) for x in arrays)), axis, -1)


def _read_axis(function: str, axis: int, /, **array: Array) -> int:
    """Return the axis counted from the last, along which there must be a class."""
    ((name, x),) = array.items()
    if not hasattr(axis, "__index__"):
        msg = f"{function}: axis must be an integer; got {axis!r}"
        raise TypeError(msg)
    axis = index(axis)
    if not -x.ndim <= axis < x.ndim or x.shape[axis] == 0:
        rule = "a last axis of at least one class, shape (..., n)" if axis == -1 else f"an axis {axis} with a class"
        msg = f"{function}: {name} must have {rule}; got {shapes(**array)}"
        raise ValueError(msg)
    return axis - x.ndim if axis >= 0 else axis


def _read_mask(function: str, xp: Namespace, mask: Array, /, **array: Array) -> Array:
    """Return the mask with as many axes as the array, to which it must broadcast."""
    ((name, x),) = array.items()
    validate_library_and_device(function, (name, "mask"), x, mask)
    if not is_dtype(xp, mask.dtype, "bool"):
        msg = f"{function}: mask must have dtype bool; got {mask.dtype}. Pass mask != 0"
        raise TypeError(msg)
    extra = x.ndim - mask.ndim
    sizes = zip(mask.shape, x.shape[extra:], strict=True) if extra >= 0 else ()
    if extra < 0 or not all(size == 1 or compatible_size(size, other) for size, other in sizes):
        msg = f"{function}: mask must broadcast to the shape of {name}; got {shapes(mask=mask, **array)}"
        raise ValueError(msg)
    return mask[(*[None] * extra, ...)]


SOFTMAX = Pair("softmax", softmax_forward, softmax_backward, inputs={"a": (4, 3)}, needs=("output",), real=True)
LOG_SOFTMAX = Pair(
    "log_softmax", log_softmax_forward, log_softmax_backward, inputs={"a": (4, 3)}, needs=("output",), real=True
)
