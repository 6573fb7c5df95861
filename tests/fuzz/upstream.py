"""What arms answer: the real upstream connection, and what its callers hear of it.

The first byte says how the answer was asked for, the rest is what the arm sends, in pieces of any
size, before it hangs up.  An answer is handed on if and only if the strict reading finds one, with
its status, its body and its fields; whatever comes behind it spoils nothing and reaches nobody; and
what the caller hears is again HTTP that can be read in one way.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from proxy.adapters.listener.framing import opening, whole
from proxy.adapters.turn import Turn
from proxy.adapters.upstream.connection import Connection
from proxy.adapters.upstream.head import FIELD_LIMIT
from proxy.adapters.upstream.resolver import Address
from proxy.core.model import Reply
from proxy.errors import UpstreamFailed
from tests.desync import strict
from tests.desync.strict import Message
from tests.fuzz import reading
from tests.fuzz.wires import Loop, Quiet, Wire, pieces, settle

CUTS: Final = (0, 1, 11)
_LIMITS: Final = (262_144, 0, 16)
"""Bytes up to which an answer is kept whole; larger ones stream."""

INTERIM: Final = 16
"""Interim answers before the one that counts."""

HARMLESS: Final = ("a coding where there is no body", "framing among trailers")
"""Faults of answers that are handed on, without what is wrong with them."""

HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"content-length", b"keep-alive", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
    }
)  # fmt: skip


class Pool:
    """Counts what a pool is told."""

    def __init__(self) -> None:
        self.released_times = self.dropped_times = self.lost_times = 0

    def released(self, connection: Connection) -> None:
        self.released_times += 1

    def dropped(self, connection: Connection) -> None:
        self.dropped_times += 1

    def lost(self, connection: Connection) -> None:
        self.lost_times += 1


class Upstream:
    """The target."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._quiet = Quiet()

    def __call__(self, data: bytes) -> None:
        how, said = data[0] if data else 0, data[1:]
        method = b"HEAD" if how & 1 else b"POST"
        limit = _LIMITS[(how >> 1) % len(_LIMITS)]
        for cut in CUTS:
            self._loop.run(check(said, method, limit, cut, self._quiet))

    def close(self) -> None:
        self._loop.close()
        self._quiet.close()


async def check(said: bytes, method: bytes, limit: int, cut: int, quiet: Quiet) -> None:
    """One answer to one request."""
    loop, pool = asyncio.get_running_loop(), Pool()
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    connection = Connection(pool, cast(Address, None), stall=30.0, turn=Turn())
    wire = Wire(connection, loop, quiet)
    connection.connection_made(wire)
    waiter = connection.start(
        b"%b / HTTP/1.1\r\n\r\n" % method, b"", bodiless=method == b"HEAD", limit=limit,
        deadline=loop.time() + 1e6, linger=0.0, late=None,
    )  # fmt: skip
    hearing = asyncio.ensure_future(hear(waiter))
    await settle(3)
    for piece in pieces(said, cut):
        if wire.is_closing():
            break
        connection.data_received(piece)
        await asyncio.sleep(0)
        while wire.paused and not wire.is_closing():
            await asyncio.sleep(0)
    if not wire.is_closing():
        connection.eof_received()
    wire.lose()
    reply, body = await hearing

    assert not reports, reports
    assert pool.lost_times == 1
    assert pool.dropped_times <= 1
    read = strict.responses(said, [method], ended=True)
    wanted = read.messages[0] if read.messages else None
    if reply is not None and wanted is None and harmless(read.fault, reply):
        return
    assert body is None or wanted is not None, "made of what is no answer"
    assert body is not None or wanted is None or refusable(said, wanted), "an answer was lost"
    if reply is not None and wanted is not None and body is not None:
        check_same(reply, body, wanted)
        check_handed_on(reply, body, method)


def harmless(fault: str, reply: Reply) -> bool:
    """No arm may say this, but there is one way only to read it, and none of it goes on."""
    if fault.startswith("Content-Length is no length"):
        return reply.length is not None and reply.length >= strict.LARGE and not reply.body
    return fault.startswith(HARMLESS)


def refusable(said: bytes, answer: Message) -> bool:
    """Valid, but no arm of ours has a reason to say it."""
    coded = any(value.lower() != b"chunked" for value in answer.values(b"transfer-encoding"))
    return coded or len(answer.fields) > FIELD_LIMIT or said.count(b"HTTP/1.") > INTERIM


async def hear(waiter: asyncio.Future[Reply]) -> tuple[Reply | None, bytes | None]:
    """The answer and its whole body; no body if it broke off, or never came."""
    try:
        reply = await waiter
    except UpstreamFailed:
        return None, None
    if isinstance(reply.body, bytes):
        return reply, reply.body
    try:
        return reply, b"".join([chunk async for chunk in reply.body])
    except UpstreamFailed:
        return reply, None


def check_same(reply: Reply, body: bytes, wanted: Message) -> None:
    """What was heard is what was said."""
    assert (reply.status, body) == (wanted.status, wanted.body)
    options = b",".join(wanted.values(b"connection")).lower().split(b",")
    gone = HOP_BY_HOP | {option.strip(b" \t") for option in options}
    stay = [(name, value) for name, value in wanted.fields if name.lower() not in gone]
    kept = [field for field in stay if not field[0].lower().startswith(b"proxy-")]
    assert reply.headers == kept


def check_handed_on(reply: Reply, body: bytes, method: bytes) -> None:
    """The same answer, as our caller reads it."""
    asked = method.decode()
    if isinstance(reply.body, bytes):
        written = whole(reply, body, asked, b"")
    else:
        head, frame = opening(reply, asked, chunks=True, connection=b"")
        written = head if frame is None else head + frame.part(body) + frame.last()
    found, rest = reading.responses(written, [method], ended=True)
    assert (len(found), rest) == (1, b"")
    assert (found[0].status, found[0].body) == (reply.status, body)
