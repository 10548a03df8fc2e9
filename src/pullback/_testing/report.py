"""What the laws of a pair found, with both numbers."""

import math
from typing import NamedTuple


class Finding(NamedTuple):
    """What one law found of one array or function.

    Attributes
    ----------
    law : str
        ``"structure"``, ``"purity"``, ``"laziness"``, ``"adjoint identity"`` or ``"central difference"``.
    of : str
        What it was found of: a gradient such as ``"dw"``, an argument, or a function of the pair.
    got : float or str
        What the pair gave: a number, or words for what no number says.
    expected : float or str
        What it should have given.
    tolerance : float
        How far two numbers may lie apart; 0 for words, which must be the same.
    """

    law: str
    of: str
    got: float | str
    expected: float | str
    tolerance: float = 0.0

    @property
    def error(self) -> float:
        """How far the numbers lie apart; infinity for words that differ."""
        if isinstance(self.got, str) or isinstance(self.expected, str):
            return 0.0 if self.got == self.expected else math.inf
        return abs(self.got - self.expected)

    @property
    def holds(self) -> bool:
        """Whether the law holds; it does not where a number is NaN."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        """Return the finding in one line."""
        if isinstance(self.got, str) or isinstance(self.expected, str):
            line = f"{self.law} of {self.of}: {self.got}"
            return line if self.holds else f"{line}, expected {self.expected}"
        numbers = f"got {self.got:.9g}, expected {self.expected:.9g}"
        return f"{self.law} of {self.of}: {numbers}, error {self.error:.1e}, tolerance {self.tolerance:.1e}"


class PairReport(NamedTuple):
    """What the laws found of a pair; as text, a line for each.

    Attributes
    ----------
    pair : str
        The names of the forward and the backward.
    findings : tuple of Finding
        One for each law and array.
    """

    pair: str
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings of laws that do not hold."""
        return tuple(finding for finding in self.findings if not finding.holds)

    def __str__(self) -> str:
        """Return a line that counts, and then those of laws that are broken before the others."""
        count, broken = len(self.findings), self.broken
        verdict = f"{len(broken)} of {count} findings break a law" if broken else f"all {count} findings hold"
        held = [finding for finding in self.findings if finding.holds]
        lines = [f"BROKEN {finding}" for finding in broken] + [f"    ok {finding}" for finding in held]
        return "\n".join([f"check_pair: {self.pair}: {verdict}", *lines])
