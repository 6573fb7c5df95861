from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.rules.scalar import typed


@pytest.mark.parametrize(
    "text",
    ["no", "yes", "on", "off", "y", "1:30", "12:30:00", "2026-01-31", "1_000", "0b1", "1e", "e1",
     ".", "+", "-", "0x", "0o8", "1.2.3", "tRue", "nULL", "٣", "1 ", "--1", "++.inf", "10MB"],
)  # fmt: skip
def test_what_yaml_1_1_would_guess_stays_text(text: str) -> None:
    assert typed(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("NULL", None),
        ("true", True), ("False", False),
        ("0", 0), ("017", 17), ("-5", -5), ("+5", 5), ("0o17", 15), ("0x1F", 31),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-1.5E-3", -0.0015),
        (".inf", math.inf), ("-.INF", -math.inf), ("1e999", math.inf),
    ],
)  # fmt: skip
def test_a_scalar_has_the_type_of_the_core_schema(text: str, value: object) -> None:
    found = typed(text)

    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number() -> None:
    assert isinstance(found := typed(".NaN"), float)
    assert math.isnan(found)


def test_a_number_without_end_stays_text() -> None:
    """Python takes quadratic time for such a number, and refuses it past 4300 digits."""
    assert typed("9" * 100_000) == "9" * 100_000


@pytest.mark.parametrize(
    "text",
    ["18446744073709551616", "-9223372036854775809", "0x10000000000000000", "9" * 30,
     "0o2000000000000000000000"],
)  # fmt: skip
def test_an_integer_that_no_json_holds_stays_text(text: str) -> None:
    """Found by fuzzing: it passed for a number, and `rules check` crashed in showing it."""
    assert typed(text) == text


@given(st.integers(-(2**63), 2**64 - 1))
def test_an_integer_reads_back(number: int) -> None:
    assert typed(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e20, max_value=1e20))
def test_a_float_reads_back(number: float) -> None:
    assert typed(repr(number)) == number
