"""How time grows with m, k and n: exponents, fitted to the upper sizes."""

from collections.abc import Collection, Iterator

import numpy as np

from benchmarks.peers import OURS, inputs, load, makers
from benchmarks.report import Row, Section, duration
from benchmarks.timing import Times, interleave

# For each letter the sizes it runs through, and what the other two are meanwhile.
SWEEPS: dict[str, tuple[tuple[int, ...], dict[str, int]]] = {
    "m": (tuple(4**i for i in range(2, 11)), {"k": 64, "n": 64}),
    "k": (tuple(2**i for i in range(2, 13)), {"m": 4096, "n": 256}),
    "n": (tuple(2**i for i in range(2, 13)), {"m": 4096, "k": 256}),
}
# A line through so many of the largest sizes: below, the cost of a call shows.
_FITTED = 4
# All the work there is grows with the first power of each.
MOST = 1.1


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield a table for each of m, k and n."""
    names = list(makers(peers))
    for letter, (sizes, others) in SWEEPS.items():
        fixed = ", ".join(f"{name} = {size:,}" for name, size in others.items())
        yield Section(
            name=f"growth {letter}",
            title=f"Growth with {letter} where {fixed}, float32: time of forward and backward, and the exponent of "
            f"{letter} by least squares over the {_FITTED} largest",
            columns=(letter, *names, "bound"),
            rows=_rows(peers, letter, sizes, others, quick=quick),
            length=len(sizes) + 1,
        )


def _rows(
    peers: Collection[str], letter: str, sizes: tuple[int, ...], others: dict[str, int], *, quick: bool
) -> Iterator[Row]:
    """Measure each size, and fit."""
    measured: list[Times] = []
    for size in sizes:
        m, k, n = ((others | {letter: size})[name] for name in "mkn")
        calls = {name: call.both for name, call in load(peers, *inputs((m,), k, n)).items()}
        times = interleave(calls, quick=quick)
        measured.append(times)
        yield Row((f"{size:,}", *(duration(times.median(name)) for name in times), "none"), holds=True)
    exponents = {
        name: float(np.polyfit(*np.log([sizes[-_FITTED:], [x.median(name) for x in measured[-_FITTED:]]]), deg=1)[0])
        for name in measured[0]
    }
    cells = ("exponent", *(f"{exponent:.2f}" for exponent in exponents.values()), f"≤ {MOST}")
    yield Row(cells, holds=exponents[OURS] <= MOST)
