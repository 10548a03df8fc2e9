"""Losses and activations agree with PyTorch's and its autograd, and with scikit-learn's losses: 200 random cases each.

Tolerances are twice those of the laws, since the peers round, too: ``2·C·√K·eps`` of what is added up.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn._loss import (
    AbsoluteError,
    HalfBinomialLoss,
    HalfGammaLoss,
    HalfMultinomialLoss,
    HalfPoissonLoss,
    HalfSquaredError,
    HalfTweedieLoss,
    HuberLoss,
    PinballLoss,
)
from torch.nn import functional as F  # noqa: N812 - as PyTorch's users do

import pullback
from pullback._ops import PAIRS
from tests.harness.loss_cases import CASES
from tests.harness.pair_laws import C

# Other tests run these branches; coverage would take half as long again.
pytestmark = pytest.mark.no_cover

COUNT = 200
EPS = 2.0**-52


class Draw(NamedTuple):
    """The arguments of one case, and a bound on what is added up for each output."""

    a: Any
    y: Any
    weights: Any
    reduction: Any
    size: Any


def draws(name: str, n: int | None = None) -> Iterator[Draw]:
    """Yield 200 cases of random sizes, with and without weights; some of those are 0."""
    for seed in range(COUNT):
        rng = np.random.default_rng(seed)
        shape = int(rng.integers(2, 9)), n or int(rng.integers(1, 7))
        a, y, weights, _ = CASES[name].draw(seed, *shape)
        size = np.broadcast_to(CASES[name].size(a, y), shape)
        yield Draw(a, y, weights if seed % 2 else None, ("mean", "sum", "none")[seed % 3], size)


def reduced(losses: Any, weights: Any, reduction: str) -> Any:
    """Reduce a peer's losses over the examples."""
    weighed = losses if weights is None else losses * weights
    if reduction == "mean":
        return weighed.sum() / (len(losses) if weights is None else weights.sum())
    return weighed.sum() if reduction == "sum" else weighed


def near(got: Any, right: Any, size: Any, terms: int) -> None:
    """Require an error of twice what the laws allow for."""
    assert np.all(abs(np.asarray(got) - np.asarray(right)) <= 2 * C * np.sqrt(terms) * EPS * size)


def close(loss: Any, value: Any, da: Any, draw: Draw) -> None:
    """Compare a loss with a peer's; without reduction, `da` is the gradient of the sum."""
    bound = reduced(np.sum(draw.size, axis=-1), draw.weights, draw.reduction)
    near(loss.value, value, bound, draw.a.size)
    near(
        loss.da, da, np.max(draw.size) * (1.0 if draw.weights is None else max(1.0, np.max(draw.weights))), draw.a.size
    )


TORCH: dict[str, Callable[[Any, Any], Any]] = {
    "squared_error": lambda a, y: F.mse_loss(a, y, reduction="none") / 2,
    "huber": lambda a, y: F.huber_loss(a, y, reduction="none"),
    "huber of 0.3": lambda a, y: F.huber_loss(a, y, reduction="none", delta=0.3),
    "absolute_error": lambda a, y: F.l1_loss(a, y, reduction="none"),
    "logistic": lambda a, y: F.binary_cross_entropy_with_logits(a, y, reduction="none"),
    "poisson": lambda a, y: F.poisson_nll_loss(a, y, reduction="none"),
    "softmax_cross_entropy": lambda a, y: F.cross_entropy(a, y, reduction="none")[:, None],
}


@pytest.mark.parametrize("name", TORCH)
def test_torch_losses(name: str) -> None:
    for draw in draws(name):
        a, y = torch.from_numpy(draw.a).requires_grad_(), torch.from_numpy(draw.y)
        weights = None if draw.weights is None else torch.from_numpy(draw.weights)
        right = reduced(TORCH[name](a, y).sum(dim=-1), weights, draw.reduction)
        torch.autograd.backward(right.sum())
        loss = CASES[name].loss(a.detach(), y, weights=weights, reduction=draw.reduction)
        close(loss, right.detach(), a.grad, draw)


@pytest.mark.parametrize("name", [name for name in TORCH if name != "absolute_error"])
def test_torch_hessians(name: str) -> None:
    """The Hessian product is the gradient of ⟨gradient, v⟩, which PyTorch differentiates twice for."""
    for draw in draws(name):
        a, y = torch.from_numpy(draw.a).requires_grad_(), torch.from_numpy(draw.y)
        v = torch.from_numpy(np.random.default_rng(0).standard_normal(draw.a.shape))
        value = reduced(TORCH[name](a, y).sum(dim=-1), None, "mean")
        (gradient,) = torch.autograd.grad(value, a, create_graph=True)
        (right,) = torch.autograd.grad((gradient * v).sum(), a)
        got = CASES[name].product(v, a.detach(), y)
        near(got, right, np.max(draw.size) * float(v.abs().max()), draw.a.size)


def test_torch_class_indices() -> None:
    """Also PyTorch's own means, and class indices of weight 0 as its ignored index."""
    for draw in draws("softmax_cross_entropy"):
        rng = np.random.default_rng(1)
        a, y = (
            torch.from_numpy(draw.a).requires_grad_(),
            torch.from_numpy(rng.integers(draw.a.shape[-1], size=len(draw.a))),
        )
        weights = torch.ones(len(y), dtype=torch.float64)
        weights[-1], y[-1] = 0, -100
        right = F.cross_entropy(a, y, reduction=draw.reduction)
        torch.autograd.backward(right.sum())
        loss = pullback.softmax_cross_entropy(a.detach(), y, weights=weights, reduction=draw.reduction)
        close(loss, right.detach(), a.grad, draw._replace(weights=weights.numpy()))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_torch_class_weights(reduction: Any) -> None:
    """PyTorch's ``weight``, whose mean is divided by the weights, and its ``label_smoothing``."""
    rng = np.random.default_rng(3)
    a = torch.from_numpy(rng.standard_normal((9, 4))).requires_grad_()
    y, weight = torch.from_numpy(rng.integers(4, size=9)), torch.from_numpy(rng.random(4))
    for given, options in (
        ({"class_weights": weight}, {"weight": weight}),
        ({"label_smoothing": 0.2}, {"label_smoothing": 0.2}),
    ):
        right = F.cross_entropy(a, y, reduction=reduction, **options)
        (da,) = torch.autograd.grad(right.sum(), a)
        loss = pullback.softmax_cross_entropy(a.detach(), y, reduction=reduction, **given)
        np.testing.assert_allclose(loss.value, right.detach(), rtol=1e-13)
        np.testing.assert_allclose(loss.da, da, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_torch_positive_weight(reduction: Any) -> None:
    rng = np.random.default_rng(4)
    a, v = (torch.from_numpy(20 * rng.standard_normal(9)) for _ in range(2))
    y = torch.from_numpy(np.round(2 * rng.random(9)) / 2)
    a.requires_grad_()
    right = F.binary_cross_entropy_with_logits(a, y, reduction=reduction, pos_weight=torch.tensor(3.0))
    (da,) = torch.autograd.grad(right.sum(), a, create_graph=True)
    (product,) = torch.autograd.grad((da * v).sum(), a)
    loss = pullback.logistic(a.detach(), y, reduction=reduction, positive_weight=3)
    near(loss.value, right.detach(), 9 * 3 * float(a.detach().abs().max()), 9)
    near(loss.da, da.detach(), 3.0, 9)
    got = pullback.logistic_hessian_product(v, a.detach(), y, reduction=reduction, positive_weight=3)
    np.testing.assert_allclose(got, product, rtol=1e-9, atol=1e-14)


SKLEARN = {
    "squared_error": HalfSquaredError(),
    "huber": HuberLoss(delta=1.0),
    "huber of 0.3": HuberLoss(delta=0.3),
    "absolute_error": AbsoluteError(),
    "quantile": PinballLoss(quantile=0.5),
    "quantile of 0.9": PinballLoss(quantile=0.9),
    "logistic": HalfBinomialLoss(),
    "poisson": HalfPoissonLoss(),
    "gamma": HalfGammaLoss(),
    "tweedie": HalfTweedieLoss(power=1.5),
    "tweedie of 1": HalfTweedieLoss(power=1),
    "tweedie of 3": HalfTweedieLoss(power=3),
}


@pytest.mark.parametrize("name", SKLEARN)
def test_sklearn_losses(name: str) -> None:
    for draw in draws(name, n=1):
        y, a = np.ascontiguousarray(draw.y[:, 0]), np.ascontiguousarray(draw.a[:, 0])
        losses, gradients = SKLEARN[name].loss_gradient(y, a, sample_weight=draw.weights)
        loss = CASES[name].loss(draw.a, draw.y, weights=draw.weights, reduction="none")
        close(loss, losses, gradients[:, None], draw._replace(reduction="none"))
        mean = CASES[name].loss(draw.a, draw.y, weights=draw.weights).value
        near(mean, SKLEARN[name](y, a, sample_weight=draw.weights), np.max(draw.size), draw.a.size)


@pytest.mark.parametrize("name", [name for name in SKLEARN if not CASES[name].kinked])
def test_sklearn_hessians(name: str) -> None:
    for draw in draws(name, n=1):
        y, a = np.ascontiguousarray(draw.y[:, 0]), np.ascontiguousarray(draw.a[:, 0])
        _, right = SKLEARN[name].gradient_hessian(y, a, sample_weight=draw.weights)
        got = CASES[name].product(np.ones_like(draw.a), draw.a, draw.y, weights=draw.weights, reduction="sum")
        near(got[:, 0], right, np.max(draw.size), 1)


def test_sklearn_multinomial() -> None:
    for draw in draws("softmax_cross_entropy"):
        a, classes = np.hstack([draw.a, draw.a[:, :2] + 1]), draw.a.shape[-1] + min(draw.a.shape[-1], 2)
        if classes < 3:  # fewer are none to scikit-learn
            a, classes = np.hstack([a, a[:, :1] - 1]), classes + 1
        y = np.random.default_rng(2).integers(classes, size=len(a))
        losses, gradients = HalfMultinomialLoss(n_classes=classes).loss_gradient(
            y.astype("float64"), a, sample_weight=draw.weights
        )
        loss = pullback.softmax_cross_entropy(a, y, weights=draw.weights, reduction="none")
        size = 1 + 2 * np.abs(a)
        close(loss, losses, gradients, draw._replace(a=a, size=size * classes, reduction="none"))


PAIRS_BY_NAME = {pair.name: pair for pair in PAIRS}
ACTIVATIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "relu": (F.relu, {}),
    "leaky_relu": (F.leaky_relu, {}),
    "softplus": (F.softplus, {}),
    "sigmoid": (torch.sigmoid, {}),
    "tanh": (torch.tanh, {}),
    "silu": (F.silu, {}),
    "gelu": (lambda a: F.gelu(a, approximate="tanh"), {}),
    "gelu, exact": (F.gelu, {"exact": True}),
    "softmax": (lambda a: torch.softmax(a, dim=-1), {}),
    "log_softmax": (lambda a: torch.log_softmax(a, dim=-1), {}),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_torch_activations(name: str) -> None:
    peer, options = ACTIVATIONS[name]
    pair = PAIRS_BY_NAME[name.partition(",")[0]]
    assert pair.backward is not None
    for seed in range(COUNT):
        rng = np.random.default_rng(seed)
        shape = int(rng.integers(1, 9)), int(rng.integers(1, 7))
        a = torch.from_numpy(3 * rng.standard_normal(shape)).requires_grad_()
        dh = torch.from_numpy(rng.standard_normal(shape))
        right = peer(a)
        torch.autograd.backward(right, dh)
        x = a.detach()
        h = pair.forward(x, **options)
        size = (1 + x.abs()) ** 2
        near(h, right.detach(), size.numpy(), shape[1])
        da = pair.backward(dh, h if pair.saves == "output" else x, **options)
        near(da, a.grad, (size * dh.abs().max(dim=-1, keepdim=True).values).numpy(), shape[1])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_torch_softmaxes_of_masked_logits(name: str) -> None:
    """Over either axis, where each row has a possible class: PyTorch has NaN for the others."""
    pair = PAIRS_BY_NAME[name]
    assert pair.backward is not None
    for seed in range(COUNT):
        rng = np.random.default_rng(seed)
        shape, axis = (int(rng.integers(1, 9)), int(rng.integers(1, 7))), int(rng.integers(2))
        mask = torch.from_numpy(rng.random(shape) < 0.6)
        mask.select(axis, 0)[:] = True
        a = torch.from_numpy(3 * rng.standard_normal(shape)).requires_grad_()
        dh = torch.from_numpy(rng.standard_normal(shape))
        right = getattr(torch, name)(a.masked_fill(~mask, -torch.inf), dim=axis)
        torch.autograd.backward(torch.where(mask, right, 0), dh)
        x = a.detach()
        h = pair.forward(x, axis=axis, mask=mask)
        assert bool(torch.all(h[~mask] == right[~mask]))
        size = (1 + x.abs()) ** 2
        near(torch.where(mask, h, 0), torch.where(mask, right, 0).detach(), size.numpy(), shape[axis])
        da = pair.backward(dh, h, axis=axis, mask=mask)
        near(da, a.grad, (size * dh.abs().max()).numpy(), shape[axis])
