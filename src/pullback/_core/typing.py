"""The part of the array API standard that this package uses, as types."""

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

DType: TypeAlias = Any
"""A dtype object of any library: the standard gives dtypes no common type."""

Namespace: TypeAlias = Any
"""An array API namespace: a module for most libraries, so its functions have no static types."""

Elementwise: TypeAlias = "Callable[[Array], Array]"

Cast: TypeAlias = "Callable[..., Any]"
"""Takes an array and, optionally, a dtype; returns an array of the same library."""


Matrix: TypeAlias = Any
"""A sparse matrix or a linear operator: `shape`, `dtype`, ``@`` and ``.T``."""

DaskArray: TypeAlias = Any
"""A lazy array of Dask, which has no types."""

Computed: TypeAlias = Any
"""An array of the library that the blocks are of, or None."""

Client: TypeAlias = Any
"""A client of Dask's cluster."""

Scheduler: TypeAlias = Any
"""The scheduler of Dask's cluster."""

ZarrArray: TypeAlias = Any

Sizes: TypeAlias = "tuple[Any, ...]"
"""The rows of each chunk; NaN, which is none of int, where they are not known."""

Step: TypeAlias = "Callable[..., Any]"
"""Takes a block of each array of a batch, and shared arguments; returns sums over the rows, or rows, in containers."""


class Array(Protocol):
    """What this package asks of an array: a subset of the standard's array object."""

    @property
    def dtype(self) -> DType: ...
    @property
    def ndim(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def T(self) -> Self: ...  # noqa: N802 - the standard's name
    def __getitem__(self, key: Any, /) -> Self: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __neg__(self) -> Self: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __le__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __add__(self, other: Any, /) -> Self: ...
    def __sub__(self, other: Any, /) -> Self: ...
    def __rsub__(self, other: Any, /) -> Self: ...
    def __mul__(self, other: Any, /) -> Self: ...
    def __truediv__(self, other: Any, /) -> Self: ...
    def __matmul__(self, other: Any, /) -> Self: ...
    def __pow__(self, other: Any, /) -> Self: ...
    def __rpow__(self, other: Any, /) -> Self: ...
    def __float__(self) -> float: ...


if TYPE_CHECKING:
    # The default lets annotations name a generic result, such as AffineGradients, without its array type.
    from typing_extensions import TypeVar

    ArrayT = TypeVar("ArrayT", bound=Array, default=Any)
    """The array type of one library: a public function returns arrays of the type that it takes."""
else:
    from typing import TypeVar

    ArrayT = TypeVar("ArrayT", bound=Array)
