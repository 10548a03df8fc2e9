"""Gradients of batches larger than memory, on Dask arrays: one task a block of rows, then sums in a fixed order.

The pairs run on Dask arrays as they are, lazily; their graphs hold a task for each operation, though, and read a block
once for each. Here a whole step is one task, reading included.
"""

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import isnan, nan, prod
from typing import Any, TypeVar, cast

from pullback._core.extras import not_installed

try:
    import dask.array as da
    import threadpoolctl as _  # noqa: F401 - what runs need, said here in one line
    from dask.base import tokenize
except ModuleNotFoundError as error:
    msg = f"pullback.dask: {not_installed(error.name, 'dask')}"
    raise ModuleNotFoundError(msg, name=error.name) from error

from pullback._core import tracing, trees
from pullback._core.typing import Computed, DaskArray, Sizes, ZarrArray
from pullback.dask import _cluster, _derivative, _graph, _plan, _threads, _zarr
from pullback.dask._inputs import learn, names_of, own, widen
from pullback.dask._progress import bar

__all__ = ["accumulate", "compute"]

Results = TypeVar("Results")


def accumulate(
    step: Callable[..., Results],
    *batch: DaskArray,
    shared: Sequence[Any] = (),
    rows: Iterable[str | int] = (),
) -> Results:
    """Run a step on each block of rows of a batch, lazily, and sum what it returns.

    Parameters
    ----------
    step : callable
        ``step(*blocks, *shared)`` takes some rows of each array of the batch, as ordinary arrays, and returns an array
        or nested tuples, lists, dicts, NamedTuples and dataclasses of arrays: a pair's backward, a whole loss, or
        ``value_and_grad(loss, argnums=2)``. Each array must be a sum over the rows, or have the rows as its first axis;
        None stays None.
    *batch : dask.array.Array, shape (m, ...)
        The batch, with the same rows in each array.
    shared : tuple or list, optional
        Further arguments of `step`, which every block gets whole: arrays such as weights, lazy or not, nested
        containers of them, and anything else.
    rows : iterable of str or int, optional
        The results that have the rows as their first axis: by field name or key, by index, or by these joined with
        dots where containers are nested, as ``"0.1"``. The name of a container names all arrays in it.

    Returns
    -------
    results
        The results of `step`, in the same containers, as Dask arrays: sums over the batch in the dtype that the step
        gives them (integers in 64 bits), and rows in the order of the batch.

    Raises
    ------
    TypeError
        If an array of the batch is not a Dask array, `shared` is no tuple or list, the step returns something else
        than arrays, or it holds an array that is differentiated.
    ValueError
        If the arrays of the batch do not have the same rows, the step fails on zero rows, `rows` does not fit what it
        returns, or a result that should be a sum is not 0 on zero rows, as a mean is not. In `compute`, if a chunk has
        another number of rows than in another array of the batch, or than Dask expects.

    See Also
    --------
    compute : Compute the results in one pass, and write rows to Zarr.
    pullback.value_and_grad : Makes a step of a loss that is a sum over the rows; takes a loss that couples them.
    pullback.affine_backward : A step.

    Notes
    -----
    **Tasks.** Each block is one task, reading included, and eight blocks share one task that adds their sums. Chunks
    smaller than 8 MiB go several to a task. Rows that are returned, and not only stored by `compute`, take two more
    tasks a block. Inside a task the step runs on strips of about 4 MiB, of 1,024 to 16,384 rows, so that what it
    allocates stays small; smaller chunks are strips as they are, and only those below 256 KiB are joined. The step is
    first called on zero rows, to learn the shapes and dtypes of its results. Results that need the same batch belong
    into one step: two calls read the batch twice.

    **Chunks.** Arrays whose rows are divided differently follow the largest of them: each of their chunks is cut and
    joined, by a task of its own. Features that are split over chunks are joined the same way, which keeps all pieces of
    some rows in memory at once. Where the number of rows is not known, the arrays must have the same number of chunks,
    and a chunk is a task. Each task checks that its chunks have the same rows in all arrays, as many as Dask expects.

    **Sums.** Sums over the blocks are accumulated in the widest real dtype of the device, in an order that the graph
    fixes: with one BLAS thread to a task, as in `compute`, the same BLAS gives the same bits on threads, processes and
    clusters of any size. Blocks and shared arrays of floats below 32 bits are widened to float32 for the step, and its
    results are narrow again: a sum overflows only where its value does. Sums of up to 4 MiB are added by a tree that
    holds at most eight for each of its levels and one for each thread. Larger ones run along lanes: as many as fit in
    512 MiB, but at least 2 and at most 16, of which each holds one sum, and each running task another. No more tasks
    than lanes run at the same time then.

    **Shared arrays.** An array of at most 64 MiB is copied, so that changing it in place between `accumulate` and
    `compute`, as an optimizer does, does not change the results. A larger array is not: give ``w.copy()`` if it will
    change. The arrays of the batch and those that the step holds itself are never copied.

    **Derivatives.** Inside a function that is differentiated, the call is one operation. Its pull is a second pass that
    runs the step on each block again and pulls the cotangents of its sums back. A loss that couples all rows has its
    exact gradient in two reads of each block, and in the memory of a few blocks. `jvp` takes one pass, which computes
    values and tangents, and `hvp` four; ``jvp(grad(f), (p,), (t,))`` takes two. A gradient has its primal's library.
    With lazy parameters all results are lazy. With parameters of NumPy, PyTorch or JAX, **sums are computed at once,
    one pass for each call**, and so is the gradient: the rest of the function is eager, where a lazy sum could not be
    used. Results that keep rows stay lazy, and their cotangents have their chunks; each pass that reads such rows
    computes them again. Arrays that are differentiated belong into `shared`: a step that holds one itself raises. So
    does ``jax.jit`` around it.

    **Errors.** An exception in a step carries a note with the rows on which it was raised.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from pullback import affine_backward
    >>> from pullback.dask import accumulate, compute
    >>> z = da.ones((1_000_000, 3), chunks=(100_000, 3))
    >>> upstream = da.full((1_000_000, 2), 0.5, chunks=(100_000, 2))
    >>> dz, dw, db = accumulate(affine_backward, upstream, z, shared=(np.ones((3, 2)),), rows=("dz",))
    >>> dz
    dask.array<accumulated-dz, shape=(1000000, 3), dtype=float64, chunksize=(200000, 3), chunktype=numpy.ndarray>
    >>> compute(dw, db)
    (array([[500000., 500000.],
           [500000., 500000.],
           [500000., 500000.]]), array([500000., 500000.]))

    A loss that is no sum over the rows, the logarithm of one, and its gradient in two passes:

    >>> from pullback import value_and_grad
    >>> def scores(z, w):
    ...     return np.sum(np.exp(z @ w))
    >>> value, gradient = value_and_grad(lambda w: np.log(accumulate(scores, z, shared=(w,))))(np.zeros(3))
    >>> float(value.round(6)), gradient.round(6)
    (13.815511, array([1., 1., 1.]))
    """
    if not isinstance(shared, tuple | list):
        msg = (
            "accumulate: shared must be a tuple of the arguments that step takes after the blocks; got "
            f"{type(shared).__name__}. Write shared=(x,) for one argument x"
        )
        raise TypeError(msg)
    if any(map(tracing.is_traced, (*batch, *trees.leaves(tuple(shared))))):
        run = _derivative.Runner(accumulate, compute)
        return cast("Results", _derivative.record(run, step, batch, tuple(shared), rows))
    if not batch:
        msg = "accumulate: there must be a batch; got no array"
        raise ValueError(msg)
    for i, x in enumerate(batch):
        if not isinstance(x, da.Array) or x.ndim == 0:
            msg = (
                f"accumulate: each array of the batch must be a Dask array with an axis of rows; got "
                f"{type(x).__name__} for array {i}. {_way_to_dask(batch)}"
            )
            raise TypeError(msg)
    aligned, sizes = _align(batch)
    whole = trees.rebuild(tuple(shared), own)
    out, results = learn(step, aligned, whole, rows)
    with _no_collection():
        plan = _plan.make(step, aligned, sizes, trees.rebuild(whole, widen), results, names_of(out))
        token = tokenize(step, [x.name for x in aligned], plan.run.shared, plan.shared, results)
        arrays, _ = _graph.lay(token, plan)
    return cast("Results", trees.fill(out, arrays))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector away while a graph grows: there is none, and looking for it takes half the time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def compute(
    *results: DaskArray,
    store: Iterable[tuple[DaskArray, str | os.PathLike[str] | ZarrArray]] = (),
    progress: bool = False,
) -> tuple[Computed, ...]:
    """Compute the results of `accumulate`, and arrays made of them, in one pass over the batch.

    As ``dask.compute`` does, with one BLAS thread to a task while it runs, and with rows written where they are made.

    Parameters
    ----------
    *results : dask.array.Array or None
        The arrays to return.
    store : collection of (dask.array.Array, target), optional
        The arrays to write, each with its own target: the path of a new Zarr array, which appears there when all of it
        is written, or an open Zarr array of the same shape and dtype, which is overwritten.
    progress : bool, default False
        Whether to show a bar on standard error, with the rows done in a second and the time left.

    Returns
    -------
    tuple
        The results as ordinary arrays, in their order; None for None.

    Raises
    ------
    TypeError
        If a result is not a Dask array, `store` holds something else than pairs, a target is neither a path nor a Zarr
        array, or the client is asynchronous.
    ValueError
        Before anything runs: if a target does not fit the array that it is to store, is named twice, or cannot be
        written by all processes that compute, as an array in memory; if the number of rows to store is not known; if a
        block does not fit the memory of a cluster's worker, with the number of rows that would; or if a worker cannot
        load the step, as one of a module that it does not have. Later, if a chunk does not have the rows that Dask
        expects.
    FileExistsError
        If there is something at a target's path.
    ConnectionError
        If the cluster's scheduler is gone.
    OSError
        If chunks that a cluster's workers wrote are not there afterwards.

    See Also
    --------
    accumulate : Makes the results.

    Notes
    -----
    It runs where ``dask.compute`` would: on threads, or on the cluster of the ``distributed.Client`` that is there.

    No chunk of a target is ever written by two tasks. Rows of `accumulate` are written by the tasks that make them
    where no chunk of the target lies in two blocks, as in a target that is made of a path; else, and if they are also
    asked for or are computed further, by tasks of their own, for which blocks are cut and joined.

    A cluster may lose workers and get others during a run: the results are the same. If it has none, the run waits for
    one, and says so in the log. After an interruption, running tasks have 2 seconds to end. The memory check counts
    80 % of a worker's limit, less 160 MiB for its libraries, whatever it holds at the time.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import dask.array as da
    >>> import numpy as np
    >>> import zarr
    >>> from pullback import affine_backward
    >>> from pullback.dask import accumulate, compute
    >>> z, upstream = da.ones((1_000, 3), chunks=(100, 3)), da.ones((1_000, 2), chunks=(100, 2))
    >>> dz, dw, db = accumulate(affine_backward, upstream, z, shared=(np.ones((3, 2)),), rows=("dz",))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "dz.zarr"
    ...     dw, db = compute(dw, db, store=[(dz, path)])
    ...     zarr.open_array(path, mode="r")[:2]
    array([[2., 2., 2.],
           [2., 2., 2.]])
    """
    results, pairs = tuple(map(tracing.plain, results)), _pairs(store)
    for x in (*(x for x in results if x is not None), *(x for x, _ in pairs)):
        if not isinstance(x, da.Array):
            msg = f"compute: results and what is stored must be Dask arrays; got {type(x).__name__}"
            raise TypeError(msg)
    lazy = [x for x in (*results, *(x for x, _ in pairs)) if x is not None]
    get, client = _cluster.scheduler_of(lazy)
    probe = partial(_cluster.ask, client) if client else _threads.probe(get)
    with _cluster.explain_lost_scheduler(client), _zarr.targets(pairs, probe=probe) as targets:
        attached = _zarr.attach(results, targets, in_memory=not (client or probe))
        wanted = [*attached.results, *attached.written]
        blocks = _graph.blocks_of(*wanted)
        with bar(blocks, progress=progress) as show:
            if client:
                computed = _cluster.run(client, wanted, blocks, attached.written, show=show)
            else:
                computed = _threads.run(get, wanted, show=show)
    return tuple(attached.ready.get(i, x) for i, x in enumerate(computed[: len(results)]))


def _pairs(store: Iterable[tuple[Any, Any]], /) -> list[tuple[Any, Any]]:
    """Return the pairs of an array and its target; what is iterated over once is read once."""
    pairs = list(store) if isinstance(store, Iterable) and not isinstance(store, da.Array | str) else [store]
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            msg = f"compute: store must be a list of pairs (array, target); got {type(pair).__name__} in it"
            raise TypeError(msg)
    return [(x, target) for x, target in pairs]


def _way_to_dask(batch: Sequence[Any], /) -> str:
    """Say how an array becomes one of Dask's with the rows of the others."""
    lazy = [x for x in batch if isinstance(x, da.Array) and x.ndim]
    if any(isnan(x.shape[0]) for x in lazy):
        return (
            "Make one before rows are selected, with dask.array.from_array(x, chunks={0: others.chunks[0]}), and "
            "select the same rows of it"
        )
    return "Make one with dask.array.from_array(x, chunks={0: 10_000})"


def _align(batch: Sequence[DaskArray], /) -> tuple[list[DaskArray], Sizes]:
    """Join features that are split over chunks, and give the arrays one division into rows, which comes back too."""
    joined = [x.rechunk(dict.fromkeys(range(1, x.ndim), -1)) if prod(x.numblocks[1:]) > 1 else x for x in batch]
    chunks = [x.chunks[0] for x in joined]
    if len({x.numblocks[0] for x in joined}) == 1:
        # A number of rows that one array does not know another may.
        known = [{size for size in sizes if not isnan(size)} for sizes in zip(*chunks, strict=True)]
        if all(len(sizes) <= 1 for sizes in known):
            return joined, tuple(sizes.pop() if sizes else nan for sizes in known)
    if len({sum(sizes) for sizes in chunks}) > 1 or isnan(sum(chunks[0])):
        got = "; ".join(f"array {i} has {_in_words(sizes)}" for i, sizes in enumerate(chunks))
        msg = (
            "accumulate: the arrays of the batch must have the same rows, and where their number is not known the same "
            f"number of chunks; got: {got}"
        )
        raise ValueError(msg)
    # The less is moved, the better: the largest array stays as it is.
    sizes = max(joined, key=lambda x: x.nbytes).chunks[0]
    return [x.rechunk({0: sizes}, method="tasks") for x in joined], sizes


def _in_words(sizes: Sizes, /) -> str:
    """Return ``10 rows in 3 chunks (4, 4, 2)``."""
    rows = "an unknown number of" if isnan(sum(sizes)) else f"{sum(sizes):,}"
    shown = ", ".join(str(size) for size in sizes[:5]) + ", …" * (len(sizes) > 5)
    return f"{rows} rows in {len(sizes):,} chunks ({shown})"
