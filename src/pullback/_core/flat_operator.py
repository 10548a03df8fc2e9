"""Linear operators on flat vectors, as ``scipy.sparse.linalg`` takes them."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Generic

from pullback._core.arguments import shapes, validate_arrays
from pullback._core.typing import Array, ArrayT, DType, Namespace


class FlatOperator(Generic[ArrayT]):
    """A linear operator: its shape and dtype, and the products with vectors that a subclass defines.

    Attributes
    ----------
    shape : tuple of int
        ``(M, N)``: the number of entries of the output, and of the input.
    dtype : dtype
        The dtype of the operator's entries.
    """

    def __init__(self, like: Array, shape: tuple[int, int], dtype: DType, /) -> None:
        self._like, self.shape, self.dtype = like, shape, dtype

    @abstractmethod
    def _push(self, v: ArrayT, /) -> ArrayT:
        """Multiply with a vector of shape (N,)."""

    @abstractmethod
    def _pull(self, u: ArrayT, /) -> ArrayT:
        """Multiply the adjoint with a vector of shape (M,)."""

    def matvec(self, v: ArrayT, /) -> ArrayT:
        """Multiply with a vector.

        Parameters
        ----------
        v : Array, shape (N,) or (N, 1)
            Tangent of the input, flattened.

        Returns
        -------
        Array, shape (M,) or (M, 1)
            The tangent of the output, flattened.

        Raises
        ------
        TypeError
            If `v` is not an array, has no floating dtype, or comes from another library than the operator's arrays.
        ValueError
            If `v` has another shape or lies on another device.
        """
        xp = self._read_vector("matvec", "v", v, self.shape[1])
        return xp.reshape(self._push(xp.reshape(v, (self.shape[1],))), (self.shape[0], *v.shape[1:]))

    def rmatvec(self, u: ArrayT, /) -> ArrayT:
        """Multiply the adjoint with a vector.

        Parameters
        ----------
        u : Array, shape (M,) or (M, 1)
            Cotangent of the output, flattened.

        Returns
        -------
        Array, shape (N,) or (N, 1)
            The cotangent of the input, flattened.

        Raises
        ------
        TypeError
            If `u` is not an array, has no floating dtype, or comes from another library than the operator's arrays.
        ValueError
            If `u` has another shape or lies on another device.
        """
        xp = self._read_vector("rmatvec", "u", u, self.shape[0])
        return xp.reshape(self._pull(xp.reshape(u, (self.shape[0],))), (self.shape[1], *u.shape[1:]))

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
            If `v` is not an array, has no floating dtype, or comes from another library than the operator's arrays.
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
            If `u` is not an array, has no floating dtype, or comes from another library than the operator's arrays.
        ValueError
            If `u` has another shape or lies on another device.
        """
        return self._by_columns("rmatmat", "u", u, self.shape[0], self.rmatvec)

    def _read_vector(self, method: str, name: str, x: Array, size: int, /) -> Namespace:
        """Check a vector, and return its namespace."""
        function = f"{type(self).__name__}.{method}"
        xp, *_ = validate_arrays(function, (name, "operator"), x, self._like)
        if tuple(x.shape) not in {(size,), (size, 1)}:
            msg = f"{function}: {name} must have shape ({size},) or ({size}, 1); got {shapes(**{name: x})}"
            raise ValueError(msg)
        return xp

    def _by_columns(
        self, method: str, name: str, x: ArrayT, size: int, multiply: Callable[[ArrayT], ArrayT], /
    ) -> ArrayT:
        """Multiply column by column."""
        function = f"{type(self).__name__}.{method}"
        xp, *_ = validate_arrays(function, (name,), x)
        if x.ndim != 2 or x.shape[0] != size or x.shape[1] == 0:
            msg = f"{function}: {name} must have shape ({size}, K), K ≥ 1; got {shapes(**{name: x})}"
            raise ValueError(msg)
        return xp.stack([multiply(x[:, i]) for i in range(x.shape[1])], axis=1)
