from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.addresses import NOWHERE
from proxy.core.call_id import CallIds
from proxy.core.head import read_head
from proxy.core.mcp.asked import MAX_RPC_ID
from proxy.core.model import Call, Era, Form, Kind
from proxy.core.recognise import recognise
from proxy.core.routes import match
from proxy.errors import Refused

VERSIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
INIT = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}


def fields(version: str | None, **more: str) -> list[tuple[bytes, bytes]]:
    named = {} if version is None else {"MCP-Protocol-Version": version}
    named |= {name.replace("_", "-"): value for name, value in more.items()}
    return [(name.encode(), value.encode()) for name, value in named.items()]


def ask(
    body: object,
    version: str | None = None,
    *,
    path: str = "/mcp/call_a",
    method: str = "POST",
    **more: str,
) -> Call:
    head = read_head(
        method, path, fields(version, **more), peer="", secure=False, trusted=NOWHERE
    )  # fmt: skip
    route = match(path)
    assert route is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return recognise(route, head, raw, CallIds())


def told(*args: Any, **kwargs: Any) -> tuple[int, int, bytes]:
    """What a caller is refused with: status, code, ID."""
    with pytest.raises(Refused) as caught:
        ask(*args, **kwargs)
    refused = caught.value
    assert refused.rpc_code
    return refused.status, refused.rpc_code, refused.rpc_id


def rpc(method: str | None = None, rpc_id: object = ..., **more: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"jsonrpc": "2.0", **more}
    if method is not None:
        message["method"] = method
    return message if rpc_id is ... else {**message, "id": rpc_id}


# -- Who asks in which form.


@pytest.mark.parametrize("version", [None, *VERSIONS])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/call_a", "/retell", "/api/mcp/retell/tools"])
@pytest.mark.parametrize(
    ("body", "form", "rpc_id", "method"),
    [
        (rpc("initialize", 0, params=INIT), Form.REQUEST, b"0", "initialize"),
        (rpc("ping", "a"), Form.REQUEST, b'"a"', "ping"),
        (rpc("notifications/initialized"), Form.NOTIFICATION, None, "notifications/initialized"),
        (rpc(None, 7, result={}), Form.ANSWER, b"7", None),
        (rpc(None, "s-1", error={"code": -1, "message": "no"}), Form.ANSWER, b'"s-1"', None),
        (rpc(None, None, error={"code": -1, "message": "no"}), Form.ANSWER, None, None),
        (rpc(None, error={"code": -1, "message": "no"}), Form.ANSWER, None, None),
        (rpc("ping", 7, result={}), Form.REQUEST, b"7", "ping"),
    ],
)
def test_a_legacy_message_is_a_request_a_notification_or_an_answer(
    version: str | None, path: str, body: Any, form: Form, rpc_id: bytes | None, method: str | None
) -> None:
    call = ask(body, version, path=path, mcp_session_id="a")

    assert (call.kind, call.era, call.form) == (Kind.MCP, Era.LEGACY, form)
    assert (call.rpc_id, call.rpc_method, call.tool) == (rpc_id, method, None)


@pytest.mark.parametrize("path", ["/mcp", "/mcp/call_a", "/api/mcp/retell/tools", "/retell"])
def test_an_answer_without_a_session_is_an_unknown_shape_where_anything_may_come(
    path: str,
) -> None:
    call = ask(rpc(None, 7, result={}), path=path)

    assert call.kind is (Kind.OTHER if path == "/retell" else Kind.MCP)


def test_a_modern_message_is_a_request_or_a_notification() -> None:
    call = ask(rpc("server/discover", 1, params={"_meta": META}), MODERN,
               mcp_method="server/discover")  # fmt: skip
    note = ask(rpc("notifications/cancelled"), MODERN)

    assert (call.era, call.form, call.rpc_id) == (Era.MODERN, Form.REQUEST, b"1")
    assert (note.era, note.form, note.rpc_id) == (Era.MODERN, Form.NOTIFICATION, None)


@pytest.mark.parametrize(("method", "form"), [("GET", Form.STREAM), ("DELETE", Form.END)])
@pytest.mark.parametrize("version", [None, *VERSIONS])
@pytest.mark.parametrize("body", [b"", b"{", b'{"jsonrpc":"2.0","id":1,"method":"ping"}'])
def test_legacy_callers_listen_and_leave(
    method: str, form: Form, version: str | None, body: bytes
) -> None:
    call = ask(body, version, method=method)

    assert (call.kind, call.era, call.form, call.id) == (Kind.MCP, Era.LEGACY, form, "call_a")
    assert (call.rpc_id, call.rpc_method) == (None, None)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("version", [MODERN, "1999-01-01", ""])
def test_the_modern_era_has_neither(method: str, version: str) -> None:
    with pytest.raises(Refused) as caught:
        ask(b"", version, method=method)

    assert (caught.value.status, caught.value.allow) == (405, "POST")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "GET", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("version", [None, MODERN])
def test_a_message_comes_by_post_wherever_it_is_recognised(
    method: str, version: str | None
) -> None:
    with pytest.raises(Refused) as caught:
        ask(rpc("ping", 1), version, path="/retell", method=method)

    assert (caught.value.status, caught.value.allow) == (405, "POST")


@pytest.mark.parametrize("version", [None, "2025-03-26"])
@pytest.mark.parametrize("body", [b"[]", b'[{"jsonrpc":"2.0"}]', b" \r\n\t[1]"])
def test_a_batch_is_recognised_where_its_version_has_them(version: str | None, body: bytes) -> None:
    call = ask(body, version)

    assert (call.kind, call.era, call.form) == (Kind.MCP, Era.LEGACY, Form.BATCH)


# -- What is refused, and how: status, JSON-RPC code, ID.

LONG = "x" * MAX_RPC_ID
REFUSED: dict[str, tuple[Any, tuple[int, int, bytes]]] = {
    "an ID of null": (rpc("ping", None), (400, -32600, b"")),
    "a true ID": (rpc("ping", True), (400, -32600, b"")),
    "a list for an ID": (rpc("ping", [1]), (400, -32600, b"")),
    "an object for an ID": (rpc("ping", {}), (400, -32600, b"")),
    "a long ID": (rpc("ping", LONG), (400, -32600, b"")),
    "a null ID of a tool's call": (rpc("tools/call", None), (400, -32600, b"")),
    "no ID of a tool's call": (rpc("tools/call", params={"name": "b"}), (400, -32600, b"")),
    "no version of JSON-RPC": ({"id": 7, "method": "ping"}, (400, -32600, b"7")),
    "another version": (rpc("ping", 7) | {"jsonrpc": "1.0"}, (400, -32600, b"7")),
    "a version that is a number": (rpc("ping", 7) | {"jsonrpc": 2.0}, (400, -32600, b"7")),
    "no method": (rpc(None, "a"), (400, -32600, b'"a"')),
    "an empty method": (rpc("", 7), (400, -32600, b"7")),
    "a number for a method": (rpc("x", 7) | {"method": 5}, (400, -32600, b"7")),
    "a result without ID": (rpc(None, result={}), (400, -32600, b"")),
    "a result with a null ID": (rpc(None, None, result={}), (400, -32600, b"")),
    "an empty object": ({}, (400, -32600, b"")),
    "a number": (5, (400, -32600, b"")),
    "a text": ("ping", (400, -32600, b"")),
    "null": (None, (400, -32600, b"")),
    "another language": ({"name": "book", "call": {}, "args": {}}, (400, -32600, b"")),
    "nothing": (b"", (400, -32700, b"")),
    "half a message": (b'{"jsonrpc":"2.0","id":7,', (400, -32700, b"")),
    "two messages": (b'{"jsonrpc":"2.0","id":7,"method":"ping"}{}', (400, -32700, b"")),
    "no UTF-8": (b'{"jsonrpc":"2.0","id":7,"method":"ping","x":"\xff"}', (400, -32700, b"")),
    "no UTF-8 and no message": (b'{"id":"\xff"}', (400, -32600, b"")),
    "half a batch": (b'[{"jsonrpc":"2.0"', (400, -32700, b"")),
}


@pytest.mark.parametrize("version", [None, *VERSIONS, MODERN])
@pytest.mark.parametrize(("body", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_message_is_refused_in_every_era(
    body: Any, expected: tuple[int, int, bytes], version: str | None
) -> None:
    assert told(body, version) == expected


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "2025-11-25", MODERN])
def test_a_batch_is_refused_where_its_version_has_none(version: str) -> None:
    assert told([rpc("ping", 7)], version) == (400, -32600, b"")


def test_a_modern_client_answers_nobody() -> None:
    assert told(rpc(None, 7, result={}), MODERN) == (400, -32600, b"")


def test_what_is_no_tool_is_an_answer_to_legacy_callers() -> None:
    """A status that fails costs some of them their whole session."""
    call = rpc("tools/call", 7, params={"name": "..", "arguments": {}, "_meta": META})

    assert told(call) == (200, -32602, b"7")
    modern = {"mcp_method": "tools/call", "mcp_name": ".."}
    assert told(call, MODERN, **modern) == (400, -32602, b"7")
    assert told(call, path="/retell") == (200, -32602, b"7")


@pytest.mark.parametrize("version", [None, *VERSIONS])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_version_that_stands_twice_is_none(version: str | None, method: str) -> None:
    twice = [*fields("2025-11-25"), *fields(version or "2025-06-18")]
    head = read_head(method, "/mcp", twice, peer="", secure=False, trusted=NOWHERE)
    route = match("/mcp")
    assert route is not None

    for body, rpc_id in ((b'{"jsonrpc":"2.0","id":7,"method":"ping"}', b"7"), (b"[]", b"")):
        with pytest.raises(Refused) as caught:
            recognise(route, head, body, CallIds())
        assert (caught.value.status, caught.value.rpc_code) == (400, -32600)
        assert caught.value.rpc_id == (rpc_id if method == "POST" else b"")


def test_legacy_params_are_for_the_server_to_judge() -> None:
    for params in (None, [1], {}, {"name": 5}, {"_meta": 7}):
        call = ask(rpc("tools/call", 7, params=params))
        assert (call.form, call.tool) == (Form.REQUEST, None)


@pytest.mark.parametrize(
    ("more", "continues"),
    [
        ({}, False),
        ({"inputResponses": {}}, True),
        ({"requestState": "s"}, True),
        ({"requestState": None}, True),
    ],
)
def test_whoever_answers_a_tools_question_goes_on_where_it_was_asked(
    more: dict[str, Any], continues: bool
) -> None:
    message = rpc("tools/call", 1, params={"name": "book", "_meta": META, **more})
    call = ask(message, MODERN, mcp_method="tools/call", mcp_name="book")

    assert call.continues is continues
