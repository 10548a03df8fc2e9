"""The derivative of ``a = z w + b`` as a linear operator on flat vectors."""

import math
from collections.abc import Callable, Collection
from typing import Generic

from pullback._core.arguments import check_factors, check_known, check_wrt, result_dtype, shapes, validate_arrays
from pullback._core.typing import Array, ArrayT, DType, Namespace
from pullback._ops.affine import affine_backward, affine_jvp

_INPUTS = ("z", "w", "b")


class JacobianOperator(Generic[ArrayT]):
    """Linear operator of the Jacobian of ``a = z w + b`` on flat vectors, without the Jacobian itself.

    Parameters
    ----------
    z : Array, shape (..., k)
        Input batch of the forward.
    w : Array, shape (k, n)
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
        check_factors("JacobianOperator", z, w)
        if not wrt:
            msg = f"JacobianOperator: wrt must name at least one of {_INPUTS}; got {wrt!r}"
            raise ValueError(msg)
        check_known("JacobianOperator", z, w)
        self._z, self._w, self._a = z, w, (*z.shape[:-1], w.shape[1])
        of_inputs = {"z": z.shape, "w": w.shape, "b": w.shape[1:]}
        self._moving = {name: of_inputs[name] for name in _INPUTS if name in wrt}
        self.shape: tuple[int, int] = (math.prod(self._a), sum(map(math.prod, self._moving.values())))
        self.dtype: DType = result_dtype(xp, z, w)

    def matvec(self, v: ArrayT, /) -> ArrayT:
        """Multiply with a vector: `affine_jvp` on flat arrays.

        Parameters
        ----------
        v : Array, shape (N,) or (N, 1)
            Tangents of the inputs in `wrt`, flattened one after the other in the order z, w, b.

        Returns
        -------
        Array, shape (M,) or (M, 1)
            The tangent of the output, flattened.

        Raises
        ------
        TypeError
            If `v` is not an array, has no floating dtype, or comes from another library than `z` and `w`.
        ValueError
            If `v` has another shape or lies on another device.
        """
        xp = self._read_vector("matvec", "v", v, self.shape[1])
        tangents, start = {}, 0
        for name, shape in self._moving.items():
            stop = start + math.prod(shape)
            tangents[f"{name}_tangent"] = xp.reshape(v[start:stop, ...], shape)
            start = stop
        return xp.reshape(affine_jvp(self._z, self._w, **tangents), (self.shape[0], *v.shape[1:]))

    def rmatvec(self, u: ArrayT, /) -> ArrayT:
        """Multiply the adjoint with a vector: `affine_backward` on flat arrays.

        Parameters
        ----------
        u : Array, shape (M,) or (M, 1)
            Upstream gradient, flattened.

        Returns
        -------
        Array, shape (N,) or (N, 1)
            The gradients for the inputs in `wrt`, flattened one after the other in the order z, w, b.

        Raises
        ------
        TypeError
            If `u` is not an array, has no floating dtype, or comes from another library than `z` and `w`.
        ValueError
            If `u` has another shape or lies on another device.
        """
        xp = self._read_vector("rmatvec", "u", u, self.shape[0])
        # One dtype for all: the gradient of a real primal would be real, and so not linear in a complex u.
        dtype = xp.result_type(self.dtype, u.dtype)
        da, z, w = (xp.astype(x, dtype, copy=False) for x in (xp.reshape(u, self._a), self._z, self._w))
        gradients = affine_backward(da, z, w, wrt=tuple(self._moving))
        return xp.concat([xp.reshape(x, (math.prod(x.shape), *u.shape[1:])) for x in gradients if x is not None])

    def matmat(self, v: ArrayT, /) -> ArrayT:
        """Multiply with each column of a matrix.

        Parameters
        ----------
        v : Array, shape (N, K)
            Vectors as `matvec` takes them; at least one.

        Returns
        -------
        Array, shape (M, K)
            Their products.

        Raises
        ------
        TypeError
            If `v` is not an array, has no floating dtype, or comes from another library than `z` and `w`.
        ValueError
            If `v` has another shape or lies on another device.
        """
        return self._by_columns("matmat", "v", v, self.shape[1], self.matvec)

    def rmatmat(self, u: ArrayT, /) -> ArrayT:
        """Multiply the adjoint with each column of a matrix.

        Parameters
        ----------
        u : Array, shape (M, K)
            Vectors as `rmatvec` takes them; at least one.

        Returns
        -------
        Array, shape (N, K)
            Their products.

        Raises
        ------
        TypeError
            If `u` is not an array, has no floating dtype, or comes from another library than `z` and `w`.
        ValueError
            If `u` has another shape or lies on another device.
        """
        return self._by_columns("rmatmat", "u", u, self.shape[0], self.rmatvec)

    def _read_vector(self, method: str, name: str, x: Array, size: int, /) -> Namespace:
        """Check a vector, and return its namespace."""
        xp, *_ = validate_arrays(f"JacobianOperator.{method}", (name, "z", "w"), x, self._z, self._w)
        if tuple(x.shape) not in {(size,), (size, 1)}:
            msg = (
                f"JacobianOperator.{method}: {name} must have shape ({size},) or ({size}, 1); got {shapes(**{name: x})}"
            )
            raise ValueError(msg)
        return xp

    def _by_columns(
        self, method: str, name: str, x: ArrayT, size: int, multiply: Callable[[ArrayT], ArrayT], /
    ) -> ArrayT:
        """Multiply column by column."""
        xp, *_ = validate_arrays(f"JacobianOperator.{method}", (name,), x)
        if x.ndim != 2 or x.shape[0] != size or x.shape[1] == 0:
            msg = f"JacobianOperator.{method}: {name} must have shape ({size}, K), K ≥ 1; got {shapes(**{name: x})}"
            raise ValueError(msg)
        return xp.stack([multiply(x[:, i]) for i in range(x.shape[1])], axis=1)
