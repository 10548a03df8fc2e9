"""Softmax cross entropy, its gradient and its Hessian product."""

import math
from typing import Any

from pullback._core.arguments import float_option, same_shape, shapes, validate_library_and_device
from pullback._core.dtypes import is_dtype
from pullback._core.memory import add, divide, is_host_memory, multiply, place, subtract
from pullback._core.pair import Pair
from pullback._core.reductions import dot_last, sum_last
from pullback._core.stable import (
    clipped,
    corrected,
    exact_exponents,
    logits_and_largest,
    may_be_infinite,
    scaled_exponentials,
    without_infinities,
)
from pullback._core.tracing import record
from pullback._core.typing import Array, ArrayT, Namespace
from pullback._ops.losses.reduction import CheckedLoss, Loss, Reducer, Reduction, check_loss, read_loss

# With so few classes, a masked sum takes less time than an indexed read, except in host memory.
_FEW_CLASSES = 64


def softmax_cross_entropy(  # noqa: PLR0913 - the options of the loss
    a: ArrayT,
    y: Array,
    /,
    *,
    weights: Array | None = None,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Loss[ArrayT]:
    """Compute the softmax cross entropy and its gradient, for class indices or a probability of each class.

    The dtype of the labels decides: integers are class indices 0 … n - 1, floats and booleans hold a weight for each
    class, as probabilities and one-hot rows do.

    Parameters
    ----------
    a : Array, shape (..., n)
        Logits, real, with any number of leading batch axes: one for each of the n classes. A vector is a single
        example, whose class index is 0-d.
    y : Array, shape (...) or (..., n)
        Labels: integers of shape (...), or floats or booleans of shape (..., n), usually with a sum of 1 for each
        example. Their values are not checked.
    weights : Array, shape (...), optional
        A weight for each example, as in `squared_error`. An example of weight 0 is absent, also where its class index
        is out of range, as that of padding may be.
    class_weights : Array, shape (n,), optional
        A weight for each class, floating or integer, for labels that are class indices: the loss of an example is
        multiplied by the weight of its class. A weighted mean is ``Σ weights loss / Σ weights``, as with PyTorch's
        ``weight`` and scikit-learn's ``class_weight``. Multiply probabilities by such weights instead.
    label_smoothing : float, default 0.0
        Share of each label that is spread over all classes, at least 0 and below 1. A number that is known during the
        call.
    reduction : {"mean", "sum", "none"}, default "mean"
        Reduction over the examples, as in `squared_error`.

    Returns
    -------
    Loss
        ``(value, da)``, in the namespace and on the device of the inputs; `value` in the promoted dtype of their
        floating ones, `da` in the dtype of `a`. Dtypes narrower than float32 are computed in float32.

    Raises
    ------
    TypeError
        As `squared_error` does.
    ValueError
        If the shapes do not fit, as that of `y` to its dtype, if the arrays lie on different devices, or if `reduction`
        is none of the three.

    See Also
    --------
    softmax_cross_entropy_hessian_product : Its curvature.
    logistic : For labels that are independent of each other.

    Notes
    -----
    With ``p = softmax(a)``, an example's loss is ``-Σ_j y_j log p_j`` and its gradient ``p Σ_j y_j - y`` [1]_. Both
    come from one exponential, as in `softmax_forward`, which does not overflow where the dtype can hold the differences
    of the logits. Of a class with a probability near 1, they use the sum over the other classes, so that confident
    predictions lose no digits. A class of weight 0 adds 0 to the loss, also where its logit is -inf. Logits of inf
    count as the largest number of the dtype: the loss of such a class is 0, that of another class this number.

    A class index outside 0 … n - 1 makes the loss and the gradient of its example NaN, on every library.

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
    recorded = record(
        SOFTMAX_CROSS_ENTROPY,
        (a, y),
        weights=weights,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
    if recorded is not None:
        return recorded
    return _check(
        a,
        y,
        weights=weights,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        reduction=reduction,
    ).loss(a.dtype)


def softmax_cross_entropy_hessian_product(  # noqa: PLR0913 - the options of the loss
    v: ArrayT,
    a: ArrayT,
    y: Array,
    /,
    *,
    weights: Array | None = None,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> ArrayT:
    """Compute the product of the Hessian of `softmax_cross_entropy` with a vector.

    Parameters
    ----------
    v : Array, shape (..., n)
        Vector of the shape of `a`, usually a tangent of the logits.
    a : Array, shape (..., n)
        Logits of `softmax_cross_entropy`.
    y : Array, shape (...) or (..., n)
        Labels of `softmax_cross_entropy`.
    weights : Array, shape (...), optional
        Weights of `softmax_cross_entropy`. The product is 0 for an example of weight 0.
    class_weights : Array, shape (n,), optional
        Weights of the classes of `softmax_cross_entropy`.
    label_smoothing : float, default 0.0
        Smoothing of `softmax_cross_entropy`, on which the Hessian does not depend.
    reduction : {"mean", "sum", "none"}, default "mean"
        Reduction of `softmax_cross_entropy`, as in `squared_error_hessian_product`.

    Returns
    -------
    Array, shape (..., n)
        ``H v``, the derivative of the loss's `da` along `v`, in the dtype and on the device of `a`.

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
    _smoothing(name, label_smoothing)
    weights = _with_class_weights(name, a, y, weights, class_weights)
    xp, cast_output, reducer, (v, logits, y) = read_loss(name, weights, reduction, _check_classes, v=v, a=a, y=y)
    mass: Any = 1.0
    if y.dtype == logits.dtype:
        valid, mass = None, sum_last(xp, y)
    else:
        index, inside, _ = _indices(xp, logits, y)
        valid = index == inside
    logits, most = logits_and_largest(xp, logits, valid)
    top, _ = _top(xp, logits - most)
    # A constant that is added to v changes nothing. Without that of the likeliest class, the others lose no digits.
    out = v - dot_last(xp, top, v)
    del top
    p, tail = _probabilities(xp, logits, most)
    out = subtract(out, dot_last(xp, out if tail is None else out * tail, p))
    out = multiply(multiply(out, p), reducer.scaled(mass if tail is None else tail * mass))
    return cast_output(out, a.dtype)


def _check(  # noqa: PLR0913 - the options of the loss
    a: Array,
    y: Array,
    /,
    *,
    weights: Array | None,
    class_weights: Array | None,
    label_smoothing: float,
    reduction: Reduction,
) -> CheckedLoss:
    """Check the arguments of `softmax_cross_entropy`."""
    name = "softmax_cross_entropy"
    smoothing = _smoothing(name, label_smoothing)
    weights = _with_class_weights(name, a, y, weights, class_weights)
    return check_loss(name, _formula, a, y, weights, reduction, smoothing, check_labels=_check_classes)


def _formula(xp: Namespace, a: Array, y: Array, reducer: Reducer, smoothing: float, /) -> tuple[Array, Array]:
    """Return the reduced loss and its gradient."""
    if smoothing:
        y = _smoothed(xp, a, y, smoothing)
    losses, da = (_of_indices if y.dtype != a.dtype else _of_probabilities)(xp, a, y, reducer)
    return reducer.total(losses), da


def _of_indices(xp: Namespace, a: Array, y: Array, reducer: Reducer, /) -> tuple[Array, Array]:
    """Return the losses (..., 1) for class indices, and the gradient of the reduced loss."""
    index, inside, classes = _indices(xp, a, y)
    a, top = logits_and_largest(xp, a, index == inside)
    other = xp.not_equal(index, classes)
    score = _pick(xp, a, inside, other) - top
    # Fresh memory costs NumPy more than the arithmetic: no more than two arrays of this size at a time.
    da, most = scaled_exponentials(xp, a, top)
    weight = xp.astype(other, a.dtype)
    da = multiply(da, weight)
    rest = sum_last(xp, da)
    # The sum of all exponentials less the largest, exact where the example's class has it and the others vanish.
    excess = rest + xp.expm1(score) * most
    # The gradient of the example's class is minus the probability of the others: their sum, not 1 less a rounded one.
    weight = multiply(subtract(weight, 1), rest)
    da = multiply(add(da, weight), reducer.scaled(1 / (excess + most)))
    return xp.log1p(excess / most) - score, da


def _of_probabilities(xp: Namespace, a: Array, y: Array, reducer: Reducer, /) -> tuple[Array, Array]:
    """Return the losses (..., 1) for a weight of each class, and the gradient of the reduced loss."""
    a, most = logits_and_largest(xp, a)
    mass = sum_last(xp, y)
    below = a - most
    top, single = _top(xp, below)
    da, most = scaled_exponentials(xp, a, most)
    da = subtract(da, top * da)
    if may_be_infinite(xp, below):
        below = without_infinities(xp, below, xp.equal(y, 0))
    score = sum_last(xp, multiply(below, y))
    del below
    # Of the likeliest class, where it is alone, probability and label less 1 are minus the sums over the others.
    y = add(multiply(y * top, -1), y)
    rest, rest_y = sum_last(xp, da), sum_last(xp, y)
    losses = mass * xp.log1p(rest / most + (single - 1)) - score
    scale = mass / (rest + single * most)
    top = multiply(top, scale * rest - rest_y)
    da = subtract(subtract(multiply(da, scale), y), top)
    return losses, reducer.scaled(da)


def _probabilities(xp: Namespace, a: Array, top: Array, /) -> tuple[Array, Array | None]:
    """Return two factors of the probabilities, of which the first is in range where their product is not.

    The second is None where it is 1.
    """
    exponent, largest, error = exact_exponents(xp, a, top)
    # An integer: the difference from it is rounded by little.
    least = xp.trunc(largest) - (700.0 if a.dtype == xp.float64 else 80.0)
    if is_host_memory(a) and 0 not in exponent.shape and xp.min(exponent) >= xp.max(least):
        tail = None
    else:
        tail = xp.exp(clipped(xp, exponent - least, None, 0.0))
        exponent = xp.maximum(exponent, least)
    p = corrected(xp.exp(exponent), error)
    return divide(p, sum_last(xp, p)), tail


def _smoothing(function: str, label_smoothing: float, /) -> float:
    """Return the share of each label that is spread over all classes."""
    return float_option(function, "label_smoothing", label_smoothing, least=0.0, below=1.0)


def _smoothed(xp: Namespace, a: Array, y: Array, smoothing: float, /) -> Array:
    """Return a weight of each class, a share of which is spread over all classes."""
    if y.dtype != a.dtype:
        index, inside, classes = _indices(xp, a, y)
        y = xp.where(index == inside, xp.astype(index == classes, a.dtype), math.nan)
    return y * (1 - smoothing) + sum_last(xp, y) * (smoothing / a.shape[-1])


def _with_class_weights(
    function: str, a: Array, y: Array, weights: Array | None, class_weights: Array | None, /
) -> Array | None:
    """Return the weights of the examples times those of their classes."""
    if class_weights is None:
        return weights
    xp = validate_library_and_device(function, ("a", "y", "class_weights"), a, y, class_weights)
    if a.ndim == 0 or not same_shape(class_weights.shape, a.shape[-1:]):
        got = shapes(class_weights=class_weights, a=a)
        msg = f"{function}: class_weights must have one entry for each class, shape (n,); got {got}"
        raise ValueError(msg)
    if not is_dtype(xp, y.dtype, "integral"):
        msg = (
            f"{function}: class_weights belong to class indices, y of integers; got y of {y.dtype}. "
            "Multiply y by class_weights instead"
        )
        raise ValueError(msg)
    if weights is not None and not (hasattr(weights, "shape") and same_shape(weights.shape, y.shape)):
        return weights  # an error of its own
    # The loss of an index that is out of range is NaN, whichever weight it has here.
    _, inside, classes = _indices(xp, a, y)
    of_classes = xp.astype(class_weights, a.dtype, copy=False)
    factors = sum_last(xp, xp.where(xp.equal(inside, classes), of_classes, 0.0))[..., 0]
    return factors if weights is None else factors * xp.astype(weights, factors.dtype)


def _check_classes(function: str, a: Array, y: Array, /) -> None:
    """Check that there are classes, and that `y` holds indices or weights of them."""
    if a.shape[-1] == 0:
        msg = f"{function}: a must have a last axis of at least one class, shape (..., n); got {shapes(a=a)}"
        raise ValueError(msg)
    if y.dtype == a.dtype:
        if not same_shape(y.shape, a.shape):
            msg = (
                f"{function}: y of floats or booleans holds a weight for each class and must have the shape of a; "
                f"got {shapes(y=y, a=a)}. Class indices must have an integer dtype"
            )
            raise ValueError(msg)
    elif not same_shape(y.shape, a.shape[:-1]):
        msg = (
            f"{function}: y of integers holds class indices and must have the shape of a without its last axis; "
            f"got {shapes(y=y, a=a)}. Probabilities, also 0 and 1, must have a floating dtype or bool"
        )
        raise ValueError(msg)


def _top(xp: Namespace, below: Array, /) -> tuple[Array, Array]:
    """Return 1 for the largest logit of an example, if it is the only one, and the number of such ones (..., 1)."""
    top = xp.astype(xp.equal(below, 0), below.dtype)
    single = xp.astype(xp.equal(sum_last(xp, top), 1), below.dtype)
    return multiply(top, single), single


def _indices(xp: Namespace, a: Array, y: Array, /) -> tuple[Any, Any, Any]:
    """Return the class indices as a column, the same inside 0 … n - 1, and those numbers."""
    classes = xp.arange(a.shape[-1], **place(a))
    # In the default integer dtype, in which every number of classes fits.
    index = xp.astype(y, classes.dtype)[..., None]
    return index, index % a.shape[-1], classes


def _pick(xp: Namespace, x: Array, index: Array, other: Array, /) -> Array:
    """Return the entries of `x` at `index` on the last axis, which is kept: those where `other` is false."""
    few = x.shape[-1] <= _FEW_CLASSES and not is_host_memory(x)
    if few or not hasattr(xp, "take_along_axis"):  # Dask has none
        return sum_last(xp, xp.where(other, 0.0, x))
    return xp.take_along_axis(x, index, axis=-1)


SOFTMAX_CROSS_ENTROPY = Pair(
    "softmax_cross_entropy",
    softmax_cross_entropy,
    None,
    inputs={"a": (4, 3), "y": [0, 1, 2, 0]},
    needs=("a", "y"),
    hessian_product=softmax_cross_entropy_hessian_product,
    check=_check,
    real=True,
)
