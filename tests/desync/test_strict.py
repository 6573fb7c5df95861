"""The reader by the letter: the oracle is worth what this one is."""

from __future__ import annotations

import pytest

from tests.desync.strict import Reading, requests, responses

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

VALID = {
    "no body": GET,
    "a length": LENGTH,
    "leading zeros": LENGTH.replace(b" 3", b" 003"),
    "chunks": CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    "a coding in capitals": CHUNKED.replace(b"chunked", b"Chunked") + b"0\r\n\r\n",
    "extensions": CHUNKED + b'3 ; a = "b;\\""\r\nabc\r\n0;x\r\n\r\n',
    "trailers": CHUNKED + b"3\r\nabc\r\n0\r\nX: 1\r\n\r\n",
    "absolute form": GET.replace(b" / ", b" http://a/x?y "),
    "HTTP/1.0 without a Host": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "an empty value": GET.replace(b"\r\n\r\n", b"\r\nX:\r\n\r\n"),
    "a value above ASCII": GET.replace(b"\r\n\r\n", b"\r\nX: \xff\r\n\r\n"),
    "a tab in a value": GET.replace(b"\r\n\r\n", b"\r\nX: a\tb \r\n\r\n"),
}


@pytest.mark.parametrize("raw", VALID.values(), ids=VALID)
def test_what_is_valid_is_read_whole(raw: bytes) -> None:
    reading = requests(raw + raw)

    assert (len(reading.messages), reading.rest) == (2, "nothing")


@pytest.mark.parametrize("raw", VALID.values(), ids=VALID)
def test_every_beginning_of_what_is_valid_is_unfinished(raw: bytes) -> None:
    for end in range(1, len(raw)):
        assert requests(raw[:end]) == Reading((), "unfinished"), raw[:end]


BROKEN = {
    "two spaces": GET.replace(b"GET ", b"GET  "),
    "a tab": GET.replace(b"GET ", b"GET\t"),
    "no version": b"GET /\r\n\r\n",
    "another version": GET.replace(b"1.1", b"1.2"),
    "a small http": GET.replace(b"HTTP", b"http"),
    "an empty line": b"\r\n" + GET,
    "a bare LF": GET.replace(b"a\r\n", b"a\n"),
    "a bare CR": GET.replace(b"Host", b"X: \rHost"),
    "a fragment": GET.replace(b" / ", b" /#a "),
    "no slash": GET.replace(b" / ", b" a "),
    "an asterisk": GET.replace(b" / ", b" * "),
    "no Host": GET.replace(b"Host", b"Hast"),
    "two Hosts": GET.replace(b"Host: a", b"Host: a\r\nHost: a"),
    "a list of Hosts": GET.replace(b"Host: a", b"Host: a, b"),
    "a user": GET.replace(b"Host: a", b"Host: u@a"),
    "a port too large": GET.replace(b"Host: a", b"Host: a:65536"),
    "half an address": GET.replace(b"Host: a", b"Host: [::1"),
    "a space before the colon": GET.replace(b"Host:", b"Host :"),
    "a folded line": GET.replace(b"\r\n\r\n", b"\r\nX: 1\r\n 2\r\n\r\n"),
    "no colon": GET.replace(b"\r\n\r\n", b"\r\nX\r\n\r\n"),
    "no name": GET.replace(b"\r\n\r\n", b"\r\n: x\r\n\r\n"),
    "a control byte": GET.replace(b"\r\n\r\n", b"\r\nX: \x01\r\n\r\n"),
    "two lengths": LENGTH.replace(b"Content", b"Content-Length: 3\r\nContent"),
    "a list of lengths": LENGTH.replace(b" 3", b" 3, 3"),
    "a signed length": LENGTH.replace(b" 3", b" +3"),
    "an empty length": LENGTH.replace(b" 3", b""),
    "two framings": LENGTH.replace(b"Content", b"Transfer-Encoding: chunked\r\nContent"),
    "two codings": CHUNKED.replace(b"chunked", b"chunked, gzip"),
    "chunked twice": CHUNKED.replace(b"chunked", b"chunked, chunked"),
    "no coding": CHUNKED.replace(b"chunked", b""),
    "a comma first": CHUNKED.replace(b"chunked", b", chunked"),
    "chunks in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0"),
    "a hexadecimal prefix": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a space behind a size": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "an empty size": CHUNKED + b"\r\n",
    "a longer chunk": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "a bare LF behind a size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "an empty extension": CHUNKED + b"3;\r\nabc\r\n0\r\n\r\n",
    "a folded trailer": CHUNKED + b"0\r\n X: 1\r\n\r\n",
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
def test_what_could_be_read_in_two_ways_is_broken(raw: bytes) -> None:
    reading = requests(GET + raw)

    assert (len(reading.messages), reading.rest) == (1, "broken")


def test_behind_a_last_request_nothing_means_anything() -> None:
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: a, Close\r\n\r\n")

    assert requests(last + b"\0\0").rest == "closed"


ANSWERS = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab": ("length", b"ab"),
    b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n": ("chunked", b"ab"),
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.0 200 OK\r\n\r\nab": ("connection", b"ab"),
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n": ("none", b""),
}


@pytest.mark.parametrize(("raw", "said"), ANSWERS.items())
def test_answers_end_where_they_say(raw: bytes, said: tuple[str, bytes]) -> None:
    (message,) = responses(raw, [b"GET"], ended=True).messages

    assert (message.framing, message.body) == said


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 600 High\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
    ],
)
def test_answers_in_doubt_are_broken(raw: bytes) -> None:
    assert not responses(raw, [b"GET"], ended=True).valid
