"""Every pair and its gradients, and `value_and_grad` of a network, as ONNX graphs whose batch size is left open."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ndonnx
import numpy as np
import onnxruntime
import pytest
from array_api_compat import array_namespace

import pullback as pb
from pullback._core.pair import Pair
from pullback._ops import PAIRS

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "own-library.md"
EPS = 2.0**-52


def argument(x: Any, *, is_batch: bool) -> Any:
    """Return an array without values, with any number of rows where it is a batch."""
    shape = ("m", *x.shape[1:]) if is_batch else x.shape
    return ndonnx.argument(shape=shape, dtype=getattr(ndonnx, x.dtype.name))


def batch_of(pair: Pair) -> set[str]:
    """Return the inputs that have a row for each example."""
    return {"a", "y"} if "a" in pair.inputs else {"z"}


def run(arguments: dict[str, Any], outputs: list[Any], *batches: dict[str, Any]) -> list[list[Any]]:
    """Build one graph, and run it on each batch."""
    names = [f"output{i}" for i in range(len(outputs))]
    model = ndonnx.build(arguments, dict(zip(names, outputs, strict=True)))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    known = {x.name for x in session.get_inputs()}
    return [session.run(names, {name: x for name, x in batch.items() if name in known}) for batch in batches]


def close(got: Any, right: Any) -> bool:
    return got.shape == right.shape and bool(np.all(np.abs(got - right) <= 64 * EPS * (1 + np.max(np.abs(right)))))


def everything(pair: Pair, inputs: dict[str, Any]) -> list[Any]:
    """Return the outputs of a pair, and the gradients for an upstream gradient that is the output."""
    out = pair.forward(*inputs.values())
    if pair.backward is None:
        return list(out)
    needed = [out if pair.saves == "output" else inputs[name] for name in pair.needs]
    gradients = pair.backward(out, *needed)
    return [out, *(gradients if isinstance(gradients, tuple) else [gradients])]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_pairs(pair: Pair) -> None:
    rng = np.random.default_rng(30)
    first = {x: rng.standard_normal(y) if isinstance(y, tuple) else np.asarray(y) for x, y in pair.inputs.items()}
    second = {name: np.concatenate([x, x]) if name in batch_of(pair) else x for name, x in first.items()}
    arguments = {name: argument(x, is_batch=name in batch_of(pair)) for name, x in first.items()}
    results = run(arguments, everything(pair, arguments), first, second)
    for batch, got in zip((first, second), results, strict=True):
        assert all(map(close, got, map(np.asarray, everything(pair, batch))))


def network(p: Any, z: Any, y: Any) -> Any:
    """Return the loss of a normalized layer below a softmax, and one for an entry, a slice and a mean of its own."""
    xp = array_namespace(z)
    h = xp.tanh(z @ p["w1"] + p["b1"])
    h = h / xp.sqrt(xp.mean(h * h, axis=-1, keepdims=True) + 1e-3)
    a = pb.affine_forward(h, p["w2"], p["b2"])
    return pb.softmax_cross_entropy(a, y).value + xp.mean((a[:, 0] - a[:, 1]) ** 2) + xp.sum(xp.max(a, axis=0))


def test_gradient_of_a_network() -> None:
    rng = np.random.default_rng(31)
    shapes = {"w1": (4, 5), "b1": (5,), "w2": (5, 3), "b2": (3,)}
    p = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    batches = [{"z": rng.standard_normal((m, 4)), "y": rng.integers(0, 3, size=m)} for m in (7, 1, 100)]
    symbols = {name: argument(x, is_batch=False) for name, x in p.items()}
    data = {name: argument(x, is_batch=True) for name, x in batches[0].items()}
    value, gradient = pb.value_and_grad(network)(symbols, **data)
    results = run({**symbols, **data}, [value, *gradient.values()], *({**p, **batch} for batch in batches))
    for batch, got in zip(batches, results, strict=True):
        right, gradients = pb.value_and_grad(network)(p, **batch)
        assert all(map(close, got, map(np.asarray, [right, *gradients.values()])))


def test_guide_exports_a_gradient(tmp_path: Path) -> None:
    pattern = r"## Export a gradient to ONNX\n.*?```{code-block} python\n(.*?)```\n\n```text\n(.*?)```"
    (code, shown), *_ = re.findall(pattern, GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    file = tmp_path / "block.py"
    file.write_text(code)
    program = [sys.executable, "-W", "error", str(file)]
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert done.stdout == shown
