"""A multilayer perceptron for handwritten digits, trained alike by NumPy, Dask, PyTorch and JAX.

Two affine layers with a tanh between them learn scikit-learn's 1,797 digits by steepest descent with momentum. The code
is one for all libraries: `stack_forward`, `softmax_cross_entropy` and `stack_backward` take the arrays that they are
given. Each library must read at least 97 % of the test images right, and end with NumPy's parameters within what
rounding explains; else the exit status is 1.

    pip install ".[examples]"
    python examples/digits_mlp.py

It runs on NumPy and Dask, and on PyTorch and JAX where they are installed.
"""

import argparse
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import dask
import numpy as np
from array_api_compat import array_namespace
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from pullback import TANH, Affine, softmax_cross_entropy, stack_backward, stack_forward

LIBRARIES = {"numpy": "numpy", "dask": "dask.array", "torch": "torch", "jax": "jax.numpy"}
PIXELS, HIDDEN, CLASSES = 64, 64, 10
STEPS, RATE, MOMENTUM = 200, 0.3, 0.9
LEAST_ACCURACY = 0.97
EPS = 2.0**-23  # of float32
NUDGE = 2.0**-10


class Digits(NamedTuple):
    """Images, one a row with pixels in [0, 1], and the digits that they show."""

    train_images: Any
    test_images: Any
    train_labels: Any
    test_labels: Any


class Trained(NamedTuple):
    """The parameters, the loss before each step on both parts, and how much of the test part is read right."""

    parameters: list[Any]
    losses: Any
    test_losses: Any
    accuracy: float


def main() -> int:
    """Train on each library, compare with NumPy and tell; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", choices=LIBRARIES, help="only this one; may be given again")
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw the loss curves: an .svg, .pdf or .png")
    arguments = parser.parse_args()
    here = [name for name, module in LIBRARIES.items() if find_spec(module.partition(".")[0])]
    for name in set(arguments.backend or ()) - set(here):
        parser.error(f"{name} is not installed")
    names = arguments.backend or here

    digits, start = read(), initial()
    with Console(stderr=True).status("training on numpy") as line:  # shown on a terminal only
        reference = train(np, digits, start)
        allowed = tolerance(reference, train(np, digits, nudged(start)), start)
        table, curves, right = Table(box=None, pad_edge=False), {}, True
        for header in ("library", "loss", "test loss", "test accuracy", "apart from numpy", "seconds"):
            table.add_column(header, justify="left" if header == "library" else "right")
        for name in names:
            line.update(f"training on {name}")
            module, begin = import_module(LIBRARIES[name]), time.perf_counter()
            found = train(module, digits, start)
            seconds, apart = time.perf_counter() - begin, distance(found.parameters, reference.parameters)
            losses = f"{found.losses[-1]:.4f}", f"{found.test_losses[-1]:.4f}"
            table.add_row(name, *losses, f"{found.accuracy:.4f}", f"{apart:.1e}", f"{seconds:.1f}")
            right &= found.accuracy >= LEAST_ACCURACY and apart <= allowed
            curves[name] = found
    out = Console(highlight=False)
    out.print(table)
    out.print(f"least test accuracy: {LEAST_ACCURACY}; rounding explains {allowed:.1e} apart from numpy")
    if arguments.output:
        draw(arguments.output, curves)
    return int(not right)


def read() -> Digits:
    """Return the digits as NumPy arrays, four fifths of them to train on."""
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    return Digits(*train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels))


def initial() -> list[Any]:
    """Return the parameters to start from: weights that preserve the scale of their input, and biases of 0."""
    rng = np.random.default_rng(0)
    drawn = [
        rng.standard_normal((PIXELS, HIDDEN)) / PIXELS**0.5,
        np.zeros(HIDDEN),
        rng.standard_normal((HIDDEN, CLASSES)) / HIDDEN**0.5,
        np.zeros(CLASSES),
    ]
    return [x.astype(np.float32) for x in drawn]


def nudged(parameters: list[Any], /) -> list[Any]:
    """Move each entry up or down by a small part of the largest, as rounding does by a smaller one."""
    rng, size = np.random.default_rng(1), NUDGE * largest(parameters)
    return [x + rng.choice([-size, size], x.shape).astype(x.dtype) for x in parameters]


# The products are small: more threads would cost time, much of it on a busy machine.
@threadpool_limits.wrap(limits=1)  # type: ignore[untyped-decorator] # not typed here
def train(module: Any, digits: Digits, start: list[Any], /) -> Trained:
    """Move everything to a library, and minimise the loss there."""
    train_images, test_images, train_labels, test_labels = (chunked(module.asarray(x)) for x in digits)
    parameters = [module.asarray(x) for x in start]
    xp = array_namespace(*parameters)
    velocities = [xp.zeros_like(x) for x in parameters]
    history = []
    for _ in range(STEPS):
        a, saved = stack_forward(layers(parameters), train_images)
        loss, da = softmax_cross_entropy(a, train_labels)
        test_loss, _ = softmax_cross_entropy(stack_forward(layers(parameters), test_images).a, test_labels)
        gradients: Any = stack_backward(da, saved, wrt=("layers",)).layers
        velocities = [
            MOMENTUM * v - RATE * dx for v, dx in zip(velocities, (*gradients[0], *gradients[2]), strict=True)
        ]
        parameters = [x + v for x, v in zip(parameters, velocities, strict=True)]
        # Lazy arrays are computed, or each step's graph would repeat all the steps before it; others are left alone.
        parameters, velocities, losses = dask.persist(parameters, velocities, xp.stack([loss, test_loss]))
        history.append(losses)
    hits = xp.argmax(stack_forward(layers(parameters), test_images).a, axis=-1) == test_labels
    losses = np.asarray(xp.stack(history))
    accuracy = float(xp.mean(xp.astype(hits, xp.float32)))
    return Trained([np.asarray(x) for x in parameters], losses[:, 0], losses[:, 1], accuracy)


def layers(parameters: list[Any], /) -> list[Any]:
    """Return the perceptron with these parameters."""
    w1, b1, w2, b2 = parameters
    return [Affine(w1, b1), TANH, Affine(w2, b2)]


def chunked(x: Any, /) -> Any:
    """Cut an array that can have chunks into some along its rows, as a batch larger than memory would be."""
    return x.rechunk({0: -(-x.shape[0] // 4)}) if hasattr(x, "rechunk") else x


def tolerance(reference: Trained, other: Trained, start: list[Any], /) -> float:
    """Return how far apart two libraries may end, as a part of the largest parameter.

    Two libraries add in different orders, so that a step separates their parameters by about the rounding of the
    largest. Momentum applies each difference for 1 / (1 - momentum) steps, and as the signs are random, the differences
    of all steps sum to the square root of their number. Where the loss has negative curvature, training magnifies a
    difference. The second training, `other`, whose start was perturbed, measures by how much.
    """
    nudge = NUDGE * largest(start) / largest(reference.parameters)
    magnified = max(1.0, distance(other.parameters, reference.parameters) / nudge)
    return float(magnified * STEPS**0.5 * EPS / (1 - MOMENTUM))


def distance(parameters: list[Any], reference: list[Any], /) -> float:
    """Return how far parameters lie from a reference, as a part of the reference's largest."""
    return largest([x - y for x, y in zip(parameters, reference, strict=True)]) / largest(reference)


def largest(arrays: list[Any], /) -> float:
    """Return the largest magnitude in some arrays."""
    return max(float(np.max(np.abs(x))) for x in arrays)


def draw(path: Path, curves: dict[str, Trained], /) -> None:
    """Draw the losses of each library, in colours for light pages and dark ones."""
    import matplotlib as mpl  # noqa: PLC0415 - only who asks for a picture needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    look = dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], "#808080")
    with mpl.rc_context({**look, "svg.fonttype": "none", "svg.hashsalt": "digits"}):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        for i, (name, trained) in enumerate(curves.items()):
            # They lie on each other: each is thinner than the one below it.
            width = 2.0 * (len(curves) - i) - 1
            axes.plot(trained.losses, color=f"C{i}", linewidth=width, label=name)
            axes.plot(trained.test_losses, color=f"C{i}", linewidth=width, linestyle="--")
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        axes.legend(frameon=False, title="solid: training; dashed: test")
        figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    raise SystemExit(main())
