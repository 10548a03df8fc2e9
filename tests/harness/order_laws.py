"""The laws of a pair's other orders: its tangent, and the backward of its backward.

None of them needs a formula. The exact tangent is what the reference changes by. The exact double backward is the
gradient of ``S = Re ⟨da, ȧ⟩``, with the cotangents as tangents in ȧ: the adjoint identity says that this is
``Σ Re ⟨ddx, dx⟩``. Both are linear in each array, so that unit arrays give all of it.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.harness.backend import Backend
from tests.harness.pair_laws import Arrays, C, Given, ReferencedPair, call_jvp, inner, require, structure_of


def run_jvp(backend: Backend, pair: ReferencedPair, case: Given, given: tuple[str, ...]) -> Any:
    """Call the jvp as the backend calls functions, with the tangents of the inputs that are `given`."""
    assert pair.jvp is not None
    tangents = {f"{x}_tangent": case.tangents[x] if x in given else None for x in pair.inputs}
    return call_jvp(backend, pair.jvp, *(case.arrays[x] for x in pair.needs), **tangents)


def run_double_backward(backend: Backend, pair: ReferencedPair, case: Given, given: tuple[str, ...]) -> Any:
    """Call the double backward with the tangents of the inputs that are `given` as cotangents."""
    assert pair.double_backward is not None
    cotangents = [case.tangents[x] if x in given else None for x in pair.inputs]
    upstream = [case.arrays[x] for x in ("da", *pair.needs)]
    return backend.call(pair.double_backward, *cotangents, *upstream)


def exact_tangent(pair: ReferencedPair, arrays: Arrays, tangents: Arrays) -> Any:
    """Return the exact tangent of the output."""
    return sum(pair.linear(arrays, **{x: tangent}) for x, tangent in tangents.items())


def double_gradients(pair: ReferencedPair, arrays: Arrays, cotangents: Arrays) -> Arrays:
    """Return the exact gradients of S."""

    def terms(**changed: Any) -> Any:
        changed = {**arrays, **changed}
        return np.asarray([inner(changed["da"], exact_tangent(pair, changed, {x: y})) for x, y in cotangents.items()])

    out = {}
    for x in ("da", *pair.needs):
        array = arrays[x]
        still = terms(**{x: array * 0})
        units = np.eye(array.size).reshape(array.size, *array.shape)
        # Term by term, so that those in which the array does not occur cancel to the bit.
        flat = np.asarray([np.sum(terms(**{x: unit}) - still) for unit in units])
        if np.iscomplexobj(array):
            flat = flat + 1j * np.asarray([np.sum(terms(**{x: 1j * unit}) - still) for unit in units])
        out[x] = flat.reshape(array.shape)
    return out


def subsets(pair: ReferencedPair) -> list[tuple[str, ...]]:
    """Return the choices of inputs that have a tangent: each alone, and all."""
    return [*itertools.combinations(pair.inputs, 1), tuple(pair.inputs)]


def tangent(backend: Backend, pair: ReferencedPair, case: Given) -> None:
    """Require the exact tangent, its namespace, shape, dtype and device, and laziness, with each choice of tangents."""
    for given in subsets(pair):
        a = run_jvp(backend, pair, case, given)
        got, expected = structure_of(a), structure_of(case.arrays["da"])
        require(got == expected, "tangent", pair, backend, f"of {given}, the structure", got, expected)
        exact = exact_tangent(pair, case.exact, _chosen(case, given))
        magnitude = pair.map(_sizes(case))
        terms = math.sqrt(2 * pair.products(case.exact) / max(exact.size, 1))
        tolerance = C * terms * case.eps * magnitude + case.eps_out * np.abs(exact)
        ok = np.all(np.abs(backend.numpy(a) - exact) <= tolerance)
        require(ok, "tangent", pair, backend, f"of {given}", backend.numpy(a), exact)


def double_backward(backend: Backend, pair: ReferencedPair, case: Given) -> None:
    """Require the exact gradients of S, each structured as its primal, or None where no cotangent leads."""
    primals = ("da", *pair.needs)
    for given in subsets(pair):
        results = run_double_backward(backend, pair, case, given)
        names = tuple(f"d{x}" for x in primals)
        require(results._fields == names, "double backward", pair, backend, "fields", results._fields, names)
        exact = double_gradients(pair, case.exact, _chosen(case, given))
        ones = {x: np.ones(array.shape) for x, array in case.exact.items()}
        reached = double_gradients(pair, ones, {x: ones[x] for x in given})
        magnitudes = double_gradients(pair, _sizes(case), {x: np.abs(y) for x, y in _chosen(case, given).items()})
        for x, result in zip(primals, results, strict=True):
            if result is None:
                ok = bool(not np.any(reached[x]))
                require(ok, "double backward", pair, backend, f"d{x} of {given}", None, exact[x])
                continue
            got, expected = structure_of(result), structure_of(case.arrays[x])
            require(got == expected, "double backward", pair, backend, f"structure of d{x}", got, expected)
            terms = math.sqrt(2 * pair.products(case.exact) / max(exact[x].size, 1))
            tolerance = C * terms * case.eps * magnitudes[x] + case.eps_out * np.abs(exact[x])
            ok = bool(np.all(np.abs(backend.numpy(result) - exact[x]) <= tolerance))
            require(ok, "double backward", pair, backend, f"d{x} of {given}", backend.numpy(result), exact[x])


def _chosen(case: Given, given: tuple[str, ...]) -> Arrays:
    return {x: case.exact_tangents[x] for x in given}


def _sizes(case: Given) -> Arrays:
    """Return arrays that no array, tangent, or sum of an array and a step of 1 exceeds."""
    return {x: np.abs(array) + np.abs(case.exact_tangents.get(x, 0)) + 1 for x, array in case.exact.items()}


ORDER_LAWS: dict[str, Callable[[Backend, ReferencedPair, Given], None]] = {
    "tangent": tangent,
    "double backward": double_backward,
}
