"""CuPy on a GPU: compared with expressions by hand, PyTorch and JAX on the same card, and with a copy of each block."""

import os
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

# JAX would take three quarters of the card's memory for itself.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import cupy
import dask.array
import jax
import numpy as np
import torch
from array_api_compat import array_namespace

from benchmarks.accuracy import error, reference
from benchmarks.peers import OURS, Floats, backward, forward, inputs
from benchmarks.report import Row, Section, duration, sizes
from benchmarks.tape import CASES, check, gradient, jax_gradient, torch_gradient
from benchmarks.timing import Bound, Call, interleave
from pullback import affine_backward, affine_forward, value_and_grad
from pullback.dask import accumulate, compute

HAND = "CuPy by hand"
SHAPES = (
    (8, 8, 8),
    (1_024, 64, 64),
    (4_096, 256, 256),
    (8_192, 1_024, 1_024),
    (65_536, 512, 512),
    (1_000_000, 64, 64),
    (1_000_000, 16, 16),
    (10_000_000, 16, 16),
)
# The time of the products and sums by hand is to be so many times ours, where the products are large.
NEAR, LARGE = 0.95, 2**30
LENGTHS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
BOUND, LONG_BOUND, LONG = 1e-6, 3e-7, 100_000
# Rows on the host, in blocks that are copied to the card one by one.
ROWS, BLOCK, K, N = 2_000_000, 100_000, 512, 10


def described() -> Iterator[str]:
    """Yield lines on the card and on what drives it."""
    with cupy.cuda.Device() as device:
        name = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    cuda = cupy.cuda.runtime.runtimeGetVersion()
    yield f"GPU       {name}, CUDA {cuda // 1000}.{cuda % 1000 // 10}"
    yield f"libraries CuPy {cupy.__version__}, PyTorch {torch.__version__}, JAX {jax.__version__}"


def sections(_peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the tables; every call ends when the card has done its work."""
    jax.config.update("jax_enable_x64", True)  # noqa: FBT003 - JAX's own signature
    # JAX would round float32 factors to TF32, which the others do not.
    jax.config.update("jax_default_matmul_precision", "highest")
    names = (HAND, "PyTorch", "JAX, jit")
    for dtype in (np.float32, np.float64):
        yield Section(
            name=f"gpu affine {dtype.__name__}",
            title=f"{dtype.__name__}: our time, and the time of each other / ours, by medians of interleaved runs",
            columns=("(m, k, n)", "", "ours", *names, "bound"),
            rows=_affine(dtype, quick=quick),
            length=2 * len(SHAPES),
        )
    yield Section(
        name="gpu accuracy",
        title="float32, k = n = 64: max |x − ref| / max |ref|, ref in float64, of dw and of db",
        columns=("m", *(f"{x}, {name}" for x in ("dw", "db") for name in (OURS, *names)), "bound"),
        rows=map(_accuracy, LENGTHS),
        length=len(LENGTHS),
    )
    yield Section(
        name="gpu tape",
        title="Value and gradient of a function: our time, and the time of each other / ours",
        columns=("program", "ours", *names, "bound"),
        rows=_tape(quick=quick),
        length=len(CASES),
    )
    yield Section(
        name="gpu accumulate",
        title=f"Softmax regression in float32, {K} → {N}, of rows on the host, {BLOCK:,} at a time on the card: our "
        "time, and the time of each other / ours",
        columns=("", "ours", HAND, "PyTorch", "copies alone", "bound"),
        rows=_accumulate(quick=quick),
        length=1,
    )


def _waiting(call: Call, wait: Callable[[], object]) -> Call:
    """Return a call that ends when the card has done its work."""

    def waiting() -> object:
        out = call()
        wait()
        return out

    return waiting


def _on_cupy(call: Call) -> Call:
    return _waiting(call, cupy.cuda.get_current_stream().synchronize)


def _on_torch(call: Call) -> Call:
    return _waiting(call, torch.cuda.synchronize)


def _on_jax(call: Call) -> Call:
    return lambda: jax.block_until_ready(call())


def _pairs(da: Floats, z: Floats, w: Floats, b: Floats) -> dict[str, dict[str, Call]]:
    """Return the forward and the backward of each library."""
    y, x, v, c = map(cupy.asarray, (da, z, w, b))
    ty, tx, tv, tc = (torch.from_numpy(array).cuda() for array in (da, z, w, b))
    jy, jx, jv, jc = map(jax.numpy.asarray, (da, z, w, b))
    compiled = {"forward": jax.jit(forward), "backward": jax.jit(backward)}
    return {
        "forward": {
            OURS: _on_cupy(lambda: affine_forward(x, v, c)),
            HAND: _on_cupy(lambda: forward(x, v, c)),
            "PyTorch": _on_torch(lambda: torch.addmm(tc, tx, tv)),
            "JAX, jit": _on_jax(lambda: compiled["forward"](jx, jv, jc)),
        },
        "backward": {
            OURS: _on_cupy(lambda: affine_backward(y, x, v)),
            HAND: _on_cupy(lambda: backward(y, x, v)),
            "PyTorch": _on_torch(lambda: (ty @ tv.T, tx.T @ ty, ty.sum(0))),
            "JAX, jit": _on_jax(lambda: compiled["backward"](jy, jx, jv)),
        },
    }


def _affine(dtype: type[np.floating[Any]], *, quick: bool) -> Iterator[Row]:
    """Compare the pair at each size."""
    for m, k, n in SHAPES:
        for direction, calls in _pairs(*inputs((m,), k, n, dtype)).items():
            bounded = m * k * n >= LARGE
            times = interleave(calls, [Bound(HAND, OURS, NEAR)] if bounded else [], quick=quick)
            ratios = {name: times.ratio(name, OURS) for name in calls if name != OURS}
            cells = (sizes(m, k, n), direction, duration(times.median(OURS)), *map(str, ratios.values()))
            written = f"{HAND} ≥ {NEAR}" if bounded else "none"
            yield Row((*cells, written), holds=ratios[HAND].median >= NEAR if bounded else None)


def _accuracy(m: int) -> Row:
    """Compare dw and db with sums in float64."""
    da, z, w, b = inputs((m,), 64, 64)
    found = [
        [error(_host(x), right) for x, right in zip(call()[1:], reference(da, z), strict=True)]
        for call in _pairs(da, z, w, b)["backward"].values()
    ]
    errors = np.asarray(found).T
    bound = LONG_BOUND if m >= LONG else BOUND
    cells = (f"{m:,}", *(f"{x:.1e}" for x in errors.ravel()), f"≤ {bound:.0e}")
    return Row(cells, holds=bool(np.all(errors[:, 0] <= bound)))


def _host(x: Any) -> Floats:
    """Copy an array to the host."""
    return x.get() if hasattr(x, "get") else np.asarray(x.cpu() if hasattr(x, "cpu") else x)


def _tape(*, quick: bool) -> Iterator[Row]:
    """Compare whole gradients of recorded functions."""
    for title, (program, by_hand, arguments, count, *_) in CASES.items():
        on_card = [cupy.asarray(x) for x in arguments]
        calls = {
            OURS: _on_cupy(gradient(program, on_card, count)),
            HAND: _on_cupy(partial(by_hand, *on_card)),
            "PyTorch": _on_torch(torch_gradient(program, arguments, count, "cuda")),
            "JAX, jit": jax_gradient(program, arguments, count, jit=True),
        }
        check(calls.values(), calls[HAND], _host)
        times = interleave(calls, quick=quick)
        ratios = (str(times.ratio(name, OURS)) for name in calls if name != OURS)
        yield Row((title, duration(times.median(OURS)), *ratios, "none"), holds=None)


def _accumulate(*, quick: bool) -> Iterator[Row]:
    """Compare the gradient of a batch on the host, whose blocks are copied to the card one after the other."""
    rng = np.random.default_rng(0)
    rows = ROWS // 4 if quick else ROWS
    x = rng.random((rows, K), dtype=np.float32)
    labels = rng.integers(0, N, rows)
    w = rng.random((K, N), dtype=np.float32)
    on_card, on_torch = cupy.asarray(w), torch.from_numpy(w).cuda().requires_grad_()
    starts = range(0, rows, BLOCK)
    # Dask copies an array of NumPy when it divides it, which says nothing of the card.
    lazy = [dask.array.from_array(array, chunks=(BLOCK, *array.shape[1:]), name=False) for array in (x, labels)]
    blocks = [array.map_blocks(cupy.asarray) for array in lazy]

    def loss(z: Any, y: Any, w: Any) -> Any:
        xp = array_namespace(w)
        a = z @ w
        top = xp.max(a, axis=1, keepdims=True)
        chosen = xp.take_along_axis(a, y[:, None], axis=1)
        return xp.sum(xp.log(xp.sum(xp.exp(a - top), axis=1)) + top[:, 0] - chosen[:, 0])

    def ours() -> Any:
        value, dw = accumulate(value_and_grad(loss, 2), *blocks, shared=(on_card,))
        return compute(value, dw)

    def by_hand() -> Any:
        value, dw = cupy.zeros(()), cupy.zeros_like(on_card)
        for start in starts:
            z, y = (cupy.asarray(array[start : start + BLOCK]) for array in (x, labels))
            a = z @ on_card
            a -= cupy.max(a, axis=1, keepdims=True)
            e = cupy.exp(a)
            total = cupy.sum(e, axis=1)
            every = cupy.arange(len(y))
            value += cupy.sum(cupy.log(total) - a[every, y])
            e /= total[:, None]
            e[every, y] -= 1
            dw += z.T @ e
        return value, dw

    def by_torch() -> Any:
        value, dw = torch.zeros((), device="cuda"), torch.zeros_like(on_torch)
        for start in starts:
            z, y = (torch.from_numpy(array[start : start + BLOCK]).cuda() for array in (x, labels))
            part = torch.nn.functional.cross_entropy(z @ on_torch, y, reduction="sum")
            dw += torch.autograd.grad(part, on_torch)[0]
            value += part.detach()
        return value, dw

    def copies() -> Any:
        for start in starts:
            copied = [cupy.asarray(array[start : start + BLOCK]) for array in (x, labels)]
        return copied

    calls = {OURS: _on_cupy(ours), HAND: _on_cupy(by_hand), "PyTorch": _on_torch(by_torch), "copies alone": copies}
    value, dw = by_hand()
    for call in (ours, by_torch):
        got, found = call()
        np.testing.assert_allclose(_host(got), _host(value), rtol=1e-4)
        np.testing.assert_allclose(_host(found), _host(dw), atol=1e-3 * float(abs(dw).max()))
    times = interleave(calls, quick=quick)
    ratios = (str(times.ratio(name, OURS)) for name in calls if name != OURS)
    yield Row((f"{rows:,} rows", duration(times.median(OURS)), *ratios, "none"), holds=None)
