from __future__ import annotations

import pytest

from proxy.core.patterns import MAX_PATTERN, compile_pattern


@pytest.mark.parametrize(
    "text",
    [
        r"agent_[0-9a-f]+",
        r"\+1(415|650)\d{7}",
        r"(?:ab){2,3}c",
        r"(a+){1}",
        r"(a+)?",
        r"(a|b)*c",
        r"[(+]+x*",
        r"\(a+\)+",
        r"(?#(a+)b",
        r"(a++)+",
        r"(?>a+)+",
        r"(?:[^)]*+,)*",
        r"(a+)(b)+",
        r"(a)+b+",
        r"[]a]+",
        r"\(?x",
        r"(?P<area>\d{3})(?=-)(?i:x)",
    ],
)
def test_an_ordinary_pattern_compiles(text: str) -> None:
    assert compile_pattern(text).pattern == text


@pytest.mark.parametrize(
    "text",
    [
        r"(a+)+",
        r"(a*)*b",
        r"(?:a+b?)+c",
        r"((a+))*",
        r"(x(y+)z){2,}",
        r"(\d+,?){10}",
        r"([+]*)+",
        r"(?P<name>a{2,})+",
        r"(?>b)(a+)+",
    ],
)
def test_a_repeat_inside_a_repeat_is_refused(text: str) -> None:
    """On one unlucky text it would hold every call of the process."""
    with pytest.raises(ValueError, match="possessive"):
        compile_pattern(text)


@pytest.mark.parametrize("text", ["(?x)(a+) +", "(?ix:(a+)\n+)"])
def test_blanks_must_not_hide_a_repeat(text: str) -> None:
    with pytest.raises(ValueError, match="x flag"):
        compile_pattern(text)


@pytest.mark.parametrize("text", ["(", "[a", "*", "a{2,1}", "(?<=a+)b", "\\"])
def test_what_is_no_pattern_is_refused_with_its_fault(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no regular expression: \w"):
        compile_pattern(text)


def test_a_repeat_count_beyond_the_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="can be compiled"):
        compile_pattern("a{99999999999999999999}")


def test_the_length_of_a_pattern_is_capped() -> None:
    assert compile_pattern("a" * MAX_PATTERN)
    with pytest.raises(ValueError, match="longer than 256"):
        compile_pattern("a" * (MAX_PATTERN + 1))
