"""The laws of a pair's other orders: its tangent, and the backward of its backward.

None of them needs a formula. The exact tangent is what the reference changes by. The exact double backward is the
gradient of ``S = Re ⟨da, ȧ⟩``, with the cotangents as tangents in ȧ: the adjoint identity says that this is
``Σ Re ⟨ddx, dx⟩``. Both are linear in each array, so that unit arrays give all of it.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.harness import pair_laws
from tests.harness.backend import Backend
from tests.harness.pair_laws import Arrays, C, Given, Pair, inner, require, structure_of


@dataclass(frozen=True)
class Orders:
    """A pair with its tangent and its double backward."""

    pair: Pair
    jvp: Callable[..., Any]
    double_backward: Callable[..., Any]

    def tangents(self) -> list[str]:
        """Name the inputs that `jvp` takes tangents of, as keywords do."""
        return [f"{x}_tangent" for x in self.pair.inputs]

    def run_jvp(self, backend: Backend, case: Given, given: tuple[str, ...]) -> Any:
        """Push the tangents of the inputs that are `given` forward, as the backend calls functions."""

        def jvp(primals: list[Any], tangents: list[Any]) -> Any:
            return self.jvp(*primals, **dict(zip(self.tangents(), tangents, strict=True)))

        primals = [case.arrays[x] for x in self.pair.needs]
        return backend.call(jvp, primals, [case.tangents[x] if x in given else None for x in self.pair.inputs])

    def run_double_backward(self, backend: Backend, case: Given, given: tuple[str, ...]) -> Any:
        """Pull the tangents, as cotangents of the gradients of the inputs that are `given`, back."""
        cotangents = [case.tangents[x] if x in given else None for x in self.pair.inputs]
        upstream = [case.arrays[x] for x in ("da", *self.pair.needs)]
        return backend.call(self.double_backward, *cotangents, *upstream)

    def tangent(self, arrays: Arrays, tangents: Arrays) -> Any:
        """Return the exact tangent of the output."""
        return sum(self.pair.linear(arrays, **{x: tangent}) for x, tangent in tangents.items())

    def double_gradients(self, arrays: Arrays, cotangents: Arrays) -> Arrays:
        """Return the exact gradients of S."""

        def terms(**changed: Any) -> Any:
            changed = {**arrays, **changed}
            return np.asarray([inner(changed["da"], self.tangent(changed, {x: y})) for x, y in cotangents.items()])

        out = {}
        for x in ("da", *self.pair.needs):
            array = arrays[x]
            still = terms(**{x: array * 0})
            units = np.eye(array.size).reshape(array.size, *array.shape)
            # Term by term, so that those in which the array does not occur cancel to the bit.
            flat = np.asarray([np.sum(terms(**{x: unit}) - still) for unit in units])
            if np.iscomplexobj(array):
                flat = flat + 1j * np.asarray([np.sum(terms(**{x: 1j * unit}) - still) for unit in units])
            out[x] = flat.reshape(array.shape)
        return out

    def subsets(self) -> list[tuple[str, ...]]:
        """Return the choices of inputs that have a tangent: each alone, and all."""
        return [*itertools.combinations(self.pair.inputs, 1), self.pair.inputs]


def tangent(backend: Backend, orders: Orders, case: Given) -> None:
    """Require the exact tangent, its namespace, shape, dtype and device, and laziness, with each choice of tangents."""
    for given in orders.subsets():
        a = orders.run_jvp(backend, case, given)
        got, expected = structure_of(a), structure_of(case.arrays["da"])
        require(got == expected, "tangent", orders.pair, backend, f"of {given}, the structure", got, expected)
        exact = orders.tangent(case.exact, _chosen(case, given))
        magnitude = orders.pair.map(_sizes(case))
        terms = math.sqrt(2 * orders.pair.products(case.exact) / max(exact.size, 1))
        tolerance = C * terms * case.eps * magnitude + case.eps_out * np.abs(exact)
        ok = np.all(np.abs(backend.numpy(a) - exact) <= tolerance)
        require(ok, "tangent", orders.pair, backend, f"of {given}", backend.numpy(a), exact)


def double_backward(backend: Backend, orders: Orders, case: Given) -> None:
    """Require the exact gradients of S, each structured as its primal, or None where no cotangent leads."""
    primals = ("da", *orders.pair.needs)
    for given in orders.subsets():
        results = orders.run_double_backward(backend, case, given)
        names = tuple(f"d{x}" for x in primals)
        require(results._fields == names, "double backward", orders.pair, backend, "fields", results._fields, names)
        exact = orders.double_gradients(case.exact, _chosen(case, given))
        ones = {x: np.ones(array.shape) for x, array in case.exact.items()}
        reached = orders.double_gradients(ones, {x: ones[x] for x in given})
        magnitudes = orders.double_gradients(_sizes(case), {x: np.abs(y) for x, y in _chosen(case, given).items()})
        for x, result in zip(primals, results, strict=True):
            if result is None:
                ok = bool(not np.any(reached[x]))
                require(ok, "double backward", orders.pair, backend, f"d{x} of {given}", None, exact[x])
                continue
            got, expected = structure_of(result), structure_of(case.arrays[x])
            require(got == expected, "double backward", orders.pair, backend, f"structure of d{x}", got, expected)
            terms = math.sqrt(2 * orders.pair.products(case.exact) / max(exact[x].size, 1))
            tolerance = C * terms * case.eps * magnitudes[x] + case.eps_out * np.abs(exact[x])
            ok = bool(np.all(np.abs(backend.numpy(result) - exact[x]) <= tolerance))
            require(ok, "double backward", orders.pair, backend, f"d{x} of {given}", backend.numpy(result), exact[x])


def check(backend: Backend, orders: Orders, case: Given) -> None:
    """Require what `check_pair` does of all four functions."""
    count = len(orders.pair.inputs)
    needed = [orders.pair.inputs.index(x) for x in orders.pair.needs]

    def jvp(*arrays: Any) -> Any:
        tangents = dict(zip(orders.tangents(), arrays[count:], strict=True))
        return orders.jvp(*(arrays[i] for i in needed), **tangents)

    pair_laws.check(backend, orders.pair, case, jvp=jvp, double_backward=orders.double_backward)


def _chosen(case: Given, given: tuple[str, ...]) -> Arrays:
    return {x: case.exact_tangents[x] for x in given}


def _sizes(case: Given) -> Arrays:
    """Return arrays that no array, tangent, or sum of an array and a step of 1 exceeds."""
    return {x: np.abs(array) + np.abs(case.exact_tangents.get(x, 0)) + 1 for x, array in case.exact.items()}


ORDER_LAWS: dict[str, Callable[[Backend, Orders, Given], None]] = {
    "tangent": tangent,
    "double backward": double_backward,
    "check": check,
}
