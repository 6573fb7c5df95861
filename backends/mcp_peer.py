"""What is known of an MCP server, and how is it asked?

Its era is learned with a harmless `server/discover` and kept until it refuses to be asked so.
Every request of ours has an ID of its own, whoever it is for.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from backends.base import Send
from backends.mcp_answers import leave, read_any_answer, told
from backends.mcp_flights import Flights
from proxy.core.dialects import jsonrpc
from proxy.core.dialects.headers import value_of
from proxy.core.dialects.jsonrpc import Request, RpcError
from proxy.core.dialects.members import members_of
from proxy.core.mcp import questions
from proxy.core.mcp.across import Welcome, read_welcome
from proxy.core.model import Era, Headers, Outbound, Reply
from proxy.errors import UpstreamFailed

SESSION = b"mcp-session-id"
VERSION = b"mcp-protocol-version"

_SESSION_CODES = frozenset({jsonrpc.INVALID_REQUEST, *range(-32019, -31999)})
"""With which servers speak of sessions: the second are the implementations' own (2025-11-25)."""
_NOT_OF_ERA = frozenset({401, 403, 407, 408, 413, 421, 429})


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a handshake with a legacy server came to; `session` None: it keeps none."""

    session: bytes | None
    version: bytes = jsonrpc.LEGACY_VERSION

    def among(self, headers: Headers) -> Headers:
        """The fields of a legacy request, as this session has them."""
        kept = [field for field in headers if field[0] != VERSION]
        kept.append((VERSION, self.version))
        if self.session is not None:
            kept.append((SESSION, self.session))
        return kept


class Peer:
    """One MCP server, as its client knows it; safe for concurrent use.

    `no_legacy`: it has refused the legacy handshake, and speaks modern.  `wants_sessions`: in its
    legacy form it is asked in sessions only.
    """

    def __init__(self, target: str, credential: Headers) -> None:
        self.era: Era | None = None
        self.no_legacy = False
        self.wants_sessions = False
        self.welcome: Welcome | None = None
        self._target = target
        self._credential = credential
        self._ids = itertools.count(1)
        self._learning: Flights[Era] = Flights()

    def new_id(self) -> bytes:
        """An ID that no other request to this server has, as raw JSON."""
        return b"%d" % next(self._ids)

    async def ask(
        self, request: Request, send: Send, agreed: Agreed | None = None
    ) -> tuple[Reply, bytes | RpcError | None]:
        """A question that runs nothing; in a legacy session if that is `agreed`."""
        rpc_id = self.new_id()
        headers = request.headers if agreed is None else agreed.among(request.headers)
        outbound = self._post([*headers, *self._credential], request.body(rpc_id))
        reply = await send(outbound, dispatches=False)
        return reply, await read_any_answer(reply, rpc_id)

    async def tell(self, message: bytes, send: Send, agreed: Agreed) -> int:
        """A notification in a legacy session; the status that it got."""
        headers = [*agreed.among(jsonrpc.JSON_FIELDS), *self._credential]
        reply = await send(self._post(headers, message), dispatches=False)
        await leave(reply)
        return reply.status

    async def end(self, agreed: Agreed, send: Send) -> None:
        """End a legacy session; whether the server knows it still does not matter."""
        headers = [*agreed.among([]), *self._credential]
        await leave(await send(Outbound("DELETE", self._target, headers), dispatches=False))

    def _post(self, headers: Headers, body: bytes) -> Outbound:
        return Outbound("POST", self._target, headers, body, whole=True)

    async def current_era(self, send: Send) -> Era:
        """The era that is known, or else what the server says now."""
        return self.era or await self.learn_era(send)

    async def learn_era(self, send: Send) -> Era:
        """Ask the server; what it says is kept, unless the question does not get that far."""
        return await self._learning.once("", lambda: self._learn_era(send))

    async def _learn_era(self, send: Send) -> Era:
        reply, answer = await self.ask(jsonrpc.server_discover(), send)
        if isinstance(answer, bytes) and _names_versions(answer):
            self.welcome, self.era = _welcome(answer), Era.MODERN
        elif _is_modern_refusal(answer):
            self.era = Era.MODERN
        elif reply.status // 100 in (2, 4) and not _says_nothing(reply.status, answer):
            self.era, self.no_legacy = Era.LEGACY, False
        return self.era or Era.MODERN

    async def shake_hands(self, send: Send, params: bytes | None = None) -> Agreed:
        """Begin a legacy session; `params` are those of its `initialize` (raw JSON), or our own.

        Raises `UpstreamFailed` also if the server refuses; with `no_legacy`, for good.
        """
        request = questions.initialize(params or questions.introduction())
        reply, answer = await self.ask(request, send)
        if not isinstance(answer, bytes):
            if params is not None and reply.status < 500:  # It may be what a caller said of itself.
                return await self.shake_hands(send)
            return await self._without_hands(reply, answer, send)
        self.no_legacy = False
        welcome = _welcome(answer)
        if params is None:
            self.welcome = welcome
        agreed = Agreed(session_of(reply), welcome.version or jsonrpc.LEGACY_VERSION)
        self.wants_sessions = agreed.session is not None
        status = await self.tell(questions.INITIALIZED, send, agreed)
        if status >= 400:
            raise UpstreamFailed("config", f"notifications/initialized: status {status}", sent=True)
        return agreed

    async def _without_hands(self, reply: Reply, answer: object, send: Send) -> Agreed:
        """An `initialize` was refused: is it a matter of era, or is none needed?"""
        finding = told("initialize", reply, answer)
        if reply.status == 429 or reply.status >= 500:
            raise UpstreamFailed("status", finding, sent=True)
        if reply.status not in _NOT_OF_ERA and reply.status // 100 != 3:
            era = await self.learn_era(send)
            unknown = isinstance(answer, RpcError) and answer.code == jsonrpc.METHOD_NOT_FOUND
            if era is Era.LEGACY and unknown:
                return Agreed(None)
            self.no_legacy = self.era is Era.MODERN
        raise UpstreamFailed("config", finding, sent=True)


def session_of(reply: Reply) -> bytes | None:
    """The session that an answer to `initialize` begins, if it is one that can be named."""
    found = value_of(reply.headers, SESSION)
    usable = 200 <= reply.status < 300 and found and all(0x21 <= byte <= 0x7E for byte in found)
    return found if usable else None


def lost_session(status: int, session: bytes | None, answer: object, text: bytes = b"") -> bool:
    """The server does not know the session that a request named, or misses one: nothing ran.

    404 in a session says so (2025-11-25, transports), unless its error is one that a tool may end
    in; 400 where its words do, which are the `text` of an answer that is no JSON-RPC.
    """
    refusal = answer if isinstance(answer, RpcError) else None
    if status == 404:
        return session is not None and (refusal is None or refusal.code in _SESSION_CODES)
    if status != 400:
        return False
    if refusal is None:
        return session is None or b"session" in text[:300].lower()
    said = refusal.message[:300].casefold()
    return refusal.code in _SESSION_CODES and (
        "session" in said or (session is None and "initializ" in said)
    )


def refused_era(status: int, answer: object, era: Era) -> bool:
    """The server turned a request away, unread, in a way that the other era could mend."""
    if not 400 <= status < 500 or status in _NOT_OF_ERA:
        return False
    if not isinstance(answer, RpcError):
        return True
    codes = {jsonrpc.INVALID_REQUEST, jsonrpc.UNSUPPORTED_VERSION}
    if era is Era.LEGACY:  # What a modern server misses in a request that does not describe itself.
        codes |= {jsonrpc.HEADER_MISMATCH, jsonrpc.INVALID_PARAMS}
    return answer.code in codes


def _welcome(result: bytes) -> Welcome:
    try:
        return read_welcome(result)
    except ValueError:
        return Welcome()


def _says_nothing(status: int, answer: object) -> bool:
    """A refusal for other reasons than that the question is unknown."""
    failed = isinstance(answer, RpcError) and answer.code == jsonrpc.INTERNAL_ERROR
    return failed or status in _NOT_OF_ERA


def _names_versions(result: bytes) -> bool:
    """It answers `server/discover`: some servers say something to whatever they are asked."""
    try:
        return "supportedVersions" in members_of(result)
    except ValueError:
        return False


def _is_modern_refusal(answer: object) -> bool:
    """An error code that only the modern revision defines; ours must not be unknown to it."""
    if not isinstance(answer, RpcError) or not -32099 <= answer.code <= -32020:
        return False
    return answer.code != jsonrpc.UNSUPPORTED_VERSION or _supports_ours(answer.data)


def _supports_ours(data: bytes) -> bool:
    """A server that refuses our revision, once in a while, names it all the same."""
    try:
        return jsonrpc.MODERN_VERSION in bytes(members_of(data).get("supported", b""))
    except ValueError:
        return False
