"""One trial of a pair: a map at a point, random directions, and the results of its functions there."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from random import Random
from typing import Any, NamedTuple, TypeAlias

from array_api_compat import array_namespace

from pullback._core.typing import Array
from pullback._testing.sampling import Numbers, draw_tangent, draw_upstream, norm, read_numbers
from pullback._testing.structure import eps

Function: TypeAlias = Callable[..., Any]

# Rounding errors of K terms grow like a random walk, to about √K·eps·M / √12 for terms of size M. A factor of 4 also
# covers complex products, which have four terms each.
_SAFETY = 4.0
# Sums of narrower numbers are accumulated in float32.
_EPS_OF_SUMS = 2.0**-23


class Point(NamedTuple):
    """The arguments of the functions of a pair, or the numbers of each."""

    inputs: Sequence[Any]
    upstream: Sequence[Any]
    tangents: Sequence[Any]


class Subject(NamedTuple):
    """A map and its backward at a point; `needs` and `wrt` are positions of inputs."""

    forward: Function
    backward: Function
    jvp: Function | None
    double_backward: Function | None
    names: tuple[str, ...]
    inputs: tuple[Array, ...]
    needs: tuple[int, ...]
    wrt: tuple[int, ...]
    named_fields: bool  # whether the fields of a NamedTuple of gradients must be named like the inputs
    cotangents: tuple[str, ...] = ()  # where the map is itself a backward: the names of its results' cotangents

    @property
    def gradient_names(self) -> tuple[str, ...]:
        """The names of the gradients."""
        return tuple(f"d{self.names[i]}" for i in self.wrt)

    def push(self, inputs: Sequence[Array], /) -> tuple[Any, ...]:
        """Return the outputs."""
        return arrays_of(self.forward(*inputs))

    def pull(self, at: Point, /) -> Any:  # noqa: ANN401 - whatever a backward returns
        """Return what the backward returns."""
        return self.backward(*at.upstream, *(at.inputs[i] for i in self.needs))

    def push_tangents(self, at: Point, /) -> list[tuple[Any, ...]]:
        """Return the tangents of the outputs for each tangent alone, with zeros for the others, then for all."""
        if self.jvp is None:
            return []
        zeros = [array_namespace(x).zeros_like(x) for x in at.tangents]
        alone = [[*zeros[:i], x, *zeros[i + 1 :]] for i, x in enumerate(at.tangents)]
        return [arrays_of(self.jvp(*at.inputs, *tangents)) for tangents in (*alone, at.tangents)]

    def calls(self, at: Point, /) -> dict[str, Callable[[], tuple[Any, ...]]]:
        """Return a call of each function, by name; a backward as the map has a trial of its own."""
        calls: dict[str, Callable[[], tuple[Any, ...]]] = {}
        if not self.cotangents:
            calls["the forward"] = lambda: self.push(at.inputs)
        calls["the backward"] = lambda: arrays_of(self.pull(at))
        if self.jvp is not None:
            calls["the tangent"] = lambda: tuple(chain(*self.push_tangents(at)))
        return calls


class Trial:
    """The directions drawn for a subject, and what its functions return, each called once."""

    def __init__(self, subject: Subject, random: Random, inputs: list[Numbers], outputs: tuple[Array, ...], /) -> None:
        """Draw the directions and read them, then call the functions, which may write to their arguments."""
        self.subject = s = subject
        self.random = random
        upstream = [draw_upstream(random, x) for x in outputs]
        tangents = [draw_tangent(random, s.inputs[i], inputs[i]) for i in s.wrt]
        self.point = Point(s.inputs, upstream, tangents)
        self.before = Point(inputs, [read_numbers(x) for x in upstream], [read_numbers(x) for x in tangents])
        self.outputs = outputs
        self.results = s.pull(self.point)
        self.gradients = arrays_of(self.results)
        self.pushed = s.push_tangents(self.point)
        count = len(outputs)
        self.upstream_names = s.cotangents or (("da",) if count == 1 else tuple(f"da{i}" for i in range(count)))

    @cached_property
    def returned(self) -> dict[str, list[tuple[str, Array, Numbers]]]:
        """The name, the array and the numbers of each result of each function."""
        results = {
            "the forward": (self.outputs, ["the output"] * len(self.outputs)),
            "the backward": (self.gradients, self.subject.gradient_names),
            "the tangent": (tuple(chain(*self.pushed)), ["the tangent"] * len(self.outputs) * len(self.pushed)),
        }
        return {
            function: [(name, x, read_numbers(x)) for name, x in zip(names, arrays, strict=True)]
            for function, (arrays, names) in results.items()
        }

    @cached_property
    def values(self) -> "Values":
        """The numbers that the laws compare."""
        outputs, gradients, _ = ([numbers for _, _, numbers in results] for results in self.returned.values())
        inputs = [self.before.inputs[i] for i in self.subject.wrt]
        count = sum(map(len, self.before.inputs)) + sum(map(len, outputs))
        coarsest = max(eps(x) for x in (*self.outputs, *self.gradients))
        upstream = list(chain(*self.before.upstream))
        input_size = sum(norm(dx, x) for dx, x in zip(gradients, inputs, strict=True))
        return Values(
            upstream=upstream,
            tangents=self.before.tangents,
            gradients=gradients,
            pushed=[read_numbers(*arrays) for arrays in self.pushed],
            input_size=input_size,
            size=norm(upstream, list(chain(*outputs))) + input_size,
            rounding=_SAFETY * (coarsest + math.sqrt(count) * min(coarsest, _EPS_OF_SUMS)),
        )


class Values(NamedTuple):
    """The numbers of a trial; those of several outputs are joined."""

    upstream: Numbers
    tangents: Sequence[Numbers]
    gradients: list[Numbers]
    pushed: list[Numbers]
    input_size: float  # the size of independent relative errors of 1 in the inputs, as the outputs see them
    size: float  # the same of the inputs and the outputs
    rounding: float  # the tolerance for a size of 1


def arrays_of(results: Any, /) -> tuple[Any, ...]:  # noqa: ANN401 - whatever a function returns
    """Return the results of a function as a tuple, without those that are None."""
    return tuple(x for x in results if x is not None) if isinstance(results, tuple | list) else (results,)
