"""Heads that are read, and heads that are refused."""

from __future__ import annotations

import pytest
from httptools import HttpParserError, HttpResponseParser
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.upstream.head import (
    _FIELD_OF,
    _ROOM,
    Frame,
    Malformed,
    check_start,
    read_head,
)
from proxy.core.model import Reply


def parse(head: bytes) -> tuple[Reply, Frame]:
    """`head` ends with its empty line."""
    return read_head(head, head.index(b"\r\n\r\n"))


def lines(*fields: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *fields]) + b"\r\n\r\n"


@pytest.mark.row("R3")
def test_names_and_values_stay_as_they_were_sent() -> None:
    reply, _ = parse(
        lines(b"Set-Cookie: a=b", b"set-cookie:c=d", b"X: \t caf\xe9 \xc3\xa9\t ", b"Y:")
    )
    assert reply.headers == [
        (b"Set-Cookie", b"a=b"),
        (b"set-cookie", b"c=d"),
        (b"X", b"caf\xe9 \xc3\xa9"),
        (b"Y", b""),
    ]


@pytest.mark.row("R16")
@pytest.mark.parametrize(
    ("line", "status", "phrase"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK"),
        (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.1 200 ", 200, b""),
        (b"HTTP/1.1 599 Caf\xe9 au lait", 599, b"Caf\xe9 au lait"),
        (b"HTTP/1.0 404 Not Found", 404, b"Not Found"),
    ],
)
def test_status_lines(line: bytes, status: int, phrase: bytes) -> None:
    reply, _ = parse(lines(status=line))
    assert (reply.status, reply.phrase) == (status, phrase)


@pytest.mark.row("R16")
@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/2.0 200 OK",
        b"HTTP/0.9 200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/1.1 099 No",
        b"HTTP/1.1 600 No",
        b"HTTP/1.1 999 No",
        b"HTTP/1.1 20 No",
        b"HTTP/1.1 2000 No",
        b"HTTP/1.1  200 No",
        b"HTTP/1.1\t200 No",
        b"HTTP/1.1 200\tNo",
        b"HTTP/1.1 2\xb200 No",
        b"http/1.1 200 No",
        b" HTTP/1.1 200 No",
        b"\r\nHTTP/1.1 200 No",
        b"ICE/1.1 200 No",
        b"HTTP/1.1 200 N\x01o",
        b"HTTP/1.1 200 N\x7fo",
        b"",
    ],
)
def test_a_bad_status_line_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        read_head(line, len(line))


@pytest.mark.row("R2")
@pytest.mark.parametrize("byte", [*range(9), *range(10, 32), 127])
def test_a_control_byte_is_refused(byte: int) -> None:
    with pytest.raises(Malformed):
        parse(lines(b"X: a" + bytes([byte]) + b"b"))


@pytest.mark.row("R2")
@pytest.mark.parametrize(
    "field",
    [
        b"X : a",
        b" X: a",
        b"\tX: a",
        b"X",
        b": a",
        b"[X]: a",
        b"caf\xe9: a",
        b"X\x00: a",
        b"X: a\r\n folded",
        b"X: a\r\n\tfolded",
        b"X: a\nY: b",
        b"X: a\rY: b",
        b"Content-Length : 0",
    ],
)
def test_a_bad_field_line_is_refused(field: bytes) -> None:
    with pytest.raises(Malformed):
        parse(lines(b"A: b", field, b"B: c"))


@pytest.mark.row("R1")
@pytest.mark.parametrize(
    "fields",
    [
        [b"Content-Length: 1", b"Content-Length: 1"],
        [b"Content-Length: 1", b"content-length: 2"],
        *([b"Content-Length: " + value] for value in (b"", b"+5", b"-1", b"0x5", b"5_0", b"5 5")),
        *([b"Content-Length: " + value] for value in (b"5,5", b"5, 5", b"\xd9\xa5", b"9" * 19)),
        [b"Content-Length: 1", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 1"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        *([b"Transfer-Encoding: " + value] for value in (b"", b"xchunked", b"identity", b"gzip")),
        *([b"Transfer-Encoding: " + value] for value in (b"gzip, chunked", b"chunked, chunked")),
        *(
            [b"Transfer-Encoding: " + value]
            for value in (b", chunked", b"chunked;q=1", b"chunked,")
        ),
    ],
)
def test_ambiguous_framing_is_refused(fields: list[bytes]) -> None:
    with pytest.raises(Malformed):
        parse(lines(*fields))


def test_chunks_on_http_1_0_are_refused() -> None:
    with pytest.raises(Malformed):
        parse(lines(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK"))


@pytest.mark.parametrize(
    ("fields", "frame"),
    [
        ([], Frame(None, False, True, False)),
        ([b"content-LENGTH:\t007 "], Frame(7, False, True, False)),
        ([b"TRANSFER-ENCODING: Chunked"], Frame(None, True, True, False)),
        ([b"Connection: close"], Frame(None, False, False, False)),
        ([b"Connection: x", b"Connection: Close"], Frame(None, False, False, False)),
        ([b"Connection: keep-alive, close"], Frame(None, False, False, False)),
        ([b"Content-Type: text/event-stream"], Frame(None, False, True, True)),
        ([b"content-type:TEXT/Event-Stream;charset=utf-8"], Frame(None, False, True, True)),
        ([b"Content-Type: application/json"], Frame(None, False, True, False)),
    ],
)
def test_frames(fields: list[bytes], frame: Frame) -> None:
    assert parse(lines(*fields))[1] == frame


@pytest.mark.parametrize(
    ("fields", "keep"),
    [([], False), ([b"Connection: Keep-Alive"], True), ([b"Connection: close"], False)],
)
def test_http_1_0_is_kept_only_if_it_says_so(fields: list[bytes], keep: bool) -> None:
    assert parse(lines(*fields, status=b"HTTP/1.0 200 OK"))[1].keep is keep


@pytest.mark.row("H1", "H3")
def test_hop_by_hop_fields_are_stripped() -> None:
    reply, _ = parse(
        lines(
            b"Connection: X-S, close",
            b"x-s: secret",
            b"X-Stays: 1",
            b"Keep-Alive: timeout=5",
            b"Proxy-Authenticate: Basic",
            b"proxy-anything: x",
            b"TE: trailers",
            b"Trailer: X-T",
            b"Upgrade: h2c",
            b"Content-Length: 0",
            b"Content-Type: text/plain",
        )
    )
    assert reply.headers == [(b"X-Stays", b"1"), (b"Content-Type", b"text/plain")]


@pytest.mark.row("R11")
def test_a_head_may_have_128_fields_and_64_kilobytes_but_no_more() -> None:
    assert len(parse(lines(*[b"X: a"] * 128))[0].headers) == 128
    with pytest.raises(Malformed, match="fields"):
        parse(lines(*[b"X: a"] * 129))
    start, field = b"HTTP/1.1 200 OK\r\n", b"X: " + b"a" * 16_379
    full = start + b"\r\n".join([field] * 3 + [field[: 65_536 - len(start) - 3 * 16_384]])
    assert len(full) == 65_536
    read_head(full, len(full))
    with pytest.raises(Malformed, match="block"):
        read_head(full + b"a", len(full) + 1)


@pytest.mark.row("R11")
def test_a_line_of_a_head_may_have_16_kilobytes_but_no_more() -> None:
    line = b"X: " + b"a" * 16_381
    assert len(line) == 16_384
    parse(lines(line))
    with pytest.raises(Malformed, match="line"):
        parse(lines(line + b"a"))


def test_many_names_and_phrases_are_not_remembered_without_end() -> None:
    for number in range(3000):
        reply, frame = parse(
            lines(
                b"X-%d: 1" % number,
                b"Connection: y-%d" % number,
                status=b"HTTP/1.1 200 %d" % number,
            )
        )
        assert reply.phrase == b"%d" % number
        assert frame.keep
    assert not parse(lines(b"CONNECTION: cLOSE"))[1].keep


@pytest.mark.parametrize(
    "start",
    [b"S", b"HTTP/2", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\r\nA: b\n", b"\r\n", b"H" * 70_000],
)
def test_what_cannot_become_a_head_is_refused_early(start: bytes) -> None:
    with pytest.raises(Malformed):
        check_start(start)


def test_every_beginning_of_a_head_may_still_become_one() -> None:
    head = lines(b"X: a", b"Content-Length: 0")
    for end in range(1, len(head) - 1):
        check_start(head[:end])


class Strict:
    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))


NAMES = st.sampled_from(
    [b"X", b"Content-Length", b"Transfer-Encoding", b"Connection", b"A b", b"", b"X\x00", b" Y"]
)
VALUES = st.one_of(
    st.sampled_from([b"5", b"chunked", b"close", b"gzip, chunked", b"5, 5", b"", b" x ", b"\xe9"]),
    st.binary(max_size=4),
)


@given(st.lists(st.tuples(NAMES, st.sampled_from([b": ", b":", b" :", b""]), VALUES), max_size=4))
def test_what_is_accepted_here_llhttp_accepts_and_reads_alike(
    fields: list[tuple[bytes, bytes, bytes]],
) -> None:
    """A second, independent reader: never laxer than the field's own."""
    head = lines(*[b"".join(field) for field in fields])
    try:
        reply, _ = parse(head)
    except Malformed:
        return
    strict = Strict()
    try:
        HttpResponseParser(strict).feed_data(head[: head.index(b"\r\n\r\n") + 4])
    except HttpParserError as error:
        raise AssertionError(f"laxer than llhttp: {head!r}") from error
    assert set(reply.headers) <= set(strict.fields)


def test_a_line_seen_before_is_judged_anew_in_another_head() -> None:
    """What a line is, is remembered; whether it may stand beside the others is not."""
    length, chunked = b"Content-Length: 41", b"Transfer-Encoding: chunked"
    for _ in range(2):
        assert parse(lines(length))[1].length == 41
        assert parse(lines(chunked))[1].chunked
        with pytest.raises(Malformed):
            parse(lines(length, length))
        with pytest.raises(Malformed):
            parse(lines(length, chunked))


def test_lines_are_remembered_up_to_a_bound() -> None:
    for number in range(3000):
        reply, frame = parse(lines(b"X-Trace: %d" % number, b"Content-Length: %d" % number))
        assert (reply.headers, frame.length) == ([(b"X-Trace", b"%d" % number)], number)

    assert len(_FIELD_OF) <= _ROOM
    parse(lines(b"X-Long: " + b"x" * 500))
    assert max(map(len, _FIELD_OF)) < 500
