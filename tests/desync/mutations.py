"""Our own vectors: good requests in which a few bytes are wrong, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.desync.vectors import Vector

_SEEDS = (
    b"POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
    b"GET /a?b=c HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\nCookie: a=b; c=d\r\n\r\n",
    b"GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"POST /1 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    b"POST /2 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nbc",
    b"POST /a HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
)
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nall that comes",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc",
)
_PIECES = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xff", b":",
    b";", b",", b"0", b"1", b"+", b"-", b"0x", b"_", b'"', b"\\", b"#", b"%00", b"HTTP/1.1",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding : chunked\r\n", b"Host: b.test\r\n",
    b"Connection: close\r\n", b"Expect: 100-continue\r\n", b" folded\r\n", b"\r\n\r\n",
    b"0\r\n\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
)  # fmt: skip


def answers(seed: int, count: int) -> list[Vector]:
    """`count` of them for origins to say."""
    chance = random.Random(seed)
    return [
        Vector("own answers", f"{seed}-{number}", (_mutated(chance, _ANSWERS),), response=True)
        for number in range(count)
    ]


def mutations(seed: int, count: int) -> list[Vector]:
    """`count` of them for callers to say."""
    chance = random.Random(seed)
    return [_vector(f"{seed}-{number}", chance, cut=number % 3 == 0) for number in range(count)]


def _vector(name: str, chance: random.Random, *, cut: bool) -> Vector:
    """One of them; `cut`: the second half comes once the first has been looked at."""
    data = _mutated(chance)
    if not cut or len(data) < 2:
        return Vector("own mutations", name, (data,))
    at = chance.randrange(1, len(data))
    return Vector("own mutations", name, (data[:at], data[at:]), way="in two pieces")


def _mutated(chance: random.Random, seeds: tuple[bytes, ...] = _SEEDS) -> bytes:
    data = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(_WAYS)(data, chance)
    return data


def _inserted(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_PIECES) + data[at:]


def _inserted_between_lines(data: bytes, chance: random.Random) -> bytes:
    ends = [at for at in range(len(data)) if data[at - 2 : at] == b"\r\n"] or [0]
    at = chance.choice(ends)
    return data[:at] + chance.choice(_PIECES) + data[at:]


def _replaced(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + chance.choice(_PIECES) + data[at + 1 :]


def _deleted(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data)), chance.choice((1, 1, 2, 4))
    return data[:at] + data[at + size :]


def _doubled(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    size = chance.choice((1, 2, 8, 24))
    return data[: at + size] + data[at:]


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _inserted,
    _inserted_between_lines,
    _replaced,
    _deleted,
    _doubled,
)
