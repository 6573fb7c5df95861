from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.quantile import ACCURACY, HIGHEST, LOWEST, REMEMBERED, Quantile

OFF = ACCURACY * 1.01


def of(values: list[float], part: float = 0.95) -> float:
    quantile = Quantile(part)
    for value in values:
        quantile.add(value)
    return quantile.value()


def test_of_nothing_it_is_nothing() -> None:
    assert of([]) == 0.0


@given(
    st.lists(st.floats(LOWEST, HIGHEST), min_size=1, max_size=300),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_it_is_never_more_than_five_percent_off(values: list[float], part: float) -> None:
    exact = sorted(values)[min(math.floor(part * len(values) + 1e-9), len(values) - 1)]
    below = sorted(values)[max(math.ceil(part * len(values) - 1e-9) - 1, 0)]

    assert below * (1 - ACCURACY) * 0.999 <= of(values, part) <= exact * (1 + ACCURACY) * 1.001


@pytest.mark.parametrize(("value", "bound"), [(0.0, LOWEST), (1e-9, LOWEST), (1e9, HIGHEST)])
def test_what_is_out_of_range_counts_as_its_end(value: float, bound: float) -> None:
    assert of([value] * 10) == pytest.approx(bound, rel=0.11)


def test_what_is_long_past_weighs_little() -> None:
    quantile = Quantile(0.95)
    for _ in range(10 * REMEMBERED):
        quantile.add(0.5)
    for _ in range(REMEMBERED):
        quantile.add(0.05)
    assert quantile.value() == pytest.approx(0.5, rel=OFF)
    for _ in range(3 * REMEMBERED):
        quantile.add(0.05)

    assert quantile.value() == pytest.approx(0.05, rel=OFF)
    assert quantile.count == 14 * REMEMBERED


def test_slower_times_show_soon() -> None:
    """A twentieth of slow answers is enough: that is what the percentile means."""
    quantile = Quantile(0.95)
    for _ in range(REMEMBERED - 1):
        quantile.add(0.05)
    for _ in range(REMEMBERED // 10):
        quantile.add(1.0)

    assert quantile.value() == pytest.approx(1.0, rel=OFF)


def test_its_memory_does_not_grow() -> None:
    quantile = Quantile(0.95)
    before = len(quantile._counts)
    for n in range(5 * REMEMBERED):
        quantile.add(0.0001 * 1.01**n if n < 3000 else 0.1)

    assert len(quantile._counts) == before < 128
