"""The quantities of single examples under test, each with its definition in NumPy and the size of its rounding."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from pullback import (
    clipped_gradients,
    fisher_diagonal,
    gradient_signal_to_noise,
    gradient_variance,
    per_example_gradients,
    per_example_norms,
    second_moments,
)
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS, C, wide

Shape = tuple[int, ...]
MAX_NORM = 2.0

# m, the positions, k and n. Of those with positions, the norms of some are cheaper by Gram matrices: t (k + n) < k n.
SHAPES: dict[str, tuple[Shape, int, int]] = {
    "2-d": ((7,), 3, 4),
    "gram": ((4, 2), 6, 5),
    "gram, two axes": ((3, 2, 2), 10, 10),
    "formed": ((5, 4), 2, 3),
    "formed, two axes": ((3, 2, 2), 2, 3),
    "one example": ((1,), 3, 4),
    "no examples": ((0,), 3, 4),
    "no examples, formed": ((0, 4), 2, 3),
    "no positions": ((3, 0), 4, 5),
    "k = 0, 3-d": ((4, 2), 0, 3),
    "n = 0, 3-d": ((4, 2), 3, 0),
}


@dataclass(frozen=True)
class Exact:
    """Gradients of single examples in float64, and what they come to without their signs."""

    dw: Any
    db: Any
    dw_size: Any
    db_size: Any
    terms: int

    @property
    def m(self) -> float:
        """The number of examples, NaN for none."""
        return len(self.dw) or math.nan

    def norms(self, *, bias: bool) -> tuple[Any, Any]:
        """Return the norms, and those of the sizes."""
        return tuple(
            np.sqrt(_squares(dw).sum((1, 2)) + bias * _squares(db).sum(1))
            for dw, db in ((self.dw, self.db), (self.dw_size, self.db_size))
        )


def exact(da: Any, z: Any) -> Exact:
    """Form the gradients of NumPy arrays by their definition."""
    da, z = (wide(x).reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1]) for x in (da, z))
    pairs = [(np.einsum("itk,itn->ikn", x.conj(), y), y.sum(1)) for x, y in ((z, da), (np.abs(z), np.abs(da)))]
    return Exact(*pairs[0], *pairs[1], terms=math.prod(da.shape[:2]) + z.shape[-1] + da.shape[-1])


def _squares(x: Any) -> Any:
    return np.abs(x) ** 2


# A quantity's exact value for the weights and for the bias, and the size of what it is a sum of.
Values = list[tuple[Any, Any]]


def _gradients(x: Exact) -> Values:
    return [(x.dw, x.dw_size), (x.db, x.db_size)]


def _clipped(x: Exact, *, bias: bool) -> Values:
    norms, sizes = x.norms(bias=bias)
    lost = np.divide(sizes, norms, out=np.ones_like(norms), where=norms > 0) ** 2
    c = np.divide(MAX_NORM, norms, out=np.ones_like(norms), where=norms > MAX_NORM)
    pairs = [(x.dw, x.dw_size), (x.db, x.db_size)][: 1 + bias]
    return [(np.tensordot(c, y, 1), np.tensordot(c * lost, size, 1)) for y, size in pairs]


def _squared_norms(x: Exact, *, bias: bool) -> Values:
    norms, sizes = x.norms(bias=bias)
    return [(norms**2, sizes**2)]


def _second(x: Exact) -> Values:
    return [(_squares(y).sum(0), _squares(size).sum(0)) for y, size in _gradients(x)]


def _fisher(x: Exact) -> Values:
    return [(y / x.m, size / x.m) for y, size in _second(x)]


def _variance(x: Exact) -> Values:
    return [(_squares(y - y.sum(0) / x.m).sum(0) / x.m, _squares(size).sum(0) / x.m) for y, size in _gradients(x)]


def _ratio(x: Exact) -> Values:
    """Return |mean|² / variance; of one example all variance is rounding, and the ratio may be any."""
    out = []
    for (y, _), (variance, size) in zip(_gradients(x), _variance(x), strict=True):
        signal = _squares(y.sum(0) / x.m)
        known = ~(variance <= 1e-6 * size)
        ratio = signal / np.where(known, variance, np.inf)
        out.append((ratio, np.where(known, (ratio + 1) * size / np.where(known, variance, 1), np.inf)))
    return out


@dataclass(frozen=True)
class Quantity:
    """A function of (da, z), and its definition."""

    call: Callable[..., Any]
    values: Callable[[Exact], Values]
    real: bool = True
    # Norms are compared by their squares, whose error does not depend on what cancels.
    power: int = 1


def _clipped_call(da: Any, z: Any) -> Any:
    return clipped_gradients(da, z, MAX_NORM)


def _clipped_weights(da: Any, z: Any) -> Any:
    return clipped_gradients(da, z, MAX_NORM, bias=False)


def _norms_of_weights(da: Any, z: Any) -> Any:
    return per_example_norms(da, z, bias=False)


def _fisher_of_weights(da: Any, z: Any) -> Any:
    return fisher_diagonal(da, z, bias=False)


PER_EXAMPLE = {
    "gradients": Quantity(per_example_gradients, _gradients, real=False),
    "norms": Quantity(per_example_norms, lambda x: _squared_norms(x, bias=True), power=2),
    "norms without bias": Quantity(_norms_of_weights, lambda x: _squared_norms(x, bias=False), power=2),
    "clipped": Quantity(_clipped_call, lambda x: _clipped(x, bias=True), real=False),
    "clipped without bias": Quantity(_clipped_weights, lambda x: _clipped(x, bias=False), real=False),
}
MOMENTS = {
    "second moments": Quantity(second_moments, _second),
    "variance": Quantity(gradient_variance, _variance),
    "signal to noise": Quantity(gradient_signal_to_noise, _ratio),
}
FISHER = {
    "fisher": Quantity(fisher_diagonal, _fisher),
    "fisher without bias": Quantity(_fisher_of_weights, lambda x: _fisher(x)[:1]),
}


def draw(shape: tuple[Shape, int, int], dtype: str) -> tuple[Any, Any]:
    """Draw da and z."""
    rng = np.random.default_rng(30)
    leading, k, n = shape
    return tuple(_normal(rng, (*leading, size), dtype) for size in (n, k))


def _normal(rng: np.random.Generator, shape: Shape, dtype: str) -> Any:
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if dtype.startswith("complex") else x


def check(backend: Backend, quantity: Quantity, da: Any, z: Any, dtype: str) -> None:
    """Require the value by definition, its structure, and arguments left as they were."""
    before = backend.numpy((da, z))
    with np.errstate(invalid="ignore"):
        result = backend.call(quantity.call, da, z)
        held = result if isinstance(result, tuple) else (result,)
        got = backend.numpy(tuple(held))
    of = exact(*before)
    eps = min(EPS[dtype], EPS["float32"])
    values = quantity.values(of)
    wanted = _real(dtype) if quantity.real else dtype
    assert [x is None for x in got] == [False] * len(values) + [True] * (len(got) - len(values))
    for x, array, (value, size) in zip(held, got, values, strict=False):
        assert array_namespace(x) is backend.xp
        assert x.dtype == backend.dtype(wanted)
        assert str(device(x)) == str(device(z))
        assert array.shape == value.shape
        power = wide(array) ** quantity.power
        tolerance = C * (EPS[dtype] * np.abs(value) + np.sqrt(of.terms) * eps * size)
        ok = (np.abs(power - value) <= tolerance) | (np.isnan(power) & np.isnan(value)) | np.isinf(size)
        assert np.all(ok), f"{power}\nshould be\n{value}"
    assert all(np.array_equal(x, y) for x, y in zip(before, backend.numpy((da, z)), strict=True))


def _real(dtype: str) -> str:
    return {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
