"""The rules obey the laws for what Hypothesis draws: shapes, broadcasts, axes, options, zero rows, no axes."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from array_api_compat import numpy as xp_numpy
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from pullback._autodiff import jvp, vjp
from pullback._autodiff.namespace import CREATION, INSPECTION, namespace_of_level
from pullback._autodiff.rules.registry import UNSUPPORTED, WITHOUT_DERIVATIVE
from pullback._core import trees
from tests.autodiff.rules.calls import CALLS, Call
from tests.autodiff.rules.cases import Case
from tests.autodiff.rules.draws import Draws
from tests.autodiff.rules.laws import DIFFERENCE, C, Reference, assert_close, inner, second_by_grad, second_by_jvp
from tests.autodiff.rules.linear_cases import adjoint
from tests.autodiff.rules.test_standard import is_array, named

EXAMPLES = 5
PROFILE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    max_examples=EXAMPLES,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
# The vectors of these have phases, and cases of their own that do not depend on them.
OF_PHASES = {"linalg.eigh", "linalg.svd"}
# Those that take no array, or a dtype.
OF_NUMBERS = {"arange", "astype", "fft.fftfreq", "fft.rfftfreq", "from_dlpack", "full", "linspace"}
namespace_of_level(xp_numpy, 1)  # registers the rules
NAMES = sorted(
    set(CALLS) - WITHOUT_DERIVATIVE - set(UNSUPPORTED) - set(CREATION) - set(INSPECTION) - OF_PHASES - OF_NUMBERS
)
# Their integer arrays are indices, counts or conditions.
INDEXED = {"repeat", "take", "take_along_axis"}
HERMITIAN = {"linalg.cholesky", "linalg.eigvalsh"}
MATRICES = {
    *("cholesky", "det", "eigvalsh", "inv", "matrix_power", "pinv", "qr", "slogdet", "solve", "svdvals"),
}

DOMAINS = {
    **dict.fromkeys(("acos", "asin", "atanh", "tan"), "unit"),
    **dict.fromkeys(("acosh", "log", "log1p", "log2", "log10", "pow", "reciprocal", "sqrt"), "positive"),
    **dict.fromkeys(("abs", "sign", "sort"), "apart"),
    **dict.fromkeys(("clip", "maximum", "minimum", "remainder"), "normal"),
}

KINKED = {"clip", "maximum", "minimum", "remainder"}


def apart(x: Any, y: Any, name: str, /) -> bool:
    """Whether two arguments are far from where a function of them has kinks."""
    if name != "remainder":
        return bool(np.all(np.abs(x - y) > 0.02))
    return all(bool(np.all(np.abs(q - np.round(q)) > 0.05)) for q in (np.divide(x, y), np.divide(y, x)))


def smooth(name: str, call: Call, seed: int, /) -> tuple[Any, list[Any]]:
    """Return the arguments with places for arrays, and arrays on which differences are accurate."""
    draws = Draws(seed)
    arrays: list[Any] = []

    def put(x: Any) -> None:
        if name.removeprefix("linalg.") in MATRICES and x.dtype.kind in "fc":
            arrays.append(x.astype(np.complex128 if x.dtype.kind == "c" else np.float64))
        elif (name == "where" and not arrays) or (x.dtype.kind in "iu" and name in INDEXED):
            arrays.append(x)
        else:
            real = getattr(draws, DOMAINS.get(name, "away"))(*x.shape)
            # No two of these have one absolute value, at which norms have kinks.
            turned = real * np.exp(1j * draws.unit(*x.shape)) if name == "linalg.matrix_norm" else draws.cplx(*x.shape)
            arrays.append(turned if x.dtype.kind == "c" else real + (name == "acosh"))

    def empty(x: Any) -> Any:
        if not is_array(x):
            return x
        put(x)
        return "array"

    kwargs = {key: x for key, x in call.kwargs.items() if key not in {"dtype", "copy"}}
    return trees.rebuild((call.args, kwargs), empty), arrays


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("name", NAMES)
def test_laws_of_drawn_calls(name: str) -> None:
    @PROFILE
    @given(CALLS[name], st.integers(0, 2**32 - 1))
    def run(call: Call, seed: int) -> None:
        given_, arrays = smooth(name, call, seed)
        assume(any(x.dtype.kind in "fc" for x in arrays))
        if name in KINKED:
            numbers = [x for x in trees.leaves(given_) if type(x) in {int, float}]
            assume(all(apart(x, y, name) for x, y in itertools.combinations([*arrays, *numbers], 2)))

        def function(xp: Any, *values: Any) -> Any:
            remaining = iter(values)
            args, kwargs = trees.rebuild(given_, lambda x: next(remaining) if x == "array" else x)
            if name in HERMITIAN:
                args = ((args[0] + adjoint(xp, args[0])) * 0.5,)
            return named(name)(xp, *args, **kwargs)

        check(name, Case(function, tuple(arrays)))

    with np.errstate(all="ignore"):
        run()


def check(name: str, case: Case, /) -> None:
    try:
        ref = Reference(case)
    except (TypeError, ValueError, RuntimeWarning, np.linalg.LinAlgError):
        assume(condition=False)
    assume(all(np.all(np.isfinite(x)) for x in ref.outs))
    xs, function = ref.xs, ref.function
    _, pull = vjp(function, *xs)
    try:
        gradients = pull(tuple(ref.ws))
    except NotImplementedError:
        assert name == "linalg.qr"
        assume(condition=False)
    _, tangents = jvp(function, tuple(xs), tuple(ref.vs))
    assert [(g.shape, g.dtype) for g in gradients] == [(x.shape, x.dtype) for x in xs]
    assert_close("vjp", gradients, ref.gradients, DIFFERENCE)
    assert_close("jvp", tangents, ref.tangents, DIFFERENCE)
    scale = max(1.0, float(inner(list(map(np.abs, tangents)), list(map(np.abs, ref.ws)))))
    terms = math.prod(max(x.size, 1) for x in xs[:1])
    assert abs(inner(tangents, ref.ws) - inner(gradients, ref.vs)) <= C * math.sqrt(terms) * np.finfo(float).eps * scale
    assert_close("grad of grad", second_by_grad(function, xs, ref.ws, ref.vs), ref.second, DIFFERENCE)
    assert_close("jvp of grad", second_by_jvp(function, xs, ref.ws, ref.vs), ref.second, DIFFERENCE)
