"""Gradients through calls of SciPy, scikit-learn, array-api-extra and einops: the lists of tests/consumers."""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace

from benchmarks.report import Row, Section
from tests.consumers.lists import BACKENDS, LISTS, Call, calls, counted, part
from tests.consumers.runner import outcome
from tests.harness.backend import Backend, load

Outcomes = dict[Call, list[tuple[str, str]]]


def sections(_peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the numbers of calls by outcome, and the calls that are not right everywhere; quick ones of every tenth."""
    chosen = [call for library in LISTS for call in calls(library)][:: 10 if quick else 1]
    # SciPy's compiled code takes no read-only arrays.
    backends = [replace(load(name)[0], mode="plain") for name in BACKENDS]
    found: Outcomes = {}
    parts = list(dict.fromkeys(map(part, chosen)))
    yield Section(
        name="consumers",
        title="Calls by outcome: right, the gradient is that of differences of fourth order; refused, an error in its "
        "place; missing, the library does not carry the call out on these arrays; nan, the gradient is NaN; branch, "
        "the call computes something else at this single value of its argument",
        columns=("calls of", *BACKENDS.values(), "bound"),
        rows=_counts(parts, chosen, backends, found),
        length=len(parts),
    )
    yield Section(
        name="consumers in full",
        title="Calls that are not right on each library, and why",
        columns=("call", *BACKENDS.values(), "why"),
        rows=_others(found),
        length=sum(any(kind != "right" for kind, _ in kinds) for kinds in found.values()),
    )


def _counts(parts: list[str], chosen: list[Call], backends: list[Backend], found: Outcomes) -> Iterator[Row]:
    """Carry out the calls of each part on each library, and count their outcomes."""
    for name in parts:
        those = [call for call in chosen if part(call) == name]
        found |= {call: [outcome(call, backend) for backend in backends] for call in those}
        holds = all(
            kind == call.outcome(backend.library)
            for call in those
            for (kind, _), backend in zip(found[call], backends, strict=True)
        )
        cells = (counted(found[call][i][0] for call in those) for i in range(len(backends)))
        yield Row((name, *cells, "as listed"), holds=holds)


def _others(found: Outcomes) -> Iterator[Row]:
    """Give the outcomes of the calls that are not right on each library, and the reason on the first such library."""
    for call, kinds in found.items():
        # Errors name files, and where those lie says nothing.
        reasons = [re.sub(r"\S*site-packages/", "", reason) for kind, reason in kinds if kind != "right"]
        if reasons:
            yield Row((call.expression, *(kind for kind, _ in kinds), reasons[0]), holds=None)
