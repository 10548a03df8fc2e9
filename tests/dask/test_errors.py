"""What `accumulate` refuses, each with the words that say what to change."""

from collections.abc import Callable
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pytest

from pullback import affine_backward, softmax_cross_entropy
from pullback.dask import _plan
from tests.harness.batches import accumulate, compute


def ones(rows: int = 10, chunks: Any = 5) -> Any:
    return da.ones((rows, 3), chunks=(chunks, 3))


def sums(*blocks: Any) -> tuple[Any, ...]:
    return tuple(x.sum(axis=0) for x in blocks)


def test_no_batch() -> None:
    with pytest.raises(ValueError, match=r"^accumulate: there must be a batch; got no array$"):
        accumulate(sums)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [(np.ones((10, 3)), "ndarray"), (da.ones(()), "Array"), ([1.0], "list")],
    ids=["numpy", "0-d", "list"],
)
def test_not_a_batch(bad: Any, kind: str) -> None:
    message = rf"^accumulate: each array .* must be a Dask array with .* rows; got {kind} for array 1\. Make one"
    with pytest.raises(TypeError, match=message):
        accumulate(sums, ones(), bad)


def unknown(x: Any) -> Any:
    return x[x[:, 0] > 0]


ROWS = {
    "rows": (
        (ones(), ones(11)),
        r"array 0 has 10 rows in 2 chunks \(5, 5\); array 1 has 11 rows in 3 chunks \(5, 5, 1\)$",
    ),
    "many chunks": (
        (ones(7, 1), ones(1000)),
        r"array 0 has 7 rows in 7 chunks \(1, 1, 1, 1, 1, …\); .* 1 has 1,000 rows in 200 chunks \(5, 5, 5, 5, 5, …\)$",
    ),
    "unknown": (
        (unknown(ones()), unknown(ones(10, 2))),
        r"array 0 has an unknown number of rows in 2 chunks \(nan, nan\); array 1 has an unknown .* in 5 chunks \(nan,",
    ),
    "one unknown": (
        (ones(), unknown(ones(10, 2))),
        r"array 0 has 10 rows in 2 chunks \(5, 5\); array 1 has an unknown number of rows in 5 chunks \(nan, nan,",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_differ(case: str) -> None:
    batch, message = ROWS[case]
    rule = r"^accumulate: the arrays of the batch must have the same rows, and where .* number of chunks; got: "
    with pytest.raises(ValueError, match=rule + message):
        accumulate(sums, *batch)


def test_unknown_features() -> None:
    x = ones()
    with pytest.raises(ValueError, match=r"every size but the number of rows must be known; got .*\(10, nan\)$"):
        accumulate(sums, x[:, x[0] > 0])
    with pytest.raises(ValueError, match=r"every size but the number of rows must be known; got .*\(nan, 3\)$"):
        accumulate(lambda x, _: sums(x), x, shared=(unknown(ones(5)),))


class Two(NamedTuple):
    kept: Any
    added: Any


def two(x: Any) -> Two:
    return Two(x, x.sum(axis=0))


STEPS: dict[str, tuple[Callable[..., Any], Any, type[Exception], str]] = {
    "no zero rows": (
        lambda x: (x[0],),
        (),
        ValueError,
        r"step must take zero rows, from which .* are learnt; it raised IndexError: index 0 is out of bounds",
    ),
    "nothing": (lambda _: None, (), TypeError, r"return arrays, or nested containers of arrays; got None$"),
    "a number": (lambda _: 1.0, (), TypeError, r"step must return arrays; got float for result$"),
    "a float within": (lambda x: {"a": [x.sum(), 1.0]}, (), TypeError, r"return arrays; got float for a\.1$"),
    "a mean in a dict": (
        lambda x: {"loss": x.mean()},
        (),
        ValueError,
        r"^accumulate: loss is a sum over the rows, .*got",
    ),
    "rows forgotten within": (
        lambda x: (x.sum(), {"a": x}),
        (),
        ValueError,
        r"1\.a has shape \(0, 3\) on zero rows, and so keeps the rows of the batch: name it in rows=\('1\.a',\)$",
    ),
    "no such path": (lambda x: {"a": [x]}, ("a.1",), ValueError, r"rows must be .*, \['a\.0'\]; got \('a\.1',\)$"),
    "a float": (lambda x: (x.sum(axis=0), 1.0), (), TypeError, r"step must return arrays; got float for 1$"),
    "a float of a name": (lambda x: Two(x, 1), (), TypeError, r"step must return arrays; got int for added$"),
    "a mean": (
        lambda x: (x.mean(axis=0),),
        (),
        ValueError,
        r"^accumulate: 0 is a sum .* 0 on zero rows; got nan\. A",
    ),
    "not zero": (
        lambda x: (x.sum(axis=0) + 2,),
        (),
        ValueError,
        r"0 is a sum .*; got 2\.0\. A mean is not",
    ),
    "a mean loss": (
        lambda x: softmax_cross_entropy(x, x),
        ("da",),
        ValueError,
        r"^accumulate: value is a sum over the rows, and must be 0 on zero rows; got nan",
    ),
    "unknown name": (
        two,
        ("keeps",),
        ValueError,
        r"rows must be a tuple of names or indices of what step returns, \['kept', 'added'\]; got \('keeps',\)$",
    ),
    "unknown index": (two, (2,), ValueError, r"rows must be a tuple of .*, \['kept', 'added'\]; got \(2,\)$"),
    "one string": (two, "kept", ValueError, r"rows must be a tuple of .*; got 'kept'$"),
    "a sum in rows": (
        two,
        ("kept", "added"),
        ValueError,
        r"^accumulate: added has shape \(3,\) on zero rows, and so does not keep rows$",
    ),
    "a scalar in rows": (
        lambda x: (x.sum(),),
        (0,),
        ValueError,
        r"0 has shape \(\) on zero rows, and so does not keep",
    ),
    "rows forgotten": (
        two,
        (),
        ValueError,
        r"kept has shape \(0, 3\) on zero rows, and so keeps the rows of the batch: name it in rows=\('kept',\)$",
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_steps(case: str) -> None:
    step, rows, kind, message = STEPS[case]
    with pytest.raises(kind, match=message):
        accumulate(step, ones(), rows=rows)


def only(condition: Callable[[Any], bool], there: Any, else_: Any) -> Callable[[Any], Any]:
    """Return a step that returns one thing on the rows of a condition, and another on others, among them none."""
    return lambda x: there(x) if len(x) and condition(x) else else_(x)


SAME = r"step must return arrays in the same places, and None in the same places, for any number of rows; "
LATER: dict[str, tuple[Any, Any, Any, str]] = {
    "shape": (
        lambda x: (x.sum(),),
        sums,
        (),
        r"must return 0 of shape \(3,\) and dtype float64, after .* zero rows; got \(\) and float64$",
    ),
    "dtype": (
        lambda x: sums(x.astype("float32")),
        sums,
        (),
        r"step must return 0 of shape \(3,\) and dtype float64, .*; got \(3,\) and float32$",
    ),
    "rows": (
        lambda x: Two(x[1:], x.sum(axis=0)),
        two,
        ("kept",),
        r"step must return kept of shape \(5, 3\) and dtype float64, .*; got \(4, 3\) and float64$",
    ),
    "None": (lambda _: (None,), sums, (), SAME + r"got \[\], and \['0'\] on zero rows$"),
    "an array for None": (sums, lambda _: (None,), (), SAME + r"got \['0', '1'\], and \['1'\] on zero rows$"),
    "results": (lambda x: (*sums(x), *sums(x)), sums, (), SAME + r"got \['0', '1'\], and \['0'\] on zero rows$"),
    "containers": (lambda x: ([x.sum(axis=0)],), sums, (), SAME + r"got \['0\.0'\], and \['0'\] on zero rows$"),
}


@pytest.mark.parametrize("case", LATER)
def test_what_changes_between_blocks(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    there, else_, rows, message = LATER[case]
    z = da.from_array(np.repeat([[0.0] * 3, [1.0] * 3], 5, axis=0), chunks=(5, 3))
    results = accumulate(only(lambda x: x[0, 0] == 1, there, else_), z, rows=rows)
    # An entry that is None on zero rows has no lazy array; that of the other case has.
    lazy = (
        results
        if results[0] is not None
        else accumulate(lambda x: (*only(lambda x: x[0, 0] == 1, there, else_)(x), x.sum(axis=0)), z)
    )
    with pytest.raises(ValueError, match=f"(?m){message}") as info:
        compute(*lazy)
    assert info.value.__notes__ == ["accumulate: while the step ran on rows [5:10]"]


class OddError(LookupError):
    pass


def fail(x: Any) -> tuple[Any, ...]:
    if len(x) and x[0, 0] == 7:
        raise OddError(7)
    return sums(x)


@pytest.mark.parametrize("known", [True, False])
def test_note(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:  # noqa: FBT001 - a case
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    z = da.from_array(np.arange(10.0)[:, None], chunks=(7, 1))
    z = z if known else z[z[:, 0] >= 0]
    with pytest.raises(OddError) as info:
        compute(*accumulate(fail, z))
    where = "rows [7:10]" if known else "chunk 1"
    assert info.value.__notes__ == [f"accumulate: while the step ran on {where}"]


def test_rules_of_the_step() -> None:
    """What the step refuses of the shapes, it refuses at once."""
    with pytest.raises(ValueError, match=r"it raised ValueError: affine_backward: da must have the shape"):
        accumulate(affine_backward, ones(), ones(), shared=(np.ones((3, 2)),))


@pytest.mark.parametrize("shared", [np.ones((10, 3)), {"w": np.ones(3)}], ids=["array", "dict"])
def test_shared_is_a_tuple(shared: Any) -> None:
    """An array would be taken apart into its rows, and a dict into its keys."""
    kind = type(shared).__name__
    message = rf"shared must be a tuple of the arguments that .*; got {kind}\. Write shared=\(x,\) for one argument x$"
    with pytest.raises(TypeError, match=message):
        accumulate(lambda x, *_: sums(x), ones(), shared=shared)
    accumulate(lambda x, _: sums(x), ones(), shared=(shared,))  # the way out


def test_structure_on_wide_blocks() -> None:
    """A step must return the same structure for float16 and for float32, in which it runs."""
    x = da.ones((4, 2), chunks=2, dtype="float16")
    with pytest.raises(ValueError, match=SAME + r"got \['0', '1'\], and \['0'\] on zero rows$"):
        accumulate(lambda x: sums(*[x] * (1 if x.dtype == "float16" else 2)), x)
