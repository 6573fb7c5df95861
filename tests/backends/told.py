"""A told MCP server: both eras as the SDKs' servers speak them, sessions, and what can go wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

from proxy.core.model import Era, Headers, Outbound, Reply
from proxy.errors import UpstreamFailed
from tests.backends.kit import JSON, Stream, text_result

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
    tools wait.  `down` makes every request fail.
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
        self.gate: Callable[[dict[str, Any]], Any] | None = None
        self.down: UpstreamFailed | None = None
        self._numbers = itertools.count(1)

    def restart(self) -> None:
        """Forget every session."""
        self.sessions.clear()
        self.ready.clear()

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
        assert session is None or session in self.ready
        return await self._serve(asked, session)

    def _begin(self, asked: dict[str, Any]) -> Reply:
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
        if self.gate is not None:
            await self.gate(asked)
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
