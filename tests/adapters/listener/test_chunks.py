"""Bodies in chunks: what the parser gets of them, wherever the segments are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.listener.chunks import (
    AT_ONCE,
    MAX_EXTENSIONS,
    MAX_LINE,
    MAX_TRAILER_BYTES,
    MAX_TRAILERS,
    Chunks,
    Unfit,
)


def fed(*segments: bytes) -> tuple[bytes, bytes]:
    """What the parser gets, and what stands behind the body."""
    chunks, got = Chunks(), []
    for number, segment in enumerate(segments):
        piece, end = chunks.cut(segment, 0)
        got.append(piece)
        if chunks.ended:
            return b"".join(got), segment[end:] + b"".join(segments[number + 1 :])
        assert end == len(segment)
    return b"".join(got), b"unfinished"


def status(*segments: bytes) -> int:
    with pytest.raises(Unfit) as unfit:
        fed(*segments)
    return unfit.value.status


PLAIN = b"2\r\nab\r\n0003\r\ncde\r\n0\r\n\r\n"


def test_plain_chunks_go_on_as_they_came() -> None:
    assert fed(PLAIN) == (PLAIN, b"")


def test_what_stands_behind_the_body_is_left_there() -> None:
    assert fed(PLAIN + b"GET / HTTP/1.1\r\n") == (PLAIN, b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "extension",
    [b";a", b";a=b", b";a=b;c", b' ;\ta = "x y;\\"\\\r"', b';a="\xff"', b";" + b"a" * 1024],
)
def test_extensions_are_left_out(extension: bytes) -> None:
    extension = extension.replace(b"\r", b"r")
    body = b"2%b\r\nab\r\n0%b\r\n\r\n" % (extension, extension)

    assert fed(body) == (b"2\r\nab\r\n0\r\n\r\n", b"")


def test_trailers_are_left_out() -> None:
    body = b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\nContent-Length: 5\r\nX:\r\n\r\n"

    assert fed(body) == (b"1\r\na\r\n0\r\n\r\n", b"")


@pytest.mark.parametrize(
    "body",
    [
        b"0x1\r\na\r\n",
        b"+1\r\na\r\n",
        b"-1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"\r\n",
        b"11111111111111111\r\n",
        b"1\na\r\n",
        b"1\ra\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\nab\r\n",
        b"1\r\na0\r\n",
        b"1;\r\na\r\n",
        b"1;=b\r\na\r\n",
        b"1;a=\r\na\r\n",
        b"1;a\n\r\na\r\n",
        b"1;a\0\r\na\r\n",
        b'1;a="b\r\na\r\n',
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n folded: 1\r\n\r\n",
        b"0\r\nA : 1\r\n\r\n",
        b"0\r\nA: \x01\r\n\r\n",
        b"0\r\nA: 1\n\r\n",
        b"0\r\n\n",
    ],
)
def test_framing_in_doubt_is_unfit(body: bytes) -> None:
    assert status(body) == 400


def test_lines_and_numbers_are_bounded() -> None:
    extension = b"1;" + b"a" * 1024 + b"\r\nx\r\n"
    trailer = b"X-T: %b\r\n" % (b"a" * 1024)

    assert status(b"1;" + b"a" * MAX_LINE) == 400
    assert status(b"1;" + b"a" * MAX_LINE + b"\r\n") == 400
    assert status(extension * (MAX_EXTENSIONS // 1024 + 1)) == 400
    assert status(b"0\r\n" + b"A: 1\r\n" * (MAX_TRAILERS + 1)) == 431
    assert status(b"0\r\n" + trailer * (MAX_TRAILER_BYTES // 1024 + 1)) == 431
    assert status(b"0\r\nA: " + b"a" * MAX_LINE) == 431
    assert status(b"0\r\nA: " + b"a" * MAX_LINE + b"\r\n") == 431


names = st.sampled_from([b"a", b"X-Long_name", b"!"])
extensions = st.sampled_from([b"", b"", b";a", b";a=b", b'; a="q \\" \r"'.replace(b"\r", b"")])
chunk_data = st.binary(min_size=1, max_size=40)
trailers = st.lists(st.tuples(names, st.sampled_from([b"", b"1", b"a b"])), max_size=3)


@given(
    chunks=st.lists(st.tuples(chunk_data, extensions), max_size=6),
    last=extensions,
    trailers=trailers,
    behind=st.sampled_from([b"", b"\r\n", b"GET / HTTP/1.1\r\n"]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_where_segments_are_cut_makes_no_difference(
    chunks: list[tuple[bytes, bytes]],
    last: bytes,
    trailers: list[tuple[bytes, bytes]],
    behind: bytes,
    cuts: list[int],
) -> None:
    sizes = [(b"%x" % len(data), extension, data) for data, extension in chunks]
    body = b"".join(b"%b%b\r\n%b\r\n" % one for one in sizes) + b"0%b\r\n" % last
    body += b"".join(b"%b:%b\r\n" % one for one in trailers) + b"\r\n"
    plain = b"".join(b"%b\r\n%b\r\n" % (size, data) for size, _, data in sizes) + b"0\r\n\r\n"
    whole = body + behind
    marks = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    segments = [whole[a:b] for a, b in pairwise(marks)]

    assert fed(*segments) == (plain, behind)


def test_three_hundred_thousand_chunks_of_a_byte_are_followed() -> None:
    chunks = Chunks()
    body = b"1\r\na\r\n" * 300_000 + b"0\r\n\r\n"
    pieces, turns = [], 0
    for at in range(0, len(body), 65_536):
        segment, end = body[at : at + 65_536], 0
        while end < len(segment):
            piece, end = chunks.cut(segment, end)
            pieces.append(piece)
            assert piece.count(b"\r\na\r\n") <= AT_ONCE
            turns += 1

    assert b"".join(pieces) == body
    assert chunks.ended
    assert turns >= 300_000 // AT_ONCE
