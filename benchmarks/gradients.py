"""A whole loss and its gradient in core, softmax and squared error, beside the libraries that have them."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import threads
from benchmarks.peers import OURS, PLAIN, Call, Floats, chosen, inputs
from benchmarks.report import Row, Section, duration, sizes
from benchmarks.timing import interleave
from pullback import affine_backward, affine_forward, softmax_cross_entropy, squared_error

# Class indices, or values of a single output.
Targets = NDArray[Any]
# Each call returns the mean loss, dw and db.
Makers = dict[str, Callable[[str, Floats, Floats, Floats, Targets], Call]]

SHAPES = {
    "softmax": ((1_000, 64, 10), (100_000, 64, 10), (1_000_000, 128, 64), (10_000, 784, 10), (65_536, 512, 512)),
    "squared error": ((1_000, 64, 1), (100_000, 64, 1), (1_000_000, 128, 1), (65_536, 512, 1)),
}


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield a table for each loss."""
    makers: Makers = {OURS: ours, PLAIN: plain} | chosen(LIBRARIES, peers)
    names = [name for name in makers if name != OURS]
    for loss, shapes in SHAPES.items():
        yield Section(
            name=f"gradient of {loss}",
            title=f"Mean {loss}, its value, dw and db, float32: our time, and the time of each peer / ours",
            columns=("(m, k, n)", "ours", *names, "bound"),
            rows=_rows(makers, loss, shapes, quick=quick),
            length=len(shapes),
        )


def _rows(makers: Makers, loss: str, shapes: tuple[tuple[int, int, int], ...], *, quick: bool) -> Iterator[Row]:
    """Compare with each peer."""
    for m, k, n in shapes:
        z, w, b, y = problem(m, k, n)
        calls = {name: make(loss, z, w, b, y) for name, make in makers.items()}
        expected = calls[OURS]()
        for call in calls.values():
            for x, right in zip(call(), expected, strict=True):
                # Sums of float32 over long batches are wrong in the third digit, if they are added up naively.
                np.testing.assert_allclose(np.asarray(x), right, rtol=0, atol=1e-2 * np.max(np.abs(right)))
        times = interleave(calls, quick=quick)
        beside = [str(times.ratio(name, OURS)) for name in calls if name != OURS]
        yield Row((sizes(m, k, n), duration(times.median(OURS)), *beside, "none"), holds=True)


def problem(m: int, k: int, n: int) -> tuple[Floats, Floats, Floats, Targets]:
    """Return z, w and b with logits of the size that a model has which has learnt something, and targets."""
    _, z, w, b = inputs((m,), k, n)
    w = ((w - np.float32(0.5)) * np.float32(4 / k**0.5)).astype(np.float32)
    rng = np.random.default_rng(20)
    y: Targets = rng.integers(n, size=m) if n > 1 else rng.random((m, 1), dtype=np.float32)
    return z, w, b, y


def ours(loss: str, z: Floats, w: Floats, b: Floats, y: Targets) -> Call:
    """Call the pairs."""
    function = OUR_LOSSES[loss]

    def call() -> Any:
        value, da = function(affine_forward(z, w, b), y)
        return value, *affine_backward(da, z, w, wrt=("w", "b"))[1:]

    return call


def plain(loss: str, z: Floats, w: Floats, b: Floats, y: Targets) -> Call:
    """Write it out."""
    function = PLAIN_LOSSES[loss]

    def call() -> Any:
        value, da = function(z @ w + b, y)
        return value, z.T @ da, da.sum(axis=0)

    return call


def plain_softmax(a: Floats, y: Targets) -> tuple[Any, Floats]:
    """Write the loss out, and its gradient; the logits are overwritten."""
    rows = np.arange(len(a))
    a -= a.max(axis=1, keepdims=True)
    da = np.exp(a)
    total = da.sum(axis=1, keepdims=True)
    value = np.mean(np.log(total[:, 0]) - a[rows, y])
    da /= total
    da[rows, y] -= 1
    da /= len(a)
    return value, da


def plain_squared(a: Floats, y: Targets) -> tuple[Any, Floats]:
    """Write the loss out; its gradient takes the place of the outputs."""
    a -= y
    value = np.vdot(a, a) / (2 * len(a))
    a /= len(a)
    return value, a


OUR_LOSSES: dict[str, Callable[..., Any]] = {"softmax": softmax_cross_entropy, "squared error": squared_error}
PLAIN_LOSSES: dict[str, Callable[..., Any]] = {"softmax": plain_softmax, "squared error": plain_squared}


def _torch(loss: str, z: Floats, w: Floats, b: Floats, y: Targets) -> Call:
    """Call PyTorch with its tape."""
    import torch  # noqa: PLC0415 - a peer is loaded where it is asked for

    x, v, c, target = map(torch.from_numpy, (z, w, b, y))
    leaves = [v.requires_grad_(), c.requires_grad_()]
    functional = torch.nn.functional

    def call() -> Any:
        a = functional.linear(x, v.T, c)
        value = functional.cross_entropy(a, target) if loss == "softmax" else functional.mse_loss(a, target) / 2
        return value.detach(), *torch.autograd.grad(value, leaves)

    return call


def _jax(loss: str, z: Floats, w: Floats, b: Floats, y: Targets) -> Call:
    """Call JAX's `value_and_grad` under `jit`, compiled before anything is timed."""
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415

    def mean(w: Any, b: Any, z: Any, y: Any) -> Any:
        a = z @ w + b
        if loss == "squared error":
            return jnp.mean((a - y) ** 2) / 2
        return jnp.mean(jax.nn.logsumexp(a, axis=1) - jnp.take_along_axis(a, y[:, None], axis=1)[:, 0])

    compiled = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))
    arrays = [jnp.asarray(x) for x in (w, b, z, y)]

    def call() -> Any:
        value, gradients = jax.block_until_ready(compiled(*arrays))
        return value, *gradients

    return call


def _autograd(loss: str, z: Floats, w: Floats, b: Floats, y: Targets) -> Call:
    """Call HIPS autograd."""
    import autograd  # noqa: PLC0415
    import autograd.numpy as anp  # noqa: PLC0415

    rows = np.arange(len(z))

    def mean(w: Any, b: Any) -> Any:
        a = anp.dot(z, w) + b
        if loss == "squared error":
            return anp.mean((a - y) ** 2) / 2
        a = a - anp.max(a, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(a), axis=1)) - a[rows, y])

    gradients = autograd.value_and_grad(mean, argnum=(0, 1))

    def call() -> Any:
        value, (dw, db) = gradients(w, b)
        return value, dw, db

    return call


def _sklearn(loss: str, z: Floats, w: Floats, b: Floats, y: Targets) -> Call:
    """Call scikit-learn's LinearModelLoss, which its own estimators are fitted with."""
    from sklearn._loss import HalfMultinomialLoss, HalfSquaredError  # noqa: PLC0415 - has no public name
    from sklearn.linear_model._linear_loss import LinearModelLoss  # noqa: PLC0415

    multinomial = loss == "softmax"
    base = HalfMultinomialLoss(n_classes=w.shape[1]) if multinomial else HalfSquaredError()
    model = LinearModelLoss(base_loss=base, fit_intercept=True)
    both = np.asfortranarray(np.vstack((w, b)).T)
    coefficients, targets = (both, y.astype(z.dtype)) if multinomial else (both[0], y[:, 0])
    # To count them takes milliseconds, which are not scikit-learn's.
    n_threads = threads()

    def call() -> Any:
        value, gradient = model.loss_gradient(coefficients, z, targets, n_threads=n_threads)
        gradient = gradient.T if multinomial else gradient[:, None]
        return value, gradient[:-1], gradient[-1]

    return call


LIBRARIES: dict[str, Makers] = {
    "torch": {"PyTorch": _torch},
    "jax": {"JAX": _jax},
    "autograd": {"HIPS autograd": _autograd},
    "sklearn": {"scikit-learn": _sklearn},
}
