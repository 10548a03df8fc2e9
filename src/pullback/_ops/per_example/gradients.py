"""Gradients of each example of an affine layer: themselves, their norms, and their clipped sum."""

from pullback._core.arguments import is_dtype
from pullback._core.reductions import accumulation_dtype, contract_rows, sum_rows
from pullback._core.typing import Array, Elementwise, Namespace
from pullback._ops.per_example.blocking import (
    ParameterGradients,
    blocks,
    gradients,
    positions,
    read_examples,
    real_dtype,
    squared,
)


def per_example_gradients(da: Array, z: Array, /) -> ParameterGradients:
    """Return the gradient of each example's own loss for the weights and the bias of ``a = z w + b``.

    Parameters
    ----------
    da : Array, shape (m, ..., n)
        Upstream gradient: for each of the m examples that of its own loss, as ``reduction="none"`` gives it. The axes
        in the middle, if any, are positions inside an example (the steps of a sequence).
    z : Array, shape (m, ..., k)
        Input batch of the forward.

    Returns
    -------
    ParameterGradients
        ``(dw, db)`` of shapes (m, k, n) and (m, n), in the promoted dtype of `da` and `z`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    per_example_norms : Their norms, without forming them.
    clipped_gradients : Their sum, each clipped to a norm.
    second_moments : The sum of their squares.

    Notes
    -----
    ``dw_i = Σ_t z_itᴴ da_it`` and ``db_i = Σ_t da_it``, over the positions t of example i; the sum over i is what
    `affine_backward` returns. The m · k · n numbers are often more than memory holds: the other functions here return
    what is mostly wanted of them at the cost of one product.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import per_example_gradients
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> da = np.asarray([[1.0, 10.0], [100.0, 1000.0]])
    >>> dw, db = per_example_gradients(da, z)
    >>> dw
    array([[[1.e+00, 1.e+01],
            [2.e+00, 2.e+01]],
    <BLANKLINE>
           [[3.e+02, 3.e+03],
            [4.e+02, 4.e+03]]])
    """
    xp, conj, dtype, (da, z) = read_examples("per_example_gradients", da, z)
    dw, db = gradients(xp, conj, da, z)
    return ParameterGradients(xp.astype(dw, dtype, copy=False), xp.astype(db, dtype, copy=False))


def per_example_norms(da: Array, z: Array, /, *, bias: bool = True) -> Array:
    """Return the norm of each example's gradient for the parameters of ``a = z w + b``, without forming it.

    Parameters
    ----------
    da : Array, shape (m, ..., n)
        Upstream gradient, for each example that of its own loss; the axes in the middle are positions inside it.
    z : Array, shape (m, ..., k)
        Input batch of the forward.
    bias : bool, default True
        Whether the layer has a bias, whose gradient then counts in.

    Returns
    -------
    Array, shape (m,)
        The Euclidean norms, not squared, over weights and bias together: real, of the promoted precision of `da` and
        `z`. Dtypes narrower than float32 are computed in float32 and returned narrow.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    clipped_gradients : The sum of the gradients, each clipped to a norm.

    Notes
    -----
    Without positions, ``‖grad_i‖ = √(‖z_i‖² + 1) ‖da_i‖`` (the one is the bias) [1]_. With t positions, either each
    gradient is formed, a block of examples at a time, or the squared norm is ``Σ_ts (z_it·z_is + 1)(da_it·da_is)``,
    of two Gram matrices of t × t: whichever takes fewer multiplications, ``t k n`` or ``t² (k + n)`` for each example.
    The Gram matrices are squares already: where the gradients of an example's positions cancel, the norm has an error
    of about ``√eps`` of what they were.

    The norm over several layers is the root of the sum of their squares.

    References
    ----------
    .. [1] I. Goodfellow, "Efficient per-example gradient computations", 2015, arXiv:1510.01799.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import per_example_norms
    >>> per_example_norms(np.asarray([[3.0, 4.0], [0.0, 0.0]]), np.asarray([[2.0, 2.0], [1.0, 1.0]]))
    array([15.,  0.])
    """
    xp, conj, dtype, (da, z) = read_examples("per_example_norms", da, z)
    out: Array = xp.astype(_norms(xp, conj, da, z, bias=bias), real_dtype(xp, dtype), copy=False)
    return out


def clipped_gradients(da: Array, z: Array, /, max_norm: float | Array, *, bias: bool = True) -> ParameterGradients:
    """Return the sum of the examples' gradients, each scaled down to a norm of at most `max_norm`.

    Parameters
    ----------
    da : Array, shape (m, ..., n)
        Upstream gradient, for each example that of its own loss; the axes in the middle are positions inside it.
    z : Array, shape (m, ..., k)
        Input batch of the forward.
    max_norm : float or Array, shape ()
        The largest norm of an example's gradient, over weights and bias together; positive. An array, which may be
        lazy or traced, is not asked whether it is.
    bias : bool, default True
        Whether the layer has a bias.

    Returns
    -------
    ParameterGradients
        ``(dw, db)`` of shapes (k, n) and (n,), in the promoted dtype of `da` and `z`; `db` is None without a bias.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `max_norm` is a number that is not positive.

    See Also
    --------
    per_example_norms : The norms.

    Notes
    -----
    ``dw = zᴴ (c ∘ da)`` and ``db = Σ c ∘ da`` with ``c_i = min(1, max_norm / ‖grad_i‖)``: the sum that differentially
    private SGD adds its noise to [1]_. A gradient of norm zero has c = 1. One with a NaN has NaN for its norm and makes
    the sums NaN, rather than pass unclipped.

    To clip the gradient over several layers, take the root of the sum of their squared `per_example_norms`, and hand
    ``c ∘ da`` to each layer's `affine_backward`.

    References
    ----------
    .. [1] M. Abadi et al., "Deep learning with differential privacy", 2016, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import clipped_gradients
    >>> da, z = np.asarray([[3.0, 4.0], [0.3, 0.4]]), np.asarray([[2.0, 2.0], [0.0, 0.0]])
    >>> dw, db = clipped_gradients(da, z, 3.0)
    >>> dw
    array([[1.2, 1.6],
           [1.2, 1.6]])
    >>> db
    array([0.9, 1.2])
    """
    xp, conj, dtype, (da, z) = read_examples("clipped_gradients", da, z)
    if isinstance(max_norm, int | float) and not max_norm > 0:
        msg = f"clipped_gradients: max_norm must be a positive number; got {max_norm}"
        raise ValueError(msg)
    norms = _norms(xp, conj, da, z, bias=bias)
    # Nothing is divided by a norm of zero, and a norm that is NaN stays.
    within = norms <= max_norm
    scale = xp.where(within, 1.0, max_norm / xp.where(within, 1.0, norms))
    da = da * scale[(slice(None), *[None] * (da.ndim - 1))]
    dw = xp.astype(contract_rows(xp, conj(z), da), dtype, copy=False)
    return ParameterGradients(dw, xp.astype(sum_rows(xp, da), dtype, copy=False) if bias else None)


def _norms(xp: Namespace, conj: Elementwise, da: Array, z: Array, /, *, bias: bool) -> Array:
    """Return the norms, in the real part's dtype."""
    if da.ndim == 2:
        # A root for each factor: the product of the squares may overflow where the norm does not.
        squares = _row_squares(xp, conj, z)
        norms: Array = xp.sqrt(squares + 1 if bias else squares) * xp.sqrt(_row_squares(xp, conj, da))
        return norms
    da, z = positions(xp, da), positions(xp, z)
    t, k, n = z.shape[1], z.shape[-1], da.shape[-1]
    gram = z.ndim == 3 and t * (k + n) < k * n
    norms_of = _gram_norms if gram else _formed_norms
    parts = [norms_of(xp, conj, *block, bias=bias) for block in blocks(2 * t * t if gram else k * n, 1, da, z)]
    return parts[0] if len(parts) == 1 else xp.concat(parts)


def _row_squares(xp: Namespace, conj: Elementwise, x: Array, /) -> Array:
    """Return ``‖x_i‖²`` for each row: as a product of matrices, which needs no array of squares."""
    return _real(xp, (conj(x)[:, None, :] @ x[:, :, None])[:, 0, 0])


def _gram_norms(xp: Namespace, conj: Elementwise, da: Array, z: Array, /, *, bias: bool) -> Array:
    """Return the norms of (m, t, ·) arrays by Gram matrices over the positions."""
    of_z, of_da = conj(z) @ xp.matrix_transpose(z), da @ xp.matrix_transpose(conj(da))
    wide = accumulation_dtype(xp, da)
    of_z, of_da = xp.astype(of_z, wide, copy=False), xp.astype(of_da, wide, copy=False)
    total = xp.sum(_real(xp, (of_z + 1 if bias else of_z) * of_da), axis=(1, 2))
    # Where an example's positions cancel, rounding may leave less than nothing.
    norms = xp.sqrt(xp.where(total < 0, 0.0, total))
    out: Array = xp.astype(norms, real_dtype(xp, da.dtype), copy=False)
    return out


def _formed_norms(xp: Namespace, conj: Elementwise, da: Array, z: Array, /, *, bias: bool) -> Array:
    """Return the norms by way of the gradients."""
    dw, db = (squared(xp, x) for x in gradients(xp, conj, da, z))
    total = xp.sum(dw, axis=(1, 2), dtype=accumulation_dtype(xp, dw))
    if bias:
        total = total + xp.sum(db, axis=1, dtype=accumulation_dtype(xp, db))
    out: Array = xp.astype(xp.sqrt(total), dw.dtype, copy=False)
    return out


def _real(xp: Namespace, x: Array, /) -> Array:
    """Return the real part, which of a real array is itself."""
    return xp.real(x) if is_dtype(xp, x.dtype, "complex floating") else x
