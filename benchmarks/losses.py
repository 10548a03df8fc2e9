"""The loss of an affine map and its gradients: compared with separate calls, NumPy by hand, PyTorch and JAX."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import pullback
from benchmarks.peers import OURS, Call, Floats, chosen
from benchmarks.report import Row, Section, duration, sizes
from benchmarks.tape import HAND, check
from benchmarks.timing import Bound, interleave
from pullback import affine_backward, affine_forward, loss_and_gradients

SEPARATE = "separate calls"
CLASSES = 10
SMALL, LARGE = ((569, 30), (1000, 30), (10_000, 30)), ((100_000, 64), (1_000_000, 64))
# The time of each divided by ours.
LEAST_SMALL = {HAND: 1 / 1.5, "PyTorch": 1.0}
LEAST_LARGE = {HAND: 1.0, "PyTorch": 1.0, "JAX, jit": 1.0}


class Program(NamedTuple):
    """A loss as users of each library write it."""

    by_hand: Callable[[Any, Any], Any]
    """Returns the mean and its gradient for outputs and labels."""
    torch: str
    """The function of ``torch.nn.functional``, whose mean may be a multiple of ours."""
    jax: Callable[[Any, Any, Any], Any]
    """Returns the mean, from a namespace, outputs and labels."""
    factor: float = 1.0


def _squared(a: Floats, y: Floats) -> Any:
    r = a - y
    return np.mean(r * r) / 2, r / len(y)


def _huber(a: Floats, y: Floats) -> Any:
    r = a - y
    c = np.clip(r, -1, 1)
    return np.mean(c * (r - c / 2)), c / len(y)


def _logistic(a: Floats, y: Floats) -> Any:
    return np.mean(np.logaddexp(0, a) - y * a), (1 / (1 + np.exp(-a)) - y) / len(y)


def _poisson(a: Floats, y: Floats) -> Any:
    rate = np.exp(a)
    return np.mean(rate - y * a), (rate - y) / len(y)


def _softmax(a: Floats, y: Any) -> Any:
    a -= a.max(axis=1, keepdims=True)
    e = np.exp(a)
    total, rows = e.sum(axis=1, keepdims=True), np.arange(len(y))
    value = np.mean(np.log(total[:, 0]) - a[rows, y])
    e /= total
    e[rows, y] -= 1
    return value, e / len(y)


def _huber_mean(xp: Any, a: Any, y: Any) -> Any:
    r = abs(a - y)
    return xp.mean(xp.where(r <= 1, r * r / 2, r - 0.5))


def _softmax_mean(xp: Any, a: Any, y: Any) -> Any:
    top = xp.max(a, axis=1, keepdims=True)
    scores = xp.take_along_axis(a, y[:, None], axis=1)
    return xp.mean(xp.log(xp.sum(xp.exp(a - top), axis=1)) + (top - scores)[:, 0])


PROGRAMS = {
    "squared_error": Program(_squared, "mse_loss", lambda xp, a, y: xp.mean((a - y) ** 2) / 2, 0.5),
    "huber": Program(_huber, "huber_loss", _huber_mean),
    "logistic": Program(
        _logistic, "binary_cross_entropy_with_logits", lambda xp, a, y: xp.mean(xp.logaddexp(0, a) - y * a)
    ),
    "poisson": Program(_poisson, "poisson_nll_loss", lambda xp, a, y: xp.mean(xp.exp(a) - y * a)),
    "softmax_cross_entropy": Program(_softmax, "cross_entropy", _softmax_mean),
}


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the table of each dtype."""
    makers = chosen({"torch": {"PyTorch": _torch}, "jax": {"JAX, jit": _jax}}, peers)
    for dtype in (np.float64,) if quick else (np.float64, np.float32):
        shapes = (*SMALL[::2], LARGE[0]) if quick else SMALL + LARGE
        yield Section(
            name=f"losses {dtype.__name__}",
            title=f"{dtype.__name__}: a loss and its gradients for w and b in one call, and the time of others / ours, "
            "by medians (and quartiles; = where they do not tell which is less)",
            columns=("(m, k, n)", "loss", "ours", SEPARATE, HAND, *makers, "bounds"),
            rows=_rows(makers, dtype, shapes, quick=quick),
            length=len(shapes) * len(PROGRAMS),
        )


def _rows(
    makers: dict[str, Any], dtype: type[np.floating[Any]], shapes: tuple[tuple[int, int], ...], *, quick: bool
) -> Iterator[Row]:
    """Compare each loss on each batch."""
    rng = np.random.default_rng(23)
    for m, k in shapes:
        z = rng.standard_normal((m, k), dtype=dtype)
        least = LEAST_SMALL if (m, k) in SMALL else LEAST_LARGE
        for name, program in PROGRAMS.items():
            n = (CLASSES,) if program.by_hand is _softmax else ()
            w, b = (rng.standard_normal((k, *n)) / 8).astype(dtype), np.zeros(n, dtype)
            y = rng.integers(CLASSES, size=m) if n else rng.integers(2, size=m).astype(dtype)
            loss = getattr(pullback, name)
            calls: dict[str, Call] = {
                OURS: partial(_ours, loss, z, y, w, b),
                SEPARATE: partial(_separate, loss, z, y, w, b),
                HAND: partial(_hand, program, z, y, w, b),
                **{peer: make(program, z, y, w, b) for peer, make in makers.items()},
            }
            check(calls.values(), calls[HAND])
            bounds = [Bound(peer, OURS, value) for peer, value in least.items() if peer in calls]
            times = interleave(calls, bounds, quick=quick)
            ratios = {peer: times.ratio(peer, OURS) for peer in calls if peer != OURS}
            yield Row(
                (
                    *(sizes(m, k, *(n or (1,))), name, duration(times.median(OURS))),
                    *map(str, ratios.values()),
                    "; ".join(f"{bound.above} ≥ {bound.value:.2f}" for bound in bounds),
                ),
                holds=all(ratios[bound.above].median >= bound.value for bound in bounds),
            )


def _ours(loss: Callable[..., Any], *arrays: Any) -> Any:
    value, _, dw, db = loss_and_gradients(*arrays, loss=loss)
    return value, (dw, db)


def _separate(loss: Callable[..., Any], z: Floats, y: Any, w: Floats, b: Floats) -> Any:
    value, da = loss(affine_forward(z, w, b), y)
    return value, affine_backward(da, z, w, wrt=("w", "b"))[1:]


def _hand(program: Program, z: Floats, y: Any, w: Floats, b: Floats) -> Any:
    value, da = program.by_hand(z @ w + b, y)
    return value, (z.T @ da, da.sum(axis=0))


def _torch(program: Program, *arrays: Any) -> Call:
    """Call PyTorch's loss and its tape, eagerly."""
    import torch  # noqa: PLC0415 - a peer is loaded where it is asked for

    z, y, w, b = map(torch.from_numpy, arrays)
    w.requires_grad_()
    b.requires_grad_()
    loss = getattr(torch.nn.functional, program.torch)

    def call() -> Any:
        value = program.factor * loss(z @ w + b, y)
        return value.detach(), torch.autograd.grad(value, (w, b))

    return call


def _jax(program: Program, *arrays: Any) -> Call:
    """Call JAX's `value_and_grad` under `jit`."""
    import jax  # noqa: PLC0415

    with jax.enable_x64(True):  # noqa: FBT003 - its signature
        z, y, w, b = map(jax.numpy.asarray, arrays)
    compiled = jax.jit(jax.value_and_grad(lambda w, b, z, y: program.jax(jax.numpy, z @ w + b, y), (0, 1)))

    def call() -> Any:
        with jax.enable_x64(True):  # noqa: FBT003
            return jax.block_until_ready(compiled(w, b, z, y))

    return call
