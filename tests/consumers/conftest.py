"""After a run: how many calls of each part were differentiated, and the others with what was raised."""

import pytest

from tests.consumers.lists import counted, part
from tests.consumers.runner import OUTCOMES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the run."""
    for call, kind, reason in OUTCOMES:
        if kind != "right":
            terminalreporter.write_line(f"{kind}: {call.expression}: {reason}")
    for name in dict.fromkeys(part(call) for call, _, _ in OUTCOMES):
        kinds = counted(kind for call, kind, _ in OUTCOMES if part(call) == name)
        terminalreporter.write_line(f"{name}: {kinds}")
