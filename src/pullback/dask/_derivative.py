"""`accumulate` as one operation of the tape, whose pull is an `accumulate` that runs the step on each block again.

This module alone imports `_autodiff`, a package of its own level, and registers nothing: `accumulate` calls it when one
of its arrays is traced.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask.array as da
from array_api_compat import array_namespace, device

from pullback._autodiff.namespace import namespace_for, space_of
from pullback._autodiff.recorded import Recorded
from pullback._autodiff.shapes import Like, cast, full, like
from pullback._autodiff.tape import Joint, raise_two_tapes
from pullback._autodiff.traced import Traced, value_of
from pullback._autodiff.transforms import constant, jvp
from pullback._core import trees
from pullback._core.typing import Array, Namespace, Step
from pullback.dask._compat import empty_block
from pullback.dask._inputs import names_of, rows_named

Tree = Any


class Runner(NamedTuple):
    """The public functions, which call this module, as it calls them."""

    accumulate: Callable[..., Tree]
    compute: Callable[..., tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class _Call:
    """A call that was recorded. It is no tuple, in which the tape would look for arrays to lift."""

    run: Runner
    step: Step
    batch: int
    """The number of arrays in the batch."""
    shared: tuple[Tree, ...]
    """The shared arguments, for their structure."""
    rows: set[int]
    """The outputs that keep rows."""
    active: tuple[int, ...]
    """The arrays to pull back to, among those of the batch and then the leaves of `shared`."""
    outputs: tuple[Like, ...]


class _Pull(NamedTuple):
    """The step of a pull: it runs a step on a block again, and pulls cotangents of its results back."""

    step: Step
    batch: int
    active: tuple[int, ...]
    rows: tuple[int, ...]
    """The results that keep rows and have a cotangent, whose blocks follow those of the batch."""
    sums: tuple[int, ...]
    """The sums that have a cotangent: those are the last of the shared arguments."""

    def __call__(self, *arguments: Any) -> tuple[Array, ...]:
        *blocks, shared, of_sums = arguments
        of_active, chosen = _of_active(self.step, self.active, blocks[: self.batch], shared)

        def with_cotangents(*chosen: Array) -> list[Array]:
            results = trees.leaves(of_active(*chosen))
            return [results[i] for i in (*self.rows, *self.sums)]

        recorded = Recorded("accumulate", with_cotangents, chosen)
        return tuple(recorded.pull([*blocks[self.batch :], *of_sums], last=True))


class _Push(NamedTuple):
    """The step of a call along tangents: it returns the results of a step on a block, and their tangents."""

    step: Step
    batch: int
    active: tuple[int, ...]
    """The arrays that have tangents. Those of blocks follow the batch; the others are the last shared argument."""

    def __call__(self, *arguments: Any) -> tuple[Tree, Tree]:
        *blocks, shared, of_shared = arguments
        of_active, chosen = _of_active(self.step, self.active, blocks[: self.batch], shared)
        return jvp(of_active, chosen, (*blocks[self.batch :], *of_shared))


def _of_active(
    step: Step, active: Sequence[int], blocks: Sequence[Any], shared: Tree, /
) -> tuple[Callable[..., Tree], tuple[Any, ...]]:
    """Return a step on a block as a function of the arrays that are differentiated, and these."""
    primals = [*blocks, *trees.leaves(shared)]

    def of_active(*chosen: Array) -> Tree:
        given = [constant(x) for x in primals]
        for i, x in zip(active, chosen, strict=True):
            given[i] = x
        return step(*given[: len(blocks)], *trees.fill(shared, given[len(blocks) :]))

    return of_active, tuple(primals[i] for i in active)


def record(run: Runner, step: Step, batch: Sequence[Any], shared: tuple[Tree, ...], rows: Any, /) -> Tree:
    """Accumulate the values of traced arrays, and record that as one operation."""
    rows = tuple(rows) if isinstance(rows, Iterable) and not isinstance(rows, str) else rows
    arguments = [*batch, *trees.leaves(shared)]
    traced = [x for x in arguments if type(x) is Traced]
    # A function of eager parameters is eager, also where only rows that were made of them reach this call.
    eager = any(not x._namespace.lazy or (x._index >= 0 and x._tape.mixed) for x in traced)
    arguments = [value_of(x) for x in arguments]
    level = max((x._namespace.depth for x in arguments if type(x) is Traced), default=0)
    active = tuple(i for i, x in enumerate(arguments) if type(x) is Traced and x._namespace.depth == level)
    values = [x._value if i in active else x for i, x in enumerate(arguments)]
    n = len(batch)
    out = run.accumulate(step, *values[:n], shared=tuple(trees.fill(shared, values[n:])), rows=rows)
    named = rows_named(rows, out)
    inputs = [arguments[i] for i in active]
    tangents = inputs[0]._tape.tangents if active else None
    moved: Tree = None
    if tangents is not None:
        zeros = [space_of([x._value]).zeros_like(x._value) for x in inputs]
        of_inputs = tangents.of([x._index for x in inputs], zeros)
        out, moved = _pushed(run, _Push(step, n, active), values, shared, of_inputs, [names_of(out)[i] for i in named])
    count = len(trees.leaves(out))
    if eager:
        found = [*trees.leaves(out), *trees.leaves(moved)]
        sums = [i for i in range(len(found)) if i % count not in named]
        of_sums = None
        if isinstance(step, _Pull) and not step.rows and tangents is None:
            of_sums = values[len(values) - len(step.sums) :]
        found = _computed(run, found, sums, of_sums)
        out, moved = trees.fill(out, found[:count]), trees.fill(moved, found[count:])
    if active:
        below = [namespace_for(x, level).lower(x) for x in trees.leaves(out)]
        call = _Call(run, step, n, shared, named, active, tuple(map(like, below)))
        out = trees.fill(out, _node(call, inputs, values, below, trees.leaves(moved)))
    depth = max(x._namespace.depth for x in traced)
    return trees.rebuild(out, lambda x: namespace_for(x, depth).lift(x))


def _pushed(  # noqa: PLR0913, PLR0917 - what a call is made of
    run: Runner,
    step: _Push,
    values: Sequence[Any],
    shared: tuple[Tree, ...],
    tangents: Sequence[Any],
    rows: Sequence[str],
    /,
) -> tuple[Tree, Tree]:
    """Accumulate results along with their tangents, in one pass; `rows` names the results that keep rows."""
    n = step.batch
    of_rows = [
        t if _is_lazy(t) else da.from_array(t, chunks=values[i].chunks)
        for i, t in zip(step.active, tangents, strict=True)
        if i < n
    ]
    both: tuple[Tree, Tree] = run.accumulate(
        step,
        *values[:n],
        *of_rows,
        shared=(tuple(trees.fill(shared, values[n:])), tuple(tangents[len(of_rows) :])),
        rows=tuple(part if name == "result" else f"{part}.{name}" for part in "01" for name in rows),
    )
    return both


def _computed(run: Runner, results: list[Any], sums: Sequence[int], cotangents: Sequence[Any] | None, /) -> list[Any]:
    """Return the results, with those sums computed that are lazy, in one pass."""
    results = list(results)
    lazy = [i for i in sums if isinstance(results[i], da.Array)]
    if lazy and cotangents is not None and not any(map(_may_count, cotangents)):
        # As `linearize` records a pull, at cotangents of zero: what is linear in them needs no pass.
        found: Sequence[Any] = [_zeros(results[i]) for i in lazy]
    else:
        found = run.compute(*(results[i] for i in lazy)) if lazy else ()
    for i, x in zip(lazy, found, strict=True):
        results[i] = x
    return results


def _may_count(g: Any, /) -> bool:
    """Whether a cotangent is not known to be zero."""
    return isinstance(g, da.Array) or bool(array_namespace(g).any(g != 0))


def _zeros(x: Any, /) -> Array:
    """Return zeros of the shape and kind of a lazy array."""
    meta = empty_block(x)
    return array_namespace(meta).zeros(x.shape, dtype=x.dtype, device=device(meta))


def _node(
    call: _Call, inputs: list[Traced], values: list[Any], results: list[Any], tangents: Sequence[Any], /
) -> list[Traced]:
    """Add a node for a call to the tape; return its results, arrays of the level below, as traced ones.

    Tangents of the results, where there are some, are known from then on.
    """
    tape, level = inputs[0]._tape, inputs[0]._namespace.depth
    if any(x._tape is not tape for x in inputs):
        raise_two_tapes()
    spaces = [namespace_for(x, level) for x in results]
    tape.mixed = tape.mixed or len({ns.raw for ns in (*spaces, *(x._namespace for x in inputs))}) > 1
    first = len(tape.nodes)
    tape.nodes.append(Joint(len(results), ((tuple(x._index for x in inputs), _pull, (call, *values)),)))
    tape.nodes.extend([()] * (len(results) - 1))
    for i, (x, tangent) in enumerate(zip(results, tangents, strict=False)):
        tape.tangents.know(first + i, x, tangent)
    return [
        Traced(x, tape, first + i, ns) if x.dtype in ns.floating else Traced(x, None, -1, ns)
        for i, (x, ns) in enumerate(zip(results, spaces, strict=True))
    ]


def _pull(xp: Namespace, gs: tuple[Any, ...], call: _Call, /, *values: Any) -> list[Any]:
    """Pull cotangents of the results back to the active arrays, in a second pass."""
    del xp
    given = {}
    for i, (part, spec) in enumerate(zip(gs, call.outputs, strict=True)):
        if part is not None:
            space = space_of([part])
            g = cast(space, full(space, part, spec), spec.dtype)
            # Who pulls back rows that are lazy may have their cotangent in memory, as SciPy has.
            given[i] = da.from_array(g, chunks=spec.array.chunks) if i in call.rows and not _is_lazy(g) else g
    of_rows, sums = (tuple(i for i in given if (i in call.rows) == keeps) for keeps in (True, False))
    n = call.batch
    shared = tuple(trees.fill(call.shared, values[n:])), tuple(given[i] for i in sums)
    found = call.run.accumulate(
        _Pull(call.step, n, call.active, of_rows, sums),
        *values[:n],
        *(given[i] for i in of_rows),
        shared=shared,
        rows=tuple(k for k, i in enumerate(call.active) if i < n),
    )
    eager = [k for k, i in enumerate(call.active) if i >= n and not _is_lazy(values[i])]
    return _computed(call.run, list(found), eager, None)


def _is_lazy(x: Any, /) -> bool:
    """Whether this is an array of Dask, traced or not."""
    return hasattr(x, "chunks")
