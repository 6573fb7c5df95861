from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialects.sse import Event, Parser, end_of_events, render


def parse(*chunks: bytes) -> list[Event]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def feed(parser: Parser, chunk: bytes, times: int) -> None:
    for _ in range(times):
        parser.feed(chunk)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [(b"message", b"a")]),
        (b"data:a\r\n\r\n", [(b"message", b"a")]),
        (b"data: a\r\r", [(b"message", b"a")]),
        (b"data:  a\n\n", [(b"message", b" a")]),
        (b"event: ping\ndata: a\n\ndata: b\n\n", [(b"ping", b"a"), (b"message", b"b")]),
        (b"data: a\ndata: b\n\n", [(b"message", b"a\nb")]),
        (b"data\n\n", [(b"message", b"")]),
        (b": keep-alive\n\n: again\r\n\r\ndata: a\n\n", [(b"message", b"a")]),
        (b"id: 7\nretry: 10\nnonsense\n\ndata: a\n\n", [(b"message", b"a")]),
        (b"event: lost\n\ndata: a\n\n", [(b"message", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"message", b"a")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(b"message", b"a")]),
        (b"data: cut off\n", []),
        (b"data: cut off", []),
        (b"", []),
    ],
)
def test_a_stream_is_read_as_the_standard_says(
    stream: bytes, events: list[tuple[bytes, bytes]]
) -> None:
    assert [(e.name, e.data) for e in parse(stream)] == events


LINES = st.lists(
    st.sampled_from(
        [b"data: one", b"data:two", b"event: e", b": note", b"", b"", b"id: 1", b"data: \xc3\xa9"]
    ),
    max_size=12,
)


@given(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data())
def test_where_the_chunks_break_changes_nothing(
    lines: list[bytes], end: bytes, data: st.DataObject
) -> None:
    stream = b"".join(line + end for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]

    assert parse(*chunks) == parse(stream)


@pytest.mark.parametrize("chunk", [b"data: 0123456789", b"data: 01234\n", b"0123456789"])
def test_an_event_that_never_ends_is_refused(chunk: bytes) -> None:
    with pytest.raises(ValueError, match="larger"):
        feed(Parser(limit=20), chunk, times=5)


def test_events_within_the_limit_may_go_on_for_ever() -> None:
    parser = Parser(limit=20)

    for _ in range(100):
        assert parser.feed(b"data: 01234") == []
        assert parser.feed(b"56789\n\n") == [Event(b"message", b"0123456789")]


@pytest.mark.parametrize("message", [{"a": "x\ny"}, {"a": 1}])
def test_a_rendered_message_is_one_event(message: dict[str, object]) -> None:
    for body in (json.dumps(message).encode(), json.dumps(message, indent=1).encode()):
        (event,) = parse(render(body))

        assert event.name == b"message"
        assert json.loads(event.data) == message


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (b"data: x", 0),
        (b"data: x\n", 0),
        (b"data: x\n\n", 9),
        (b"data: x\r\n\r\nda", 11),
        (b"data: x\r\rda", 9),
        (b"data: x\n\r\nda", 10),
        (b"data: x\r\n\nda", 10),
        (b"a\n\nb\r\n\r\nc\n\nd", 11),
    ],
)
def test_whole_events_end_with_a_blank_line(data: bytes, end: int) -> None:
    assert end_of_events(data) == end


@pytest.mark.parametrize(
    ("stream", "last_id", "retry_ms"),
    [
        (b"data: a\n\n", b"", None),
        (b"id: 7\ndata: a\n\n", b"7", None),
        (b"id: 7\n\n", b"7", None),
        (b"id: 7\n", b"", None),
        (b"id: 7\n\nid: 8\n\nid: 9\n", b"8", None),
        (b"id: 7\n\nid\n\n", b"", None),
        (b"id: 7\n\nid: 8\0\n\n", b"7", None),
        (b"retry: 250\n\n", b"", 250),
        (b"retry: 250\n\nretry: soon\n\nretry: -1\n\nretry:\n\n", b"", 250),
        (b"retry: 99999999999999999999\n\n", b"", 999_999_999),
    ],
)
def test_what_it_takes_to_come_back_is_kept(
    stream: bytes, last_id: bytes, retry_ms: int | None
) -> None:
    """An ID counts once its event has ended: what it names has been heard."""
    parser = Parser()
    parser.feed(stream)

    assert (parser.last_id, parser.retry_ms) == (last_id, retry_ms)


def test_a_stream_that_follows_knows_where_the_last_one_stood() -> None:
    parser = Parser()
    parser.feed(b"id: 7\nretry: 250\n\ndata: half")
    following = parser.following()

    assert following.feed(b"data: b\n\n") == [Event(b"message", b"b")]
    assert (following.last_id, following.retry_ms) == (b"7", 250)
