"""The guide's functions have PyTorch's gradients, and their Hessian products."""

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback._core import trees
from tests.harness.guide_programs import PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_those_of_pytorch(name: str) -> None:
    function, arguments = PROGRAMS[name](np.asarray)
    value, gradients = pb.value_and_grad(function, tuple(range(len(arguments))))(*arguments)
    products = pb.hvp(function, arguments, arguments)

    theirs, _ = PROGRAMS[name](torch.asarray)
    tensors = trees.rebuild(arguments, lambda x: torch.asarray(x).requires_grad_())
    leaves = trees.leaves(tensors)
    out = theirs(*tensors)
    first = torch.autograd.grad(out, leaves, create_graph=True)
    along = sum(torch.sum(g * x.detach()) for g, x in zip(first, leaves, strict=True))
    second = torch.autograd.grad(along, leaves, allow_unused=True)

    def close(got: Any, right: Any) -> bool:
        expected = np.zeros_like(got) if right is None else right.detach().numpy()
        finite = np.isfinite(expected)  # PyTorch's second derivative of a norm of 0 is NaN
        bound = 1e-12 * (1 + np.max(np.abs(expected), where=finite, initial=0))
        return bool(np.max(np.abs(got - expected), where=finite, initial=0) <= bound)

    assert close(value, out)
    assert all(map(close, trees.leaves(gradients), first))
    if name != "special functions":  # PyTorch's trigamma is wrong by 5e-10
        assert all(map(close, trees.leaves(products), second))
