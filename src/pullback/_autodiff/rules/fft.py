"""Fourier transforms. The adjoint of a transform is the inverse one without its factor: that of the opposite norm."""

from typing import Any

from pullback._autodiff.rules.chunks import one_chunk
from pullback._autodiff.rules.registry import WITHOUT_DERIVATIVE, in_extension
from pullback._autodiff.typing import Array
from pullback._core.memory import place
from pullback._core.typing import Namespace

fft_rule = in_extension("fft")

WITHOUT_DERIVATIVE |= {"fft.fftfreq", "fft.rfftfreq"}

_OPPOSITE = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _cut(xp: Namespace, x: Array, sizes: dict[int, int], /) -> Array:
    """Cut or fill axes with zeros to the sizes of the array that was transformed."""
    for axis, size in sizes.items():
        have = x.shape[axis]
        if have > size:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(0, size), ...)]
        elif have < size:
            shape = list(x.shape)
            shape[axis] = size - have
            x = xp.concat([x, xp.zeros(tuple(shape), dtype=x.dtype, **place(x))], axis=axis)
    return x


def _axes(x: Array, s: Any, axes: Any, /) -> tuple[int, ...]:
    """Return the axes of a transform over several."""
    if axes is not None:
        return tuple(a % x.ndim for a in axes)
    return tuple(range(x.ndim)) if s is None else tuple(range(x.ndim - len(s), x.ndim))


def _sizes(x: Array, axes: tuple[int, ...], /) -> dict[int, int]:
    return {a: x.shape[a] for a in axes}


@fft_rule
def fft(xp: Namespace, x: Array, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    return xp.fft.fft(x, n=n, axis=axis, norm=norm), (_back, "ifft", axis, norm, x.shape[axis])


@fft_rule
def ifft(xp: Namespace, x: Array, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    return xp.fft.ifft(x, n=n, axis=axis, norm=norm), (_back, "fft", axis, norm, x.shape[axis])


def _back(xp: Namespace, g: Array, inverse: str, axis: int, norm: str, size: int, /) -> Array:
    return _cut(xp, getattr(xp.fft, inverse)(one_chunk(xp, g, (axis,)), axis=axis, norm=_OPPOSITE[norm]), {axis: size})


@fft_rule
def fftn(xp: Namespace, x: Array, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    over = _axes(x, s, axes)
    return xp.fft.fftn(x, s=s, axes=axes, norm=norm), (_back_n, "ifftn", over, norm, _sizes(x, over))


@fft_rule
def ifftn(xp: Namespace, x: Array, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    over = _axes(x, s, axes)
    return xp.fft.ifftn(x, s=s, axes=axes, norm=norm), (_back_n, "fftn", over, norm, _sizes(x, over))


def _back_n(xp: Namespace, g: Array, inverse: str, axes: tuple[int, ...], norm: str, sizes: dict[int, int], /) -> Array:
    return _cut(xp, getattr(xp.fft, inverse)(one_chunk(xp, g, axes), axes=axes, norm=_OPPOSITE[norm]), sizes)


@fft_rule
def rfft(xp: Namespace, x: Array, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    full = x.shape[axis] if n is None else n
    return xp.fft.rfft(x, n=n, axis=axis, norm=norm), (_back_real, (axis,), full, norm, _sizes(x, (axis,)))


@fft_rule
def rfftn(xp: Namespace, x: Array, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    over = _axes(x, s, axes)
    full = x.shape[over[-1]] if s is None else s[-1]
    return xp.fft.rfftn(x, s=s, axes=axes, norm=norm), (_back_real, over, full, norm, _sizes(x, over))


def _back_real(xp: Namespace, g: Array, axes: tuple[int, ...], full: int, norm: str, sizes: dict[int, int], /) -> Array:
    """Fill the half that a transform of real numbers leaves out with zeros, and transform back."""
    g = one_chunk(xp, _cut(xp, g, {axes[-1]: full}), axes)
    return _cut(xp, xp.real(xp.fft.ifftn(g, axes=axes, norm=_OPPOSITE[norm])), sizes)


@fft_rule
def irfft(xp: Namespace, x: Array, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    return xp.fft.irfft(x, n=n, axis=axis, norm=norm), (_back_half, (axis,), norm, _sizes(x, (axis,)))


@fft_rule
def irfftn(xp: Namespace, x: Array, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
    over = _axes(x, s, axes)
    return xp.fft.irfftn(x, s=s, axes=axes, norm=norm), (_back_half, over, norm, _sizes(x, over))


def _back_half(xp: Namespace, g: Array, axes: tuple[int, ...], norm: str, sizes: dict[int, int], /) -> Array:
    """Transform to the half that determines real numbers; all but its ends stand for two entries."""
    last = axes[-1]
    n = g.shape[last]
    out = xp.fft.rfftn(one_chunk(xp, g, axes), axes=axes, norm=_OPPOSITE[norm])
    k = xp.arange(out.shape[last], **place(g))
    twice = xp.astype((k > 0) & (2 * k < n), g.dtype) + 1
    twice = xp.reshape(twice, (-1, *(1,) * (g.ndim - 1 - last % g.ndim)))
    return _cut(xp, out * xp.astype(twice, out.dtype), sizes)


@fft_rule
def hfft(xp: Namespace, x: Array, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    return xp.fft.hfft(x, n=n, axis=axis, norm=norm), (_back_hermitian, axis, norm, _sizes(x, (axis,)))


def _back_hermitian(xp: Namespace, g: Array, axis: int, norm: str, sizes: dict[int, int], /) -> Array:
    return xp.conj(_back_half(xp, g, (axis,), _OPPOSITE[norm], sizes))


@fft_rule
def ihfft(xp: Namespace, x: Array, /, *, n: Any = None, axis: int = -1, norm: str = "backward") -> Any:
    full = x.shape[axis] if n is None else n
    out = xp.fft.ihfft(x, n=n, axis=axis, norm=norm)
    return out, (_back_ihfft, (axis,), full, norm, _sizes(x, (axis,)))


def _back_ihfft(
    xp: Namespace, g: Array, axes: tuple[int, ...], full: int, norm: str, sizes: dict[int, int], /
) -> Array:
    return _back_real(xp, xp.conj(g), axes, full, _OPPOSITE[norm], sizes)


@fft_rule
def fftshift(xp: Namespace, x: Array, /, *, axes: Any = None) -> Any:
    return xp.fft.fftshift(x, axes=axes), (_shift, "ifftshift", axes)


@fft_rule
def ifftshift(xp: Namespace, x: Array, /, *, axes: Any = None) -> Any:
    return xp.fft.ifftshift(x, axes=axes), (_shift, "fftshift", axes)


def _shift(xp: Namespace, g: Array, inverse: str, axes: Any, /) -> Array:
    return getattr(xp.fft, inverse)(g, axes=axes)
