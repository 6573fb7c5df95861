"""What a body says: recognised, checked, decided, translated for each arm and answered.

The input is a request without its framing: `METHOD target`, header lines, an empty line, the body;
lines end in LF.  Whatever it is: nothing crashes, no fault is called ours, at most one tool runs,
the webhook gets Retell's own bodies byte for byte and MCP the very arguments; and where a plain
reading by the standard library knows what a body is, ours is the same.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any, Final, cast

from backends.base import Backend, BackendConfig
from backends.mcp import McpBackend
from backends.tools import ToolsBackend
from backends.webhook import WebhookBackend
from proxy.adapters.upstream.wire import fixed_lines, request_head
from proxy.core.addresses import NOWHERE
from proxy.core.dialects import sse
from proxy.core.entry import Entry, Override
from proxy.core.exchange import Exchange
from proxy.core.explain import explain
from proxy.core.fields import fields
from proxy.core.guard import check_request
from proxy.core.head import read_head
from proxy.core.model import Headers, Kind, Outbound, Reply
from proxy.core.recognise import CallIds, recognise
from proxy.core.routes import Route, match
from proxy.core.splitter import Splitter
from proxy.errors import Refused
from tests.fakes import FakeIncoming
from tests.fuzz import plain
from tests.fuzz.ingress import FINE, check_refusal
from tests.fuzz.wires import Loop
from tests.path_kit import Network, World

JSON: Final = [(b"content-type", b"application/json")]
RETELLS: Final = frozenset({Kind.EVENT, Kind.INBOUND, Kind.ALERT, Kind.FUNCTION, Kind.ARGS})
RETELL: Final = cast(Route, match("/retell"))
_FIXED = fixed_lines("arm.test")
_TEXT: Final = {"content": [{"type": "text", "text": "{}"}], "isError": False}
_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "serverInfo": {"name": "arm", "version": "1"},
    },
    "server/discover": {"supportedVersions": ["2026-07-28", "2025-11-25"], "capabilities": {}},
    "tools/list": {"tools": [{"name": "book", "inputSchema": {"type": "object"}}]},
    "tools/call": _TEXT,
}


TOOLS: Final[dict[str, dict[str, Any]]] = {
    "book": {"effect": "write", "invalidates": ["slots"]},
    "slots": {"effect": "read", "cache": "300s", "cache_key": ["args", "metadata.company_id"]},
}
OVERRIDES: Final = (
    Override({"agent_id": {"prefix": "agent_s"}}, percent=50),
    Override({"metadata.company_id": {"in": [42, "a", True]}}, to="webhook"),
    Override(
        {"any": [{"from_number": {"regex": "^[+]1"}}, {"dynamic_variables.x": "y"}]}, percent=9
    ),
    Override({"not": {"header.x-tenant": {"exists": False}}}, to="webhook"),
    Override({"tool": {"suffix": "_call"}}, to="webhook"),
)
"""Whatever a rule can look at."""


class Told(Network):
    """An upstream that takes what is asked of it, and answers as its language wants."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    async def send(self, outbound: Outbound, extra: Headers, **options: Any) -> Reply:
        request_head(outbound, extra, _FIXED)
        self.bodies.append(outbound.body)
        return self.answer(outbound)

    def answer(self, outbound: Outbound) -> Reply:
        return Reply(200, JSON, b'{"success":true}')


class McpServer(Told):
    @property
    def calls(self) -> list[dict[str, Any]]:
        found = [json.loads(body) for body in self.bodies if body]
        return [each for each in found if each.get("method") == "tools/call"]

    def answer(self, outbound: Outbound) -> Reply:
        if outbound.method != "POST":
            return Reply(405)
        asked = json.loads(outbound.body)
        assert isinstance(asked, dict), "no message"
        assert asked["jsonrpc"] == "2.0"
        if "id" not in asked or "method" not in asked:
            return Reply(202)
        result = {"resultType": "complete", **_ANSWERS.get(asked["method"], {})}
        message = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
        return Reply(200, JSON, json.dumps(message).encode())


class Asked:
    """The input, taken apart."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\n\n")
        line, *fields = head.split(b"\n")
        method, _, target = line.partition(b" ")
        self.method = method.decode("ascii", "surrogateescape")
        self.target = target.decode("ascii", "surrogateescape")
        pairs = [field.partition(b":") for field in fields]
        self.headers = [(name, value.strip(b" ")) for name, _, value in pairs]

    def incoming(self) -> FakeIncoming:
        return FakeIncoming(self.method, self.target, self.headers, self.body)


class Bodies:
    """The target."""

    def __init__(self) -> None:
        self._loop = Loop()

    def __call__(self, data: bytes) -> None:
        asked = Asked(data)
        for backend, server in ((McpBackend, McpServer), (ToolsBackend, Told)):
            for percent in (0, 100):
                self._loop.run(check(asked, backend(config()), server(), percent))

    def close(self) -> None:
        self._loop.close()


def config() -> BackendConfig:
    return BackendConfig("arm", path="/arm", sign=b"key", wall_ms=lambda: 1_767_225_600_000)


async def check(asked: Asked, backend: Backend, server: Told, percent: int) -> None:
    """One request through one pair of arms."""
    webhook = Told()
    world = World(percent=percent, mcp=server, webhook=webhook, tools=TOOLS)
    splitter = Splitter(Entry("mcp", "webhook", percent, overrides=OVERRIDES), fields_of=fields)
    world.handler.line = replace(world.line, splitter=splitter)
    world.arms["mcp"].backend = backend
    world.arms["mcp"].speaks_mcp = isinstance(backend, McpBackend)
    world.arms["webhook"].backend = WebhookBackend(config())
    reply = await world.handler.handle(asked.incoming())
    body = await whole(reply)
    await asyncio.gather(*world.tasks)
    told = world.watch.told
    exchanges: list[Exchange] = [value for what, value in told if what == "exchange"]

    assert not [value for what, value in told if what == "crashed"], told
    assert reply.status in FINE, (reply.status, body)
    batch = any("batch" in each.flags for each in exchanges)
    assert len(exchanges) == 1 or batch
    assert world.handler.inflight == 0
    if reply.status >= 400 and exchanges[-1].outcome == "refused":
        check_refusal(body)
    json.dumps(explained(asked, splitter))
    if batch:
        return
    exchange = exchanges[0]
    ran = len(server.calls) if isinstance(server, McpServer) else len(server.bodies)
    assert ran + len(webhook.bodies) <= 1, "more than one arm was asked"
    if exchange.kind in RETELLS:
        assert webhook.bodies in ([], [asked.body]), "the webhook got other bytes"
    if isinstance(server, McpServer) and server.calls:
        plain.check_arguments(asked.body, server.calls[0], exchange.kind)
    if exchange.kind is Kind.MCP and exchange.code == "" and body:
        assert json.loads(message_in(reply, body))["jsonrpc"] == "2.0"
    if exchange.outcome != "refused":
        plain.check_kind(asked.method, asked.target, asked.body, exchange)


async def whole(reply: Reply) -> bytes:
    """The body of an answer, streamed or not."""
    if isinstance(reply.body, bytes):
        return reply.body
    return b"".join([chunk async for chunk in reply.body])


def explained(asked: Asked, splitter: Splitter) -> dict[str, Any]:
    """What an operator would hear of this body."""
    route = match(asked.target.partition("?")[0])
    try:
        incoming = asked.incoming()
        head = read_head(
            asked.method, asked.target, incoming.headers, peer="", secure=False, trusted=NOWHERE
        )
        check_request(head, (1, 1))
        call = recognise(route or RETELL, head, asked.body, CallIds())
    except Refused:
        return {}
    return explain(splitter, call, 1_767_225_600_000).to_dict()


def message_in(reply: Reply, body: bytes) -> bytes:
    """The JSON-RPC message that an answer is, or is the event of."""
    if dict(reply.headers)[b"content-type"] != b"text/event-stream":
        return body
    (event,) = sse.Parser().feed(body)
    return event.data
