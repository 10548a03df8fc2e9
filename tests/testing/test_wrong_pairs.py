"""Wrong pairs, each with the law that it breaks first: what `check_pair` must never pass."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import pytest

from pullback import PairReport, affine_backward, affine_double_backward, affine_forward, affine_jvp, check_pair

RNG = np.random.default_rng(7)
# A square w, so that a transposed gradient has the right shape; a row of zeros; entries on both sides of 0.
Z = np.concat([RNG.standard_normal((4, 3)), np.zeros((1, 3))])
W = RNG.standard_normal((3, 3))
B = RNG.standard_normal(3)
X = Z.copy()


def jvp(z: Any, w: Any, _: Any, dz: Any, dw: Any, db: Any) -> Any:
    return affine_jvp(z, w, z_tangent=dz, w_tangent=dw, b_tangent=db)


class Wrong(NamedTuple):
    """A pair, the first finding of its check that does not hold, and the point."""

    finding: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    inputs: tuple[Any, ...]
    options: dict[str, Any]


def affine(finding: str, change: Callable[..., Any], *inputs: Any, **options: Any) -> Wrong:
    """Change the gradients of the affine map; `change` takes them, da, z and w."""

    def backward(da: Any, z: Any, w: Any) -> Any:
        return change(affine_backward(da, z, w), da, z, w)

    return Wrong(finding, affine_forward, backward, inputs or (Z, W, B), {"needs": ("z", "w"), **options})


def unary(
    finding: str, forward: Callable[..., Any], backward: Callable[..., Any], *inputs: Any, **options: Any
) -> Wrong:
    return Wrong(finding, forward, backward, inputs or (X,), options)


def double(finding: str, change: Callable[..., Any]) -> Wrong:
    def function(*arrays: Any) -> Any:
        return change(affine_double_backward(*arrays), *arrays)

    return Wrong(
        finding, affine_forward, affine_backward, (Z, W, B), {"needs": ("z", "w"), "double_backward": function}
    )


def fresh() -> np.random.Generator:
    return np.random.default_rng()


def buffered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that writes each result to the same memory."""
    memory: list[Any] = []

    def call(*arrays: Any) -> Any:
        memory.append(function(*arrays))
        memory[0][...] = memory[-1]
        return memory[0]

    return call


def cached() -> Callable[..., Any]:
    """Return a backward of the square that remembers its first result."""
    memory: dict[Any, Any] = {}
    return lambda da, x: memory.setdefault(x.shape, 2 * x * da)


def stateful() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a forward that leaves its input to the backward."""
    memory: list[Any] = [None]

    def forward(x: Any) -> Any:
        memory[0] = x
        return x * x

    return forward, lambda da, _: 2 * memory[0] * da


def on_call(which: Callable[[int], Any]) -> Callable[..., Any]:
    """Return a backward of the square that multiplies its result by a function of the number of the call."""
    calls = itertools.count()
    return lambda da, x: 2 * x * da * which(next(calls))


def square(x: Any) -> Any:
    return x * x


def square_backward(da: Any, x: Any) -> Any:
    return 2 * x * da


def writes_into(i: int) -> Callable[..., Any]:
    def backward(*args: Any) -> Any:
        gradient = square_backward(*args)
        args[i][...] *= 2
        return gradient

    return backward


def at(x: Any, index: Any, value: float) -> Any:
    out = x.copy()
    out[index] = value
    return out


C = Z + 1j * Z[::-1]
D1 = array_api_strict.Device("device1")

WRONG: dict[str, Wrong] = {
    # Values.
    "a factor of 2": affine("central difference of dw", lambda g, *_: g._replace(dw=2 * g.dw)),
    "a factor of 1 + 1e-9": affine("central difference of dz", lambda g, *_: g._replace(dz=g.dz * (1 + 1e-9))),
    "the other sign": affine("central difference of db", lambda g, *_: g._replace(db=-g.db)),
    "a transpose": affine("central difference of dw", lambda g, *_: g._replace(dw=g.dw.T)),
    "one row off": affine("central difference of dz", lambda g, *_: g._replace(dz=np.roll(g.dz, 1, axis=0))),
    "the last row left out": affine("central difference of db", lambda g, da, *_: g._replace(db=da[:-1].sum(axis=0))),
    "a mean for a sum": affine("central difference of db", lambda g, da, *_: g._replace(db=da.mean(axis=0))),
    "zeros": affine("central difference of dw", lambda g, *_: g._replace(dw=0 * g.dw)),
    "two gradients exchanged": unary(
        "central difference of dx", lambda x, y: x * y * y, lambda da, x, y: (2 * x * y * da, y * y * da), X, X + 2
    ),
    "no conjugate": affine(
        "central difference of dw", lambda g, da, z, _: g._replace(dw=z.T @ da), C, W + 1j * W.T, B + 1j * B
    ),
    "the real part alone": affine(
        "central difference of dz", lambda g, *_: g._replace(dz=g.dz.real + 0j), C, W + 1j * W.T, B + 1j * B
    ),
    "a row of zeros": affine(
        "central difference of dz",
        lambda g, _, z, __: g._replace(dz=np.where(np.any(z, axis=1, keepdims=True), g.dz, 0)),
    ),
    "beside a kink": unary("central difference of dx", abs, lambda da, x: np.where(x < 0, da, np.sign(x) * da)),
    "at 0 alone": unary(
        "central difference of dx",
        lambda x: np.logaddexp(x, 0),
        lambda da, x: da * np.where(x == 0, 0, 1 / (1 + np.exp(-x))),
    ),
    "one entry": unary("central difference of dx", square, lambda da, x: at(2 * x * da, (1, 1), 0)),
    "a constant added": unary("linearity of dx", np.sin, lambda da, x: da * np.cos(x) + 1e-3),
    "the size of the upstream gradient": unary("linearity of dx", np.sin, lambda da, x: abs(da) * np.cos(x)),
    "a constant forward": unary("central difference of dx", lambda x: 0 * x, square_backward),
    "a rounded forward": unary(
        "central difference of dx", lambda x: np.round(np.sin(x), 2), lambda da, x: 1.01 * da * np.cos(x)
    ),
    "noise of the input": unary(
        "central difference of dx", lambda x: np.sin(x) + 1e-2 * np.sin(1e9 * x), lambda da, x: 1.01 * da * np.cos(x)
    ),
    # Infinity, NaN and huge numbers.
    "infinity": affine("finiteness of the backward", lambda g, *_: g._replace(dw=g.dw + np.inf)),
    "one infinity": affine("finiteness of the backward", lambda g, *_: g._replace(dz=at(g.dz, (0, 0), -np.inf))),
    "NaN": affine("finiteness of the backward", lambda g, *_: g._replace(db=g.db * np.nan)),
    "NaN for the row of zeros": affine("finiteness of the backward", lambda g, *_: g._replace(dz=at(g.dz, -1, np.nan))),
    "NaN for a batch without rows": affine(
        "finiteness of the backward", lambda g, da, *_: g._replace(db=da.sum(axis=0) / len(da)), Z[:0], W, B
    ),
    "an infinite slope": unary("finiteness of the backward", np.sqrt, lambda da, x: 0.5 * da / np.sqrt(x), abs(X)),
    "1e308": affine("finiteness of the backward", lambda g, *_: g._replace(dw=0 * g.dw + 1e308)),
    "1e200": affine("finiteness of the backward", lambda g, *_: g._replace(dw=0 * g.dw + 1e200)),
    "1e308 of the right sign": affine("finiteness of the backward", lambda g, *_: g._replace(dw=np.sign(g.dw) * 1e308)),
    "1e149 of the right sign": affine("central difference of dw", lambda g, *_: g._replace(dw=np.sign(g.dw) * 1e149)),
    "an infinite output": unary("finiteness of the forward", lambda x: x / 0.0, lambda da, _: da),
    "an infinite output nearby": unary(
        "central difference of dx", lambda x: np.where(x > 1.1, np.inf, x), lambda da, _: 2 * da, np.ones((2, 2))
    ),
    "an infinite tangent": affine("finiteness of the tangent", lambda g, *_: g, jvp=lambda *args: jvp(*args) + np.inf),
    "a huge tangent": affine("finiteness of the tangent", lambda g, *_: g, jvp=lambda *args: jvp(*args) * 1e308),
    # Tangents.
    "a tangent that misses an input": affine(
        "adjoint identity of dw", lambda g, *_: g, jvp=lambda z, w, b, dz, dw, db: jvp(z, w, b, dz, 0 * dw, db)
    ),
    "a tangent of second order": affine(
        "adjoint identity of dz, dw, db",
        lambda g, *_: g,
        jvp=lambda z, w, b, dz, dw, db: jvp(z, w, b, dz, dw, db) + dz @ dw,
    ),
    "tangents in the same memory": affine("repeatability of the tangent", lambda g, *_: g, jvp=buffered(jvp)),
    "a random tangent": affine(
        "repeatability of the tangent", lambda g, *_: g, jvp=lambda *args: jvp(*args) * fresh().random()
    ),
    # Chance, memory and state.
    "a random forward": unary(
        "repeatability of the forward", lambda x: x * (fresh().random(x.shape) < 0.5), lambda da, _: da
    ),
    "a random backward": unary(
        "repeatability of the backward", square, lambda da, x: 2 * x * da * fresh().random(x.shape)
    ),
    "a backward with one random bit": unary(
        "repeatability of the backward", square, lambda da, x: 2 * x * da * (1 + 1e-15 * fresh().random(x.shape))
    ),
    "the same memory again": unary("repeatability of the backward", square, buffered(square_backward)),
    "the first result again": unary("linearity of dx", square, cached()),
    "the input of the last forward": unary("repeatability of the backward", *stateful()),
    "right every second time": unary("linearity of dx", square, on_call(lambda i: 1 - i % 2)),
    "right the first time": unary("repeatability of the backward", square, on_call(lambda i: i == 0)),
    "another shape the second time": unary(
        "repeatability of the backward", square, on_call(lambda i: np.ones((i + 1, 1, 1))[0 if i == 0 else slice(None)])
    ),
    "another shape for a negative upstream gradient": unary(
        "structure of dx", square, on_call(lambda i: np.ones((1 + i // 3, 1, 1))[0 if i < 3 else slice(None)])
    ),
    "writes to the input": unary("purity of x", square, writes_into(1)),
    "writes to the upstream gradient": unary("purity of da", square, writes_into(0)),
    "writes NaN": unary("purity of x", lambda x: (x * x, x.fill(np.nan))[0], square_backward),
    # Structure.
    "another dtype": affine("structure of dw", lambda g, *_: g._replace(dw=g.dw.astype("float32"))),
    "no output": unary("structure of the number of outputs", lambda _: (None, None), lambda _: ()),
    "an integer output": unary("structure of the output", lambda x: np.sign(x).astype("int64"), square_backward),
    "a complex gradient of a real input": unary("structure of dx", square, lambda da, x: 2 * x * da + 0j),
    "a real gradient of a complex input": unary("structure of dx", square, lambda da, x: (2 * x.conj() * da).real, C),
    "a missing axis": affine("structure of dz", lambda g, *_: g._replace(dz=g.dz.sum(axis=0))),
    "a list": unary("structure of dx", square, lambda da, x: [(2 * x * da).tolist()]),
    "another device": unary(
        "structure of dx", square, lambda da, x: (2 * x * da).to_device(D1), array_api_strict.asarray(X)
    ),
    "another library": unary("structure of dx", square, lambda da, x: array_api_strict.asarray(2 * x * da)),
    # The double backward.
    "a double gradient with a factor of 2": double(
        "central difference of dw (double backward)", lambda g, *_: g._replace(dw=2 * g.dw)
    ),
    "an infinite double gradient": double(
        "finiteness of the backward (double backward)", lambda g, *_: g._replace(dz=g.dz * np.inf)
    ),
    "a random double gradient": double(
        "repeatability of the backward (double backward)", lambda g, *_: g._replace(dz=g.dz * fresh().random())
    ),
    "a double gradient of another shape": double(
        "structure of dw (double backward)", lambda g, *_: g._replace(dw=g.dw[0])
    ),
    "a double gradient that is not linear": double(
        "linearity of dda (double backward)", lambda g, *_: g._replace(dda=abs(g.dda))
    ),
    "a double backward that writes": double(
        "purity of z (double backward)", lambda g, *arrays: (g, np.multiply(arrays[4], 2, out=arrays[4]))[0]
    ),
}


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_pair_is_caught(case: str) -> None:
    wrong = WRONG[case]
    inputs = tuple(x.copy() if isinstance(x, np.ndarray) else x for x in wrong.inputs)
    with pytest.raises(AssertionError) as error:
        check_pair(wrong.forward, wrong.backward, *inputs, **wrong.options)
    (report,) = error.value.args
    assert isinstance(report, PairReport)
    assert str(report.broken[0]).startswith(f"{wrong.finding}: ")


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_the_right_pair_passes(dtype: str) -> None:
    """The same map at the same point, with all functions."""
    inputs = (x.astype(dtype) for x in (Z, W, B))
    options: dict[str, Any] = {"needs": ("z", "w"), "jvp": jvp, "double_backward": affine_double_backward}
    assert not check_pair(affine_forward, affine_backward, *inputs, **options).broken
    if not dtype.startswith("complex"):
        assert not check_pair(square, square_backward, X.astype(dtype)).broken
