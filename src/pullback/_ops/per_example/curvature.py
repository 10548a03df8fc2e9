"""Curvature of a loss in the parameters of an affine layer: K-FAC factors, Gauss–Newton products, Fisher diagonal."""

from collections.abc import Callable
from typing import NamedTuple, cast

from array_api_compat import device

from pullback._core.reductions import contract_rows, sum_rows
from pullback._core.typing import Array
from pullback._ops.affine import affine_backward, affine_forward
from pullback._ops.per_example.blocking import ParameterGradients, add_up, count, read_examples, real_dtype, square_sums


class KroneckerFactors(NamedTuple):
    """The two factors of a layer's approximate curvature, which takes a step v of shape (k + 1, n) to ``a v g``.

    Attributes
    ----------
    a : Array
        Of the inputs: shape (k + 1, k + 1), the bias last, or (k, k) without one.
    g : Array
        Of the upstream gradients: shape (n, n).
    """

    a: Array
    g: Array


def kfac_factors(da: Array, z: Array, /, *, bias: bool = True) -> KroneckerFactors:
    """Return the Kronecker factors of the Fisher information for the parameters of ``a = z w + b``.

    Parameters
    ----------
    da : Array, shape (m, ..., n)
        Upstream gradient, for each example that of its own loss, as ``reduction="none"`` gives it.
    z : Array, shape (m, ..., k)
        Input batch of the forward.
    bias : bool, default True
        Whether the layer has a bias, which is the weight of a feature that is always one: the last of `a`.

    Returns
    -------
    KroneckerFactors
        ``(a, g)``, in the promoted dtype of `da` and `z`. NaN for no examples.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    fisher_diagonal : The diagonal, not approximated.
    gauss_newton_product : The product with a vector, not approximated.

    Notes
    -----
    ``a = zᴴ z / m`` and ``g = daᴴ da / m``, the means over the examples of [1]_, section 3. With the weights above the
    bias in one matrix v of shape (k + 1, n), the Fisher information takes v to about ``a v g``. The natural gradient
    of a gradient v is ``a⁻¹ v g⁻¹``, once the factors are damped. `da` from targets drawn from the model's own
    prediction gives the Fisher information; from the data's targets, what is called the empirical one.

    Positions inside an example count as examples of their own, and m with them. (Of a layer that shares its weights
    over t positions, some authors multiply one factor by t.)

    References
    ----------
    .. [1] J. Martens and R. Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature",
       ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import kfac_factors
    >>> a, g = kfac_factors(np.asarray([[1.0, -1.0], [1.0, 1.0]]), np.asarray([[3.0], [1.0]]))
    >>> a
    array([[5., 2.],
           [2., 1.]])
    >>> g
    array([[1., 0.],
           [0., 1.]])
    """
    xp, conj, dtype, (da, z) = read_examples("kfac_factors", da, z)
    m = count(xp, z, z.ndim - 1)
    a, g = contract_rows(xp, conj(z), z) / m, contract_rows(xp, conj(da), da) / m
    if bias:
        # The blocks of the product with a column of ones, without a copy of z to put it in.
        mean = sum_rows(xp, z)[None, :] / m
        one = xp.ones((1, 1), dtype=z.dtype, device=device(z)) * m / m
        a = xp.concat([xp.concat([a, conj(mean).T], axis=1), xp.concat([mean, one], axis=1)])
    return KroneckerFactors(*(xp.astype(x, dtype, copy=False) for x in (a, g)))


def fisher_diagonal(da: Array, z: Array, /, *, bias: bool = True) -> ParameterGradients:
    """Return the diagonal of the empirical Fisher information for the parameters of ``a = z w + b``.

    Parameters
    ----------
    da : Array, shape (m, ..., n)
        Upstream gradient, for each example that of its own loss; the axes in the middle are positions inside it.
    z : Array, shape (m, ..., k)
        Input batch of the forward.
    bias : bool, default True
        Whether the layer has a bias.

    Returns
    -------
    ParameterGradients
        ``(dw, db)``, the diagonal's entries, of shapes (k, n) and (n,): real, of the promoted precision of `da` and
        `z`. `db` is None without a bias. NaN for no examples.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    second_moments : The same, not divided by m.

    Notes
    -----
    ``Σ_i |dw_i|² / m`` and ``Σ_i |db_i|² / m``: the mean over the examples of their gradients' squares. It is the
    Fisher information's own diagonal where `da` comes from targets drawn from the model's prediction, and the empirical
    one's where it comes from the data's [1]_.

    References
    ----------
    .. [1] F. Kunstner, L. Balles and P. Hennig, "Limitations of the empirical Fisher approximation for natural gradient
       descent", NeurIPS 2019, equations 2 and 3.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import fisher_diagonal
    >>> fisher_diagonal(np.asarray([[1.0, -1.0], [3.0, 1.0]]), np.asarray([[3.0], [1.0]]))
    ParameterGradients(dw=array([[9., 5.]]), db=array([5., 1.]))
    """
    xp, conj, dtype, (da, z) = read_examples("fisher_diagonal", da, z)
    real, m = real_dtype(xp, dtype), count(xp, da, 1)

    def step(da: Array, z: Array) -> tuple[Array, Array]:
        return square_sums(xp, conj, da, z)

    dw, db = (xp.astype(total / m, real, copy=False) for total in add_up(xp, step, da, z))
    return ParameterGradients(dw, db if bias else None)


def gauss_newton_product(
    vw: Array, vb: Array | None, z: Array, /, hessian_product: Callable[[Array], Array]
) -> ParameterGradients:
    """Multiply the Gauss–Newton matrix of a loss of ``a = z w + b`` with a step in the parameters.

    Parameters
    ----------
    vw : Array, shape (k, n)
        Step in the weights.
    vb : Array, shape (n,), or None
        Step in the bias; None where the layer has none.
    z : Array, shape (..., k)
        Input batch of the forward.
    hessian_product : callable
        Multiplies the Hessian of the loss in the output `a` with a step in the output: takes and returns an array of
        shape (..., n), as `softmax_cross_entropy_hessian_product` and its like do. For a lower layer of a network, the
        product with the Gauss–Newton matrix of what is above it.

    Returns
    -------
    ParameterGradients
        ``(dw, db)``, the product, with the shapes and dtypes of `vw` and `vb`; `db` is None where `vb` is.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the others.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    kfac_factors : An approximation that can be inverted.

    Notes
    -----
    ``Jᴴ H J v`` [1]_: the tangent ``J v = z vw + vb`` of the output, the loss's Hessian H, and the backward. For a
    single affine layer the Gauss–Newton matrix is the Hessian. Whether the loss is a mean or a sum over the examples is
    up to H.

    References
    ----------
    .. [1] N. N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural
       Computation 14(7), 2002, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import affine_forward, gauss_newton_product, squared_error_hessian_product
    >>> z, y = np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([[1.0], [0.0]])
    >>> a = affine_forward(z, np.asarray([[0.5], [0.5]]))
    >>> vw, vb = np.asarray([[1.0], [0.0]]), np.asarray([0.0])
    >>> gauss_newton_product(vw, vb, z, lambda v: squared_error_hessian_product(v, a, y, reduction="sum"))
    ParameterGradients(dw=array([[10.],
           [14.]]), db=array([4.]))
    """
    wrt = ("w",) if vb is None else ("w", "b")
    _, dw, db = affine_backward(hessian_product(affine_forward(z, vw, vb)), z, vw, wrt=wrt)
    return ParameterGradients(cast("Array", dw), db)
