"""What a tape saves: nothing but what the derivatives of active arguments need, counted in arrays of one size."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback as pb

SIZE = 2**17  # 1 MiB of float64
STEPS = 20


def peak_of(function: Callable[..., Any], *args: Any) -> float:
    """Return the largest number of arrays that a call held at a time, besides its arguments."""
    function(*args)  # what is made once is made now
    tracemalloc.start()
    try:
        function(*args)
        return tracemalloc.get_traced_memory()[1] / (8 * SIZE)
    finally:
        tracemalloc.stop()


def chain(step: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return the gradient of a chain of equal steps ``(xp, x, c)``, where c is constant."""

    def f(x: Any, c: Any) -> Any:
        xp = array_namespace(x)
        for _ in range(STEPS):
            x = step(xp, x, c)
        return xp.sum(x)

    return pb.grad(f)


# A step makes an array and holds its argument; the pull holds a cotangent and makes the next one.
@pytest.mark.parametrize(
    ("step", "saved"),
    [
        pytest.param(lambda _, x, c: x + c, 0, id="sum: nothing"),
        pytest.param(lambda _, x, c: x * c, 0, id="product with a constant: the constant, which exists"),
        pytest.param(lambda _, x, __: x * 2.0, 0, id="product with a number: the number"),
        pytest.param(lambda xp, x, _: xp.tanh(x), STEPS, id="tanh: its output"),
        pytest.param(lambda xp, x, _: xp.sin(x), STEPS - 1, id="sin: its argument"),
        pytest.param(lambda _, x, __: x * x, STEPS - 1, id="square: its argument, once"),
        pytest.param(lambda xp, x, _: xp.reshape(x, (-1,)), 0, id="reshape: nothing"),
        pytest.param(lambda xp, x, _: xp.exp(x - xp.max(x)) - 1.0, STEPS * 2, id="exponential and maximum"),
    ],
)
def test_a_chain_saves_what_its_derivative_needs(step: Callable[[Any, Any, Any], Any], saved: int) -> None:
    x, c = np.full(SIZE, 0.5), np.full(SIZE, 1.01)
    assert peak_of(chain(step), x, c) <= saved + 5


def test_checkpoint_saves_the_arguments_alone() -> None:
    """Parts of four operations: the arguments of the parts, and what one part saves."""
    x = np.full(SIZE, 0.5)

    def part(x: Any) -> Any:
        xp = array_namespace(x)
        for _ in range(2):
            x = xp.tanh(xp.sin(x))
        return x

    def f(x: Any, part: Callable[[Any], Any] = part) -> Any:
        for _ in range(STEPS):
            x = part(x)
        return array_namespace(x).sum(x)

    plain = pb.grad(f)
    parts = pb.grad(lambda x: f(x, pb.checkpoint(part)))
    assert np.array_equal(plain(x), parts(x))
    # The output of tanh is the argument of the next sine.
    assert 2 * STEPS <= peak_of(plain, x) <= 2 * STEPS + 5
    assert peak_of(parts, x) <= STEPS + 2 + 5


def test_constant_sides_are_not_saved() -> None:
    """Of a product of matrices, the gradient for one needs the other alone."""
    z, w = np.ones((512, 256)), np.ones((256, 256))

    def f(w: Any) -> Any:
        xp = array_namespace(w)
        a = pb.constant(z) @ w
        return xp.sum(a)

    _, pull = pb.vjp(f, w)
    nodes = next(cell.cell_contents for cell in pull.__closure__ or () if hasattr(cell.cell_contents, "nodes")).nodes
    saved = [x for node in nodes for _, _, what in node for x in what if isinstance(x, np.ndarray)]
    assert [x is z for x in saved] == [True]
