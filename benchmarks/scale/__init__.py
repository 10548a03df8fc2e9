"""What batches larger than memory cost beside their arithmetic: graphs, memory, and what moves on a cluster."""

from collections.abc import Collection, Iterator

from benchmarks.report import Section
from benchmarks.scale import cluster, command, graph, losses, weights


def sections(_peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the tables; quick ones are of fewer rows or blocks."""
    yield graph.section(quick=quick)
    yield command.section(quick=quick)
    yield weights.section()
    yield losses.section(quick=quick)
    yield cluster.section(quick=quick)
