"""Where sums over rows are cut: the measured limits, and the choices that follow from sizes alone.

Measured by `python -m benchmarks --only=accuracy` (the error at each number of rows) and `--only=affine` (the time of
each shape); docs/development/reductions.md tells why each value was chosen. The *size* of a product is its number of
multiplications for each row, k n.

==============  =====  ===================================================================================
limit           value  meaning
==============  =====  ===================================================================================
CHAIN           128    rows of a chain: a float32 chain of 256 has an error of 1e-6 of the largest entry
IN_PARTS        1536   rows up to which a few products in the dtype of the arrays take less time than blocks
WIDE            2048   size from which the BLAS cuts a long product into chains itself
LONG            8192   rows of a block of a wide product: longer ones gain no time
BLOCKS          16     least number of blocks of a longer batch
CUT             4096   size up to which 257 to 512 rows are cut: for wider products it shows in the time
VECTOR          16384  most rows of a float64 product with a vector: longer ones gain no time, and lose digits
SUM_ROWS        1280   rows from which a product with ones is cut into chains
SUM_SIZE        2^20   entries up to which chains are products with ones, while the rows lie in the cache
SUM_WIDTH       512    entries of one addition: NumPy starts loops for fewer, and more leave the cache
COLUMN          32768  rows of a single column up to which one wide sum takes less time than chains
SHORT           64     entries of a row up to which NumPy takes longer to start its sum than to add it
SHORT_ROWS      256    rows from which a product with ones sums such rows in less time
MANY_ROWS       1024   rows above which joining some of them before a bias is added pays
JOINED          256    entries of joined rows
GPU_ROWS        512    least rows of a block on a GPU, which adds the rows of a product one after the other
GPU_LONG        1024   most rows of such a block, and rows up to which a product stays whole
GPU_WIDTH       32768  entries of one addition on a GPU: as many as keep it busy
LOSS_SIZE       2^20   entries of a block of a loss and its gradients: enough for cores to share a product, and not
                       too many for the cache that they share
LOSS_VECTOR     2^19   entries of such a block with one output: the fewest whose product with a vector the BLAS shares
                       between cores; the gradient reads most of them from the caches of these
LOSS_LEAST      2^23   entries up to which a batch with one output is one block: the calls of blocks take longer than
                       a second reading of the batch
LOSS_ARRAYS     4      arrays of outputs that a block holds at a time
LOSS_ROWS       1024   least rows of such a block: its calls take as long as the arithmetic of fewer
==============  =====  ===================================================================================
"""

from math import prod
from typing import Literal

CHAIN = 128
IN_PARTS = 1536
WIDE = 2048
LONG = 8192
BLOCKS = 16
CUT = 4096
VECTOR = 16_384
SUM_ROWS = 1280
SUM_SIZE = 2**20
SUM_WIDTH = 512
COLUMN = 32_768
SHORT = 64
SHORT_ROWS = 256
MANY_ROWS = 1024
JOINED = 256
GPU_ROWS = 512
GPU_LONG = 1024
GPU_WIDTH = 32_768
LOSS_SIZE = 2**20
LOSS_VECTOR = 2**19
LOSS_LEAST = 2**23
LOSS_ARRAYS = 4
LOSS_ROWS = 1024


def choose_on_gpu(rows: int, k: int, n: int, /, *, exact: bool) -> tuple[Literal["whole", "blocks"], int]:
    """Choose as `choose` does for the memory of a GPU, where blocks are one batched product."""
    if exact or rows <= GPU_LONG:
        return "whole", rows
    # Large results cost more to sum, and allow fewer blocks.
    return "blocks", max(GPU_ROWS, min(GPU_LONG, k * n // GPU_LONG))


def choose(rows: int, k: int, n: int, /, *, exact: bool) -> tuple[Literal["whole", "parts", "blocks"], int]:
    """Choose how to contract rows of k and of n entries: by one product, by parts, or by blocks that are summed wide.

    The second result is the number of rows of a product. `exact` says that the dtype has the precision of float64.
    """
    if rows <= 2 * CHAIN:
        return "whole", rows
    if exact and 1 in (k, n):
        return ("whole", rows) if rows <= VECTOR else ("blocks", rows // -(-rows // VECTOR))
    size = k * n
    narrow, short = size < WIDE, rows <= 4 * CHAIN
    longest = 2 * CHAIN if narrow or (short and size <= CUT) else LONG
    if rows <= longest or (short and exact):
        return "whole", rows
    if rows <= IN_PARTS:
        parts = -(-rows // longest)
        return "parts", -(-rows // parts)
    # Few blocks of a wide product, and results that are small compared with the blocks, cost next to nothing to sum.
    return "blocks", CHAIN if narrow else min(LONG, max(rows // BLOCKS, size // 8))


def sums_by_products(rows: int, width: int, /) -> bool:
    """Whether real rows are summed by products with ones; else by additions."""
    return width != 0 and (rows < SUM_ROWS or (width > 1 and rows <= LONG and rows * width < SUM_SIZE))


def stride(rows: int, width: int, /) -> int:
    """Return the distance of the rows of a chain, so that one addition takes SUM_WIDTH entries; 0 for no chains."""
    if width == 1 and rows <= COLUMN:
        return 0
    return min(-(-SUM_WIDTH // max(width, 1)), rows // CHAIN)


def joined_rows(rows: int, width: int, /) -> int:
    """Return how many rows to join before a vector is added to each: a divisor of `rows`, at least 1."""
    if rows <= MANY_ROWS or not 0 < width <= JOINED // 2:
        return 1
    joined = JOINED // width
    while rows % joined:
        joined -= 1
    return joined


def loss_rows(shape: tuple[int, ...], of_weights: tuple[int, ...], /) -> int:
    """Return how many indices of the first axis of a batch (..., k) make a block of a loss of z w + b."""
    inner, outputs = prod(shape[1:-1]), prod(of_weights[1:])
    entries = shape[-1] + LOSS_ARRAYS * outputs
    if outputs == 1 and shape[0] * inner * entries <= LOSS_LEAST:
        return shape[0]
    size = LOSS_VECTOR if outputs == 1 else LOSS_SIZE
    rows = max(size // entries // CHAIN * CHAIN, LOSS_ROWS)
    return max(rows // max(inner, 1), 1)
