"""The check of every pair of this package on an array library."""

import math
from random import Random
from typing import Any, NamedTuple

from pullback._core.pair import Example, Pair
from pullback._core.typing import Array, Namespace
from pullback._testing.check import check_record
from pullback._testing.report import Finding, PairReport
from pullback._testing.sampling import draw_upstream


class Checked(NamedTuple):
    """The findings of a pair on a library in all dtypes, and a line for each fault."""

    findings: list[Finding]
    faults: list[str]

    def part(self, law: str, /) -> str:
        """Return the largest error that a law found, as a part of its tolerance; "-" if there is none."""
        parts = [
            finding.error / finding.tolerance
            for finding in self.findings
            if 0 < finding.tolerance < math.inf and law == ("double backward" if finding.second_order else finding.law)
        ]
        return f"{max(parts):.3f}" if parts else "-"


def run(pair: Pair, xp: Namespace, /) -> Checked:
    """Check a pair on the default device of a library, in each dtype that both have."""
    kinds = ("real floating",) if pair.real else ("real floating", "complex floating")
    checked = Checked([], [])
    for dtype in xp.__array_namespace_info__().dtypes(kind=kinds):
        random = Random(pair.name)  # noqa: S311 - not for secrets
        try:
            report = check_record(pair, *(_input(xp, random, example, dtype) for example in pair.inputs.values()))
        except Exception as error:  # noqa: BLE001 - whatever a library raises is a fault of the pair on it
            what = f"{pair.name} in {dtype}"
            if not (error.args and isinstance(error.args[0], PairReport)):
                checked.faults.append(f"{what} raises {type(error).__name__}: {' '.join(str(error).split())}")
                continue
            report = error.args[0]
            checked.faults.extend(f"{what} breaks the {finding}" for finding in report.broken)
        checked.findings.extend(report.findings)
    return checked


def _input(xp: Namespace, random: Random, example: Example, dtype: str, /) -> Array:
    """Draw an array of a shape, or make one of integers; in several chunks where a library has chunks."""
    if isinstance(example, list):
        x = xp.asarray(example)
    else:
        x = draw_upstream(random, xp.zeros(example, dtype=getattr(xp, dtype)))
    rechunk: Any = getattr(x, "rechunk", None)
    return x if rechunk is None else rechunk(2)
