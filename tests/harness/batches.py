"""Batches for the tests of `pullback.dask`, and what counts how they are read."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.callbacks import Callback

import pullback.dask
from pullback import affine_backward
from tests.harness.pair_laws import EPS, C

# A test knows which results there are, and of which library.
accumulate: Callable[..., Any] = pullback.dask.accumulate
compute: Callable[..., Any] = pullback.dask.compute
reference: Callable[..., Any] = affine_backward


class Case(NamedTuple):
    """What `affine_backward` takes."""

    da: Any
    z: Any
    w: Any


def draw(rows: int, k: int = 3, n: int = 2, dtype: str = "float64") -> Case:
    """Draw a batch."""
    rng = np.random.default_rng(21)
    return Case(*(rng.standard_normal(shape).astype(dtype) for shape in ((rows, n), (rows, k), (k, n))))


def gradients(case: Case, chunks: Any, rows: Sequence[str] = ("dz",)) -> Any:
    """Accumulate the gradients, lazily."""
    batch = (da.from_array(x, chunks={0: chunks}) for x in case[:2])
    return accumulate(affine_backward, *batch, shared=(case.w,), rows=rows)


def check(got: Any, case: Case) -> None:
    """Compare with NumPy at once: each entry to C·√K·eps·M, for K terms that have a sum of absolute values M."""
    expected, sizes = reference(*case), reference(*map(abs, case))
    for x, right, size, terms in zip(got, expected, sizes, (case.w.shape[1], *[len(case.z)] * 2), strict=True):
        if x is not None:
            assert (x.shape, x.dtype) == (right.shape, right.dtype)
            assert np.all(np.abs(x - right) <= C * math.sqrt(terms) * EPS[str(x.dtype)] * size)


class Reader:
    """A source that counts how often each of its rows is read."""

    def __init__(self, x: Any) -> None:
        self.x, self.shape, self.dtype, self.ndim = x, x.shape, x.dtype, x.ndim
        self.reads = np.zeros(len(x), dtype=int)

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        self.reads[index[0]] += 1
        return self.x[index]


class Tasks(Callback):  # type: ignore[misc] # not typed here
    """Counts what the optimised graphs consist of."""

    count = 0

    def _start(self, dsk: Any) -> None:
        self.count += len(dsk)
