"""Second moments of the gradients of single examples of an affine layer: their sum, variance and signal."""

import math

from pullback._core.reductions import accumulation_dtype, contract_rows, sum_rows
from pullback._core.typing import Array, Elementwise, Namespace
from pullback._ops.per_example.blocking import (
    ParameterGradients,
    add_up,
    count,
    read_examples,
    real_dtype,
    square_sums,
    squared,
)


def second_moments(da: Array, z: Array, /) -> ParameterGradients:
    """Return the sum over the examples of their gradients' squares, entry by entry.

    Parameters
    ----------
    da : Array, shape (m, ..., n)
        Upstream gradient, for each example that of its own loss; the axes in the middle are positions inside it.
    z : Array, shape (m, ..., k)
        Input batch of the forward.

    Returns
    -------
    ParameterGradients
        ``(Σ_i |dw_i|², Σ_i |db_i|²)`` of shapes (k, n) and (n,): real, of the promoted precision of `da` and `z`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    gradient_variance : Their mean less the square of the mean gradient.
    fisher_diagonal : Their mean.

    Notes
    -----
    Without positions, ``Σ_i dw_i² = (z∘z)ᵀ (da∘da)``, a product like the gradient's [1]_. With positions the gradients
    are formed, a block of examples at a time.

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
    xp, conj, dtype, (da, z) = read_examples("second_moments", da, z)
    real = real_dtype(xp, dtype)

    def step(da: Array, z: Array) -> tuple[Array, Array]:
        return square_sums(xp, conj, da, z)

    dw, db = (xp.astype(x, real, copy=False) for x in add_up(xp, step, da, z))
    return ParameterGradients(dw, db)


def gradient_variance(da: Array, z: Array, /) -> ParameterGradients:
    """Return the variance of the gradient over the examples, entry by entry.

    Parameters
    ----------
    da : Array, shape (m, ..., n)
        Upstream gradient, for each example that of its own loss, not divided by m; the axes in the middle are positions
        inside it.
    z : Array, shape (m, ..., k)
        Input batch of the forward.

    Returns
    -------
    ParameterGradients
        ``(dw, db)``, the variances, of shapes (k, n) and (n,): real, of the promoted precision of `da` and `z`. NaN
        for no examples.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    gradient_signal_to_noise : The squared mean over this.

    Notes
    -----
    ``Σ_i |dw_i|² / m - |Σ_i dw_i / m|²``: the variance of the m examples at hand, with m in the denominator and not
    m - 1, as BackPACK defines it [1]_. Both terms are summed in the widest dtype of the device, for their difference
    may be much smaller than they are; what rounding leaves below zero is zero.

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
    xp, conj, dtype, (da, z) = read_examples("gradient_variance", da, z)
    real = real_dtype(xp, dtype)
    dw, db = (xp.astype(variance, real, copy=False) for _, variance in _mean_and_variance(xp, conj, da, z))
    return ParameterGradients(dw, db)


def gradient_signal_to_noise(da: Array, z: Array, /) -> ParameterGradients:
    """Return the signal-to-noise ratio of the gradient over the examples, entry by entry.

    Parameters
    ----------
    da : Array, shape (m, ..., n)
        Upstream gradient, for each example that of its own loss; the axes in the middle are positions inside it.
    z : Array, shape (m, ..., k)
        Input batch of the forward.

    Returns
    -------
    ParameterGradients
        ``(dw, db)``, the ratios, of shapes (k, n) and (n,): real, of the promoted precision of `da` and `z`. NaN for
        no examples.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    gradient_variance : The noise.

    Notes
    -----
    ``|mean|² / variance`` over the m examples at hand, the variance with m in the denominator [1]_. A gradient that is
    zero in every example has ratio 0, and one that is the same in all of them and not zero has infinity, or a number
    as large as rounding makes it.

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
    xp, conj, dtype, (da, z) = read_examples("gradient_signal_to_noise", da, z)
    real = real_dtype(xp, dtype)
    ratios = []
    for mean, variance in _mean_and_variance(xp, conj, da, z):
        signal, still = squared(xp, mean), variance <= 0
        limit = xp.where(signal <= 0, signal, math.inf)
        ratios.append(xp.astype(xp.where(still, limit, signal / xp.where(still, 1.0, variance)), real, copy=False))
    return ParameterGradients(*ratios)


def _mean_and_variance(
    xp: Namespace, conj: Elementwise, da: Array, z: Array, /
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return mean and variance for the weights, and for the bias, in the widest dtype of the device."""
    wide = accumulation_dtype(xp, da)

    def step(da: Array, z: Array) -> tuple[Array, ...]:
        da, z = (xp.astype(x, wide, copy=False) for x in (da, z))
        return contract_rows(xp, conj(z), da), sum_rows(xp, da), *square_sums(xp, conj, da, z)

    m = count(xp, da, 1)
    dw, db, dw_squares, db_squares = (total / m for total in add_up(xp, step, da, z))
    out = []
    for mean, squares in ((dw, dw_squares), (db, db_squares)):
        variance = squares - squared(xp, mean)
        out.append((mean, xp.where(variance < 0, 0.0, variance)))
    return out[0], out[1]
