"""The memory that `pullback gradient` takes, from shapes, dtypes and codecs alone."""

from math import ceil, prod
from typing import NamedTuple

from pullback._cli.gradient.files import File
from pullback._cli.gradient.heap import HELD_BYTES
from pullback._core.typing import DType
from pullback.dask._plan import REUSED_BYTES, Plan

# The arrays of the size of the outputs that a step holds at a time: at most 8, in `logistic` with a weight an output.
LOSS_ARRAYS = 8
# The vectors of all parameters that SciPy's L-BFGS holds: 10 pairs, and what it makes of them and of the last points.
FIT_VECTORS = 40


class Budget(NamedTuple):
    """The memory of a process, by the rows of a block."""

    plan: Plan
    """A plan of any number of blocks: what it holds for strips and sums is the same."""
    batch: tuple[File, ...]
    """The arrays that are divided into blocks."""
    shared: tuple[File, ...]
    """The arrays that every block gets whole."""
    z: File
    stores_rows: bool
    """Whether dz is written."""
    output_row_bytes: int
    """The bytes of the outputs for a row where the step computes these and their loss, else 0."""
    dtype: DType
    """The dtype that a step computes in."""
    threads: int
    """The threads of a process."""
    parameters: int
    """The numbers that are fitted."""

    def task(self, rows: int, /) -> int:
        """Predict the memory of a task for a block with this number of rows."""
        strip = min(rows, self.plan.run.strip)
        held = sum(file.held_bytes(rows, strip) for file in self.batch)
        decoded = max(self.batch, key=lambda file: file.reading_bytes(rows))
        reading = decoded.reading_bytes(rows)
        dz = rows * self.z.row_bytes if self.stores_rows else 0
        outputs = strip * LOSS_ARRAYS * self.output_row_bytes
        # Small arrays come from the heap of a thread, which may still hold their memory in the other half of the task.
        made = outputs if strip * self.output_row_bytes < REUSED_BYTES else 0
        read = reading if decoded.decoded_bytes < REUSED_BYTES else 0
        step = strip * sum(map(self._cast_bytes, self.batch)) + outputs - made + 3 * self.plan.sum_bytes
        if self.stores_rows and strip < rows:
            step += strip * (self._cast_bytes(self.z) or self.z.row_bytes)
        # Compressed, a chunk of dz may be as large as before.
        return HELD_BYTES + made + read + held + max(reading - read, dz + max(step, dz))

    def process(self, rows: int, /) -> int:
        """Predict the memory of a process whose threads work on blocks of this number of rows."""
        blocks = max(ceil(sum(self.plan.chunks) / rows), 1)
        # Fewer blocks than places for sums take fewer of them.
        held = min(self.plan._replace(blocks=[[]] * blocks).held_bytes(), blocks * self.plan.sum_bytes)
        shared = sum(file.nbytes + prod(file.shape[:1]) * self._cast_bytes(file) for file in self.shared)
        return min(self.threads, blocks) * self.task(rows) + held + shared + 8 * FIT_VECTORS * self.parameters

    def _cast_bytes(self, file: File, /) -> int:
        """Return the bytes of a row once it is cast to the dtype that a step computes in; 0 where it is not."""
        return 0 if file.dtype == self.dtype else prod(file.shape[1:]) * self.dtype.itemsize
