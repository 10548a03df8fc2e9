"""Gradients of each example of an affine layer: themselves, their norms, and their clipped sum."""

import math
from typing import Any

from pullback._core.arguments import float_option, same_shape, shapes, validate_library_and_device
from pullback._core.memory import is_host_memory
from pullback._core.reductions import contract_rows, sum_rows
from pullback._core.typing import Array, ArrayT, Namespace
from pullback._ops.per_example.blocking import ParameterGradients, gradients, read_examples, real_dtype
from pullback._ops.per_example.norms import norms
from pullback._ops.per_example.sparse import read_operator, row_norms


def per_example_gradients(da: ArrayT, z: ArrayT, /) -> ParameterGradients[ArrayT]:
    """Compute the gradient of each example for the weights and the bias of ``a = z w + b``.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a vector of weights
        Upstream gradient. Row i is the gradient of the loss of example i alone, as ``reduction="none"`` and
        ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the rows are m times too small, and so is
        the result. The axes in the middle, if any, are positions inside an example, such as the steps of a sequence.
    z : Array, shape (m, ..., k)
        Input batch of the forward.

    Returns
    -------
    ParameterGradients
        ``(dw, db)`` of shapes (m, k, n) and (m, n), or (m, k) and (m,) for a vector of weights, in the promoted dtype
        of `da` and `z`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or the arrays lie on different devices.

    See Also
    --------
    per_example_norms : The norms of these gradients, without the m · k · n entries.
    clipped_gradients : The sum of these gradients, each clipped to a norm.
    second_moments : The sum of the squares of these gradients.

    Notes
    -----
    ``dw_i = Σ_t z_itᴴ da_it`` and ``db_i = Σ_t da_it``, over the positions t of example i. The sum over i is the
    gradient that `affine_backward` returns. `dw` has m · k · n entries, which may exceed the memory; the functions
    under *See Also* need no more memory than one product of the batch.

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
    xp, conj, output, (da, z) = read_examples("per_example_gradients", da, z)
    return output.parameters(*gradients(xp, conj, da, z))


def per_example_norms(da: ArrayT, z: ArrayT, /, *, bias: bool = True) -> ArrayT:
    """Compute the Euclidean norm of the gradient of each example for the parameters of ``a = z w + b``.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a vector of weights
        Upstream gradient. Row i is the gradient of the loss of example i alone, as ``reduction="none"`` and
        ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the rows are m times too small, and so is
        the result. The axes in the middle, if any, are positions inside an example, such as the steps of a sequence.
    z : Array, shape (m, ..., k)
        Input batch of the forward, also a sparse matrix of shape (m, k) that has ``z.multiply(z)``.
    bias : bool, default True
        Whether the layer has a bias. The norm is then taken over weights and bias together.

    Returns
    -------
    Array, shape (m,)
        The norms, not squared, in the real dtype of the promoted precision of `da` and `z`. Dtypes narrower than
        float32 are computed in float32 and returned narrow.

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
    Without positions, ``‖grad_i‖ = √(‖z_i‖² + 1) ‖da_i‖``, where the one stands for the bias [1]_. With t positions,
    the squared norm is ``Σ_ts (z_it·z_is + 1)(da_it·da_is)``, from two Gram matrices of t × t, or the gradients are
    formed in blocks of examples: whichever takes fewer multiplications, ``t² (k + n)`` or ``t k n`` for each example.
    The Gram matrices hold squares: where the positions of an example cancel, the error of the norm is about ``√eps``
    times the norm without cancellation.

    The norm is right wherever it is a number of the dtype, also where its square or a factor is not: rows are scaled by
    powers of two. A gradient of zero has norm 0, whose derivative is 0 to `jax.grad` and ``.backward()``.

    The norm over several layers is the root of the sum of the squared norms of the layers: `stack_norms`.

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
    operator = read_operator("per_example_norms", da, z)
    if operator is not None:
        z, bias = row_norms(operator, da, bias=bias), False
    xp, conj, output, (da, z) = read_examples("per_example_norms", da, z)
    norm, root = norms(xp, conj, da, z, bias=bias)
    if root is not None:
        norm = norm / root / root
    return xp.astype(norm, real_dtype(xp, output.dtype), copy=False)


def clipped_gradients(
    da: ArrayT, z: ArrayT, /, max_norm: float | ArrayT, *, bias: bool = True
) -> ParameterGradients[ArrayT]:
    """Compute the sum of the gradients of the examples, each scaled down to a norm of at most `max_norm`.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a vector of weights
        Upstream gradient. Row i is the gradient of the loss of example i alone, as ``reduction="none"`` and
        ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the rows are m times too small, and so is
        the norm that is compared with `max_norm`. The axes in the middle, if any, are positions inside an example, such
        as the steps of a sequence.
    z : Array, shape (m, ..., k)
        Input batch of the forward, also a sparse matrix of shape (m, k) that has ``z.multiply(z)``.
    max_norm : float or Array, shape () or (m,)
        Largest norm of the gradient of an example, over weights and bias together; above 0, and possibly infinite. An
        array of shape (m,) holds one for each example. NumPy arrays are checked. A lazy or traced array and an array on
        a device are not: an entry below 0 gives NaN.
    bias : bool, default True
        Whether the layer has a bias.

    Returns
    -------
    ParameterGradients
        ``(dw, db)`` of shapes (k, n) and (n,), or (k,) and () for a vector of weights, in the promoted dtype of `da`
        and `z`; `db` is None without a bias.

    Raises
    ------
    TypeError
        If `da` or `z` is not an array, has no floating dtype, or comes from another library than the other, or
        `max_norm` is neither a real number nor an array of their library.
    ValueError
        If the shapes do not fit, the arrays lie on different devices, or `max_norm` is not above 0.

    See Also
    --------
    per_example_norms : The norms before clipping.

    Notes
    -----
    ``dw = zᴴ (c ∘ da)`` and ``db = Σ c ∘ da`` with ``c_i = min(1, max_norm / ‖grad_i‖)``: the sum to which
    differentially private SGD adds its noise [1]_. A gradient of norm zero has c = 1. A gradient with a NaN makes the
    sums NaN: it does not pass unclipped.

    The norm of a gradient may overflow or underflow in the dtype; the clipped gradient is right all the same.

    `stack_clipped_gradients` clips the gradient over several layers.

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
    operator = read_operator("clipped_gradients", da, z)
    if operator is not None:
        z = row_norms(operator, da, bias=bias)
    xp, conj, output, (da, z) = read_examples("clipped_gradients", da, z)
    limit = read_max_norm("clipped_gradients", xp, da, max_norm)
    norm, root = norms(xp, conj, da, z, bias=bias and operator is None)
    each = (slice(None), *[None] * (da.ndim - 1))
    if root is None:
        da = da * clip_scale(xp, norm, limit)[each]
    else:
        # The norm may be out of range; the root of the norm is not.
        scale = clip_scale(xp, norm**0.5 / root, limit**0.5)[each]
        da = da * scale * scale
    dw = contract_rows(xp, conj(z), da) if operator is None else operator.adjoint(xp).product(xp, da)
    return output.parameters(dw, sum_rows(xp, da) if bias else None)


def clip_scale(xp: Namespace, norm: Array, limit: float | Array, /) -> Array:
    """Return ``min(1, limit / norm)``: 1 for a norm of zero, and NaN for NaN."""
    within = norm <= limit
    return xp.where(within, 1.0, limit / xp.where(within, 1.0, norm))


def read_max_norm(function: str, xp: Namespace, da: Array, max_norm: float | Array, /) -> float | Array:
    """Return max_norm as a Python float, or as an array of the real dtype of `da`, checked where that is free."""
    shape = getattr(max_norm, "shape", ())
    known = not hasattr(max_norm, "dtype") or is_host_memory(max_norm)
    if known and shape == ():
        return float_option(function, "max_norm", max_norm, above=0.0, most=math.inf)
    limit: Any = max_norm
    validate_library_and_device(function, ("da", "max_norm"), da, limit)
    if shape != () and not same_shape(shape, da.shape[:1]):
        msg = (
            f"{function}: max_norm must be a number, or have one entry for each example, shape (m,); "
            f"got {shapes(max_norm=limit, da=da)}"
        )
        raise ValueError(msg)
    if known and not xp.all(limit > 0):
        msg = f"{function}: every entry of max_norm must be above 0; got {float(xp.min(limit)):g}"
        raise ValueError(msg)
    return xp.astype(limit, real_dtype(xp, da.dtype), copy=False)
