"""Where bodies end, whatever the segments they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.upstream.framing import Chunked, Counted, Framing, ToEnd, framing
from proxy.adapters.upstream.head import Frame, Malformed


def feed(body: Framing, *segments: bytes) -> bytes:
    return b"".join(body.feed(segment) for segment in segments)


def test_a_counted_body_ends_with_its_last_byte() -> None:
    body = Counted(5)
    assert feed(body, b"he", b"", b"ll") == b"hell"
    assert not body.ended
    assert feed(body, b"o") == b"o"
    assert (body.ended, body.surplus) == (True, False)


def test_what_follows_a_counted_body_is_no_part_of_it() -> None:
    body = Counted(2)
    assert feed(body, b"okHTTP/1.1") == b"ok"
    assert (body.ended, body.surplus) == (True, True)


def test_a_body_may_end_with_the_connection_only() -> None:
    body = ToEnd()
    assert feed(body, b"a", b"b") == b"ab"
    assert not body.ended


@pytest.mark.parametrize(
    ("frame", "empty", "kind"),
    [
        (Frame(5, False, True, False), False, Counted),
        (Frame(None, True, True, False), False, Chunked),
        (Frame(None, False, True, False), False, ToEnd),
        (Frame(None, True, True, False), True, Counted),
    ],
)
def test_a_frame_says_how_to_read(frame: Frame, empty: bool, kind: type) -> None:
    body = framing(frame, empty=empty)
    assert isinstance(body, kind)
    assert body.ended is empty


@given(
    st.lists(st.binary(min_size=1, max_size=20), max_size=5),
    st.sampled_from([b"", b";ext", b';a="b c"']),
    st.sampled_from([b"", b"X-T: u\r\n"]),
    st.data(),
)
def test_chunks_are_undone_however_they_are_cut(
    chunks: list[bytes], extension: bytes, trailer: bytes, data: st.DataObject
) -> None:
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    wire += b"0\r\n" + trailer + b"\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=8)))
    segments = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    body = Chunked()
    got = b""
    for segment in segments[:-1]:
        got += body.feed(segment)
        assert not body.ended
    got += body.feed(segments[-1])
    assert got == b"".join(chunks)
    assert (body.ended, body.surplus) == (True, False)


@pytest.mark.parametrize(
    "surplus",
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"x",
        b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4, 5])
def test_what_follows_the_last_chunk_is_surplus_and_no_body(surplus: bytes, cut: int) -> None:
    last = b"0\r\n\r\n"
    body = Chunked()
    assert feed(body, b"2\r\nok\r\n" + last[:cut], last[cut:] + surplus) == b"ok"
    assert (body.ended, body.surplus) == (True, True)


@pytest.mark.row("R1")
@pytest.mark.parametrize(
    "wire",
    [
        b"0x1\r\na\r\n",
        b"+1\r\na\r\n",
        b"-1\r\na\r\n",
        b"1_0\r\na\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"\r\na\r\n",
        b"f" * 17 + b"\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1\r\na\r0",
        b"1;a\nb\r\na\r\n",
        b"1;a\x01\r\na\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0\r\n\n",
    ],
)
def test_broken_chunks_are_refused(wire: bytes) -> None:
    with pytest.raises(Malformed):
        feed(Chunked(), wire)
    with pytest.raises(Malformed):
        feed(Chunked(), *[wire[at : at + 1] for at in range(len(wire))])


@pytest.mark.row("R1")
@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"1;", b"a" * 1000),
        (b"", b"1;" + b"a" * 1000 + b"\r\nx\r\n"),
        (b"0\r\n", b"X-T: " + b"a" * 1000 + b"\r\n"),
    ],
)
def test_framing_without_a_body_has_an_end(start: bytes, more: bytes) -> None:
    with pytest.raises(Malformed, match="too large"):
        feed(Chunked(), start, *[more] * 200)


@pytest.mark.parametrize(
    "chunk", [b"1\r\nx\r\n", b"64;signed=" + b"a" * 80 + b"\r\n" + b"x" * 100 + b"\r\n"]
)
def test_small_chunks_may_be_many(chunk: bytes) -> None:
    body = Chunked()

    for _ in range(100):
        feed(body, chunk * 100)

    assert feed(body, b"0\r\n\r\n") == b""
    assert body.ended
