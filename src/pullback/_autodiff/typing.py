"""Types of the tape."""

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of a library or a traced one, with all operators of the standard, for which there is no common type."""
