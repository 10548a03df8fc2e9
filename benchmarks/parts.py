"""Where the time of a call goes that is further from the plain expressions, or from the limit, than others."""

from collections.abc import Collection, Iterator

import array_api_compat.numpy as xp
import numpy as np

from benchmarks import gradients
from benchmarks.peers import OURS, PLAIN, Call, Floats, backward, forward, inputs
from benchmarks.report import Row, Section, duration, sizes
from benchmarks.timing import interleave
from pullback import affine_backward, affine_forward
from pullback._core.arguments import validate_arrays
from pullback._core.reductions import add_to_rows, contract_rows, sum_all, sum_last, sum_rows
from pullback._core.stable import largest
from pullback._ops.losses.reduction import read_loss

BOTH = ((8, 8, 8), (10_000, 64, 64), (1_000_000, 64, 64), (10_000_000, 16, 16), (2_000_000, 4, 2))
BACKWARD = ((256, 64, 64), (512, 64, 64))
LOSSES = (
    ("softmax", (1_000, 64, 10)),
    ("softmax", (100_000, 64, 10)),
    ("softmax", (65_536, 512, 512)),
    ("squared error", (1_000, 64, 1)),
    ("squared error", (1_000_000, 128, 1)),
)
# A strip of the output that stays in the cache between the product and the bias.
STRIP_BYTES = 2**20


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield a table for each call that is taken apart."""
    taken = [(direction, shape) for shape in BOTH for direction in ("forward", "backward")]
    for direction, shape in [*taken, *(("backward", shape) for shape in BACKWARD)]:
        m, k, n = shape
        arrays = inputs((m,), k, n)
        calls = {"forward": _forward, "backward": _backward}[direction](*arrays)
        if "torch" in peers:
            calls |= _torch(*arrays)[direction]
        yield _section(direction, shape, calls, quick=quick)
    for loss, shape in LOSSES:
        yield _section(f"gradient of {loss}", shape, _loss(loss, *gradients.problem(*shape)), quick=quick)


def _section(call: str, shape: tuple[int, int, int], calls: dict[str, Call], *, quick: bool) -> Section:
    """Make a table of a call and its parts."""
    return Section(
        name=f"parts of {call} {shape}",
        title=f"{call} of {sizes(*shape)}, float32: what its parts take by themselves",
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

    def by_strips() -> Floats:
        out = np.empty_like(a)
        rows = STRIP_BYTES // (out.itemsize * out.shape[1])
        for start in range(0, len(z), rows):
            out[start : start + rows] = add_to_rows(xp, z[start : start + rows] @ w, b)
        return out

    return {
        OURS: lambda: affine_forward(z, w, b),
        PLAIN: lambda: forward(z, w, b),
        "the product": lambda: z @ w,
        "the bias, to several rows at a time": add_to_several,
        "the bias, as NumPy adds it in place": add_bias,
        "reading the arguments": lambda: validate_arrays("affine_forward", ("z", "w", "b"), z, w, b),
        "a copy of the result": a.copy,
        "product and bias by strips of 1 MiB, instead": by_strips,
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
        "reading the arguments": lambda: validate_arrays("affine_backward", ("da", "z", "w"), da, z, w),
    }


def _torch(da: Floats, z: Floats, w: Floats, b: Floats) -> dict[str, dict[str, Call]]:
    """Take PyTorch's functions for both directions apart."""
    import torch  # noqa: PLC0415 - a peer is loaded where it is asked for

    y, x, v, c = map(torch.from_numpy, (da, z, w, b))
    return {
        "forward": {
            "PyTorch, product and bias in one call": lambda: torch.addmm(c, x, v),
            "PyTorch, the product": lambda: x @ v,
        },
        "backward": {
            "PyTorch, dz": lambda: y @ v.T,
            "PyTorch, dw, one product": lambda: x.T @ y,
            "PyTorch, db": lambda: y.sum(0),
        },
    }


def _loss(loss: str, z: Floats, w: Floats, b: Floats, y: gradients.Targets) -> dict[str, Call]:
    """Take a loss and its gradient apart."""
    ours, plain = gradients.OUR_LOSSES[loss], gradients.PLAIN_LOSSES[loss]
    a = affine_forward(z, w, b)
    da = ours(a, y).da
    overwritten = a.copy()

    calls = {
        OURS: gradients.ours(loss, z, w, b, y),
        PLAIN: gradients.plain(loss, z, w, b, y),
        "the forward": lambda: affine_forward(z, w, b),
        "the forward, NumPy": lambda: z @ w + b,
        "the loss": lambda: ours(a, y),
        "the loss, NumPy in the memory of the logits": lambda: plain(overwritten, y),
        "the backward": lambda: affine_backward(da, z, w, wrt=("w", "b")),
        "the backward, NumPy": lambda: (z.T @ da, da.sum(axis=0)),
        "of the loss: reading the arguments": lambda: read_loss("loss", None, "mean", a=a, y=y),
        "of the loss: the sum of the values": lambda: sum_all(xp, da[:, :1]),
    }
    if loss == "softmax":
        classes = np.arange(a.shape[1])
        calls |= {
            "of the loss: the largest logits": lambda: largest(xp, a),
            "of the loss: the logits less these, an array of its own": lambda: a - a[:, :1],
            "of the loss: the exponentials, another": lambda: xp.exp(a),
            "of the loss: their sums": lambda: sum_last(xp, a),
            "of the loss: the indices as zeros and ones": lambda: xp.astype(y[:, None] == classes, a.dtype),
        }
    return calls
