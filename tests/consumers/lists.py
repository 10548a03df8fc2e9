"""The lists of calls.

A call stands on a line of its own, as an expression of the arrays that runner.py names. Where it is not right on each
library, the line says so after a bar: ``refused: numpy strict`` where an error stands in place of a gradient,
``missing: torch`` where the library itself cannot carry the call out, ``nan: numpy`` where the gradient is NaN, and
``branch: numpy`` where the call tests its argument for a single value and computes something else there.
"""

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
LISTS = {"scipy": "SciPy", "scikit_learn": "scikit-learn", "array_api_extra": "array-api-extra", "einops": "einops"}
BACKENDS = {"numpy": "NumPy", "strict": "array-api-strict", "torch": "PyTorch"}


@dataclass(frozen=True)
class Call:
    """A line of a list."""

    library: str
    expression: str
    expected: dict[str, str]

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
    return f"`scipy.{module[0]}`"


def table() -> str:
    """Return how many calls of each part are differentiated, of those that the library carries out itself."""
    lines = ["| calls of | " + " | ".join(BACKENDS.values()) + " |", "| --- |" + " --- |" * len(BACKENDS)]
    every = [call for library in LISTS for call in calls(library)]
    for name in dict.fromkeys(map(part, every)):
        counts = []
        for backend in BACKENDS:
            found = [call.outcome(backend) for call in every if part(call) == name]
            whole = len(found) - found.count("missing")
            counts.append(f"{found.count('right')} of {whole}" if whole else "none")
        lines.append(f"| {name} | " + " | ".join(counts) + " |")
    return "\n".join(lines)
