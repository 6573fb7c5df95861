"""The strict reading of the desync oracle, for one end of a connection at a time."""

from __future__ import annotations

import re

from tests.desync import strict
from tests.desync.strict import Message

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.I).match


def requests(stream: bytes) -> tuple[list[Message], bool]:
    """The requests that a stream begins with, and whether it holds nothing besides.

    Empty lines before a request are no fault (RFC 9112, 2.2).
    """
    found: list[Message] = []
    while True:
        while stream.startswith(b"\r\n"):
            stream = stream[2:]
        reading = strict.requests(stream)
        found += reading.messages
        stream = stream[reading.messages[-1].end :] if reading.messages else stream
        if reading.rest != "broken" or not stream.startswith(b"\r\n"):
            return found, reading.rest in ("nothing", "closed")


def responses(stream: bytes, methods: list[bytes], *, ended: bool) -> tuple[list[Message], bytes]:
    """The answers to requests of these methods, and what stands behind them."""
    found = list(strict.responses(stream, methods, ended=ended).messages)
    return found, stream[found[-1].end :] if found else stream


def origin_form(target: bytes) -> bytes:
    """The target as it goes upstream."""
    absolute = _ABSOLUTE(target)
    if absolute is None:
        return target
    rest = target[absolute.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest
