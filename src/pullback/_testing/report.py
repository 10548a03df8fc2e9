"""The findings of the laws of a pair, and the report of a check."""

import math
from typing import NamedTuple


class Finding(NamedTuple):
    """The result of one law for one array or function.

    Attributes
    ----------
    law : str
        Name of the law: ``"structure"``, ``"finiteness"``, ``"purity"``, ``"repeatability"``, ``"laziness"``,
        ``"linearity"``, ``"adjoint identity"`` or ``"central difference"``.
    of : str
        The gradient, such as ``"dw"``, the argument, or the function of the pair.
    got : float or str
        The result: a number, or a description.
    expected : float or str
        The right result.
    tolerance : float
        The largest allowed distance of two numbers; 0 for descriptions, which must be equal.
    second_order : bool
        Whether the finding is about the double backward.
    """

    law: str
    of: str
    got: float | str
    expected: float | str
    tolerance: float = 0.0
    second_order: bool = False

    @property
    def error(self) -> float:
        """The distance of the two numbers; infinity for words that differ."""
        if isinstance(self.got, str) or isinstance(self.expected, str):
            return 0.0 if self.got == self.expected else math.inf
        return abs(self.got - self.expected)

    @property
    def holds(self) -> bool:
        """Whether the law holds; it does not where a number or the tolerance is infinite or NaN."""
        return self.error <= self.tolerance < math.inf

    def __str__(self) -> str:
        """Return the finding in one line."""
        what = f"{self.law} of {self.of}{' (double backward)' if self.second_order else ''}"
        if isinstance(self.got, str) or isinstance(self.expected, str):
            return f"{what}: {self.got}" if self.holds else f"{what}: {self.got}, expected {self.expected}"
        numbers = f"got {self.got:.9g}, expected {self.expected:.9g}"
        return f"{what}: {numbers}, error {self.error:.1e}, tolerance {self.tolerance:.1e}"


class PairReport(NamedTuple):
    """The findings for a pair; ``str`` gives one line for each.

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
        """Return a line with the counts, then the broken findings, then those that hold."""
        count, broken = len(self.findings), self.broken
        verdict = f"{len(broken)} of {count} findings break a law" if broken else f"all {count} findings hold"
        held = [finding for finding in self.findings if finding.holds]
        lines = [f"BROKEN {finding}" for finding in broken] + [f"    ok {finding}" for finding in held]
        return "\n".join([f"check_pair: {self.pair}: {verdict}", *lines])
