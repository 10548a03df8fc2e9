"""The cases of linear algebra and Fourier transforms. Functions of factors do not depend on their phases."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.autodiff.rules.cases import Case
from tests.autodiff.rules.draws import Draws

_draws = Draws(8)
away, cplx, normal = _draws.away, _draws.cplx, _draws.normal


def regular(n: int, *, batch: tuple[int, ...] = (), complex_: bool = False) -> Any:
    """Return matrices that are far from singular, with singular values and eigenvalues that are apart."""
    draw = cplx if complex_ else away
    return 0.3 * draw(*batch, n, n) + np.diag(np.arange(1.0, n + 1))


def spread(n: int, *, complex_: bool = False) -> Any:
    """Return matrices whose eigenvalues are far apart, so that differences of them are exact."""
    return 0.2 * (cplx(n, n) if complex_ else away(n, n)) + np.diag(np.arange(1.0, n + 1)) * 3


def hermitian(n: int, *, complex_: bool = False) -> Any:
    x = regular(n, complex_=complex_)
    return (x + x.conj().T) / 2 + 2 * np.eye(n)


def adjoint(xp: Any, x: Any) -> Any:
    x = xp.matrix_transpose(x)
    return xp.conj(x) if xp.isdtype(x.dtype, "complex floating") else x


def _call(name: str, **options: Any) -> Callable[..., Any]:
    def call(xp: Any, *arrays: Any) -> Any:
        function = xp
        for part in name.split("."):
            function = getattr(function, part)
        return function(*arrays, **options)

    return call


def _of_hermitian(function: Callable[..., Any]) -> Callable[..., Any]:
    """Read a matrix as a function of its Hermitian part, as factorizations of Hermitian matrices do."""
    return lambda xp, x: function(xp, (x + adjoint(xp, x)) * 0.5)


def _svd(xp: Any, x: Any) -> Any:
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    scaled = xp.astype(s**2, u.dtype) if u.dtype != s.dtype else s**2
    return (u * scaled[..., None, :]) @ vh, s


def _projector(xp: Any, x: Any) -> Any:
    u, _, vh = xp.linalg.svd(x, full_matrices=False)
    return u[..., :, :1] @ adjoint(xp, u[..., :, :1]), adjoint(xp, vh[..., :1, :]) @ vh[..., :1, :]


def _eigh(xp: Any, x: Any) -> Any:
    w, v = xp.linalg.eigh(x)
    return w, v[..., :, :1] @ adjoint(xp, v[..., :, :1])


def _eig(xp: Any, x: Any) -> Any:
    w, v = xp.linalg.eig(x)
    return xp.linalg.solve(xp.matrix_transpose(v), xp.matrix_transpose(v * (w * w)[..., None, :]))


def _qr(xp: Any, x: Any) -> Any:
    q, r = xp.linalg.qr(x)
    return q, r


LINEAR: dict[str, Case] = {}
for _x, _y in (
    ((2, 3), (3, 4)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((3,), (3,)),
    ((2, 2, 3), (3, 2)),
    ((2, 1, 2, 3), (3, 3, 2)),
):
    LINEAR[f"matmul {_x} {_y}"] = Case(_call("matmul"), (normal(*_x), normal(*_y)))
LINEAR |= {
    "matmul (0, 3) (3, 2)": Case(_call("matmul"), (normal(0, 3), normal(3, 2))),
    "matmul (3,) (2, 3, 2)": Case(_call("matmul"), (normal(3), normal(2, 3, 2))),
    "matmul (2, 2, 3) (3,)": Case(_call("matmul"), (normal(2, 2, 3), normal(3))),
    "matmul, complex": Case(_call("matmul"), (cplx(2, 3), cplx(3, 2))),
    "x @ y, real and complex": Case(lambda _, x, y: x @ y, (normal(2, 3), cplx(3, 2))),
    "linalg.matmul": Case(_call("linalg.matmul"), (normal(2, 3), normal(3, 2))),
    "vecdot": Case(_call("vecdot"), (normal(2, 3), normal(3))),
    "vecdot, axis": Case(_call("vecdot", axis=-2), (normal(3, 2), normal(3, 2))),
    "vecdot, complex": Case(_call("vecdot"), (cplx(2, 3), cplx(2, 3))),
    "linalg.vecdot": Case(_call("linalg.vecdot"), (normal(2, 3), normal(2, 3))),
    "tensordot": Case(_call("tensordot"), (normal(2, 3, 2), normal(3, 2, 4))),
    "tensordot, one axis": Case(_call("tensordot", axes=1), (normal(2, 3), normal(3, 2))),
    "tensordot, outer": Case(_call("tensordot", axes=0), (normal(2), normal(3))),
    "tensordot, axes": Case(_call("tensordot", axes=((2, 0), (0, 1))), (normal(2, 3, 4), normal(4, 2, 3))),
    "tensordot, complex": Case(_call("tensordot", axes=((0,), (1,))), (cplx(2, 3), cplx(3, 2))),
    "linalg.tensordot": Case(_call("linalg.tensordot", axes=1), (normal(2, 3), normal(3, 2))),
    "matrix_transpose": Case(_call("matrix_transpose"), (normal(2, 3, 2),)),
    "linalg.matrix_transpose": Case(_call("linalg.matrix_transpose"), (normal(3, 2),)),
    "linalg.outer": Case(_call("linalg.outer"), (normal(2), normal(3))),
    "linalg.outer, complex": Case(_call("linalg.outer"), (cplx(2), cplx(3))),
    "linalg.cross": Case(_call("linalg.cross"), (normal(2, 3), normal(2, 3))),
    "linalg.cross, axis": Case(_call("linalg.cross", axis=-2), (normal(3, 2), normal(3, 2))),
    "linalg.trace": Case(_call("linalg.trace"), (normal(2, 3, 3),)),
    "linalg.trace, offset": Case(_call("linalg.trace", offset=-1), (normal(3, 2),)),
    "linalg.inv": Case(_call("linalg.inv"), (regular(3, batch=(2,)),)),
    "linalg.inv, complex": Case(_call("linalg.inv"), (regular(3, complex_=True),)),
    "linalg.det": Case(_call("linalg.det"), (regular(3, batch=(2,)),)),
    "linalg.det, complex": Case(_call("linalg.det"), (regular(3, complex_=True),)),
    "linalg.slogdet": Case(_call("linalg.slogdet"), (regular(3),)),
    "linalg.slogdet, complex": Case(_call("linalg.slogdet"), (regular(3, complex_=True),)),
    "linalg.solve": Case(_call("linalg.solve"), (regular(3, batch=(2,)), normal(2, 3, 2))),
    "linalg.solve, vector": Case(_call("linalg.solve"), (regular(3), normal(3))),
    "linalg.solve, complex": Case(_call("linalg.solve"), (regular(3, complex_=True), cplx(3, 2))),
    "linalg.pinv": Case(_call("linalg.pinv"), (away(4, 2),)),
    "linalg.pinv, wide": Case(_call("linalg.pinv"), (away(2, 4),)),
    "linalg.pinv, complex": Case(_call("linalg.pinv"), (cplx(3, 2),)),
    "linalg.qr": Case(_qr, (regular(3),)),
    "linalg.qr, tall": Case(_qr, (regular(3)[:, :2],)),
    "linalg.qr, wide": Case(_qr, (regular(3)[:2, :],)),
    "linalg.svd": Case(_svd, (regular(3),)),
    "linalg.svd, tall": Case(_svd, (regular(3)[:, :2],)),
    "linalg.svd, wide": Case(_svd, (regular(3)[:2, :],)),
    "linalg.svd, complex": Case(_svd, (regular(3, complex_=True)[:, :2],)),
    "linalg.svd, projectors": Case(_projector, (regular(3)[:, :2],)),
    "linalg.svd, projectors, complex": Case(_projector, (regular(3, complex_=True),)),
    "linalg.svdvals": Case(_call("linalg.svdvals"), (regular(3)[:2, :],)),
    "linalg.svdvals, complex": Case(_call("linalg.svdvals"), (regular(3, complex_=True),)),
    "linalg.cholesky": Case(_of_hermitian(_call("linalg.cholesky")), (hermitian(3),)),
    "linalg.cholesky, upper": Case(_of_hermitian(_call("linalg.cholesky", upper=True)), (hermitian(3),)),
    "linalg.cholesky, complex": Case(_of_hermitian(_call("linalg.cholesky")), (hermitian(3, complex_=True),)),
    "linalg.eigh": Case(_of_hermitian(_eigh), (hermitian(3),)),
    "linalg.eigh, complex": Case(_of_hermitian(_eigh), (hermitian(3, complex_=True),)),
    "linalg.eigvalsh": Case(_of_hermitian(_call("linalg.eigvalsh")), (hermitian(3),)),
    "linalg.eigvalsh, complex": Case(_of_hermitian(_call("linalg.eigvalsh")), (hermitian(3, complex_=True),)),
    "linalg.eig": Case(_eig, (spread(3),)),
    "linalg.eig, complex": Case(_eig, (spread(3, complex_=True),)),
    "linalg.eigvals": Case(_call("linalg.eigvals"), (spread(3),)),
    "linalg.eigvals, complex": Case(_call("linalg.eigvals"), (spread(3, complex_=True),)),
    "linalg.vector_norm, complex": Case(_call("linalg.vector_norm"), (cplx(3),)),
    "linalg.vector_norm, axes": Case(_call("linalg.vector_norm", axis=(0, 1)), (away(2, 3, 2),)),
    "linalg.matrix_norm": Case(_call("linalg.matrix_norm"), (away(2, 3, 2),)),
}
for _order in (1, 2, 3, 0.5, float("inf"), -float("inf"), 0):
    LINEAR[f"linalg.vector_norm {_order}"] = Case(
        _call("linalg.vector_norm", ord=_order, axis=-1, keepdims=_order == 3), (away(2, 3),)
    )
for _kind in ("nuc", 1, -1, 2, -2, float("inf"), -float("inf")):
    LINEAR[f"linalg.matrix_norm {_kind}"] = Case(_call("linalg.matrix_norm", ord=_kind), (regular(3)[:2, :],))
for _n in (0, 1, 2, 3, -1, -2):
    LINEAR[f"linalg.matrix_power {_n}"] = Case(
        partial(lambda n, xp, x: xp.linalg.matrix_power(x, n), _n), (regular(3),)
    )
for _offset, _shape in ((0, (3, 3)), (1, (2, 4)), (-1, (4, 2)), (2, (3, 3))):
    LINEAR[f"linalg.diagonal {_offset} {_shape}"] = Case(
        _call("linalg.diagonal", offset=_offset), (normal(2, *_shape),)
    )

for _norm in ("backward", "ortho", "forward"):
    for _name in ("fft", "ifft", "irfft", "hfft"):
        LINEAR[f"fft.{_name}, {_norm}"] = Case(_call(f"fft.{_name}", norm=_norm), (cplx(2, 5),))
    for _name in ("rfft", "ihfft"):
        for _size in (5, 6):
            LINEAR[f"fft.{_name} of {_size}, {_norm}"] = Case(_call(f"fft.{_name}", norm=_norm), (normal(2, _size),))
for _name in ("fft", "ifft", "irfft", "hfft"):
    for _n in (3, 8, 9):
        LINEAR[f"fft.{_name} to {_n}"] = Case(_call(f"fft.{_name}", n=_n, axis=0), (cplx(5, 2),))
for _name in ("rfft", "ihfft"):
    for _n in (3, 8):
        LINEAR[f"fft.{_name} to {_n}"] = Case(_call(f"fft.{_name}", n=_n, axis=0), (normal(5, 2),))
for _name, _draw in (("fftn", cplx), ("ifftn", cplx), ("rfftn", normal), ("irfftn", cplx)):
    LINEAR[f"fft.{_name}"] = Case(_call(f"fft.{_name}"), (_draw(3, 4),))
    LINEAR[f"fft.{_name} to (2, 5)"] = Case(_call(f"fft.{_name}", s=(2, 5), axes=(2, 0)), (_draw(3, 2, 4),))
for _name in ("fftshift", "ifftshift"):
    LINEAR[f"fft.{_name}"] = Case(_call(f"fft.{_name}", axes=(1,)), (normal(2, 5),))
