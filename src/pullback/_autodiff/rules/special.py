"""Special functions: derivatives of the functions of ``scipy.special`` by their names.

The standard has no special functions. SciPy asks the namespace of its arguments for them, as ``xp.special``, before it
falls back to what takes NumPy arrays only; a traced namespace therefore has that extension for every library. It finds
the values by the same question, asked of the library: its own ``special`` where it has one, and otherwise those of
``scipy.special``, if the program has imported it, which finds the functions of each library in turn. So no rule asks
which library an array is of, and this package needs no SciPy.

The derivatives follow the NIST Digital Library of Mathematical Functions (DLMF); its sections stand at the groups.
Where a formula cancels near a removable singularity, a power series takes its place there, right to all orders.
"""

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from array_api_compat import array_namespace

from pullback._autodiff.rules.elementwise import as_array
from pullback._autodiff.rules.registry import RULES, UNARY, WITHOUT_DERIVATIVE, Unary, in_extension
from pullback._autodiff.rules.strong import conj, strong_divide, strong_log, strong_multiply
from pullback._autodiff.typing import Array
from pullback._core.dtypes import is_complex
from pullback._core.typing import Namespace

Derivative = Callable[..., Any]
_DEGREE = math.pi / 180
_ROOT_2_PI = math.sqrt(2 * math.pi)
_ROOT_PI = math.sqrt(math.pi)


class LibrarySpecial:
    """The special functions for the arrays of one library."""

    def __init__(self, raw: Namespace, /) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Look a function up."""
        own = getattr(getattr(self._raw, "special", None), name, None)
        if own is not None:
            return own
        plain = getattr(sys.modules.get("scipy.special"), name, None)
        if plain is None:
            raise AttributeError(name)
        return functools.partial(_checked, self._raw, plain, name)


def _checked(raw: Namespace, plain: Callable[..., Any], name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function of SciPy, which returns NumPy arrays for those of other libraries unless it is told not to."""
    try:
        out = plain(*args, **kwargs)
        if not hasattr(out, "dtype") or array_namespace(out) is raw:
            return out
        cause: Any = TypeError(f"it returned {type(out).__name__}")
    except TypeError as error:
        cause = error
    msg = (
        f"scipy.special.{name} does not take these arrays of {raw.__name__}: {cause}. For arrays of other libraries "
        "than NumPy, set the environment variable SCIPY_ARRAY_API=1 before SciPy is imported"
    )
    raise TypeError(msg) from cause


@functools.cache
def _of_library(raw: Namespace, /) -> LibrarySpecial:
    return LibrarySpecial(raw)


def special(xp: Namespace, /) -> Any:
    """Return the special functions of a namespace, traced or a library's."""
    return xp.special if hasattr(xp, "depth") else _of_library(xp)


def _unary(saves: str, /, **derivatives: Derivative) -> None:
    """Register functions of one array: ``derivative(xp, special, saved)``, of the argument or of the value."""
    for name, derivative in derivatives.items():
        UNARY[f"special.{name}"] = Unary(functools.partial(_pull_unary, derivative), saves, None)


def _pull_unary(derivative: Derivative, xp: Namespace, g: Array, saved: Array, /) -> Array:
    return strong_multiply(xp, g, derivative(xp, special(xp), saved))


def _nary(name: str, /, *derivatives: Derivative | str | None) -> None:
    """Register a function of several arrays by a derivative for each: ``derivative(xp, special, *arguments)``.

    None stands for an argument on which the value depends in steps, and a name for one without a known derivative.
    """
    RULES[f"special.{name}"] = functools.partial(_record_nary, name, derivatives)


def _record_nary(name: str, derivatives: Sequence[Any], xp: Namespace, /, *args: Any) -> Any:
    out = getattr(special(xp), name)(*args)
    return out, *(_pull_of(name, d, args) for d in derivatives)


def _pull_of(name: str, derivative: Any, args: tuple[Any, ...], /) -> Any:
    if derivative is None:
        return None
    return (_unknown, f"{name} by {derivative}") if isinstance(derivative, str) else (_pull_nary, derivative, *args)


def _pull_nary(xp: Namespace, g: Array, derivative: Derivative, /, *args: Any) -> Array:
    args = tuple(_array(xp, x, g) for x in args)
    return strong_multiply(xp, g, conj(xp, derivative(xp, special(xp), *args)))


def _inverse(name: str, /, *unknown: str | None, density: Derivative) -> None:
    """Register an inverse of a distribution: ``density(xp, special, *parameters, value)`` is what it divides by."""
    RULES[f"special.{name}"] = functools.partial(_record_inverse, name, unknown, density)


def _record_inverse(name: str, unknown: Sequence[str | None], density: Derivative, xp: Namespace, /, *args: Any) -> Any:
    out = getattr(special(xp), name)(*args)
    return out, *(_pull_of(name, u, args) for u in unknown), (_pull_inverse, density, *args[:-1], out)


def _pull_inverse(xp: Namespace, g: Array, density: Derivative, /, *args: Any) -> Array:
    args = tuple(_array(xp, x, g) for x in args)
    return strong_divide(xp, g, density(xp, special(xp), *args))


def _unknown(_: Namespace, g: Array, what: str, /) -> Array:
    del g
    msg = (
        f"special.{what} has no derivative here: SciPy has no function for it. Hold that argument constant with "
        "stop_gradient, or give the function a derivative with custom_vjp"
    )
    raise NotImplementedError(msg)


def _array(xp: Namespace, x: Any, g: Array, /) -> Array:
    """Return an argument in the precision of the cotangent, real if it is real; a number as an array of that shape."""
    if is_complex(xp, g.dtype) and (isinstance(x, int | float) or not is_complex(xp, x.dtype)):
        g = xp.real(g)
    return as_array(xp, x, g)


def _polynomial(x: Array, series: Sequence[float], /) -> Array:
    """Sum a power series, by Horner's rule."""
    total: Any = x * series[-1]
    for coefficient in series[-2:0:-1]:
        total = (total + coefficient) * x
    return total + series[0]


def _near_zero(
    xp: Namespace, x: Array, limit: float, series: Sequence[float], formula: Callable[[Array], Array], /
) -> Array:
    """Return a power series where ``|x| < limit``, and elsewhere a formula that cancels there."""
    near = xp.abs(x) < limit
    return xp.where(near, _polynomial(xp.where(near, x, 0), series), formula(xp.where(near, limit, x)))


# Error functions and the normal distribution: DLMF 7.2, 7.10.1, 7.17.

_unary(
    "x",
    erf=lambda xp, _, x: xp.exp(-x * x) * (2 / _ROOT_PI),
    erfc=lambda xp, _, x: xp.exp(-x * x) * (-2 / _ROOT_PI),
    erfcx=lambda xp, s, x: 2 * x * s.erfcx(x) - 2 / _ROOT_PI,
    dawsn=lambda xp, s, x: 1 - 2 * x * s.dawsn(x),
    ndtr=lambda xp, _, x: xp.exp(-x * x / 2) / _ROOT_2_PI,
    log_ndtr=lambda xp, s, x: xp.exp(-x * x / 2 - s.log_ndtr(x)) / _ROOT_2_PI,
)
_unary(
    "out",
    erfinv=lambda xp, _, y: xp.exp(y * y) * (_ROOT_PI / 2),
    erfcinv=lambda xp, _, y: xp.exp(y * y) * (-_ROOT_PI / 2),
    ndtri=lambda xp, _, y: xp.exp(y * y / 2) * _ROOT_2_PI,
)

# Exponentials, logarithms and the logistic function.

_unary(
    "x",
    expit=lambda xp, s, x: s.expit(x) * s.expit(-x),
    log_expit=lambda xp, s, x: s.expit(-x),
    logit=lambda xp, _, x: 1 / (x * (1 - x)),
    softplus=lambda xp, s, x: s.expit(x),
    exprel=lambda xp, s, x: _exprel(s, x),
    cosm1=lambda xp, _, x: -xp.sin(x),
    entr=lambda xp, _, x: -xp.log(x) - 1,
)
_unary(
    "out",
    cbrt=lambda xp, _, y: 1 / (3 * y * y),
    exp2=lambda xp, _, y: y * math.log(2),
    exp10=lambda xp, _, y: y * math.log(10),
)


def _exprel(s: Any, x: Array, /) -> Array:
    """Differentiate ``(exp(x) - 1) / x = M(1, 2, x)``: DLMF 13.3.15."""
    return s.hyp1f1(2.0, 3.0, x) / 2


@in_extension("special")
def xlogy(xp: Namespace, x: Any, y: Any, /) -> Any:
    return special(xp).xlogy(x, y), (_xlogy_x, y), (_xlogy_y, x, y)


def _xlogy_x(xp: Namespace, g: Array, y: Any, /) -> Array:
    return strong_log(xp, g, conj(xp, _array(xp, y, g)))


def _xlogy_y(xp: Namespace, g: Array, x: Any, y: Array, /) -> Array:
    return strong_divide(xp, g * conj(xp, _array(xp, x, g)), conj(xp, y))


@in_extension("special")
def xlog1py(xp: Namespace, x: Any, y: Any, /) -> Any:
    return special(xp).xlog1py(x, y), (_xlog1py_x, y), (_xlog1py_y, x, y)


def _xlog1py_x(xp: Namespace, g: Array, y: Any, /) -> Array:
    return strong_multiply(xp, g, conj(xp, xp.log1p(_array(xp, y, g))))


def _xlog1py_y(xp: Namespace, g: Array, x: Any, y: Array, /) -> Array:
    return strong_divide(xp, g * conj(xp, _array(xp, x, g)), 1 + conj(xp, y))


_nary("rel_entr", lambda xp, _, x, y: xp.log(x / y) + 1, lambda xp, _, x, y: -x / y)
_nary("kl_div", lambda xp, _, x, y: xp.log(x / y), lambda xp, _, x, y: 1 - x / y)

# Losses.

_nary(
    "huber",
    lambda xp, _, d, r: xp.maximum(xp.abs(r) - d, xp.zeros_like(d)),
    lambda xp, _, d, r: xp.where(xp.abs(r) <= d, r, d * xp.sign(r)),
)


def _pseudo_huber_delta(xp: Namespace, _: Any, d: Array, r: Array, /) -> Array:
    square = (r / d) ** 2
    root = xp.sqrt(1 + square)
    return d * square**2 / (root * (root + 1) ** 2)


_nary("pseudo_huber", _pseudo_huber_delta, lambda xp, _, d, r: r / xp.sqrt(1 + (r / d) ** 2))

# Box-Cox transforms, of which λ = 0 is no exception: log(x) M(1, 2, λ log(x)).

_RATE = [(-1) ** k * k / (k + 1) for k in range(1, 16)]


def _log_ratio(xp: Namespace, u: Array, /) -> Array:
    """Differentiate ``log(1 + u) / u``."""
    return _near_zero(xp, u, 0.05, _RATE, lambda v: (v / (1 + v) - xp.log1p(v)) / (v * v))


_nary(
    "boxcox",
    lambda xp, _, x, k: x ** (k - 1),
    lambda xp, s, x, k: xp.log(x) ** 2 * _exprel(s, k * xp.log(x)),
)
_nary(
    "boxcox1p",
    lambda xp, _, x, k: (1 + x) ** (k - 1),
    lambda xp, s, x, k: xp.log1p(x) ** 2 * _exprel(s, k * xp.log1p(x)),
)
_nary(
    "inv_boxcox",
    lambda xp, s, y, k: s.inv_boxcox(y, k) / (1 + k * y),
    lambda xp, s, y, k: s.inv_boxcox(y, k) * (y * y * _log_ratio(xp, k * y)),
)
_nary(
    "inv_boxcox1p",
    lambda xp, s, y, k: (1 + s.inv_boxcox1p(y, k)) / (1 + k * y),
    lambda xp, s, y, k: (1 + s.inv_boxcox1p(y, k)) * (y * y * _log_ratio(xp, k * y)),
)

# The gamma function and its kin: DLMF 5.2, 5.4, 5.12, 5.15.


def _rgamma(xp: Namespace, s: Any, x: Array, /) -> Array:
    """Differentiate ``1 / Γ``: by its reflection on the left, where the poles of ψ meet its zeros (DLMF 5.5.3)."""
    left = x < 0.5
    y, z = xp.where(left, 1 - x, 1), xp.where(left, 1, x)
    turned = s.gamma(y) * (xp.cos(math.pi * x) - xp.sin(math.pi * x) * s.psi(y) / math.pi)
    return xp.where(left, turned, -s.psi(z) * s.rgamma(z))


WITHOUT_DERIVATIVE.add("special.gammasgn")
_unary(
    "x",
    gamma=lambda xp, s, x: s.gamma(x) * s.psi(x),
    gammaln=lambda xp, s, x: s.psi(x),
    loggamma=lambda xp, s, x: s.psi(x),
    psi=lambda xp, s, x: s.polygamma(1, x),
    digamma=lambda xp, s, x: s.polygamma(1, x),
    rgamma=_rgamma,
)


@in_extension("special")
def polygamma(xp: Namespace, n: Any, x: Array, /) -> Any:
    return special(xp).polygamma(n, x), None, (_polygamma, n, x)


def _polygamma(xp: Namespace, g: Array, n: Any, x: Array, /) -> Array:
    return strong_multiply(xp, g, special(xp).polygamma(n + 1, x))


@in_extension("special")
def multigammaln(xp: Namespace, a: Array, d: Any, /) -> Any:
    return special(xp).multigammaln(a, d), (_multigammaln, a, d)


def _multigammaln(xp: Namespace, g: Array, a: Array, d: Any, /) -> Array:
    s = special(xp)
    total = s.psi(a)
    for j in range(1, int(d)):
        total = total + s.psi(a - j / 2)
    return strong_multiply(xp, g, total)


_nary(
    "beta",
    lambda xp, s, a, b: s.beta(a, b) * (s.psi(a) - s.psi(a + b)),
    lambda xp, s, a, b: s.beta(a, b) * (s.psi(b) - s.psi(a + b)),
)
_nary("betaln", lambda xp, s, a, b: s.psi(a) - s.psi(a + b), lambda xp, s, a, b: s.psi(b) - s.psi(a + b))
_nary(
    "binom",
    lambda xp, s, n, k: s.binom(n, k) * (s.psi(n + 1) - s.psi(n - k + 1)),
    lambda xp, s, n, k: s.binom(n, k) * (s.psi(n - k + 1) - s.psi(k + 1)),
)
_nary(
    "poch",
    lambda xp, s, z, m: s.poch(z, m) * (s.psi(z + m) - s.psi(z)),
    lambda xp, s, z, m: s.poch(z, m) * s.psi(z + m),
)


@in_extension("special")
def zeta(xp: Namespace, x: Any, q: Any = None, /) -> Any:
    args = (x,) if q is None else (x, q)
    return special(xp).zeta(*args), (_unknown, "zeta by its first argument"), (_pull_nary, _zeta_q, *args)


def _zeta_q(xp: Namespace, s: Any, x: Array, q: Array, /) -> Array:
    return -x * s.zeta(x + 1, q)


# Distributions by incomplete gamma and beta functions: DLMF 8.8.13, 8.17.20. Their densities are the derivatives.


def _gamma_density(xp: Namespace, s: Any, a: Array, x: Array, /) -> Array:
    return xp.exp(s.xlogy(a - 1, x) - x - s.gammaln(a))


def _beta_density(xp: Namespace, s: Any, a: Array, b: Array, x: Array, /) -> Array:
    log_beta = s.gammaln(a) + s.gammaln(b) - s.gammaln(a + b)
    return xp.exp(s.xlogy(a - 1, x) + s.xlog1py(b - 1, -x) - log_beta)


_nary("gammainc", "its first argument", _gamma_density)
_nary("gammaincc", "its first argument", lambda xp, s, a, x: -_gamma_density(xp, s, a, x))
_inverse("gammaincinv", "its first argument", density=_gamma_density)
_inverse("gammainccinv", "its first argument", density=lambda xp, s, *given: -_gamma_density(xp, s, *given))
_nary("betainc", "a", "b", _beta_density)
_nary("betaincc", "a", "b", lambda xp, s, a, b, x: -_beta_density(xp, s, a, b, x))
_inverse("betaincinv", "a", "b", density=_beta_density)
_inverse("betainccinv", "a", "b", density=lambda xp, s, *given: -_beta_density(xp, s, *given))


def _chi2(xp: Namespace, s: Any, v: Array, x: Array, /) -> Array:
    return _gamma_density(xp, s, v / 2, x / 2) / 2


_nary("chdtr", "v", _chi2)
_nary("chdtrc", "v", lambda xp, s, v, x: -_chi2(xp, s, v, x))
_inverse("chdtri", "v", density=lambda xp, s, *given: -_chi2(xp, s, *given))


def _f(xp: Namespace, s: Any, m: Array, n: Array, x: Array, /) -> Array:
    whole = m * x + n
    return _beta_density(xp, s, m / 2, n / 2, m * x / whole) * (m * n / whole**2)


_nary("fdtr", "dfn", "dfd", _f)
_nary("fdtrc", "dfn", "dfd", lambda xp, s, m, n, x: -_f(xp, s, m, n, x))
_inverse("fdtri", "dfn", "dfd", density=_f)
for _name, _sign in (("gdtr", 1), ("gdtrc", -1)):
    _nary(
        _name,
        lambda xp, s, a, b, x, sign=_sign: sign * x * _gamma_density(xp, s, b, a * x),
        "b",
        lambda xp, s, a, b, x, sign=_sign: sign * a * _gamma_density(xp, s, b, a * x),
    )


def _student(xp: Namespace, s: Any, n: Array, t: Array, /) -> Array:
    scale = s.gammaln((n + 1) / 2) - s.gammaln(n / 2)
    return xp.exp(scale - (n + 1) / 2 * xp.log1p(t * t / n)) / xp.sqrt(math.pi * n)


_nary("stdtr", "df", _student)
_inverse("stdtrit", "df", density=_student)


def _binomial(xp: Namespace, s: Any, k: Array, n: Array, p: Array, /) -> Array:
    """Differentiate the binomial distribution up to `k` by the probability; it is 1 where `k` is `n`."""
    k = xp.floor(k)
    inside = k < n
    return xp.where(inside, -_beta_density(xp, s, k + 1, xp.where(inside, n - k, 1), p), 0)


def _negative_binomial(xp: Namespace, s: Any, k: Array, n: Array, p: Array, /) -> Array:
    return _beta_density(xp, s, n, xp.floor(k) + 1, p)


_nary("bdtr", None, None, _binomial)
_nary("bdtrc", None, None, lambda xp, s, k, n, p: -_binomial(xp, s, k, n, p))
_inverse("bdtri", None, None, density=_binomial)
_nary("nbdtr", None, None, _negative_binomial)
_nary("nbdtrc", None, None, lambda xp, s, k, n, p: -_negative_binomial(xp, s, k, n, p))
_inverse("nbdtri", None, None, density=_negative_binomial)


def _poisson(xp: Namespace, s: Any, k: Array, m: Array, /) -> Array:
    return _gamma_density(xp, s, xp.floor(k) + 1, m)


_nary("pdtr", None, lambda xp, s, k, m: -_poisson(xp, s, k, m))
_nary("pdtrc", None, _poisson)
_inverse("pdtri", None, density=lambda xp, s, *given: -_poisson(xp, s, *given))

# Exponential integrals and the dilogarithm: DLMF 6.2, 8.19.13, 25.12.2.

_unary(
    "x",
    exp1=lambda xp, _, x: -xp.exp(-x) / x,
    expi=lambda xp, _, x: xp.exp(x) / x,
    spence=lambda xp, _, x: (
        -_near_zero(xp, x - 1, 0.05, [(-1) ** k / (k + 1) for k in range(16)], lambda u: xp.log1p(u) / u)
    ),
)


@in_extension("special")
def expn(xp: Namespace, n: Any, x: Array, /) -> Any:
    return special(xp).expn(n, x), None, (_expn, n, x)


def _expn(xp: Namespace, g: Array, n: Any, x: Array, /) -> Array:
    order = _array(xp, n, x)
    lower = max(n - 1, 0) if isinstance(n, int) else xp.maximum(n - 1, xp.zeros_like(n))
    return strong_multiply(xp, g, -xp.where(order >= 1, special(xp).expn(lower, x), xp.exp(-x) * (1 + 1 / x) / x))


# Bessel functions: DLMF 10.6, 10.29.


def _over(xp: Namespace, x: Array, sign: int, formula: Callable[[Array], Array], /) -> Array:
    """Return ``j1(x) / x`` with the sign -1 and ``i1(x) / x`` with 1: DLMF 10.2.2, 10.25.2."""
    series = [sign**k / (2 * 4**k * math.factorial(k) * math.factorial(k + 1)) for k in range(12)]
    near = xp.abs(x) < 1
    small, y = xp.where(near, x, 0), xp.where(near, 1, x)
    return xp.where(near, _polynomial(small * small, series), formula(y) / y)


def _scaled_over(xp: Namespace, s: Any, x: Array, /) -> Array:
    near = xp.abs(x) < 1
    small = xp.where(near, x, 0)
    return xp.where(near, xp.exp(-xp.abs(small)) * _over(xp, small, 1, s.i1), s.i1e(x) / xp.where(near, 1, x))


_unary(
    "x",
    i0=lambda xp, s, x: s.i1(x),
    i0e=lambda xp, s, x: s.i1e(x) - xp.sign(x) * s.i0e(x),
    i1=lambda xp, s, x: s.i0(x) - _over(xp, x, 1, s.i1),
    i1e=lambda xp, s, x: s.i0e(x) - _scaled_over(xp, s, x) - xp.sign(x) * s.i1e(x),
    j0=lambda xp, s, x: -s.j1(x),
    j1=lambda xp, s, x: s.j0(x) - _over(xp, x, -1, s.j1),
    y0=lambda xp, s, x: -s.y1(x),
    y1=lambda xp, s, x: s.y0(x) - s.y1(x) / x,
    k0=lambda xp, s, x: -s.k1(x),
    k0e=lambda xp, s, x: s.k0e(x) - s.k1e(x),
    k1=lambda xp, s, x: -s.k0(x) - s.k1(x) / x,
    k1e=lambda xp, s, x: s.k1e(x) - s.k0e(x) - s.k1e(x) / x,
)
_nary("jv", "its order", lambda xp, s, v, x: (s.jv(v - 1, x) - s.jv(v + 1, x)) / 2)
_nary("yv", "its order", lambda xp, s, v, x: (s.yv(v - 1, x) - s.yv(v + 1, x)) / 2)
_nary("iv", "its order", lambda xp, s, v, x: (s.iv(v - 1, x) + s.iv(v + 1, x)) / 2)
_nary("kv", "its order", lambda xp, s, v, x: -(s.kv(v - 1, x) + s.kv(v + 1, x)) / 2)


@in_extension("special")
def yn(xp: Namespace, n: Any, x: Array, /) -> Any:
    return special(xp).yn(n, x), None, (_yn, n, x)


def _yn(xp: Namespace, g: Array, n: Any, x: Array, /) -> Array:
    s = special(xp)
    return strong_multiply(xp, g, _array(xp, n, x) * s.yn(n, x) / x - s.yn(n + 1, x))


# Hypergeometric and Legendre functions, elliptic integrals: DLMF 13.3.15, 14.10.5, 19.4.1, 19.8.


@in_extension("special")
def hyp1f1(xp: Namespace, a: Any, b: Any, x: Array, /) -> Any:
    out = special(xp).hyp1f1(a, b, x)
    return out, (_unknown, "hyp1f1 by a"), (_unknown, "hyp1f1 by b"), (_hyp1f1, a, b, x)


def _hyp1f1(xp: Namespace, g: Array, a: Any, b: Any, x: Array, /) -> Array:
    derivative = special(xp).hyp1f1(a + 1, b + 1, x) * (_array(xp, a, g) / _array(xp, b, g))
    return strong_multiply(xp, g, conj(xp, derivative))


@in_extension("special")
def lpmv(xp: Namespace, m: Any, v: Any, x: Array, /) -> Any:
    return special(xp).lpmv(m, v, x), None, (_unknown, "lpmv by its degree"), (_lpmv, m, v, x)


def _lpmv(xp: Namespace, g: Array, m: Any, v: Any, x: Array, /) -> Array:
    s = special(xp)
    order, degree = _array(xp, m, x), _array(xp, v, x)
    above = degree * x * s.lpmv(m, v, x) - (degree + order) * s.lpmv(m, v - 1, x)
    return strong_multiply(xp, g, above / (x * x - 1))


def _mean(xp: Namespace, m: Array, root: Array, /) -> tuple[Array, Array]:
    """Return K and ``Σ 2ⁿ c(n)² / m``, n ≥ 1, by the arithmetic-geometric mean of 1 and ``root = √(1 - m)``."""
    a, b = (1 + root) / 2, xp.sqrt(root)
    c = 1 / (2 * (1 + root))  # c(n) / m, which does not cancel at m = 0
    factor = 2.0
    total = factor * m * c * c
    for _ in range(7):
        a, b = (a + b) / 2, xp.sqrt(a * b)
        c = m * c * c / (4 * a)
        factor *= 2
        total = total + factor * m * c * c
    return math.pi / (a + b), total


def _ellipk(xp: Namespace, m: Array, rest: Array, /) -> Array:
    whole, total = _mean(xp, m, xp.sqrt(rest))
    return whole * (1 - total) / (4 * rest)


def _ellipe(xp: Namespace, m: Array, /) -> Array:
    whole, total = _mean(xp, m, xp.sqrt(1 - m))
    return -whole * (1 + total) / 4


def _sinc(xp: Namespace, x: Array, /) -> Array:
    """Differentiate ``sin(π x) / (π x)``."""
    series = [(-1) ** k * 2 * k * math.pi ** (2 * k) / math.factorial(2 * k + 1) for k in range(1, 15)]
    near = xp.abs(x) < 0.5
    y = xp.where(near, 0.5, x)
    small = xp.where(near, x, 0)
    far = xp.cos(math.pi * y) / y - xp.sin(math.pi * y) / (math.pi * y * y)
    return xp.where(near, small * _polynomial(small * small, series), far)


_unary(
    "x",
    ellipk=lambda xp, _, m: _ellipk(xp, m, 1 - m),
    ellipkm1=lambda xp, _, p: -_ellipk(xp, 1 - p, p),
    ellipe=lambda xp, _, m: _ellipe(xp, m),
    sinc=lambda xp, _, x: _sinc(xp, x),
)

# Angles in degrees.

_unary(
    "x",
    sindg=lambda xp, s, x: s.cosdg(x) * _DEGREE,
    cosdg=lambda xp, s, x: s.sindg(x) * -_DEGREE,
)
_unary(
    "out",
    tandg=lambda xp, _, y: (1 + y * y) * _DEGREE,
    cotdg=lambda xp, _, y: (1 + y * y) * -_DEGREE,
)
_nary(
    "radian",
    lambda xp, _, d, m, s: xp.full_like(d, _DEGREE),
    lambda xp, _, d, m, s: xp.full_like(d, _DEGREE / 60),
    lambda xp, _, d, m, s: xp.full_like(d, _DEGREE / 3600),
)
