"""The result of a loss, the checks of its arguments, its labels and weights, and the reduction over examples.

No loss checks the values of its labels: that is one more pass over an eager array, and computes a lazy one. Each
docstring says which labels the loss takes. Booleans count as 0 and 1.

A loss of single outputs takes a vector as a batch of examples with one output each, as scikit-learn does.

An example or an output of weight 0 is absent. Its outputs, labels and tangents are replaced by 0 before anything is
computed, so that its loss and its entries of `da` are 0, also to autodiff and also where it holds NaN. But the
backward of a layer multiplies that row of `da` by the example's row of the layer's input, and ``0 * NaN`` is NaN.
Inputs that may be NaN or infinite there are replaced once, before the forward:
``z = xp.where(weights[..., None] == 0, 0.0, z)``.
"""

import math
from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, TypeAlias

from pullback._core.arguments import (
    cached_namespace,
    identity,
    same_shape,
    shapes,
    validate_arrays,
    validate_library_and_device,
)
from pullback._core.dtypes import is_dtype
from pullback._core.memory import divide, is_host_memory, multiply
from pullback._core.reduction_policy import VECTOR
from pullback._core.reductions import accumulation_dtype, sum_all, sum_last, sum_vector
from pullback._core.tracing import lifted
from pullback._core.typing import Array, ArrayT, Cast, DType, Namespace

Reduction: TypeAlias = Literal["mean", "sum", "none"]
_REDUCTIONS = ("mean", "sum", "none")
_OTHER_KINDS = {"y": ("integral", "bool"), "weights": ("integral",)}
_RULES = {
    "y": "a real floating dtype, an integer one or bool",
    "weights": "a real floating dtype or an integer one",
}

# Of arguments that have passed the checks of library and dtype: their namespace, the names of the floating ones, and
# whether all of these have one dtype, to compute in and to return.
_known: dict[tuple[Any, ...], tuple[Namespace, tuple[str, ...], bool]] = {}


class Loss(NamedTuple, Generic[ArrayT]):
    """A loss and its gradient.

    Attributes
    ----------
    value : Array
        The loss: a 0-d array, or one entry for each example with ``reduction="none"``.
    da : Array
        The upstream gradient ``∂value/∂a``, for a backward to take: shape, dtype and device of `a`. With
        ``reduction="none"``, the gradient of each example's own loss.
    """

    value: ArrayT
    da: ArrayT


class Reducer(NamedTuple):
    """The reduction over examples, and the factor that each one has in it."""

    xp: Namespace
    reduction: str
    share: Array | None
    """The factors (..., 1) of the examples, (m,) for vectors, or (..., n) of the outputs, where there are weights."""
    examples: Any
    """Number of examples for a mean, NaN for none; 1 for a sum."""
    is_vector: bool = False
    """Whether the outputs are a vector, with one entry for each example."""
    of_outputs: bool = False
    """Whether the factors are those of outputs."""
    weights: Array | None = None
    """The weights, in the shape of the factors, where there are any."""

    def part(self, rows: slice, /) -> "Reducer":
        """Return the reduction of some rows. The totals of all blocks of rows sum to the total of the batch."""
        if self.share is None or self.weights is None:
            return self
        return self._replace(share=self.share[rows, ...], weights=self.weights[rows, ...])

    def reduced(self, x: Array, da: Array, /) -> tuple[Array, Array]:
        """Return the reduced losses ``Σ_j x_j da_j``, and `da` with the factors of the examples.

        Nothing else holds the arrays.
        """
        is_sum = self.reduction != "none" and (self.is_vector or x.shape[1:] == (1,))
        if is_sum and is_host_memory(x) and x.shape[0] <= VECTOR and x.dtype == self.xp.float64:
            # One product, without an array of losses. The factors are those of `da`.
            da = self.scaled(da)
            total = x @ da if self.is_vector else x[:, 0] @ da[:, 0]
            return self._sum_of(total), da
        return self.total_of_outputs(multiply(x, da)), self.scaled(da)

    def present(self, x: Array, /) -> Array:
        """Return outputs, tangents or labels with 0 where the weight is 0."""
        if self.weights is None:
            return x
        # Not kept: the mask takes a quarter of the memory of a float32 array.
        absent = self.xp.equal(self.weights, 0)
        return self.xp.where(absent if x.ndim == absent.ndim else absent[..., 0], 0, x)

    def total_of_outputs(self, losses: Array, /) -> Array:
        """Reduce the losses (..., n) or (m,) of the outputs, which nothing else holds."""
        if self.of_outputs:
            losses = multiply(losses, self.share)
        return self.total(losses if self.is_vector else sum_last(self.xp, losses))

    def total(self, losses: Array, /) -> Array:
        """Reduce the losses (..., 1) or (m,) of the examples, which nothing else holds; in the accumulation dtype."""
        if self.share is not None and not self.of_outputs:
            losses = multiply(losses, self.share)
        value = losses if self.is_vector else losses[..., 0]
        if self.reduction == "none":
            return value
        wide = accumulation_dtype(self.xp, value)
        if wide != value.dtype:
            total = self.xp.sum(value, dtype=wide)
            return total / self.examples if self.share is None else total + 0 * self.examples
        # Divided first, so that the sum overflows only where the mean does. Of no examples, the sum is 0, the mean NaN.
        if self.share is None and self.reduction == "mean":
            value = divide(value, self.examples)
        in_host_memory = value.ndim == 1 and is_host_memory(value)
        return self._sum_of(sum_vector(self.xp, value) if in_host_memory else self.xp.sum(value))

    def _sum_of(self, total: Array, /) -> Array:
        """Return a sum over the examples; NaN for a mean of none."""
        return total if type(self.examples) is int else total + 0 * self.examples

    def scaled(self, x: Array, /) -> Array:
        """Multiply each example of `x`, as `a`, which nothing else holds, by its factor in the reduced loss."""
        if self.share is not None:
            return multiply(x, self.share)
        return divide(x, self.examples) if self.reduction == "mean" else x


Formula: TypeAlias = Callable[..., tuple[Array, Array]]
"""``formula(xp, a, y, reducer, *options)`` returns the reduced loss, and its gradient for `a`."""


class CheckedLoss(NamedTuple):
    """A loss whose arguments are checked, to be computed for all rows of the outputs at once or for some at a time."""

    xp: Namespace
    cast_output: Cast
    reducer: Reducer
    a: Array
    y: Array
    """The outputs and the labels, in the dtype to compute in."""
    formula: Formula
    options: tuple[Any, ...]

    def loss(self, dtype: DType, /) -> Loss[Any]:
        """Compute the loss and its gradient for all outputs, which have this dtype."""
        value, da = self.formula(self.xp, self.reducer.present(self.a), self.y, self.reducer, *self.options)
        return Loss(self.value(value), self.cast_output(da, dtype))

    def part(self, a: ArrayT, rows: slice, /) -> tuple[Array, ArrayT]:
        """Compute the loss and its gradient for the outputs `a` of some rows, as parts of those of all rows.

        The part of the loss is in the accumulation dtype.
        """
        reducer, dtype = self.reducer.part(rows), self.a.dtype
        ready = reducer.present(a if a.dtype == dtype else self.xp.astype(a, dtype))
        value, da = self.formula(self.xp, ready, self.y[rows, ...], reducer, *self.options)
        return value, self.cast_output(da, a.dtype)

    def value(self, total: Array, /) -> Any:  # noqa: ANN401 - an array of the library of `a`
        """Return a reduced loss in the dtype of the result."""
        dtype = self.a.dtype
        return self.cast_output(total if total.dtype == dtype else self.xp.astype(total, dtype))


def check_loss(  # noqa: PLR0913, PLR0917 - the arguments of the loss
    function: str,
    formula: Formula,
    a: Array,
    y: Array,
    weights: Array | None,
    reduction: str,
    /,
    *options: Any,  # noqa: ANN401 - those of the formula
    check_labels: Callable[[str, Array, Array], None] | None = None,
) -> CheckedLoss:
    """Check the arguments of a loss: of single outputs, unless its labels have a check of their own."""
    xp = cached_namespace(a, y) if weights is None and check_labels is None else None
    # Fast path: a label of the same dtype for each output.
    if xp is not None and reduction in _REDUCTIONS and a.ndim > 0 and y.shape == a.shape:
        is_vector = a.ndim == 1
        count: Any = _count(xp, a, a.shape if is_vector else a.shape[:-1]) if reduction == "mean" else 1
        return CheckedLoss(xp, identity, Reducer(xp, reduction, None, count, is_vector), a, y, formula, options)
    xp, cast_output, reducer, (a, y) = _read(function, weights, reduction, check_labels or _check_outputs, a=a, y=y)
    if check_labels is None and y.dtype != a.dtype:
        y = xp.astype(y, a.dtype)
    return CheckedLoss(xp, cast_output, reducer, a, reducer.present(y), formula, options)


def read_outputs(
    function: str, weights: Array | None, reduction: str, /, **arrays: Array
) -> tuple[Namespace, Cast, Reducer, list[Any]]:
    """Check the arguments of a loss of single outputs, and return as `read_loss` does.

    The labels have the shape of `a`, and so may the weights. Labels are returned in floats.
    """
    xp, cast_output, reducer, ready = read_loss(function, weights, reduction, _check_outputs, **arrays)
    if ready[-1].dtype != ready[-2].dtype:
        ready[-1] = xp.astype(ready[-1], ready[-2].dtype)
    return xp, cast_output, reducer, ready


def read_loss(
    function: str,
    weights: Array | None,
    reduction: str,
    check_labels: Callable[[str, Array, Array], None],
    /,
    **arrays: Array,
) -> tuple[Namespace, Cast, Reducer, list[Any]]:
    """Check the arguments of a loss: perhaps a tangent `v`, outputs `a` and labels `y`, in this order.

    Returns their namespace, the cast of a result, the reduction, and the arrays in the dtype to compute in, except that
    integers in `y` stay integers. What has weight 0 is 0 in them.
    """
    xp, cast_output, reducer, ready = _read(function, weights, reduction, check_labels, **arrays)
    return xp, cast_output, reducer, [reducer.present(x) for x in ready]


def _read(
    function: str,
    weights: Array | None,
    reduction: str,
    check_labels: Callable[[str, Array, Array], None],
    /,
    **arrays: Array,
) -> tuple[Namespace, Cast, Reducer, list[Any]]:
    """Check and return as `read_loss`, but what has weight 0 stays as it is."""
    if weights is not None:
        arrays["weights"] = weights
    xp, floating, usual = _check_dtypes(function, arrays)
    single = check_labels is _check_outputs
    _check_shapes(function, arrays, single=single)
    if reduction not in _REDUCTIONS:
        msg = f"{function}: reduction must be one of {_REDUCTIONS}; got {reduction!r}"
        raise ValueError(msg)
    cast_output: Cast = identity
    if not usual:
        _, _, cast_output, ready = validate_arrays(function, floating, *[arrays[name] for name in floating])
        arrays.update(zip(floating, ready, strict=True))
    a, y = arrays["a"], arrays["y"]
    if y.dtype == xp.bool:
        arrays["y"] = y = xp.astype(y, a.dtype)
    check_labels(function, a, y)
    is_vector = single and a.ndim == 1
    count: Any = _count(xp, a, a.shape if is_vector else a.shape[:-1]) if reduction == "mean" else 1
    if weights is None:
        return xp, cast_output, Reducer(xp, reduction, None, count, is_vector), [*arrays.values()]
    weights = xp.astype(arrays.pop("weights"), a.dtype, copy=False)
    of_outputs = weights.ndim == a.ndim and not is_vector
    if weights.ndim != a.ndim:
        weights = weights[..., None]
    share = weights
    if reduction == "mean":
        share = _shares(xp, weights, count)
        if of_outputs:
            # As many as one example has: weights that are the same for all of its outputs are those of examples.
            share = share * (_count(xp, a, a.shape) / count)
    return xp, cast_output, Reducer(xp, reduction, share, count, is_vector, of_outputs, weights), [*arrays.values()]


def _check_dtypes(function: str, given: dict[str, Array], /) -> tuple[Namespace, tuple[str, ...], bool]:
    """Check the libraries, devices and dtypes; return what `_known` holds."""
    cls, device = type(given["a"]), getattr(given["a"], "device", None)
    parts: list[Any] = [cls, *given]
    for x in given.values():
        if type(x) is not cls or getattr(x, "device", None) != device or not hasattr(x, "dtype"):
            break
        parts.append(x.dtype)
    # Arrays of several types or devices have no key: it would lack their dtypes.
    key = tuple(parts) if len(parts) == 1 + 2 * len(given) else None
    # Asking for the kind of each dtype takes as long as a small sum.
    known = None if key is None else _known.get(key)
    if known is not None:
        return known
    given.update(zip(given, lifted(tuple(given.values())), strict=True))
    xp = validate_library_and_device(function, tuple(given), *given.values())
    floating = []
    for name, x in given.items():
        if is_dtype(xp, x.dtype, "real floating"):
            floating.append(name)
        elif not is_dtype(xp, x.dtype, *_OTHER_KINDS.get(name, ())):
            msg = f"{function}: {name} must have {_RULES.get(name, 'a real floating dtype')}; got {x.dtype}"
            raise TypeError(msg)
    usual = cached_namespace(*(given[name] for name in floating)) is not None
    known = xp, tuple(floating), usual
    if key is not None and cached_namespace(given["a"]) is not None:
        _known[key] = known
    return known


def _check_shapes(function: str, given: dict[str, Array], /, *, single: bool) -> None:
    """Check all shapes but that of `y`; `single` says that each output has a loss of its own."""
    a = given["a"]
    if a.ndim == 0:
        rule = "shape (..., n) or, for one output, (m,)" if single else "of the outputs for an example, shape (..., n)"
        msg = f"{function}: a must have a last axis, {rule}; got {shapes(a=a)}"
        raise ValueError(msg)
    if "v" in given and not same_shape(given["v"].shape, a.shape):
        msg = f"{function}: v must have the shape of a; got {shapes(v=given['v'], a=a)}"
        raise ValueError(msg)
    if "weights" in given:
        fitting = [a.shape] if single else []
        fitting += [] if single and a.ndim == 1 else [a.shape[:-1]]
        if not any(same_shape(given["weights"].shape, shape) for shape in fitting):
            rule = "the shape of a without its last axis" + (", or for each output, the shape of a" if single else "")
            got = shapes(weights=given["weights"], a=a)
            msg = f"{function}: weights must have one entry for each example, {rule}; got {got}"
            raise ValueError(msg)


def _check_outputs(function: str, a: Array, y: Array, /) -> None:
    """Check that there is a label for each output."""
    if not same_shape(y.shape, a.shape):
        way = ""
        if same_shape((*y.shape, 1), a.shape):
            way = f". Pass y[{':, ' * y.ndim}None]"
        elif same_shape(y.shape, (*a.shape, 1)):
            way = f". Pass y[{':, ' * a.ndim}0]"
        msg = f"{function}: y must have the shape of a; got {shapes(y=y, a=a)}{way}"
        raise ValueError(msg)


def _shares(xp: Namespace, weights: Array, count: Array | float, /) -> Array:
    """Return ``weights / Σ weights``; NaN where the sum is 0."""
    # Divided by their number first, so that the sum does not overflow, and by 8, so that its reciprocal, which XLA
    # multiplies with, does not underflow; in a wide dtype, in which small weights stay exact.
    parts = xp.astype(weights, accumulation_dtype(xp, weights), copy=False) / (count * 8)
    total = xp.sum(parts)
    return xp.astype(parts / xp.where(xp.equal(total, 0), math.nan, total), weights.dtype, copy=False)


def _count(xp: Namespace, x: Array, shape: tuple[int, ...], /) -> Array | float:
    """Return the number of examples in `x`, whose axes have this shape; NaN for none, of which there is no mean."""
    if set(map(type, shape)) <= {int}:
        return math.prod(shape) or math.nan
    # Counted lazily.
    zeros = xp.zeros_like(x)
    total = sum_all(xp, (zeros if len(shape) == x.ndim else xp.sum(zeros, axis=-1)) + 1)
    return xp.where(xp.equal(total, 0), math.nan, total)
