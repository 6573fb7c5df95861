"""What a request is, of which call, and where it goes: every kind on every path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, event, function, tools_call
from tests.functional.wire import answers, request

TOOLS = b'{"tool":"get_available_slots","arguments":{"d":1},"call_id":"call_a"}'
INBOUND = json.dumps(
    {
        "event": "call_inbound",
        "event_timestamp": 1767225600000,
        "call_inbound": {"call_id": "call_a", "from_number": "+1", "to_number": "+2"},
    }
).encode()
RPC = tools_call(SLOTS, {"d": 1})
LEGACY = b"MCP-Protocol-Version: 2025-11-25"
X_CALL = b"X-Call-ID: call_a"
CHAT = b'{"name":"get_available_slots","chat":{"chat_id":"chat_a"},"args":{}}'

# method, target, body, headers -> kind, call ID, tool, arm
SHAPES: dict[str, tuple[str, str, bytes | None, list[bytes], tuple[Any, Any, Any, str]]] = {
    "event": ("POST", "/retell", event(), [], ("event", "call_a", None, "webhook")),
    "chat event": (
        "POST", "/retell", b'{"event":"chat_ended","chat":{"chat_id":"chat_a"}}', [],
        ("event", "chat_a", None, "webhook"),
    ),
    "inbound": ("POST", "/retell", INBOUND, [], ("inbound", "call_a", None, "webhook")),
    "alert": (
        "POST", "/retell", b'{"event":"alert_triggered","alert":{}}', [],
        ("alert", None, None, "webhook"),
    ),
    "function": ("POST", "/retell", function(SLOTS), [], ("function", "call_a", SLOTS, "mcp")),
    "chat function": ("POST", "/retell", CHAT, [], ("function", "chat_a", SLOTS, "mcp")),
    "function by PUT": (
        "PUT", "/retell", function(SLOTS), [], ("function", "call_a", SLOTS, "mcp"),
    ),
    "tools by shape": ("POST", "/retell", TOOLS, [], ("tools", "call_a", SLOTS, "mcp")),
    "JSON-RPC by shape": (
        "POST", "/retell", RPC, [X_CALL], ("mcp", "call_a", SLOTS, "mcp")
    ),
    "guide's webhook, event": (
        "POST", "/api/retell/webhook-simple", event(), [], ("event", "call_a", None, "webhook"),
    ),
    "guide's webhook, function": (
        "POST", "/api/retell/webhook-simple", function(SLOTS), [],
        ("function", "call_a", SLOTS, "mcp"),
    ),
    "guide's tools": (
        "POST", "/api/mcp/retell/tools", TOOLS, [], ("tools", "call_a", SLOTS, "mcp"),
    ),
    "guide's tools, ID in a header": (
        "POST", "/api/mcp/retell/tools", b'{"tool":"get_available_slots"}', [X_CALL],
        ("tools", "call_a", SLOTS, "mcp"),
    ),
    "guide's tools, JSON-RPC": (
        "POST", "/api/mcp/retell/tools", RPC, [X_CALL], ("mcp", "call_a", SLOTS, "mcp"),
    ),
    "mcp, ID in a header": ("POST", "/mcp", RPC, [X_CALL], ("mcp", "call_a", SLOTS, "mcp")),
    "mcp, ID in the query": (
        "POST", "/mcp?call_id=call_a", RPC, [], ("mcp", "call_a", SLOTS, "mcp")
    ),
    "mcp, ID in the path": ("POST", "/mcp/call_a", RPC, [], ("mcp", "call_a", SLOTS, "mcp")),
    "mcp, legacy": ("POST", "/mcp/call_a", RPC, [LEGACY], ("mcp", "call_a", SLOTS, "mcp")),
    "mcp without an ID": ("POST", "/mcp", RPC, [], ("mcp", None, SLOTS, "webhook")),
    "mcp, no tool": (
        "POST", "/mcp/call_a", b'{"jsonrpc":"2.0","id":1,"method":"ping"}', [],
        ("mcp", "call_a", None, "mcp"),
    ),
    "function on its path": (
        "POST", f"/retell/fn/{SLOTS}", function(SLOTS), [], ("function", "call_a", SLOTS, "mcp"),
    ),
    "args": (
        "POST", f"/retell/fn/{SLOTS}", b'{"d":1}', [X_CALL], ("args", "call_a", SLOTS, "mcp")
    ),
    "args by PATCH": (
        "PATCH", f"/retell/fn/{SLOTS}", b'{"d":1}', [X_CALL], ("args", "call_a", SLOTS, "mcp")
    ),
    "args, empty": ("POST", f"/retell/fn/{SLOTS}", b"", [X_CALL], ("args", "call_a", SLOTS, "mcp")),
    "args by GET": (
        "GET", f"/retell/fn/{SLOTS}?call_id=call_a&d=1", None, [], ("args", "call_a", SLOTS, "mcp"),
    ),
    "args by DELETE": (
        "DELETE", f"/retell/fn/{SLOTS}?d=1", None, [X_CALL], ("args", "call_a", SLOTS, "mcp"),
    ),
    "args that name things": (
        "POST", f"/retell/fn/{SLOTS}", b'{"name":"x","args":"y"}', [X_CALL],
        ("args", "call_a", SLOTS, "mcp"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "target", "body", "fields", "wanted"), SHAPES.values(), ids=SHAPES
)
async def test_a_request_is_what_it_looks_like(
    world: World,
    method: str,
    target: str,
    body: bytes | None,
    fields: list[bytes],
    wanted: tuple[Any, Any, Any, str],
) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.ask(request(method, target, body, *fields))

    (line,) = await sidecar.lines(1)
    assert (line["kind"], line["call_id"], line["tool"], line["arm"]) == wanted
    assert answer.arm == wanted[3]
    assert answer.status == 200
    said = world.mcp.seen if wanted[3] == "mcp" else world.webhook.seen
    assert said[-1].value(b"x-callsplit-call-id") == (wanted[1].encode() if wanted[1] else None)
    assert len(world.webhook.seen) == (wanted[3] == "webhook")


UNUSUAL = b'{"n": 1.50,"t":"\xc3\xbc"}'
ARGUMENTS = {
    "args": ("POST", f"/retell/fn/{BOOK}", UNUSUAL, UNUSUAL),
    "GET": (
        "GET", f"/retell/fn/{BOOK}?call_id=call_a&d=2026&t=a%20b", None, b'{"d":"2026","t":"a b"}',
    ),
    "function": ("POST", "/retell", function(BOOK, args={"d": 1}), b'{"d": 1}'),
    "tools": ("POST", "/retell", b'{"tool":"book_appointment","arguments":{"d" :1}}', b'{"d" :1}'),
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "target", "body", "wanted"), ARGUMENTS.values(), ids=ARGUMENTS
)  # fmt: skip
async def test_a_tools_arguments_reach_mcp_as_they_were_written(
    world: World, method: str, target: str, body: bytes | None, wanted: bytes
) -> None:
    sidecar = await world.sidecar()

    await sidecar.ask(request(method, target, body, X_CALL))

    (seen,) = world.mcp.tools
    assert b'"name":"book_appointment","arguments":%b' % wanted in seen.body
    assert seen.value(b"mcp-name") == BOOK.encode()


# -- Which call.


SOURCES: dict[str, tuple[str, bytes, list[bytes], bytes | None]] = {
    "the signed body beats a header": ("/retell", function(SLOTS, "body"), [X_CALL], b"body"),
    "the body beats the query": ("/retell?call_id=q", function(SLOTS, "body"), [], b"body"),
    "arguments are the model's words": (
        "/retell", b'{"name":"t","args":{"call_id":"made_up"},"call":{}}', [], None,
    ),
    "a header beats the query": ("/mcp?call_id=q", RPC, [b"X-Call-ID: h"], b"h"),
    "the first header beats the second": (
        "/mcp", RPC, [b"X-Retell-Call-Id: two", b"X-Call-Id: one"], b"one",
    ),
    "the second header serves": ("/mcp", RPC, [b"X-Retell-Call-Id: two"], b"two"),
    "the query beats the path": ("/mcp/path?call_id=q", RPC, [], b"q"),
    "the path serves": ("/mcp/path", RPC, [], b"path"),
    "the path, decoded once": ("/mcp/p%2525", RPC, [], b"p%25"),
    "a header that stands twice says nothing": (
        "/mcp/path", RPC, [b"X-Call-ID: a", b"X-Call-ID: b"], b"path",
    ),
    "a placeholder header gives way": ("/mcp/path", RPC, [b"X-Call-ID: {{call_id}}"], b"path"),
    "the body's placeholder gives way": (
        "/retell", function(SLOTS, "{{call_id}}"), [X_CALL], b"call_a",
    ),
    "bytes are kept": ("/mcp", RPC, [b"X-Call-ID: Call_\xc3\xbc-A"], b"Call_\xc3\xbc-A"),
    "case is kept": ("/retell", function(SLOTS, "CaLL_A"), [], b"CaLL_A"),
    "spaces inside are kept": ("/retell", function(SLOTS, " call a "), [], b" call a "),
}  # fmt: skip


@pytest.mark.parametrize(("target", "body", "fields", "wanted"), SOURCES.values(), ids=SOURCES)
async def test_the_call_id_comes_from_the_first_place_that_has_one(
    world: World, target: str, body: bytes, fields: list[bytes], wanted: bytes | None
) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.post(target, body, *fields)

    seen = (world.mcp.tools or world.webhook.seen)[-1]
    assert answer.status == 200
    lines = seen.head.split(b"\r\n")
    told = [line.partition(b": ")[2] for line in lines if line.startswith(b"x-callsplit-call-id:")]
    assert told == ([wanted] if wanted is not None else [])


PLACEHOLDERS = [
    "{{call_id}}", "%7B%7Bcall_id%7D%7D", "", "null", "None", "undefined", "unknown", "current",
    "call_1", "12345", "dummy_call_id",
]  # fmt: skip


@pytest.mark.parametrize("said", PLACEHOLDERS)
async def test_a_placeholder_is_no_call_and_goes_to_the_old_arm(world: World, said: str) -> None:
    """Or all unfilled templates of the world would be one call, on one arm."""
    sidecar = await world.sidecar()

    asked = [
        await sidecar.post("/mcp", RPC, f"X-Call-ID: {said}".encode()),
        await sidecar.post(f"/mcp?call_id={said}", RPC),
        await sidecar.post("/retell", function(SLOTS, said)),
        await sidecar.post("/retell/fn/t", b"{}", f"X-Call-ID: {said}".encode()),
        await sidecar.post(
            "/retell", json.dumps({"tool": "t", "arguments": {}, "call_id": said}).encode()
        ),
    ]
    if said:
        asked.append(await sidecar.post(f"/mcp/{said}", RPC))

    assert {(answer.status, answer.arm, answer.reason) for answer in asked} == {
        (200, "webhook", "no_call_id")
    }
    assert not world.mcp.seen


@pytest.mark.parametrize(
    "call_id", [None, 7, 1.5, {}, [], True, "x" * 600, "x" * 1_000_000, "a\x00b", "a\nb"]
)
async def test_an_odd_call_id_is_none_and_never_an_error(world: World, call_id: object) -> None:
    """S3."""
    body = json.dumps({"name": "t", "call": {"call_id": call_id}, "args": {}}).encode()
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", body)

    assert (answer.status, answer.arm) == (200, "webhook")
    assert world.webhook.seen[0].body == body


# -- What is none of ours.


UNKNOWN = {
    "an object": b'{"hello": 1}',
    "a list": b"[1, 2]",
    "a number": b"7",
    "no JSON": b"{not json",
    "bytes": b"\xff\xfe\x00",
    "empty": b"",
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a byte order mark": b"\xef\xbb\xbf" + event(),
    "a JSON-RPC answer": b'{"jsonrpc":"2.0","id":1,"result":{}}',
    "an event about nothing": b'{"event":"call_ended"}',
    "a name without arguments": b'{"name":"t","call":{"call_id":"call_a"}}',
}


@pytest.mark.parametrize("body", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("target", ["/retell?x=1", "/api/retell/webhook-simple?x=1"])
async def test_an_unknown_shape_goes_unchanged_to_the_old_arm(
    world: World, target: str, body: bytes
) -> None:
    world.webhook.play = answers(b"whatever", b"Content-Type: a/b", status=b"418 Teapot")
    sidecar = await world.sidecar()

    answer = await sidecar.post(target, body, b"X-Mine: 1")

    (seen,) = world.webhook.seen
    assert (seen.body, seen.target, seen.method) == (body, b"/hook?x=1", b"POST")
    assert seen.value(b"x-mine") == b"1"
    assert (answer.status, answer.body, answer.reason) == (418, b"whatever", "kind")
    assert not world.mcp.seen


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "OPTIONS"])
async def test_another_method_on_retells_path_is_the_old_arms_business(
    world: World, method: str
) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.ask(request(method, "/retell?a=b", None))

    assert answer.status == 200
    assert world.webhook.seen[0].head.startswith(f"{method} /hook?a=b HTTP/1.1\r\n".encode())


MALFORMED = {
    "cut": b'{"jsonrpc":"2.0","id":1,"method":"tools/call"',
    "no JSON": b"secret-looking words",
    "not UTF-8": b'{"tool":"\xff\xfe"}',
    "empty": b"",
}
STRICT = ["/mcp", "/mcp/call_a", "/api/mcp/retell/tools"]


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("target", STRICT)
async def test_malformed_json_is_refused_where_only_json_makes_sense(
    world: World, target: str, body: bytes
) -> None:
    """With a code and the request's ID, and without a word of what was sent."""
    sidecar = await world.sidecar()

    answer = await sidecar.post(target, body)

    assert (answer.status, answer.code) == (400, "malformed_json")
    assert answer.about["request_id"].encode() == answer.value(b"x-request-id")
    if target.startswith("/mcp"):
        assert answer.json["error"]["code"] == -32700
    assert b"secret" not in answer.body
    assert not world.mcp.seen
    assert not world.webhook.seen
    (line,) = await sidecar.lines(1)
    assert (line["outcome"], line["code"], line["status"]) == ("refused", "malformed_json", 400)


REFUSED: dict[str, tuple[str, str, bytes | None, int, str]] = {
    "an empty batch": ("POST", "/mcp", b"[]", 400, "rpc_batch"),
    "no JSON-RPC": (
        "POST", "/mcp", b'{"jsonrpc":"1.0","id":1,"method":"x"}', 400, "rpc_bad_request",
    ),
    "an id that is no id": (
        "POST", "/mcp", b'{"jsonrpc":"2.0","id":{},"method":"x"}', 400, "rpc_bad_id",
    ),
    "another tool than the path's": (
        "POST", "/retell/fn/a", function("b"), 400, "tool_mismatch",
    ),
    "another tool than the path's, of no call": (
        "POST", "/retell/fn/a", b'{"name":"b","args":{},"call":null}', 400, "tool_mismatch",
    ),
    "an event on a tool's path": ("POST", "/retell/fn/a", event(), 400, "kind_mismatch"),
    "PUT on mcp": ("PUT", "/mcp", b"{}", 405, "method_not_allowed"),
    "GET on tools": ("GET", "/api/mcp/retell/tools", None, 405, "method_not_allowed"),
    "POST on health": ("POST", "/api/mcp/retell/health", b"", 405, "method_not_allowed"),
    "a socket, until it is built": ("GET", "/llm/call_a", None, 501, "not_implemented"),
    "elsewhere": ("GET", "/", None, 404, "not_found"),
    "a trailing slash": ("POST", "/retell/", b"{}", 404, "not_found"),
    "another case": ("POST", "/Retell", b"{}", 404, "not_found"),
    "a doubled slash": ("POST", "//retell", b"{}", 404, "not_found"),
    "the admin's pages": ("GET", "/status", None, 404, "not_found"),
    "the metrics": ("GET", "/metrics", None, 404, "not_found"),
    "CONNECT": ("CONNECT", "/retell", None, 405, "method_not_allowed"),
    "TRACE": ("TRACE", "/retell", None, 405, "method_not_allowed"),
    "an unknown method": ("BREW", "/retell", None, 400, "bad_request"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"), REFUSED.values(), ids=REFUSED
)  # fmt: skip
async def test_what_no_arm_may_be_asked_is_refused_here(
    world: World, method: str, target: str, body: bytes | None, status: int, code: str
) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.ask(request(method, target, body))

    assert (answer.status, answer.code) == (status, code)
    assert answer.about["request_id"]
    assert not world.mcp.seen
    assert not world.webhook.seen


async def test_the_guides_health_page_is_ours_and_public(world: World) -> None:
    sidecar = await world.sidecar(
        {"T": "token"}, auth={"tokens": ["env:T"], "require": {"tools": ["token"]}}
    )

    page = await sidecar.get("/api/mcp/retell/health")
    await world.mcp.refuse()
    await world.webhook.refuse()
    for arm in ("mcp", "webhook"):
        await sidecar.admin(f"/breakers/{arm}/open", method="POST")
    down = await sidecar.get("/api/mcp/retell/health")

    assert (page.status, page.json["status"]) == (200, "healthy")
    assert set(page.json) == {"service", "status", "timestamp", "checks", "response_time_ms"}
    assert (down.status, down.json["status"]) == (503, "unhealthy")
    assert not world.webhook.seen


# -- Where it goes.


async def test_each_kind_has_its_own_path_where_the_rules_say_so(world: World) -> None:
    paths = {
        "event": "/e", "inbound": "/i", "alert": "/a?own=1",
        "function": "/f/{tool}", "args": "/x/{tool}",
    }  # fmt: skip
    backend = {"url": f"{world.webhook.url}/hook?k=v", "paths": paths}
    sidecar = await world.sidecar(split={"percent": 0}, backends={"webhook": backend})

    await sidecar.post("/retell?q=1", event())
    await sidecar.post("/retell", INBOUND)
    await sidecar.post("/retell", b'{"event":"alert_resolved","alert":{}}')
    await sidecar.post("/retell", function("a b/c"))
    await sidecar.post(f"/retell/fn/{SLOTS}?call_id=c", b"{}")
    await sidecar.post("/retell", b"unknown")

    assert [seen.target.decode() for seen in world.webhook.seen] == [
        "/e?k=v&q=1",
        "/i?k=v",
        "/a?own=1&k=v",
        "/f/a%20b%2Fc?k=v",
        f"/x/{SLOTS}?k=v&call_id=c",
        "/hook?k=v",
    ]


async def test_a_url_without_a_path_keeps_the_callers(world: World) -> None:
    sidecar = await world.sidecar(
        split={"percent": 0}, backends={"webhook": {"url": world.webhook.url}}
    )

    await sidecar.post("/api/retell/webhook-simple?a=%2F&a=b", event())
    await sidecar.ask(request("GET", f"/retell/fn/{SLOTS}?x=%20y", None))

    assert [seen.target for seen in world.webhook.seen] == [
        b"/api/retell/webhook-simple?a=%2F&a=b",
        f"/retell/fn/{SLOTS}?x=%20y".encode(),
    ]


async def test_a_tool_has_another_name_on_each_arm(world: World) -> None:
    names = {"mcp": "checkAvailableSlots", "webhook": "slots_v2"}
    sidecar = await world.sidecar(tools={SLOTS: {"names": names}})

    await sidecar.call(SLOTS)
    await world.mcp.refuse()
    await sidecar.call(SLOTS, "second")

    assert world.mcp.tools[0].json["params"]["name"] == "checkAvailableSlots"
    assert world.webhook.seen[0].json["name"] == "slots_v2"
    assert world.webhook.seen[0].json["call"] == {"call_id": "second"}


async def test_an_arms_own_credential_replaces_the_callers(world: World) -> None:
    mine = b"Authorization: Bearer from-the-caller"
    backends = {"mcp": {"bearer": "env:M"}, "webhook": {"bearer": "env:W"}}
    sidecar = await world.sidecar({"M": "for-mcp", "W": "for-webhook"}, backends=backends)

    await sidecar.post("/retell", function(SLOTS), mine)
    await sidecar.post("/mcp/call_a", RPC, mine)
    await sidecar.post("/retell", event(), mine)

    assert {seen.value(b"authorization") for seen in world.mcp.seen} == {b"Bearer for-mcp"}
    assert world.webhook.seen[0].values(b"authorization") == [b"Bearer for-webhook"]


# -- Paths that are not ours.


DISGUISES = [
    "/retell/", "/RETELL", "//retell", "/./retell", "/x/../retell", "/%72etell", "/%2572etell",
    "/retell;x=1", "/retell%2f", "/retell%00", "/x%2f..%2fretell", "/mcp/", "/MCP/call_a",
    "/hook", "/Hook", "/hook/", "/%68ook", "//hook", "/hook;a", "/a/../hook", "/hook%3fx",
    "/fn/anything", "/FN/x/", "/fn%2fy", "/api//mcp/retell/tools", "/llm/x/", "\\hook",
]  # fmt: skip


@pytest.mark.parametrize("target", DISGUISES)
async def test_no_disguise_reaches_a_backend_around_the_guards(world: World, target: str) -> None:
    backend = {"paths": {"args": "/fn/{tool}"}}
    sidecar = await world.sidecar(passthrough="webhook", backends={"webhook": backend})

    answer = await sidecar.ask(request("POST", target, event()))

    assert answer.status in (400, 404)
    assert not world.webhook.seen


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found", b"404 Not Found", b"500 Oops"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_paths_are_passed_through_as_they_are(
    world: World, method: str, status: bytes
) -> None:
    """Every status relayed, nothing rescued, nothing counted against the arm."""
    world.webhook.play = answers(b"page", b"Location: /b", b"X-Powered-By: PHP", status=status)
    sidecar = await world.sidecar(passthrough="webhook")
    target = "/app/page%20one//x?a=1&a=%2F"

    answer = await sidecar.ask(request(method, target, b"form=1", b"X-Mine: 1"))

    (seen,) = world.webhook.seen
    assert seen.head.startswith(f"{method} {target} HTTP/1.1\r\n".encode())
    assert (seen.body, seen.value(b"x-mine")) == (b"form=1", b"1")
    assert answer.head.startswith(b"HTTP/1.1 " + status)
    assert (answer.body, answer.reason, answer.value(b"location")) == (
        b"page",
        "passthrough",
        b"/b",
    )
    assert (await sidecar.breaker("webhook"))["failures"] == 0
    (line,) = await sidecar.lines(1)
    assert (line["kind"], line["arm"], line["outcome"]) == ("passthrough", "webhook", "ok")


async def test_a_dead_application_behind_passthrough_is_502(world: World) -> None:
    await world.webhook.refuse()
    sidecar = await world.sidecar(passthrough="webhook")

    answer = await sidecar.get("/page")

    assert (answer.status, answer.code) == (502, "upstream_failed")
    assert not world.mcp.seen
    assert (await sidecar.breaker("webhook"))["failures"] == 0
