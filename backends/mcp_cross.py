"""How is an MCP caller served whom the server would not understand, for its era or its sessions?

The request is asked anew, in the server's own way, and the raw result is given back; what the
server's era lacks is said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import orjson
from msgspec import Raw

from backends.base import Send
from backends.mcp_answers import Resume, read_any_answer
from backends.mcp_asking import Asking, Question
from backends.mcp_hearing import judge_protocol
from backends.mcp_peer import Peer
from backends.mcp_progress import Progress
from backends.mcp_sessions import Sessions
from backends.mcp_tools import Tools, hinted
from proxy.core.dialects import jsonrpc
from proxy.core.dialects.answers import EVENTS, no_such_method, rpc_reply
from proxy.core.dialects.headers import for_new_answer
from proxy.core.dialects.jsonrpc import Request, RpcError, ToolResult
from proxy.core.mcp import across, questions
from proxy.core.mcp.face import ANSWERED, DECLINED
from proxy.core.model import Call, Era, Form, Reply, Verdict
from proxy.core.targets import Targets
from proxy.core.verdict import BUSINESS_NO
from proxy.errors import UpstreamFailed

_Params: TypeAlias = dict[str, Raw]

_EMPTY: Final = frozenset({"ping", "logging/setLevel"})
_SUBSCRIBING: Final = frozenset({"resources/subscribe", "resources/unsubscribe"})
_NOT_MODERN: Final = frozenset({"initialize", "subscriptions/listen"}) | _EMPTY | _SUBSCRIBING
_ASKS_FOR_MORE: Final = "This needs an answer from its user, for which this connection has no way."
_LEGACY: Final = Era.LEGACY  # Bound once: reading a member of an enumeration is slow.


class Cross:
    """Callers who cannot be handed on as they are."""

    def __init__(
        self, peer: Peer, sessions: Sessions, asking: Asking, tools: Tools, targets: Targets
    ) -> None:
        self._peer = peer
        self._sessions = sessions
        self._asking = asking
        self._tools = tools
        self._targets = targets

    async def handle(self, call: Call, era: Era, send: Send) -> Reply:
        """The answer in the caller's era."""
        if call.head.method == "DELETE":
            return Reply(204, verdict=ANSWERED)
        if call.form is Form.ANSWER:
            return Reply(202, verdict=ANSWERED)
        if call.rpc_id is None:
            return no_such_method(call)  # There is no stream of news; the rest wants no answer.
        caller = _Caller(call, call.rpc_id, era)
        try:
            params = questions.params_of(call.body)
        except ValueError:
            wrong = RpcError(jsonrpc.INVALID_PARAMS, "params must be an object.")
            return caller.hears(wrong, DECLINED)
        if era is not _LEGACY or self._peer.no_legacy:
            own = await self._own_word(caller, params, send)
            if own is not None:
                return own
        return await self._ask(caller, params, send)

    async def _own_word(self, caller: _Caller, params: _Params, send: Send) -> Reply | None:
        """What is said here, because the server's era has no such method."""
        modern, method, said = caller.era is not _LEGACY, caller.method, None
        if modern and method == "server/discover":
            said = across.discovered(await self._sessions.welcome(send))
        elif not modern and method == "initialize":
            said = across.initialized(await self._sessions.welcome(send), params)
        elif not modern and method in _EMPTY:
            said = b"{}"
        if said is not None:
            return rpc_reply(caller.call, caller.result(said), verdict=ANSWERED)
        lacking = _NOT_MODERN if modern else _SUBSCRIBING
        return no_such_method(caller.call) if method in lacking else None

    async def _ask(self, caller: _Caller, params: _Params, send: Send) -> Reply:
        call, runs, tool = caller.call, caller.method == "tools/call", ""
        if runs:
            tool = self._tools.here(call.tool or "")
            params["name"] = Raw(orjson.dumps(tool))
        listens = EVENTS in call.head.named.get(b"accept", b"")
        wanted = questions.progress_token(params) if listens else None
        token = self._peer.new_id() if wanted is not None else None
        question = Question(
            partial(_put, caller.method, params, token),
            self._targets.of(call),
            call.head.end_to_end,
            key=call.id,
            tool=tool,
            arguments=call.arguments or b"{}",
            may_be_taken_back=runs and self._tools.may_be_taken_back(call.tool),
            whole=wanted is None,
        )
        reply, answer = await self._asking.ask(question, send, partial(self._read, caller, wanted))
        if isinstance(answer, Progress):
            return Reply(200, for_new_answer(reply.headers, EVENTS), answer)
        if not runs:
            return caller.hears(answer, judge_protocol(reply, answer), reply, self._info)
        said = _tool_result(answer) if isinstance(answer, bytes) else answer
        verdict = await self._tools.judge(tool, reply, said, send)
        return hinted(caller.hears(answer, verdict, reply, self._info), said)

    async def _read(
        self,
        caller: _Caller,
        wanted: bytes | None,
        reply: Reply,
        rpc_id: bytes,
        resume: Resume | None,
    ) -> bytes | RpcError | Progress | None:
        """The whole answer; or what comes as it comes, if its caller wants to hear of progress."""
        if wanted is None or isinstance(reply.body, bytes) or reply.status >= 400:
            return await read_any_answer(reply, rpc_id, resume)

        def finish(message: bytes) -> bytes | None:
            answer = jsonrpc.parse_answer(message, rpc_id)
            return caller.message(answer, self._info) if answer is not None else None

        return Progress(reply.body, finish, rpc_id=rpc_id, token=wanted)

    @property
    def _info(self) -> bytes:
        """Who the server says that it is."""
        welcome = self._peer.welcome
        return welcome.server_info if welcome is not None else jsonrpc.SELF


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who asked, and how he is answered."""

    call: Call
    rpc_id: bytes
    era: Era

    @property
    def method(self) -> str:
        return self.call.rpc_method or ""

    def hears(
        self,
        answer: bytes | RpcError | None,
        verdict: Verdict | None,
        reply: Reply | None = None,
        info: bytes = jsonrpc.SELF,
    ) -> Reply:
        """The server's answer; None where a status had to speak for itself."""
        if answer is None:
            answer = RpcError(jsonrpc.INTERNAL_ERROR, "The server refused.")
        if isinstance(answer, bytes) and self._asks_for_more(answer):
            verdict = BUSINESS_NO
        status = 200
        if isinstance(answer, RpcError):
            status = across.status_of(self.era, across.code_for(self.era, answer))
        if verdict is None and reply is not None:
            status = reply.status  # By which whoever knows what the arm promises judges it.
        headers = reply.headers if reply is not None else []
        message = self.message(answer, info)
        return rpc_reply(self.call, message, status=status, headers=headers, verdict=verdict)

    def message(self, answer: bytes | RpcError, info: bytes) -> bytes:
        """The server's answer as one of the caller's era; raises `UpstreamFailed` for none."""
        if isinstance(answer, RpcError):
            code = across.code_for(self.era, answer)
            return jsonrpc.render_error(self.rpc_id, code, answer.message, answer.data)
        try:
            if self.era is not _LEGACY:
                return self.result(across.for_modern(self.method, answer, info))
            said = across.for_legacy(self.method, answer)
        except ValueError as error:
            raise UpstreamFailed("body", "the result is no object", sent=True) from error
        if said is not None:
            return self.result(said)
        if self.method == "tools/call":
            return jsonrpc.render_result(
                self.rpc_id, self.era, ToolResult(_ASKS_FOR_MORE, is_error=True)
            )
        return jsonrpc.render_error(self.rpc_id, jsonrpc.INTERNAL_ERROR, _ASKS_FOR_MORE)

    def result(self, result: bytes) -> bytes:
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (self.rpc_id, result)

    def _asks_for_more(self, result: bytes) -> bool:
        return self.era is _LEGACY and across.asks_for_more(result)


def _put(method: str, params: _Params, token: bytes | None, era: Era) -> tuple[Request, bytes]:
    request = questions.any_request(era, method, params)
    return request, questions.in_era(era, params, token)


def _tool_result(result: bytes) -> ToolResult:
    """What a raw result says, for judging it; raises `UpstreamFailed` if it is none of a tool."""
    try:
        said = jsonrpc.parse_tool_answer(b'{"id":1,"result":%b}' % result, b"1", complete=False)
    except ValueError as error:
        raise UpstreamFailed("body", "the result is none of a tool", sent=True) from error
    assert isinstance(said, ToolResult)
    return said
