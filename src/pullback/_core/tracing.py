"""Registry of the tape: lets it record pairs and sums without being imported by them.

The tape registers its array type here. A pair called with traced arrays then becomes one operation of the tape, and
plain arrays in the same call are lifted.
"""

from collections.abc import Callable
from typing import Any

recorders: dict[type, Callable[..., Any]] = {}
"""By array type: ``record(pair, inputs, **options)`` returns the output; None where that is not possible."""

sums: dict[type, Callable[..., Any]] = {}
"""By array type: ``record(name, xp, *arrays)`` records a function of `reductions` as one operation."""

lifters: dict[type, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {}
"""By array type: what lifts all arrays of a call to the level of the deepest one."""

constants: dict[type, Callable[[Any], Any]] = {}
"""By array type: what returns the plain array that a constant holds, and an active array as it is."""


def is_traced(x: Any, /) -> bool:
    """Whether an array is recorded by a tape, active or constant."""
    return type(x) in constants


def plain(x: Any, /) -> Any:
    """Return the array that a constant holds; anything else stays as it is."""
    return constants[type(x)](x) if type(x) in constants else x


def lifted(arrays: tuple[Any, ...], /) -> tuple[Any, ...]:
    """Lift plain arrays in a call with traced ones; return them unchanged where none is traced."""
    for x in arrays:
        if type(x) in lifters:
            return lifters[type(x)](arrays)
    return arrays


def record(pair: Any, inputs: tuple[Any, ...], /, **options: Any) -> Any:
    """Record a call of a pair as one operation; None if no array is traced, or the pair cannot be one operation."""
    for x in inputs:
        if type(x) in recorders:
            return recorders[type(x)](pair, inputs, **options)
    return None
