"""The memory of freed arrays, which the C library keeps for arrays to come."""

import ctypes

# For glibc's mallopt, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD. Arrays of blocks are larger than the first and go back to
# the system when they are freed; those of strips are smaller and are used again.
_LIMITS = (-3, 4 * 2**20), (-1, 16 * 2**20)


def return_freed_memory() -> None:
    """Have the memory of freed blocks returned to the system, where glibc would keep it for blocks to come.

    It would keep up to three times what is in use, which no plan can foresee.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):
        return
    for name, value in _LIMITS:
        mallopt(name, value)
