"""The options that `pullback gradient` and `pullback fit` share."""

import typer

Z = typer.Option(metavar="Z", readable=False, help="The inputs of the affine map, shape (m, ..., k).")
WEIGHTS = typer.Option(metavar="W", readable=False, help="Its weights, shape (k, n), or (k,) for one output.")
TARGETS = typer.Option(
    metavar="Y",
    readable=False,
    help="The targets of the loss, shape (m, ..., n); integers of shape (m, ...) are the class indices of "
    "softmax_cross_entropy.",
)
LOSS = typer.Option(
    metavar="NAME",
    help="squared_error, logistic, softmax_cross_entropy, poisson or huber, as the functions of these names compute "
    "them.",
)
BIAS = typer.Option(
    metavar="B",
    readable=False,
    help="The bias of the affine map, shape (n,), or () for one output.",
    show_default="zero",
)
EXAMPLE_WEIGHTS = typer.Option(
    metavar="S",
    readable=False,
    help="A weight for each example, shape (m, ...), or for each output. Examples of weight 0 are absent.",
    show_default="all 1",
)
REDUCTION = typer.Option(
    metavar="NAME",
    help="mean or sum over the examples. A mean is divided by the sum of their weights.",
    show_default="mean",
)
MEMORY = typer.Option(
    metavar="SIZE",
    help="The memory for blocks, without the 200 MiB of Python and its libraries; on a cluster, in each of its "
    "workers. It decides how many rows a block has.",
)
BLOCK_ROWS = typer.Option(
    metavar="N", min=1, help="The rows of a block, and of a chunk of dz.", show_default="by --memory and chunks"
)
WORKERS = typer.Option(metavar="N", min=1, help="The threads to run on.", show_default="one for each CPU")
SCHEDULER = typer.Option(metavar="ADDRESS", help="The Dask cluster to run on, which must see the same files.")
FILL_MISSING = typer.Option(
    "--fill-missing",
    help="Read Zarr chunks that are not stored as the fill value. Without it they are an error, as half a copied store "
    "has such gaps too.",
)
PLAN = typer.Option("--plan", help="Show what a run would read, write, compute and take; do nothing.")
OVERWRITE = typer.Option("--overwrite", help="Replace an earlier output of this command, once the new one is whole.")
