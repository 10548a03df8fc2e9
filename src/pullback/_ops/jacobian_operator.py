"""The derivative of ``a = z w + b`` as a linear operator on flat vectors."""

import math
from collections.abc import Collection

from array_api_compat import array_namespace

from pullback._core.arguments import check_factors, check_known, check_wrt, validate_arrays
from pullback._core.dtypes import result_dtype
from pullback._core.flat_operator import FlatOperator
from pullback._core.typing import ArrayT
from pullback._ops.affine import affine_backward, affine_jvp

_INPUTS = ("z", "w", "b")


class JacobianOperator(FlatOperator[ArrayT]):
    """Linear operator of the Jacobian of ``a = z w + b`` on flat vectors, without the Jacobian itself.

    Parameters
    ----------
    z : Array, shape (..., k)
        Input batch of the forward.
    w : Array, shape (k, n) or (k,)
        Weights of the forward.
    wrt : collection of str, default ("z", "w", "b")
        The inputs to differentiate for. The columns of the operator are their entries, flattened one input after the
        other in the order z, w, b.

    Attributes
    ----------
    shape : tuple of int
        ``(M, N)``: the number of entries of the output, and of the inputs in `wrt`.
    dtype : dtype
        The promoted dtype of `z` and `w`.

    Raises
    ------
    TypeError
        If an argument is not an array, has no floating dtype, or comes from another library than the other.
    ValueError
        If the shapes do not fit or are not known, the arrays lie on different devices, or `wrt` names nothing or
        something else.

    See Also
    --------
    affine_jvp : The product with the operator.
    affine_backward : The product with its adjoint.
    affine_jacobians : The tensors.

    Notes
    -----
    ``scipy.sparse.linalg`` takes the operator in place of a matrix, for example in ``lsqr`` or ``svds``, and so does
    ``cupyx.scipy.sparse.linalg``. A vector of a wider dtype than the operator's is not narrowed.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import JacobianOperator
    >>> z = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> jacobian = JacobianOperator(z, np.asarray([[5.0, 6.0], [7.0, 8.0]]), wrt=("w", "b"))
    >>> jacobian.shape
    (4, 6)
    >>> jacobian.matvec(np.asarray([0.0, 1.0, 0.0, 0.0, 0.5, 0.5]))
    array([0.5, 1.5, 0.5, 3.5])
    """

    def __init__(self, z: ArrayT, w: ArrayT, /, *, wrt: Collection[str] = _INPUTS) -> None:
        xp, *_ = validate_arrays("JacobianOperator", ("z", "w"), z, w)
        check_wrt("JacobianOperator", wrt, _INPUTS)
        check_factors("JacobianOperator", z, w, vector=True)
        if not wrt:
            msg = f"JacobianOperator: wrt must name at least one of {_INPUTS}; got {wrt!r}"
            raise ValueError(msg)
        check_known("JacobianOperator", z, w)
        self._z, self._w, self._a = z, w, (*z.shape[:-1], *w.shape[1:])
        of_inputs = {"z": z.shape, "w": w.shape, "b": w.shape[1:]}
        self._moving = {name: of_inputs[name] for name in _INPUTS if name in wrt}
        shape = (math.prod(self._a), sum(map(math.prod, self._moving.values())))
        super().__init__(z, shape, result_dtype(xp, z, w))

    def _push(self, v: ArrayT, /) -> ArrayT:
        xp, tangents, start = array_namespace(v), {}, 0
        for name, shape in self._moving.items():
            stop = start + math.prod(shape)
            tangents[f"{name}_tangent"] = xp.reshape(v[start:stop, ...], shape)
            start = stop
        return xp.reshape(affine_jvp(self._z, self._w, **tangents), (self.shape[0],))

    def _pull(self, u: ArrayT, /) -> ArrayT:
        # One dtype for all: the gradient of a real primal would be real, and so not linear in a complex u.
        xp = array_namespace(u)
        dtype = xp.result_type(self.dtype, u.dtype)
        da, z, w = (xp.astype(x, dtype, copy=False) for x in (xp.reshape(u, self._a), self._z, self._w))
        gradients = affine_backward(da, z, w, wrt=tuple(self._moving))
        return xp.concat([xp.reshape(x, (math.prod(x.shape),)) for x in gradients if x is not None])
