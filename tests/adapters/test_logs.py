from __future__ import annotations

import io

import orjson

from proxy.adapters.logs import TEXT_LIMIT, TRACE_LIMIT, cap, configure, dump, stamp

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
