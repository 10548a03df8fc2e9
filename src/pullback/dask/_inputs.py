"""The arrays that a step of `pullback.dask` takes and returns, and the calls on rows of zeros that classify them."""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from array_api_compat import array_namespace, device

from pullback._core import tracing, trees
from pullback._core.dtypes import floating_bits, is_dtype
from pullback._core.reductions import accumulation_dtype
from pullback._core.typing import Array, DaskArray, DType, Namespace, Step
from pullback.dask._compat import empty_block

# Shared arrays of at most this size are copied when a graph is built.
COPIED_BYTES = 64 * 2**20

Outputs = tuple[Array, ...]
"""The arrays that a step returns, in order."""


class Result(NamedTuple):
    """One array of what a step returns, as learnt from a call on zero rows."""

    name: str
    """Field names, keys and indices that lead to it, joined by dots."""
    keeps_rows: bool
    shape: tuple[int, ...]
    """The shape on zero rows."""
    dtype: DType
    """The dtype that the step returns on blocks, in which narrow floats are widened."""
    meta: Array
    """An empty array of the kind of the lazy result: narrow floats stay narrow, sums of integers take 64 bits."""

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row, 0 for a sum."""
        return self.dtype.itemsize * math.prod(self.shape[1:]) if self.keeps_rows else 0

    @property
    def sum_bytes(self) -> int:
        """Return the bytes of the sum in the accumulation dtype, 0 for rows."""
        if self.keeps_rows:
            return 0
        is_complex = is_dtype(array_namespace(self.meta), self.dtype, "complex floating")
        return (16 if is_complex else 8) * math.prod(self.shape)


def own(x: Any, /) -> Any:  # noqa: ANN401 - an array, or another object that the step takes
    """Join the chunks of a lazy shared array; copy a small array, so that changing it later changes no result."""
    if isinstance(x, da.Array):
        # Dask cannot rechunk blocks of PyTorch.
        return x if x.npartitions == 1 else x.rechunk(-1)
    if not _is_array(x) or math.prod(x.shape) * x.dtype.itemsize > COPIED_BYTES:
        return native(x)
    return native(np.array(x, subok=True)) if isinstance(x, np.ndarray) else array_namespace(x).asarray(x, copy=True)


def _is_array(x: Any, /) -> bool:  # noqa: ANN401 - as above
    """Whether this is an array; the classes of NumPy's scalars are none."""
    return hasattr(x, "dtype") and not isinstance(x, type)


def is_narrow(x: Any, /) -> bool:  # noqa: ANN401 - as above
    """Whether an array has a real floating dtype of less than 32 bits."""
    if not _is_array(x):
        return False
    xp = array_namespace(empty_block(x) if isinstance(x, da.Array) else x)
    return is_dtype(xp, x.dtype, "real floating") and floating_bits(xp, x.dtype) < 32


def widen(x: Any, /) -> Any:  # noqa: ANN401 - as above
    """Return a narrow floating array as float32, and anything else as it is."""
    if not is_narrow(x):
        return x
    if isinstance(x, da.Array):
        return x.map_blocks(widen, meta=widen(empty_block(x)))
    xp = array_namespace(x)
    return xp.astype(x, xp.float32)


def learn(
    step: Step, batch: Sequence[DaskArray], shared: tuple[Any, ...], rows: Iterable[str | int] | None, /
) -> tuple[Any, tuple[Result, ...]]:
    """Call the step on zero rows; return what it returns, and what that says about the results of a block."""
    shared = trees.rebuild(shared, lambda x: _zeros(x, x.shape) if isinstance(x, da.Array) else x)

    def on_zeros(count: int, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - as above
        blocks = [_zeros(x, (count, *x.shape[1:])) for x in batch]
        with warnings.catch_warnings():
            # A mean of no rows warns; `_classify` raises for it.
            warnings.simplefilter("ignore", RuntimeWarning)
            return step(*trees.rebuild((*blocks, *shared), change))

    try:
        out = on_zeros(0, lambda x: x)
    except Exception as error:
        msg = (
            "accumulate: step must take zero rows, from which the shapes and dtypes of its results are learnt; "
            f"it raised {type(error).__name__}: {error}"
        )
        raise ValueError(msg) from error
    arrays = entries(out)
    on_blocks = arrays
    if any(map(is_narrow, (*batch, *trees.leaves(shared)))):
        try:
            wide = on_zeros(0, widen)
        except Exception as error:
            msg = (
                "accumulate: step must take float32 in place of narrower floats, which would overflow in sums; it "
                f"raised {type(error).__name__}: {error}. Give the arrays that step itself holds in shared"
            )
            raise ValueError(msg) from error
        on_blocks = entries(wide)
        check_structure(names_of(out), wide)
    return out, _classify(out, arrays, on_blocks, rows, lambda: entries(on_zeros(1, widen)))


def entries(out: Any, /) -> Outputs:  # noqa: ANN401 - as above
    """Check that a step returned arrays, or nested containers of arrays; return the arrays."""
    # Where a task runs in the thread of a function that is differentiated, results of gradients are its constants.
    arrays = [tracing.plain(x) for x in trees.leaves(out)]
    if out is None:
        msg = "accumulate: step must return arrays, or nested containers of arrays; got None"
        raise TypeError(msg)
    for i, x in enumerate(arrays):
        if tracing.is_traced(x):
            msg = (
                f"accumulate: an array that is differentiated reached {names_of(out)[i]} from outside of step. Give it "
                "to step in shared"
            )
            raise TypeError(msg)
        if not (hasattr(x, "dtype") and hasattr(x, "shape")):
            msg = f"accumulate: step must return arrays; got {type(x).__name__} for {names_of(out)[i]}"
            raise TypeError(msg)
    return tuple(arrays)


def names_of(out: Any, /) -> list[str]:  # noqa: ANN401 - as above
    """Return the names of the arrays that a step returned: field names, keys and indices, joined by dots."""
    return trees.paths(out) if trees.entries(out) is not None else ["result"]


def check_structure(names: list[str], out: Any, /) -> None:  # noqa: ANN401 - as above
    """Check that a step returned arrays in the places where it returned them on zero rows."""
    if names_of(out) != names:
        msg = (
            "accumulate: step must return arrays in the same places, and None in the same places, for any number of "
            f"rows; got {names_of(out)}, and {names} on zero rows"
        )
        raise ValueError(msg)


def _classify(
    out: Any,  # noqa: ANN401 - as above
    arrays: Outputs,
    on_blocks: Outputs,
    rows: Iterable[str | int] | None,
    on_one_row: Callable[[], Outputs],
    /,
) -> tuple[Result, ...]:
    """Say of each array whether it keeps rows or is summed, and check that it can be."""
    named = rows_named(rows, out)
    results: list[Result] = []
    for i, (name, x, on_block) in enumerate(zip(names_of(out), arrays, on_blocks, strict=True)):
        keeps_rows = i in named
        has_rows = x.ndim > 0 and x.shape[0] == 0
        if has_rows and not keeps_rows:
            has_rows = _follows_rows(on_one_row, i)
        if keeps_rows != has_rows:
            advice = f"keeps the rows of the batch: name it in rows=({name!r},)" if has_rows else "does not keep rows"
            msg = f"accumulate: {name} has shape {tuple(x.shape)} on zero rows, and so {advice}"
            raise ValueError(msg)
        xp = array_namespace(x)
        if not keeps_rows and bool(xp.any(xp.astype(x, xp.bool))):
            msg = (
                f"accumulate: {name} is a sum over the rows, and must be 0 on zero rows; got {xp.max(x)}. "
                "A mean is not: let step return the sum, and divide by the number of rows afterwards"
            )
            raise ValueError(msg)
        counts = not keeps_rows and is_dtype(xp, x.dtype, "bool", "integral")
        meta = xp.empty((0,) * x.ndim, dtype=sum_dtype(xp, x) if counts else x.dtype, device=device(x))
        # Keys of a dict that differ may have the same text.
        taken = any(name == other.name for other in results)
        results.append(Result(f"{name}#{i}" if taken else name, keeps_rows, tuple(x.shape), on_block.dtype, meta))
    return tuple(results)


def rows_named(rows: Iterable[str | int] | None, out: Any, /) -> set[int]:  # noqa: ANN401 - as above
    """Return the indices of the arrays that `rows` names, by themselves or by a container that they are in."""
    names = names_of(out)
    places = [name for name, _ in trees.entries(out) or [("result", out)]]
    known = {*places, *(".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2))}
    given = tuple(rows) if isinstance(rows, Iterable) and not isinstance(rows, str) else None
    if given is None or any(x not in known and x not in range(len(places)) for x in given):
        msg = (
            f"accumulate: rows must be a tuple of names or indices of what step returns, {names}; "
            f"got {rows if given is None else given!r}"
        )
        raise ValueError(msg)
    wanted = [x if isinstance(x, str) else places[x] for x in given]
    return {i for i, name in enumerate(names) if any(name == x or name.startswith(f"{x}.") for x in wanted)}


def _follows_rows(on_one_row: Callable[[], Outputs], i: int, /) -> bool:
    """Whether array `i`, which has a first axis of size 0 on zero rows, has a row for a row: no sum of nothing."""
    try:
        x = on_one_row()[i]
    except Exception:  # noqa: BLE001 - a step may refuse a row of zeros; a sum with a first axis of 0 is rare
        return True
    return x.shape[:1] != (0,)


def sum_dtype(xp: Namespace, x: Array, /) -> DType:
    """Return the accumulation dtype: float64's precision where the device has it, and 64 bits for integers."""
    if is_dtype(xp, x.dtype, "unsigned integer"):
        return xp.uint64
    return xp.int64 if is_dtype(xp, x.dtype, "bool", "signed integer") else accumulation_dtype(xp, x)


def _zeros(x: DaskArray, shape: tuple[int, ...], /) -> Array:
    """Return zeros of the library, dtype and device of a lazy array's blocks."""
    if math.isnan(sum(shape)):
        msg = f"accumulate: every size but the number of rows must be known; got an array of shape {x.shape}"
        raise ValueError(msg)
    meta = empty_block(x)
    return native(array_namespace(meta).zeros(shape, dtype=meta.dtype, device=device(meta)))


def native(x: Any, /) -> Any:  # noqa: ANN401 - as above
    """Return a NumPy array row by row, aligned and in the machine's byte order: how products round depends on it."""
    if not isinstance(x, np.ndarray) or (x.flags.c_contiguous and x.flags.aligned and x.dtype.isnative):
        return x
    return np.require(x, x.dtype.newbyteorder("="), requirements=("C", "A"))
