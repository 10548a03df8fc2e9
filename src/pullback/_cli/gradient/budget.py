"""The memory that `pullback gradient` takes, from shapes, dtypes and codecs alone."""

from math import ceil
from typing import NamedTuple

from pullback._cli.gradient.files import File
from pullback._cli.gradient.heap import KEPT_BYTES
from pullback.dask._plan import Plan


class Budget(NamedTuple):
    """The memory of a process, by the rows of a block."""

    plan: Plan
    """A plan of any number of blocks: what it holds for strips and sums is the same."""
    z: File
    upstream: File
    weights: File
    stores_rows: bool
    """Whether dz is written."""
    threads: int
    """The threads of a process."""

    def task(self, rows: int, /) -> int:
        """Predict the memory of a task for a block with this number of rows."""
        strip = min(rows, self.plan.run.strip)
        upstream, z = (file.held_bytes(rows, strip) for file in (self.upstream, self.z))
        dz = rows * self.z.row_bytes if self.stores_rows else 0
        step = strip * (_wide(self.upstream) + _wide(self.z)) + 3 * self.plan.sum_bytes
        if self.stores_rows and strip < rows:
            step += strip * (_wide(self.z) or self.z.row_bytes)
        # Compressed, a chunk of dz may be as large as before.
        written = dz
        reading_upstream = upstream + self.upstream.reading_bytes(rows)
        reading_z = upstream + z + self.z.reading_bytes(rows)
        # The thread and the one that decodes for it hold freed memory each.
        return 2 * KEPT_BYTES + max(reading_upstream, reading_z, upstream + z + dz + max(step, written))

    def process(self, rows: int, /) -> int:
        """Predict the memory of a process whose threads work on blocks of this number of rows."""
        blocks = max(ceil(sum(self.plan.chunks) / rows), 1)
        # Fewer blocks than places for sums take fewer of them.
        held = min(self.plan._replace(blocks=[[]] * blocks).held_bytes(), blocks * self.plan.sum_bytes)
        weights = self.weights.nbytes + _wide(self.weights) * self.weights.shape[0]
        return min(self.threads, blocks) * self.task(rows) + held + weights


def _wide(file: File, /) -> int:
    """Return the bytes of a row once it is widened to float32; 0 where it is not."""
    return 2 * file.row_bytes if file.dtype.itemsize == 2 else 0
