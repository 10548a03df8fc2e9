"""After a run: how many calls of each part were differentiated, and the others with what was raised."""

import collections

import pytest

from tests.consumers.lists import part
from tests.consumers.runner import OUTCOMES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the run."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for call, kind, reason in OUTCOMES:
        counts[part(call)][kind] += 1
        if kind != "right":
            terminalreporter.write_line(f"{kind}: {call.expression}: {reason}")
    for name, found in counts.items():
        terminalreporter.write_line(f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in found.most_common()))
