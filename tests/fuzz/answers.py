"""What arms say in their bodies: JSON-RPC, events, a webhook's JSON, read and translated.

The first line is the status, the second the media type, the rest the body.  It goes through every
backend to callers of every language: none crashes, each hears a whole answer in its own language,
or none; events are the same however they were cut; and what is kept reads like what was said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from backends.base import Backend, BackendConfig
from backends.mcp import McpBackend
from backends.tools import ToolsBackend
from backends.webhook import WebhookBackend
from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.dialects import sse
from proxy.core.dialects.catalogue import parse_page
from proxy.core.dialects.ear import Answered, Ear
from proxy.core.dialects.kept import again, keep
from proxy.core.model import Call, Kind, Outbound, Reply
from proxy.core.recognise import CallIds, recognise
from proxy.core.routes import match
from proxy.core.verdict import BUSINESS_NO, FAILED_BODY, judge_reply
from proxy.errors import ProbeFailed, UpstreamFailed
from tests.backends.kit import Stream, make_call, make_head, mcp_call
from tests.fuzz.wires import Loop, pieces

MODERN, LEGACY = "2026-07-28", "2025-11-25"


def asking(version: str, method: str, params: dict[str, Any] | None, rpc_id: object = 1) -> Call:
    """An MCP message, as it is recognised."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if rpc_id is not None:
        message["id"] = rpc_id
    fields = [(b"MCP-Protocol-Version", version.encode()), (b"Mcp-Method", method.encode())]
    if params is not None:
        message["params"] = params
        name = params.get("name", params.get("uri"))
        fields += [(b"Mcp-Name", name.encode())] if name else []
    if params is not None and version == MODERN:
        about = "io.modelcontextprotocol/"
        own = {f"{about}protocolVersion": version, f"{about}clientCapabilities": {}}
        message["params"] = {**params, "_meta": {**params.get("_meta", {}), **own}}
    route = match("/mcp")
    assert route is not None
    head = make_head(path="/mcp", headers=fields)
    return recognise(route, head, json.dumps(message).encode(), CallIds())


CALLERS: Final[Mapping[str, Callable[[], Call]]] = {
    "function": partial(make_call, Kind.FUNCTION),
    "tools": partial(make_call, Kind.TOOLS),
    "args": partial(make_call, Kind.ARGS),
    "modern": partial(mcp_call, version=MODERN),
    "legacy": partial(mcp_call, version=LEGACY),
    "progress": partial(
        asking, MODERN, "tools/call", {"name": "book", "_meta": {"progressToken": 7}}
    ),
    "legacy progress": partial(
        asking, LEGACY, "tools/call", {"name": "book", "_meta": {"progressToken": "p"}}
    ),
    "list": partial(asking, MODERN, "tools/list", {}),
    "legacy list": partial(asking, LEGACY, "tools/list", {}),
    "resource": partial(asking, MODERN, "resources/read", {"uri": "file:///x"}),
    "legacy resource": partial(asking, LEGACY, "resources/read", {"uri": "file:///x"}),
    "initialize": partial(asking, LEGACY, "initialize", {"protocolVersion": LEGACY}),
    "discover": partial(asking, MODERN, "server/discover", {}),
    "ping": partial(asking, LEGACY, "ping", None),
    "cancel": partial(asking, LEGACY, "notifications/cancelled", {"requestId": 1}, rpc_id=None),
}
"""Who asks, and how it hears the answer."""

TOOLS: Final = ("function", "tools", "args", "modern", "legacy")
"""Those that call a tool, each in another language."""
PRINTABLE: Final = bytes(range(0x20, 0x7F))
BACKENDS: Final = (McpBackend, ToolsBackend, WebhookBackend)
BY_RULE: Final = BodyVerdicts(
    [
        ({"isError": True, "text": {"prefix": "Error"}}, FAILED_BODY),
        ({"error.code": {"in": ["TAKEN", 7]}}, BUSINESS_NO),
        ({"any": [{"a.b": {"regex": "^x+$"}}, {"success": False}]}, BUSINESS_NO),
    ]
)
_CONFIG: Final = BackendConfig("arm", path="/arm", by_rule=BY_RULE)


class Said:
    """An arm that gives one answer to whatever is asked; whole, or as a stream."""

    def __init__(self, data: bytes) -> None:
        status, _, rest = data.partition(b"\n")
        self.media, _, self.body = rest.partition(b"\n")
        self.status = 200 + int.from_bytes(status[:2], "big") % 400
        if status.isdigit() and 200 <= int(status[:3]) < 600:
            self.status = int(status[:3])

    def reply(self) -> Reply:
        fields = [(b"Content-Type", self.media)] if self.media else []
        if b"event-stream" in self.media:
            return Reply(self.status, fields, Stream(*pieces(self.body, 50)))
        return Reply(self.status, fields, self.body)

    async def send(self, outbound: Outbound, *, dispatches: bool = True) -> Reply:
        return self.reply()


class Answers:
    """The target."""

    def __init__(self) -> None:
        self._loop = Loop()

    def __call__(self, data: bytes) -> None:
        said = Said(data)
        check_events(said.body)
        check_kept(said)
        check_page(said.body)
        self._loop.run(check(said))

    def close(self) -> None:
        self._loop.close()


async def check(said: Said) -> None:
    """Every backend, asked by every caller."""
    for make in BACKENDS:
        for language, caller in CALLERS.items():
            call = caller()
            try:
                reply = await make(_CONFIG).handle(call, said.send)
                body = await whole(reply)
            except UpstreamFailed:
                continue
            verdict = reply.verdict or judge_reply(reply.status, reply.headers, body)
            if verdict.delivers and call.rpc_method == "tools/call" and make is not McpBackend:
                check_rpc(body, call)
            if verdict.delivers and language in ("function", "args") and make is McpBackend:
                assert reply.status == 200
    for probe in ("probe", "refresh"):
        backend: Backend = McpBackend(_CONFIG)
        try:
            await getattr(backend, probe)(said.send)
        except (ProbeFailed, UpstreamFailed):
            continue


async def whole(reply: Reply) -> bytes:
    if isinstance(reply.body, bytes):
        return reply.body
    return b"".join([chunk async for chunk in reply.body])


def check_rpc(body: bytes, call: Call) -> None:
    """One whole answer with the caller's own ID."""
    message = json.loads(body)
    assert message["jsonrpc"] == "2.0"
    assert message["id"] == json.loads(call.rpc_id or b"null")
    assert ("result" in message) != ("error" in message)


def check_events(stream: bytes) -> None:
    """The parser against the standard's own words, and against itself in pieces."""
    plain = events_of(stream)
    for cut in (0, 1, 3):
        parser, found = sse.Parser(), []
        for piece in pieces(stream, cut):
            found += parser.feed(piece)
        assert [(each.name, each.data) for each in found] == plain
    end = sse.end_of_events(stream)
    assert 0 <= end <= len(stream)
    for name, data in plain:
        if b"\r" not in name + data:
            ((again_name, again_data),) = events_of(sse.render(data, name))
            assert (again_name, again_data) == (name, data.removesuffix(b"\n"))
    for ear in (Answered(b"1"), Ear(b"1")):
        for piece in pieces(stream, 7):
            ear.feed(piece)


def events_of(stream: bytes) -> list[tuple[bytes, bytes]]:
    """HTML standard, 9.2.6, line by line."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found: list[tuple[bytes, bytes]] = []
    name, data = b"", b""
    for line in text.split(b"\n")[:-1]:
        if not line:
            if data:
                found.append((name or b"message", data.removesuffix(b"\n")))
            name, data = b"", b""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        elif field == b"data":
            data += value + b"\n"
    return found


def check_kept(said: Said) -> None:
    """What is kept for one caller is an answer for any other."""
    fields = [(b"content-type", said.media)]
    for caller in TOOLS:
        kept = keep(CALLERS[caller](), Reply(said.status, fields, said.body))
        if kept is None:
            continue
        for other in TOOLS:
            call = CALLERS[other]()
            reply = again(call, kept)
            assert isinstance(reply.body, bytes)
            if call.rpc_id is not None and kept.kind is not Kind.MCP:
                check_rpc(reply.body, call)


def check_page(body: bytes) -> None:
    """What a server lists can be asked for, whatever it says of its arguments."""
    try:
        page = parse_page(body)
    except ValueError:
        return
    for tool in page.tools:
        json.loads(tool.raw)
        for _, value in tool.param_headers(body):
            assert not value.translate(None, PRINTABLE)
