"""Products of arrays, and the linear algebra of the standard's extension.

The derivatives of factorizations are those of M. B. Giles, "Collected matrix derivative results for forward and reverse
mode algorithmic differentiation", 2008, in the form that holds for complex arrays. Where a factor is determined up to a
phase only, as singular vectors are, the derivative is right for functions that do not depend on the phase.
"""

from collections.abc import Callable
from typing import Any

from pullback._autodiff.rules.registry import WITHOUT_DERIVATIVE, in_extension, rule
from pullback._autodiff.rules.strong import conj, strong_divide
from pullback._autodiff.shapes import keep_dims
from pullback._autodiff.typing import Array
from pullback._core.dtypes import is_complex
from pullback._core.memory import place
from pullback._core.reductions import contract_rows, product
from pullback._core.typing import Namespace

WITHOUT_DERIVATIVE.add("linalg.matrix_rank")
_NULL_SPACE = "cannot be differentiated, since a basis of the null space is not unique. Call it with"

linalg = in_extension("linalg")


@rule
def matmul(xp: Namespace, x1: Array, x2: Array, /) -> Any:
    return xp.matmul(x1, x2), (_matmul_x1, x2, x1.ndim), (_matmul_x2, x1, x2.ndim)


def _matmul_x1(xp: Namespace, g: Array, x2: Array, ndim: int, /) -> Array:
    x2 = conj(xp, x2)
    if x2.ndim == 1:
        return xp.expand_dims(g, axis=-1) * x2
    if ndim == 1:
        return xp.squeeze(xp.expand_dims(g, axis=-2) @ xp.matrix_transpose(x2), axis=-2)
    return product(xp, g, x2.T) if x2.ndim == 2 else g @ xp.matrix_transpose(x2)


def _matmul_x2(xp: Namespace, g: Array, x1: Array, ndim: int, /) -> Array:
    x1 = conj(xp, x1)
    if x1.ndim == 1:
        return g * x1 if ndim == 1 else xp.expand_dims(x1, axis=-1) * xp.expand_dims(g, axis=-2)
    if ndim == 1:
        return xp.squeeze(contract_rows(xp, x1, xp.expand_dims(g, axis=-1)), axis=-1)
    return contract_rows(xp, x1, g) if ndim == 2 else xp.matrix_transpose(x1) @ g


@rule
def vecdot(xp: Namespace, x1: Array, x2: Array, /, *, axis: int = -1) -> Any:
    return xp.vecdot(x1, x2, axis=axis), (_vecdot_x1, x2, axis), (_vecdot_x2, x1, axis)


def _vecdot_x1(xp: Namespace, g: Array, x2: Array, axis: int, /) -> Array:
    return conj(xp, xp.expand_dims(g, axis=axis)) * x2


def _vecdot_x2(xp: Namespace, g: Array, x1: Array, axis: int, /) -> Array:
    return xp.expand_dims(g, axis=axis) * x1


@rule
def tensordot(xp: Namespace, x1: Array, x2: Array, /, *, axes: Any = 2) -> Any:
    if isinstance(axes, int):
        of_x1, of_x2 = list(range(x1.ndim - axes, x1.ndim)), list(range(axes))
    else:
        of_x1, of_x2 = ([a % x.ndim for a in of_x] for a, x, of_x in ((0, x1, axes[0]), (0, x2, axes[1])))
    out = xp.tensordot(x1, x2, axes=axes)
    return out, (_tensordot_x1, x2, of_x1, of_x2), (_tensordot_x2, x1, of_x1, of_x2)


def _tensordot_x1(xp: Namespace, g: Array, x2: Array, of_x1: list[int], of_x2: list[int], /) -> Array:
    rest = [a for a in range(x2.ndim) if a not in of_x2]
    free = g.ndim - len(rest)
    out = xp.tensordot(g, conj(xp, x2), axes=(tuple(range(free, g.ndim)), tuple(rest)))
    places = [a for a in range(free + len(of_x1)) if a not in of_x1] + [of_x1[of_x2.index(a)] for a in sorted(of_x2)]
    return xp.permute_dims(out, tuple(places.index(a) for a in range(len(places))))


def _tensordot_x2(xp: Namespace, g: Array, x1: Array, of_x1: list[int], of_x2: list[int], /) -> Array:
    free = [a for a in range(x1.ndim) if a not in of_x1]
    out = xp.tensordot(conj(xp, x1), g, axes=(tuple(free), tuple(range(len(free)))))
    count = g.ndim - len(free) + len(of_x2)
    places = [of_x2[of_x1.index(a)] for a in sorted(of_x1)] + [a for a in range(count) if a not in of_x2]
    return xp.permute_dims(out, tuple(places.index(a) for a in range(count)))


@linalg
def outer(xp: Namespace, x1: Array, x2: Array, /) -> Any:
    return xp.linalg.outer(x1, x2), (_outer_x1, x2), (_outer_x2, x1)


def _outer_x1(xp: Namespace, g: Array, x2: Array, /) -> Array:
    return g @ conj(xp, x2)


def _outer_x2(xp: Namespace, g: Array, x1: Array, /) -> Array:
    return conj(xp, x1) @ g


@linalg
def cross(xp: Namespace, x1: Array, x2: Array, /, *, axis: int = -1) -> Any:
    return xp.linalg.cross(x1, x2, axis=axis), (_cross_x1, x2, axis), (_cross_x2, x1, axis)


def _cross_x1(xp: Namespace, g: Array, x2: Array, axis: int, /) -> Array:
    return xp.linalg.cross(conj(xp, x2), g, axis=axis)


def _cross_x2(xp: Namespace, g: Array, x1: Array, axis: int, /) -> Array:
    return xp.linalg.cross(g, conj(xp, x1), axis=axis)


@linalg
def diagonal(xp: Namespace, x: Array, /, *, offset: int = 0) -> Any:
    return xp.linalg.diagonal(x, offset=offset), (_on_diagonal, tuple(x.shape[-2:]), offset)


def _on_diagonal(xp: Namespace, g: Array, shape: tuple[int, int], offset: int, /) -> Array:
    """Return matrices of zeros with `g` on a diagonal."""
    missing = (shape[0] if offset >= 0 else shape[1]) - g.shape[-1]
    if missing:
        g = xp.concat([g, xp.zeros((*g.shape[:-1], missing), dtype=g.dtype, **place(g))], axis=-1)
    on = xp.eye(*shape, k=offset, dtype=xp.bool, **place(g))
    return xp.where(on, xp.expand_dims(g, axis=-1 if offset >= 0 else -2), xp.zeros_like(g[..., :1, None]))


@linalg
def trace(xp: Namespace, x: Array, /, *, offset: int = 0, dtype: Any = None) -> Any:
    return xp.linalg.trace(x, offset=offset, dtype=dtype), (_trace, tuple(x.shape[-2:]), offset)


def _trace(xp: Namespace, g: Array, shape: tuple[int, int], offset: int, /) -> Array:
    on = xp.eye(*shape, k=offset, dtype=xp.bool, **place(g))
    g = g[..., None, None]
    return xp.where(on, g, xp.zeros_like(g))


def adjoint(xp: Namespace, x: Array, /) -> Array:
    """Return the conjugate transpose of matrices."""
    return conj(xp, xp.matrix_transpose(x))


@linalg
def matrix_power(xp: Namespace, x: Array, n: int, /) -> Any:
    return xp.linalg.matrix_power(x, n), (_matrix_power, x, n)


def _matrix_power(xp: Namespace, g: Array, x: Array, n: int, /) -> Array:
    if n < 0:
        inverse = xp.linalg.inv(x)
        return _inv(xp, _matrix_power(xp, g, inverse, -n), inverse)
    total = xp.zeros_like(g)
    powers = [xp.linalg.matrix_power(adjoint(xp, x), k) for k in range(n)]
    for k in range(n):
        total = total + powers[k] @ g @ powers[n - 1 - k]
    return total


@linalg
def inv(xp: Namespace, x: Array, /) -> Any:
    out = xp.linalg.inv(x)
    return out, (_inv, out)


def _inv(xp: Namespace, g: Array, out: Array, /) -> Array:
    out = adjoint(xp, out)
    return -(out @ g @ out)


@linalg
def det(xp: Namespace, x: Array, /) -> Any:
    return xp.linalg.det(x), (_det, x)


def _det(xp: Namespace, g: Array, x: Array, /) -> Array:
    """Pull back by the adjugate, by singular values: ``adj(x) = det(u vᴴ) v adj(s) uᴴ``; right at singular matrices."""
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    phase = xp.linalg.det(u) * xp.linalg.det(vh)
    n = s.shape[-1]
    others = xp.where(xp.eye(n, dtype=xp.bool, **place(s)), xp.ones_like(s[..., None, :]), s[..., None, :])
    cofactors = (u * xp.expand_dims(xp.astype(xp.prod(others, axis=-1), u.dtype), axis=-2)) @ vh
    return (g * conj(xp, phase))[..., None, None] * cofactors


@linalg
def slogdet(xp: Namespace, x: Array, /) -> Any:
    out = xp.linalg.slogdet(x)
    return out, (_slogdet, x, out[0])


def _slogdet(xp: Namespace, gs: tuple[Array, Array], x: Array, sign: Array, /) -> Array:
    of_sign, of_log = gs
    if is_complex(xp, x.dtype):
        turned = xp.real(xp.conj(of_sign) * sign * 1j)
        of_log = xp.astype(of_log, sign.dtype) + xp.astype(turned, sign.dtype) * 1j
    return of_log[..., None, None] * adjoint(xp, xp.linalg.inv(x))


@linalg
def solve(xp: Namespace, x1: Array, x2: Array, /) -> Any:
    out = xp.linalg.solve(x1, x2)
    return out, (_solve_x1, x1, out, x2.ndim), (_solve_x2, x1, x2.ndim)


def _solve_x2(xp: Namespace, g: Array, x1: Array, ndim: int, /) -> Array:
    if ndim == 1:
        return xp.linalg.solve(adjoint(xp, x1), xp.expand_dims(g, axis=-1))[..., 0]
    return xp.linalg.solve(adjoint(xp, x1), g)


def _solve_x1(xp: Namespace, g: Array, x1: Array, out: Array, ndim: int, /) -> Array:
    g = _solve_x2(xp, g, x1, ndim)
    if ndim == 1:
        g, out = xp.expand_dims(g, axis=-1), xp.expand_dims(out, axis=-1)
    return -(g @ adjoint(xp, out))


def _real_part(xp: Namespace, x: Array, /) -> Array:
    """Return the real part in the dtype of `x`."""
    return xp.astype(xp.real(x), x.dtype) if is_complex(xp, x.dtype) else x


def _halved(xp: Namespace, x: Array, /) -> Array:
    """Return the lower triangle with half of the diagonal's real part."""
    n = x.shape[-1]
    below = xp.tril(x, k=-1)
    on = xp.eye(n, dtype=xp.bool, **place(x))
    return below + xp.where(on, _real_part(xp, x) * 0.5, xp.zeros_like(x))


def _hermitian(xp: Namespace, x: Array, /) -> Array:
    """Return the Hermitian part."""
    return (x + adjoint(xp, x)) * 0.5


@linalg
def cholesky(xp: Namespace, x: Array, /, *, upper: bool = False) -> Any:
    out = xp.linalg.cholesky(x, upper=upper)
    return out, (_cholesky, out, upper)


def _cholesky(xp: Namespace, g: Array, out: Array, upper: bool, /) -> Array:
    if upper:
        g, out = adjoint(xp, g), adjoint(xp, out)
    half = xp.linalg.solve(adjoint(xp, out), _halved(xp, adjoint(xp, out) @ g))
    return _hermitian(xp, adjoint(xp, xp.linalg.solve(adjoint(xp, out), adjoint(xp, half))))


@linalg
def qr(xp: Namespace, x: Array, /, *, mode: str = "reduced") -> Any:
    out = xp.linalg.qr(x, mode=mode)
    if mode != "reduced" and x.shape[-2] > x.shape[-1]:
        return out, (_raise, f"linalg.qr with mode={mode!r} {_NULL_SPACE} mode='reduced'")
    return out, (_qr, x, *out)


def _raise(_: Namespace, gs: Any, msg: str, /) -> Array:
    del gs
    raise NotImplementedError(msg)


def _qr(xp: Namespace, gs: tuple[Array, Array], x: Array, q: Array, r: Array, /) -> Array:
    of_q, of_r = gs
    m = q.shape[-1]
    if r.shape[-1] == m:
        return _square_qr(xp, of_q, of_r, q, r)
    # x = q [r₁ | r₂]: the right part is r₂ = qᴴ x₂.
    right = x[..., :, m:]
    of_q = of_q + right @ adjoint(xp, of_r[..., :, m:])
    left = _square_qr(xp, of_q, of_r[..., :, :m], q, r[..., :, :m])
    return xp.concat([left, q @ of_r[..., :, m:]], axis=-1)


def _square_qr(xp: Namespace, of_q: Array, of_r: Array, q: Array, r: Array, /) -> Array:
    inner = r @ adjoint(xp, of_r) - adjoint(xp, of_q) @ q
    half = _halved(xp, inner)
    g = of_q + q @ (half + adjoint(xp, half))
    return adjoint(xp, xp.linalg.solve(r, adjoint(xp, g)))


@linalg
def svd(xp: Namespace, x: Array, /, *, full_matrices: bool = True) -> Any:
    out = xp.linalg.svd(x, full_matrices=full_matrices)
    if full_matrices and x.shape[-2] != x.shape[-1]:
        return out, (_raise, f"linalg.svd with full_matrices=True {_NULL_SPACE} full_matrices=False")
    return out, (_svd, *out)


def _gaps(xp: Namespace, x: Array, s: Array, /) -> Array:
    """Divide the entries of matrices by ``s_j - s_i``, and return 0 on the diagonal."""
    on = xp.eye(s.shape[-1], dtype=xp.bool, **place(s))
    gap = xp.where(on, xp.ones_like(s[..., None, :]), s[..., None, :] - s[..., :, None])
    return strong_divide(xp, xp.where(on, xp.zeros_like(x), x), xp.astype(gap, x.dtype))


def _svd(xp: Namespace, gs: tuple[Array, Array, Array], u: Array, s: Array, vh: Array, /) -> Array:
    of_u, of_s, of_vh = gs
    uh, v, of_v = adjoint(xp, u), adjoint(xp, vh), adjoint(xp, of_vh)
    s_cast = xp.astype(s, u.dtype)
    row, column = s_cast[..., None, :], s_cast[..., :, None]
    in_u, in_v = uh @ of_u, vh @ of_v
    inner = _gaps(xp, in_u - adjoint(xp, in_u), s * s) * row + column * _gaps(xp, in_v - adjoint(xp, in_v), s * s)
    on = xp.eye(s.shape[-1], dtype=xp.bool, **place(s))
    inner = inner + xp.where(on, xp.astype(of_s, u.dtype)[..., None, :], xp.zeros_like(inner))
    if is_complex(xp, u.dtype):
        inner = inner + xp.where(on, strong_divide(xp, in_u - adjoint(xp, in_u), row * 2), xp.zeros_like(inner))
    g = u @ inner @ vh
    if u.shape[-2] > u.shape[-1]:
        g = g + strong_divide(xp, of_u - u @ in_u, row) @ vh
    if vh.shape[-1] > vh.shape[-2]:
        g = g + u @ adjoint(xp, strong_divide(xp, of_v - v @ in_v, row))
    return g


@linalg
def svdvals(xp: Namespace, x: Array, /) -> Any:
    return xp.linalg.svdvals(x), (_svdvals, x)


def _svdvals(xp: Namespace, g: Array, x: Array, /) -> Array:
    u, _, vh = xp.linalg.svd(x, full_matrices=False)
    return (u * xp.astype(g, u.dtype)[..., None, :]) @ vh


@linalg
def eigh(xp: Namespace, x: Array, /) -> Any:
    out = xp.linalg.eigh(x)
    return out, (_eigh, *out)


def _eigh(xp: Namespace, gs: tuple[Array, Array], w: Array, v: Array, /) -> Array:
    of_w, of_v = gs
    inner = _gaps(xp, adjoint(xp, v) @ of_v, w)
    on = xp.eye(w.shape[-1], dtype=xp.bool, **place(w))
    inner = inner + xp.where(on, xp.astype(of_w, v.dtype)[..., None, :], xp.zeros_like(inner))
    return _hermitian(xp, v @ inner @ adjoint(xp, v))


@linalg
def eigvalsh(xp: Namespace, x: Array, /) -> Any:
    return xp.linalg.eigvalsh(x), (_eigvalsh, x)


def _eigvalsh(xp: Namespace, g: Array, x: Array, /) -> Array:
    _, v = xp.linalg.eigh(x)
    return (v * xp.astype(g, v.dtype)[..., None, :]) @ adjoint(xp, v)


@linalg
def eig(xp: Namespace, x: Array, /) -> Any:
    out = xp.linalg.eig(x)
    return out, (_eig, *out)


def _eig(xp: Namespace, gs: tuple[Array, Array], w: Array, v: Array, /) -> Array:
    of_w, of_v = gs
    vh = adjoint(xp, v)
    in_v = vh @ of_v
    on = xp.eye(w.shape[-1], dtype=xp.bool, **place(w))
    scaled = (vh @ v) @ xp.where(on, _real_part(xp, in_v), xp.zeros_like(in_v))
    inner = _gaps(xp, in_v - scaled, xp.conj(w))
    inner = inner + xp.where(on, of_w[..., None, :], xp.zeros_like(inner))
    return xp.linalg.solve(vh, inner @ vh)


@linalg
def eigvals(xp: Namespace, x: Array, /) -> Any:
    return xp.linalg.eigvals(x), (_eigvals, x)


def _eigvals(xp: Namespace, g: Array, x: Array, /) -> Array:
    _, v = xp.linalg.eig(x)
    vh = adjoint(xp, v)
    return xp.linalg.solve(vh, g[..., :, None] * vh)


@linalg
def pinv(xp: Namespace, x: Array, /, *, rtol: Any = None) -> Any:
    out = xp.linalg.pinv(x) if rtol is None else xp.linalg.pinv(x, rtol=rtol)
    return out, (_pinv, x, out), None


def _pinv(xp: Namespace, g: Array, x: Array, out: Array, /) -> Array:
    """Pull back by G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses", 1973, for constant rank."""
    g, outh = adjoint(xp, g), adjoint(xp, out)
    k = g @ out
    kept = k @ outh
    return -adjoint(xp, out @ k) + kept - (x @ out) @ kept + (outh @ out) @ (g - k @ x)


@linalg
def vector_norm(xp: Namespace, x: Array, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:  # noqa: A002
    out = xp.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=ord)
    return out, (_vector_norm, x, out, axis, keepdims, ord)


def _vector_norm(
    xp: Namespace,
    g: Array,
    x: Array,
    out: Array,
    axis: Any,
    keepdims: bool,
    order: Any,
    /,
) -> Array:
    g, out = (keep_dims(xp, part, x.ndim, axis, keepdims) for part in (g, out))
    if order == 0:
        return xp.zeros_like(x)
    if order == 2:
        # At 0, where the norm has a kink, the gradient is 0.
        return x * xp.astype(g / xp.where(out == 0, xp.ones_like(out), out), x.dtype)
    size = xp.abs(x)
    direction = x / xp.astype(xp.where(size == 0, xp.ones_like(size), size), x.dtype)
    if order == 1:
        share = xp.ones_like(size)
    elif order in (float("inf"), -float("inf")):
        most = xp.astype(size == out, size.dtype)
        share = most / xp.sum(most, axis=axis, keepdims=True)
    else:
        safe = xp.where(out == 0, xp.ones_like(out), out)
        share = xp.where(size == 0, xp.zeros_like(size), (xp.where(size == 0, safe, size) / safe) ** (order - 1))
    return direction * xp.astype(g * share, x.dtype)


@linalg
def matrix_norm(xp: Namespace, x: Array, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:  # noqa: A002
    out = xp.linalg.matrix_norm(x, keepdims=keepdims, ord=ord)
    if ord == "fro":
        return out, (_vector_norm, x, out, (-2, -1), keepdims, 2)
    return out, (_matrix_norm, x, keepdims, ord)


def _matrix_norm(xp: Namespace, g: Array, x: Array, keepdims: bool, order: Any, /) -> Array:
    g = g if keepdims else g[..., None, None]
    if order in ("nuc", 2, -2):
        s = xp.linalg.svdvals(x)
        share = xp.ones_like(s) if order == "nuc" else _shares(xp, s, xp.max if order == 2 else xp.min, -1)
        return _svdvals(xp, g[..., 0] * share, x)
    axis = -2 if abs(order) == 1 else -1
    size = xp.abs(x)
    sums = xp.sum(size, axis=axis, keepdims=True)
    share = _shares(xp, sums, xp.max if order > 0 else xp.min, -3 - axis)
    direction = x / xp.astype(xp.where(size == 0, xp.ones_like(size), size), x.dtype)
    return direction * xp.astype(g * share, x.dtype)


def _shares(xp: Namespace, x: Array, extreme: Callable[..., Any], axis: int, /) -> Array:
    """Return what each entry has of the extreme along an axis: those that are tied share equally."""
    hit = xp.astype(x == extreme(x, axis=axis, keepdims=True), x.dtype)
    return hit / xp.sum(hit, axis=axis, keepdims=True)
