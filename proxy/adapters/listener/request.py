"""One request as it came in: what the listener hands to the path."""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeAlias

from aiohttp import hdrs
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from msgspec import Struct

from proxy.adapters.listener.room import FREE
from proxy.core.model import Reply
from proxy.core.shedding import RETRY_AFTER, TOO_MUCH
from proxy.errors import ClientGone, Refused

NEVER = math.inf

Message: TypeAlias = Any
"""aiohttp's `RawRequestMessage`: its C parser's own class, no tuple, whatever its types say."""


class Wire(Protocol):
    """What a request needs of its connection."""

    peer: str
    secure: bool

    def go_on(self) -> None:
        """Write the interim answer that asks for the body."""

    def body_begins(self, deadline: float) -> None:
        """A body is being received; call `late` once clock time `deadline` has passed."""

    def body_grows(self, size: int) -> bool:
        """So many bytes of it are here that take room from others; False: there is none left."""

    def body_ends(self, held: int) -> None:
        """It is no longer; it took `held` bytes of room."""

    def answer_early(self, request: Request, reply: Reply) -> bool:
        """Write `reply` to `request` although its handler goes on; False if that cannot be."""


def framing_fault(message: Message) -> int:
    """The status for a head that the parser takes and a strict proxy must not; 0 if there is none.

    llhttp passes an empty Transfer-Encoding and `, chunked`, and either can desync the next hop.
    """
    version = message.version
    if version is not HttpVersion11 and version != HttpVersion11:
        if version != HttpVersion10:
            return 505
        if message.chunked:  # RFC 9112, 6.1: HTTP/1.0 has no chunks.
            return 400
    if message.chunked:
        return 0 if message.headers[hdrs.TRANSFER_ENCODING].lower() == "chunked" else 400
    return 400 if hdrs.TRANSFER_ENCODING in message.headers else 0


class Request(Struct, eq=False):
    """An `Incoming` (see `proxy/ports.py`) over aiohttp's parsed message and body stream.

    `answered`: its answer has been settled, if not written: by its handler's end, or early.
    """

    method: str
    target: str
    version: tuple[int, int]
    headers: tuple[tuple[bytes, bytes], ...]
    peer: str
    secure: bool
    payload: StreamReader
    message: Message
    _wire: Wire
    _body: bytes | None = None
    gone: bool = False
    answered: bool = False
    perishable: bool = False

    @classmethod
    def of(cls, message: Message, payload: StreamReader, wire: Wire) -> Request:
        """The request that a parsed head begins."""
        target = message.path
        if not target.isascii():  # The parser decodes what is UTF-8; the port promises bytes.
            target = target.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")
        return cls(
            message.method,
            target,
            message.version,
            message.raw_headers,
            wire.peer,
            wire.secure,
            payload,
            message,
            wire,
        )

    def declared_length(self) -> int | None:
        """Content-Length; None for a chunked or absent body."""
        length = self.message.headers.get(hdrs.CONTENT_LENGTH)
        return None if length is None else int(length)

    async def read(self, limit: int, deadline: float) -> bytes:
        """The whole body, as sent; see `proxy/ports.py` for what it raises.

        Asks a client that waits for `100 Continue` to go on, so call it after the guards.
        """
        body, payload = self._body, self.payload
        if body is not None:
            return body
        if payload.total_bytes > limit:
            raise _too_large()
        if payload.is_eof():
            body = _taken(payload)
        else:
            if (self.declared_length() or 0) > limit:
                raise _too_large()
            if self.version >= HttpVersion11 and hdrs.EXPECT in self.message.headers:
                self._meet_expectation()
            body = await self._receive(limit, deadline)
        self._body = body
        return body

    def answer(self, reply: Reply) -> bool:
        """Answer now, while the handler goes on; see `proxy/ports.py`."""
        return self._wire.answer_early(self, reply)

    def complete(self) -> bool:
        """The client has nothing of this request left to send."""
        return self._body is not None or self.payload.is_eof()

    def hang_up(self) -> None:
        """The caller is gone; a body that has come whole stays readable."""
        self.gone = True
        if not self.payload.is_eof():
            self.payload.set_exception(ClientGone("the caller hung up"))

    def late(self) -> None:
        """The body's deadline has passed."""
        self.payload.set_exception(
            Refused(408, "body_timeout", "The request body did not arrive in time.", close=True)
        )

    async def _receive(self, limit: int, deadline: float) -> bytes:
        payload, wire, parts, received, held = self.payload, self._wire, [], 0, 0
        wire.body_begins(deadline)
        try:
            while part := await payload.readany():
                received += len(part)
                if received > limit:
                    raise _too_large()
                parts.append(part)
                if received > FREE:
                    more = received - FREE - held
                    held += more
                    if not wire.body_grows(more):
                        raise _no_room()
        finally:
            wire.body_ends(held)
        return b"".join(parts)

    def _meet_expectation(self) -> None:
        """RFC 9110, 10.1.1."""
        if self.message.headers[hdrs.EXPECT].lower() != "100-continue":
            raise Refused(
                417, "expectation_failed", "Only 100-continue can be expected.", close=True
            )
        self._wire.go_on()


def _taken(payload: StreamReader) -> bytes:
    """All of a body that is here whole: without a copy if it came in one piece."""
    if payload is EMPTY_PAYLOAD:
        return b""
    parts = payload._buffer  # `read_nowait` would cost three calls more.
    return parts[0] if len(parts) == 1 else b"".join(parts)


def broken_framing(status: int = 400) -> Refused:
    """What `read` raises if the body does not keep to its own framing, or has too many trailers."""
    if status == 431:
        return Refused(status, "headers_too_large", "The trailers are too large.", close=True)
    return Refused(status, "bad_framing", "The request body breaks its framing.", close=True)


def break_off(payload: StreamReader, status: int = 400) -> None:
    """Tell whoever reads this body that no more of it can be understood."""
    if not payload.is_eof():
        payload.set_exception(broken_framing(status))


def _too_large() -> Refused:
    return Refused(413, "body_too_large", "The request body is too large.", close=True)


def _no_room() -> Refused:
    return Refused(503, "overloaded", TOO_MUCH, retry_after=RETRY_AFTER, close=True)
