"""Gradients of functions, recorded: compared with NumPy written by hand and with the tapes of other libraries."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from benchmarks.machine import one_thread
from benchmarks.peers import OURS, Call, Floats, apart, chosen
from benchmarks.report import Row, Section
from benchmarks.timing import Bound, interleave
from pullback import constant, value_and_grad

HAND = "NumPy by hand"
# PyTorch's tape on tensors that require gradients, and its functions of functions, which are called as ours are.
TORCH = "PyTorch"
FUNC = "torch.func"
STEPS = 100
ROWS = (10**6, 10**7)
MOST_ERROR = 1e-7
MICROSECONDS = 8.0

Program = Callable[..., Any]
# Returns the call of a library: the value and the gradient of a program at its arguments.
Maker = Callable[[Program, list[Floats], int], Call]


def small(xp: Any, z: Any, w: Any, b: Any) -> Any:
    """Return the sum of squares of a layer's output, eight by eight."""
    h = xp.tanh(z @ w + b)
    return xp.sum(h * h)


def small_by_hand(z: Floats, w: Floats, b: Floats) -> Any:
    h = np.tanh(z @ w + b)
    g = 2 * h * (1 - h * h)
    return np.sum(h * h), (g @ w.T, z.T @ g, np.sum(g, axis=0))


def chain(xp: Any, x: Any) -> Any:
    """Return the sum of a chain of elementwise operations."""
    for _ in range(STEPS // 4):
        x = xp.tanh(xp.sin(x) * 1.01) + 0.1
    return xp.sum(x)


def chain_by_hand(x: Floats) -> Any:
    saved = []
    for _ in range(STEPS // 4):
        h = np.tanh(np.sin(x) * 1.01)
        saved.append((x, h))
        x = h + 0.1
    g = np.ones_like(x)
    for start, h in reversed(saved):
        g = g * (1 - h * h) * 1.01 * np.cos(start)
    return np.sum(x), (g,)


def network(xp: Any, *arguments: Any) -> Any:
    """Return the mean cross entropy of a network with a hidden layer, in plain array functions."""
    w1, b1, w2, b2, z, hot = arguments
    a = xp.tanh(z @ w1 + b1) @ w2 + b2
    return xp.sum(xp.log(xp.sum(xp.exp(a), axis=1)) - xp.sum(hot * a, axis=1)) / z.shape[0]


def network_by_hand(*arguments: Floats) -> Any:
    w1, b1, w2, b2, z, hot = arguments
    h = np.tanh(z @ w1 + b1)
    a = h @ w2 + b2
    e = np.exp(a)
    total = np.sum(e, axis=1, keepdims=True)
    value = np.sum(np.log(total[:, 0]) - np.sum(hot * a, axis=1)) / len(z)
    da = (e / total - hot) / np.float32(len(z))
    dh = (da @ w2.T) * (1 - h * h)
    return value, (z.T @ dh, np.sum(dh, axis=0), h.T @ da, np.sum(da, axis=0))


def general(xp: Any, x: Any) -> Any:
    """Return the sum of a chain of functions that are recorded by general rules."""
    for _ in range(STEPS // 4):
        x = xp.roll(xp.flip(xp.reshape(xp.permute_dims(x, (1, 0)), (8, 8)), axis=0), 1, axis=1)
    return xp.sum(x)


def _draw(*shapes: tuple[int, ...], dtype: Any = np.float64) -> list[Floats]:
    rng = np.random.default_rng(21)
    return [(rng.standard_normal(shape) / max(shape[0], 1) ** 0.5).astype(dtype) for shape in shapes]


class Case(NamedTuple):
    """What is differentiated, and the bounds of its time."""

    program: Program
    by_hand: Program
    arguments: list[Floats]
    count: int
    """How many of the arguments to differentiate for."""
    most: float
    """The bound of ours over by hand."""
    others: dict[str, float]
    """The bounds of others over ours."""


NETWORK = Case(
    network,
    network_by_hand,
    [
        *_draw((784, 256), (256,), (256, 10), (10,), (128, 784), dtype=np.float32),
        np.eye(10, dtype=np.float32)[np.arange(128) % 10],
    ],
    4,
    1.15,
    {FUNC: 1.15},
)
CASES = {
    "8 × 8 layer": Case(
        small,
        small_by_hand,
        _draw((8, 8), (8, 8), (8,)),
        3,
        3.2,
        {FUNC: 3.5, "HIPS autograd": 6.0, "advect": 8.0},
    ),
    f"chain of {STEPS} operations": Case(chain, chain_by_hand, _draw((100,)), 1, 1.7, {}),
    "network 784-256-10, batch 128, float32": NETWORK,
}
# For which the bounds were set. XLA cannot be told to use one thread.
ON_ONE_THREAD = {"network on one thread": NETWORK}


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the tables of recorded gradients."""
    makers = chosen(LIBRARIES, peers)
    columns = ("program", "times compared", "lower quartile", "median", "upper quartile", "bound")
    yield Section(
        name="tape",
        title="Value and gradient of a function",
        columns=columns,
        rows=_programs(makers, quick=quick),
        length=sum(1 + len(used) + (TORCH in used) for _, _, used in _cases(makers)),
    )
    if apart(peers):
        return
    yield Section(
        name="general",
        title="An operation that is recorded by a general rule, and its pull: μs more than the plain operation",
        columns=("", "μs", "bound"),
        rows=_general(quick=quick),
        length=1,
    )
    yield Section(
        name="errors",
        title="float32 gradients of Σ ((z w + b) scale)² over a batch: largest error by the largest entry",
        columns=("rows", "dw", "db", "scale", "bound"),
        rows=map(_errors, ROWS[:1] if quick else ROWS),
        length=1 if quick else len(ROWS),
    )


def _cases(makers: dict[str, Maker]) -> Iterator[tuple[str, Case, dict[str, Maker]]]:
    """Yield the title of each case, the case, and who takes part."""
    for title, case in (CASES | ON_ONE_THREAD).items():
        yield title, case, {x: make for x, make in makers.items() if title in CASES or x not in LIBRARIES["jax"]}


def _programs(makers: dict[str, Maker], *, quick: bool) -> Iterator[Row]:
    """Compare whole gradients."""
    for title, (program, by_hand, arguments, count, most, others), used in _cases(makers):
        calls = {OURS: gradient(program, arguments, count), HAND: partial(by_hand, *arguments)}
        calls |= {name: make(program, arguments, count) for name, make in used.items()}
        check(calls.values(), calls[HAND])
        bounds = [
            Bound(OURS, HAND, most),
            *(Bound(name, OURS, least) for name, least in others.items() if name in calls),
        ]
        with one_thread(("torch",) if TORCH in used else ()) if title in ON_ONE_THREAD else nullcontext():
            times = interleave(calls, bounds, quick=quick)
        ratio = times.ratio(OURS, HAND)
        cells = (*(f"{x:.2f}" for x in ratio), f"≤ {most}")
        yield Row((title, f"{OURS} / {HAND}", *cells), holds=ratio.median <= most)
        if TORCH in used:
            # What a tape over NumPy could reach, had it no cost of its own.
            cells = tuple(f"{x:.2f}" for x in times.ratio(TORCH, HAND))
            yield Row((title, f"{TORCH} / {HAND}", *cells, "none"), holds=None)
        for name in used:
            ratio, least = times.ratio(name, OURS), others.get(name)
            cells = (*(f"{x:.2f}" for x in ratio), "none" if least is None else f"≥ {least}")
            yield Row((title, f"{name} / {OURS}", *cells), holds=None if least is None else ratio.median >= least)


def check(calls: Iterable[Call], right: Call, host: Callable[[Any], Floats] = np.asarray) -> None:
    """Refuse to time calls that do not return the value and the gradients of another; copy arrays to the host."""
    value, gradients = right()
    for call in calls:
        got, found = call()
        np.testing.assert_allclose(host(got), host(value), rtol=1e-4)
        for g, expected in zip(found, gradients, strict=True):
            np.testing.assert_allclose(host(g), host(expected), rtol=1e-3, atol=1e-5)


def _general(*, quick: bool) -> Iterator[Row]:
    """Return what recording an operation and pulling it back takes beyond the operation itself."""
    (x,) = _draw((8, 8))
    plain, ours = partial(general, array_namespace(x), x), gradient(general, [x], 1)
    times = interleave({OURS: ours, HAND: plain}, quick=quick)
    more = (times.median(OURS) - 2 * times.median(HAND)) / STEPS * 1e6
    yield Row(("", f"{more:.1f}", f"≤ {MICROSECONDS}"), holds=more <= MICROSECONDS)


def _errors(rows: int) -> Row:
    """Compare float32 gradients of a long batch with float64 ones."""
    rng = np.random.default_rng(22)
    z = rng.random((rows, 8), dtype=np.float32)
    parameters = [rng.random(shape, dtype=np.float32) for shape in ((8, 4), (4,), (4,))]

    def loss(z: Any, w: Any, b: Any, scale: Any) -> Any:
        a = (constant(z) @ w + b) * scale
        return array_namespace(w).sum(a * a)

    whole = value_and_grad(loss, (1, 2, 3))
    _, got = whole(z, *parameters)
    _, right = whole(z.astype(np.float64), *(x.astype(np.float64) for x in parameters))
    errors = [float(np.max(np.abs(g - e)) / np.max(np.abs(e))) for g, e in zip(got, right, strict=True)]
    cells = (f"{rows:,}", *(f"{error:.1e}" for error in errors), f"≤ {MOST_ERROR}")
    return Row(cells, holds=max(errors) <= MOST_ERROR)


def gradient(program: Program, arguments: list[Any], count: int) -> Call:
    """Return the call of our value and gradient."""

    def function(*args: Any) -> Any:
        return program(array_namespace(args[0]), *args)

    return partial(value_and_grad(function, tuple(range(count))), *arguments)


def torch_gradient(program: Program, arguments: list[Floats], count: int, device: str = "cpu") -> Call:
    """Return PyTorch's, eagerly."""
    import torch  # noqa: PLC0415 - a peer is loaded where it is asked for

    tensors = [torch.from_numpy(x).to(device) for x in arguments]
    moving = [x.requires_grad_() for x in tensors[:count]]

    def call() -> Any:
        value = program(torch, *tensors)
        return value.detach(), torch.autograd.grad(value, moving)

    return call


def _torch_func(program: Program, arguments: list[Floats], count: int) -> Call:
    """Return that of PyTorch's functional transforms."""
    import torch  # noqa: PLC0415

    function = torch.func.grad_and_value(partial(program, torch), argnums=tuple(range(count)))
    tensors = [torch.from_numpy(x) for x in arguments]

    def call() -> Any:
        gradients, value = function(*tensors)
        return value, gradients

    return call


def _autograd(program: Program, arguments: list[Floats], count: int) -> Call:
    """Return HIPS autograd's."""
    import autograd  # noqa: PLC0415
    import autograd.numpy as anp  # noqa: PLC0415

    def function(moving: Any, *rest: Any) -> Any:
        return program(anp, *moving, *rest)

    return partial(autograd.value_and_grad(function), tuple(arguments[:count]), *arguments[count:])


def _advect(program: Program, arguments: list[Floats], count: int) -> Call:
    """Return advect's."""
    import advect  # noqa: PLC0415

    return partial(advect.value_and_grad(partial(program, np), argnums=tuple(range(count))), *arguments)


def jax_gradient(program: Program, arguments: list[Floats], count: int, *, jit: bool) -> Call:
    """Return JAX's, as it is or compiled."""
    import jax  # noqa: PLC0415

    with jax.enable_x64(True):  # noqa: FBT003 - its signature
        arrays = [jax.numpy.asarray(x) for x in arguments]
    function = jax.value_and_grad(partial(program, jax.numpy), tuple(range(count)))
    compiled = jax.jit(function) if jit else function

    def call() -> Any:
        with jax.enable_x64(True):  # noqa: FBT003
            return jax.block_until_ready(compiled(*arrays))

    return call


LIBRARIES: dict[str, dict[str, Maker]] = {
    "torch": {TORCH: torch_gradient, FUNC: _torch_func},
    "autograd": {"HIPS autograd": _autograd},
    "jax": {"JAX": partial(jax_gradient, jit=False), "JAX, jit": partial(jax_gradient, jit=True)},
    "advect": {"advect": _advect},
}
