"""The rules of special functions: by differences of SciPy's values, and by mpmath at 50 digits."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.special
from array_api_compat import array_namespace
from mpmath import mp, mpf

import pullback as pb
from pullback._autodiff.rules.registry import RULES, UNARY, WITHOUT_DERIVATIVE
from pullback._autodiff.rules.special import LibrarySpecial

pytestmark = pytest.mark.backends("numpy")

UNIT = np.asarray([0.12, 0.31, 0.62, 0.87])
POSITIVE = np.asarray([0.35, 0.9, 1.7, 3.1])
SIGNED = np.asarray([-2.3, -0.4, 0.03, 0.7, 1.6])
ORDERS = np.asarray([1.0, 2.0, 3.0, 5.0])

# The arguments of each function; those that are no arrays are not differentiated for.
CALLS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("erf", "erfc", "erfcx", "dawsn", "ndtr", "log_ndtr", "expit", "log_expit"), (SIGNED,)),
    **dict.fromkeys(("exprel", "cosm1", "exp2", "exp10", "i0", "i0e", "i1", "i1e", "j0", "j1"), (SIGNED,)),
    **dict.fromkeys(("sindg", "cosdg", "tandg", "sinc", "rgamma", "expi", "softplus"), (SIGNED,)),
    **dict.fromkeys(("erfinv", "ndtri", "logit", "ellipk", "ellipkm1", "ellipe"), (UNIT,)),
    **dict.fromkeys(("entr", "cbrt", "gamma", "gammaln", "loggamma", "psi", "digamma", "exp1"), (POSITIVE,)),
    **dict.fromkeys(("spence", "y0", "y1", "k0", "k0e", "k1", "k1e", "cotdg"), (POSITIVE,)),
    **dict.fromkeys(("xlogy", "xlog1py", "rel_entr", "kl_div", "beta", "betaln"), (POSITIVE, POSITIVE[::-1])),
    **dict.fromkeys(("boxcox", "boxcox1p", "poch"), (POSITIVE, UNIT)),
    **dict.fromkeys(("inv_boxcox", "inv_boxcox1p"), (UNIT, SIGNED[:4] / 9)),
    **dict.fromkeys(("huber", "pseudo_huber"), (POSITIVE, SIGNED[1:])),
    **dict.fromkeys(("gammainc", "gammaincc", "chdtr", "chdtrc", "stdtr", "zeta", "jv", "yv"), (1.3, POSITIVE)),
    **dict.fromkeys(("iv", "kv"), (1.3, POSITIVE)),
    **dict.fromkeys(("gammaincinv", "gammainccinv", "chdtri", "stdtrit"), (1.3, UNIT)),
    **dict.fromkeys(("betainc", "betaincc", "betaincinv", "betainccinv", "fdtri", "hyp1f1"), (1.3, 2.4, UNIT)),
    **dict.fromkeys(("fdtr", "fdtrc"), (1.3, 2.4, POSITIVE)),
    **dict.fromkeys(("gdtr", "gdtrc"), (UNIT, 2.4, POSITIVE)),
    **dict.fromkeys(("bdtr", "bdtrc", "bdtri"), (2.0, 5, UNIT)),
    **dict.fromkeys(("nbdtr", "nbdtrc", "nbdtri"), (2, 5, UNIT)),
    **dict.fromkeys(("pdtr", "pdtrc", "polygamma", "expn", "yn"), (2, POSITIVE)),
    "erfcinv": (UNIT,),
    "binom": (POSITIVE + 4, POSITIVE),
    "pdtri": (2, UNIT),
    "multigammaln": (POSITIVE + 2, 3),
    "lpmv": (1, 2.5, UNIT),
    "radian": (SIGNED, SIGNED, SIGNED),
}
# SciPy has these in recent versions only.
CALLS = {name: args for name, args in CALLS.items() if hasattr(scipy.special, name)}


def derivative(function: Callable[..., Any], args: tuple[Any, ...], place: int) -> Any:
    """Return the derivative of an elementwise function by one argument, by a difference of fourth order."""

    def at(k: int) -> Any:
        return function(*args[:place], args[place] + k * 1e-3 * width, *args[place + 1 :])

    # SciPy's domains end at 0 and 1.
    width = np.minimum(1.0, 0.5 * np.abs(args[place]))
    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12e-3 * width)


def gradient(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Return the derivative of an elementwise function by one argument, recorded."""

    def total(*args: Any) -> Any:
        out = function(*args)
        return array_namespace(out).sum(out)

    return pb.grad(total, argnums=place)


@pytest.mark.parametrize("name", CALLS)
def test_derivatives(name: str) -> None:
    """Values, first and second derivatives agree with SciPy's values; as ``xp.special`` and as SciPy's function."""
    args, plain = CALLS[name], getattr(scipy.special, name)

    def function(*given: Any) -> Any:
        traced = [x for x in given if hasattr(x, "dtype")]
        return getattr(array_namespace(*traced).special, name)(*given)

    for place in (i for i, x in enumerate(args) if isinstance(x, np.ndarray)):
        first = gradient(function, place)
        np.testing.assert_allclose(first(*args), derivative(plain, args, place), rtol=2e-8, atol=1e-9)
        second = gradient(first, place)(*args)
        np.testing.assert_allclose(second, derivative(first, args, place), rtol=1e-7, atol=1e-7)
        if isinstance(plain, np.ufunc):
            np.testing.assert_array_equal(gradient(plain, place)(*args), first(*args))


REFERENCES: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]] = {
    "erf": (mp.erf, [(-2.3,), (0.0,), (1.5,)]),
    "erfc": (mp.erfc, [(3.0,), (8.0,)]),
    "erfinv": (mp.erfinv, [(0.5,), (-0.99,)]),
    "ndtr": (mp.ncdf, [(-8.0,), (0.3,)]),
    "log_ndtr": (lambda x: mp.log(mp.ncdf(x)), [(-30.0,), (-5.0,), (2.0,)]),
    "expit": (lambda x: 1 / (1 + mp.exp(-x)), [(-40.0,), (0.4,)]),
    "exprel": (lambda x: mp.expm1(x) / x, [(1e-9,), (-0.3,), (2.0,)]),
    "gamma": (mp.gamma, [(0.3,), (-1.5,), (7.0,)]),
    "gammaln": (mp.loggamma, [(0.3,), (40.0,)]),
    "rgamma": (mp.rgamma, [(0.0,), (-2.0,), (-1.5,), (0.7,), (3.0,)]),
    "psi": (mp.digamma, [(0.3,), (12.0,)]),
    "spence": (lambda x: mp.polylog(2, 1 - x), [(1.0,), (1.0 + 1e-6,), (0.97,), (0.2,), (1.9,)]),
    "sinc": (mp.sincpi, [(1e-7,), (0.3,), (0.6,), (2.5,)]),
    "ellipk": (mp.ellipk, [(0.0,), (1e-9,), (-3.0,), (0.5,), (0.999999,)]),
    "ellipe": (mp.ellipe, [(0.0,), (1e-9,), (-3.0,), (0.5,), (0.999999,)]),
    "i1": (lambda x: mp.besseli(1, x), [(0.0,), (1e-6,), (0.9,), (4.0,)]),
    "j1": (lambda x: mp.besselj(1, x), [(0.0,), (1e-6,), (0.9,), (4.0,)]),
    "k1": (lambda x: mp.besselk(1, x), [(0.5,), (4.0,)]),
    "expi": (mp.ei, [(0.5,), (-2.0,)]),
    "exp1": (mp.e1, [(0.5,), (4.0,)]),
    "inv_boxcox": (
        lambda y, k: mp.exp(mp.log1p(k * y) / k) if k else mp.exp(y),
        [(0.6, 1e-9), (0.6, 0.03), (2.0, 0.5)],
    ),
    "boxcox": (lambda x, k: mp.expm1(k * mp.log(x)) / k, [(2.0, 1e-9), (0.3, 0.7)]),
    "pseudo_huber": (lambda d, r: d * d * (mp.sqrt(1 + (r / d) ** 2) - 1), [(1.5, 1e-5), (0.4, -3.0)]),
    "betaln": (lambda a, b: mp.log(mp.beta(a, b)), [(0.5, 3.0)]),
    "gammainc": (lambda a, x: mp.gammainc(a, 0, x, regularized=True), [(2.5, 1.0), (0.5, 7.0)]),
    "betainc": (lambda a, b, x: mp.betainc(a, b, 0, x, regularized=True), [(2.5, 0.5, 0.3)]),
}
LAST_ONLY = {"gammainc", "betainc"}


@pytest.mark.parametrize("name", REFERENCES)
def test_digits(name: str) -> None:
    """First and second derivatives hold the digits of the dtype, at removable singularities and in tails, too."""
    function, points = REFERENCES[name]
    for point in points:
        places = [len(point) - 1] if name in LAST_ONLY else range(len(point))
        for place in places:

            def value(*args: Any) -> Any:
                return getattr(array_namespace(*args).special, name)(*args)

            first = pb.grad(value, argnums=place)
            found = [float(f(*map(np.asarray, point))) for f in (first, pb.grad(first, argnums=place))]
            with mp.workdps(50):
                order = tuple(int(i == place) for i in range(len(point)))
                exact = [
                    mp.diff(function, tuple(map(mpf, point)), tuple(n * k for k in order), h=mpf(10) ** -12)
                    for n in (1, 2)
                ]
            for n, (a, b) in enumerate(zip(found, exact, strict=True)):
                error = abs(mpf(a) - mp.re(b))
                assert error <= 1e-12 * 64**n * (1 + abs(b)), f"{name}{point}, {place}: {a}, {b}"


def test_at_zero_probability() -> None:
    """A weight of zero has no gradient through the logarithm of zero, and the entropy of certainty is finite."""
    zeros = np.zeros(2)
    gradient = pb.grad(lambda y: array_namespace(y).sum(scipy.special.xlogy(zeros, y)))(zeros)
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("name", ["erf", "gamma", "loggamma", "expi", "hyp1f1", "xlogy", "xlog1py", "jv"])
def test_complex(name: str) -> None:
    """The gradient of a holomorphic function takes the conjugate of its derivative."""
    z = np.asarray([0.7 + 0.3j, 1.2 - 0.4j])
    before = {"hyp1f1": (1.3, 2.4), "jv": (1.3,), "xlogy": (z[::-1],), "xlog1py": (z[::-1],)}.get(name, ())
    plain = getattr(scipy.special, name)

    def value(*args: Any) -> Any:
        xp = array_namespace(args[-1])
        return xp.sum(xp.real(getattr(xp.special, name)(*args)))

    place = len(before)
    gradient = pb.grad(value, argnums=place)(*before, z)
    along = derivative(plain, (*before, z), place)
    np.testing.assert_allclose(gradient, np.conj(along), rtol=1e-9)
    if name.startswith("xlog"):
        first = pb.grad(value)(*before, z)
        np.testing.assert_allclose(first, np.conj(derivative(plain, (*before, z), 0)), rtol=1e-9)


def test_order_of_expn_as_array() -> None:
    orders, x = np.asarray([0, 1, 3]), np.asarray([0.4, 0.5, 0.6])
    gradient = pb.grad(lambda x: array_namespace(x).sum(scipy.special.expn(orders, x)))(x)
    np.testing.assert_allclose(gradient, derivative(scipy.special.expn, (orders, x), 1), rtol=1e-9)
    first = pb.grad(lambda y: scipy.special.expn(0, y))
    np.testing.assert_allclose(pb.grad(first)(x[0]), derivative(first, (x[0],), 0), rtol=1e-7)


def test_all_successes_are_certain() -> None:
    gradient = pb.grad(lambda p: scipy.special.bdtr(5.0, 5, p))(np.asarray(0.3))
    assert float(gradient) == 0.0


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda a: scipy.special.gammainc(a, 2.0), "gammainc by its first argument has no derivative"),
        (lambda a: scipy.special.zeta(a, 2.0), "zeta by its first argument"),
        (lambda a: scipy.special.betainc(a, 1.0, 0.5), "betainc by a"),
        (lambda a: scipy.special.struve(1.0, a), "special.struve cannot be differentiated: .* custom_vjp"),
        (lambda a: array_namespace(a).special.zeta(a), "^special.zeta by its first"),
    ],
)
def test_unknown_derivatives_raise(function: Callable[..., Any], match: str) -> None:
    with pytest.raises(NotImplementedError, match=match):
        pb.grad(function)(np.asarray(1.5))


def test_constants_pass_through_functions_without_rule() -> None:
    x = np.asarray(1.5)
    gradient = pb.grad(lambda y: y * scipy.special.struve(1.0, pb.constant(x)))(x)
    assert float(gradient) == scipy.special.struve(1.0, 1.5)
    assert float(pb.grad(lambda y: y * scipy.special.gammasgn(y))(np.asarray(-0.5))) == -1.0


def test_the_library_of_the_values() -> None:
    """Without SciPy there are no special functions; nothing is imported for their sake."""
    code = (
        "import sys, numpy, pullback\n"
        "from array_api_compat import array_namespace as ns\n"
        "pullback.vjp(lambda x: (setattr(sys, 'found', hasattr(ns(x).special, 'erf')), x)[1], numpy.ones(2))\n"
        "assert not sys.found and not any(name.startswith('scipy') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_functions_of_the_library_itself() -> None:
    own = SimpleNamespace(erf=abs)
    assert LibrarySpecial(SimpleNamespace(special=own)).erf is abs
    with pytest.raises(AttributeError, match="no_such_function"):
        LibrarySpecial(np).no_such_function  # noqa: B018


@pytest.mark.parametrize("found", [np.float64(1.0), None])
def test_values_of_another_library_are_refused(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    """SciPy's compiled functions turn arrays of other libraries into NumPy's or fail, unless told to ask for others."""

    def compiled(x: Any) -> Any:
        if found is None:
            raise TypeError(x)
        return found

    monkeypatch.setattr(scipy.special, "erf", compiled)
    with pytest.raises(TypeError, match="SCIPY_ARRAY_API=1"):
        LibrarySpecial(array_api_strict).erf(array_api_strict.asarray(0.5))


def test_every_rule_is_tested() -> None:
    names = {name.removeprefix("special.") for name in (*RULES, *UNARY) if name.startswith("special.")}
    known = {name for name in names if hasattr(scipy.special, name)}
    assert known == set(CALLS)
    assert "special.gammasgn" in WITHOUT_DERIVATIVE
