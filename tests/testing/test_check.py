"""The laws that `check_pair` knows: right pairs obey them, each wrong one breaks the law that it should."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from array_api_compat import array_namespace

from pullback import PairReport, affine_backward, affine_forward, affine_jvp, check_pair, softmax_cross_entropy
from pullback._testing.report import Finding
from tests.harness.backend import Backend, sampled

X = np.random.default_rng(0).standard_normal((5, 3))


def elementwise(name: str, derivative: Callable[[Any, Any], Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a function of the namespace and its backward."""

    def forward(x: Any) -> Any:
        return getattr(array_namespace(x), name)(x)

    def backward(da: Any, x: Any) -> Any:
        return da * derivative(array_namespace(x), x)

    return forward, backward


SMOOTH = {
    "sin": elementwise("sin", lambda xp, x: xp.cos(x)),
    "exp": elementwise("exp", lambda xp, x: xp.exp(x)),
    "tanh": elementwise("tanh", lambda xp, x: 1 - xp.tanh(x) ** 2),
    "square": elementwise("square", lambda _, x: x * 2),
    "abs": elementwise("abs", lambda xp, x: xp.sign(x)),
}
POSITIVE = {
    "log": elementwise("log", lambda _, x: 1 / x),
    "sqrt": elementwise("sqrt", lambda xp, x: 0.5 / xp.sqrt(x)),
}


@pytest.mark.parametrize("name", sampled([*SMOOTH, *POSITIVE]))
def test_functions_that_are_not_linear(backend_one_device: Backend, dtype: str, name: str) -> None:
    """Also narrow ones, and without a warning of a step that leaves the domain."""
    if not dtype.startswith("complex"):
        forward, backward = (SMOOTH | POSITIVE)[name]
        x = backend_one_device.rows(X if name in SMOOTH else np.abs(X), dtype)
        found = check_pair(forward, backward, x).findings
        assert [finding.law for finding in found if finding.law != "laziness"] == [
            *["structure"] * 2,
            *["purity"] * 2,
            *["finiteness"] * 2,
            *["repeatability"] * 2,
            "linearity",
            "central difference",
        ]


@pytest.mark.parametrize("name", [*SMOOTH, *POSITIVE])
@pytest.mark.parametrize(("of", "factor"), [("float64", 1 + 1e-6), ("float32", 1.01)])
def test_functions_wrong_by_a_factor(name: str, of: str, factor: float) -> None:
    forward, backward = (SMOOTH | POSITIVE)[name]
    with pytest.raises(AssertionError, match=r"1 of 10 findings break a law\nBROKEN central difference of dx: got"):
        check_pair(forward, lambda da, x: backward(da, x) * factor, np.abs(X).astype(of))


def test_complex_numbers_and_a_real_output(backend_one_device: Backend) -> None:
    """The gradient of |x|² is 2x in the convention of the library, and its conjugate is found to be wrong."""

    def forward(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.real(x * xp.conj(x))

    x = backend_one_device.rows(X + 1j * X[::-1])
    check_pair(forward, lambda da, x: 2 * da * x, x)
    with pytest.raises(AssertionError, match="BROKEN central difference of dx"):
        check_pair(forward, lambda da, x: 2 * da * array_namespace(x).conj(x), x)


def test_loss_and_class_indices(backend_one_mode: Backend) -> None:
    """One array instead of a tuple, a 0-d output, and an input that has no gradient."""
    a, y = backend_one_mode.rows(X), backend_one_mode.rows(np.asarray([0, 1, 2, 0, 1]))

    def value(a: Any, y: Any) -> Any:
        return softmax_cross_entropy(a, y).value

    def gradient(dvalue: Any, a: Any, y: Any) -> Any:
        return softmax_cross_entropy(a, y).da * dvalue

    report = check_pair(value, gradient, a, y)
    assert [finding.of for finding in report.findings if finding.law == "central difference"] == ["da"]
    check_pair(value, lambda dvalue, a, y: (gradient(dvalue, a, y), None), a, y)


def test_many_outputs_and_inputs_in_another_order(backend_one_device: Backend) -> None:
    def forward(x: Any, y: Any, z: Any) -> tuple[Any, Any]:
        return x * y, x + z

    def backward(dxy: Any, dxz: Any, z: Any, y: Any, x: Any) -> list[Any]:
        return [dxy * y + dxz, dxy * x, dxz + 0 * z]

    def double(*arrays: Any) -> tuple[Any, ...]:
        ddx, ddy, ddz, dxy, _, z, y, x = arrays
        return ddx * y + ddy * x, ddx + ddz, 0 * z, ddx * dxy, ddy * dxy

    x, y, z = (backend_one_device.asarray(array) for array in (X, X + 1, X - 1))
    report = check_pair(forward, backward, x, y, z, needs=("z", "y", "x"), double_backward=double)
    of = [finding.of for finding in report.findings if finding.law == "central difference"]
    assert of == ["dx", "dy", "dz", "dda0", "dda1", "dz", "dy", "dx"]
    assert sum(finding.second_order for finding in report.findings if finding.law == "central difference") == 5
    with pytest.raises(AssertionError, match=r"BROKEN central difference of dy \(double backward\)"):
        check_pair(
            forward, backward, x, y, z, needs=("z", "y", "x"), double_backward=lambda *args: (*double(*args)[:3], x, y)
        )


def affine(backend_one_device: Backend) -> list[Any]:
    rng = np.random.default_rng(1)
    return [
        backend_one_device.rows(X),
        backend_one_device.asarray(rng.standard_normal((3, 4))),
        backend_one_device.asarray(rng.standard_normal(4)),
    ]


def jvp(z: Any, w: Any, _: Any, *tangents: Any) -> Any:
    z_tangent, w_tangent, b_tangent = tangents
    return affine_jvp(z, w, z_tangent=z_tangent, w_tangent=w_tangent, b_tangent=b_tangent)


def test_some_of_the_gradients(backend_one_device: Backend) -> None:
    """Those in `wrt`, whatever its order; what is None is passed over, and its input stays where it is."""
    z, w, b = affine(backend_one_device)
    report = check_pair(
        affine_forward,
        lambda da, z, w: affine_backward(da, z, w, wrt=("z", "b")),
        *(z, w, b),
        needs=("z", "w"),
        wrt=("b", "z"),
        names=("z", "w", "b"),
    )
    assert [x.of for x in report.findings if x.law == "central difference"] == ["dz", "db"]


class Renamed(NamedTuple):
    dz: Any
    dweights: Any
    db: Any


def edit(change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda da, z, w: change(affine_backward(da, z, w))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an output of another dtype": (
        {"forward": lambda z, w, b: array_namespace(z).astype(affine_forward(z, w, b), array_namespace(z).complex64)},
        r"structure of the output: \S+ complex64 on .*, expected \S+ float64 on ",
    ),
    "an output that is no array": ({"forward": lambda *_: "a"}, r"structure of the output: str, expected \S+ float64 "),
    "no output": ({"forward": lambda *_: None}, "structure of the output: NoneType, expected"),
    "too few gradients": (
        {"backward": edit(lambda g: g._replace(db=None))},
        "structure of the number of gradients: 2, expected 3",
    ),
    "no gradient": ({"backward": edit(lambda _: None)}, "structure of the number of gradients: 1, expected 3"),
    "a gradient that is no array": (
        {"backward": edit(lambda g: g._replace(db=1.0))},
        r"structure of db: float, expected \S+ float64 on ",
    ),
    "a gradient of another shape": (
        {"backward": edit(lambda g: g._replace(db=g.dw))},
        r"structure of db: .*\(3, 4\), expected .*\(4,\)",
    ),
    "fields": (
        {"backward": edit(lambda g: Renamed(*g))},
        "structure of the fields: dz, dweights, db, expected dz, dw, db",
    ),
    "a tangent of another shape": (
        {"jvp": lambda *args: jvp(*args)[..., :2]},
        r"structure of the tangent: .*2\), expected .*4\)",
    ),
    "two tangents": (
        {"jvp": lambda *args: (jvp(*args), jvp(*args))},
        "structure of the number of tangents: 2, expected 1",
    ),
    "a wrong tangent": (
        {"jvp": lambda *args: jvp(*args[:4], args[4] * 2, args[5])},
        r"adjoint identity of dw: got \S+, expected \S+, error \S+, tolerance \S+",
    ),
    "a wrong gradient": (
        {"backward": edit(lambda g: g._replace(dz=g.dz * (1 + 1e-6)))},
        r"adjoint identity of dz: got .*(?s:.*)\nBROKEN central difference of dz: got \S+, expected \S+, error ",
    ),
    "a gradient of NaN": (
        {"backward": edit(lambda g: g._replace(db=g.db * math.nan))},
        "finiteness of the backward: db has nan, expected numbers below ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_pairs(backend_one_device: Backend, case: str) -> None:
    changed, told = WRONG[case]
    options = {"forward": affine_forward, "backward": affine_backward, "jvp": jvp, **changed}
    functions = [options.pop("forward"), options.pop("backward")]
    with pytest.raises(
        AssertionError, match=rf"^check_pair: .*: \d of \d+ findings break a law\nBROKEN {told}"
    ) as error:
        check_pair(*functions, *affine(backend_one_device), names=("z", "w", "b"), needs=("z", "w"), **options)
    (report,) = error.value.args
    assert isinstance(report, PairReport)
    assert str(report) == str(error.value)
    assert report.broken
    assert all(finding in report.findings for finding in report.broken)


def writes(function: Callable[..., Any], i: int) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        result = function(*args)
        args[i][...] = 7
        return result

    return call


WRITING = {
    "the forward": ({"forward": writes(affine_forward, 2)}, r"b: -?[\d.]+ became 7"),
    "the backward": ({"backward": writes(affine_backward, 0)}, r"da: -?[\d.]+ became 7"),
    "the tangent": ({"jvp": writes(jvp, 3)}, r"the tangent of z: -?[\d.]+ became 7"),
}


@pytest.mark.parametrize("case", WRITING)
def test_writing(case: str) -> None:
    """On NumPy, whatever the backend: not every library lets a pair write."""
    changed, told = WRITING[case]
    options: dict[str, Any] = {"forward": affine_forward, "backward": affine_backward, "jvp": jvp, **changed}
    functions = [options.pop("forward"), options.pop("backward")]
    with pytest.raises(AssertionError, match=rf"BROKEN purity of {told}, expected as it was\n"):
        check_pair(
            *functions, X.copy(), np.ones((3, 4)), np.arange(4.0), names=("z", "w", "b"), needs=("z", "w"), **options
        )


def test_writing_complex_numbers() -> None:
    def backward(da: Any, x: Any) -> Any:
        x[...] = 1j
        return da

    with pytest.raises(AssertionError, match=r"BROKEN purity of x: 1\+2j became 0\+1j, expected as it was\n"):
        check_pair(lambda x: x + 0, backward, np.asarray([1 + 2j]))


def looks(function: Callable[..., Any], i: int) -> Callable[..., Any]:
    """Have a function ask one of its arguments for a value."""

    def call(*args: Any) -> Any:
        return function(*args) if float(array_namespace(args[i]).sum(args[i])) < math.inf else None

    return call


LOOKING = {
    "the forward": {"forward": looks(affine_forward, 1)},
    "the backward": {"backward": looks(affine_backward, 0)},
    "the tangent": {"jvp": looks(jvp, 5)},
}


@pytest.mark.parametrize("case", LOOKING)
def test_computing(backend_one_device: Backend, case: str) -> None:
    """What looks at a value computes lazy arrays, on whatever scheduler; a library that is not lazy has them ready."""
    options: dict[str, Any] = {"forward": affine_forward, "backward": affine_backward, "jvp": jvp, **LOOKING[case]}
    functions = [options.pop("forward"), options.pop("backward")]
    told = rf"1 of \d+ findings break a law\nBROKEN laziness of {case}: an array computed, expected nothing computed\n"
    options |= {"names": ("z", "w", "b"), "needs": ("z", "w")}
    if backend_one_device.lazy:
        with pytest.raises(AssertionError, match=told):
            check_pair(*functions, *affine(backend_one_device), **options)
    else:
        report = check_pair(*functions, *affine(backend_one_device), **options)
        assert not [finding for finding in report.findings if finding.law == "laziness"]


def test_computing_in_the_double_backward(backend_one_device: Backend) -> None:
    def product(x: Any, y: Any) -> Any:
        return x * y

    def backward(da: Any, x: Any, y: Any) -> tuple[Any, Any]:
        return da * y, da * x

    def double(ddx: Any, ddy: Any, da: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return ddx * y + ddy * x, ddy * da, ddx * da

    x, y = backend_one_device.rows(X), backend_one_device.rows(X)
    report = check_pair(product, backward, x, y, double_backward=double)
    lazy = [(finding.of, finding.second_order) for finding in report.findings if finding.law == "laziness"]
    expected = [("the forward", False), ("the backward", False), ("the backward", True)]
    assert lazy == (expected if backend_one_device.lazy else [])
    if backend_one_device.lazy:
        with pytest.raises(AssertionError, match=r"BROKEN laziness of the backward \(double backward\): an array comp"):
            check_pair(product, backward, x, y, double_backward=looks(double, 1))


@pytest.mark.backends("dask")
def test_lazy_gradients_that_differ_each_time_they_are_computed(backend_one_device: Backend) -> None:
    def backward(da: Any, x: Any) -> Any:
        return (da * x).map_blocks(lambda block: block * np.random.default_rng().random(), dtype=x.dtype)

    with pytest.raises(AssertionError, match=r"repeatability of the backward: dx: .* became .*, expected the same"):
        check_pair(*SMOOTH["square"][:1], backward, backend_one_device.rows(X))


def opaque(*args: Any) -> Any:
    return args[0] * args[1]


class Untold:
    """A callable that does not tell its parameters."""

    __signature__ = SimpleNamespace()

    def __call__(self, *args: Any) -> Any:
        return opaque(*args)


@pytest.mark.parametrize("forward", [opaque, Untold()])
def test_names(forward: Callable[..., Any]) -> None:
    """They are those of the forward's parameters, or numbered where it does not tell."""
    report = check_pair(forward, lambda da, x, y: (da * y, da * x), X, X)
    assert report.pair.endswith(", <lambda>")
    assert [x.of for x in report.findings if x.law == "purity"] == ["x0", "x1", "da"]
    report = check_pair(lambda x, y, scale=1.0: x * y * scale, lambda da, x, y: (da * y, da * x), X, X)
    assert [x.of for x in report.findings if x.law == "purity"] == ["x", "y", "da"]


def test_seed() -> None:
    forward, backward = SMOOTH["sin"]
    one, again, other = (check_pair(forward, backward, X, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.findings[-1].got != other.findings[-1].got


def test_report() -> None:
    forward, backward = SMOOTH["square"]
    report = check_pair(forward, backward, X)
    assert report.broken == ()
    first, *lines = str(report).splitlines()
    assert first == "check_pair: forward, backward: all 10 findings hold"
    assert lines[0] == "    ok structure of the output: numpy float64 on cpu"
    assert all(line.startswith("    ok ") for line in lines)
    finding = report.findings[-1]
    assert finding.error == abs(float(finding.got) - float(finding.expected)) <= finding.tolerance
    assert Finding("structure", "dx", "a", "b").error == math.inf
    assert not Finding("central difference", "dx", math.nan, 1.0, math.inf).holds


ERRORS: dict[str, tuple[type[Exception], list[Any], dict[str, Any], str]] = {
    "no input": (ValueError, [], {}, "at least one input must have a floating dtype; got no input$"),
    "no float": (
        ValueError,
        [np.arange(3)],
        {"names": ("y",)},
        "at least one input must have a floating dtype; got y of int64$",
    ),
    "list": (TypeError, [[1.0]], {"names": ("x",)}, "x must be an array; got list"),
    "names": (
        ValueError,
        [X],
        {"names": ("x", "y")},
        r"names must have one name for each input; got \('x', 'y'\) for 1",
    ),
    "same names": (ValueError, [X, X], {"names": ("x", "x")}, "names must have one name for each input; got "),
    "needs": (
        ValueError,
        [X],
        {"names": ("x",), "needs": ("y",)},
        r"needs must be a tuple of names out of \('x',\); got \('y',\)\. Name",
    ),
    "needs a string": (ValueError, [X], {"names": ("x",), "needs": "x"}, r"needs must be a tuple .*; got 'x'\. Name"),
    "needs a number": (
        ValueError,
        [X],
        {"names": ("x",), "needs": 0},
        r"needs must be a tuple .*; got 0\. Name the inputs with names=$",
    ),
    "wrt": (
        ValueError,
        [X, np.arange(3)],
        {"names": ("x", "y"), "wrt": ("x", "y")},
        r"wrt must be a tuple of names out of \('x',\); got \('x', 'y'\)\. Name",
    ),
    "no gradient": (ValueError, [X], {"names": ("x",), "wrt": ()}, r"wrt must name at least one input; got \(\)$"),
    "large": (
        ValueError,
        [np.ones((101, 100))],
        {"names": ("x",)},
        r"the inputs must have at most 10,000 entries in total; got x \(101, 100\)\. Pass a few rows",
    ),
    "huge": (ValueError, [X + 1e200], {"names": ("x",)}, "the inputs must be finite numbers below "),
    "NaN": (
        ValueError,
        [X * math.nan],
        {"names": ("x",)},
        r"the inputs must be finite numbers below 1e\+150; got \(nan\+0j\) in x$",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    error, inputs, options, message = ERRORS[case]
    with pytest.raises(error, match=f"^check_pair: {message}"):
        check_pair(*SMOOTH["sin"], *inputs, **options)
