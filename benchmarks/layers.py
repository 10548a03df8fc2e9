"""Layers beside their peers on NumPy: norms of single examples' gradients, and the gradient of a small network."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.memory import peak_of
from benchmarks.peers import OURS, Call, Floats, chosen, inputs
from benchmarks.report import Row, Section
from benchmarks.timing import Bound, interleave
from pullback import RELU, Affine, per_example_norms, softmax_cross_entropy, stack_backward, stack_forward

Layers = list[tuple[Floats, Floats]]
Indices = NDArray[np.int64]
# Each call returns the mean loss, and dw and db of each layer.
Makers = dict[str, Callable[[Layers, Floats, Indices], Call]]

EXAMPLES, K, N = 4096, 512, 512
FASTER = 50.0
# As many gradients at a time as stay in a cache: formed all at once they take longer, and 4 GiB.
_BLOCK = 8
MOST = 0.01
SIZES = (784, 256, 10)
BOUNDS = {"PyTorch": 1.0, "HIPS autograd": 3.0}


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the tables of layers."""
    columns = ("lower quartile", "median", "upper quartile", "bound")
    yield Section(
        name="norms",
        title=f"Norms of {EXAMPLES:,} gradients of {K} × {N}, float32: forming them / ours",
        columns=("", *columns),
        rows=_norms(quick=quick),
        length=2,
    )
    makers, name = chosen(LIBRARIES, peers), "-".join(map(str, SIZES))
    yield Section(
        name="network",
        title=f"Loss and gradient of a network {name}, batch {EXAMPLES:,}, float32: time of a peer / ours",
        columns=("peer", *columns),
        rows=_network(makers, quick=quick),
        length=2 * len(makers),
    )


def _norms(*, quick: bool) -> Iterator[Row]:
    """Compare time and memory with those of forming the gradients."""
    da, z, _, _ = inputs((EXAMPLES,), K, N)
    ours, theirs = partial(per_example_norms, da, z), partial(_formed_norms, da, z)
    np.testing.assert_allclose(np.asarray(ours()), theirs(), rtol=1e-5)
    bound = Bound("forming them", OURS, FASTER)
    times = interleave({OURS: ours, "forming them": theirs}, [bound], quick=quick).ratio(*bound[:2])
    yield Row(("time", *(f"{x:.0f}" for x in times), f"≥ {FASTER:.0f}"), holds=times.median >= FASTER)
    formed = EXAMPLES * (K + 1) * N * da.itemsize
    share = peak_of(ours)[1] / formed
    cells = (f"memory: peak / their {formed / 2**30:.1f} GiB", "", f"{share:.4%}", "", f"≤ {MOST:.0%}")
    yield Row(cells, holds=share <= MOST)


def _formed_norms(da: Floats, z: Floats) -> Floats:
    """Form each gradient, weights and bias, a few at a time."""
    out = np.empty(len(z), dtype=np.float32)
    for start in range(0, len(z), _BLOCK):
        block = slice(start, start + _BLOCK)
        dw = (z[block, :, None] * da[block, None, :]).reshape(len(z[block]), -1)
        out[block] = np.sqrt(np.vecdot(dw, dw) + np.vecdot(da[block], da[block]))
    return out


def _network(makers: Makers, *, quick: bool) -> Iterator[Row]:
    """Compare the loss and the gradients of a network with a hidden layer."""
    rng = np.random.default_rng(20)
    z = rng.random((EXAMPLES, SIZES[0]), dtype=np.float32)
    y = rng.integers(SIZES[-1], size=EXAMPLES)
    layers = [
        ((rng.standard_normal((k, n)) / k**0.5).astype(np.float32), np.zeros(n, dtype=np.float32))
        for k, n in pairwise(SIZES)
    ]
    ours, peers = _ours(layers, z, y), {name: make(layers, z, y) for name, make in makers.items()}
    for peer in peers.values():
        for x, expected in zip(ours(), map(np.asarray, peer()), strict=True):
            np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5 * np.max(np.abs(expected)))
    bounds = [Bound(name, OURS, BOUNDS[name]) for name in peers]
    times = interleave({OURS: ours, **peers, "two products": _products(layers, z)}, bounds, quick=quick)
    for bound in bounds:
        ratio = times.ratio(bound.above, bound.below)
        cells = (*(f"{x:.2f}" for x in ratio), f"≥ {bound.value}")
        yield Row((bound.above, *cells), holds=ratio.median >= bound.value)
    # A library that did nothing else could be no faster than these.
    for name in peers:
        ratio = times.ratio(name, "two products")
        yield Row((f"{name} / the two products of the first layer", *(f"{x:.2f}" for x in ratio), "none"), holds=True)


def _products(layers: Layers, z: Floats) -> Call:
    """Return the bare products that forward and backward of the first layer come down to."""
    w = layers[0][0]
    da = z @ w
    return lambda: (z @ w, z.T @ da)


def _ours(layers: Layers, z: Floats, y: Indices) -> Call:
    """Return our loss and gradients."""
    (w1, b1), (w2, b2) = layers

    def call() -> list[Any]:
        a, kept = stack_forward([Affine(w1, b1), RELU, Affine(w2, b2)], z)
        value, da = softmax_cross_entropy(a, y)
        first, _, second = stack_backward(da, kept, wrt=("layers",)).layers
        return [value, *first, *second]

    return call


def _torch(layers: Layers, z: Floats, y: Indices) -> Call:
    """Return PyTorch's, with the weights laid out as its own layers lay them out."""
    import torch  # noqa: PLC0415 - a peer is loaded where it is asked for

    batch, classes = torch.from_numpy(z), torch.from_numpy(y)
    w1, b1, w2, b2 = (torch.from_numpy(np.ascontiguousarray(x.T)).requires_grad_() for layer in layers for x in layer)

    def call() -> list[Any]:
        h = torch.relu(torch.nn.functional.linear(batch, w1, b1))
        value = torch.nn.functional.cross_entropy(torch.nn.functional.linear(h, w2, b2), classes)
        return [value.detach(), *(x.T if x.ndim == 2 else x for x in torch.autograd.grad(value, (w1, b1, w2, b2)))]

    return call


def _autograd(layers: Layers, z: Floats, y: Indices) -> Call:
    """Return HIPS autograd's."""
    import autograd  # noqa: PLC0415
    import autograd.numpy as anp  # noqa: PLC0415

    rows = np.arange(len(z))

    def loss(parameters: Layers) -> Any:
        (w1, b1), (w2, b2) = parameters
        a = anp.dot(anp.maximum(anp.dot(z, w1) + b1, 0), w2) + b2
        a = a - anp.max(a, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(a), axis=1)) - a[rows, y])

    value_and_gradients = autograd.value_and_grad(loss)

    def call() -> list[Any]:
        value, ((dw1, db1), (dw2, db2)) = value_and_gradients(layers)
        return [value, dw1, db1, dw2, db2]

    return call


LIBRARIES: dict[str, Makers] = {"torch": {"PyTorch": _torch}, "autograd": {"HIPS autograd": _autograd}}
