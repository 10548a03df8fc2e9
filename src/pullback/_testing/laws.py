"""The laws that a pair obeys, each with the two numbers that must agree and how far rounding lets them part."""

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from random import Random
from typing import Any, NamedTuple, TypeAlias

from array_api_compat import array_namespace

from pullback._core.typing import Array
from pullback._testing.report import Finding
from pullback._testing.sampling import (
    ComputedError,
    Numbers,
    best_step,
    draw_tangent,
    draw_upstream,
    inner,
    norm,
    read_numbers,
    watched,
)
from pullback._testing.structure import all_alike, eps, fields_of, outputs_like_inputs

Function: TypeAlias = Callable[..., Any]

# Rounding errors of K terms add up like a random walk, to about √K·eps·M / √12 for terms of the size M: this leaves
# room for complex products, of four terms each.
_C = 4.0
# Sums of narrower numbers are kept in float32.
_EPS_OF_SUMS = 2.0**-23


class Subject(NamedTuple):
    """A map and its backward at one point; `needs` and `wrt` are positions of inputs."""

    forward: Function
    backward: Function
    jvp: Function | None
    double_backward: Function | None
    names: tuple[str, ...]
    inputs: tuple[Array, ...]
    needs: tuple[int, ...]
    wrt: tuple[int, ...]
    fields: bool  # whether a NamedTuple of gradients must be named like the inputs
    cotangents: tuple[str, ...] = ()  # where the map is itself a backward: what its double backward takes first

    @property
    def gradients(self) -> tuple[str, ...]:
        """The names of the gradients."""
        return tuple(f"d{self.names[i]}" for i in self.wrt)


class _Trial(NamedTuple):
    """What was drawn for a pair, and what it gave."""

    subject: Subject
    upstream_names: tuple[str, ...]
    upstream: tuple[Array, ...]
    tangents: tuple[Array, ...]
    gradients: tuple[Array, ...]
    pushed: list[tuple[Array, ...]]  # the outputs' tangents for a tangent of each input alone; none without a `jvp`

    def arguments(self) -> list[tuple[str, Array]]:
        """Return the name and the array of everything that a function was given."""
        s = self.subject
        tangents = [(f"the tangent of {s.names[i]}", x) for i, x in zip(s.wrt, self.tangents, strict=True)]
        named = zip((*s.names, *self.upstream_names), (*s.inputs, *self.upstream), strict=True)
        return [*named, *(tangents if s.jvp else ())]


class _Numbers(NamedTuple):
    """The numbers of a trial, and how much of them is rounding."""

    inputs: list[Numbers]
    upstream: Numbers
    tangents: list[Numbers]
    gradients: list[Numbers]
    pushed: list[Numbers]
    rounding: float


def findings(s: Subject, random: Random, /) -> Iterator[Finding]:
    """Yield what each law finds; numbers are compared only where the arrays are what they should be."""
    inputs = [read_numbers(x) for x in s.inputs]
    outputs = _arrays(s.forward(*s.inputs))
    # What is the forward of a double backward was looked at as the backward that it is.
    found = [] if s.cotangents else outputs_like_inputs(outputs, s.inputs)
    yield from found
    if not _all_hold(found):
        return
    names = s.cotangents or (("da",) if len(outputs) == 1 else tuple(f"da{i}" for i in range(len(outputs))))
    upstream = tuple(draw_upstream(random, x) for x in outputs)
    tangents = tuple(draw_tangent(random, s.inputs[i], inputs[i]) for i in s.wrt)
    drawn, moves = ([read_numbers(x) for x in xs] for xs in (upstream, tangents))
    results = s.backward(*upstream, *(s.inputs[i] for i in s.needs))
    t = _Trial(s, names, upstream, tangents, _arrays(results), _push(s, tangents))
    found = all_alike("gradients", s.gradients, t.gradients, [s.inputs[i] for i in s.wrt])
    found += fields_of(results, s.gradients) if s.fields else []
    for x in t.pushed:
        found += all_alike("tangents", ["the tangent"] * len(outputs), x, outputs)
    yield from found
    if not _all_hold(found):
        return
    # A lazy array that is written to changes when the results are computed, so that they are read first.
    count = sum(map(len, inputs)) + len(read_numbers(*outputs))
    coarsest = max(eps(x) for x in (*outputs, *t.gradients))
    n = _Numbers(
        inputs=[inputs[i] for i in s.wrt],
        upstream=list(chain(*drawn)),
        tangents=moves,
        gradients=[read_numbers(x) for x in t.gradients],
        pushed=[read_numbers(*x) for x in t.pushed],
        rounding=_C * (coarsest + math.sqrt(count) * min(coarsest, _EPS_OF_SUMS)),
    )
    found = _purity(t, [*inputs, *drawn, *(moves if s.jvp else ())])
    yield from found
    if not _all_hold(found):
        return
    yield from _laziness(t)
    yield from _adjoint(t, n)
    yield from _difference(t, n)
    if s.double_backward is not None:
        for finding in findings(_second(t, s.double_backward), random):
            yield finding._replace(of=f"{finding.of} (double backward)")


def _push(s: Subject, tangents: tuple[Array, ...], /) -> list[tuple[Any, ...]]:
    """Return the outputs' tangents for a tangent of each input in turn, with zeros for the others."""
    if s.jvp is None:
        return []
    zeros = [array_namespace(x).zeros_like(x) for x in tangents]
    return [_arrays(s.jvp(*s.inputs, *zeros[:i], x, *zeros[i + 1 :])) for i, x in enumerate(tangents)]


def _purity(t: _Trial, before: list[Numbers], /) -> list[Finding]:
    """Require that nothing was written into the arguments."""
    found = []
    for (name, x), numbers in zip(t.arguments(), before, strict=True):
        changed = [(old, new) for old, new in zip(numbers, read_numbers(x), strict=True) if old != new]
        got = "{} became {}".format(*map(_number, changed[0])) if changed else "as it was"
        found.append(Finding("purity", name, got, "as it was"))
    return found


def _laziness(t: _Trial, /) -> Iterator[Finding]:
    """Require that no function computes a lazy array: each block of what it is given raises once it is computed."""
    s = t.subject
    inputs, upstream, tangents = ([watched(x) for x in xs] for xs in (s.inputs, t.upstream, t.tangents))
    if all(guarded is x for guarded, x in zip(inputs, s.inputs, strict=True)):
        return
    calls = [] if s.cotangents else [("the forward", partial(s.forward, *inputs))]
    calls.append(("the backward", partial(s.backward, *upstream, *(inputs[i] for i in s.needs))))
    if s.jvp is not None:
        calls.append(("the tangent", partial(s.jvp, *inputs, *tangents)))
    for name, call in calls:
        got = "nothing computed"
        try:
            call()
        except ComputedError:
            got = "an array computed"
        yield Finding("laziness", name, got, "nothing computed")


def _adjoint(t: _Trial, n: _Numbers, /) -> Iterator[Finding]:
    """``⟨dx, ẋ⟩ = ⟨da, ȧ⟩`` for a tangent of each input in turn."""
    for i, a in enumerate(n.pushed):
        dx, move = n.gradients[i], n.tangents[i]
        size = norm(n.upstream, a) + norm(dx, move)
        got, expected = inner(dx, move), inner(n.upstream, a)
        yield Finding("adjoint identity", t.subject.gradients[i], got, expected, n.rounding * size)


def _difference(t: _Trial, n: _Numbers, /) -> Iterator[Finding]:
    """``⟨dx, ẋ⟩ = ⟨da, (f(x + h ẋ) - f(x - h ẋ)) / 2h⟩`` for a tangent of each input in turn."""
    inputs = sum(norm(dx, x) for dx, x in zip(n.gradients, n.inputs, strict=True))
    for i, name in enumerate(t.subject.gradients):
        got, moved = inner(n.gradients[i], n.tangents[i]), norm(n.gradients[i], n.tangents[i])

        def measure(h: float, i: int = i, moved: float = moved) -> tuple[float, float]:
            """Return the difference with a step, and its rounding error."""
            ahead, behind = (_moved(t, i, step) for step in (h, -h))
            change = [(x - y) / (2 * h) for x, y in zip(ahead, behind, strict=True)]
            size = max(norm(n.upstream, ahead), norm(n.upstream, behind)) + inputs + h * moved
            return inner(n.upstream, change), n.rounding * size / h

        expected, tolerance = best_step(measure, got, n.rounding)
        yield Finding("central difference", name, got, expected, tolerance)


def _moved(t: _Trial, i: int, step: float, /) -> Numbers:
    """Return the numbers of the outputs where input i is moved along its tangent."""
    s = t.subject
    inputs = list(s.inputs)
    inputs[s.wrt[i]] = inputs[s.wrt[i]] + t.tangents[i] * step
    # A step may leave the domain of a function, which is no news: a smaller one will do.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_numbers(*_arrays(s.forward(*inputs)))


def _second(t: _Trial, double_backward: Function, /) -> Subject:
    """Return the backward as a map of the upstream gradients and of what it needs, with its own backward."""
    s, count = t.subject, len(t.upstream)
    return Subject(
        forward=s.backward,
        backward=double_backward,
        jvp=None,
        double_backward=None,
        names=(*t.upstream_names, *(s.names[i] for i in s.needs)),
        inputs=(*t.upstream, *(s.inputs[i] for i in s.needs)),
        needs=tuple(range(count + len(s.needs))),
        wrt=(*range(count), *(count + j for j, i in enumerate(s.needs) if i in s.wrt)),
        fields=s.fields,
        cotangents=tuple(f"d{name}" for name in s.gradients),
    )


def _all_hold(found: list[Finding], /) -> bool:
    return all(finding.holds for finding in found)


def _arrays(results: Any, /) -> tuple[Any, ...]:  # noqa: ANN401 - whatever a function returns
    """Return what a function returned as a tuple, without what is None."""
    return tuple(x for x in results if x is not None) if isinstance(results, tuple | list) else (results,)


def _number(x: complex, /) -> str:
    return f"{x:.9g}" if x.imag else f"{x.real:.9g}"
