"""How `pullback.dask` divides a batch into blocks, and what memory they take."""

import math
from collections.abc import Sequence
from itertools import accumulate as running
from typing import Any, NamedTuple

import dask.array as da
from dask.highlevelgraph import HighLevelGraph

from pullback._core import trees
from pullback._core.memory import is_gpu_memory
from pullback._core.typing import DaskArray, Sizes, Step
from pullback.dask._compat import GraphNode, empty_block, source_of
from pullback.dask._inputs import Result, is_narrow
from pullback.dask._reads import Graph, Key, divide
from pullback.dask._task import Place, Run

# Starting a task takes 0.3 ms, and as long again from the other threads, which wait for Python meanwhile.
TASK_BYTES = 8 * 2**20
# A task whose memory does not grow with its rows is larger by up to this factor, where this number of tasks remains.
TASK_GROWTH = 4
_LEAST_TASKS = 128
# A strip should stay in a cache, but must outweigh the sums that are accumulated after each and the Python code of a
# recorded step, which takes 0.4 ms beside another thread; and a step's own float32 sums are accurate for this number of
# rows.
STRIP_BYTES = 4 * 2**20
# Arrays up to this size should use the memory of earlier ones: strips, and what a step makes of them. New pages for
# each strip take up to half of the time of a step again.
REUSED_BYTES = 2 * STRIP_BYTES
_STRIP_ROWS = 1024, 16_384
# A GPU has no such cache: what starts its work takes so long that a strip should be a block, as far as memory allows.
_GPU_STRIP_BYTES = 256 * 2**20
# Partial sums up to this size are accumulated by a tree, FAN_IN at a time. Larger ones run along lanes that fit here.
_TREE_BYTES = 4 * 2**20
FAN_IN = 8
_LANES_BYTES = 512 * 2**20
_LANES = 2, 16
# Smaller chunks are joined to strips of this size: a call of a step takes as long as a copy of so much.
_LEAST_BYTES = 256 * 2**10
# What a step allocates on the way, in arrays of the size of its strip.
_STEP_ARRAYS = 3


class Plan(NamedTuple):
    """A step laid out on the blocks of a batch: all that its graph is made of."""

    run: Run
    nodes: Graph
    """The tasks that blocks share."""
    shared: list[Key]
    """The keys of the shared arrays that are lazy."""
    blocks: list[list[GraphNode | Key]]
    """For each block, the task of each array, or its key."""
    within: list[list[GraphNode]]
    """For each block, what it is made by where its arrays have that in common: a mask of rows, for one."""
    places: list[Place]
    """For each block, where it lies in the batch."""
    row_bytes: int
    """The bytes of a row of all arrays of the batch."""
    step_row_bytes: int
    """The bytes of a row in a step: of the batch with its narrow floats widened, and of the outputs of the step."""
    lazy: HighLevelGraph
    """The graphs of shared arrays that are lazy."""

    @property
    def chunks(self) -> Sizes:
        """Return the rows of each block; NaN where they are not known."""
        return tuple(sum(place.sizes) for place in self.places)

    @property
    def sum_bytes(self) -> int:
        """Return the bytes of all sums of a block."""
        return sum(x.sum_bytes for x in self.run.results)

    @property
    def lanes(self) -> int:
        """Return the number of lanes to accumulate along; none where a tree is small enough."""
        if self.sum_bytes <= _TREE_BYTES:
            return 0
        fewest, most = _LANES
        return min(max(fewest, _LANES_BYTES // self.sum_bytes), most)

    def task_bytes(self, rows: int) -> int:
        """Predict the memory that a task takes for a block of this number of rows."""
        kept = sum(x.row_bytes for x in self.run.results)
        # A chunk that is compressed is there twice while it is read.
        strip = _STEP_ARRAYS * min(rows, self.run.strip) * (self.step_row_bytes + kept)
        return rows * (2 * self.row_bytes + kept) + strip + 3 * self.sum_bytes

    def held_bytes(self) -> int:
        """Predict the memory of the sums that wait for others between tasks."""
        levels = max(1, math.ceil(math.log(max(len(self.blocks), 1), FAN_IN)))
        return self.sum_bytes * (self.lanes or FAN_IN * levels)


def make(  # noqa: PLR0913, PLR0917 - what a run is made of
    step: Step,
    batch: Sequence[DaskArray],
    sizes: Sizes,
    shared: tuple[Any, ...],
    results: tuple[Result, ...],
    names: list[str],
    /,
) -> Plan:
    """Divide the batch into blocks, each with the tasks that read it."""
    row_bytes = sum(x.dtype.itemsize * math.prod(x.shape[1:]) for x in batch)
    # A step may say how large a row is of what it makes of these.
    made_bytes = getattr(step, "made_row_bytes", 0)
    several = _together(batch, sizes, row_bytes, results)
    nodes, blocks, within = divide(batch, several)
    leaves = trees.leaves(shared)
    lazy = [x for x in leaves if isinstance(x, da.Array)]
    held = trees.rebuild(shared, lambda x: empty_block(x) if isinstance(x, da.Array) else x)
    where = tuple(i for i, x in enumerate(leaves) if isinstance(x, da.Array))
    low, high = _STRIP_ROWS
    strip = min(max(low, STRIP_BYTES // max(row_bytes, made_bytes, 1)), high)
    if any(is_gpu_memory(empty_block(x)) for x in batch):
        strip = max(low, _GPU_STRIP_BYTES // max(row_bytes, made_bytes, 1))
    least = min(max(1, _LEAST_BYTES // max(row_bytes, 1)), strip)
    narrow = tuple(i for i, x in enumerate(batch) if is_narrow(x))
    starts = list(running(sizes, initial=0))
    return Plan(
        run=Run(step, results, names, len(batch), held, where, strip, least, narrow),
        nodes=nodes,
        shared=[(x.name, *(0 for _ in x.shape)) for x in lazy],
        blocks=blocks,
        within=within,
        places=[Place(i, starts[i], sizes[i : i + several]) for i in range(0, len(sizes), several)],
        row_bytes=row_bytes,
        step_row_bytes=made_bytes + sum(max(x.dtype.itemsize, 4) * math.prod(x.shape[1:]) for x in batch),
        lazy=HighLevelGraph.merge(*(x.dask for x in lazy)),
    )


def _together(batch: Sequence[DaskArray], sizes: Sizes, row_bytes: int, results: Sequence[Result], /) -> int:
    """Return the number of chunks of each array that share a task."""
    if math.isnan(sum(sizes)):
        return 1
    task, chunk = TASK_BYTES, max(max(sizes) * row_bytes, 1)
    holds_rows = any(x.keeps_rows for x in results)
    if not holds_rows and all(getattr(source_of(x), "reads_strips", False) for x in batch):
        task = min(max(task, chunk * len(sizes) // _LEAST_TASKS), TASK_GROWTH * task)
    return max(1, task // chunk)
