"""Curvature of a loss in the parameters of an affine layer: K-FAC factors, Gauss–Newton products, Fisher diagonal."""

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, cast

from pullback._core.arguments import validate_optional_arrays
from pullback._core.memory import is_host_memory, place, without_warnings
from pullback._core.operators import is_operator
from pullback._core.reductions import contract_rows, sum_rows
from pullback._core.typing import Array, ArrayT, Elementwise, Namespace
from pullback._ops.affine import affine_backward, affine_forward
from pullback._ops.per_example import sparse
from pullback._ops.per_example.blocking import (
    ParameterGradients,
    count,
    mean_scale,
    mean_squares,
    read_examples,
)


class KroneckerFactors(NamedTuple, Generic[ArrayT]):
    """Factors of the approximate curvature of a layer, which maps a step v of shape (k + 1, n) to ``a v g``.

    Attributes
    ----------
    a : Array
        Factor of the inputs: shape (k + 1, k + 1), the bias last, or (k, k) without one.
    g : Array
        Factor of the upstream gradients: shape (n, n), or () for a vector of weights.
    """

    a: ArrayT
    g: ArrayT


def kfac_factors(da: ArrayT, z: ArrayT, /, *, bias: bool = True) -> KroneckerFactors[ArrayT]:
    """Compute the Kronecker factors of the Fisher information for the parameters of ``a = z w + b``.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a single output
        Upstream gradient. Row i is the gradient of the loss of example i alone, as ``reduction="none"`` and
        ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the rows are m times and `g` is m² times
        too small. The axes in the middle, if any, are positions inside an example, such as the steps of a sequence.
    z : Array, shape (m, ..., k)
        Input batch of the forward.
    bias : bool, default True
        Whether the layer has a bias: the weight of a feature that is always one, the last of `a`.

    Returns
    -------
    KroneckerFactors
        ``(a, g)``, in the promoted dtype of `da` and `z`. NaN for no examples. A mean is in range where its value is,
        whatever the number of examples.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    fisher_diagonal : The exact diagonal.
    gauss_newton_product : The exact product with a vector.

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
    xp, conj, output, (da, z) = read_examples("kfac_factors", da, z)
    m = count(xp, z, z.ndim - 1)
    factors = None
    if is_host_memory(da):
        with without_warnings(xp):
            factors = _factors(xp, conj, da, z, m=m, scale=1.0, bias=bias)
        if not all(math.isfinite(float(abs(xp.sum(x)))) for x in factors):
            factors = None
    a, g = factors or _factors(xp, conj, da, z, m=m, scale=mean_scale(m), bias=bias)
    a, g = (xp.astype(x, output.dtype, copy=False) for x in (a, g))
    return KroneckerFactors(a, g[..., 0, 0] if output.is_vector else g)


def fisher_diagonal(da: ArrayT, z: ArrayT, /, *, bias: bool = True) -> ParameterGradients[ArrayT]:
    """Compute the diagonal of the empirical Fisher information for the parameters of ``a = z w + b``.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a vector of weights
        Upstream gradient. Row i is the gradient of the loss of example i alone, as ``reduction="none"`` and
        ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the rows are m times and the result is m²
        times too small. The axes in the middle, if any, are positions inside an example, such as the steps of a
        sequence.
    z : Array, shape (m, ..., k)
        Input batch of the forward, also a sparse matrix of shape (m, k) that has ``z.multiply(z)``.
    bias : bool, default True
        Whether the layer has a bias.

    Returns
    -------
    ParameterGradients
        ``(dw, db)``, the entries of the diagonal, of shapes (k, n) and (n,), in the real dtype of the promoted
        precision of `da` and `z`. `db` is None without a bias. NaN for no examples. A mean is in range where its value
        is, whatever the number of examples.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    second_moments : The sum instead of the mean.

    Notes
    -----
    ``Σ_i |dw_i|² / m`` and ``Σ_i |db_i|² / m``: the mean of the squared gradients of the examples. It is the diagonal
    of the Fisher information if `da` comes from targets drawn from the prediction of the model, and of the empirical
    Fisher information if `da` comes from the targets of the data [1]_.

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
    operator = sparse.read_operator("fisher_diagonal", da, z)
    if operator is not None:
        means = sparse.mean_squares(operator, da, mean=True)
        return means if bias else ParameterGradients(means.dw, None)
    xp, conj, output, (da, z) = read_examples("fisher_diagonal", da, z)
    dw, db = mean_squares(xp, conj, da, z)
    return output.parameters(dw, db if bias else None, real=True)


def gauss_newton_product(
    vw: ArrayT, vb: ArrayT | None, z: ArrayT, /, hessian_product: Callable[[ArrayT], ArrayT]
) -> ParameterGradients[ArrayT]:
    """Multiply the Gauss–Newton matrix of a loss of ``a = z w + b`` by a step in the parameters.

    Parameters
    ----------
    vw : Array, shape (k, n) or (k,)
        Step in the weights.
    vb : Array, shape (n,) or (), or None
        Step in the bias; None where the layer has none.
    z : Array, shape (..., k)
        Input batch of the forward, also a sparse one.
    hessian_product : callable
        Multiplies the Hessian of the loss in the output `a` by a step in the output: takes and returns an array of
        shape (..., n), as `softmax_cross_entropy_hessian_product` does. For a lower layer of a network, multiplies by
        the Gauss–Newton matrix of what is above it. The step has the dtype in which the product is computed: float32
        for narrower inputs.

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
    single affine layer, the Gauss–Newton matrix is the Hessian. The reduction of the loss is that of H: with
    ``reduction="mean"`` in `hessian_product`, this is the product for the mean loss.

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
    steps: dict[str, Array | None] = {"vw": vw, "vb": vb}
    is_constant = is_operator(z, vw)
    arrays = steps if is_constant else {**steps, "z": z}
    _, _, cast_output, (w, b, *ready) = validate_optional_arrays("gauss_newton_product", arrays, ("vb",))
    z = z if is_constant else ready[0]
    wrt = ("w",) if vb is None else ("w", "b")
    _, dw, db = affine_backward(hessian_product(affine_forward(z, w, b)), z, w, wrt=wrt)
    if vb is not None:
        db = cast_output(cast("Array", db), vb.dtype)
    return ParameterGradients(cast_output(cast("Array", dw), vw.dtype), db)


def _factors(  # noqa: PLR0913 - two arrays and how to sum over them
    xp: Namespace, conj: Elementwise, da: Array, z: Array, /, *, m: Array | float, scale: float, bias: bool
) -> tuple[Array, Array]:
    """Return the factors, from sums over scaled rows."""
    if scale != 1.0:
        da, z = da * scale, z * scale
    divisor = m * scale**2
    a, g = (contract_rows(xp, conj(x), x) / divisor for x in (z, da))
    if bias:
        # The blocks of the product with a column of ones, without a copy of z to append it to.
        mean = sum_rows(xp, z if scale == 1.0 else z * scale)[None, :] / divisor
        one = xp.ones((1, 1), dtype=z.dtype, **place(z)) * m / m
        a = xp.concat([xp.concat([a, conj(mean).T], axis=1), xp.concat([mean, one], axis=1)])
    return a, g
