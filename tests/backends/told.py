"""A told MCP server: both eras as the SDKs' servers speak them, sessions, and what can go wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

from backends.base import BackendConfig
from backends.mcp import McpBackend
from backends.mcp_peer import SESSION
from proxy.core.dialects.headers import value_of
from proxy.core.model import Call, Era, Form, Headers, Outbound, Reply, Session
from proxy.errors import UpstreamFailed
from tests.backends.kit import JSON, Stream, mcp_call, text_result
from tests.fakes import FakeClock

LEGACY, MODERN = "2025-11-25", "2026-07-28"
EVENTS: Headers = [(b"content-type", b"text/event-stream")]
Tool: TypeAlias = Callable[["Told", dict[str, Any], str | None], dict[str, Any]]

INTRODUCED = {
    "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}},
    "serverInfo": {"name": "told", "version": "1"},
    "instructions": "Ask nicely.",
}


def message(body: bytes) -> dict[str, Any]:
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


def event(value: object) -> bytes:
    return b"event: message\ndata: %b\n\n" % json.dumps(value).encode()


class Told:
    """Answers `send` like a server that keeps sessions, or none, and speaks some eras.

    `ran` holds the arguments of every tool that ran, with the session it ran in.  A `gate` lets
    tools wait.  `down` makes every request fail.  As with the SDKs' servers, no two requests
    under way in one session may have the same ID.
    """

    def __init__(
        self, *eras: Era, sessions: bool = True, events: bool = False, version: str = LEGACY
    ) -> None:
        self.eras = set(eras or Era)
        self.keeps_sessions = sessions
        self.events = events
        self.version = version
        self.sessions: set[str] = set()
        self.ended: list[str] = []
        self.ready: set[str] = set()
        self.notified: list[tuple[str, str | None, Any]] = []
        self.ran: list[tuple[Any, str | None]] = []
        self.asked: list[str] = []
        self.sent: list[Outbound] = []
        self.dispatched: list[bool] = []
        self.tools: list[dict[str, Any]] = [{"name": "book", "inputSchema": {"type": "object"}}]
        self.answers: dict[str, Any] = {}
        self.under_way: set[tuple[str | None, Any]] = set()
        self.gate: Callable[[dict[str, Any]], Any] | None = None
        self.down: UpstreamFailed | None = None
        self.handshake: Reply | None = None  # instead of a good one
        self._numbers = itertools.count(1)

    def restart(self) -> None:
        """Forget every session."""
        self.sessions.clear()
        self.ready.clear()

    def forget(self) -> None:
        """Look at what comes from here on."""
        self.asked, self.sent, self.dispatched = [], [], []

    @property
    def count(self) -> Counter[str]:
        return Counter(self.asked)

    async def __call__(self, outbound: Outbound, *, dispatches: bool = True) -> Reply:
        self.sent.append(outbound)
        self.dispatched.append(dispatches)
        await asyncio.sleep(0)
        if self.down is not None:
            raise self.down
        named = {name.lower(): value.decode() for name, value in outbound.headers}
        session, version = named.get(b"mcp-session-id"), named.get(b"mcp-protocol-version")
        if outbound.method != "POST":
            self.asked.append(outbound.method)
            return self._bodiless(outbound.method, session)
        asked = message(outbound.body)
        self.asked.append(asked.get("method", "answer"))
        if version == MODERN:
            return await self._modern(asked)
        return await self._legacy(asked, session)

    def _bodiless(self, method: str, session: str | None) -> Reply:
        if Era.LEGACY not in self.eras or not self.keeps_sessions:
            return Reply(405, [(b"allow", b"POST")])
        if session not in self.sessions:
            return refusal(404, "Session not found")
        assert session is not None
        if method == "DELETE":
            self.sessions.discard(session)
            self.ended.append(session)
            return Reply(200)
        return Reply(200, list(EVENTS), Stream(b": hello\n\n"))

    async def _modern(self, asked: dict[str, Any]) -> Reply:
        if Era.MODERN not in self.eras:
            return refusal(400, "Bad Request: Unsupported protocol version")
        meta = asked["params"]["_meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == MODERN
        if asked["method"] == "server/discover":
            said = {k: v for k, v in INTRODUCED.items() if k != "serverInfo"}
            about = {"io.modelcontextprotocol/serverInfo": INTRODUCED["serverInfo"]}
            return self._result(asked, {"supportedVersions": [MODERN], "_meta": about, **said})
        return await self._serve(asked, None)

    async def _legacy(self, asked: dict[str, Any], session: str | None) -> Reply:
        method = asked.get("method")
        if Era.LEGACY not in self.eras:
            return refusal(400, "Unsupported protocol version", code=-32022)
        if method == "initialize":
            return self._begin(asked)
        if self.keeps_sessions and session is None:
            return refusal(400, "Bad Request: Missing session ID")
        if self.keeps_sessions and session not in self.sessions:
            return refusal(404, "Session not found")
        if "id" not in asked or method is None:
            self.notified.append((str(method), session, asked.get("params")))
            if method == "notifications/initialized" and session is not None:
                self.ready.add(session)
            return Reply(202)
        assert not self.keeps_sessions or session in self.ready
        return await self._serve(asked, session)

    def _begin(self, asked: dict[str, Any]) -> Reply:
        if self.handshake is not None:
            return self.handshake
        reply = self._result(asked, {"protocolVersion": self.version, **INTRODUCED})
        if self.keeps_sessions:
            session = f"s{next(self._numbers)}"
            self.sessions.add(session)
            reply.headers.append((b"Mcp-Session-Id", session.encode()))
        return reply

    async def _serve(self, asked: dict[str, Any], session: str | None) -> Reply:
        method, params = asked["method"], asked.get("params", {})
        if method in self.answers:
            said = self.answers[method]
            return said(asked) if callable(said) else self._result(asked, said)
        if method == "tools/list":
            return self._result(asked, {"tools": self.tools})
        if method == "ping":
            return self._result(asked, {})
        if method != "tools/call":
            error = {"code": -32601, "message": "Method not found"}
            return self._reply({"jsonrpc": "2.0", "id": asked["id"], "error": error})
        if params["name"] not in [tool["name"] for tool in self.tools]:
            return self._result(asked, text_result("Unknown tool", isError=True))
        key = (session, asked["id"])
        assert session is None or key not in self.under_way, "only one would ever be answered"
        self.under_way.add(key)
        try:
            if self.gate is not None:
                await self.gate(asked)
        finally:
            self.under_way.discard(key)
        self.ran.append((params["arguments"], session))
        return self._result(asked, text_result(json.dumps(params["arguments"])))

    def _result(self, asked: dict[str, Any], result: dict[str, Any]) -> Reply:
        return self._reply({"jsonrpc": "2.0", "id": asked["id"], "result": result})

    def _reply(self, answer: dict[str, Any]) -> Reply:
        if self.events:
            return Reply(200, list(EVENTS), Stream(b"id: 1\ndata:\n\n", event(answer)))
        return Reply(200, [(b"content-type", JSON)], json.dumps(answer).encode())


def refusal(status: int, words: str, *, code: int = -32600, rpc_id: object = None) -> Reply:
    """As the SDKs turn requests away: with an ID that is not the request's."""
    error = {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": code, "message": words}}
    return Reply(status, [(b"content-type", JSON)], json.dumps(error).encode())


class Asides:
    """What is to be done beside the path; `run` does it."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def __call__(self, errand: Any) -> None:
        self.waiting.append(errand)

    async def run(self, send: Any) -> None:
        waiting, self.waiting = self.waiting, []
        for errand in waiting:
            await errand(send)


class Rig:
    """An MCP arm with a told server, and what is usually the sidecar's part."""

    def __init__(self, *eras: Era, **more: Any) -> None:
        config = {name: more.pop(name) for name in ("tools", "bearer", "by_rule") if name in more}
        self.told = Told(*eras, **more)
        self.asides = Asides()
        self.clock = FakeClock()
        self.repeats = True
        self.repeated = 0
        self.arm = McpBackend(
            BackendConfig(
                "mcp",
                path="/mcp",
                aside=self.asides,
                wall_ms=self.clock.wall_ms,
                may_repeat=self._may_repeat,
                **config,
            )
        )

    def _may_repeat(self) -> bool:
        self.repeated += 1
        return self.repeats

    async def ask(self, call: Call) -> Reply:
        return await self.arm.handle(call, self.told)

    async def run_aside(self) -> None:
        await self.asides.run(self.told)

    async def begin(self, id: str = "c1", *, params: Any = None) -> Session:
        """A caller's legacy session, begun at the server."""
        draft = Session(id, "", LEGACY, 0)
        call = legacy("initialize", params or {"protocolVersion": LEGACY}, session=draft)
        reply = await self.ask(call)
        found = value_of(reply.headers, SESSION)
        session = Session(id, "mcp", LEGACY, 0, found.decode() if found else None)
        await self.ask(legacy("notifications/initialized", {}, session=session, rpc_id=None))
        self.told.forget()
        return session


def legacy(
    method: str = "tools/call",
    params: Any = None,
    *,
    session: Session | None = None,
    rpc_id: bytes | None = b'"own-1"',
    **more: Any,
) -> Call:
    """A legacy caller's message."""
    if method != "tools/call":
        more["tool"] = None
    call = mcp_call(method, params, version=LEGACY, rpc_id=rpc_id, **more)
    call.era, call.session = Era.LEGACY, session
    call.form = Form.REQUEST if rpc_id is not None else Form.NOTIFICATION
    return call


def bodiless(form: Form, session: Session | None) -> Call:
    """A legacy caller's GET or DELETE."""
    http = {Form.STREAM: "GET", Form.END: "DELETE"}[form]
    call = legacy("", {}, session=session, rpc_id=None, http=http)
    call.body, call.form, call.rpc_method = b"", form, None
    return call


def modern(method: str = "tools/call", params: Any = None, **more: Any) -> Call:
    """A modern caller's message."""
    if method != "tools/call":
        more["tool"] = None
    call = mcp_call(method, params, **more)
    call.era = Era.MODERN
    call.form = Form.REQUEST if call.rpc_id is not None else Form.NOTIFICATION
    return call


def answer_of(reply: Reply) -> dict[str, Any]:
    """The JSON-RPC answer in a reply."""
    assert isinstance(reply.body, bytes)
    return message(reply.body)
