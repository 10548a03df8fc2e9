"""Arrays that share memory in NumPy and PyTorch share their changes inside a differentiated function, too."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback as pb
from tests.autodiff.test_transforms import close
from tests.harness.backend import Backend


def _slice_then_parent(xp: Any, y: Any) -> Any:
    view = y[1:, :]
    y[:, 0] = 2.0 * y[:, 1]
    return xp.sum(view * view)


def _parent_then_slice(xp: Any, y: Any) -> Any:
    view = y[1:, 1:]
    view *= y[1:, :1]
    return xp.sum(y * y)


def _slice_of_slice(xp: Any, y: Any) -> Any:
    rows, column = y[1:, :], y[:, 0]
    part = rows[:, :2]
    part += 1.0
    column[...] = column * y[:, 2]
    return xp.sum(y * y) + xp.sum(part * rows[:, 1:])


def _transposed(xp: Any, y: Any) -> Any:
    turned, mt = y.T, xp.matrix_transpose(y)
    turned[0, 1:] = y[1:, 2] ** 2
    return xp.sum(y * y) + xp.sum(mt[0, :] * y[:, 0])


def _axes(xp: Any, y: Any) -> Any:
    wide = xp.expand_dims(y, axis=0)
    moved = xp.moveaxis(wide, 0, -1)
    moved[1, :, 0] = y[2, :] * 3.0
    permuted = xp.permute_dims(wide, (2, 0, 1))
    permuted[0, 0, :] = y[:, 1]
    back = xp.squeeze(moved, axis=-1)
    back *= 2.0
    return xp.sum(y * y * wide[0, ...])


def _same_object(xp: Any, y: Any) -> Any:
    z = y
    z += 1.0
    z[0, :] = y[1, :] * y[2, :]
    return xp.sum(y * y)


def _accumulate(xp: Any, y: Any) -> Any:
    out = xp.zeros((3, 3))
    for k in range(3):
        out[k, :] += y[k, :] * y[2 - k, :]
        out[:, k] -= y[:, k]
    return xp.sum(out * out)


PROGRAMS: dict[str, Callable[[Any, Any], Any]] = {
    f.__name__.strip("_"): f
    for f in (
        _slice_then_parent,
        _parent_then_slice,
        _slice_of_slice,
        _transposed,
        _axes,
        _same_object,
        _accumulate,
    )
}
EXACT = np.random.default_rng(10).standard_normal((3, 3))


@pytest.mark.parametrize("name", PROGRAMS)
def test_views(name: str) -> None:
    """Against central differences of the same program on plain arrays."""
    program = PROGRAMS[name]

    def plain(x: Any) -> Any:
        xp = array_namespace(x)
        return program(xp, xp.asarray(x, copy=True))

    def traced(x: Any) -> Any:
        return program(array_namespace(x), x * 1.0)

    got = pb.grad(traced)(EXACT)
    h = 1e-6
    for i in range(9):
        step = h * np.eye(9)[i].reshape(3, 3)
        slope = (plain(EXACT + step) - plain(EXACT - step)) / (2 * h)
        assert abs(slope - got.flat[i]) <= 1e-7 * (1 + abs(slope))


@pytest.mark.parametrize("name", PROGRAMS)
def test_views_on_other_libraries(backend_one_device: Backend, name: str) -> None:
    """Where arrays are not views and do not change in place, each library's own semantics hold."""
    x = backend_one_device.asarray(EXACT)
    xp = array_namespace(x)

    def traced(x: Any) -> Any:
        return PROGRAMS[name](array_namespace(x), x * 1.0)

    if backend_one_device.library == "jax" and name != "parent_then_slice":  # which only has operators
        with pytest.raises(TypeError, match=r"^arrays of jax\.numpy do not change in place"):
            pb.grad(traced)(x)
    else:
        value, gradient = pb.value_and_grad(traced)(x)
        plain = PROGRAMS[name](xp, x * 1.0)
        assert close(backend_one_device, value, backend_one_device.numpy(plain))
        assert tuple(gradient.shape) == (3, 3)


def test_in_place_results_must_fit() -> None:
    def shape(x: Any) -> Any:
        x += np.ones((2, 3))
        return x @ x

    def dtype(x: Any) -> Any:
        y = array_namespace(x).zeros(3, dtype=np.int64)
        y += x
        return x @ x

    def narrow(x: Any) -> Any:
        y = array_namespace(x).zeros(3, dtype=np.float32)
        same = y
        y += x
        return same @ same

    with pytest.raises(ValueError, match="does not fit"):
        pb.grad(shape)(np.ones(3))
    with pytest.raises(TypeError, match="does not fit"):
        pb.grad(dtype)(np.ones(3))
    assert pb.grad(narrow)(np.ones(3)).dtype == np.float64
    assert np.array_equal(pb.grad(narrow)(np.ones(3)), [2.0, 2.0, 2.0])
