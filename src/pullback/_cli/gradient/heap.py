"""Memory of freed arrays, which the C library holds for later arrays."""

import ctypes

from pullback.dask._plan import REUSED_BYTES, STRIP_BYTES

# The freed memory that the heap of a thread holds at most: the strips of a task and the arrays of a step, two and a
# half strips in a softmax regression. Where it holds less, each task gets new pages, which takes a fifth of its time.
HELD_BYTES = 3 * STRIP_BYTES
# For glibc's mallopt: M_MMAP_THRESHOLD, above which arrays, as those of blocks, go back to the system when they are
# freed, and M_TRIM_THRESHOLD.
_LIMITS = (-3, REUSED_BYTES), (-1, HELD_BYTES)


def return_freed_memory() -> None:
    """Let glibc return the memory of freed blocks to the system.

    By default it holds up to three times the memory in use, which no plan can predict.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):
        return
    for name, limit in _LIMITS:
        mallopt(name, limit)
