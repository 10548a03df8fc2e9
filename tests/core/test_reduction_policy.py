"""How sums over rows are cut: on both sides of each limit, and within what the limits promise."""

import numpy as np
import pytest

from pullback._core.reduction_policy import (
    CHAIN,
    COLUMN,
    GPU_LONG,
    GPU_ROWS,
    JOINED,
    LONG,
    MANY_ROWS,
    SUM_ROWS,
    SUM_SIZE,
    SUM_WIDTH,
    VECTOR,
    choose,
    choose_on_gpu,
    joined_rows,
    stride,
    sums_by_products,
)

# rows, size, whether the dtype is exact, and the choice.
CHOICES = [
    (0, 6, False, ("whole", 0)),
    (256, 6, False, ("whole", 256)),
    (257, 6, False, ("parts", 129)),
    (512, 6, True, ("whole", 512)),
    (513, 6, True, ("parts", 171)),
    (1536, 6, False, ("parts", 256)),
    (1537, 6, False, ("blocks", 128)),
    (10**6, 2046, False, ("blocks", 128)),
    (257, 2048, False, ("parts", 129)),
    (512, 4096, False, ("parts", 256)),
    (512, 4098, False, ("whole", 512)),
    (513, 2048, False, ("whole", 513)),
    (8192, 2048, False, ("whole", 8192)),
    (8193, 2048, False, ("blocks", 512)),
    (10**6, 2048, False, ("blocks", 8192)),
    (8193, 40_000, True, ("blocks", 5000)),
]


@pytest.mark.parametrize(("rows", "size", "exact", "choice"), CHOICES)
def test_choices(rows: int, size: int, exact: bool, choice: tuple[str, int]) -> None:  # noqa: FBT001
    assert choose(rows, 2, size // 2, exact=exact) == choice
    assert choose(rows, size // 2, 2, exact=exact) == choice


def test_choices_on_a_gpu() -> None:
    assert choose_on_gpu(GPU_LONG, 64, 64, exact=False) == ("whole", GPU_LONG)
    assert choose_on_gpu(GPU_LONG + 1, 1, 1, exact=False) == ("blocks", GPU_ROWS)
    assert choose_on_gpu(10**7, 512, 512, exact=False) == ("blocks", GPU_ROWS)
    assert choose_on_gpu(10**7, 768, 1024, exact=False) == ("blocks", 768)
    assert choose_on_gpu(10**7, 4096, 4096, exact=False) == ("blocks", GPU_LONG)
    assert choose_on_gpu(10**7, 64, 64, exact=True) == ("whole", 10**7)


def test_products_with_a_vector() -> None:
    """In float64 they are whole up to more rows, and longer ones are cut into equal parts; in float32 not."""
    for k, n in ((1, 30), (30, 1)):
        assert choose(VECTOR, k, n, exact=True) == ("whole", VECTOR)
        assert choose(VECTOR + 1, k, n, exact=True) == ("blocks", VECTOR // 2)
        assert choose(10**6, k, n, exact=True) == ("blocks", 10**6 // 62)
        assert choose(VECTOR, k, n, exact=False) == ("blocks", CHAIN)


def test_no_product_is_longer_than_its_chains_allow() -> None:
    rng = np.random.default_rng(80)
    for rows, size, exact in zip(
        rng.integers(1, 50_000, 500).tolist(), rng.integers(4, 5000, 500).tolist(), rng.random(500) < 0.5, strict=True
    ):
        method, block = choose(rows, 2, size // 2, exact=bool(exact))
        assert 0 < block <= rows
        assert (method == "whole") == (block == rows)
        assert block <= LONG
        assert size // 2 * 2 >= 2048 or block <= (4 * CHAIN if exact else 2 * CHAIN)


def test_sums_by_products() -> None:
    assert sums_by_products(SUM_ROWS - 1, 10**6)
    assert sums_by_products(LONG, SUM_SIZE // LONG - 1)
    assert not sums_by_products(LONG, SUM_SIZE // LONG)
    assert not sums_by_products(LONG + 1, 2)
    assert sums_by_products(SUM_ROWS - 1, 1)
    assert not sums_by_products(SUM_ROWS, 1)
    assert not sums_by_products(1, 0)


def test_stride() -> None:
    """One addition takes about SUM_WIDTH entries; there is none for less than a chain of rows."""
    assert [stride(10**6, width) for width in (0, 1, 3, SUM_WIDTH, 10**4)] == [SUM_WIDTH, SUM_WIDTH, 171, 1, 1]
    assert [stride(rows, 2) for rows in (0, CHAIN - 1, CHAIN, 5 * CHAIN)] == [0, 0, 1, 5]
    assert [stride(rows, 1) for rows in (CHAIN, COLUMN, COLUMN + 1)] == [0, 0, (COLUMN + 1) // CHAIN]


def test_joined_rows() -> None:
    assert joined_rows(MANY_ROWS, 1) == 1
    assert joined_rows(10**4, 0) == 1
    assert joined_rows(10**4, JOINED // 2 + 1) == 1
    for rows in (1031, 2048, 3000, 4097):
        for width in (1, 3, 100, JOINED // 2):
            joined = joined_rows(rows, width)
            assert rows % joined == 0
            assert 1 <= joined <= JOINED // width
    assert joined_rows(2048, 1) == JOINED
