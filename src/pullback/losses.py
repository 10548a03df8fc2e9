"""A loss and its upstream gradient, in one call."""

import math
from typing import Literal, NamedTuple, TypeAlias

from array_api_compat import device

from pullback._arguments import read, read_together, same_shape, shapes
from pullback._typing import Array, Namespace

Reduction: TypeAlias = Literal["mean", "sum", "none"]
_REDUCTIONS = ("mean", "sum", "none")


class Loss(NamedTuple):
    """A loss and its gradient.

    Attributes
    ----------
    value : Array
        The loss: a 0-d array, or one entry for each example with ``reduction="none"``.
    da : Array
        The upstream gradient ``∂value/∂a``, for a backward to take: shape, dtype and device of `a`. With
        ``reduction="none"``, the gradient of each example's own loss.
    """

    value: Array
    da: Array


def softmax_cross_entropy(a: Array, y: Array, /, *, reduction: Reduction = "mean") -> Loss:
    """Cross entropy of the softmax of `a` with the targets `y`, and its gradient.

    Parameters
    ----------
    a : Array, shape (..., n)
        Logits, real: any number of leading batch axes, one entry for each of the n classes.
    y : Array, shape (...) or (..., n)
        Targets. An array of integers holds a class index in 0 … n - 1 for each example; a floating one holds a
        weight for each class, usually probabilities that sum to one.
    reduction : {"mean", "sum", "none"}, default "mean"
        Over the examples. The mean over no examples is NaN.

    Returns
    -------
    Loss
        ``(value, da)``, in the namespace and on the device of the inputs; `value` in their promoted dtype, `da` in
        the dtype of `a`.

    Raises
    ------
    TypeError
        If an argument is not an array or comes from another library than the other, `a` has no real floating dtype,
        or `y` neither that nor an integer one.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `reduction` is none of the three.

    Notes
    -----
    With ``p = softmax(a)``, an example's loss is ``-Σ_j y_j log p_j`` and its gradient ``p Σ_j y_j - y`` [1]_. Both
    come from one exponential of ``a - max(a)``, which does not overflow. A class of weight 0 adds 0 to the loss, even
    where its logit is -inf.

    A class index outside 0 … n - 1 makes the loss and the gradient of its example NaN, on every library: whether there
    is one cannot be asked of a lazy array, nor of a GPU without waiting for it.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.3.4.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import softmax_cross_entropy
    >>> value, da = softmax_cross_entropy(np.asarray([[0.0, 0.0], [0.0, np.log(3.0)]]), np.asarray([0, 1]))
    >>> round(float(value), 6)
    0.490415
    >>> da
    array([[-0.25 ,  0.25 ],
           [ 0.125, -0.125]])
    """
    xp = _check("softmax_cross_entropy", a, y, reduction)
    indices = xp.isdtype(y.dtype, "integral")
    if indices:
        _, _, like, (logits,) = read("softmax_cross_entropy", ("a",), a)
    else:
        _, _, like, (logits, target) = read("softmax_cross_entropy", ("a", "y"), a, y)
    largest = _largest(xp, logits)
    if indices:
        n = a.shape[-1]
        classes = xp.arange(n, device=device(a))
        index = xp.astype(y, classes.dtype)[..., None]
        target, mass, inside = index == classes, 1.0, index % n
        # An index out of range hits no class: NaN in place of a number that would look like a loss.
        shifted = logits - xp.where(index == inside, largest, math.nan)
        score = _pick(xp, shifted, inside, target)
    else:
        shifted = logits - largest
        mass = xp.sum(target, axis=-1, keepdims=True)
        score = xp.sum(target * xp.where(target == 0, 0.0, shifted), axis=-1, keepdims=True)
    da = xp.exp(shifted)
    total = xp.sum(da, axis=-1, keepdims=True)
    value, scale = (mass * xp.log(total) - score)[..., 0], mass / total
    # Fresh memory costs NumPy more than the arithmetic: no more than two arrays of this size at a time. Hence this
    # deletion, and a target that stays boolean up to the subtraction.
    del shifted
    da = da * scale
    da -= xp.astype(target, da.dtype) if indices else target
    if reduction == "mean":
        count = _count(xp, value)
        value, da = xp.sum(value) / count, da / count
    elif reduction == "sum":
        value = xp.sum(value)
    return Loss(like(value), like(da, a.dtype))


def _check(function: str, a: Array, y: Array, reduction: str, /) -> Namespace:
    """Check logits, targets and reduction; return the arrays' namespace."""
    xp = read_together(function, ("a", "y"), a, y)
    if not xp.isdtype(a.dtype, "real floating"):
        msg = f"{function}: a must have a real floating dtype; got {a.dtype}"
        raise TypeError(msg)
    if not xp.isdtype(y.dtype, ("integral", "real floating")):
        msg = f"{function}: y must have an integer dtype (class indices) or a real floating one; got {y.dtype}"
        raise TypeError(msg)
    if a.ndim == 0 or a.shape[-1] == 0:
        msg = f"{function}: a must have a last axis of at least one class, shape (..., n); got {shapes(a=a)}"
        raise ValueError(msg)
    if xp.isdtype(y.dtype, "integral"):
        if not same_shape(y.shape, a.shape[:-1]):
            msg = f"{function}: class indices y must have the shape of a without its last axis; got {shapes(y=y, a=a)}"
            raise ValueError(msg)
    elif not same_shape(y.shape, a.shape):
        msg = f"{function}: probabilities y must have the shape of a; got {shapes(y=y, a=a)}"
        raise ValueError(msg)
    if reduction not in _REDUCTIONS:
        msg = f"{function}: reduction must be one of {_REDUCTIONS}; got {reduction!r}"
        raise ValueError(msg)
    return xp


def _largest(xp: Namespace, x: Array, /) -> Array:
    """Return the maximum over the last axis, which is kept."""
    n = x.shape[-1]
    if not (hasattr(x, "chunks") and isinstance(n, int)):
        out: Array = xp.max(x, axis=-1, keepdims=True)
        return out
    # Dask's maximum fails on a block of no rows, as a filter leaves them: fold the axis in half until one is left.
    while n > 1:
        half = (n + 1) // 2
        x, n = xp.maximum(x[..., :half], x[..., n - half :]), half
    return x


def _pick(xp: Namespace, x: Array, index: Array, hit: Array, /) -> Array:
    """Return the entries of `x` at `index` on the last axis, which is kept: those where `hit` is true."""
    out: Array
    if hasattr(xp, "take_along_axis"):
        out = xp.take_along_axis(x, index, axis=-1)
    else:  # Dask
        out = xp.sum(xp.where(hit, x, 0.0), axis=-1, keepdims=True)
    return out


def _count(xp: Namespace, x: Array, /) -> Array | float:
    """Return the number of elements, NaN for none: a mean over nothing; counted lazily where it is not known."""
    if all(isinstance(size, int) for size in x.shape):
        return math.prod(x.shape) or math.nan
    count = xp.sum(xp.ones_like(x))
    out: Array = xp.where(count == 0, math.nan, count)
    return out
