"""The records of the linear pairs, each with its map in NumPy and a table of named shapes."""

from typing import Any

import numpy as np

from pullback._ops import affine, forms, matmul
from tests.harness.pair_laws import Arrays, ReferencedPair

Shape = tuple[int, ...]


def _affine(z: Any, w: Any, b: Any) -> Any:
    return z @ w + b


def _affine_batch(arrays: Arrays) -> set[str]:
    return {"z", "da"} if arrays["z"].ndim > 1 else set()


def _matmul_batch(arrays: Arrays) -> set[str]:
    # The factors that have the first axis of the product as it is; a vector and a plain right factor have none.
    x1, x2 = arrays["x1"], arrays["x2"]
    axes = max(x1.ndim, x2.ndim, 2)
    own = {x for x, least in (("x1", 2), ("x2", 3)) if arrays[x].ndim == axes >= least}
    if axes > 2 and any(arrays[x].shape[0] == 1 for x in own):
        return set()
    return {*own, "da"} if own else set()


AFFINE = ReferencedPair(**vars(affine.AFFINE), reference=_affine, batch=_affine_batch)
MATMUL = ReferencedPair(**vars(matmul.MATMUL), reference=np.matmul, batch=_matmul_batch)


def affine_shapes(*z: int, n: int) -> dict[str, Shape]:
    """Name the shapes of z, w and b."""
    return {"z": z, "w": (z[-1], n), "b": (n,)}


AFFINE_SHAPES = {
    "2-d": affine_shapes(7, 3, n=4),
    "3-d": affine_shapes(4, 2, 3, n=5),
    "1-d": affine_shapes(3, n=4),
    "4-d": affine_shapes(3, 2, 2, 3, n=2),
    "one row": affine_shapes(1, 3, n=4),
    "no rows": affine_shapes(0, 3, n=4),
    "no rows, 3-d": affine_shapes(4, 0, 3, n=2),
    "k = 1": affine_shapes(5, 1, n=4),
    "n = 1": affine_shapes(5, 3, n=1),
    "k = 0": affine_shapes(5, 0, n=4),
    "k = 0, 3-d": affine_shapes(5, 2, 0, n=4),
    "n = 0": affine_shapes(5, 3, n=0),
    "nothing": affine_shapes(0, 0, n=0),
}

# A single output: what the same functions make of a vector of weights.
VECTOR_SHAPES: dict[str, dict[str, Shape]] = {
    "vector": {"z": (7, 3), "w": (3,), "b": ()},
    "vector, 3-d": {"z": (4, 2, 3), "w": (3,), "b": ()},
    "vector, 1-d": {"z": (3,), "w": (3,), "b": ()},
    "vector, no rows": {"z": (0, 3), "w": (3,), "b": ()},
    "vector, k = 0": {"z": (5, 0), "w": (0,), "b": ()},
}


def matmul_shapes(x1: Shape, x2: Shape) -> dict[str, Shape]:
    """Name the shapes of the two factors."""
    return {"x1": x1, "x2": x2}


MATMUL_SHAPES = {
    "2-d 2-d": matmul_shapes((4, 3), (3, 5)),
    "3-d 3-d": matmul_shapes((4, 2, 3), (4, 3, 5)),
    "1-d 1-d": matmul_shapes((3,), (3,)),
    "1-d 2-d": matmul_shapes((3,), (3, 4)),
    "2-d 1-d": matmul_shapes((4, 3), (3,)),
    "1-d 3-d": matmul_shapes((3,), (5, 3, 4)),
    "3-d 1-d": matmul_shapes((5, 4, 3), (3,)),
    "1-d 4-d": matmul_shapes((3,), (2, 3, 3, 4)),
    "4-d 1-d": matmul_shapes((2, 3, 4, 3), (3,)),
    "2-d 3-d": matmul_shapes((2, 3), (5, 3, 4)),
    "3-d 2-d": matmul_shapes((5, 2, 3), (3, 4)),
    "2-d 4-d": matmul_shapes((2, 3), (2, 4, 3, 5)),
    "4-d 2-d": matmul_shapes((2, 4, 2, 3), (3, 5)),
    "3-d 4-d": matmul_shapes((4, 2, 3), (2, 4, 3, 5)),
    "4-d 3-d": matmul_shapes((2, 4, 2, 3), (4, 3, 5)),
    "batches 1 and B": matmul_shapes((1, 2, 3), (5, 3, 4)),
    "batches B and 1": matmul_shapes((5, 2, 3), (1, 3, 4)),
    "batches 1 and 1": matmul_shapes((1, 2, 3), (1, 3, 4)),
    "batches 1 and none": matmul_shapes((1, 2, 3), (3, 4)),
    "batches none and 1": matmul_shapes((2, 3), (1, 3, 4)),
    "batches (B, 1) and C": matmul_shapes((5, 1, 2, 3), (4, 3, 6)),
    "batches (B, 1) and (1, C)": matmul_shapes((5, 1, 2, 3), (1, 4, 3, 2)),
    "batches (1, B) and (C, 1)": matmul_shapes((1, 3, 2, 3), (4, 1, 3, 2)),
    "batches (B, 1, C) and (B, D, 1)": matmul_shapes((2, 1, 3, 2, 3), (2, 4, 1, 3, 2)),
    "batches 0 and 1": matmul_shapes((0, 2, 3), (1, 3, 4)),
    "batches 0 and none": matmul_shapes((0, 2, 3), (3, 4)),
    "one row": matmul_shapes((1, 3), (3, 4)),
    "no rows": matmul_shapes((0, 3), (3, 4)),
    "no columns": matmul_shapes((4, 3), (3, 0)),
    "k = 0": matmul_shapes((4, 0), (0, 3)),
    "k = 0, vectors": matmul_shapes((0,), (0,)),
    "k = 0, 3-d": matmul_shapes((2, 4, 0), (2, 0, 3)),
}


def _frobenius(x: Any, y: Any) -> Any:
    return np.sum(np.conj(x) * y)


def _frobenius_batch(arrays: Arrays) -> set[str]:
    return {"x", "y"} if arrays["x"].ndim > 1 else set()


def _trace(x: Any, w: Any) -> Any:
    return np.trace(x @ w)


def _no_batch(_: Arrays) -> set[str]:
    return set()


FROBENIUS = ReferencedPair(**vars(forms.FROBENIUS_INNER), reference=_frobenius, batch=_frobenius_batch)
TRACE = ReferencedPair(**vars(forms.TRACE_OF_PRODUCT), reference=_trace, batch=_no_batch)

FROBENIUS_SHAPES: dict[str, dict[str, Shape]] = {
    "2-d": {"x": (4, 3), "y": (4, 3)},
    "1-d": {"x": (5,), "y": (5,)},
    "0-d": {"x": (), "y": ()},
    "3-d": {"x": (3, 2, 3), "y": (3, 2, 3)},
    "no rows": {"x": (0, 3), "y": (0, 3)},
}

TRACE_SHAPES: dict[str, dict[str, Shape]] = {
    "wide": {"x": (3, 5), "w": (5, 3)},
    "tall": {"x": (4, 2), "w": (2, 4)},
    "one": {"x": (1, 1), "w": (1, 1)},
    "no rows": {"x": (0, 3), "w": (3, 0)},
    "k = 0": {"x": (3, 0), "w": (0, 3)},
}


def _form(x: Any, A: Any, y: Any) -> Any:  # noqa: N803 - the letter of the form
    return np.sum((x @ A) * y, axis=-1)


class _Quadratic(ReferencedPair):
    """A form that is bilinear, with one vector in both places: it changes by what it does for each place."""

    def linear(self, arrays: Arrays, **changed: Any) -> Any:
        """Return the derivative along a tangent."""
        x, matrix = arrays["x"], arrays["A"]
        if "A" in changed:
            return _form(x, changed["A"], x)
        return _form(changed["x"], matrix, x) + _form(x, matrix, changed["x"])


def _quadratic_batch(arrays: Arrays) -> set[str]:
    return {"x", "da"} if arrays["x"].ndim > 1 else set()


QUADRATIC = _Quadratic(
    **vars(forms.QUADRATIC_FORM), reference=lambda x, matrix: _form(x, matrix, x), batch=_quadratic_batch
)

QUADRATIC_SHAPES: dict[str, dict[str, Shape]] = {
    "2-d": {"x": (5, 3), "A": (3, 3)},
    "1-d": {"x": (3,), "A": (3, 3)},
    "3-d": {"x": (3, 2, 3), "A": (3, 3)},
    "k = 1": {"x": (4, 1), "A": (1, 1)},
    "k = 0": {"x": (4, 0), "A": (0, 0)},
    "no rows": {"x": (0, 3), "A": (3, 3)},
}
