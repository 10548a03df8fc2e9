"""Every activation against its formula and the exact derivative of that, at its limits, and what it refuses."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device

import pullback
from pullback._core.pair import Pair
from pullback._ops import PAIRS
from pullback._ops.activations import gated, rectifiers, sigmoids, softmax
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS, LAYOUTS, C

_STEP = 1e-100


@dataclass(frozen=True)
class Case:
    """The functions of a pair with options; its map in NumPy, for complex numbers too, and its backward's formula."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    value: Callable[[Any], Any]
    pulled: Callable[[Any, Any], Any]
    saves: str  # "h" or "a": what the backward takes

    def exists(self, backend: Backend) -> bool:
        """Whether the namespace has what this takes."""
        return self is not CASES["gelu, exact"] or hasattr(backend.xp, "erfc")

    def kept(self, a: Any) -> Any:
        """Return what the backward takes."""
        return self.value(a) if self.saves == "h" else a

    def gradient(self, dh: Any, a: Any) -> Any:
        """Return the exact gradient: a step along the imaginary axis for each entry of the last axis."""
        units = np.eye(a.shape[-1])
        return np.stack([np.sum(dh * self.value(a + 1j * _STEP * e).imag, axis=-1) / _STEP for e in units], axis=-1)


def _sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def _cdf(a: Any) -> Any:
    real = np.vectorize(math.erf, otypes=[float])(a.real / np.sqrt(2)) / 2 + 0.5
    return real + 1j * a.imag * _density(a.real) if np.iscomplexobj(a) else real


def _density(a: Any) -> Any:
    return np.exp(-(a**2) / 2) / np.sqrt(2 * np.pi)


def _gelu(a: Any) -> Any:
    return a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))


def _softmax(a: Any) -> Any:
    return np.exp(a) / np.sum(np.exp(a), axis=-1, keepdims=True)


def _case(pair: Pair, value: Callable[[Any], Any], pulled: Callable[[Any, Any], Any], **options: Any) -> Case:
    """Make a case of the record of a pair."""
    assert pair.backward is not None
    forward, backward = (partial(f, **options) if options else f for f in (pair.forward, pair.backward))
    return Case(forward, backward, value, pulled, "h" if pair.saves == "output" else "a")


def _leaky(slope: float) -> Case:
    return _case(
        rectifiers.LEAKY_RELU,
        lambda a: np.where(a.real > 0, a, slope * a),
        lambda dh, h: dh * np.where(h > 0, 1, slope),
        slope=slope,
    )


CASES = {
    "relu": _case(rectifiers.RELU, lambda a: np.where(a.real > 0, a, 0), lambda dh, h: dh * (h > 0)),
    "leaky_relu": _leaky(0.01),
    "leaky_relu of 0.3": _leaky(0.3),
    "sigmoid": _case(sigmoids.SIGMOID, _sigmoid, lambda dh, h: dh * h * (1 - h)),
    "tanh": _case(sigmoids.TANH, np.tanh, lambda dh, h: dh * (1 - h**2)),
    "softplus": _case(rectifiers.SOFTPLUS, lambda a: np.log(1 + np.exp(a)), lambda dh, h: dh * -np.expm1(-h)),
    "silu": _case(gated.SILU, lambda a: a * _sigmoid(a), lambda dh, a: dh * _sigmoid(a) * (1 + a * (1 - _sigmoid(a)))),
    "gelu": _case(gated.GELU, _gelu, lambda dh, a: dh * _gelu(a + 1j * _STEP).imag / _STEP),
    "gelu, exact": _case(gated.GELU, lambda a: a * _cdf(a), lambda dh, a: dh * (_cdf(a) + a * _density(a)), exact=True),
    "softmax": _case(softmax.SOFTMAX, _softmax, lambda dh, h: h * (dh - np.sum(dh * h, axis=-1, keepdims=True))),
    "log_softmax": _case(
        softmax.LOG_SOFTMAX,
        lambda a: a - np.log(np.sum(np.exp(a), axis=-1, keepdims=True)),
        lambda dh, h: dh - np.exp(h) * np.sum(dh, axis=-1, keepdims=True),
    ),
}
ELEMENTWISE = [name for name in CASES if "softmax" not in name]
SHAPES = [(7, 4), (3,), (2, 3, 5), (1, 3), (5, 1), (0, 3), (2, 70), (120, 3)]


def check(backend: Backend, case: Case, arrays: tuple[Any, Any, Any], eps: float) -> None:
    """Compare with the formulas: to C·√n·eps of what is added up, and the rounding of the result."""
    exact = [np.asarray(backend.numpy(x), "float64") for x in arrays]
    fine = C * np.sqrt(max(exact[0].shape[-1:], default=1)) * min(eps, EPS["float32"])
    h = backend.numpy(backend.call(case.forward, arrays[0]))
    right = case.value(exact[0])
    assert h.shape == right.shape
    assert np.all(abs(h - right) <= fine * (1 + abs(exact[0])) + eps * abs(right))
    da = backend.numpy(backend.call(case.backward, arrays[1], arrays[2]))
    right = case.pulled(exact[1], exact[2])
    size = np.max(abs(exact[1]), axis=-1, keepdims=True, initial=0.0) * (1 + abs(exact[2])) ** 2
    assert da.shape == right.shape
    assert np.all(abs(da - right) <= fine * size + eps * abs(right))


def draw(case: Case, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Return a, dh and what the backward keeps."""
    rng = np.random.default_rng(1)
    a = 2 * rng.standard_normal(shape)
    return a, rng.standard_normal(shape), case.kept(a)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_shapes(backend_one_device: Backend, name: str, shape: tuple[int, ...]) -> None:
    if CASES[name].exists(backend_one_device):
        arrays = tuple(backend_one_device.rows(x) for x in draw(CASES[name], shape))
        check(backend_one_device, CASES[name], arrays, EPS[backend_one_device.real])


@pytest.mark.parametrize("name", CASES)
def test_dtypes(backend: Backend, dtype: str, name: str) -> None:
    """Values; and namespace, shape, dtype and device of what comes back; nothing is written into the arguments."""
    case = CASES[name]
    if dtype.startswith("complex") or not case.exists(backend):
        return  # see test_refuses
    arrays = tuple(backend.rows(x, dtype) for x in draw(case, (7, 4)))
    before = backend.numpy(arrays)
    check(backend, case, arrays, EPS[dtype])
    a, dh, kept = arrays
    for x in (backend.call(case.forward, a), backend.call(case.backward, dh, kept)):
        assert array_namespace(x) is backend.xp
        assert x.dtype == a.dtype
        assert str(device(x)) == str(device(a))
        assert str(x.shape) == str(a.shape)
    assert all(np.array_equal(backend.numpy(x), was) for x, was in zip(arrays, before, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_layouts(backend_one_device: Backend, name: str, layout: str) -> None:
    if CASES[name].exists(backend_one_device) and backend_one_device.mode != "unknown rows":
        arrays = tuple(
            LAYOUTS[layout](backend_one_device.xp, backend_one_device.rows(x)) for x in draw(CASES[name], (7, 4))
        )
        check(backend_one_device, CASES[name], arrays, EPS[backend_one_device.real])


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_forwards(backend_one_device: Backend, name: str) -> None:
    """The backward of what the forward gave is the exact derivative of the forward's formula, but for rounding."""
    case = CASES[name]
    if not case.exists(backend_one_device):
        return
    a, dh, _ = draw(case, (7, 4))
    held, upstream = backend_one_device.rows(a), backend_one_device.rows(dh)
    kept = backend_one_device.call(case.forward, held) if case.saves == "h" else held
    got = backend_one_device.numpy(backend_one_device.call(case.backward, upstream, kept))
    a, dh = backend_one_device.numpy(held).astype("float64"), backend_one_device.numpy(upstream).astype("float64")
    tolerance = 2 * C * 2 * EPS[backend_one_device.real] * np.max(abs(dh)) * (1 + abs(a)) ** 2
    assert np.all(abs(got - case.gradient(dh, a)) <= tolerance)


@pytest.mark.parametrize(("of_dh", "of_kept"), [("float32", "float64"), ("float64", "float32")])
def test_mixed_dtypes(backend_one_device: Backend, of_dh: str, of_kept: str) -> None:
    """The gradient has the dtype of its primal."""
    for case in CASES.values():
        if case.exists(backend_one_device):
            _, dh, kept = draw(case, (4, 3))
            kept = backend_one_device.rows(kept, of_kept)
            assert backend_one_device.call(case.backward, backend_one_device.rows(dh, of_dh), kept).dtype == kept.dtype


# The output at -∞ and ∞, and the derivative there.
LIMITS = {
    "relu": (0, np.inf, 0, 1),
    "leaky_relu": (-np.inf, np.inf, 0.01, 1),
    "leaky_relu of 0.3": (-np.inf, np.inf, 0.3, 1),
    "sigmoid": (0, 1, 0, 0),
    "tanh": (-1, 1, 0, 0),
    "softplus": (0, np.inf, 0, 1),
    "silu": (0, np.inf, 0, 1),
    "gelu": (0, np.inf, 0, 1),
    "gelu, exact": (0, np.inf, 0, 1),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_limits(backend_one_device: Backend, dtype: str, name: str) -> None:
    """Infinity gives the limits, the largest numbers of the dtype do as good as that, and neither warns."""
    case = CASES[name]
    if dtype.startswith("complex") or not case.exists(backend_one_device):
        return
    largest, (low, high, *slopes) = (
        float(backend_one_device.xp.finfo(backend_one_device.dtype(dtype)).max),
        LIMITS[name],
    )
    for end in (np.inf, largest):
        a = backend_one_device.rows(np.asarray([-end, end]), dtype)
        h = backend_one_device.call(case.forward, a)
        slope = -low if np.isfinite(low) else slopes[0] * end
        expected = [-slope, high if np.isfinite(high) else end]
        np.testing.assert_allclose(backend_one_device.numpy(h), expected, rtol=2 * EPS[dtype])
        da = backend_one_device.call(
            case.backward, backend_one_device.rows(np.ones(2), dtype), h if case.saves == "h" else a
        )
        np.testing.assert_allclose(backend_one_device.numpy(da), slopes, rtol=EPS[dtype])


@pytest.mark.parametrize("name", CASES)
def test_nan(backend_one_device: Backend, name: str) -> None:
    """It stays NaN, and stays in its entry, or in its row where that is one thing."""
    case = CASES[name]
    if not case.exists(backend_one_device):
        return
    a, dh, kept = draw(case, (3, 2))
    touched = np.zeros((3, 2), dtype=bool)
    touched[1, slice(None) if "softmax" in name else 0] = True
    for x in (a, dh, kept):
        x[1, 0] = np.nan
    finite = backend_one_device.rows(np.nan_to_num(kept, nan=0.5))
    assert np.array_equal(
        np.isnan(backend_one_device.numpy(backend_one_device.call(case.forward, backend_one_device.rows(a)))), touched
    )
    assert np.array_equal(
        np.isnan(backend_one_device.numpy(backend_one_device.call(case.backward, backend_one_device.rows(dh), finite))),
        touched,
    )
    assert np.array_equal(
        np.isnan(
            backend_one_device.numpy(
                backend_one_device.call(case.backward, backend_one_device.rows(dh), backend_one_device.rows(kept))
            )
        ),
        touched,
    )


@pytest.mark.parametrize("name", CASES)
def test_nan_output_or_input_has_a_nan_gradient(backend_one_device: Backend, name: str) -> None:
    """Whatever the upstream gradient is; the entries of other rows are unaffected."""
    case = CASES[name]
    if not case.exists(backend_one_device):
        return
    kept = case.kept(np.asarray([[0.5], [1.0]]))
    kept[0, 0] = np.nan
    dh = backend_one_device.rows(np.ones((2, 1)))
    da = backend_one_device.numpy(backend_one_device.call(case.backward, dh, backend_one_device.rows(kept)))
    assert np.isnan(da).tolist() == [[True], [False]]


def test_infinite_logit_takes_all(backend_one_device: Backend) -> None:
    a = backend_one_device.rows(np.asarray([[np.inf, 0.0, -np.inf], [0.0, 1.0, np.inf]]))
    h = backend_one_device.call(pullback.softmax_forward, a)
    assert backend_one_device.numpy(h).tolist() == [[1, 0, 0], [0, 0, 1]]
    logs = backend_one_device.numpy(backend_one_device.call(pullback.log_softmax_forward, a))
    most = float(np.finfo(backend_one_device.real).max)
    assert logs.tolist() == [[0, -most, -np.inf], [-most, -most, 0]]


def test_softmax_at_the_edges(backend: Backend, dtype: str) -> None:
    """Logits that differ by what the dtype can hold neither overflow nor warn; one of -inf has probability 0."""
    if dtype.startswith("complex"):
        return
    half = float(backend.xp.finfo(backend.dtype(dtype)).max) / 2
    a = backend.rows(np.asarray([[half, -half], [-half, half], [0.0, -np.inf]]), dtype)
    h = backend.numpy(backend.call(pullback.softmax_forward, a))
    assert h.tolist() == [[1, 0], [0, 1], [1, 0]]
    logs = backend.call(pullback.log_softmax_forward, a)
    assert backend.numpy(logs).tolist() == [[0, -2 * half], [-2 * half, 0], [0, -np.inf]]
    dh = backend.rows(np.ones((3, 2)), dtype)
    assert backend.numpy(backend.call(pullback.log_softmax_backward, dh, logs)).tolist() == [[-1, 1], [1, -1], [-1, 1]]


def test_small_outputs(backend_one_device: Backend) -> None:
    """The sigmoid and softplus of -30 are exp(-30) to first order, and so is their derivative."""
    a, tiny = backend_one_device.rows(np.asarray([-30.0])), np.exp(-30.0)
    for name, right in (("sigmoid", tiny / (1 + tiny)), ("softplus", np.log1p(tiny))):
        h = backend_one_device.call(CASES[name].forward, a)
        da = backend_one_device.call(CASES[name].backward, backend_one_device.rows(np.ones(1)), h)
        np.testing.assert_allclose(backend_one_device.numpy(h), [right], rtol=8 * EPS[backend_one_device.real])
        np.testing.assert_allclose(
            backend_one_device.numpy(da), [tiny / (1 + tiny) ** 2], rtol=1e-12 + 8 * EPS[backend_one_device.real]
        )


def test_scalars(backend_one_device: Backend) -> None:
    for name in ELEMENTWISE:
        if CASES[name].exists(backend_one_device):
            a, dh, kept = (
                backend_one_device.asarray(np.asarray(x)) for x in (0.5, 2.0, CASES[name].kept(np.asarray(0.5)))
            )
            assert backend_one_device.call(CASES[name].forward, a).shape == ()
            assert backend_one_device.call(CASES[name].backward, dh, kept).shape == ()


def test_relu_at_zero(backend_one_device: Backend) -> None:
    zero, one = backend_one_device.rows(np.zeros(1)), backend_one_device.rows(np.ones(1))
    assert backend_one_device.numpy(pullback.relu_backward(one, zero)).tolist() == [0]
    np.testing.assert_allclose(backend_one_device.numpy(pullback.leaky_relu_backward(one, zero, slope=0.25)), [0.25])


ACTIVATIONS = [pair for pair in PAIRS if list(pair.inputs) == ["a"]]


@pytest.mark.parametrize("name", [pair.name for pair in ACTIVATIONS])
def test_rejects_an_upstream_gradient_of_another_shape(backend_one_device: Backend, name: str) -> None:
    backward, kept = CASES[name].backward, CASES[name].saves
    x = backend_one_device.asarray(np.ones((3, 2)))
    shape = rf"^{name}_backward: dh must have the shape of {kept}; got dh \(3, 1\) and {kept} \(3, 2\)$"
    with pytest.raises(ValueError, match=shape):
        backward(x[:, :1], x)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", [(), (3, 0)])
def test_rejects_no_classes(backend_one_device: Backend, name: str, shape: tuple[int, ...]) -> None:
    x = backend_one_device.asarray(np.ones(shape))
    axis = r"must have a last axis of at least one class, shape \(\.\.\., n\); got "
    with pytest.raises(ValueError, match=rf"^{name}_forward: a {axis}a \(.*\)$"):
        CASES[name].forward(x)
    with pytest.raises(ValueError, match=rf"^{name}_backward: h {axis}h \(.*\)$"):
        CASES[name].backward(x, x)


@pytest.mark.parametrize("slope", [0.0, -0.1, 1.5, np.nan])
def test_refuses_slopes(backend_one_device: Backend, slope: float) -> None:
    x = backend_one_device.asarray(np.ones(2))
    message = rf"slope must be above 0 and at most 1; got {slope!r}\. With 0 it is relu$"
    with pytest.raises(ValueError, match=f"^leaky_relu_forward: {message}"):
        pullback.leaky_relu_forward(x, slope=slope)
    with pytest.raises(ValueError, match=f"^leaky_relu_backward: {message}"):
        pullback.leaky_relu_backward(x, x, slope=slope)


def test_exact_gelu_takes_erfc(backend_one_device: Backend) -> None:
    if hasattr(backend_one_device.xp, "erfc"):
        return
    x = backend_one_device.asarray(np.ones(2))
    message = r"the exact form takes a namespace with erfc, .*; got .*\. Leave out exact for the tanh form$"
    with pytest.raises(ValueError, match=f"^gelu_forward: {message}"):
        pullback.gelu_forward(x, exact=True)
    with pytest.raises(ValueError, match=f"^gelu_backward: {message}"):
        pullback.gelu_backward(x, x, exact=True)
