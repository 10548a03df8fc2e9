"""The laws of a pair, each a function of a trial, in the order in which they are checked."""

import math
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, cycle
from random import Random
from typing import TypeAlias

from pullback._core.typing import Array
from pullback._testing.laziness import computes, is_lazy, watched
from pullback._testing.report import Finding
from pullback._testing.sampling import LARGEST, Numbers, best_step, inner, norm, read_numbers
from pullback._testing.structure import all_alike, fields_of, outputs_like_inputs
from pullback._testing.trial import Point, Subject, Trial, arrays_of

Law: TypeAlias = Callable[[Trial], Iterable[Finding]]


def findings(subject: Subject, random: Random, /) -> Iterator[Finding]:
    """Yield the findings of all laws; stop after a precondition that does not hold."""
    inputs = [read_numbers(x) for x in subject.inputs]
    outputs = subject.push(subject.inputs)
    # The outputs of a backward as the map were checked as gradients.
    found = [] if subject.cotangents else outputs_like_inputs(outputs, subject.inputs)
    yield from found
    if not _hold(found):
        return
    trial = Trial(subject, random, inputs, outputs)
    for law in PRECONDITIONS:
        found = list(law(trial))
        yield from found
        if not _hold(found):
            return
    for law in COMPARISONS:
        yield from law(trial)


def structure(t: Trial, /) -> Iterator[Finding]:
    """Check gradients against their inputs, and tangents of outputs against the outputs."""
    s = t.subject
    yield from all_alike("gradients", s.gradient_names, t.gradients, [s.inputs[i] for i in s.wrt])
    if s.named_fields:
        yield from fields_of(t.results, s.gradient_names)
    for pushed in t.pushed:
        yield from all_alike("tangents", ["the tangent"] * len(t.outputs), pushed, t.outputs)


def purity(t: Trial, /) -> Iterator[Finding]:
    """Check that nothing was written to the arguments."""
    s = t.subject
    _ = t.returned  # a lazy result that is read later would see what was written
    names = [*s.names, *t.upstream_names, *(f"the tangent of {s.names[i]}" for i in s.wrt)]
    arguments = list(zip(names, chain(*t.point), chain(*t.before), strict=True))
    for name, x, before in arguments if s.jvp is not None else arguments[: -len(s.wrt)]:
        yield Finding("purity", name, _change(before, read_numbers(x)) or "as it was", "as it was")


def finiteness(t: Trial, /) -> Iterator[Finding]:
    """Check that the results at a finite point are finite, and so small that no product of two overflows."""
    right = f"numbers below {LARGEST:.0e}"
    for function in t.subject.calls(t.point):
        results = t.returned[function]
        wrong = [f"{name} has {_text(x)}" for name, _, numbers in results for x in numbers if not abs(x) < LARGEST]
        yield Finding("finiteness", function, wrong[0] if wrong else right, right)


def repeatability(t: Trial, /) -> Iterator[Finding]:
    """Check that each function returns the same bits again, and that later calls leave its first results alone."""
    s = t.subject
    # A memory of the last call, and results in reused memory, show after calls with other arguments.
    inputs = _moved(t, range(len(s.wrt)), 1.0)
    other = Point(inputs, [-x for x in t.point.upstream], [-x for x in t.point.tangents])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other point may lie outside the domain of a function
        for call in s.calls(other).values():
            call()
    # The backward goes before the forward, which may leave it something.
    for function, call in reversed(s.calls(t.point).items()):
        names, first, numbers = zip(*t.returned[function], strict=True)
        changes = [_change(before, read_numbers(x)) for before, x in zip(numbers, first, strict=True)]
        again = call()
        if _hold(all_alike("results", names, again, first)):
            changes += [_change(before, read_numbers(x)) for before, x in zip(numbers, again, strict=True)]
        else:
            changes.append("another structure")
        changed = [f"{name}: {change}" for name, change in zip(cycle(names), changes, strict=False) if change]
        yield Finding("repeatability", function, changed[0] if changed else "the same bits", "the same bits")


def laziness(t: Trial, /) -> Iterator[Finding]:
    """Check that no function computes a lazy argument."""
    if not any(map(is_lazy, t.point.inputs)):
        return
    for function, call in t.subject.calls(Point(*map(watched, t.point))).items():
        got = "an array computed" if computes(call) else "nothing computed"
        yield Finding("laziness", function, got, "nothing computed")


def linearity(t: Trial, /) -> Iterator[Finding]:
    """Check that the negative upstream gradient gives the negative gradients."""
    s, v = t.subject, t.values
    negative = arrays_of(s.pull(t.point._replace(upstream=[-x for x in t.point.upstream])))
    found = all_alike("gradients", s.gradient_names, negative, t.gradients)
    if not _hold(found):
        yield from found
        return
    for name, x, dx, move in zip(s.gradient_names, negative, v.gradients, v.tangents, strict=True):
        yield Finding("linearity", name, inner(read_numbers(x), move), -inner(dx, move), v.rounding * v.size)


def adjoint_identity(t: Trial, /) -> Iterator[Finding]:
    """Check ``⟨dx, ẋ⟩ = ⟨da, ȧ⟩`` for the tangent of each input alone, then for all together."""
    v = t.values
    every = range(len(v.gradients))
    directions = [(i,) for i in every] + [tuple(every)] * (len(every) > 1)
    for moving, a in zip(directions, v.pushed, strict=False):
        got = math.fsum(inner(v.gradients[i], v.tangents[i]) for i in moving)
        size = norm(v.upstream, a) + sum(norm(v.gradients[i], v.tangents[i]) for i in moving)
        names = ", ".join(t.subject.gradient_names[i] for i in moving)
        yield Finding("adjoint identity", names, got, inner(v.upstream, a), v.rounding * size)


def central_difference(t: Trial, /) -> Iterator[Finding]:
    """Check ``⟨dx, ẋ⟩ = ⟨da, (f(x + h ẋ) - f(x - h ẋ)) / 2h⟩`` for the tangent of each input alone."""
    v = t.values
    for i, (name, dx, move) in enumerate(zip(t.subject.gradient_names, v.gradients, v.tangents, strict=True)):

        def measure(h: float, i: int = i, moved: float = norm(dx, move)) -> tuple[float, float]:
            """Return the difference for a step, and its rounding error."""
            ahead, behind = (_outputs_at(t, i, step) for step in (h, -h))
            change = [(x - y) / (2 * h) for x, y in zip(ahead, behind, strict=True)]
            size = max(norm(v.upstream, ahead), norm(v.upstream, behind)) + v.input_size + h * moved
            return inner(v.upstream, change), v.rounding * size / h

        got = inner(dx, move)
        expected, tolerance = best_step(measure, got, v.rounding)
        # The best step of a smooth function has an error of about rounding^(2/3) of the size.
        if tolerance <= v.rounding ** (1 / 3) * v.size:
            yield Finding("central difference", name, got, expected, tolerance)
        else:
            yield Finding("central difference", name, "no step converges", "a derivative")


def double_backward(t: Trial, /) -> Iterator[Finding]:
    """Check the double backward by all laws, as the backward of ``(da, *needed) → gradients``."""
    s, count = t.subject, len(t.outputs)
    if s.double_backward is None:
        return
    needed = tuple(s.inputs[i] for i in s.needs)
    second = Subject(
        forward=s.backward,
        backward=s.double_backward,
        jvp=None,
        double_backward=None,
        names=(*t.upstream_names, *(s.names[i] for i in s.needs)),
        inputs=(*t.point.upstream, *needed),
        needs=tuple(range(count + len(needed))),
        wrt=(*range(count), *(count + j for j, i in enumerate(s.needs) if i in s.wrt)),
        named_fields=s.named_fields,
        cotangents=tuple(f"d{name}" for name in s.gradient_names),
    )
    for finding in findings(second, t.random):
        yield finding._replace(second_order=True)


PRECONDITIONS: tuple[Law, ...] = (structure, purity, finiteness, repeatability)
COMPARISONS: tuple[Law, ...] = (laziness, linearity, adjoint_identity, central_difference, double_backward)


def _moved(t: Trial, which: Iterable[int], step: float, /) -> list[Array]:
    """Return the inputs, those of the given gradients moved along their tangents."""
    inputs = list(t.point.inputs)
    for i in which:
        inputs[t.subject.wrt[i]] = inputs[t.subject.wrt[i]] + t.point.tangents[i] * step
    return inputs


def _outputs_at(t: Trial, i: int, step: float, /) -> Numbers:
    """Return the numbers of the outputs where one input is moved along its tangent."""
    # A step may leave the domain of a function; a smaller one stays inside.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_numbers(*t.subject.push(_moved(t, [i], step)))


def _hold(found: Iterable[Finding], /) -> bool:
    return all(finding.holds for finding in found)


def _change(before: Numbers, after: Numbers, /) -> str:
    """Describe the first number whose bits changed; return an empty string for none."""
    changed = (f"{_text(x)} became {_text(y)}" for x, y in zip(before, after, strict=True) if _bits(x) != _bits(y))
    return next(changed, "")


def _bits(x: complex, /) -> bytes:
    return struct.pack("dd", x.real, x.imag)


def _text(x: complex, /) -> str:
    return f"{x:.9g}" if x.imag else f"{x.real:.9g}"
