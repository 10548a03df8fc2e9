"""The loss of an affine map on a batch in files: what its inputs must be, and the step that runs on a block."""

from collections.abc import Mapping
from math import inf, nan, prod
from typing import Any, NamedTuple

import numpy as np

from pullback import affine_backward, affine_forward, huber, logistic, poisson, softmax_cross_entropy, squared_error
from pullback._cli.console import CommandError
from pullback._cli.gradient.files import FLOATING, LABELS, NUMBERS, REAL, File, Kind, cast
from pullback._core.typing import Array, DaskArray, DType
from pullback.dask import accumulate

LOSSES: dict[str, Any] = {f.__name__: f for f in (squared_error, logistic, softmax_cross_entropy, poisson, huber)}
REDUCTIONS = "mean", "sum"
_SOFTMAX = softmax_cross_entropy.__name__
# The labels for which a loss has a lower bound.
_RANGES = {logistic.__name__: (0, 1), poisson.__name__: (0, inf)}
_RULES = {logistic.__name__: "0 and 1 or probabilities", poisson.__name__: "counts of at least 0"}


class LossGradients(NamedTuple):
    """The loss of some rows, and its gradients; None where `wrt` did not ask."""

    loss: Array
    dz: Array | None
    dw: Array | None
    db: Array | None


class LossStep(NamedTuple):
    """Compute the loss of some rows and its gradients, for `accumulate`."""

    loss: str
    wrt: tuple[str, ...]
    made_row_bytes: int
    """The bytes of the outputs for a row, which limit the rows of a strip."""

    def __call__(self, z: Array, y: Array, *others: Any) -> LossGradients:  # noqa: ANN401 - arrays, None, a number
        """Take rows of z, targets and perhaps example weights, then weights, bias and what the sum is divided by.

        NaN and infinity are results, and no warning.
        """
        *given, w, b, total = others
        with np.errstate(all="ignore"):
            a = affine_forward(z, w, b)
            # A total of zero is that of no weights at all, which have no mean.
            shares = [np.divide(s, total or nan, dtype=_floating(s, a)) for s in given]
            self._check(y, a, *shares)
            value, upstream = LOSSES[self.loss](a, y, weights=shares[0] if shares else None, reduction="sum")
            if not shares:
                value = value / total
                upstream /= total
            gradients = affine_backward(upstream, z, w, wrt=self.wrt)
        # float64 for rows of any dtype, since an optimizer compares two of these sums.
        return LossGradients(np.asarray(value, np.float64), *gradients)

    def _check(self, y: Any, a: Array, shares: Any = None, /) -> None:  # noqa: ANN401 - NumPy's
        """Check the labels of the rows that are not absent."""
        low, high = _RANGES.get(self.loss, (-inf, inf))
        rule = _RULES.get(self.loss, "")
        if self.loss == _SOFTMAX and y.dtype.kind in "iu":
            low, high = 0, a.shape[-1] - 1
            rule = f"class indices from 0 to {high:,}, as --weights has {high + 1:,} columns"
        if not rule or y.dtype == bool:
            return
        wrong = (y < low) | (y > high)
        if shares is not None:
            wrong &= (shares if shares.ndim == wrong.ndim else shares[..., None]) != 0
        if wrong.any():
            msg = f"--targets of {self.loss} must be {rule}; got {y[wrong][0]}"
            raise CommandError(msg, advice="correct the targets, or give these rows an example weight of 0", status=1)


def _floating(s: Any, a: Any, /) -> DType:  # noqa: ANN401 - NumPy's
    """Return the dtype that a loss computes in with these weights."""
    return np.result_type(a, s) if s.dtype.kind == "f" else a.dtype


def _sum(s: Any, /) -> Array:  # noqa: ANN401 - NumPy's
    """Sum weights, whatever their dtype, in float64."""
    return np.asarray(np.sum(s, dtype=np.float64))


def kind(name: str, *, loss: bool) -> Kind:
    """Return the arrays that an option takes; losses are real."""
    floating = REAL if loss else FLOATING
    axes = {"z": 2, "bias": 0}
    others = {"targets": LABELS, "example_weights": NUMBERS}
    return others.get(name, floating.least(axes.get(name, 1)))


def output_shape(z: File, weights: File, /) -> tuple[int, ...]:
    """Return the shape of the outputs of the affine map."""
    return *z.shape[:-1], *weights.shape[1:]


def computed_dtype(*files: File) -> DType:
    """Return the dtype that a step computes in: the widest of the floating numbers, float32 at the least."""
    return np.result_type(np.float32, *(file.dtype for file in files if file.dtype.kind in "fc"))


def check_shapes(loss: str, files: Mapping[str, File], /) -> None:
    """Check that the inputs of a loss fit each other."""
    z, w, y = (files[name] for name in ("z", "weights", "targets"))
    if w.ndim > 2 or w.shape[0] != z.shape[-1]:
        k = z.shape[-1]
        msg = f"--weights must have shape ({k}, n), or ({k},) for one output, as --z has shape {z.shape}; got {w.shape}"
        raise CommandError(msg)
    a = output_shape(z, w)
    if loss == _SOFTMAX and len(a) == 1:
        msg = f"--weights of {loss} must have a column for each class, shape ({w.shape[0]}, n); got {w.shape}"
        raise CommandError(msg)
    if "bias" in files and files["bias"].shape != w.shape[1:]:
        msg = f"--bias must have shape {w.shape[1:]}, as --weights has shape {w.shape}; got {files['bias'].shape}"
        raise CommandError(msg)
    _check_targets(loss, y, a)
    if "example_weights" in files:
        shapes = [a[:-1], a] if len(a) > 1 else [a]
        s = files["example_weights"].shape
        if s not in (shapes[:1] if loss == _SOFTMAX else shapes):
            each = f", or for each output, shape {a}" if len(a) > 1 and loss != _SOFTMAX else ""
            msg = f"--example-weights must have one number for each example, shape {shapes[0]}{each}; got {s}"
            raise CommandError(msg)


def _check_targets(loss: str, y: File, a: tuple[int, ...], /) -> None:
    """Check that there is a label for each of the outputs, which have shape `a`."""
    classes = loss == _SOFTMAX
    expected = a[:-1] if classes and y.dtype.kind in "iu" else a
    if y.shape == expected:
        return
    msg = (
        f"--targets of {loss} must have shape {expected}, as --z and --weights give outputs of shape {a}; got {y.shape}"
    )
    advice = ""
    if classes and y.shape == a[:-1]:
        advice = f"class indices are integers; {cast(y, 'int64')}"
    elif y.shape == (*expected, 1) or (*y.shape, 1) == expected:
        way = "without its last axis" if y.ndim > len(expected) else "with an axis of size 1 at the end"
        advice = f"save the targets {way}"
    raise CommandError(msg, advice=advice)


def divisor(files: Mapping[str, File], rows: int, /) -> float | DaskArray:
    """Return what the sum over the examples is divided by for their mean: their number, or that of their weights."""
    a = output_shape(files["z"], files["weights"])
    if "example_weights" not in files:
        # A step must return 0 for no examples, of which there is no mean.
        return float(prod(a[:-1] or a)) or 1.0
    weights = files["example_weights"]
    each = a[-1] if len(a) > 1 and weights.shape == a else 1
    return accumulate(_sum, weights.lazy(rows)) / each


def lay(  # noqa: PLR0913, PLR0917 - what a loss is made of
    loss: str, wrt: tuple[str, ...], files: Mapping[str, File], rows: int, dtype: DType, point: tuple[Any, ...], /
) -> LossGradients:
    """Lay a loss and its gradients out on blocks of this number of rows; a point is weights, bias and divisor."""
    a = output_shape(files["z"], files["weights"])
    step: Any = LossStep(loss, wrt, prod(a[1:]) * dtype.itemsize)
    batch = [files[name].lazy(rows) for name in ("z", "targets", "example_weights") if name in files]
    return accumulate(step, *batch, shared=point, rows=("dz",) if "z" in wrt else ())


def whole(file: File, dtype: DType | None = None, /) -> DaskArray:
    """Return all of an array in one block, perhaps in another dtype."""
    dtype = dtype or file.dtype
    return file.lazy(-1).map_blocks(_read, file.shape, dtype, meta=np.empty((0,) * file.ndim, dtype))


def _read(x: Any, shape: tuple[int, ...], dtype: DType, /) -> Array:  # noqa: ANN401 - an array, or rows to read
    """Return an array in memory."""
    return np.reshape(np.asarray(x, dtype), shape)
