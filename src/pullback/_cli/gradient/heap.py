"""Memory of freed arrays, which the C library holds for later arrays."""

import ctypes

# The arrays of blocks are larger than this, and go back to the system when they are freed. Those of strips are smaller
# and are used again: the heap of a thread holds at most as much freed memory.
KEPT_BYTES = 4 * 2**20
# For glibc's mallopt: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
_LIMITS = -3, -1


def return_freed_memory() -> None:
    """Let glibc return the memory of freed blocks to the system.

    By default it holds up to three times the memory in use, which no plan can predict.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):
        return
    for name in _LIMITS:
        mallopt(name, KEPT_BYTES)
