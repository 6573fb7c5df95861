from __future__ import annotations

import io
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.logs import TEXT_LIMIT, TRACE_LIMIT, cap, configure, dump, legible, stamp

WALL_MS = 1_767_225_600_123


def test_a_stamp_is_rfc_3339_in_utc() -> None:
    assert stamp(WALL_MS) == "2026-01-01T00:00:00.123Z"


def test_an_event_is_one_json_object_on_one_line() -> None:
    stream = io.StringIO()
    log = configure(lambda: WALL_MS, stream=stream)

    log.warning("breaker_changed", arm="mcp", note="a\r\nb\u2028c\x1b[31m")

    text = stream.getvalue()
    assert text.count("\n") == 1
    assert orjson.loads(text) == {
        "timestamp": "2026-01-01T00:00:00.123Z",
        "level": "warning",
        "event": "breaker_changed",
        "arm": "mcp",
        "note": "a\r\nb\u2028c\x1b[31m",
    }


@pytest.mark.parametrize("human", [True, False])
def test_a_line_is_written_at_once(human: bool) -> None:
    """Two processes may share a stream, one after the other, and neither buffers it."""

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return super().write(text)

    pieces: list[str] = []
    log = configure(lambda: WALL_MS, stream=Stream(), human=human)
    log.warning("breaker_changed", arm="mcp")

    assert [piece[-1:] for piece in pieces] == ["\n"]


def test_an_exception_becomes_a_field() -> None:
    stream = io.StringIO()
    log = configure(lambda: WALL_MS, stream=stream)

    log.error("exchange_crashed", exc_info=ValueError("odd"))

    assert "ValueError: odd" in orjson.loads(stream.getvalue())["exception"]


def test_of_a_long_traceback_the_end_is_kept() -> None:
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("the cause")

    stream = io.StringIO()
    log = configure(lambda: WALL_MS, stream=stream)
    try:
        deep(50)
    except ValueError as error:
        log.error("exchange_crashed", exc_info=error)

    text = orjson.loads(stream.getvalue())["exception"]
    assert text.endswith("ValueError: the cause")
    assert TEXT_LIMIT < len(text) <= TRACE_LIMIT


def test_a_long_text_is_capped() -> None:
    stream = io.StringIO()
    configure(lambda: WALL_MS, stream=stream).info("seen", text="x" * 10_000)

    assert len(orjson.loads(stream.getvalue())["text"]) == TEXT_LIMIT + 3
    assert cap(None) is None
    assert cap("short") == "short"


def test_bytes_that_are_no_utf_8_do_not_break_a_line() -> None:
    line = dump({"path": b"/caf\xe9".decode(errors="surrogateescape"), "n": 1})

    assert orjson.loads(line) == {"path": "/caf?", "n": 1}


def test_a_terminal_gets_plain_lines() -> None:
    stream = io.StringIO()
    configure(lambda: WALL_MS, stream=stream, human=True).info("rules_loaded", digest="ab12")

    assert "rules_loaded" in stream.getvalue()
    assert "digest=ab12" in stream.getvalue()
    stream.seek(0)
    assert stream.read().count("\n") == 1


UNSEEN = [
    *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *"\u061c\u200e\u200f\u2028\u2029",
    *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\ufeff",
]  # fmt: skip


@pytest.mark.row("O1")
@given(st.text(st.sampled_from([*UNSEEN, "a", "\xa0", "\u00e9", "\u2029", "\u2500", "\U0001f600"])))
def test_any_text_is_one_line_of_what_can_be_seen(text: str) -> None:
    """Not for JSON only: U+0085 and U+2028 end lines for Python and editors, U+009B begins a
    command for a terminal, and U+202E turns what follows round."""
    line = dump({"text": text})

    assert orjson.loads(line) == {"text": text}
    assert len(line.decode().splitlines()) == 1
    assert not set(line.decode()[:-1]) & set(UNSEEN)


@pytest.mark.row("O1")
def test_what_can_be_seen_is_not_touched() -> None:
    line = orjson.dumps({"text": "Grüße ☎ 早 😀\xa0\\u2028 \\"})

    assert legible(line) == line


@pytest.mark.row("O1")
def test_nothing_told_to_a_terminal_moves_its_cursor() -> None:
    stream = io.StringIO()
    log = configure(lambda: WALL_MS, stream=stream, human=True)

    log.info("seen", path="\x1b[2J\r\nforged\u009b31m\u202e")
    log.error("exchange_crashed", exc_info=ValueError("\x1b[31m"), n=1)

    told = stream.getvalue()
    assert "\\u001b[2J\\u000d\\u000aforged\\u009b31m\\u202e" in told
    assert not re.search("[^\\n -~]", told)
