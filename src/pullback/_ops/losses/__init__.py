"""Losses, each with its gradient and its Hessian product."""

from pullback._ops.losses import cross_entropy, huber, logistic, poisson, quantile, squared_error, tweedie

LOSSES = (
    squared_error.SQUARED_ERROR,
    huber.HUBER,
    quantile.ABSOLUTE_ERROR,
    quantile.QUANTILE,
    logistic.LOGISTIC,
    poisson.POISSON,
    tweedie.GAMMA,
    tweedie.TWEEDIE,
    cross_entropy.SOFTMAX_CROSS_ENTROPY,
)
