"""The demo's job: a softmax classifier for handwritten digits, trained alike on any array library."""

import time
from collections.abc import Iterable
from importlib import import_module
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from pullback._cli.backends import label
from pullback._core.typing import Array, DaskArray, Namespace
from pullback._ops.affine import affine_forward
from pullback._ops.affine_loss import loss_and_gradients
from pullback._ops.losses.cross_entropy import softmax_cross_entropy

STEPS = 150
_LEAST_ACCURACY = 0.94
_CLASSES = 10
_TEST_IMAGES = 360
_CHUNKS = 4
# Steepest descent with momentum (heavy ball) converges for rates below 2 (1 + momentum) / L. The loss bends by at most
# L = λ/2, with λ the largest eigenvalue of the mean of z zᵀ, 11 for these images: below 0.69.
_RATE = 0.5
_MOMENTUM = 0.9
_EPS = 2.0**-23
# How far the weights may lie from NumPy's, as a part of the largest weight. Two libraries add in different orders, so
# that in each step their float32 weights part by about the rounding of the largest, eps. The loss is convex, where
# descent lets no such push grow; momentum carries it on for 1 / (1 - momentum) steps. This is their sum if all were
# to push in one direction; as they do not, 2e-6 is usual, while a gradient that is wrong by 1 in 1,000 exceeds it.
TOLERANCE = STEPS * _EPS / (1 - _MOMENTUM)


class Digits(NamedTuple):
    """Images, one a row with pixels in [0, 1], and the digits that they show."""

    train_images: Any
    train_labels: Any
    test_images: Any
    test_labels: Any


class Result(NamedTuple):
    """What training came to on one library."""

    weights: Array
    device: str
    loss: float
    accuracy: float
    seconds: float


def read_digits() -> Digits:
    """Return scikit-learn's 1,797 digits as NumPy arrays, in the same two parts every time."""
    images, labels = import_module("sklearn.datasets").load_digits(return_X_y=True)
    split = import_module("sklearn.model_selection").train_test_split
    images, labels = (images / 16).astype("float32"), labels.astype("int32")
    parts = split(images, labels, test_size=_TEST_IMAGES, random_state=0, stratify=labels)
    train_images, test_images, train_labels, test_labels = parts
    return Digits(train_images, train_labels, test_images, test_labels)


def run(xp: Namespace, digits: Digits, steps: Iterable[object], /) -> Result:
    """Move the digits to `xp`, train on some and test on the others."""
    start = time.perf_counter()
    moved = Digits(*(_chunked(xp.asarray(x)) for x in digits))
    weights = train(xp, moved.train_images, moved.train_labels, steps)
    loss, _ = softmax_cross_entropy(_logits(moved.train_images, weights), moved.train_labels)
    hits = xp.argmax(_logits(moved.test_images, weights), axis=-1) == moved.test_labels
    # Side by side in one array, so that a lazy library computes both at once.
    scores = _settled(xp.stack([loss, xp.mean(xp.astype(hits, loss.dtype))]))
    numbers = float(scores[0]), float(scores[1])
    return Result(weights, label(device(weights)), *numbers, time.perf_counter() - start)


def train(xp: Namespace, z: Array, y: Array, steps: Iterable[object], /) -> Array:
    """Minimise the mean cross entropy of ``softmax(z w + b)`` with `y`; return w and, as the last row, b."""
    gradient_of = _gradient_by_blocks if hasattr(z, "chunks") else _gradient
    start: Array = xp.zeros((z.shape[-1] + 1, _CLASSES), dtype=z.dtype, device=device(z))
    weights = last = _settled(start)
    for _ in steps:
        step = (weights - last) * _MOMENTUM - gradient_of(z, y, weights) * (_RATE / z.shape[0])
        weights, last = weights + step, weights
    return xp.asarray(weights)


def _gradient(z: Array, y: Array, weights: Array, /) -> Array:
    """Return the gradient of the summed loss for the weights, or for a block of rows its part."""
    found: Any = loss_and_gradients(z, y, weights[:-1, :], weights[-1, :], loss=softmax_cross_entropy, reduction="sum")
    return array_namespace(weights).concat([found.dw, found.db[None, :]])


def _gradient_by_blocks(z: DaskArray, y: DaskArray, weights: Array, /) -> Array:
    """Return the same for a batch in chunks, each of which is one task."""
    from pullback.dask import accumulate, compute  # noqa: PLC0415 - an extra

    (gradient,) = compute(accumulate(_gradient, z, y, shared=(weights,)))
    return gradient


def difference(xp: Namespace, weights: Array, reference: Array, /) -> float:
    """Return how far `weights` lie from NumPy's `reference`, as a part of the largest weight."""
    expected = xp.asarray(reference)
    return float(xp.max(xp.abs(weights - expected)) / xp.max(xp.abs(expected)))


def faults(result: Result, apart: float, /) -> list[str]:
    """Say what is wrong with a result whose weights lie `apart` from NumPy's; NaN is wrong too."""
    found = []
    if not apart <= TOLERANCE:
        found.append(f"disagrees with numpy: the weights differ by {apart:.1e}, rounding explains {TOLERANCE:.1e}")
    if not result.accuracy >= _LEAST_ACCURACY:
        found.append(f"learned too little: test accuracy {result.accuracy:.4f}, at least {_LEAST_ACCURACY} is expected")
    return found


def _logits(z: Array, weights: Array, /) -> Array:
    """Return ``z w + b``."""
    return affine_forward(z, weights[:-1, :], weights[-1, :])


def _chunked(x: Array, /) -> Array:
    """Cut an array that can have chunks into some along its rows, as a batch larger than memory would be."""
    rechunk = getattr(x, "rechunk", None)
    return x if rechunk is None else rechunk({0: -(-x.shape[0] // _CHUNKS)})


def _settled(x: Array, /) -> Array:
    """Return a lazy array as an ordinary one, and others as they are."""
    compute = getattr(x, "compute", None)
    return x if compute is None else compute()
