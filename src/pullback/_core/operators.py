"""Batches that multiply without being arrays of the standard: sparse matrices and linear operators.

Such a batch is a constant. It has a shape, a dtype, `@` and `.T`, as SciPy's and CuPy's sparse arrays, PyTorch's sparse
tensors and ``scipy.sparse.linalg.LinearOperator`` do.
"""

from contextlib import suppress
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj

from pullback._core import tracing
from pullback._core.dtypes import is_dtype
from pullback._core.reductions import accumulation_dtype
from pullback._core.typing import Array, DType, Matrix, Namespace

ARRAYS: set[type] = set()
"""Types whose objects are arrays of the standard. The affine pair looks here itself, before it calls `is_operator`."""


def is_operator(z: Matrix, other: Array | None = None, /) -> bool:
    """Whether `z` multiplies arrays such as `other`, but is no dense array of the standard.

    Sparse arrays of the standard, as those of PyData's sparse, multiply dense arrays of NumPy as a matrix does, and
    others of their own type as an array.
    """
    if type(z) in ARRAYS:
        return False
    if hasattr(z, "is_sparse_csr"):  # of PyTorch, whose sparse and dense tensors have one type
        # A masked tensor has methods of these names, and is refused where arrays are checked.
        return z.is_sparse is True or z.is_sparse_csr is True
    if is_array_api_obj(z):
        if hasattr(z, "nnz"):
            return not (other is None or type(other) is type(z))
        ARRAYS.add(type(z))
        return False
    # Tables and NumPy's matrices have all of these, too.
    needed = all(hasattr(z, name) for name in ("dtype", "T", "__matmul__"))
    return (
        needed
        and len(getattr(z, "shape", ())) == 2
        and not (hasattr(z, "to_numpy") or hasattr(z, "__array_interface__"))
    )


class Operator:
    """A matrix that multiplies arrays, or its adjoint."""

    ndim = 2

    def __init__(self, function: str, xp: Namespace, matrix: Matrix, /, *, is_adjoint: bool = False) -> None:
        self.function, self.xp, self.matrix, self.is_adjoint = function, xp, matrix, is_adjoint
        self.shape = tuple(matrix.shape)
        raw: Namespace = getattr(xp, "raw", xp)
        floating = False
        with suppress(AttributeError):  # from PyTorch, about a dtype of NumPy
            floating = matrix.dtype is None or is_dtype(raw, matrix.dtype, "real floating", "complex floating")
        if not floating and str(matrix.dtype).startswith(("float", "complex")):  # a dtype of another library
            msg = (
                f"{function}: z must multiply arrays of the library of w, {raw.__name__}; got "
                f"{type(matrix).__name__} of {matrix.dtype}. Convert w or z to the library of the other first"
            )
            raise TypeError(msg)
        if not floating:
            way = ", with z.astype('float64')" if hasattr(matrix, "astype") else ""
            msg = f"{function}: z must have a floating dtype; got {matrix.dtype}. Cast it first{way}"
            raise TypeError(msg)

    def product(self, xp: Namespace, x: Array, /) -> Array:
        """Multiply with a dense vector or matrix. The adjoint sums over many rows, in the accumulation dtype."""
        if type(x) in tracing.sums:
            return tracing.sums[type(x)]("operator", xp, x, self)
        if not self.is_adjoint:
            return self._multiply(xp, self.matrix, x)
        # PyTorch's compressed sparse rows have no T.
        transposed = getattr(self.matrix, "mT", None)
        transposed = self.matrix.T if transposed is None else transposed
        out = self._multiply(xp, transposed, xp.astype(_conj(xp, x), accumulation_dtype(xp, x), copy=False))
        return _conj(xp, xp.astype(out, _narrow(xp, out, x), copy=False))

    def squares(self, x: Array, /) -> "Operator":
        """Return the operator of the squared magnitudes of the entries, in the accumulation dtype of `x`."""
        matrix: Any = self.matrix
        is_array = is_array_api_obj(matrix) and not hasattr(matrix, "multiply")  # whose * goes entry by entry
        if not (is_array or hasattr(matrix, "multiply")):
            msg = (
                f"{self.function}: z must have the squares of its entries, z.multiply(z), as sparse matrices do; got "
                f"{type(matrix).__name__}. {dense_way(matrix)}"
            )
            raise TypeError(msg)
        raw: Namespace = getattr(self.xp, "raw", self.xp)
        wide = raw.result_type(matrix.dtype, accumulation_dtype(self.xp, x))
        matrix = matrix.astype(wide) if hasattr(matrix, "astype") else raw.astype(matrix, wide)
        other = matrix.conj() if is_dtype(raw, wide, "complex floating") else matrix
        return Operator(self.function, self.xp, matrix * other if is_array else matrix.multiply(other))

    def adjoint(self, xp: Namespace, /) -> "Operator":
        """Return the adjoint."""
        return Operator(self.function, xp, self.matrix, is_adjoint=not self.is_adjoint)

    def _multiply(self, xp: Namespace, matrix: Matrix, x: Array, /) -> Array:
        """Return ``matrix @ x``, an array of the library of `x`."""
        if hasattr(x, "chunks"):
            msg = (
                f"{self.function}: z must be an array of Dask where the other arrays are lazy, which a product with "
                f"{type(matrix).__name__} would compute. Compute them first, or make z in a step of "
                "pullback.dask.accumulate"
            )
            raise TypeError(msg)
        if type(matrix) is type(x) and matrix.dtype != x.dtype:  # PyTorch's product does not promote
            dtype = xp.result_type(matrix.dtype, x.dtype)
            matrix, x = xp.astype(matrix, dtype), xp.astype(x, dtype)
        out: Any = matrix @ x
        if not (is_array_api_obj(out) and array_namespace(out) is xp):
            msg = (
                f"{self.function}: z @ w must be a dense array of the library of w, {xp.__name__}; got "
                f"{type(out).__name__} from {type(matrix).__name__} and {type(x).__name__}"
            )
            raise TypeError(msg)
        return out


def dense_way(z: Matrix, /) -> str:
    """Return the way out where only an array will do."""
    way = next(
        (f"z.{method}()" for method in ("toarray", "to_dense", "todense") if hasattr(z, method)), "z @ numpy.eye(k)"
    )
    return f"Convert it first, with {way}"


def _conj(xp: Namespace, x: Array, /) -> Array:
    """Return the complex conjugate; a real array as it is."""
    return xp.conj(x) if is_dtype(xp, x.dtype, "complex floating") else x


def _narrow(xp: Namespace, out: Array, x: Array, /) -> DType:
    """Return the dtype of `x`, complex where `out` is."""
    if not is_dtype(xp, out.dtype, "complex floating"):
        return x.dtype
    return xp.complex64 if x.dtype in (xp.float32, xp.complex64) else xp.complex128
