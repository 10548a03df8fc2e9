"""The cross entropy of a softmax, its upstream gradient and its Hessian."""

import math
from typing import Any

from array_api_compat import device

from pullback._core.arguments import same_shape, shapes
from pullback._core.pair import Pair
from pullback._core.reductions import dot_last, sum_last
from pullback._core.stable import largest
from pullback._core.typing import Array, Namespace
from pullback._ops.losses.reduction import Loss, Reduction, read_loss, reduced, scaled


def softmax_cross_entropy(
    a: Array, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> Loss:
    """Cross entropy of the softmax of `a` with the targets `y`, and its gradient.

    Parameters
    ----------
    a : Array, shape (..., n)
        Logits, real: any number of leading batch axes, one entry for each of the n classes.
    y : Array, shape (...) or (..., n)
        Targets. An array of integers holds a class index in 0 … n - 1 for each example; a floating one holds a
        weight for each class, usually probabilities that sum to one.
    weights : Array, shape (...), optional
        A weight for each example, floating or integer. One of weight 0 does not count, even where it is not finite or
        its class index is out of range, as padding may be.
    reduction : {"mean", "sum", "none"}, default "mean"
        Over the examples. The mean with weights is ``Σ weights loss / Σ weights``; over no examples, or with no
        weight, it is NaN.

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
    softmax_cross_entropy_hessian_product : Its curvature.
    logistic : For labels that hold or not, each by itself.

    Notes
    -----
    With ``p = softmax(a)``, an example's loss is ``-Σ_j y_j log p_j`` and its gradient ``p Σ_j y_j - y`` [1]_. Both
    come from one exponential of ``a - max(a)``, which does not overflow where the dtype can hold the differences of
    the logits. A class of weight 0 adds 0 to the loss, even where its logit is -inf.

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
    xp, cast_output, (logits, target, weights) = read_loss("softmax_cross_entropy", weights, reduction, a=a, y=y)
    indices = target.dtype != logits.dtype
    _check_classes("softmax_cross_entropy", a, y, indices=indices)
    mass: Any = 1.0
    if indices:
        index, inside, classes = _indices(xp, logits, target)
        target = index == classes
        shifted = _shifted(xp, logits, index == inside)
        score = _pick(xp, shifted, inside, target)
    else:
        shifted = logits - largest(xp, logits)
        mass = sum_last(xp, target)
        score = sum_last(xp, target * xp.where(target == 0, 0.0, shifted))
    da = xp.exp(shifted)
    total = sum_last(xp, da)
    value = mass * xp.log(total) - score
    # Fresh memory costs NumPy more than the arithmetic: no more than two arrays of this size at a time. Hence this
    # deletion, and a target that stays boolean up to the subtraction.
    del shifted
    da *= mass / total
    da -= xp.astype(target, da.dtype) if indices else target
    value, da = reduced(xp, value, da, weights, reduction)
    return Loss(cast_output(value), cast_output(da, a.dtype))


def softmax_cross_entropy_hessian_product(
    v: Array, a: Array, y: Array, /, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> Array:
    """Multiply `v` by the Hessian of `softmax_cross_entropy` for the logits.

    Parameters
    ----------
    v : Array, shape (..., n)
        Vector, of the shape of `a`: usually the tangent of the logits.
    a : Array, shape (..., n)
        Logits of `softmax_cross_entropy`.
    y : Array, shape (...) or (..., n)
        Targets of `softmax_cross_entropy`.
    weights : Array, shape (...), optional
        Weights of `softmax_cross_entropy`. What `v` has for an example of weight 0 does not count.
    reduction : {"mean", "sum", "none"}, default "mean"
        As in `softmax_cross_entropy`: each example's own Hessian, times its weight in the reduced loss. So "none"
        gives what "sum" gives.

    Returns
    -------
    Array, shape (..., n)
        ``H v``, the change of the loss's `da` along `v`, in the dtype and on the device of `a`.

    Raises
    ------
    TypeError
        As `softmax_cross_entropy` does, or if `v` has no real floating dtype.
    ValueError
        As `softmax_cross_entropy` does, or if `v` has not the shape of `a`.

    See Also
    --------
    softmax_cross_entropy : The loss.

    Notes
    -----
    With ``p = softmax(a)``, an example's product is ``(p ∘ v - p (p · v)) Σ_j y_j``; for a class index, the sum is 1.
    The matrix is never formed. An example whose index is out of range gets NaN, as in the loss.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import softmax_cross_entropy_hessian_product
    >>> softmax_cross_entropy_hessian_product(np.asarray([[1.0, 0.0]]), np.zeros((1, 2)), np.asarray([0]))
    array([[ 0.25, -0.25]])
    """
    name = "softmax_cross_entropy_hessian_product"
    xp, cast_output, (v, logits, target, weights) = read_loss(name, weights, reduction, v=v, a=a, y=y)
    indices = target.dtype != logits.dtype
    _check_classes(name, a, y, indices=indices)
    mass: Any = 1.0
    if indices:
        index, inside, _ = _indices(xp, logits, target)
        p = xp.exp(_shifted(xp, logits, index == inside))
    else:
        p, mass = xp.exp(logits - largest(xp, logits)), sum_last(xp, target)
    total = sum_last(xp, p)
    out = v - dot_last(xp, p, v) / total
    p *= mass / total
    out *= p
    return cast_output(scaled(xp, out, weights, reduction), a.dtype)


def _check_classes(function: str, a: Array, y: Array, /, *, indices: bool) -> None:
    """Check that there are classes, and that `y` holds indices or weights of them."""
    if a.shape[-1] == 0:
        msg = f"{function}: a must have a last axis of at least one class, shape (..., n); got {shapes(a=a)}"
        raise ValueError(msg)
    if indices:
        if not same_shape(y.shape, a.shape[:-1]):
            msg = f"{function}: class indices y must have the shape of a without its last axis; got {shapes(y=y, a=a)}"
            raise ValueError(msg)
    elif not same_shape(y.shape, a.shape):
        msg = f"{function}: probabilities y must have the shape of a; got {shapes(y=y, a=a)}"
        raise ValueError(msg)


def _indices(xp: Namespace, a: Array, y: Array, /) -> tuple[Any, Any, Any]:
    """Return the class indices as a column, the same inside 0 … n - 1, and those numbers."""
    classes = xp.arange(a.shape[-1], device=device(a))
    # In the default integer dtype, in which every number of classes fits.
    index = xp.astype(y, classes.dtype)[..., None]
    return index, index % a.shape[-1], classes


def _shifted(xp: Namespace, a: Array, ok: Array, /) -> Array:
    """Return ``a - max(a)``: NaN, in place of a number that would look like a loss, where the index hits no class."""
    out: Array = a - xp.where(ok, largest(xp, a), math.nan)
    return out


def _pick(xp: Namespace, x: Array, index: Array, hit: Array, /) -> Array:
    """Return the entries of `x` at `index` on the last axis, which is kept: those where `hit` is true."""
    out: Array
    if hasattr(xp, "take_along_axis"):
        out = xp.take_along_axis(x, index, axis=-1)
    else:  # Dask
        out = xp.sum(xp.where(hit, x, 0.0), axis=-1, keepdims=True)
    return out


SOFTMAX_CROSS_ENTROPY = Pair(
    "softmax_cross_entropy",
    softmax_cross_entropy,
    None,
    inputs={"a": (4, 3), "y": [0, 1, 2, 0]},
    needs=("a", "y"),
    hessian_product=softmax_cross_entropy_hessian_product,
    real=True,
)
