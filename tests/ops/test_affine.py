"""The affine family: the laws on every shape and dtype, the case worked by hand, and what it refuses."""

from typing import Any

import numpy as np
import pytest

from pullback import affine_backward, affine_double_backward, affine_forward, affine_jvp
from tests.harness.backend import Backend, sampled
from tests.harness.order_laws import ORDER_LAWS
from tests.harness.pair_cases import AFFINE, AFFINE_SHAPES, VECTOR_SHAPES
from tests.harness.pair_laws import EPS, LAWS, LAYOUTS, SHAPE_LAWS, C, given, inner, layouts, relaid, wide

SHAPES = AFFINE_SHAPES | VECTOR_SHAPES


@pytest.mark.parametrize("law", SHAPE_LAWS)
@pytest.mark.parametrize("shape", sampled(SHAPES, 2))
def test_shapes(backend_one_device: Backend, law: str, shape: str) -> None:
    LAWS[law](backend_one_device, AFFINE, given(backend_one_device, AFFINE, SHAPES[shape], "float32"))


@pytest.mark.parametrize("law", LAWS)
def test_dtypes(backend: Backend, dtype: str, law: str) -> None:
    LAWS[law](backend, AFFINE, given(backend, AFFINE, SHAPES["3-d"], dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of", ["float32", "complex64"])
def test_layouts(backend: Backend, of: str, layout: str) -> None:
    layouts(layout, backend, AFFINE, given(backend, AFFINE, SHAPES["3-d"], of))


@pytest.mark.parametrize("law", ["tangent", "double backward"])
@pytest.mark.parametrize("shape", sampled(SHAPES, 2))
def test_shapes_of_orders(backend_one_device: Backend, law: str, shape: str) -> None:
    ORDER_LAWS[law](backend_one_device, AFFINE, given(backend_one_device, AFFINE, SHAPES[shape], "float32"))


@pytest.mark.parametrize("law", ORDER_LAWS)
def test_dtypes_of_orders(backend: Backend, dtype: str, law: str) -> None:
    ORDER_LAWS[law](backend, AFFINE, given(backend, AFFINE, SHAPES["3-d"], dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_orders(backend_one_device: Backend, layout: str) -> None:
    case = relaid(layout, backend_one_device, given(backend_one_device, AFFINE, SHAPES["3-d"], "complex64"))
    ORDER_LAWS["tangent"](backend_one_device, AFFINE, case)
    ORDER_LAWS["double backward"](backend_one_device, AFFINE, case)


def test_by_hand(backend: Backend, dtype: str) -> None:
    z, da = backend.rows([[1, 2], [3, 4]], dtype), backend.rows([[1, 10], [100, 1000]], dtype)
    w, b = backend.asarray([[5, 6], [7, 8]], dtype), backend.asarray([0.5, -0.5], dtype)
    a = backend.numpy(backend.call(affine_forward, z, w, b))
    dz, dw, db = backend.numpy(backend.call(affine_backward, da, z, w))
    assert a.tolist() == [[19.5, 21.5], [43.5, 49.5]]
    assert dz.tolist() == [[65, 87], [_in(dtype, 6500), _in(dtype, 8700)]]
    assert dw.tolist() == [[_in(dtype, 301), _in(dtype, 3010)], [_in(dtype, 402), _in(dtype, 4020)]]
    assert db.tolist() == [101, _in(dtype, 1010)]


def _in(dtype: str, x: float) -> float:
    """Round to a narrow dtype, to nearest and ties to even: a float16 has 11 bits and a bfloat16 8."""
    unit = 2.0 ** (np.frexp(x)[1] - {"float16": 11, "bfloat16": 8}.get(dtype, 24))
    return float(np.round(x / unit) * unit)


def test_without_bias(backend: Backend) -> None:
    z, w = backend.rows([[1.0, 2.0], [3.0, 4.0]]), backend.asarray([[5.0, 6.0], [7.0, 8.0]])
    expected = [[19.0, 22.0], [43.0, 50.0]]
    assert backend.numpy(backend.call(affine_forward, z, w)).tolist() == expected
    assert backend.numpy(backend.call(affine_forward, z, w, None)).tolist() == expected


MIXED = [
    ("float32", "float64", "float64"),
    ("float64", "float32", "float64"),
    ("float32", "complex64", "complex64"),
    ("complex64", "float32", "complex64"),
    ("float64", "complex64", "complex128"),
    ("float16", "float32", "float32"),
    ("float32", "float16", "float32"),
]


@pytest.mark.parametrize(("of_z", "of_w", "promoted"), MIXED)
def test_mixed_dtypes(backend_one_device: Backend, of_z: str, of_w: str, promoted: str) -> None:
    """The forward promotes; each gradient has its primal's dtype, a real one the real part of a complex gradient."""
    of_z, of_w, promoted = (x if x in backend_one_device.dtypes else "float32" for x in (of_z, of_w, promoted))
    rng = np.random.default_rng(3)
    z, w, b, da = (rng.standard_normal(shape).astype("float16") for shape in ((6, 3), (3, 4), (4,), (6, 4)))
    w = w * (1 + 2j) if "complex" in of_w else w
    z = z * (2 - 1j) if "complex" in of_z else z
    da = da * (1 - 1j) if "complex" in promoted else da
    upstream, batch = backend_one_device.rows(da, promoted), backend_one_device.rows(z, of_z)
    weights, bias = backend_one_device.asarray(w, of_w), backend_one_device.asarray(b, of_w)
    a = backend_one_device.call(affine_forward, batch, weights, bias)
    gradients = backend_one_device.call(affine_backward, upstream, batch, weights)
    assert a.dtype == backend_one_device.dtype(promoted)
    assert [x.dtype for x in gradients] == [backend_one_device.dtype(x) for x in (of_z, of_w, of_w)]
    z, w, b, da = (x.astype("complex128") for x in (z, w, b, da))
    expected: list[Any] = [z @ w + b, da @ w.conj().T, z.conj().T @ da, da.sum(axis=0)]
    for got, exact, dtype in zip((a, *gradients), expected, (promoted, of_z, of_w, of_w), strict=True):
        wanted = exact if "complex" in dtype else exact.real
        coarsest = max(EPS[x] for x in (of_z, of_w, dtype))
        np.testing.assert_allclose(
            backend_one_device.numpy(got), wanted, rtol=0, atol=C * np.sqrt(6) * coarsest * np.abs(exact).max()
        )


def test_complex_gradient_is_steepest_descent(backend: Backend) -> None:
    """For L = Σ|a|²/2, ∂L/∂a = a; L is quadratic, so its central difference with step 1 is exactly Re⟨dw, ẇ⟩."""
    rng = np.random.default_rng(4)
    z, w, move = (rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)) for _ in range(3))
    batch, weights = backend.rows(z), backend.asarray(w)
    a = backend.call(affine_forward, batch, weights)
    dw = backend.numpy(backend.call(affine_backward, a, batch, weights, wrt=("w",)).dw)
    change = (np.sum(np.abs(z @ (w + move)) ** 2) - np.sum(np.abs(z @ (w - move)) ** 2)) / 4
    np.testing.assert_allclose(np.vdot(dw, move).real, change, rtol=1e-4)
    assert np.sum(np.abs(z @ (w - 1e-3 * dw)) ** 2) < np.sum(np.abs(z @ w) ** 2)


VECTOR_DTYPES = "float16", "float32", "complex64"


@pytest.mark.parametrize("of", VECTOR_DTYPES)
@pytest.mark.parametrize("law", LAWS)
def test_dtypes_of_a_vector(backend: Backend, law: str, of: str) -> None:
    if of in backend.dtypes:
        LAWS[law](backend, AFFINE, given(backend, AFFINE, SHAPES["vector, 3-d"], of))


def test_a_vector_of_weights_sums_like_a_column(backend_one_device: Backend) -> None:
    """The sums over 100,000 rows are those of a column, which are accurate, to the bit."""
    rng = np.random.default_rng(11)
    z, da = (backend_one_device.blocks(0.1 + rng.random((100_000, n)), "float32") for n in (3, 1))
    w = backend_one_device.asarray(np.ones((3, 1)), "float32")
    vector = backend_one_device.numpy(affine_backward(da[:, 0], z, w[:, 0]))
    column = backend_one_device.numpy(affine_backward(da, z, w))
    for x, right in zip(vector, column, strict=True):
        assert np.array_equal(x, right[..., 0] if right is not column[0] else right)


def test_narrow_sums_keep_growing(backend_one_device: Backend) -> None:
    """A running float16 sum of ones stops at 2,048 and a bfloat16 one at 256; 5,000 and 4,992 are numbers of theirs."""
    for dtype, rows in (("float16", 5000), ("bfloat16", 4992)):
        if dtype in backend_one_device.dtypes:
            ones = backend_one_device.blocks(np.ones((rows, 2)), dtype)
            _, dw, db = backend_one_device.call(
                affine_backward, ones, ones, backend_one_device.asarray(np.ones((2, 2)), dtype)
            )
            assert backend_one_device.numpy(dw).tolist() == [[rows, rows], [rows, rows]]
            assert backend_one_device.numpy(db).tolist() == [rows, rows]


@pytest.mark.parametrize(
    ("given", "reached"),
    [((), ()), (("z",), ("dda", "dw")), (("w",), ("dda", "dz")), (("b",), ("dda",)), (("z", "w"), ("dda", "dz", "dw"))],
    ids=str,
)
def test_double_backward_is_none_where_no_cotangent_leads(
    backend_one_device: Backend, given: tuple[str, ...], reached: tuple[str, ...]
) -> None:
    arrays = {
        x: backend_one_device.asarray(np.ones(shape)) for x, shape in {"z": (5, 3), "w": (3, 4), "b": (4,)}.items()
    }
    cotangents: list[Any] = [array if x in given else None for x, array in arrays.items()]
    upstream = [backend_one_device.asarray(np.ones((5, 4))), arrays["z"], arrays["w"]]
    gradients = affine_double_backward(*[*cotangents, *upstream])
    assert tuple(x for x, array in gradients._asdict().items() if array is not None) == reached


def _integers(rng: np.random.Generator, backend: Backend, *shapes: tuple[int, ...]) -> list[Any]:
    """Draw small complex integers, of which no product or sum is rounded."""
    drawn = [rng.integers(-3, 4, (2, *shape)) for shape in shapes]
    return [backend.asarray(real + 1j * imaginary) for real, imaginary in drawn]


DOUBLE = ((5, 3), (3, 4), (4,), (5, 4), (5, 3), (3, 4))


def test_double_backward_is_made_of_the_family(backend_one_device: Backend) -> None:
    ddz, ddw, ddb, da, z, w = _integers(np.random.default_rng(8), backend_one_device, *DOUBLE)
    expected = (
        affine_jvp(z, w, z_tangent=ddz, w_tangent=ddw, b_tangent=ddb),
        affine_backward(da, z, ddw).dz,
        affine_backward(da, ddz, w).dw,
    )
    for got, right in zip(affine_double_backward(ddz, ddw, ddb, da, z, w), expected, strict=True):
        np.testing.assert_array_equal(backend_one_device.numpy(got), backend_one_device.numpy(right))


def test_third_order_is_made_of_the_family(backend_one_device: Backend) -> None:
    """The backward of the double backward: that of its tangent is a backward, those of its backwards double ones.

    It is the gradient of ``S = Re (⟨u, dda⟩ + ⟨v, dz⟩ + ⟨t, dw⟩)``, whose terms are bilinear in arrays that move: the
    central difference of S with step 1 is exact.
    """
    rng = np.random.default_rng(9)
    x, moves = _integers(rng, backend_one_device, *DOUBLE), _integers(rng, backend_one_device, *DOUBLE)
    cotangents = u, v, t = _integers(rng, backend_one_device, (5, 4), (5, 3), (3, 4))
    ddz, ddw, _, da, z, w = x
    through_z: Any = affine_backward(u, ddz, w)
    through_w: Any = affine_backward(u, z, ddw)
    of_dz: Any = affine_double_backward(v, None, None, da, z, ddw)
    of_dw: Any = affine_double_backward(None, t, None, da, ddz, w)
    gradients = (
        through_z.dz + of_dw.dz,
        through_w.dw + of_dz.dw,
        through_w.db,
        of_dz.dda + of_dw.dda,
        through_w.dz,
        through_z.dw,
    )
    ends = [affine_double_backward(*(y + sign * move for y, move in zip(x, moves, strict=True))) for sign in (1, -1)]
    s_ahead, s_behind = (
        sum(inner(backend_one_device.numpy(c), backend_one_device.numpy(y)) for c, y in zip(cotangents, s, strict=True))
        for s in ends
    )
    change = sum(
        inner(backend_one_device.numpy(g), backend_one_device.numpy(move))
        for g, move in zip(gradients, moves, strict=True)
    )
    assert (s_ahead - s_behind) / 2 == change


@pytest.mark.parametrize(("of_z", "of_w"), [("float32", "complex64"), ("complex64", "float32")])
def test_double_backward_takes_the_real_part(backend_one_device: Backend, of_z: str, of_w: str) -> None:
    """Where a primal is real, so is its gradient, and the imaginary part of a cotangent multiplies nothing."""
    shapes = {"ddz": (5, 3), "ddw": (3, 4), "ddb": (4,), "da": (5, 4), "z": (5, 3), "w": (3, 4)}
    drawn = dict(zip(shapes, _integers(np.random.default_rng(10), backend_one_device, *shapes.values()), strict=True))
    exact = {x: wide(backend_one_device.numpy(array)) for x, array in drawn.items()}
    for x, primal in (("z", of_z), ("w", of_w)):
        if primal == "float32":
            drawn[x] = backend_one_device.asarray(exact[x].real, "float32")
            for y in (x, f"dd{x}", *(("ddb",) if x == "w" else ())):
                exact[y] = exact[y].real
    dda, dz, dw = affine_double_backward(*drawn.values())
    ddz, ddw, ddb, da, z, w = exact.values()
    np.testing.assert_array_equal(backend_one_device.numpy(dda), ddz @ w + z @ ddw + ddb)
    np.testing.assert_array_equal(backend_one_device.numpy(dz), _like(z, da @ ddw.conj().T))
    np.testing.assert_array_equal(backend_one_device.numpy(dw), _like(w, ddz.conj().T @ da))


def _like(primal: Any, x: Any) -> Any:
    return x if np.iscomplexobj(primal) else x.real


FORWARD_ERRORS = {
    "w 0-d": ((2, 3), (), (), r"w must be a matrix or a vector, shape \(k, n\) or \(k,\); got w \(\)$"),
    "w 3-d": ((2, 3), (1, 3, 4), (4,), r"w must be a matrix or a vector, .*; got w \(1, 3, 4\)$"),
    "k of a vector": ((2, 3), (4,), (), r"the last axis of z must .* of w; got z \(2, 3\) and w \(4,\)$"),
    "b of a vector": ((2, 3), (3,), (1,), r"b must be 0-d for a vector w; got b \(1,\) and w \(3,\)$"),
    "z 0-d": ((), (3, 4), (4,), r"z must have at least one axis, shape \(\.\.\., k\); got z \(\)$"),
    "k": (
        (32, 64),
        (63, 10),
        (10,),
        r"the last axis of z must equal the first axis of w; got z \(32, 64\) and w \(63, 10\)$",
    ),
    "b 2-d": (
        (2, 3),
        (3, 4),
        (1, 4),
        r"b must have one entry for each .*, shape \(n,\); got b \(1, 4\) and w \(3, 4\)$",
    ),
    "b 0-d": ((2, 3), (3, 4), (), r"b must have one entry for each .*, shape \(n,\); got b \(\) and w \(3, 4\)$"),
    "b of 1": ((2, 3), (3, 4), (1,), r"b must have one entry for each .*; got b \(1,\) and w \(3, 4\)$"),
}


@pytest.mark.parametrize("case", FORWARD_ERRORS)
def test_forward_refuses_shapes(backend_one_device: Backend, case: str) -> None:
    *shapes, message = FORWARD_ERRORS[case]
    z, w, b = (backend_one_device.asarray(np.ones(shape)) for shape in shapes)
    with pytest.raises(ValueError, match=f"^affine_forward: {message}"):
        affine_forward(z, w, b)


BACKWARD_ERRORS = {
    "w 0-d": ((2, 4), (2, 3), (), r"w must be a matrix or a vector, shape \(k, n\) or \(k,\); got w \(\)$"),
    "da of a vector": (
        (2, 1),
        (2, 3),
        (3,),
        r"da must have the shape of the output z w, \(\.\.\.\) for a vector w; got da \(2, 1\) and z \(2, 3\)",
    ),
    "z 0-d": ((2, 4), (), (3, 4), r"z must have at least one axis, shape \(\.\.\., k\); got z \(\)$"),
    "k": ((2, 4), (2, 5), (3, 4), r"the last axis of z must .* of w; got z \(2, 5\) and w \(3, 4\)$"),
    "da's n": (
        (2, 5),
        (2, 3),
        (3, 4),
        r"da must have the shape of the output .* got da \(2, 5\) and z \(2, 3\) and w ",
    ),
    "da's rows": ((3, 4), (2, 3), (3, 4), r"da must have the shape of the output .* got da \(3, 4\) and z \(2, 3\)"),
    "da's axes": ((4,), (2, 3), (3, 4), r"da must have the shape of the output .* got da \(4,\) and z \(2, 3\)"),
    "da 0-d": ((), (3,), (3, 4), r"da must have the shape of the output z w, \(\.\.\., n\); got da \(\) and z \(3,\)"),
}


@pytest.mark.parametrize("case", BACKWARD_ERRORS)
def test_backward_refuses_shapes(backend_one_device: Backend, case: str) -> None:
    *shapes, message = BACKWARD_ERRORS[case]
    da, z, w = (backend_one_device.asarray(np.ones(shape)) for shape in shapes)
    with pytest.raises(ValueError, match=f"^affine_backward: {message}"):
        affine_backward(da, z, w)


TANGENT_ERRORS = {
    "z": ((3, 3), (3, 4), (4,), r"{z} must have the shape of z; got {z} \(3, 3\) and z \(2, 3\)$"),
    "z broadcast": ((3,), (3, 4), (4,), r"{z} must have the shape of z; got {z} \(3,\) and z \(2, 3\)$"),
    "w": ((2, 3), (4, 3), (4,), r"{w} must have the shape of w; got {w} \(4, 3\) and w \(3, 4\)$"),
    "b": ((2, 3), (3, 4), (3,), r"{b} must have one entry for each column of w, .*; got {b} \(3,\) and w \(3, 4\)$"),
    "b 2-d": ((2, 3), (3, 4), (1, 4), r"{b} must have one entry for .*; got {b} \(1, 4\) and w \(3, 4\)$"),
}


@pytest.mark.parametrize("case", TANGENT_ERRORS)
def test_orders_reject_shapes(backend_one_device: Backend, case: str) -> None:
    *shapes, message = TANGENT_ERRORS[case]
    *moves, da, z, w = (backend_one_device.asarray(np.ones(shape)) for shape in (*shapes, (2, 4), (2, 3), (3, 4)))
    with pytest.raises(ValueError, match=f"^affine_double_backward: {message.format(z='ddz', w='ddw', b='ddb')}"):
        affine_double_backward(*[*moves, da, z, w])
    names = {"z": "z_tangent", "w": "w_tangent", "b": "b_tangent"}
    with pytest.raises(ValueError, match=f"^affine_jvp: {message.format(**names)}"):
        affine_jvp(z, w, **dict(zip(names.values(), moves, strict=True)))


def test_orders_name_themselves(backend_one_device: Backend) -> None:
    """What the functions check alike, each of them says under its own name."""
    da, z, w = (backend_one_device.asarray(np.ones(shape)) for shape in ((2, 4), (2, 3), (3, 4)))
    with pytest.raises(ValueError, match=r"^affine_jvp: the last axis of z must equal the first axis of w; got z "):
        affine_jvp(da, w, w_tangent=w)
    with pytest.raises(ValueError, match=r"^affine_double_backward: the last axis of z must equal the first axis of w"):
        affine_double_backward(None, w, None, da, da, w)
    with pytest.raises(
        ValueError, match=r"^affine_double_backward: da must have the shape of the output z w, .* got da"
    ):
        affine_double_backward(None, w, None, z, z, w)


def test_jvp_refuses_no_tangent(backend_one_device: Backend) -> None:
    z, w = backend_one_device.asarray(np.ones((2, 3))), backend_one_device.asarray(np.ones((3, 4)))
    message = r"^affine_jvp: at least one tangent must be given; got none\. Pass z_tangent, w_tangent or b_tangent$"
    with pytest.raises(ValueError, match=message):
        affine_jvp(z, w)


@pytest.mark.backends("dask")
def test_unknown_features(backend_one_device: Backend) -> None:
    """Features of unknown number, as a lazy selection leaves them, are multiplied."""
    rng = np.random.default_rng(19)
    z, w, chosen = rng.standard_normal((5, 3)), rng.standard_normal((3, 2)), np.asarray([True, False, True])
    # In one chunk: Dask itself cannot align chunks of unknown sizes.
    lazy_z, lazy_w, mask = (backend_one_device.asarray(x).rechunk(-1) for x in (z, w, chosen))
    a = backend_one_device.numpy(affine_forward(lazy_z[:, mask], lazy_w[mask, :]))
    np.testing.assert_allclose(a, z[:, chosen] @ w[chosen], rtol=1e-6)
