"""The axis and the mask of the softmax and its logarithm: values, gradients, derivatives of both, and errors."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device

import pullback as pb
from tests.harness.autodiff import gradients, hessians, vmap
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS, C

FORWARDS: dict[str, Callable[..., Any]] = {"softmax": pb.softmax_forward, "log_softmax": pb.log_softmax_forward}
BACKWARDS: dict[str, Callable[..., Any]] = {"softmax": pb.softmax_backward, "log_softmax": pb.log_softmax_backward}
ABSENT = {"softmax": 0.0, "log_softmax": -np.inf}
SHAPE = (4, 3, 5)
# The shape of a mask that broadcasts, and the number of its axes that are rows of a batch.
MASKS: dict[str, tuple[int, ...]] = {
    "one axis": (5,),
    "last": (4, 3, 1),
    "middle": (3, 1),
    "full": (4, 3, 5),
    "none": (),
}


def drawn(mask: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Draw logits, upstream gradients and a mask, in which one row of each axis has no possible class."""
    rng = np.random.default_rng(8)
    possible = rng.random(mask) < 0.7
    if mask == SHAPE:
        possible[1, 2, :] = possible[:, 0, 3] = possible[2, :, 1] = False
    return 3 * rng.standard_normal(SHAPE), rng.standard_normal(SHAPE), possible


def softmax(a: Any, axis: int, mask: Any) -> Any:
    """Return the softmax over the possible classes, 0 elsewhere."""
    parts = np.exp(a) * mask
    total = np.sum(parts, axis=axis, keepdims=True)
    return parts / np.where(total > 0, total, 1)


def value(name: str, a: Any, axis: int, mask: Any) -> Any:
    """Return the output by the formula."""
    p = softmax(a, axis, mask)
    if name == "softmax":
        return p
    return np.log(p, where=p > 0, out=np.full(p.shape, -np.inf))


def gradient(name: str, dh: Any, a: Any, axis: int, mask: Any) -> Any:
    """Return the gradient by the formula."""
    p, dh = softmax(a, axis, mask), dh * mask
    if name == "softmax":
        return p * (dh - np.sum(dh * p, axis=axis, keepdims=True))
    return dh - p * np.sum(dh, axis=axis, keepdims=True)


def agree(got: Any, right: Any, eps: float) -> bool:
    """Whether numbers agree to the rounding of terms of size 10, and infinities exactly."""
    finite = np.isfinite(right)
    if got.shape != right.shape or not np.array_equal(got[~finite], right[~finite]):
        return False
    return bool(np.all(abs(got[finite] - right[finite]) <= 10 * C * eps))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("name", FORWARDS)
def test_axis(backend: Backend, name: str, axis: int) -> None:
    """The result over an axis is that over the last one of the array with the axis moved."""
    if backend.mode == "unknown rows" and axis in {0, -3}:
        return  # a sum over rows of unknown number
    a, dh, _ = drawn(())
    arrays = backend.rows(a), backend.rows(dh)
    moved = [backend.rows(np.moveaxis(x, axis, -1)) for x in (a, dh)]
    h = backend.call(partial(FORWARDS[name], axis=axis), arrays[0])
    right = np.moveaxis(backend.numpy(FORWARDS[name](moved[0])), -1, axis)
    eps = EPS[backend.real]
    assert agree(backend.numpy(h), right, eps)
    da = backend.call(partial(BACKWARDS[name], axis=axis), arrays[1], h)
    right = np.moveaxis(backend.numpy(BACKWARDS[name](moved[1], FORWARDS[name](moved[0]))), -1, axis)
    assert agree(backend.numpy(da), right, eps)


@pytest.mark.parametrize("name", FORWARDS)
def test_mask(backend: Backend, dtype: str, name: str) -> None:
    """Values and gradients by the formula, for each axis and each shape of the mask; shapes, dtypes and devices."""
    if dtype.startswith("complex"):
        return
    for axis in (-1, 1):
        for shape in MASKS.values():
            a, dh, mask = drawn(shape)
            logits, upstream = backend.rows(a, dtype), backend.rows(dh, dtype)
            possible = backend.rows(mask) if shape[:1] == SHAPE[:1] else backend.asarray(mask)

            def forward(a: Any, mask: Any, axis: int = axis) -> Any:
                return FORWARDS[name](a, axis=axis, mask=mask)

            def backward(dh: Any, h: Any, mask: Any, axis: int = axis) -> Any:
                return BACKWARDS[name](dh, h, axis=axis, mask=mask)

            h = backend.call(forward, logits, possible)
            da = backend.call(backward, upstream, h, possible)
            a, dh = (np.asarray(backend.numpy(x), "float64") for x in (logits, upstream))
            right = value(name, a, axis, mask), gradient(name, dh, a, axis, mask)
            assert agree(backend.numpy(h), right[0], EPS[dtype])
            assert agree(backend.numpy(da), right[1], 4 * EPS[dtype])
            absent = ~np.broadcast_to(mask, SHAPE)
            assert np.all(backend.numpy(h)[absent] == ABSENT[name])
            assert np.all(backend.numpy(da)[absent] == 0)
            for x in (h, da):
                assert array_namespace(x) is backend.xp
                assert (x.dtype, str(x.shape)) == (logits.dtype, str(logits.shape))
                assert str(device(x)) == str(device(logits))


@pytest.mark.parametrize("name", FORWARDS)
def test_masked_numbers_do_not_count(backend_one_device: Backend, name: str) -> None:
    """NaN and infinity neither in logits nor in upstream gradients; a possible logit of -inf has probability 0."""
    mask = np.asarray([[True, True, True, False], [False] * 4])
    a = np.asarray([[1.0, -np.inf, 2.0, np.nan], [np.inf, np.nan, 0.0, -np.inf]])
    dh = np.asarray([[1.0, 2.0, 3.0, np.inf], [np.nan, np.inf, 1.0, 2.0]])
    possible, logits, upstream = (backend_one_device.rows(x) for x in (mask, a, dh))
    h = FORWARDS[name](logits, mask=possible)
    clean, dh = np.where(np.isfinite(a), a, -1e4), np.where(mask, dh, 0)
    assert agree(backend_one_device.numpy(h), value(name, clean, -1, mask), EPS[backend_one_device.real])
    got = BACKWARDS[name](upstream, h, mask=possible)
    assert agree(backend_one_device.numpy(got), gradient(name, dh, clean, -1, mask), EPS[backend_one_device.real])


def test_logits_of_minus_infinity_alone_are_nan(backend_one_device: Backend) -> None:
    """As without a mask: only a row without a possible class is 0."""
    a = backend_one_device.asarray(np.asarray([[-np.inf, 1.0]]))
    mask = backend_one_device.asarray(np.asarray([[True, False]]))
    with np.errstate(invalid="ignore"):  # as NumPy warns without a mask
        h = backend_one_device.numpy(pb.softmax_forward(a, mask=mask))
    assert np.array_equal(h, [[np.nan, 0]], equal_nan=True)


@pytest.mark.parametrize("name", FORWARDS)
def test_differentiated(backend_one_device: Backend, name: str) -> None:
    """The derivative of first and second order of a possible class is that without the others; all others are 0."""
    mask = np.asarray([[True, False, True, True], [False] * 4, [False, True, False, False]])
    rng = np.random.default_rng(9)
    exact, v = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    possible, upstream = backend_one_device.asarray(mask.T), backend_one_device.asarray(v.T)

    def loss(a: Any) -> Any:
        xp = array_namespace(a)
        h = FORWARDS[name](a, axis=0, mask=possible)
        return xp.sum(xp.where(pb.constant(possible), h, 0.0) * pb.constant(upstream))

    a = backend_one_device.asarray(exact.T)
    _, first = pb.value_and_grad(loss)(a)
    (second,) = pb.hvp(loss, (a,), (upstream,))
    _, tangent = pb.jvp(pb.grad(loss), (a,), (upstream,))
    eps = EPS[backend_one_device.real]
    assert agree(backend_one_device.numpy(first).T, gradient(name, v, exact, -1, mask), 4 * eps)
    p, v = softmax(exact, -1, mask), v * mask
    inner = gradient("softmax", v, exact, -1, mask)
    if name == "softmax":
        mean = np.sum(v * p, axis=-1, keepdims=True)
        right = inner * (v - mean) - p * np.sum(v * inner, axis=-1, keepdims=True)
    else:
        right = -inner * np.sum(v, axis=-1, keepdims=True)
    for got in (second, tangent):
        assert agree(backend_one_device.numpy(got).T, right, 16 * eps)


@pytest.mark.backends("jax", "torch")
@pytest.mark.parametrize("name", FORWARDS)
@pytest.mark.parametrize(
    "mask",
    [[True, True, True], [True, False, True], [False, True, False], [False] * 3],
    ids=["all", "two", "one", "no"],
)
def test_derivatives_by_the_library(backend_one_device: Backend, name: str, mask: list[bool]) -> None:
    """Those of the possible classes alone, and zeros, without a NaN: of the forward and of the backward."""
    xp, eps = backend_one_device.xp, EPS[backend_one_device.real]
    logits, weights = np.asarray([0.5, 2.0, 2.0]), np.asarray([0.25, 0.5, 0.75])
    a, v, possible = (backend_one_device.asarray(x) for x in (logits, weights, np.asarray(mask)))

    def forward(a: Any) -> Any:
        return xp.sum(xp.where(possible, FORWARDS[name](a, mask=possible), 0.0) * v)

    def backward(h: Any) -> Any:
        return xp.sum(BACKWARDS[name](v, h, mask=possible))

    some = np.asarray(mask)
    for way, got in gradients(backend_one_device, forward, a).items():
        assert agree(got, gradient(name, weights, logits, -1, some), 4 * eps), way
    p, units = softmax(logits, -1, some), np.eye(3)
    inner = np.stack([gradient("softmax", e, logits, -1, some) for e in units])
    if name == "softmax":
        mean = np.sum(weights * p)
        right = inner * (weights - mean) - np.outer(inner @ weights, p)
    else:
        right = -inner * np.sum(weights * some)
    for way, got in hessians(backend_one_device, forward, a).items():
        assert agree(got, right, 16 * eps), way
    h = FORWARDS[name](a, mask=possible)
    kept = weights * some
    right = some * (kept - np.sum(kept * p) - kept * np.sum(p)) if name == "softmax" else -p * np.sum(kept)
    for way, got in gradients(backend_one_device, backward, h).items():
        assert agree(got, right, 16 * eps), way


@pytest.mark.backends("jax", "torch")
@pytest.mark.parametrize("name", FORWARDS)
def test_vmap(backend_one_device: Backend, name: str) -> None:
    """Over examples that share a mask, and over masks of one example, along an axis that is not the last."""
    a, dh, mask = drawn((4, 3, 5))
    arrays = [backend_one_device.asarray(x) for x in (a, dh, mask)]

    def both(a: Any, dh: Any, mask: Any) -> Any:
        h = FORWARDS[name](a, axis=0, mask=mask)
        return h, BACKWARDS[name](dh, h, axis=0, mask=mask)

    for axes in ((0, 0, None), (None, 0, 0)):
        args = [x if axis == 0 else x[0, ...] for x, axis in zip(arrays, axes, strict=True)]
        whole = [x if axis == 0 else x[None, ...] for x, axis in zip(args, axes, strict=True)]
        got = vmap(backend_one_device, both, axes)(*args)
        broadcast = [backend_one_device.xp.broadcast_to(x, SHAPE) for x in whole]
        h = FORWARDS[name](broadcast[0], axis=1, mask=broadcast[2])
        right = h, BACKWARDS[name](broadcast[1], h, axis=1, mask=broadcast[2])
        for x, y in zip(got, right, strict=True):
            assert agree(backend_one_device.numpy(x), backend_one_device.numpy(y), EPS[backend_one_device.real])


@pytest.mark.parametrize("name", FORWARDS)
def test_mask_made_of_a_differentiated_array(backend_one_device: Backend, name: str) -> None:
    """It is a constant, also where the logits are a plain array."""
    a = backend_one_device.asarray(np.asarray([1.0, -1.0, 2.0]))
    dh = backend_one_device.asarray(np.asarray([1.0, 2.0, 3.0]))

    def outputs(x: Any) -> Any:
        h = FORWARDS[name](a, mask=x > 0)
        return h, BACKWARDS[name](dh, h, mask=x > 0)

    (h, da), tangents = pb.jvp(outputs, (a,), (a,))
    right = [outputs(a)[0], outputs(a)[1]]
    for got, plain in zip((h, da), right, strict=True):
        assert np.array_equal(backend_one_device.numpy(got), backend_one_device.numpy(plain))
    for tangent in tangents:
        assert not np.any(backend_one_device.numpy(tangent))


def test_layer_of_a_stack(backend_one_device: Backend) -> None:
    """An activation with options: attention of each query to the positions that are not padding."""
    rng = np.random.default_rng(10)
    z, w, dh = (rng.standard_normal(shape) for shape in ((2, 4, 3), (3, 5), (2, 4, 5)))
    mask = np.asarray([True, True, False, True])[:, None]
    options = {"axis": -2, "mask": backend_one_device.asarray(mask)}
    layer = pb.Activation(partial(pb.softmax_forward, **options), partial(pb.softmax_backward, **options), "output")
    arrays = [backend_one_device.asarray(x) for x in (z, w, dh)]
    a, saved = pb.stack_forward([pb.Affine(arrays[1]), layer], arrays[0])
    eps = EPS[backend_one_device.real]
    assert agree(backend_one_device.numpy(a), value("softmax", z @ w, -2, mask), eps)
    got = pb.stack_backward(arrays[2], saved, wrt=("z",)).dz
    assert agree(backend_one_device.numpy(got), gradient("softmax", dh, z @ w, -2, mask) @ w.T, 4 * eps)


@pytest.mark.parametrize("name", FORWARDS)
def test_rejects_axes_and_masks(backend_one_device: Backend, name: str) -> None:
    forward, backward = FORWARDS[name], BACKWARDS[name]
    x, mask = backend_one_device.asarray(np.ones((3, 2))), backend_one_device.asarray(np.ones((3, 2), bool))
    assert forward(x, axis=np.int64(0), mask=mask).shape == (3, 2)
    for axis in (2, -3):
        for call, letter in ((partial(forward, x), "a"), (partial(backward, x, x), "h")):
            with pytest.raises(ValueError, match=rf": {letter} must have an axis {axis} with a class; got {letter} "):
                call(axis=axis)
    with pytest.raises(ValueError, match=rf"^{name}_forward: a must have an axis 0 with a class; got a \(0, 2\)$"):
        forward(x[:0, :], axis=0)
    with pytest.raises(TypeError, match=rf"^{name}_forward: axis must be an integer; got 1\.0$"):
        forward(x, axis=1.0)
    with pytest.raises(TypeError, match=rf"^{name}_forward: mask must have dtype bool; got .*\. Pass mask != 0$"):
        forward(x, mask=backend_one_device.asarray(np.ones((3, 2), "int64")))
    with pytest.raises(TypeError, match=rf"^{name}_backward: mask must have dtype bool; got .*\. Pass mask != 0$"):
        backward(x, x, mask=x)
    with pytest.raises(TypeError, match=rf"^{name}_forward: mask must be an array; got list\. Convert it first"):
        forward(x, mask=[True, False])
    for wrong in (mask[None, ...], mask[:2, :], mask[:, :0]):
        shape = r"^{}: mask must broadcast to the shape of {}; got mask \(.*\) and {} \(3, 2\)$"
        with pytest.raises(ValueError, match=shape.format(f"{name}_forward", "a", "a")):
            forward(x, mask=wrong)
        with pytest.raises(ValueError, match=shape.format(f"{name}_backward", "h", "h")):
            backward(x, x, mask=wrong)
