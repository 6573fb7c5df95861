from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw, Struct, UnsetType, field

from proxy.core.partial import Partial, mended


class Inner(Struct):
    name: str | None = None
    raw: Raw | UnsetType = UNSET


class Renamed(Struct):
    text: str | None = field(default=None, name="a/b")
    number: int | None = None


class Outer(Struct):
    text: str | None = None
    number: int | None = None
    inner: Inner | None = None
    raw: Raw | UnsetType = UNSET


READ = Partial(Outer).read


def read(body: bytes) -> Outer:
    found, _ = READ(body)
    assert found is not None
    return found


def test_named_fields_are_built_and_others_passed_over() -> None:
    outer = read(b'{"x":[1,{"text":"no"}],"text":"a","number":7,"inner":{"name":"b"},"raw":[1, 2]}')

    assert (outer.text, outer.number) == ("a", 7)
    assert outer.inner is not None
    assert outer.inner.name == "b"
    assert outer.raw is not UNSET
    assert bytes(outer.raw) == b"[1, 2]"


@pytest.mark.parametrize(
    "odd", [b"1.5", b"true", b"[]", b"{}", b'"7"', b"9" * 5000, b"null", b"1e3"]
)
def test_a_field_of_another_type_is_absent_and_spoils_nothing(odd: bytes) -> None:
    outer = read(b'{"number":' + odd + b',"text":5,"inner":{"name":[],"raw":1},"raw":null}')

    assert (outer.text, outer.number) == (None, None)
    assert outer.inner is not None
    assert outer.inner.name is None
    assert outer.inner.raw is not UNSET
    assert bytes(outer.inner.raw) == b"1"


@pytest.mark.parametrize("number", [b"1", b"[]"])
def test_a_field_may_have_another_name_in_json(number: bytes) -> None:
    found, _ = Partial(Renamed).read(b'{"text":"no","a/b":"yes","number":' + number + b"}")

    assert found is not None
    assert found.text == "yes"


@pytest.mark.parametrize("odd", [b"1", b"[]", b'"x"', b"null", b"true"])
def test_a_part_that_is_no_object_is_absent(odd: bytes) -> None:
    assert read(b'{"text":"a","number":"7","inner":' + odd + b"}").inner is None


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b" true "])
def test_json_that_is_no_object_has_no_fields(body: bytes) -> None:
    assert READ(body) == (None, body)


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"text":"a"',
        b'{"text":"a",}',
        b'{"text":"a"} x',
        b"\xef\xbb\xbf{}",
        b'{"text":"\xff"}',
        b'{"number":[],"text":"\xff"}',
        b'{"x":NaN}',
        b'{"x":"\x01"}',
        b"{'text':'a'}",
        b'{"x":' + DEEP + b"}",
        b'{"raw":' + DEEP + b"}",
        DEEP,
        b"[1,",
        b"1x",
        b'"a',
        b'{"text":"\\ud8',
        b'{"text":"\\ud800" x}',
    ],
    ids=lambda body: body[:20],
)
def test_what_cannot_be_read_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        READ(body)


def test_of_equal_keys_the_last_counts_as_for_most_servers() -> None:
    assert read(b'{"text":"a","text":"b"}').text == "b"
    assert read(b'{"number":"odd","text":"a","text":"b"}').text == "b"


def test_a_key_may_be_escaped() -> None:
    assert read(b'{"t\\u0065xt":"a"}').text == "a"


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (b'"\\ud83d"', b'"\\ufffd"'),
        (b'"\\uDE00"', b'"\\ufffd"'),
        (b'"\\ud83d\\ude00"', b'"\\ud83d\\ude00"'),
        (b'"\\uD83D\\uDE00\\uD83D"', b'"\\uD83D\\uDE00\\ufffd"'),
        (b'"\\ud83d\\ud83d\\ude00"', b'"\\ufffd\\ud83d\\ude00"'),
        (b'"\\ude00\\ud83d"', b'"\\ufffd\\ufffd"'),
        (b'"\\ud83d\\u0041"', b'"\\ufffd\\u0041"'),
        (b'"\\\\ud83d"', b'"\\\\ud83d"'),  # an escaped backslash, then letters
        (b'"\\\\\\ud83d"', b'"\\\\\\ufffd"'),
        (b'"\\\\\\\\ud83d"', b'"\\\\\\\\ud83d"'),
        (b'"\\n\\ud83d\\n"', b'"\\n\\ufffd\\n"'),
        (b'"ud83d \\u00e4"', b'"ud83d \\u00e4"'),
    ],
)
def test_halves_of_a_surrogate_pair_become_the_replacement_character(
    wire: bytes, text: bytes
) -> None:
    assert mended(wire) == text
    msgspec.json.decode(text)


def test_a_cut_emoji_in_a_transcript_does_not_hide_the_call() -> None:
    body = b'{"transcript":"ok \\ud83d","text":"a","raw":{"b":"\\ude00"}}'

    outer, text = READ(body)

    assert outer is not None
    assert outer.text == "a"
    assert outer.raw is not UNSET
    assert bytes(outer.raw) == b'{"b":"\\ufffd"}'
    assert text == b'{"transcript":"ok \\ufffd","text":"a","raw":{"b":"\\ufffd"}}'


def test_mending_looks_at_a_run_of_backslashes_once() -> None:
    """Quadratic time here would hold every call; this would run for hours."""
    run = b"\\" * 2_000_001

    assert mended(run + b" \\ud800").endswith(b" \\ufffd")


def test_mending_gives_up_on_a_flood() -> None:
    flood = b'{"text":"' + b"\\ud800" * 20_000 + b'"}'

    with pytest.raises(ValueError):
        READ(flood)


@given(st.text(st.characters(max_codepoint=0x10FFFF, exclude_categories=[]), max_size=30))
def test_mended_text_is_the_text_with_replacements(text: str) -> None:
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    wire = json.dumps({"text": text}).encode()

    assert json.loads(mended(wire))["text"] == whole
    assert read(wire).text == whole


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "number", "inner", "raw", "name", "x"]), inner)
    ),
    max_leaves=12,
)


def _expected(value: Any, wanted: type) -> Any:
    return value if isinstance(value, wanted) and not isinstance(value, bool) else None


@given(st.dictionaries(st.sampled_from(["text", "number", "inner", "raw", "x"]), JSON))
def test_reading_agrees_with_a_whole_decoder(body: dict[str, Any]) -> None:
    outer = read(json.dumps(body).encode())

    assert outer.text == _expected(body.get("text"), str)
    assert outer.number == _expected(body.get("number"), int)
    assert (outer.inner is not None) == isinstance(body.get("inner"), dict)
    assert (outer.raw is not UNSET) == ("raw" in body)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        READ(body)
    except ValueError:
        pass
