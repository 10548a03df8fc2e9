"""The laws that every pair obeys, whatever its operation, array library, dtype and shape.

The laws of `pullback.check_pair` need no reference; the others are here. A pair is affine in each of its inputs,
over the real numbers at least: so its exact gradient is the adjoint of a matrix that the forward itself gives, column
by column, and no law needs a formula of the gradient.

Tolerances are ``c·√K·eps·M + eps_out·|x|``: K is the number of terms in a sum, M the same sum of absolute values, eps
that of the dtype it is computed in, eps_out that of the dtype it is returned in. Rounding errors of K terms add up like
a random walk, to about ``√K·eps·M / √12``; c = 4 leaves room for complex products, of four terms each.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from pullback._core.pair import Pair
from pullback._testing.check import check_record
from tests.harness.backend import Backend

C = 4.0
EPS = {
    "bfloat16": 2.0**-7,
    "float16": 2.0**-10,
    "float32": 2.0**-23,
    "float64": 2.0**-52,
    "complex64": 2.0**-23,
    "complex128": 2.0**-52,
}

Arrays = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReferencedPair(Pair):
    """The record of a pair, with the same map in NumPy as the reference."""

    backward: Callable[..., Any]
    reference: Callable[..., Any]
    batch: Callable[[Arrays], set[str]]  # the inputs whose first axis is rows, of unknown number where a backend says

    def run_backward(self, backend: Backend, arrays: Arrays, **options: Any) -> Any:
        """Call the backward as the backend does."""
        return backend.call(self.backward, arrays["da"], *(arrays[x] for x in self.needs), **options)

    def run_forward(self, backend: Backend, arrays: Arrays) -> Any:
        """Call the forward as the backend does."""
        return backend.call(self.forward, *(arrays[x] for x in self.inputs))

    def products(self, arrays: Arrays) -> int:
        """Return how many products of two entries the map adds up in all."""
        return int(np.sum(self.reference(*(np.ones(arrays[x].shape) for x in self.inputs))))

    def map(self, arrays: Arrays, **changed: Any) -> Any:
        """Apply the reference in NumPy."""
        return self.reference(*({**arrays, **changed}[x] for x in self.inputs))

    def linear(self, arrays: Arrays, **changed: Any) -> Any:
        """Return what the output changes by when one input goes from zero to a tangent."""
        zero = {x: np.zeros_like(tangent) for x, tangent in changed.items()}
        return self.map(arrays, **changed) - self.map(arrays, **zero)

    def gradients(self, arrays: Arrays) -> Arrays:
        """Return the exact gradients: for each unit tangent, its inner product with the upstream gradient."""
        out = {}
        for x in self.inputs:
            units = np.eye(arrays[x].size).reshape(arrays[x].size, *arrays[x].shape)
            flat = np.asarray([inner(self.linear(arrays, **{x: unit}), arrays["da"]) for unit in units])
            if np.iscomplexobj(arrays[x]):
                flat = flat + 1j * np.asarray(
                    [inner(self.linear(arrays, **{x: 1j * unit}), arrays["da"]) for unit in units]
                )
            out[x] = flat.reshape(arrays[x].shape)
        return out


@dataclass(frozen=True)
class Given:
    """The arrays of one test: as the backend holds them, and with exactly the same values in NumPy."""

    arrays: Arrays
    exact: Arrays
    tangents: Arrays
    exact_tangents: Arrays
    eps: float
    eps_out: float


def given(backend: Backend, pair: ReferencedPair, shapes: dict[str, tuple[int, ...]], dtype: str) -> Given:
    """Draw the inputs, a tangent of each and an upstream gradient, from a seed of their own."""
    rng = np.random.default_rng(20)
    drawn = {x: _draw(rng, shape, dtype) for x, shape in shapes.items()}
    tangents = {x: _draw(rng, shape, dtype) for x, shape in shapes.items()}
    drawn["da"] = _draw(rng, pair.map(drawn).shape, dtype)
    rows = pair.batch(drawn)
    held = [
        {x: (backend.rows if x in rows else backend.asarray)(array, dtype) for x, array in arrays.items()}
        for arrays in (drawn, tangents)
    ]
    exact = [{x: wide(backend.numpy(array)) for x, array in arrays.items()} for arrays in held]
    eps_out = EPS[dtype]
    return Given(held[0], exact[0], held[1], exact[1], min(eps_out, EPS["float32"]), eps_out)


def wide(x: Any) -> Any:
    """Widen a NumPy array."""
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if dtype.startswith("complex") else x


def require(ok: Any, law: str, pair: ReferencedPair, backend: Any, what: str, got: Any, expected: Any) -> None:  # noqa: PLR0913, PLR0917
    """Fail with operation, backend, law and both numbers, unless `ok`."""
    if not ok:
        msg = f"{pair.name} on {backend} breaks the law of {law}: {what} is\n{got}\nand should be\n{expected}"
        raise AssertionError(msg)


def value(backend: Backend, pair: ReferencedPair, case: Given) -> None:
    """Require the output and the gradients of the reference in float64."""
    got = dict(zip(pair.inputs, backend.numpy(pair.run_backward(backend, case.arrays)), strict=True))
    got["a"] = backend.numpy(pair.run_forward(backend, case.arrays))
    expected = {**pair.gradients(case.exact), "a": pair.map(case.exact)}
    sizes = {x: np.abs(array) for x, array in case.exact.items()}
    magnitudes = {**pair.gradients(sizes), "a": pair.map(sizes)}
    for x, array in got.items():
        right = expected[x]
        require(array.shape == right.shape, "value", pair, backend, f"the shape of {x}", array.shape, right.shape)
        terms = math.sqrt(pair.products(case.exact) / max(array.size, 1))
        ok = np.abs(array - right) <= C * terms * case.eps * magnitudes[x] + case.eps_out * np.abs(right)
        require(np.all(ok), "value", pair, backend, x, array, right)


def check(backend: Backend, pair: ReferencedPair, case: Given) -> None:
    """Require the laws of `check_pair`, of functions that are called as the backend calls them."""
    functions = ("forward", "backward", "double_backward")
    called: dict[str, Any] = {x: getattr(pair, x) and partial(backend.call, getattr(pair, x)) for x in functions}
    called["jvp"] = pair.jvp and partial(call_jvp, backend, pair.jvp)
    try:
        check_record(replace(pair, **called), *(case.arrays[x] for x in pair.inputs))
    except AssertionError as error:
        msg = f"{pair.name} on {backend}: {error}"
        raise AssertionError(msg) from None


def call_jvp(backend: Backend, jvp: Callable[..., Any], *primals: Any, **tangents: Any) -> Any:
    """Call a jvp as the backend does, with the tangents as arrays: keyword arguments of a traced call are constants."""

    def call(primals: list[Any], tangents: dict[str, Any]) -> Any:
        return jvp(*primals, **tangents)

    return backend.call(call, list(primals), tangents)


def inner(x: Any, y: Any) -> float:
    """Return ``Re Σ conj(x) y``."""
    return float(np.vdot(x, y).real)


def structure_of(x: Any) -> tuple[Any, ...]:
    """Return the namespace, shape, dtype and device of an array."""
    # The size of an axis that is not known is NaN, which equals nothing.
    shape = tuple(size if size == size else "?" for size in x.shape)  # noqa: PLR0124
    return array_namespace(x).__name__, shape, x.dtype, str(device(x))


def subsets(backend: Backend, pair: ReferencedPair, case: Given) -> None:
    """Require None where `wrt` does not name an input, and elsewhere the value that it has with all."""
    full = backend.numpy(pair.run_backward(backend, case.arrays))
    for wrt in [(), *itertools.combinations(pair.inputs, 1), tuple(pair.inputs)[::-1]]:
        some = backend.numpy(pair.run_backward(backend, case.arrays, wrt=wrt))
        for x, got, expected in zip(pair.inputs, some, full, strict=True):
            ok = np.array_equal(got, expected) if x in wrt else got is None
            require(ok, "wrt", pair, backend, f"d{x} with wrt={wrt}", got, expected if x in wrt else None)


def spread(backend: Backend, pair: ReferencedPair, case: Given) -> None:
    """Require that a NaN or an infinity shows up where the formula sends it, and nowhere else."""
    ones = {x: np.ones_like(array) for x, array in case.exact.items()}
    for x in ("da", *pair.needs):
        bad = np.zeros(ones[x].shape)
        bad.flat[:1], bad.flat[-1:] = np.inf, np.nan
        changed, still = (pair.gradients({**ones, x: ones[x] * array}) for array in (bad != 0, 0))
        like = backend.rows if x in pair.batch(ones) else backend.asarray
        arrays = {**case.arrays, x: like(np.where(bad != 0, bad, ones[x]), _dtype_name(case.arrays[x]))}
        with np.errstate(invalid="ignore"):  # NumPy's products warn of an infinity among their operands
            gradients = backend.numpy(pair.run_backward(backend, arrays))
        for y, got in zip(pair.inputs, gradients, strict=True):
            expected = changed[y] != still[y]
            ok = np.array_equal(~np.isfinite(got), expected)
            require(ok, f"NaN and infinity in {x}", pair, backend, f"d{y}, not finite at", got, expected)


def layouts(layout: str, backend: Backend, pair: ReferencedPair, case: Given) -> None:
    """Strided, transposed, reversed, broadcast and otherwise chunked arrays give what contiguous ones give."""
    value(backend, pair, relaid(layout, backend, case))


def relaid(layout: str, backend: Backend, case: Given) -> Given:
    """Lay the arrays and the tangents of a case out in another way."""
    # What is done here to the rows of an array, Dask cannot do where their number is unknown.
    held = [
        {x: y if _unknown(y) else LAYOUTS[layout](backend.xp, y) for x, y in arrays.items()}
        for arrays in (case.arrays, case.tangents)
    ]
    exact = [{x: wide(backend.numpy(array)) for x, array in arrays.items()} for arrays in held]
    return replace(case, arrays=held[0], exact=exact[0], tangents=held[1], exact_tangents=exact[1])


def _strided(xp: Any, x: Any) -> Any:
    return xp.stack([x, x * 0], axis=-1)[..., 0]


def _transposed(xp: Any, x: Any) -> Any:
    axes = tuple(range(x.ndim))[::-1]
    return xp.permute_dims(xp.permute_dims(x, axes) + 0, axes)


def _reversed(xp: Any, x: Any) -> Any:
    return xp.flip(xp.flip(x) + 0)


def _broadcast(xp: Any, x: Any) -> Any:
    return xp.broadcast_to(x[..., :1], x.shape) if x.ndim and x.shape[-1] else x


def _rechunked(_: Any, x: Any) -> Any:
    return x.rechunk((2, *(1,) * (x.ndim - 1))[: x.ndim]) if hasattr(x, "rechunk") else x


LAYOUTS = {
    "strided": _strided,
    "transposed": _transposed,
    "reversed": _reversed,
    "broadcast": _broadcast,
    "rechunked": _rechunked,
}


def _unknown(x: Any) -> bool:
    return any(size != size for size in x.shape)  # noqa: PLR0124 - NaN


def _dtype_name(x: Any) -> str:
    return str(x.dtype).rpartition(".")[2]


LAWS: dict[str, Callable[[Backend, ReferencedPair, Given], None]] = {
    "value": value,
    "check": check,
    "wrt": subsets,
    "nonfinite": spread,
}

# The laws that a shape may break; the others hold for each shape if they hold for one.
SHAPE_LAWS = ("value", "check", "nonfinite")
