"""Where the time of a call goes that is further from the plain expressions, or from the limit, than others."""

from collections.abc import Collection, Iterator

import array_api_compat.numpy as xp

from benchmarks.peers import OURS, PLAIN, Call, Floats, backward, forward, inputs
from benchmarks.report import Row, Section, duration, sizes
from benchmarks.timing import interleave
from pullback import affine_backward, affine_forward
from pullback._arguments import read
from pullback._sums import add_to_rows, contract_rows, sum_rows

SMALL = (256, 64, 64)
LONG = ((1_000_000, 64, 64), (10_000_000, 16, 16), (2_000_000, 4, 2))


def sections(_peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield a table for each call that is taken apart."""
    parts = [("backward", SMALL), *((direction, shape) for shape in LONG for direction in ("forward", "backward"))]
    for direction, shape in parts:
        m, k, n = shape
        calls = {"forward": _forward, "backward": _backward}[direction](*inputs((m,), k, n))
        yield Section(
            name=f"parts of {direction} {shape}",
            title=f"{direction} of {sizes(*shape)}, float32: what its parts take by themselves",
            columns=("", "time", "part of the call"),
            rows=_rows(calls, quick=quick),
            length=len(calls),
        )


def _rows(calls: dict[str, Call], *, quick: bool) -> Iterator[Row]:
    """Time all of them in turn."""
    times = interleave(calls, quick=quick)
    whole = times.median(OURS)
    for name in calls:
        yield Row((name, duration(times.median(name)), f"{times.median(name) / whole:.0%}"), holds=True)


def _forward(_da: Floats, z: Floats, w: Floats, b: Floats) -> dict[str, Call]:
    """Take the forward apart."""
    a = z @ w

    def add_bias() -> None:
        nonlocal a
        a += b

    def add_to_several() -> None:
        nonlocal a
        a = add_to_rows(xp, a, b)

    return {
        OURS: lambda: affine_forward(z, w, b),
        PLAIN: lambda: forward(z, w, b),
        "the product": lambda: z @ w,
        "the bias, to several rows at a time": add_to_several,
        "the bias, as NumPy adds it in place": add_bias,
        "reading the arguments": lambda: read("affine_forward", ("z", "w", "b"), z, w, b),
        "a copy of the result": a.copy,
    }


def _backward(da: Floats, z: Floats, w: Floats, _b: Floats) -> dict[str, Call]:
    """Take the backward apart."""
    return {
        OURS: lambda: affine_backward(da, z, w),
        PLAIN: lambda: backward(da, z, w),
        "dz, the product": lambda: da @ w.T,
        "dw, summed in blocks": lambda: contract_rows(xp, z, da),
        "dw, one product": lambda: z.T @ da,
        "db, summed in blocks or with ones": lambda: sum_rows(xp, da),
        "db, NumPy's sum": lambda: da.sum(axis=0),
        "reading the arguments": lambda: read("affine_backward", ("da", "z", "w"), da, z, w),
    }
