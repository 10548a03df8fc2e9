"""Batches larger than memory: `pullback.dask` and `pullback gradient` beside a thread pool and a plain loop."""

from collections.abc import Collection, Iterator

from benchmarks.report import Section
from benchmarks.scale import cluster, command, graph, pool, weights


def sections(_peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the tables; quick ones are of a tenth of the rows."""
    scale = 10 if quick else 1
    yield from pool.sections(scale)
    yield graph.section(quick=quick)
    yield command.section(quick=quick)
    yield weights.section()
    yield cluster.section(scale)
