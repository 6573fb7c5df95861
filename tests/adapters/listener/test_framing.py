"""What answers look like on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.listener import framing
from proxy.adapters.listener.framing import Frame, UnsafeReply, opening, whole
from proxy.core.model import Reply

JSON = (b"Content-Type", b"application/json")


def test_a_whole_answer_adds_its_length_and_nothing_else() -> None:
    """No Date, no Server, no Content-Type of our own."""
    reply = Reply(200, [JSON, (b"X", b"1")], b"{}")

    assert whole(reply, b"{}", "POST", b"") == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX: 1\r\ncontent-length: 2\r\n\r\n{}"
    )


def test_an_empty_answer_says_that_it_is_empty() -> None:
    assert whole(Reply(200), b"", "POST", b"") == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def test_the_connection_line_stands_last() -> None:
    wire = whole(Reply(503), b"", "POST", b"connection: close\r\n")

    assert wire.endswith(b"content-length: 0\r\nconnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("status", "phrase", "line"),
    [
        (200, b"", b"HTTP/1.1 200 OK"),
        (200, b"Fine", b"HTTP/1.1 200 Fine"),
        (299, b"", b"HTTP/1.1 299 "),
        (499, b"", b"HTTP/1.1 499 "),
        (503, b"", b"HTTP/1.1 503 Service Unavailable"),
    ],
)
def test_the_status_line(status: int, phrase: bytes, line: bytes) -> None:
    wire = whole(Reply(status, phrase=phrase), b"", "POST", b"")

    assert wire.split(b"\r\n", 1)[0] == line


@pytest.mark.parametrize(
    ("reply", "method", "length"),
    [
        (Reply(200, [], b"{}"), "HEAD", b"2"),
        (Reply(200, [], b"", length=77), "HEAD", b"77"),
        (Reply(200), "HEAD", None),
        (Reply(204, [], b"junk"), "POST", None),
        (Reply(204, [], b"", length=9), "POST", None),
        (Reply(304, [], b"", length=9), "GET", b"9"),
        (Reply(304, [], b"junk"), "GET", b"4"),
        (Reply(304), "GET", None),
    ],
)
def test_an_answer_without_a_body_ends_with_its_head(
    reply: Reply, method: str, length: bytes | None
) -> None:
    assert isinstance(reply.body, bytes)
    wire = whole(reply, reply.body, method, b"")
    opened, frame = opening(reply, method, chunks=True, connection=b"")

    assert wire.endswith(b"\r\n\r\n")
    assert (b"content-length" in wire) == (length is not None)
    if length is not None:
        assert b"\r\ncontent-length: %b\r\n" % length in wire
    assert frame is None
    assert b"transfer-encoding" not in opened


@pytest.mark.parametrize("status", [100, 101, 199, 600, 999, 0])
def test_a_status_that_is_not_final_is_never_written(status: int) -> None:
    with pytest.raises(UnsafeReply):
        whole(Reply(status), b"", "POST", b"")


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\0", b"\r\n", b"\r\nSet-Cookie: a=b"])
@pytest.mark.parametrize("place", ["name", "value", "phrase"])
def test_a_control_byte_in_a_head_is_never_written(bad: bytes, place: str) -> None:
    name = b"x-a" + bad if place == "name" else b"x-a"
    value = b"1" + bad if place == "value" else b"1"
    reply = Reply(200, [JSON, (name, value)], phrase=b"OK" + bad if place == "phrase" else b"")

    with pytest.raises(UnsafeReply):
        whole(reply, b"", "POST", b"")
    with pytest.raises(UnsafeReply):
        opening(reply, "POST", chunks=True, connection=b"")


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=6), st.binary(max_size=6)), max_size=4),
    st.binary(max_size=20),
)
def test_whatever_the_headers_the_client_sees_as_many_lines_as_there_are_headers(
    headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    try:
        wire = whole(Reply(200, headers), body, "POST", b"")
    except UnsafeReply:
        assert any(byte in name + value for name, value in headers for byte in b"\r\n\0")
        return
    head, _, rest = wire.partition(b"\r\n\r\n")
    ours = [f for f in headers if f[0].lower() not in (b"connection",)]
    assert len(head.split(b"\r\n")) == len(ours) + 2
    assert rest == body


def test_framing_set_by_a_backend_is_replaced() -> None:
    """Two framings in one head would make the client read another answer than we wrote."""
    reply = Reply(
        200,
        [
            (b"Content-Length", b"99"),
            JSON,
            (b"Transfer-Encoding", b"chunked"),
            (b"CONNECTION", b"x"),
        ],
    )

    assert whole(reply, b"{}", "POST", b"") == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )


def test_the_memory_of_header_names_is_bounded() -> None:
    for number in range(3 * framing._NAMES_KEPT):
        whole(Reply(200, [(b"x-%d" % number, b"1")]), b"", "POST", b"")

    whole(Reply(200, [(b"x" * 5000, b"1")]), b"", "POST", b"")
    assert len(framing._FREE) <= framing._NAMES_KEPT
    assert max(map(len, framing._FREE)) < 100


def test_a_name_that_stays_behind_does_so_however_often_it_comes() -> None:
    for _ in range(3):
        headers = [(b"x-a", b"1"), (b"Content-Length", b"7"), (b"x-b", b"2")]
        text = whole(Reply(200, headers), b"", "POST", b"")
        assert text == b"HTTP/1.1 200 OK\r\nx-a: 1\r\nx-b: 2\r\ncontent-length: 0\r\n\r\n"


def test_a_stream_of_known_length_is_cut_to_it() -> None:
    head, frame = opening(Reply(200, length=5), "POST", chunks=True, connection=b"")

    assert head == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    assert frame is not None
    assert [frame.part(b"abc"), frame.part(b"defg"), frame.part(b"h"), frame.last()] == [
        b"abc",
        b"de",
        b"",
        b"",
    ]


def test_a_stream_shorter_than_declared_has_no_end() -> None:
    frame = Frame(5, chunks=True)
    frame.part(b"abc")

    with pytest.raises(UnsafeReply):
        frame.last()


def test_a_stream_of_unknown_length_goes_in_chunks() -> None:
    head, frame = opening(Reply(200), "POST", chunks=True, connection=b"")

    assert head == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert frame is not None
    assert frame.part(b"a" * 17) == b"11\r\n" + b"a" * 17 + b"\r\n"
    assert frame.part(b"") == b"", "an empty chunk would end the body"
    assert frame.last() == b"0\r\n\r\n"


def test_a_client_that_knows_no_chunks_gets_the_bytes_up_to_the_end() -> None:
    head, frame = opening(Reply(200), "POST", chunks=False, connection=b"connection: close\r\n")

    assert head == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    assert frame is not None
    assert frame.part(b"abc") + frame.last() == b"abc"


def test_a_stream_declared_empty_is_complete_at_once() -> None:
    _, frame = opening(Reply(200, length=0), "POST", chunks=True, connection=b"")

    assert frame is not None
    assert frame.last() == b""
