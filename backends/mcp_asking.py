"""How is a request of ours put to an MCP server, for somebody's call, so that it is understood?

In the era that the server speaks, in the session that is the call's.  What was turned away unread
for how it was put is put better, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from backends.base import BackendConfig, Send
from backends.mcp_answers import Resume
from backends.mcp_listing import Listing
from backends.mcp_peer import Agreed, Peer, lost_session, refused_era
from backends.mcp_progress import Progress
from backends.mcp_sessions import Seat, Sessions
from proxy.core.dialects import jsonrpc
from proxy.core.dialects.catalogue import Listed
from proxy.core.dialects.headers import bearer_fields, for_new_body
from proxy.core.dialects.jsonrpc import Request, RpcError
from proxy.core.mcp import questions
from proxy.core.model import Era, Headers, Outbound, Reply
from proxy.errors import ProbeFailed, UpstreamFailed

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_LEGACY, _MODERN = Era.LEGACY, Era.MODERN


@dataclass(frozen=True, slots=True)
class Question:
    """A request for a caller.  `put` gives it in an era: all but its ID, and its raw JSON value."""

    put: Callable[[Era], tuple[Request, bytes]]
    target: str
    end_to_end: Headers  # of the caller
    key: str | None = None  # the call that it belongs to
    tool: str = ""  # as the server calls it, for a `tools/call`
    arguments: bytes = b"{}"
    may_be_taken_back: bool = False
    whole: bool = True  # the answer is read to its end here


class Read(Protocol[_T_co]):
    """What is made of the answer to the request of that ID; `resume` takes its stream up again."""

    async def __call__(self, reply: Reply, rpc_id: bytes, resume: Resume | None, /) -> _T_co:
        """Raises `UpstreamFailed`."""


class Asking:
    """Puts questions to one server."""

    def __init__(
        self, config: BackendConfig, peer: Peer, sessions: Sessions, listing: Listing
    ) -> None:
        self._aside = config.aside
        self._may_repeat = config.may_repeat
        self._credential = bearer_fields(config.bearer)
        self._peer = peer
        self._sessions = sessions
        self._listing = listing

    async def ask(
        self,
        question: Question,
        send: Send,
        read: Read[_T],
    ) -> tuple[Reply, _T]:
        """The answer, and what `read` makes of it.

        Raises `UpstreamFailed`.
        """
        era = await self._peer.current_era(send)
        reply, answer = await self._ask(era, question, send, read)
        if reply.status < 400 or not await self._can_mend(era, question, reply, answer, send):
            return reply, answer
        return await self._ask(self._peer.era or era, question, send, read)

    async def _ask(
        self,
        era: Era,
        question: Question,
        send: Send,
        read: Read[_T],
    ) -> tuple[Reply, _T]:
        if era is _MODERN:
            return await self._put(era, None, question, send, read)
        try:
            seat = await self._sessions.lease(question.key, send)
        except UpstreamFailed as failure:
            if not self._peer.no_legacy:  # The question itself has not left.
                raise UpstreamFailed(failure.why, failure.detail, sent=False) from failure
            return await self._put(_MODERN, None, question, send, read)
        reply, answer = await self._in(seat, question, send, read)
        if not lost_session(reply.status, seat.agreed.session, answer):
            return reply, answer
        # A restart loses every session at once, but each only once: no budget would do for that.
        if self._sessions.is_young(seat) and not self._may_repeat():
            return reply, answer
        self._sessions.lose(seat)
        try:
            seat = await self._sessions.lease(question.key, send)
        except UpstreamFailed:
            return reply, answer  # The refusal stands.
        return await self._in(seat, question, send, read)

    async def _in(
        self,
        seat: Seat,
        question: Question,
        send: Send,
        read: Read[_T],
    ) -> tuple[Reply, _T]:
        """Ask in a legacy session, which is given back once the answer has been read."""
        held = True
        try:
            reply, answer = await self._put(_LEGACY, seat.agreed, question, send, read)
            if isinstance(answer, Progress):
                answer.ended, held = partial(self._heard, seat, question, answer.rpc_id), False
            return reply, answer
        finally:
            if held:
                self._sessions.release(seat)

    def _heard(self, seat: Seat, question: Question, rpc_id: bytes, answered: bool) -> None:
        """A stream of progress is over, or its reader has left."""
        self._sessions.release(seat)
        if question.may_be_taken_back and not answered:
            self.take_back(rpc_id, seat.agreed)

    async def _put(
        self,
        era: Era,
        agreed: Agreed | None,
        question: Question,
        send: Send,
        read: Read[_T],
    ) -> tuple[Reply, _T]:
        rpc_id = self._peer.new_id()
        request, value = question.put(era)
        own = request.headers if agreed is None else agreed.among(request.headers)
        headers = for_new_body(question.end_to_end, [*own, *self._credential])
        if question.tool and era is _MODERN:
            listed = self._listing.get(question.tool)
            headers += _mirrored(listed, question.arguments) if listed is not None else []
        body = request.body(rpc_id, value)
        outbound = Outbound("POST", question.target, headers, body, whole=question.whole)
        try:
            reply = await send(outbound)
            resume = None if agreed is None else partial(self._resume, question, agreed, send)
            return reply, await read(reply, rpc_id, resume)
        except (UpstreamFailed, asyncio.CancelledError) as end:
            if agreed is not None and question.may_be_taken_back and nobody_waits(end):
                self.take_back(rpc_id, agreed)
            raise

    async def _resume(
        self, question: Question, agreed: Agreed, send: Send, last_id: bytes, after: float
    ) -> Reply:
        """Ask for the rest of a stream that has ended before its answer.

        It belongs to the leg that runs the tool: so long as somebody waits for that, for this too.
        """
        own = agreed.among([(b"accept", b"text/event-stream"), (b"last-event-id", last_id)])
        headers = for_new_body(question.end_to_end, [*own, *self._credential])
        return await send(Outbound("GET", question.target, headers, whole=True, after=after))

    def take_back(self, rpc_id: bytes, agreed: Agreed) -> None:
        """Tell a legacy server that nobody waits for a request any more; hanging up does not."""
        if agreed.session is not None:
            self._aside(partial(self._tell, questions.cancelled(rpc_id), agreed))

    async def _tell(self, message: bytes, agreed: Agreed, send: Send) -> None:
        await self._peer.tell(message, send, agreed)

    async def _can_mend(
        self, era: Era, question: Question, reply: Reply, answer: object, send: Send
    ) -> bool:
        """A request was turned away unread for how it was put: learn to put it better."""
        try:
            if refused_era(reply.status, answer, era):
                return self._may_repeat() and await self._peer.learn_era(send) is not era
            mirrors = isinstance(answer, RpcError) and answer.code == jsonrpc.HEADER_MISMATCH
            if mirrors and question.tool and self._may_repeat():
                before = self._listing.mirrors(question.tool)
                await self._listing.renew(send)
                return self._listing.mirrors(question.tool) != before
        except (UpstreamFailed, ProbeFailed):
            return False  # The refusal stands.
        return False


def nobody_waits(end: BaseException) -> bool:
    """An attempt was ended by us, and its request may be under way still."""
    return not isinstance(end, UpstreamFailed) or (end.why == "timeout" and end.sent)


def _mirrored(listed: Listed, arguments: bytes) -> Headers:
    if not listed.askable:
        raise UpstreamFailed("config", "the tool's x-mcp-header is malformed", sent=False)
    return listed.param_headers(arguments)
