"""How do an MCP caller's own bytes reach a server of the same era, and the server's the caller?

Nothing is changed but credentials, a tool's name if it differs here, and the name of a session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from backends.base import BackendConfig, Send, close
from backends.mcp_answers import leave
from backends.mcp_asking import Asking, nobody_waits
from backends.mcp_hearing import error_in, judged, lost, text_of
from backends.mcp_peer import SESSION, Agreed, Peer, lost_session, refused_era, session_of
from backends.mcp_repairs import Repairs
from backends.mcp_sessions import Sessions
from backends.mcp_tools import Tools
from proxy.core.dialects import jsonrpc
from proxy.core.dialects.headers import (
    AUTHORIZATION,
    SIGNATURE,
    bearer_fields,
    for_same_body,
)
from proxy.core.dialects.jsonrpc import RpcError, header_text
from proxy.core.dialects.members import with_text
from proxy.core.model import Call, Era, Form, Headers, Outbound, Reply, Session
from proxy.core.targets import Targets
from proxy.errors import UpstreamFailed

# The caller's credentials, its origin (a server refuses strangers': its guard against DNS
# rebinding), sessions (ours never goes on), and its taste in compression: we must read the answer.
_NOT_THEIRS: Final = AUTHORIZATION | SIGNATURE | {b"accept-encoding", b"origin", SESSION}
_PLAIN: Final = (b"accept-encoding", b"identity")


class Relay:
    """Callers whose era the server speaks."""

    def __init__(
        self,
        config: BackendConfig,
        *,
        peer: Peer,
        sessions: Sessions,
        asking: Asking,
        tools: Tools,
        targets: Targets,
    ) -> None:
        self._may_repeat = config.may_repeat
        self._own: Headers = [_PLAIN, *bearer_fields(config.bearer)]
        self._peer = peer
        self._sessions = sessions
        self._asking = asking
        self._tools = tools
        self._targets = targets
        self._repairs = Repairs(peer, config.wall_ms)
        self._under_way: set[tuple[str, bytes]] = set()

    async def handle(self, call: Call, era: Era, send: Send) -> Reply | None:
        """The server's answer; None: it would not take the question so, and has run nothing."""
        outbound, tool = self._outbound(call)
        session = call.session if era is Era.LEGACY else None
        if session is None:
            return await self._bare(call, era, outbound, tool, send)
        if call.rpc_method == "initialize":
            return await self._initialize(call, session, outbound, send)
        if call.form is Form.END:
            return await self._end(call, session, outbound, send)
        if call.rpc_id is None or call.form is Form.ANSWER:
            return await self._in_session(call, session, outbound, tool, send)
        twin = (session.id, call.rpc_id)
        if twin in self._under_way:  # Of two with one ID only one would ever be answered.
            return None
        self._under_way.add(twin)
        reply = None
        try:
            reply = await self._in_session(call, session, outbound, tool, send)
        finally:
            if reply is None or isinstance(reply.body, bytes):
                self._under_way.discard(twin)
        if reply is not None and not isinstance(reply.body, bytes):
            reply.body = _Watched(reply.body, lambda: self._under_way.discard(twin))
        return reply

    def _outbound(self, call: Call) -> tuple[Outbound, str]:
        """The caller's own bytes, or those with the name that the tool has here."""
        headers = for_same_body(call.head.end_to_end, self._own, _NOT_THEIRS)
        tool, body = call.tool or "", call.body
        if call.rpc_method == "tools/call" and tool in self._tools.names:
            tool = self._tools.names[tool]
            body = with_text(body, ("params", "name"), tool)
            headers = [
                (k, header_text(tool) if k.lower() == b"mcp-name" else v) for k, v in headers
            ]
        return Outbound(call.head.method, self._targets.of(call), headers, body), tool

    async def _bare(
        self, call: Call, era: Era, outbound: Outbound, tool: str, send: Send
    ) -> Reply | None:
        """Without a session: modern, or as a legacy server takes it that needs none."""
        if era is Era.LEGACY and self._peer.wants_sessions and call.rpc_id is not None:
            return None
        reply = await send(outbound)
        if call.rpc_id is not None and 400 <= reply.status < 500:
            refusal = await error_in(reply, call.rpc_id)
            if era is Era.MODERN:
                elsewhere = await self._is_legacy(reply, refusal, send)
            elif lost_session(reply.status, None, refusal):
                self._peer.wants_sessions = elsewhere = True
            else:
                elsewhere = await self._is_modern_only(refusal, send)
            if elsewhere:
                await leave(reply)
                return None
        return await judged(call, reply, tool, self._tools, send)

    async def _initialize(
        self, call: Call, session: Session, outbound: Outbound, send: Send
    ) -> Reply | None:
        reply = await send(outbound)
        refusal = await error_in(reply, call.rpc_id)
        if 200 <= reply.status < 300 and refusal is None:
            self._repairs.begun(session, call.body)
            self._peer.wants_sessions = session_of(reply) is not None
        unknown = refusal is not None and refusal.code == jsonrpc.METHOD_NOT_FOUND
        refused = unknown or refused_era(reply.status, refusal, Era.LEGACY)
        if refused and self._may_repeat() and not await self._sessions.serves_legacy(send):
            await leave(reply)
            return None
        return await judged(call, reply, "", self._tools, send)

    async def _end(
        self, call: Call, session: Session, outbound: Outbound, send: Send
    ) -> Reply | None:
        """A server that does not know the session any more is no fault: so it has ended."""
        now = self._repairs.now(session)
        self._repairs.end(session)
        if now is None:
            return Reply(204)
        reply = await send(_in(outbound, now))
        if reply.status in (400, 404):
            await leave(reply)
            return Reply(204)
        return await judged(call, reply, "", self._tools, send)

    async def _in_session(
        self, call: Call, session: Session, outbound: Outbound, tool: str, send: Send
    ) -> Reply | None:
        """If the server has lost the session it is begun anew, and the bytes are sent once more."""
        now = self._repairs.now(session)
        reply = await self._sent(call, session, outbound, now, send)
        if reply.status not in (400, 404):
            return await judged(call, reply, tool, self._tools, send)
        refusal = await error_in(reply, call.rpc_id)
        if not lost_session(reply.status, now, refusal, text_of(reply)):
            if await self._is_modern_only(refusal, send):
                await leave(reply)
                return None
            return await judged(call, reply, tool, self._tools, send)
        # A restart loses every session at once, but each only once: no budget would do for that.
        if self._repairs.is_young(session) and not self._may_repeat():
            return lost(reply)
        try:
            now = await self._repairs.renew(session, now, send)
        except UpstreamFailed:
            if not self._peer.no_legacy:
                return lost(reply)
            await leave(reply)
            return None
        await leave(reply)
        if call.rpc_method == "notifications/initialized":
            return Reply(202)  # That has been said already.
        reply = await self._sent(call, session, outbound, now, send)
        refusal = await error_in(reply, call.rpc_id) if reply.status == 404 else None
        if reply.status == 404 and lost_session(404, now, refusal):
            return lost(reply)
        return await judged(call, reply, tool, self._tools, send)

    async def _sent(
        self, call: Call, session: Session, outbound: Outbound, now: bytes | None, send: Send
    ) -> Reply:
        try:
            return await send(_in(outbound, now))
        except (UpstreamFailed, asyncio.CancelledError) as end:
            takes_back = call.rpc_method == "tools/call" and call.rpc_id is not None
            if takes_back and nobody_waits(end) and self._tools.may_be_taken_back(call.tool):
                agreed = Agreed(now, session.version.encode())
                self._asking.take_back(call.rpc_id or b"", agreed)
            raise

    async def _is_legacy(self, reply: Reply, refusal: RpcError | None, send: Send) -> bool:
        """A modern request was refused because the server is none any more."""
        if not refused_era(reply.status, refusal, Era.MODERN) or not self._may_repeat():
            return False
        try:
            return await self._peer.learn_era(send) is Era.LEGACY
        except UpstreamFailed:
            return False

    async def _is_modern_only(self, refusal: RpcError | None, send: Send) -> bool:
        """A legacy request was refused because the server speaks modern only."""
        if refusal is None or not -32099 <= refusal.code <= -32020 or not self._may_repeat():
            return False
        return not await self._sessions.serves_legacy(send)


class _Watched:
    """A streamed answer that tells once that it is over."""

    def __init__(self, chunks: AsyncIterator[bytes], over: Callable[[], None]) -> None:
        self._chunks = chunks
        self._over = over

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._chunks.__anext__()
        except BaseException:
            self._over()
            raise

    async def aclose(self) -> None:
        self._over()
        await close(self._chunks)

    def drop(self) -> None:
        """Break it off, unread."""
        self._over()
        drop = getattr(self._chunks, "drop", None)
        if drop is not None:
            drop()


def _in(outbound: Outbound, session: bytes | None) -> Outbound:
    """The request in a session of the server's."""
    if session is None:
        return outbound
    headers = [*outbound.headers, (SESSION, session)]
    return Outbound(outbound.method, outbound.target, headers, outbound.body)
