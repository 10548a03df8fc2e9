"""What a step of `pullback.dask` returns, and what is learnt of that from a call on zero rows."""

import math
import warnings
from collections.abc import Collection, Sequence
from typing import NamedTuple

import dask.array as da
from array_api_compat import array_namespace, device

from pullback._core.reductions import accumulation_dtype
from pullback._core.typing import Array, DaskArray, DType, Namespace, Step


class Result(NamedTuple):
    """One entry of what a step returns, as learnt from a call on zero rows."""

    name: str
    keeps_rows: bool
    shape: tuple[int, ...]
    """With no rows, where it keeps them."""
    dtype: DType
    meta: Array
    """An empty array of the kind that the lazy result is of: sums of whole numbers take 64 bits."""

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row, 0 for a sum."""
        size: int = self.dtype.itemsize * math.prod(self.shape[1:]) if self.keeps_rows else 0
        return size

    @property
    def sum_bytes(self) -> int:
        """Return the bytes of the sum in the dtype to add up in, 0 for rows."""
        if self.keeps_rows:
            return 0
        is_complex = array_namespace(self.meta).isdtype(self.dtype, "complex floating")
        return (16 if is_complex else 8) * math.prod(self.shape)


def on_zero_rows(
    step: Step, batch: Sequence[DaskArray], shared: Sequence[Array | DaskArray], /
) -> tuple[Array | None, ...]:
    """Call the step on zero rows: what comes back has the shapes and dtypes of its results."""
    empty = [_zeros(x, (0, *x.shape[1:])) for x in batch]
    stand_ins = [_zeros(x, x.shape) if isinstance(x, da.Array) else x for x in shared]
    try:
        with warnings.catch_warnings():
            # A mean of no rows warns, and is reported below for what it is.
            warnings.simplefilter("ignore", RuntimeWarning)
            out = step(*empty, *stand_ins)
    except Exception as error:
        msg = (
            "accumulate: step must take zero rows, from which the shapes and dtypes of its results are learnt; "
            f"it raised {type(error).__name__}: {error}"
        )
        raise ValueError(msg) from error
    return entries(out)


def entries(out: object, /) -> tuple[Array | None, ...]:
    """Check that a step returned a tuple of arrays; return it."""
    if not isinstance(out, tuple):
        msg = f"accumulate: step must return a tuple or NamedTuple of arrays; got {type(out).__name__}"
        raise TypeError(msg)
    for i, x in enumerate(out):
        if x is not None and not (hasattr(x, "dtype") and hasattr(x, "shape")):
            msg = f"accumulate: step must return arrays; got {type(x).__name__} for {name_of(out, i)}"
            raise TypeError(msg)
    return out


def name_of(out: tuple[object, ...], i: int, /) -> str:
    """Return the field's name, or where there are no names the index."""
    return str(getattr(out, "_fields", range(len(out)))[i])


def classify_outputs(out: tuple[Array | None, ...], rows: Collection[str | int], /) -> tuple[Result | None, ...]:
    """Say of each entry whether it keeps rows or is summed, and check that it can be."""
    names = [name_of(out, i) for i in range(len(out))]
    unknown = [x for x in rows if x not in names and x not in range(len(out))]
    if isinstance(rows, str) or unknown:
        msg = f"accumulate: rows must be a tuple of names or indices of what step returns, {names}; got {rows!r}"
        raise ValueError(msg)
    results: list[Result | None] = []
    for i, (name, x) in enumerate(zip(names, out, strict=True)):
        if x is None:
            results.append(None)
            continue
        keeps_rows = name in rows or i in rows
        has_rows = x.ndim > 0 and x.shape[0] == 0
        if keeps_rows != has_rows:
            advice = f"keeps the rows of the batch: name it in rows=({name!r},)" if has_rows else "does not keep rows"
            msg = f"accumulate: {name} has shape {tuple(x.shape)} on zero rows, and so {advice}"
            raise ValueError(msg)
        xp = array_namespace(x)
        if not keeps_rows and bool(xp.any(xp.astype(x, xp.bool))):
            msg = (
                f"accumulate: {name} is added up over the rows, and must be 0 on zero rows; got {xp.max(x)}. "
                "A mean is none such: let step return the sum, and divide by the number of rows afterwards"
            )
            raise ValueError(msg)
        whole_numbers = not keeps_rows and xp.isdtype(x.dtype, ("bool", "integral"))
        dtype = sum_dtype(xp, x) if whole_numbers else x.dtype
        meta = xp.empty((0,) * x.ndim, dtype=dtype, device=device(x))
        results.append(Result(name, keeps_rows, tuple(x.shape), x.dtype, meta))
    return tuple(results)


def sum_dtype(xp: Namespace, x: Array, /) -> DType:
    """Return the dtype to add up in: float64's precision where the device has it, and 64 bits for whole numbers."""
    if xp.isdtype(x.dtype, "unsigned integer"):
        return xp.uint64
    return xp.int64 if xp.isdtype(x.dtype, ("bool", "signed integer")) else accumulation_dtype(xp, x)


def _zeros(x: DaskArray, shape: tuple[int, ...], /) -> Array:
    """Return zeros of the library, dtype and device of a lazy array's blocks."""
    if math.isnan(sum(shape)):
        msg = f"accumulate: every size but the number of rows must be known; got an array of shape {x.shape}"
        raise ValueError(msg)
    meta = x._meta  # noqa: SLF001 - what libraries over Dask ask for the kind of blocks
    out: Array = array_namespace(meta).zeros(shape, dtype=meta.dtype, device=device(meta))
    return out
