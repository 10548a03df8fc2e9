"""Single examples of a sparse batch: what one pass over its entries that are not zero gives."""

import math

from array_api_compat import device

from pullback._core.arguments import compatible_size, shapes, validate_arrays
from pullback._core.dtypes import real_like
from pullback._core.operators import Operator, is_operator
from pullback._core.reductions import accumulation_dtype, sum_rows
from pullback._core.typing import Array, ArrayT, Matrix, Namespace
from pullback._ops.per_example.blocking import Output, ParameterGradients, real_part, squared


def read_operator(function: str, da: Array, z: Matrix, /) -> Operator | None:
    """Return a sparse batch, checked against da (m, n) or (m,); None for an array."""
    if not is_operator(z, da):
        return None
    xp, *_ = validate_arrays(function, ("da",), da)
    if da.ndim not in {1, 2} or not compatible_size(da.shape[0], z.shape[0]):
        msg = f"{function}: da must have one row for each row of z, shape (m, n) or (m,); got {shapes(da=da, z=z)}"
        raise ValueError(msg)
    return Operator(function, xp, z)


def row_norms(operator: Operator, da: ArrayT, /, *, bias: bool) -> ArrayT:
    """Return the norms of the rows of a batch, each with the 1 of the bias, as a column (m, 1) of the batch's dtype.

    With this column in place of the batch, and without a bias, the gradient of each example has the same norm.
    """
    xp: Namespace = getattr(operator.xp, "raw", operator.xp)
    squares = operator.squares(da)
    ones = xp.ones((operator.shape[1],), dtype=squares.matrix.dtype, device=device(da))
    norms = xp.sqrt(squares.product(xp, ones) + int(bias))
    column: ArrayT = xp.astype(real_like(xp, norms, operator.matrix.dtype), operator.matrix.dtype, copy=False)[:, None]
    return column


def mean_squares(operator: Operator, da: ArrayT, /, *, mean: bool) -> ParameterGradients[ArrayT]:
    """Return the sum or the mean over the examples of their squared gradients."""
    xp, is_vector = operator.xp, da.ndim == 1
    wide = xp.astype(da, accumulation_dtype(xp, da), copy=False)
    squares = squared(xp, wide[:, None] if is_vector else wide)
    m = (operator.shape[0] or math.nan) if mean else 1
    dw = real_part(xp, operator.squares(da).adjoint(xp).product(xp, squares)) / m
    output = Output(xp, xp.result_type(da.dtype, operator.matrix.dtype), is_vector)
    return output.parameters(dw, sum_rows(xp, squares) / m, real=True)
