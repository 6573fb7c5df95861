"""Where requests begin and end, wherever the segments are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.listener.chunks import Unfit
from proxy.adapters.listener.seams import MAX_HEAD, Seams

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\n"
CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def follow(*segments: bytes) -> tuple[list[bytes], Seams]:
    """The bytes that the parser gets, one entry per request."""
    seams, requests = Seams(), [b""]
    for segment in segments:
        at = 0
        while at < len(segment):
            piece, at = seams.cut(segment, at)
            requests[-1] += piece
            if seams.whole:
                head = requests[-1]
                seams.body(3 if b"Content-Length" in head else 0, chunked=b"chunked" in head)
            if not (seams._left or seams._chunks or seams.begun) and requests[-1]:
                requests.append(b"")
    return requests[:-1], seams


def status(*segments: bytes) -> int:
    with pytest.raises(Unfit) as unfit:
        follow(*segments)
    return unfit.value.status


requests = st.sampled_from(
    [
        (GET, GET),
        (POST + b"abc", POST + b"abc"),
        (POST + b"\r\n\r", POST + b"\r\n\r"),
        (CHUNKED + b"2\r\nab\r\n0\r\n\r\n", CHUNKED + b"2\r\nab\r\n0\r\n\r\n"),
        (CHUNKED + b"2;x\r\nab\r\n0\r\nA: 1\r\n\r\n", CHUNKED + b"2\r\nab\r\n0\r\n\r\n"),
    ]
)


@given(
    asked=st.lists(st.tuples(st.booleans(), requests), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 600), max_size=20),
)
def test_each_request_is_cut_out_wherever_the_segments_end(
    asked: list[tuple[bool, tuple[bytes, bytes]]], cuts: list[int]
) -> None:
    """An empty line before one is let pass, and nothing of it reaches the parser."""
    whole = b"".join(b"\r\n" * blank + sent for blank, (sent, _) in asked)
    marks = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    segments = [whole[a:b] for a, b in pairwise(marks)]

    got, seams = follow(*segments)

    assert got == [wanted for _, (_, wanted) in asked]
    assert not seams.begun


@pytest.mark.parametrize(
    "data",
    [POST + b"abc", POST.replace(b"Content-Length", b"CONTENT-Length") + b"\r\n\r"],
)
def test_one_request_and_nothing_else_is_seen_at_a_glance(data: bytes) -> None:
    seams = Seams()

    assert seams.lone(data)
    assert seams.whole


SLOW = b"POST /b HTTP/1.1\r\nX-Length: 3\r\nContent-Length: 5\r\n\r\nabc"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GET,
        GET[:-1],
        GET + GET,
        POST,
        POST + b"ab",
        POST + b"abc" + GET,
        CHUNKED + b"0\r\n\r\n",
        POST.replace(b"3", b"03 ") + b"abc",
        POST.replace(b"3", b"0000000003") + b"abc",
        SLOW,
        b"\r\n" + POST + b"abc",
        GET.replace(b"\r\n\r\n", b"\r\nX: %b\r\n\r\n" % (b"a" * MAX_HEAD)),
    ],
)
def test_all_else_is_looked_at_closely(data: bytes) -> None:
    seams = Seams()

    assert not seams.lone(data)
    assert not seams.whole


@pytest.mark.parametrize("before", [GET[:5], b"\r\n", POST + b"a", CHUNKED + b"1\r\n"])
def test_what_stands_behind_a_beginning_is_not_alone(before: bytes) -> None:
    _, seams = follow(before)

    assert not seams.lone(POST + b"abc")


def test_a_glance_sees_the_spaces_too() -> None:
    with pytest.raises(Unfit):
        Seams().lone(POST.replace(b" ", b"  ", 1) + b"abc")


@pytest.mark.parametrize("end", [1, 2, 20, len(GET) - 1])
def test_part_of_a_head_is_a_head_that_has_begun(end: int) -> None:
    _, seams = follow(GET[:end])

    assert seams.begun


@pytest.mark.parametrize("blank", [b"\r", b"\r\n"])
def test_an_empty_line_alone_begins_nothing(blank: bytes) -> None:
    _, seams = follow(blank)

    assert not seams.begun


def test_a_head_that_comes_byte_by_byte_is_whole_in_the_end() -> None:
    got, seams = follow(*[GET[at : at + 1] for at in range(len(GET))])

    assert got == [GET]
    assert not seams.begun


@pytest.mark.parametrize(
    "line",
    [
        b"GET  /a HTTP/1.1",
        b"GET /a  HTTP/1.1",
        b"GET /a HTTP/1.1 ",
        b" GET /a HTTP/1.1",
        b"GET /a",
        b"",
    ],
)
def test_a_request_line_has_two_spaces(line: bytes) -> None:
    head = line + b"\r\nHost: a\r\n\r\n"
    if not line:
        head = b"\r\n" + head  # One empty line is let pass, not two.

    assert status(head) == 400
    assert status(head[:4], head[4:]) == 400


@pytest.mark.parametrize("blank", [b"\n", b"\r\n\r\n", b"\r\n\n", b"\r\r\n", b"\n\r\n"])
def test_only_one_empty_line_may_stand_before_a_request(blank: bytes) -> None:
    assert status(blank + GET) == 400


def test_a_head_is_bounded() -> None:
    field = b"X-A: " + b"a" * 1000 + b"\r\n"
    head = b"GET /a HTTP/1.1\r\n" + field * (MAX_HEAD // len(field) + 1)

    assert status(head + b"\r\n") == 431
    assert status(head) == 431
    assert status(*[head[at : at + 4096] for at in range(0, len(head), 4096)]) == 431
