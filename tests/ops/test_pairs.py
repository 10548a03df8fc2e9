"""Losses and activations obey the laws of a pair in every mode of a library; the linear pairs have tests of shapes."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from pullback._core.pair import Pair
from pullback._ops import PAIRS
from pullback._testing.check import check_record
from tests.harness.backend import Backend, sampled


@pytest.mark.parametrize("pair", sampled([pair for pair in PAIRS if pair.real]), ids=lambda pair: pair.name)
def test_obeys_the_laws(backend_one_device: Backend, pair: Pair) -> None:
    rng = np.random.default_rng(70)
    examples = (rng.standard_normal(x) if isinstance(x, tuple) else np.asarray(x) for x in pair.inputs.values())
    functions = {x: getattr(pair, x) for x in ("forward", "backward", "hessian_product")}
    called: dict[str, Any] = {x: f and partial(backend_one_device.call, f) for x, f in functions.items()}
    report = check_record(replace(pair, **called), *map(backend_one_device.rows, examples))
    compared = {(x.of, x.second_order) for x in report.findings if x.law == "central difference"}
    assert compared == ({("da", False)} if pair.backward else {("da", False), ("dda", True), ("da", True)})
