"""Per-example quantities and K-FAC factors beside PyTorch's vmap, BackPACK and Opacus' formula: 200 random cases."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from backpack import backpack, extend, extensions

import pullback
from tests.harness.pair_laws import EPS, C

# PyTorch's types and the Array protocol do not fit together.
ours: Any = pullback

CASES = 200


@dataclass(frozen=True)
class Case:
    """A layer, a batch, the classes that it should find, and the upstream gradient of each example's loss."""

    i: int
    layer: torch.nn.Linear
    z: Any
    y: Any
    da: Any

    @property
    def eps(self) -> float:
        """How far rounding may carry a sum of entries of about one."""
        terms = math.prod(self.z.shape) * self.da.shape[-1]
        return C * math.sqrt(terms) * EPS[str(self.z.dtype).removeprefix("torch.")]

    def compatible_size(self, got: Any, expected: Any, size: Any = 1.0) -> None:
        """Require equality up to rounding."""
        assert got.shape == expected.shape, f"case {self.i}"
        assert got.dtype == expected.dtype, f"case {self.i}"
        assert torch.all(torch.abs(got - expected) <= self.eps * size), f"case {self.i}: {got} and {expected}"


def cases(*, positions: bool) -> Iterator[Case]:
    """Draw layers and batches: both dtypes, and of those with positions both sides of t (k + n) = k n."""
    for i in range(CASES):
        generator = torch.Generator().manual_seed(i)
        # Of a single class, the gradient is zero.
        sizes = ((1, 9), (1, 5), (1, 12), (2, 12))
        m, t, k, n = (int(torch.randint(*size, (), generator=generator)) for size in sizes)
        leading = (m, t) if positions and i % 2 else (m,)
        dtype = (torch.float32, torch.float64)[i // 2 % 2]
        layer = torch.nn.Linear(k, n, dtype=dtype)
        with torch.no_grad():
            for x in layer.parameters():
                x.copy_(torch.rand(x.shape, generator=generator, dtype=dtype) - 0.5)
        z = torch.rand(*leading, k, generator=generator, dtype=dtype) * 2 - 1
        y = torch.randint(n, leading, generator=generator)
        yield Case(i, layer, z, y, ours.softmax_cross_entropy(layer(z).detach(), y, reduction="none").da)


def per_example(case: Case) -> tuple[Any, Any]:
    """Return the gradients of each example by PyTorch's vmap."""

    def loss(w: Any, b: Any, z: Any, y: Any) -> Any:
        a = z @ w + b
        return torch.nn.functional.cross_entropy(a.reshape(-1, a.shape[-1]), y.reshape(-1), reduction="sum")

    w, b = case.layer.weight.detach().T, case.layer.bias.detach()
    out: tuple[Any, Any] = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(None, None, 0, 0))(
        w, b, case.z, case.y
    )
    return out


def test_vmap() -> None:
    for case in cases(positions=True):
        dw, db = per_example(case)
        got = ours.per_example_gradients(case.da, case.z)
        case.compatible_size(got.dw, dw)
        case.compatible_size(got.db, db)
        # Squares of norms: their error does not depend on what cancels.
        most = case.z.shape[1] ** 2 if case.z.ndim == 3 else 1
        squares = torch.sum(dw**2, (1, 2)) + torch.sum(db**2, 1)
        case.compatible_size(ours.per_example_norms(case.da, case.z) ** 2, squares, most)
        case.compatible_size(ours.per_example_norms(case.da, case.z, bias=False) ** 2, torch.sum(dw**2, (1, 2)), most)
        for x, y, z, v in zip(
            (dw, db),
            ours.second_moments(case.da, case.z),
            ours.fisher_diagonal(case.da, case.z),
            ours.gradient_variance(case.da, case.z),
            strict=True,
        ):
            case.compatible_size(y, torch.sum(x**2, 0), most)
            case.compatible_size(z, torch.mean(x**2, 0), most)
            case.compatible_size(v, torch.var(x, 0, correction=0), most)


def test_signal_to_noise() -> None:
    """In float64, and where there is noise: of a single example all of it is rounding."""
    for case in cases(positions=True):
        da, z = case.da.double(), case.z.double()
        if len(da) < 3:
            continue
        for got, x in zip(ours.gradient_signal_to_noise(da, z), ours.per_example_gradients(da, z), strict=True):
            variance = torch.var(x, 0, correction=0)
            expected = torch.mean(x, 0) ** 2 / variance
            assert torch.all(torch.abs(got - expected) <= 1e-12 * (1 + expected) / variance), f"case {case.i}"


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 10.0])
def test_clipped_as_opacus_does(max_norm: float) -> None:
    """Opacus' DPOptimizer.clip_and_accumulate adds 1e-6 to each norm."""
    for case in cases(positions=True):
        gradients = per_example(case)
        norms = torch.linalg.vector_norm(torch.cat([x.flatten(1) for x in gradients], 1), dim=1)
        factors = torch.clamp(max_norm / (norms + 1e-6), max=1.0)
        lost = 1e-6 * float(torch.sum(factors)) + len(norms) * max_norm * case.eps / float(norms.min()) ** 2
        for got, x in zip(ours.clipped_gradients(case.da, case.z, max_norm), gradients, strict=True):
            expected = torch.einsum("i,i...", factors, x)
            assert torch.all(torch.abs(got - expected) <= lost + len(norms) * case.eps), f"case {case.i}"


def test_backpack() -> None:
    for case in cases(positions=True):
        layer = extend(case.layer)
        asked = (
            extensions.BatchGrad(),
            extensions.BatchL2Grad(),
            extensions.SumGradSquared(),
            extensions.Variance(),
        )
        with backpack(*asked):
            torch.autograd.backward(torch.sum(layer(case.z.clone().requires_grad_()) * case.da))
        w, b = layer.weight, layer.bias
        most = case.z.shape[1] ** 2 if case.z.ndim == 3 else 1
        got = ours.per_example_gradients(case.da, case.z)
        case.compatible_size(got.dw, w.grad_batch.mT)
        case.compatible_size(got.db, b.grad_batch)
        case.compatible_size(ours.per_example_norms(case.da, case.z) ** 2, w.batch_l2 + b.batch_l2, most)
        case.compatible_size(ours.per_example_norms(case.da, case.z, bias=False) ** 2, w.batch_l2, most)
        for function, name in ((ours.second_moments, "sum_grad_squared"), (ours.gradient_variance, "variance")):
            dw, db = function(case.da, case.z)
            case.compatible_size(dw, getattr(w, name).T, most)
            case.compatible_size(db, getattr(b, name), most)


def test_backpack_kfac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both layers of a network: targets drawn from the model, which BackPACK is made to draw as we do, and all of them.

    BackPACK keeps the bias apart, with g as its only factor. Its KFLR takes the expectation over the targets: an
    upstream gradient √p_c (p - e_c) for each class c.
    """
    for case in cases(positions=False):
        n = case.da.shape[-1]
        last = torch.nn.Linear(n, 3, dtype=case.z.dtype)
        y = torch.arange(len(case.z)) % 3
        monkeypatch.setattr(torch.distributions.Categorical, "sample", lambda *_, y=y: y[None, :])
        model = extend(torch.nn.Sequential(case.layer, torch.nn.Sigmoid(), last))
        loss = extend(torch.nn.CrossEntropyLoss())
        with backpack(extensions.KFAC(), extensions.KFLR()):
            loss(model(case.z.clone().requires_grad_()), y).backward()
        h = torch.sigmoid(case.layer(case.z)).detach()
        a = last(h).detach()
        p = torch.softmax(a, -1)
        drawn = ours.softmax_cross_entropy(a, y, reduction="none").da
        every = torch.sqrt(p.T[:, :, None]) * (p - torch.eye(3, dtype=p.dtype)[:, None, :])
        for name, da, count in (("kfac", drawn[None, ...], 1), ("kflr", every, 3)):
            w = last.weight.detach().T
            inner = ours.affine_backward(da, h.expand(count, -1, -1), w, wrt=("z",)).dz * h * (1 - h)
            for layer, z, upstream in ((case.layer, case.z, inner), (last, h, da)):
                factor, inputs = getattr(layer.weight, name)
                got = ours.kfac_factors(upstream, z.expand(count, -1, -1), bias=False)
                case.compatible_size(got.a, inputs)
                case.compatible_size(got.g * count, factor)
                case.compatible_size(
                    ours.kfac_factors(upstream, z.expand(count, -1, -1)).g * count, getattr(layer.bias, name)[0]
                )
                with_ones = torch.cat([z, torch.ones_like(z[:, :1])], 1)
                case.compatible_size(
                    ours.kfac_factors(upstream, z.expand(count, -1, -1)).a, with_ones.T @ with_ones / len(z)
                )
