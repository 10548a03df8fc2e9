"""What holds of each rule, and the differences that it is compared with."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from pullback._autodiff import grad, jvp, vjp
from tests.autodiff.rules.cases import Case
from tests.autodiff.rules.table import CASES

C = 64
STEP = 2e-3  # the 4th-order difference of step h has errors of h⁴ and eps / h: 1e-11 and 1e-13
DIFFERENCE = 1e-8  # with room for derivatives of order five, of about 1e3


def floats(arrays: Sequence[Any], /) -> list[int]:
    """Return the places of the arrays to differentiate for."""
    return [i for i, x in enumerate(arrays) if np.asarray(x).dtype.kind in "fc"]


def outputs(out: Any, /) -> tuple[Any, ...]:
    """Return the outputs of a call as a tuple."""
    return tuple(out) if isinstance(out, tuple | list) else (out,)


def function_of(case: Case, arrays: Sequence[Any], /) -> Callable[..., Any]:
    """Return the call as a function of the arrays to differentiate for; the others are constants."""
    places = floats(case.arrays)

    def function(*chosen: Any) -> Any:
        xp = array_namespace(*chosen)
        given: list[Any] = [None if i in places else xp.asarray(x) for i, x in enumerate(arrays)]
        for i, x in zip(places, chosen, strict=True):
            given[i] = x
        return outputs(case.call(xp, *given))

    return function


def with_constants(function: Callable[..., Any], xs: Sequence[Any], /) -> Callable[..., Any]:
    """Return a function whose auxiliary output is what `function` makes of constants."""

    def identity(x: Any) -> Any:
        return x, function(*map(array_namespace(x).asarray, xs))

    return identity


def inner(xs: Sequence[Any], ys: Sequence[Any], /) -> Any:
    """Return the real inner product of lists of arrays, in the arrays' own library."""
    xp = array_namespace(*xs, *ys)
    total: Any = 0.0
    for x, y in zip(xs, ys, strict=True):
        complex_x, complex_y = (xp.isdtype(z.dtype, "complex floating") for z in (x, y))
        if complex_x and complex_y:
            total = total + xp.sum(xp.real(x) * xp.real(y)) + xp.sum(xp.imag(x) * xp.imag(y))
        else:
            total = total + xp.sum((xp.real(x) if complex_x else x) * (xp.real(y) if complex_y else y))
    return total


def random_like(xs: Sequence[Any], seed: int, /) -> list[Any]:
    """Draw directions of the shapes and dtypes of NumPy arrays."""
    rng = np.random.default_rng(seed)
    drawn = []
    for x in xs:
        d = rng.standard_normal(np.shape(x))
        drawn.append(np.asarray(d + 1j * rng.standard_normal(np.shape(x)) if np.iscomplexobj(x) else d, dtype=x.dtype))
    return drawn


def difference(function: Callable[..., Any], xs: Sequence[Any], vs: Sequence[Any], /) -> list[Any]:
    """Return the derivative of a NumPy function along a direction, by a central difference of fourth order."""

    def at(t: float) -> list[Any]:
        return list(map(np.asarray, function(*(x + t * STEP * v for x, v in zip(xs, vs, strict=True)))))

    far, near = zip(at(2), at(-2), strict=True), zip(at(1), at(-1), strict=True)
    return [(8 * (a - b) - (c - d)) / (12 * STEP) for (a, b), (c, d) in zip(near, far, strict=True)]


class Reference:
    """A case on NumPy: the directions of its derivatives, and what they are by differences."""

    def __init__(self, case: Case, /) -> None:
        self.case = case
        self.xs = [np.asarray(case.arrays[i]) for i in floats(case.arrays)]
        self.function = function_of(case, case.arrays)
        self.outs = [np.asarray(x) for x in self.function(*self.xs)]
        self.vs, self.ws = random_like(self.xs, 1), random_like(self.outs, 2)

    @functools.cached_property
    def tangents(self) -> list[Any]:
        """The tangent along `vs`."""
        return difference(self.function, self.xs, self.vs)

    @functools.cached_property
    def gradients(self) -> list[Any]:
        """The cotangents that `ws` is pulled back to, entry by entry."""
        found = []
        for k, x in enumerate(self.xs):
            g = np.zeros_like(x)
            for place in np.ndindex(x.shape):
                for part in (1, 1j) if np.iscomplexobj(x) else (1,):
                    vs = [np.zeros_like(other) for other in self.xs]
                    vs[k][place] = part
                    g[place] += part * inner(self.ws, difference(self.function, self.xs, vs))
            found.append(g)
        return found

    @functools.cached_property
    def second(self) -> list[Any]:
        """The derivative along `vs` of the cotangents that `ws` is pulled back to."""
        return difference(self.pulled, self.xs, self.vs)

    def pulled(self, *xs: Any) -> tuple[Any, ...]:
        """Pull `ws` back on NumPy."""
        pulled: tuple[Any, ...] = vjp(self.function, *xs)[1](tuple(self.ws))
        return pulled


@functools.cache
def reference(name: str, /) -> Reference:
    """Return the reference of a case by its name."""
    return Reference(CASES[name])


def pull_function(function: Callable[..., Any], ws: Sequence[Any], /) -> Callable[..., Any]:
    """Return what pulls `ws` back, as a function of the arguments that can be differentiated in turn."""

    def pulled(*xs: Any) -> Any:
        xp = array_namespace(*xs)
        return vjp(function, *xs)[1](tuple(map(xp.asarray, ws)))

    return pulled


def second_by_grad(function: Callable[..., Any], xs: Sequence[Any], ws: Sequence[Any], vs: Sequence[Any], /) -> Any:
    """Return the gradient of the derivative along `vs`, of which the cotangent is `ws`."""
    pulled = pull_function(function, ws)

    def along(*xs: Any) -> Any:
        xp = array_namespace(*xs)
        return inner(pulled(*xs), list(map(xp.asarray, vs)))

    return grad(along, argnums=tuple(range(len(xs))))(*xs)


def second_by_jvp(function: Callable[..., Any], xs: Sequence[Any], ws: Sequence[Any], vs: Sequence[Any], /) -> Any:
    """Return the tangent along `vs` of what `ws` is pulled back to."""
    return jvp(pull_function(function, ws), tuple(xs), tuple(vs))[1]


def assert_close(law: str, got: Sequence[Any], right: Sequence[Any], tolerance: float, /) -> None:
    """Compare lists of NumPy arrays, relative to the largest entry of the right one."""
    for k, (a, b) in enumerate(zip(got, right, strict=True)):
        assert a.shape == b.shape, f"{law} of array {k}: shape {a.shape}, expected {b.shape}"
        scale = max(1.0, float(np.max(np.abs(b), initial=0)))
        assert np.allclose(a, b, rtol=0, atol=tolerance * scale), f"{law} of array {k}:\n{a}\nexpected\n{b}"


def same_values(a: Any, b: Any, /) -> bool:
    """Whether two NumPy arrays are equal to the bit, with their dtypes."""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
