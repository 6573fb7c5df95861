from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1ms", 0.001),
        ("30s", 30.0),
        ("1.5m", 90.0),
        ("3h", 10800.0),
        ("0s", 0.0),
        ("5 s", 5.0),
    ],
)
def test_a_duration_becomes_seconds(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512B", 512),
        ("256kB", 256 * 1024),
        ("256KB", 256 * 1024),
        ("10MB", 10 * 2**20),
        ("10MiB", 10 * 2**20),
        ("1GB", 2**30),
        ("0.5kB", 512),
    ],
)
def test_a_size_becomes_bytes_in_steps_of_1024(text: str, count: int) -> None:
    assert units.size(text) == count


@pytest.mark.parametrize(
    ("value", "percent"),
    [("50%", 50.0), ("12.5 %", 12.5), (0, 0.0), (100, 100.0), (0.01, 0.01), (33.33, 33.33)],
)
def test_a_percentage_is_a_number_or_has_a_sign(value: str | float, percent: float) -> None:
    assert units.percent(value) == percent


@pytest.mark.parametrize("text", ["", "s", "-1s", "1s1s", "1e3s", "٣s", "1 000s", "0x1s", ".5s"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        units.duration(text)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (units.duration, "5", "'5' lacks a unit: ms, s, m or h"),
        (units.duration, "5min", "unknown unit 'min': ms, s, m or h"),
        (units.duration, "5M", "unknown unit 'M'"),
        (units.duration, "5%", "unknown unit '%'"),
        (units.size, "10", "'10' lacks a unit: B, kB, MB or GB"),
        (units.size, "10mb", "unknown unit 'mb'"),
        (units.percent, "50", "'50' lacks a unit: %"),
        (units.percent, "50s", "unknown unit 's': %"),
    ],
)
def test_a_wrong_unit_is_told_with_the_right_ones(parse, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize("value", [-0.01, 100.01, 101, math.nan, math.inf, -math.inf, "101%"])
def test_a_percentage_lies_between_0_and_100(value: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 100"):
        units.percent(value)


def test_a_percentage_finer_than_a_hundredth_is_refused() -> None:
    """The split would round it, and nobody would know."""
    with pytest.raises(ValueError, match=r"steps of 0\.01"):
        units.percent(0.005)


@given(st.integers(0, 10_000))
def test_every_hundredth_is_a_percentage(hundredths: int) -> None:
    assert units.percent(hundredths / 100) == hundredths / 100


@given(st.integers(0, 10**9))
def test_a_duration_reads_back_as_it_was_said(milliseconds: int) -> None:
    said = units.say_duration(milliseconds / 1000)

    assert units.duration(said) == milliseconds / 1000


@given(st.integers(0, 10**7))
def test_a_size_reads_back_as_it_was_said(count: int) -> None:
    assert units.size(units.say_size(count)) == count


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3600, "1h"), (300, "5m"), (90, "90s"), (1.5, "1.5s"), (0.25, "250ms"), (0, "0ms")],
)
def test_a_duration_is_said_in_the_largest_whole_unit(seconds: float, said: str) -> None:
    assert units.say_duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(2**30, "1GB"), (10 * 2**20, "10MB"), (1536, "1536B"), (2048, "2kB")]
)
def test_a_size_is_said_in_the_largest_whole_unit(count: int, said: str) -> None:
    assert units.say_size(count) == said
