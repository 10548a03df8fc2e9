"""Second moments of the gradients of single examples of an affine layer: their sum, variance and signal."""

import math
from functools import partial

from pullback._core.reductions import accumulation_dtype, contract_rows, sum_rows
from pullback._core.typing import Array, ArrayT, Elementwise, Namespace
from pullback._ops.per_example.blocking import (
    ParameterGradients,
    add_up,
    count,
    gradients,
    read_examples,
    real_part,
    square_sums,
    squared,
)
from pullback._ops.per_example.sparse import mean_squares, read_operator


def second_moments(da: ArrayT, z: ArrayT, /) -> ParameterGradients[ArrayT]:
    """Compute the sum over the examples of the squares of their gradients, entry by entry.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a vector of weights
        Upstream gradient. Row i is the gradient of the loss of example i alone, as ``reduction="none"`` and
        ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the rows are m times and the result is m²
        times too small. The axes in the middle, if any, are positions inside an example, such as the steps of a
        sequence.
    z : Array, shape (m, ..., k)
        Input batch of the forward, also a sparse matrix of shape (m, k) that has ``z.multiply(z)``.

    Returns
    -------
    ParameterGradients
        ``(Σ_i |dw_i|², Σ_i |db_i|²)`` of shapes (k, n) and (n,), in the real dtype of the promoted
        precision of `da` and `z`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    gradient_variance : The mean square of the deviation from the mean gradient.
    fisher_diagonal : The mean of the squares.

    Notes
    -----
    Without positions, ``Σ_i dw_i² = (z∘z)ᵀ (da∘da)``, a product like that of the gradient [1]_. With positions, the
    gradients are formed in blocks of examples.

    The squares of `da` and of `z` are formed apart, in the dtype of the arrays: float32 entries below 1e-19 lose digits
    and then count as 0, and entries above 1e19 give infinity, whatever their product is. Pass float64 arrays for those.

    References
    ----------
    .. [1] F. Dangel, F. Kunstner and P. Hennig, "BackPACK: packing more into backprop", ICLR 2020, appendix A.1.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import second_moments
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> da = np.asarray([[1.0, 10.0], [100.0, 1000.0]])
    >>> second_moments(da, z).db
    array([  10001., 1000100.])
    """
    operator = read_operator("second_moments", da, z)
    if operator is not None:
        return mean_squares(operator, da, mean=False)
    xp, conj, output, (da, z) = read_examples("second_moments", da, z)
    return output.parameters(*square_sums(xp, conj, da, z), real=True)


def gradient_variance(da: ArrayT, z: ArrayT, /) -> ParameterGradients[ArrayT]:
    """Compute the variance of the gradient over the examples, entry by entry.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a vector of weights
        Upstream gradient. Row i is the gradient of the loss of example i alone, as ``reduction="none"`` and
        ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the rows are m times and the result is m²
        times too small. The axes in the middle, if any, are positions inside an example, such as the steps of a
        sequence.
    z : Array, shape (m, ..., k)
        Input batch of the forward.

    Returns
    -------
    ParameterGradients
        ``(dw, db)``, the variances, of shapes (k, n) and (n,), in the real dtype of the promoted precision of `da` and
        `z`. NaN for no examples.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    gradient_signal_to_noise : The squared mean divided by the variance.

    Notes
    -----
    ``Σ_i |dw_i - Σ_j dw_j / m|² / m``: the variance of the m examples at hand, divided by m and not by m - 1, as
    BackPACK defines it [1]_.

    `da` and `z` are centred first, so that a mean that is much larger than the spread costs no digits. Without
    positions, ``dw_i`` less the product of both means is ``δz_iᴴ da_i + z̄ᴴ δda_i`` with ``δz_i = z_i - z̄``; its squares
    are sums of products. The error is about ``eps`` times the mean square of either term: where both terms are large
    and cancel in every example, digits are lost. A lazy batch is read twice, once for the means.

    References
    ----------
    .. [1] F. Dangel, F. Kunstner and P. Hennig, "BackPACK: packing more into backprop", ICLR 2020, table 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import gradient_variance
    >>> gradient_variance(np.asarray([[1.0], [3.0]]), np.asarray([[1.0, 2.0], [1.0, 0.0]]))
    ParameterGradients(dw=array([[1.],
           [1.]]), db=array([1.]))
    """
    xp, conj, output, (da, z) = read_examples("gradient_variance", da, z)
    dw, db = (variance for _, variance in _mean_and_variance(xp, conj, da, z))
    return output.parameters(dw, db, real=True)


def gradient_signal_to_noise(da: ArrayT, z: ArrayT, /) -> ParameterGradients[ArrayT]:
    """Compute the signal-to-noise ratio of the gradient over the examples, entry by entry.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a vector of weights
        Upstream gradient. Row i is the gradient of the loss of example i alone, as ``reduction="none"`` and
        ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the result is the same, but for
        numbers that underflow. The axes in the middle, if any, are positions inside an example, such as the steps of a
        sequence.
    z : Array, shape (m, ..., k)
        Input batch of the forward.

    Returns
    -------
    ParameterGradients
        ``(dw, db)``, the ratios, of shapes (k, n) and (n,), in the real dtype of the promoted precision of `da` and
        `z`. NaN for no examples.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    gradient_variance : The denominator.

    Notes
    -----
    ``|mean|² / variance`` over the m examples at hand, the variance divided by m [1]_ and computed as
    `gradient_variance` does. The ratio is 0 where the gradient of every example is zero. Where all gradients are equal
    and not zero it is infinite, or as large as rounding makes it.

    References
    ----------
    .. [1] J. Liu, G. Jiang, Y. Bai, T. Chen and H. Wang, "Understanding why neural networks generalize well through
       GSNR of parameters", ICLR 2020, equation 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import gradient_signal_to_noise
    >>> gradient_signal_to_noise(np.asarray([[1.0], [3.0]]), np.asarray([[1.0, 0.0], [1.0, 0.0]])).dw
    array([[4.],
           [0.]])
    """
    xp, conj, output, (da, z) = read_examples("gradient_signal_to_noise", da, z)
    ratios = []
    for mean, variance in _mean_and_variance(xp, conj, da, z):
        signal, still = squared(xp, mean), variance <= 0
        limit = xp.where(signal <= 0, signal, math.inf)
        ratios.append(xp.where(still, limit, signal / xp.where(still, 1.0, variance)))
    return output.parameters(*ratios, real=True)


def _mean_and_variance(
    xp: Namespace, conj: Elementwise, da: Array, z: Array, /
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return mean and variance for the weights, and for the bias, in the accumulation dtype."""
    m, wide = count(xp, da, 1), accumulation_dtype(xp, da)
    if da.ndim == 2:
        of_da, of_z = (xp.sum(x, axis=0, dtype=wide) / m for x in (da, z))
        shifts = conj(of_z)[:, None] * of_da, of_da
        step = partial(_row_deviations, xp, conj, (of_da, of_z))
    else:
        shifts = contract_rows(xp, conj(z), da) / m, sum_rows(xp, da) / m
        step = partial(_formed_deviations, xp, conj, shifts)

    def wide_step(da: Array, z: Array) -> tuple[Array, ...]:
        return step(*(xp.astype(x, wide, copy=False) for x in (da, z)))

    dw, db, dw_squares, db_squares = (total / m for total in add_up(xp, wide_step, da, z))
    out = []
    # The shifts need not be the means: what is left of the means is corrected.
    for shift, mean, squares in ((shifts[0], dw, dw_squares), (shifts[1], db, db_squares)):
        variance = squares - squared(xp, mean)
        out.append((shift + mean, xp.where(variance < 0, 0.0, variance)))
    return out[0], out[1]


def _row_deviations(
    xp: Namespace, conj: Elementwise, shift: tuple[Array, Array], da: Array, z: Array, /
) -> tuple[Array, ...]:
    """Sum the deviations of the gradients of a block from ``of_zᴴ of_da`` and `of_da`, and their squares."""
    of_da, of_z = shift
    da_rest, z_rest = da - of_da, z - of_z
    db, db_squares = sum_rows(xp, da_rest), sum_rows(xp, squared(xp, da_rest))
    dw = contract_rows(xp, conj(z_rest), da) + conj(of_z)[:, None] * db
    # The squares of both terms of a deviation, z_restᴴ da and of_zᴴ da_rest, and twice their product.
    products = contract_rows(xp, conj(z_rest), da * conj(da_rest)) * of_z[:, None]
    dw_squares = contract_rows(xp, squared(xp, z_rest), squared(xp, da))
    dw_squares = dw_squares + squared(xp, of_z)[:, None] * db_squares + real_part(xp, products) * 2
    return dw, db, dw_squares, db_squares


def _formed_deviations(
    xp: Namespace, conj: Elementwise, shift: tuple[Array, Array], da: Array, z: Array, /
) -> tuple[Array, ...]:
    """Sum the deviations of the gradients of a block from the shift, and their squares."""
    dw, db = gradients(xp, conj, da, z)
    rests = dw - shift[0], db - shift[1]
    return *(xp.sum(x, axis=0) for x in rests), *(xp.sum(squared(xp, x), axis=0) for x in rests)
