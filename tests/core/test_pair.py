"""The records of the pairs: complete, and true of the functions that they name."""

import inspect
from typing import Any

import pytest

import pullback
from pullback._core.pair import Pair
from pullback._ops import PAIRS

BY_NAME = {pair.name: pair for pair in PAIRS}


def positional(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [x.name for x in parameters if x.kind is inspect.Parameter.POSITIONAL_ONLY]


def options(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {x.name: x.default for x in parameters if x.kind is inspect.Parameter.KEYWORD_ONLY}


def test_every_public_pair_has_a_record() -> None:
    recorded = {function for pair in PAIRS for function in (pair.forward, pair.backward, pair.hessian_product)}
    public = vars(pullback)
    backwards = {name for name in public if name.endswith(("_backward", "_hessian_product"))}
    backwards -= {name for name in backwards if name.endswith("_double_backward")}
    backwards.remove("stack_backward")  # made of the pairs of its layers
    assert {public[name] for name in backwards} <= recorded
    assert len(PAIRS) == len(BY_NAME) == len(backwards)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_a_record_names_the_arguments(pair: Pair) -> None:
    """The inputs, those that the backward needs, the tangents and the options are the functions' own."""
    assert positional(pair.forward) == list(pair.inputs)
    if pair.backward is not None:
        needed = [("h" if name == "output" else name) for name in pair.needs]
        assert positional(pair.backward)[1:] == needed
        shared = options(pair.backward)
        assert (shared.pop("wrt", None) is None) == (len(pair.inputs) == 1)
    else:
        assert pair.hessian_product is not None
        assert positional(pair.hessian_product) == ["v", *pair.needs]
        shared = options(pair.hessian_product)
    assert options(pair.forward) == shared
    if pair.jvp is not None:
        assert positional(pair.jvp) == list(pair.needs)
        assert options(pair.jvp) == dict.fromkeys(f"{name}_tangent" for name in pair.inputs)
    if pair.double_backward is not None:
        assert positional(pair.double_backward) == [*(f"dd{name}" for name in pair.inputs), "da", *pair.needs]
