"""Stacks of layers: gradients beside the chain rule written out, what is left undone, and what is refused."""

from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace, device

import pullback as pb
from pullback import (
    Activation,
    Affine,
    affine_backward,
    stack_backward,
    stack_clipped_gradients,
    stack_forward,
    stack_norms,
)
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS, LAYOUTS, C, wide


def _tanh(z: Any) -> Any:
    return array_namespace(z).tanh(z)


def _tanh_backward(da: Any, h: Any) -> Any:
    return da * (1 - h * h)


TANH = Activation(_tanh, _tanh_backward, "output")
SQUARE = Activation(lambda z: z * z, lambda da, z: da * z * 2, "input")
# As jax.jit and torch.compile need them, functions of arrays alone.
NAMES = ("da", "z", "w1", "b1", "w2", "w3", "b3")


def forward(*arrays: Any) -> Any:
    z, w1, b1, w2, w3, b3 = arrays
    return stack_forward([Affine(w1, b1), TANH, Affine(w2), SQUARE, Affine(w3, b3)], z)


def gradients(da: Any, *arrays: Any, wrt: tuple[str, ...] = ("z", "layers")) -> Any:
    return stack_backward(da, forward(*arrays).saved, wrt=wrt)


def output(*arrays: Any) -> Any:
    return forward(*arrays).a


def draw(rows: tuple[int, ...] = (7,)) -> dict[str, Any]:
    """Draw NumPy arrays under the names."""
    rng = np.random.default_rng(40)
    shapes = ((*rows, 2), (*rows, 3), (3, 4), (4,), (4, 3), (3, 2), (2,))
    return {name: rng.uniform(-1, 1, shape) for name, shape in zip(NAMES, shapes, strict=True)}


def hold(backend: Backend, drawn: dict[str, Any], dtype: str | None = None) -> list[Any]:
    """Put the arrays on the backend; the batch has rows of unknown number where there are such."""
    rows = {"da", "z"} if drawn["z"].ndim > 1 else set()
    return [(backend.rows if x in rows else backend.asarray)(array, dtype) for x, array in drawn.items()]


def reference(*arrays: Any) -> tuple[Any, ...]:
    """Follow the chain rule with one name for each step; return the output, dz and the gradients of the parameters."""
    da, z, w1, b1, w2, w3, b3 = arrays
    h1 = np.tanh(z @ w1 + b1)
    a2 = h1 @ w2
    h2 = a2 * a2
    dh2 = da @ w3.T
    da2 = dh2 * 2 * a2
    dh1 = da2 @ w2.T
    da1 = dh1 * (1 - h1 * h1)
    rows = [x.reshape(-1, x.shape[-1]) for x in (z, da1, h1, da2, h2, da)]
    weights = [rows[0].T @ rows[1], rows[1].sum(0), rows[2].T @ rows[3], rows[4].T @ rows[5], rows[5].sum(0)]
    return h2 @ w3 + b3, da1 @ w1.T, *weights


def flat(got: Any) -> tuple[Any, ...]:
    """Return dz and the parameters' gradients in one row."""
    dz, (first, none, second, still_none, third) = got
    assert (none, second.b, still_none) == (None, None, None)
    return dz, *first, second.w, *third


def check(backend: Backend, arrays: list[Any], dtype: str) -> None:
    """Require output and gradients by the chain rule, with the structure of their primals."""
    exact = [wide(backend.numpy(x)) for x in arrays]
    got = (backend.call(output, *arrays[1:]), *flat(backend.call(gradients, *arrays)))
    # All entries lie in [-1, 1]; a sum has at most 4 terms in the layers and rows terms in the weights, and three
    # layers round what they return, two of them through a product with at most 2·4.
    rows = max(exact[0].size // 2, 1)
    tolerance = C * 3 * 8 * (np.sqrt(4 * rows) * rows**0.5 * min(EPS[dtype], EPS["float32"]) + rows * EPS[dtype])
    for x, like, value in zip(got, arrays, reference(*exact), strict=True):
        assert array_namespace(x) is backend.xp
        assert (x.dtype, str(device(x)), str(x.shape)) == (like.dtype, str(device(like)), str(like.shape))
        np.testing.assert_allclose(wide(backend.numpy(x)), value, rtol=0, atol=tolerance)
    for x, before in zip(arrays, exact, strict=True):
        assert np.array_equal(backend.numpy(x), before)


def test_dtypes(backend: Backend, dtype: str) -> None:
    if not dtype.startswith("complex"):  # the activations here are real
        check(backend, hold(backend, draw(), dtype), dtype)


@pytest.mark.parametrize("rows", [(), (1,), (0,), (2, 3)], ids=str)
def test_shapes(backend_one_device: Backend, rows: tuple[int, ...]) -> None:
    check(backend_one_device, hold(backend_one_device, draw(rows), "float32"), "float32")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend_one_device: Backend, layout: str) -> None:
    check(
        backend_one_device,
        [LAYOUTS[layout](backend_one_device.xp, backend_one_device.asarray(x, "float32")) for x in draw().values()],
        "float32",
    )


def test_wrt(backend: Backend) -> None:
    arrays = hold(backend, draw())
    dz, layers = backend.call(gradients, *arrays)
    no_dz, same = backend.call(gradients, *arrays, wrt=("layers",))
    same_dz, no_layers = backend.call(gradients, *arrays, wrt=("z",))
    assert (no_dz, no_layers) == (None, None)
    for x, y in zip(flat((dz, layers)), flat((same_dz, same)), strict=True):
        assert np.array_equal(backend.numpy(x), backend.numpy(y))
    assert backend.call(gradients, *arrays, wrt=()) == (None, None)


def test_nothing_is_done_that_nobody_asks_for(backend_one_device: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training does not differentiate for the batch, nor run what stands before the first parameters."""
    asked = []

    def backward(*arrays: Any, wrt: Any) -> Any:
        asked.append(tuple(wrt))
        return affine_backward(*arrays, wrt=wrt)

    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr("pullback._ops.stack.affine_backward", backward)
    w, z = backend_one_device.asarray(np.ones((3, 3))), backend_one_device.asarray(np.ones((2, 3)))
    a, kept = stack_forward([Activation(_tanh, never, "output"), Affine(w), TANH, Affine(w, w[0, :])], z)
    stack_backward(a, kept, wrt=("layers",))
    assert asked == [("z", "w", "b"), ("w",)]
    stack_backward(a, kept[1:], wrt=("z",))
    assert asked[2:] == [("z",), ("z",)]
    assert stack_backward(a, kept[:1], wrt=("layers",)) == (None, (None,))


def test_nothing_is_copied(backend_one_device: Backend) -> None:
    """What is kept are the arrays themselves, each input and each output once."""
    w, z = backend_one_device.asarray(np.ones((3, 3))), backend_one_device.asarray(np.ones((2, 3)))
    kept = stack_forward([Affine(w), TANH, Affine(w), SQUARE], z).saved
    assert kept[0].x is z
    assert kept[1].x is kept[2].x
    assert [x.layer for x in kept] == [Affine(w), TANH, Affine(w), SQUARE]


def test_ends_in_a_vector_of_weights(backend_one_device: Backend) -> None:
    """A network with a single output gives one number for each example, and the gradients of a column."""
    rng = np.random.default_rng(12)
    z, w1, w2, b2 = (backend_one_device.asarray(rng.standard_normal(x)) for x in ((5, 3), (3, 4), (4, 1), (1,)))
    vector = stack_forward([Affine(w1), TANH, Affine(w2[:, 0], b2[0])], z)
    column = stack_forward([Affine(w1), TANH, Affine(w2, b2)], z)
    assert vector.a.shape == (5,)
    got, right = (stack_backward(x.a, x.saved) for x in (vector, column))
    assert got.layers is not None
    assert right.layers is not None
    shaped = {"dz": (got.dz, right.dz), "w1": (got.layers[0].w, right.layers[0].w)}  # type: ignore[union-attr]
    last = {x: (getattr(got.layers[2], x), getattr(right.layers[2], x)[..., 0]) for x in ("w", "b")}
    for x, y in (shaped | last).values():
        np.testing.assert_array_equal(backend_one_device.numpy(x), backend_one_device.numpy(y))


@pytest.mark.parametrize("rows", [(7,), (4, 3)], ids=str)
def test_examples(backend_one_device: Backend, rows: tuple[int, ...]) -> None:
    """Norms and clipped sums of a network are those of a loop over the examples."""
    drawn = draw(rows)
    held = hold(backend_one_device, drawn)
    norms = backend_one_device.numpy(backend_one_device.call(lambda da, *x: stack_norms(da, forward(*x).saved), *held))
    limit = float(np.median(norms))
    clipped = backend_one_device.numpy(
        backend_one_device.call(lambda da, *x: stack_clipped_gradients(da, forward(*x).saved, limit), *held)
    )
    sums = [np.zeros_like(drawn[x]) for x in ("w1", "b1", "w2", "w3", "b3")]
    for i in range(rows[0]):
        one = {**drawn, "da": drawn["da"][i : i + 1], "z": drawn["z"][i : i + 1]}
        first, _, second, _, third = gradients(*one.values()).layers
        each = [first.w, first.b, second.w, third.w, third.b]
        norm = np.sqrt(sum(np.sum(x * x) for x in each))
        tolerance = 64 * EPS[backend_one_device.real]
        np.testing.assert_allclose(norms[i], norm, rtol=tolerance)
        sums = [total + x * min(1, limit / norm) for total, x in zip(sums, each, strict=True)]
    assert clipped[0] is None
    (w1, b1), none, (w2, no_bias), _, (w3, b3) = clipped[1]
    assert none is no_bias is None
    for got, right in zip((w1, b1, w2, w3, b3), sums, strict=True):
        np.testing.assert_allclose(got, right, rtol=0, atol=1000 * EPS[backend_one_device.real] * np.abs(right).max())


def test_norms_of_examples_at_their_ends(backend_one_device: Backend) -> None:
    """A gradient of 0 has norm 0; squares of the norms may be out of range."""
    w = backend_one_device.asarray(np.ones((1, 1)), "float32")
    for size in (0.0, 1e-25, 1e25):
        z = backend_one_device.rows(np.asarray([[1.0]]), "float32")
        a, saved = stack_forward([Affine(w), Affine(w)], z)
        norms = backend_one_device.numpy(stack_norms(a * size, saved))
        np.testing.assert_allclose(norms, [np.sqrt(2) * size], rtol=1e-6)


def test_examples_of_no_parameters(backend_one_device: Backend) -> None:
    z = backend_one_device.asarray(np.ones((2, 3)))
    a, saved = stack_forward([TANH], z)
    with pytest.raises(ValueError, match=r"^stack_norms: at least one layer must be an Affine, .* got none$"):
        stack_norms(a, saved)
    with pytest.raises(ValueError, match=r"^stack_clipped_gradients: at least one layer must be an Affine"):
        stack_clipped_gradients(a, saved, 1.0)
    _, saved = stack_forward([Affine(z[:, :2].T)], z[:, :2])
    with pytest.raises(ValueError, match=r"^stack_clipped_gradients: max_norm must be above 0; got 0\.0$"):
        stack_clipped_gradients(z[:, :2], saved, 0.0)


def test_empty_stack(backend_one_device: Backend) -> None:
    z = backend_one_device.asarray(np.ones((2, 3)))
    a, kept = stack_forward([], z)
    assert (a is z, kept) == (True, ())
    dz, layers = stack_backward(z, kept)
    assert (dz is z, layers) == (True, ())


def test_refuses(backend_one_device: Backend) -> None:
    z: Any = backend_one_device.asarray(np.ones((2, 3)))
    layers: Any = [TANH, (z, None)]
    with pytest.raises(TypeError, match=r"^stack_forward: each layer must be .*; got tuple for layer 1\. Make one"):
        stack_forward(layers, z)
    saves: Any = "both"
    with pytest.raises(ValueError, match=r"^stack_forward: saves must be one of .*; got 'both' for layer 0$"):
        stack_forward([TANH._replace(saves=saves)], z)
    with pytest.raises(ValueError, match=r"^stack_backward: wrt must be a tuple of names out of .*; got 'z'$"):
        stack_backward(z, (), wrt="z")
    with pytest.raises(ValueError, match=r"^affine_forward: the last axis of z must equal the first axis of w; got"):
        stack_forward([Affine(z)], z)


def test_rejects_layers_and_outputs_in_place_of_what_was_saved(backend_one_mode: Backend) -> None:
    w = backend_one_mode.asarray(np.ones((3, 2)))
    layers = [pb.Affine(w)]
    out = pb.stack_forward(layers, backend_one_mode.asarray(np.ones((4, 3))))
    calls: list[Any] = [pb.stack_backward, pb.stack_norms, lambda da, saved: pb.stack_clipped_gradients(da, saved, 1.0)]
    names = "stack_backward", "stack_norms", "stack_clipped_gradients"
    for name, call in zip(names, calls, strict=True):
        with pytest.raises(TypeError, match=rf"^{name}: saved must be the second result .* got Affine in it$"):
            call(out.a, layers)
        with pytest.raises(TypeError, match=rf"^{name}: saved must be the second result of stack_forward"):
            call(out.a, out)


def test_loss_in_place_of_its_gradient_names_the_fields(backend_one_mode: Backend) -> None:
    z = backend_one_mode.asarray(np.ones((4, 3)))
    loss: Any = pb.squared_error(z, z)
    with pytest.raises(TypeError, match=r"^affine_backward: da must be an array; got Loss\. Pass .* value or da$"):
        pb.affine_backward(loss, z, z)
    with pytest.raises(TypeError, match=r"^grad: the function must .* got Loss\. Return .*, value or da$"):
        pb.grad(lambda z: pb.squared_error(z, z))(z)
