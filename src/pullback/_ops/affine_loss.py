"""The loss of an affine map and its gradients in one call, which checks once and computes block by block.

In host memory, a block of rows of a large batch has its outputs, its loss and its gradients computed before the next
one, so that its rows are read from memory once and its outputs are never whole. Other arrays are one block: XLA and
Dask fuse or stream what a whole batch is made of, and a GPU is faster on large arrays.
"""

from collections.abc import Callable, Collection
from typing import Any, Generic, NamedTuple

from pullback._core.arguments import cached_namespace, check_wrt, identity
from pullback._core.memory import add, is_host_memory, place
from pullback._core.reduction_policy import LOSS_ROWS, loss_rows
from pullback._core.reductions import accumulation_dtype
from pullback._core.tracing import is_traced
from pullback._core.typing import Array, ArrayT, Namespace
from pullback._ops.affine import affine_backward, affine_forward, checked_backward, checked_forward
from pullback._ops.losses import LOSSES
from pullback._ops.losses.reduction import CheckedLoss

_INPUTS = ("z", "w", "b")
_PARAMETERS = ("w", "b")
# The check of each loss, and its options by default.
_KNOWN: dict[Any, tuple[Any, Any]] = {pair.forward: (pair.check, pair.forward.__kwdefaults__) for pair in LOSSES}


class LossGradients(NamedTuple, Generic[ArrayT]):
    """The loss of an affine map and its gradients; None where `wrt` did not ask, and for a bias that is None.

    Attributes
    ----------
    value : Array
        The loss: a 0-d array, or one entry for each example with ``reduction="none"``.
    dz : Array or None
        Gradient for the input batch: shape, dtype and device of `z`.
    dw : Array or None
        Gradient for the weights: shape, dtype and device of `w`.
    db : Array or None
        Gradient for the bias: shape (n,), or () for a vector of weights; dtype and device of `w`.
    """

    value: ArrayT
    dz: ArrayT | None
    dw: ArrayT | None
    db: ArrayT | None


def loss_and_gradients(  # noqa: PLR0913 - the arguments of the map
    z: ArrayT,
    y: Array,
    w: ArrayT,
    b: ArrayT | None = None,
    /,
    *,
    loss: Callable[..., Any],
    wrt: Collection[str] = _PARAMETERS,
    **options: Any,  # noqa: ANN401 - those of the loss
) -> LossGradients[ArrayT]:
    """Compute the loss of an affine map and its gradients, as for a generalized linear model.

    Parameters
    ----------
    z : Array, shape (..., k)
        Input batch: any number of leading batch axes. Or a sparse matrix or a linear operator, as `affine_forward`
        takes.
    y : Array
        Targets of the loss, for the outputs ``z w + b``.
    w : Array, shape (k, n) or (k,)
        Weights. A vector is the weights of a single output.
    b : Array, shape (n,) or (), optional
        Bias, added to every row: 0-d with a vector of weights.
    loss : callable
        A loss of this package, `logistic` for example, or any ``loss(a, y, **options)`` that returns a pair like
        `Loss`.
    wrt : collection of str, default ("w", "b")
        The inputs to differentiate for, out of "z", "w" and "b". The gradients of the others are not computed. A sparse
        batch has no gradient.
    **options
        Options of the loss: `weights`, `reduction`, and others that it has.

    Returns
    -------
    LossGradients
        ``(value, dz, dw, db)``: the value of the loss, and each gradient with the shape, dtype and device of its
        primal (`db` with the dtype of `w`). With ``reduction="none"``, the gradients are those of the sum.

    Raises
    ------
    TypeError, ValueError
        As `affine_forward`, the loss and `affine_backward` do, in their words; ValueError if `wrt` names something else
        than inputs.

    See Also
    --------
    affine_forward, affine_backward : The map alone.
    Loss : The value and the upstream gradient.

    Notes
    -----
    With the loss ``L(a, y)`` of ``a = z w + b`` and its gradient ``da = ∂L/∂a``, the gradients are ``dw = zᵀ da``,
    ``db = Σ_rows da`` and ``dz = da wᵀ``. The results are those of the separate calls
    ``value, da = loss(affine_forward(z, w, b), y)`` and ``affine_backward(da, z, w)`` up to rounding.

    Large batches in host memory, such as NumPy's, are computed in blocks where `z`, `w` and `b` have one dtype, float32
    or float64. Neither `a` nor `da` is then written as a whole, and `z` is read once. With several outputs, a block has
    2²⁰ entries. With one output, it has 2¹⁹, and a batch of at most 2²³ is one block. Sums over the blocks are in the
    accumulation dtype. On other arrays, and for a loss from elsewhere, this is the separate calls.

    An example of weight 0 is absent, but ``0 * NaN`` is NaN: replace inputs of it that are not finite before, as for
    the losses.

    As a step of `pullback.dask.accumulate`, pass ``reduction="sum"``; `z` and `y` are arrays of the batch, `w` and `b`
    are shared.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import logistic, loss_and_gradients
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> value, _, dw, db = loss_and_gradients(z, np.asarray([0, 1]), np.zeros(2), np.zeros(()), loss=logistic)
    >>> round(float(value), 6)
    0.693147
    >>> dw
    array([-0.5, -0.5])
    >>> float(db)
    0.0
    """
    if wrt is not _PARAMETERS:
        check_wrt("loss_and_gradients", wrt, _INPUTS)
    if b is None:
        wrt = tuple(name for name in wrt if name != "b")
    check, defaults = _KNOWN.get(loss, (None, None))
    xp = None if check is None else _namespace_in_host_memory(z, w, b, (y, *options.values()))
    if xp is None:
        value, da = loss(affine_forward(z, w, b), y, **options)
        return LossGradients(value, *affine_backward(da, z, w, wrt=wrt))
    options = {**defaults, **options}
    shape = z.shape
    # A small batch is one block, whatever its other sizes.
    rows = loss_rows(shape, w.shape) if len(shape) > 2 or shape[0] > LOSS_ROWS else LOSS_ROWS
    if shape[0] <= rows:
        value, da = check(checked_forward(xp, z, w, b), y, **options).loss(z.dtype)
        return LossGradients(value, *checked_backward(xp, identity, da, z, w, wrt))
    # Of the outputs, the checks ask the shape and the dtype.
    outputs = xp.broadcast_to(xp.zeros(1, dtype=z.dtype, **place(z)), (*shape[:-1], *w.shape[1:]))
    return _by_blocks(xp, rows, check(outputs, y, **options), z, w, b, wrt)


def _by_blocks(  # noqa: PLR0913, PLR0917 - the arguments of the call
    xp: Namespace, rows: int, loss: CheckedLoss, z: Array, w: Array, b: Array | None, wrt: Collection[str], /
) -> LossGradients[Any]:
    """Compute blocks of rows one after the other, and sum what they give in the accumulation dtype."""
    wide = accumulation_dtype(xp, w)
    dz = xp.empty(z.shape, dtype=z.dtype, **place(z)) if "z" in wrt else None
    values: list[Any] = []
    dw: Any = None
    db: Any = None
    for start in range(0, z.shape[0], rows):
        part = slice(start, start + rows)
        block = z[part, ...]
        part_of_value, da = loss.part(checked_forward(xp, block, w, b), part)
        values.append(part_of_value)
        of_z, of_w, of_b = checked_backward(xp, identity, da, block, w, wrt)
        if dz is not None:
            dz[part, ...] = of_z
        if of_w is not None:
            dw = xp.astype(of_w, wide) if dw is None else add(dw, of_w)
        if of_b is not None:
            db = xp.astype(of_b, wide) if db is None else add(db, of_b)
    dw, db = (x if x is None else xp.astype(x, w.dtype) for x in (dw, db))
    value = xp.concat(values) if loss.reducer.reduction == "none" else sum(values)
    return LossGradients(loss.value(value), dz, dw, db)


def _namespace_in_host_memory(z: Array, w: Array, b: Array | None, others: tuple[Any, ...], /) -> Namespace | None:
    """Return the namespace of arrays to compute block by block; None for others, whose checks are those of each call.

    These are a batch and parameters of float32 or float64 in host memory that fit each other, with no array recorded.
    """
    if not is_host_memory(z) or type(w) is not type(z) or any(map(is_traced, (b, *others))):
        return None
    fits = z.ndim > 1 and w.ndim in (1, 2) and z.shape[-1] == w.shape[0]
    if not fits or not (b is None or getattr(b, "shape", None) == w.shape[1:]):
        return None
    xp = cached_namespace(z, w) if b is None else cached_namespace(z, w, b)
    if xp is None:
        # A row is checked as all are. A bias may be a scalar, which has a type of its own.
        affine_forward(z[:1, ...], w, b)
        xp = cached_namespace(z, w) if b is None or b.dtype == z.dtype else None
    return xp
