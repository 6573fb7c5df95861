"""The statistics of the timing proof; the times themselves are no matter for a test."""

from __future__ import annotations

import random

import pytest

from tests.bench.timing import ALPHA, TOKEN, compared, rank_test, sorts


def times(shift: float, *, count: int = 2000, seed: int = 1) -> list[int]:
    draw = random.Random(seed)
    return [round(draw.lognormvariate(10, 0.3) + shift) for _ in range(count)]


def test_what_does_not_differ_is_not_found() -> None:
    """Of a thousand pairs of samples about one is taken for different."""
    found = sum(
        rank_test(times(0, count=200, seed=n), times(0, count=200, seed=-n - 1)) < ALPHA
        for n in range(100)
    )

    assert found <= 2


def test_a_small_shift_of_all_is_found() -> None:
    assert rank_test(times(0), times(1000, seed=2)) < ALPHA


@pytest.mark.parametrize("same", [[5] * 100, [1, 2, 3]])
def test_equal_samples_are_equal(same: list[int]) -> None:
    assert rank_test(same, same) == pytest.approx(1.0)


def test_the_figure_is_that_of_the_textbook() -> None:
    """Two samples of five without ties: U = 2, z = 2.1934."""
    assert rank_test([1, 2, 3, 4, 7], [5, 6, 8, 9, 10]) == pytest.approx(0.0283, abs=1e-4)


def test_each_sort_is_compared_with_the_first() -> None:
    rows = compared({"first": times(0), "same": times(0, seed=3), "slow": times(3000, seed=4)})

    assert "p" not in rows["first"]
    assert rows["same"]["p"] >= ALPHA > rows["slow"]["p"]
    assert rows["slow"]["from_us"] < rows["slow"]["difference_us"] < rows["slow"]["to_us"]


def test_every_sort_is_wrong_and_most_are_nearly_right() -> None:
    tried = sorts(TOKEN)

    assert TOKEN.encode() not in tried.values()
    assert len(set(tried.values())) == len(tried)
    assert sum(a == b for a, b in zip(tried["last byte"], TOKEN.encode(), strict=True)) == 31
    assert tried["first byte"][1:] == TOKEN.encode()[1:]
