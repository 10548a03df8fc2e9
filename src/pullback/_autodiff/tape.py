"""The tape: the operations of a function on its active arrays, as a list of nodes.

A node is a sequence of edges, one for each active input of an operation. An edge is ``(index, pull, saved)``: the node
of the input, and a function that maps the cotangent of the output to that of the input as
``pull(xp, cotangent, *saved)``. Where one pull returns the cotangents of several inputs, `index` is a tuple. A node of
the function's own arguments has no edges. An operation with several outputs has a node for each: the first is a
`Joint`, whose pulls take a tuple of cotangents, and the others are empty.

A cotangent may have any shape that broadcasts to that of its primal: the pull of a sum returns its argument.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, Self, TypeAlias

Edge: TypeAlias = tuple[int | tuple[int, ...], Callable[..., Any], tuple[Any, ...]]
Node: TypeAlias = tuple[Edge, ...]


class Joint(NamedTuple):
    """The node of an operation with several outputs, whose cotangents are pulled back together."""

    outputs: int
    edges: Node


class LostGradientError(TypeError):
    """An active array left the traced world, so that its gradient would silently be zero."""


class _Closed:
    """The nodes of a tape whose function has returned."""

    def _raise(self, *_: Node) -> NoReturn:
        msg = (
            "an array of a differentiated function was used after that function returned. Return it from the function "
            "instead of storing it elsewhere, for example as auxiliary output with has_aux=True"
        )
        raise LostGradientError(msg)

    append = __len__ = _raise


def raise_two_tapes() -> NoReturn:
    """Raise for an array of another call of a differentiated function than the one that is recorded."""
    msg = (
        "an array of one differentiated function was used in another one, though its function has returned or runs in "
        "another thread, so that its gradient would be lost. Return it, or differentiate in the function's own thread"
    )
    raise LostGradientError(msg)


class _Depth(threading.local):
    """The number of tapes that are open in this thread."""

    value = 0


_depth = _Depth()
_CLOSED = _Closed()


def open_depth() -> int:
    """Return the number of tapes that are open in this thread."""
    return _depth.value


class Tape:
    """Records the operations of one call of a function. As a context manager it is open for recording."""

    __slots__ = ("depth", "floats", "mixed", "nodes", "tangents")

    def __init__(self) -> None:
        self.depth = _depth.value + 1
        self.nodes: Any = []
        # Whether arrays of several libraries are recorded.
        self.mixed = False
        # Python floats that were made of active arrays: (float, node, where), since a function may return one.
        self.floats: list[tuple[float, Any, str]] = []
        # Where the function is recorded along tangents of its arguments, those that are known.
        self.tangents: Any = None

    def __enter__(self) -> Self:
        """Open the tape: arrays of this depth can be recorded."""
        _depth.value = self.depth
        return self

    def __exit__(self, *_: object) -> None:
        """Close the tape; `take` has the nodes by then, or nobody needs them."""
        _depth.value = self.depth - 1
        self.nodes = _CLOSED

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Record as if this tape were not open."""
        depth = _depth.value
        _depth.value = self.depth - 1
        try:
            yield
        finally:
            _depth.value = depth


def pull_back(
    xp: Any,
    nodes: Sequence[Any],
    cotangents: list[Any],
    inputs: int,
    lift: Callable[..., Any] | None,
    space: Callable[..., Any] | None,
) -> None:
    """Pull cotangents back, from the last node to those of the first `inputs`; `cotangents` has one place a node.

    `lift` lifts what the nodes saved to the level of the cotangents, where that is deeper. `space` returns the
    namespace of a cotangent, where that is not `xp` for all of them.
    """
    for k in range(len(nodes) - 1, inputs - 1, -1):
        node = nodes[k]
        if type(node) is Joint:
            g: Any = tuple(cotangents[k : k + node.outputs])
            cotangents[k : k + node.outputs] = [None] * node.outputs
            if all(x is None for x in g):
                continue
            node = node.edges
        else:
            g = cotangents[k]
            if g is None or not node:
                continue
            cotangents[k] = None
        if space is not None:
            xp = space(g)
        for i, pull, saved in node:
            kept = saved if lift is None else tuple(map(lift, saved))
            # A call with a starred argument takes three times as long, and most pulls save one array.
            v = pull(xp, g, kept[0]) if len(kept) == 1 else pull(xp, g, *kept)
            if type(i) is int:
                c = cotangents[i]
                cotangents[i] = v if c is None else c + v
                continue
            for j, part in zip(i, v, strict=True):
                c = cotangents[j]
                cotangents[j] = part if c is None else c if part is None else c + part
