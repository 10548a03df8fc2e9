"""Arrays that share memory in NumPy and PyTorch share their changes inside a differentiated function, too."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device

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
    out = xp.zeros((3, 3), device=device(y))
    for k in range(3):
        out[k, :] += y[k, :] * y[2 - k, :]
        out[:, k] -= y[:, k]
    return xp.sum(out * out)


def _reshaped(xp: Any, y: Any) -> Any:
    flat = xp.reshape(y, (-1,))
    flat[1:4] = flat[2:5] ** 2
    y[2, :] = y[0, :] * 3.0
    return xp.sum(y * y) + xp.sum(flat[5:] * y[0, 1])


def _reshaped_copy(xp: Any, y: Any) -> Any:
    flat = xp.reshape(xp.permute_dims(y, (1, 0)), (-1,))
    same = xp.reshape(y, (9,), copy=True) if "torch" not in xp.__name__ else xp.asarray(flat, copy=True)
    flat[1:4] = flat[2:5] ** 2
    same[0] = y[1, 1] * 2.0
    return xp.sum(y * y) + xp.sum(flat * flat * same)


def _flipped(xp: Any, y: Any) -> Any:
    back = xp.flip(y, axis=0)
    back[0, :] = back[1, :] * back[2, :]
    y[1, :] *= 2.0
    return xp.sum(y * y) + xp.sum(back * y)


def _unstacked(xp: Any, y: Any) -> Any:
    first, second, third = xp.unstack(y, axis=1)
    first *= second
    y[:, 2] = y[:, 0] * 2.0
    return xp.sum(y * y) + xp.sum(first * third)


def _broadcast(xp: Any, y: Any) -> Any:
    wide = xp.broadcast_to(y, (2, 3, 3))
    diagonal = xp.linalg.diagonal(y)
    y[0, :] = y[1, :] * 2.0
    return xp.sum(wide * wide) + xp.sum(diagonal * y[:, 0])


def _broadcast_to_itself(xp: Any, y: Any) -> Any:
    same, other = xp.broadcast_arrays(y, y[:1, :])
    same[1, :] = other[2, :] ** 2
    return xp.sum(y * y) + xp.sum(other * y)


def _same_shape(xp: Any, y: Any) -> Any:
    same, wide = xp.reshape(y, (3, 3)), xp.broadcast_to(y, (3, 3))
    y[1, :] = y[2, :] ** 2
    return xp.sum(y * same * wide)


def _entries(xp: Any, y: Any) -> Any:
    entry, layer = y[0, 0], xp.unstack(y[0, :])[1]
    y[0, :] = y[1, :] * 2.0
    return xp.sum(y * y) + entry * layer


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
        _reshaped,
        _reshaped_copy,
        _flipped,
        _unstacked,
        _broadcast,
        _broadcast_to_itself,
        _same_shape,
        _entries,
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


def _real_part(xp: Any, y: Any) -> Any:
    part = xp.real(y)
    y[0, 0] = y[1, 1] * 2.0
    return xp.sum(part * part)


def _imaginary_part(xp: Any, y: Any) -> Any:
    part = xp.imag(y)
    y[0, 0] = y[1, 1] * 2.0
    return xp.sum(part * part)


@pytest.mark.parametrize("program", [_real_part, _imaginary_part])
def test_part_follows_its_array(program: Callable[[Any, Any], Any]) -> None:
    z = EXACT + 1j * EXACT.T
    value = pb.value_and_grad(lambda x: program(array_namespace(x), x * 1.0))(z)[0]
    assert np.isclose(value, program(array_namespace(z), z * 1.0), rtol=1e-14)


@pytest.mark.parametrize("name", ["real", "imag", "linalg.diagonal", "broadcast_to"])
def test_writing_into_a_view_of_another_kind_raises(name: str) -> None:
    def write(x: Any) -> Any:
        xp = array_namespace(x)
        options = ((2, 3, 3),) if name == "broadcast_to" else ()
        place = xp.linalg if name.startswith("linalg") else xp
        view = getattr(place, name.rpartition(".")[2])(x * 1.0, *options)
        view[0] = 1.0
        return xp.real(xp.sum(view))

    with pytest.raises(ValueError, match=r"shares the memory of its array and cannot be written into"):
        pb.grad(write)(EXACT + 0j)


@pytest.mark.parametrize(
    "make",
    [
        lambda xp, y: xp.flip(y)[::-1],
        lambda xp, y: xp.permute_dims(y, (0,)),
        lambda xp, y: xp.unstack(xp.reshape(y, (1, 2)))[0],
        lambda xp, y: xp.broadcast_arrays(np.ones(2), y)[1],
    ],
    ids=["flip", "permute_dims", "unstack", "broadcast_arrays"],
)
def test_view_of_a_deeper_array_by_the_namespace_of_an_outer_one(make: Callable[[Any, Any], Any]) -> None:
    """The first entry is written by a view that the outer function's namespace made of the inner one's array."""

    def of_outer(x: Any) -> Any:
        xp = array_namespace(x)

        def of_inner(y: Any) -> Any:
            y = y * 1.0
            make(xp, y)[0] = y[0] * y[1] ** 2
            return array_namespace(y).sum(y)

        return array_namespace(x).sum(pb.grad(of_inner)(x * 1.0))

    # The gradient of y₀ y₁² + y₁ is y₁² and 2 y₀ y₁ + 1, of which this is the gradient of the sum.
    x = np.asarray([2.0, 3.0])
    assert np.array_equal(pb.grad(of_outer)(x), [2 * x[1], 2 * x[1] + 2 * x[0]])


def test_flipped_constant() -> None:
    """A plain array that the function takes from around it, flipped by the namespace of the traced one."""
    c = np.asarray([1.0, 2.0, 4.0])
    got = pb.grad(lambda x: array_namespace(x).sum(array_namespace(x).flip(c) * x))(np.ones(3))
    assert np.array_equal(got, c[::-1])


def test_real_part_of_a_real_array_is_the_array() -> None:
    def write(x: Any) -> Any:
        y = x * 1.0
        part = array_namespace(x).real(y)
        part[0] = y[1] * 3.0
        return array_namespace(x).sum(y * y)

    assert np.array_equal(pb.grad(write)(np.asarray([1.0, 2.0])), [0.0, 40.0])


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
