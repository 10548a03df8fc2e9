"""The lists of calls.

A call stands on a line of its own, as an expression of the arrays that runner.py names. Where it is not right on each
library, the line says so after a bar: ``refused: numpy strict`` where an error stands in place of a gradient,
``missing: torch`` where the library itself cannot carry the call out, ``nan: numpy`` where the gradient is NaN, and
``branch: numpy`` where the call tests its argument for a single value and computes something else there.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
LISTS = {"scipy": "SciPy", "scikit_learn": "scikit-learn", "array_api_extra": "array-api-extra", "einops": "einops"}
OUTCOMES = "right", "refused", "missing", "nan", "branch"
BACKENDS = {"numpy": "NumPy", "strict": "array-api-strict", "torch": "PyTorch"}


@dataclass(frozen=True)
class Call:
    """A line of a list."""

    library: str
    expression: str
    expected: dict[str, str] = field(compare=False)

    def outcome(self, backend: str, /) -> str:
        """Return the outcome that the line states for an array library."""
        return self.expected.get(backend, "right")


def calls(library: str, /) -> list[Call]:
    """Return the calls of a list."""
    found = []
    for line in (FOLDER / f"{library}.txt").read_text(encoding="utf-8").splitlines():
        expression, _, remarks = line.partition("  | ")
        pairs = [remark.split(": ") for remark in remarks.split("; ") if remark]
        found.append(Call(library, expression, {name: kind for kind, names in pairs for name in names.split()}))
    return found


def part(call: Call, /) -> str:
    """Return the part of its library that a call belongs to, such as ``scipy.signal``."""
    if call.library != "scipy":
        return LISTS[call.library]
    module = re.search(r"[a-z]\w+(?=\.)", call.expression)
    assert module is not None
    return f"scipy.{module[0]}"


def counted(kinds: Iterable[str], /) -> str:
    """Return the number of calls of each outcome."""
    counts = Counter(kinds)
    return ", ".join(f"{counts[kind]} {kind}" for kind in OUTCOMES if counts[kind])


def stated() -> list[list[str]]:
    """Return each part of the libraries with the number of calls of each outcome that the lists state for a library."""
    every = [call for library in LISTS for call in calls(library)]
    return [
        [name, *(counted(call.outcome(backend) for call in every if part(call) == name) for backend in BACKENDS)]
        for name in dict.fromkeys(map(part, every))
    ]
