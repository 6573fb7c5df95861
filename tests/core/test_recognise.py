from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.addresses import NOWHERE
from proxy.core.head import read_head
from proxy.core.mcp.asked import MAX_RPC_ID
from proxy.core.model import Call, Era, Form, Head, Kind
from proxy.core.recognise import CallIds, recognise
from proxy.core.routes import Route, match
from proxy.core.tool_call import MAX_TOOL
from proxy.errors import Refused

CALL = "call_0f1e2d3c4b5a69788796a5b4c3d"
START = 1767225600000
IDS = CallIds()
SUBJECT = {"call_id": CALL, "agent_id": "agent_demo01", "start_timestamp": START}
FUNCTION: dict[str, Any] = {"name": "book", "call": SUBJECT, "args": {"date": "2026-01-02"}}
EVENT: dict[str, Any] = {"event": "call_ended", "call": SUBJECT, "event_timestamp": START + 5}
TOOLS: dict[str, Any] = {"tool": "book", "arguments": {"date": "2026-01-02"}, "call_id": CALL}
RPC: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "tools/call",
    "params": {"name": "book", "arguments": {"date": "2026-01-02"}},
}
INBOUND: dict[str, Any] = {
    "event": "call_inbound",
    "event_timestamp": START,
    "call_inbound": {"from_number": "+14155550100", "to_number": "+14155550199"},
}
ALERT: dict[str, Any] = {"event": "alert_triggered", "alert": {"alert_incident_id": "x"}}
SHAPES = [FUNCTION, EVENT, TOOLS, RPC, INBOUND, ALERT]
PATHS = [
    "/retell",
    "/api/retell/webhook-simple",
    "/mcp",
    "/mcp/call_seg",
    "/api/mcp/retell/tools",
    "/retell/fn/book",
    "/llm/call_seg",
]
REFUSALS = {
    "malformed_json", "tool_mismatch", "kind_mismatch", "bad_tool", "rpc_bad_id", "rpc_bad_request",
    "method_not_allowed",
}  # fmt: skip


def ask(
    path: str,
    body: bytes | dict[str, Any] | list[Any],
    *fields: tuple[bytes, bytes],
    method: str = "POST",
    query: str = "",
) -> Call:
    target = f"{path}?{query}" if query else path
    head = read_head(method, target, fields, peer="192.0.2.1", secure=False, trusted=NOWHERE)
    route = match(path)
    assert route is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    call = recognise(route, head, raw, IDS)
    assert call.body is raw
    assert call.head is head
    return call


def refused(
    path: str, body: Any, *fields: tuple[bytes, bytes], method: str = "POST", status: int = 400
) -> str:
    with pytest.raises(Refused) as caught:
        ask(path, body, *fields, method=method)
    assert caught.value.status == status
    return caught.value.code


RETELL = pytest.mark.parametrize("path", ["/retell", "/api/retell/webhook-simple"])


@RETELL
def test_a_function_names_its_call_its_tool_and_its_start(path: str) -> None:
    call = ask(path, FUNCTION)

    assert (call.kind, call.id, call.tool, call.start_ms) == (Kind.FUNCTION, CALL, "book", START)
    assert call.arguments == b'{"date": "2026-01-02"}'
    assert (call.event, call.rpc_id, call.signed) == (None, None, False)


def test_a_chat_calls_functions_too() -> None:
    call = ask("/retell", {"name": "book", "chat": {"chat_id": "chat_0001"}, "args": {}})

    assert (call.kind, call.id, call.start_ms) == (Kind.FUNCTION, "chat_0001", None)


@RETELL
@pytest.mark.parametrize(
    "event",
    ["call_started", "call_analyzed", "transfer_started", "transcript_updated", "anything_new"],
)
def test_an_event_is_of_a_call(path: str, event: str) -> None:
    call = ask(path, EVENT | {"event": event})

    assert (call.kind, call.id, call.start_ms) == (Kind.EVENT, CALL, START)
    assert (call.event, call.tool, call.arguments) == (event, None, None)


def test_an_event_is_of_a_chat() -> None:
    call = ask("/retell", {"event": "chat_ended", "chat": {"chat_id": "chat_1", "x": 1}})

    assert (call.kind, call.id, call.event) == (Kind.EVENT, "chat_1", "chat_ended")


@pytest.mark.parametrize("event", ["alert_triggered", "alert_resolved"])
def test_an_alert_is_of_no_call(event: str) -> None:
    call = ask("/retell", ALERT | {"event": event}, (b"X-Call-ID", b"call_1f"))

    assert (call.kind, call.id, call.event) == (Kind.ALERT, None, event)


@pytest.mark.parametrize(
    ("event", "part"),
    [
        ("call_inbound", {"call_id": CALL, "from_number": "+1"}),
        ("chat_inbound", {"chat_id": CALL, "from_number": "+1"}),
    ],
)
def test_an_inbound_call_may_have_its_id_already(event: str, part: dict[str, Any]) -> None:
    call = ask("/retell", {"event": event, "event_timestamp": START, event: part})

    assert (call.kind, call.id, call.event) == (Kind.INBOUND, CALL, event)
    assert call.start_ms == START


def test_all_tries_of_an_inbound_call_without_id_are_one_call() -> None:
    """The digest is frozen: replicas of different releases must agree on it."""
    first, again = ask("/retell", INBOUND), ask("/retell", INBOUND | {"retry": 1})

    assert first.id == again.id == "inbound_e885417dea99bd9f9afb46704f4ce828"


@pytest.mark.parametrize(
    "change",
    [
        {"event_timestamp": START + 1},
        {"event_timestamp": None},
        {"call_inbound": {"from_number": "+14155550100", "to_number": "+1"}},
        {"call_inbound": {"from_number": "+1", "to_number": "+14155550199"}},
        {"call_inbound": {"from_number": "+14155550100"}},
    ],
)
def test_another_inbound_call_is_another_call(change: dict[str, Any]) -> None:
    assert ask("/retell", INBOUND | change).id != ask("/retell", INBOUND).id


def test_nobody_reads_a_number_from_the_stand_in() -> None:
    found = ask("/retell", INBOUND).id

    assert found is not None
    assert "1415555" not in found


@pytest.mark.parametrize("part", [{}, {"from_number": 5}, [], None, "x"])
def test_an_inbound_call_of_which_nothing_is_known_has_no_id(part: Any) -> None:
    call = ask("/retell", INBOUND | {"call_inbound": part})

    assert (call.kind, call.id) == (Kind.INBOUND, None)


@pytest.mark.parametrize("path", ["/retell", "/api/mcp/retell/tools"])
def test_the_guides_wire_is_tools(path: str) -> None:
    call = ask(path, TOOLS)

    assert (call.kind, call.id, call.tool) == (Kind.TOOLS, CALL, "book")
    assert call.arguments == b'{"date": "2026-01-02"}'


def test_on_its_own_path_a_tool_needs_no_arguments() -> None:
    assert ask("/api/mcp/retell/tools", {"tool": "now"}).arguments == b"{}"
    assert ask("/retell", {"tool": "now"}).kind is Kind.OTHER


@pytest.mark.parametrize("path", ["/mcp", "/mcp/call_seg", "/retell", "/api/mcp/retell/tools"])
def test_json_rpc_is_mcp(path: str) -> None:
    call = ask(path, RPC, (b"X-Call-ID", CALL.encode()))

    assert (call.kind, call.id, call.tool) == (Kind.MCP, CALL, "book")
    assert (call.rpc_id, call.rpc_method, call.start_ms) == (b"7", "tools/call", None)
    assert call.arguments == b'{"date": "2026-01-02"}'


def test_other_methods_of_mcp_have_no_tool() -> None:
    call = ask("/mcp", RPC | {"method": "prompts/get"})

    assert (call.kind, call.rpc_method, call.tool) == (Kind.MCP, "prompts/get", None)
    assert call.arguments is None


@pytest.mark.parametrize(
    ("params", "tool", "arguments"),
    [
        ({"name": "book"}, "book", b"{}"),
        ({"name": "book", "arguments": None}, "book", b"{}"),
        ({"name": "book", "arguments": [1]}, "book", b"[1]"),
        ({"name": 5, "arguments": {}}, None, b"{}"),
        ({"name": ""}, None, b"{}"),
        ({}, None, b"{}"),
        (None, None, None),
        ([1], None, None),
    ],
)
def test_the_server_judges_odd_params(
    params: Any, tool: str | None, arguments: bytes | None
) -> None:
    call = ask("/mcp", RPC | {"params": params})

    assert (call.kind, call.tool, call.arguments) == (Kind.MCP, tool, arguments)


@pytest.mark.parametrize(
    ("wire", "kept"),
    [
        (b"7", b"7"),
        (b'"a"', b'"a"'),
        (b'"\\u00e4"', b'"\\u00e4"'),
        (b"-1", b"-1"),
        (b"1.50", b"1.50"),
        (b"12345678901234567890123", b"12345678901234567890123"),
        (b'""', b'""'),
        (b'"' + b"x" * (MAX_RPC_ID - 2) + b'"', b'"' + b"x" * (MAX_RPC_ID - 2) + b'"'),
    ],
)
def test_an_rpc_id_is_kept_as_it_was_written(wire: bytes, kept: bytes) -> None:
    body = b'{"jsonrpc":"2.0","id": ' + wire + b' ,"method":"ping"}'

    assert ask("/mcp", body).rpc_id == kept


def test_a_notification_has_no_rpc_id() -> None:
    call = ask("/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"})

    assert (call.kind, call.rpc_id) == (Kind.MCP, None)


@pytest.mark.parametrize("path", ["/mcp", "/retell"])
@pytest.mark.parametrize("wire", [b"null", b"true", b"[]", b"{}", b'"' + b"x" * MAX_RPC_ID + b'"'])
def test_other_rpc_ids_are_refused(path: str, wire: bytes) -> None:
    body = b'{"jsonrpc":"2.0","id":' + wire + b',"method":"ping"}'

    assert refused(path, body) == "rpc_bad_id"


@pytest.mark.parametrize("path", ["/mcp", "/api/mcp/retell/tools"])
@pytest.mark.parametrize(
    "change",
    [{"jsonrpc": "1.0"}, {"jsonrpc": 2.0}, {"jsonrpc": None}, {"method": 5}, {"method": ""}],
)
def test_what_only_claims_to_be_json_rpc_is_refused(path: str, change: dict[str, Any]) -> None:
    assert refused(path, RPC | change) == "rpc_bad_request"
    assert ask("/retell", RPC | change).kind is Kind.OTHER


@pytest.mark.parametrize("path", ["/mcp", "/api/mcp/retell/tools"])
@pytest.mark.parametrize("body", [[RPC], [], [1], b" \n[ ]"])
def test_a_batch_is_taken_apart_later_where_json_rpc_lives(path: str, body: Any) -> None:
    call = ask(path, body)

    assert (call.kind, call.form, call.era) == (Kind.MCP, Form.BATCH, Era.LEGACY)
    assert ask("/retell", body).kind is Kind.OTHER


BROKEN = [
    b"", b"{", b"[1,", b"nonsense", b"\xef\xbb\xbf{}", b"\x1f\x8b\x08\x00", b"\xff", b"{'a':1}",
    b'{"tool":"\xff","arguments":{}}', b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
    b'{"a":' + b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000,
    b'{"tool":"a","arguments":{"x":"\xff"}}',
    b'{"jsonrpc":"2.0","id":"\xff","method":"ping"}',
    b'{"name":"a","call":{},"args":{"x":"\xff"}}',
]  # fmt: skip


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: repr(body[:20]))
def test_malformed_json_is_unknown_where_anything_may_come(body: bytes) -> None:
    call = ask("/retell", body)

    assert (call.kind, call.id, call.tool, call.arguments) == (Kind.OTHER, None, None, None)


@pytest.mark.parametrize("path", ["/mcp", "/mcp/call_seg", "/api/mcp/retell/tools"])
@pytest.mark.parametrize("body", [*BROKEN[:8], *BROKEN[9:12]], ids=lambda body: repr(body[:20]))
def test_malformed_json_is_refused_where_json_must_be(path: str, body: bytes) -> None:
    assert refused(path, body) == "malformed_json"


@pytest.mark.parametrize(
    "place", ['"id":"\xff"', '"id":1,"params":{"x":"\xff"}', '"id":1,"\xff":1']
)
def test_json_rpc_in_no_utf_8_is_malformed_wherever_that_is(place: str) -> None:
    body = f'{{"jsonrpc":"2.0","method":"ping",{place}}}'.encode("latin-1")

    assert refused("/mcp", body) == "malformed_json"
    assert refused("/api/mcp/retell/tools", body) == "malformed_json"
    assert ask("/retell", body).kind is Kind.OTHER


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/retell", {}),
        ("/retell", {"test": True}),
        ("/retell", {"event": "call_started"}),
        ("/retell", {"event": "call_started", "call_id": CALL}),
        ("/retell", {"event": "call_started", "data": {"call_id": CALL}}),
        ("/retell", {"event": "call_started", "call": [CALL]}),
        ("/retell", {"event": 5, "call": SUBJECT}),
        ("/retell", {"name": "book"}),
        ("/retell", {"name": "", "args": {}}),
        ("/retell", {"name": 5, "args": {}}),
        ("/retell", {"args": {}}),
        ("/retell", {"tool": 5, "arguments": {}}),
        ("/retell", 5),
        ("/retell", "text"),
        ("/api/mcp/retell/tools", FUNCTION),
        ("/api/mcp/retell/tools", EVENT),
        ("/api/mcp/retell/tools", 5),
        ("/api/mcp/retell/tools", {"arguments": {}}),
        ("/retell/fn/book", [1]),
        ("/retell/fn/book", 5),
        ("/retell/fn/book", b"{"),
        ("/retell/fn/book", b'{"x":"\xff"}'),
    ],
)
def test_an_unknown_shape_goes_on_unchanged_without_id(path: str, body: Any) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    call = ask(path, raw, (b"X-Call-ID", CALL.encode()))

    assert (call.kind, call.id, call.tool, call.arguments) == (Kind.OTHER, None, None, None)


@pytest.mark.parametrize("body", [{}, 5, "text", FUNCTION, TOOLS, EVENT, {"id": 7}])
def test_mcps_own_path_takes_nothing_else(body: Any) -> None:
    assert refused("/mcp", body) == refused("/mcp/call_seg", body) == "rpc_bad_request"


@pytest.mark.parametrize(("method", "form"), [("GET", Form.STREAM), ("DELETE", Form.END)])
def test_mcps_own_path_has_streams_and_ends_of_sessions(method: str, form: Form) -> None:
    call = ask("/mcp/call_seg", b"", method=method)

    assert (call.kind, call.form, call.era, call.id) == (Kind.MCP, form, Era.LEGACY, "call_seg")
    assert ask("/retell", b"", method=method).kind is Kind.OTHER


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        (RPC | EVENT | FUNCTION | TOOLS, Kind.MCP),
        (EVENT | FUNCTION | TOOLS, Kind.EVENT),
        (FUNCTION | TOOLS, Kind.FUNCTION),
        (TOOLS | {"name": "book"}, Kind.TOOLS),
        ({"event": "x", "name": "a", "args": {}}, Kind.FUNCTION),
        (INBOUND | FUNCTION, Kind.INBOUND),
        (ALERT | FUNCTION, Kind.ALERT),
    ],
)
def test_kinds_are_recognised_in_a_fixed_order(more: dict[str, Any], kind: Kind) -> None:
    assert ask("/retell", more).kind is kind


def test_a_functions_own_path_takes_the_whole_envelope() -> None:
    call = ask("/retell/fn/book", FUNCTION, (b"X-Call-ID", b"call_other"))

    assert (call.kind, call.id, call.tool, call.start_ms) == (Kind.FUNCTION, CALL, "book", START)
    assert call.arguments == b'{"date": "2026-01-02"}'


def test_the_body_may_not_name_another_tool_than_the_path() -> None:
    """The path may have been limited or authorised; the body would run."""
    assert refused("/retell/fn/get_slots", FUNCTION) == "tool_mismatch"
    assert refused("/retell/fn/BOOK", FUNCTION) == "tool_mismatch"


@pytest.mark.parametrize("more", [{}, {"call": None}, {"call": []}, {"call": "x"}, {"chat": 5}])
@pytest.mark.parametrize("args", [{}, None, {"date": "2026-01-02"}])
def test_a_function_names_its_tool_whatever_its_call_is(more: dict[str, Any], args: Any) -> None:
    """A webhook runs what the body names: a write must not pass as the read that the path names."""
    body = {"name": "book", "args": args} | more

    assert refused("/retell/fn/get_slots", body) == "tool_mismatch"
    call = ask("/retell/fn/book", body, (b"X-Call-ID", CALL.encode()))
    assert (call.kind, call.id, call.tool) == (Kind.FUNCTION, CALL, "book")
    assert call.arguments == (json.dumps(args).encode() if args is not None else b"{}")


@pytest.mark.parametrize(
    "body",
    [
        EVENT,
        EVENT | {"event": "transfer_ended"},
        {"event": "chat_ended", "chat": {"chat_id": "a"}},
        INBOUND,
        {"event": "call_inbound", "call_inbound": {}},
        {"event": "chat_inbound", "chat_inbound": {}},
        RPC,
        EVENT | FUNCTION,
    ],
)
def test_a_tools_own_path_takes_no_other_kind(body: dict[str, Any]) -> None:
    assert refused("/retell/fn/book", body) == "kind_mismatch"


@pytest.mark.parametrize(
    ("body", "may_be"),
    [
        ({"date": "2026-01-02"}, ()),
        ({"event": "wedding"}, ()),
        ({"event": "wedding", "call": SUBJECT}, (Kind.EVENT,)),
        ({"event": "call_ended"}, (Kind.EVENT,)),
        ({"event": "call_inbound"}, (Kind.INBOUND,)),
        ({"event": "alert_me", "alert": {}}, (Kind.ALERT,)),
        ({"name": "Ana"}, ()),
        ({"name": "Ana", "args": "none"}, (Kind.FUNCTION,)),
        ({"name": "Ana", "call": SUBJECT}, (Kind.FUNCTION,)),
        ({"tool": "hammer"}, ()),
        ({"tool": "hammer", "arguments": "none"}, (Kind.TOOLS,)),
        ({"tool": "book", "arguments": {}}, (Kind.TOOLS,)),
        ({"event": "call_ended", "name": "Ana", "args": 1}, (Kind.EVENT, Kind.FUNCTION)),
        ({"jsonrpc": "2.0"}, ()),
        ({"method": "card", "jsonrpc": 2}, ()),
    ],
)
def test_arguments_may_look_like_another_kind(
    body: dict[str, Any], may_be: tuple[Kind, ...]
) -> None:
    call = ask("/retell/fn/book", body)

    assert (call.kind, call.tool, call.may_be) == (Kind.ARGS, "book", may_be)


@pytest.mark.parametrize(
    "body",
    [
        {"date": "2026-01-02"},
        {},
        {"name": "Ana", "args": "none"},  # a tool's own arguments may have any name
        {"name": "Ana", "call": "back"},
        {"name": 5, "call": SUBJECT, "args": {}},
        {"event": "wedding", "call": SUBJECT},
        {"tool": "hammer", "arguments": "none", "call_id": "call_llm"},
        {"call_id": "call_llm"},
    ],
)
def test_bare_arguments_are_all_of_the_body(body: dict[str, Any]) -> None:
    call = ask("/retell/fn/book", body, (b"X-Call-ID", CALL.encode()))

    assert (call.kind, call.id, call.tool, call.start_ms) == (Kind.ARGS, CALL, "book", None)
    assert call.arguments == call.body


def test_a_call_id_among_the_arguments_is_a_models_guess() -> None:
    body = {"call_id": "call_llm", "args": {"call_id": "call_llm"}, "x": {"call_id": "call_llm"}}

    assert ask("/retell/fn/book", body).id is None
    assert ask("/retell", {"name": "book", "args": {"call_id": "call_llm"}}).id is None
    assert ask("/mcp", RPC | {"params": {"name": "b", "arguments": {"call_id": "x"}}}).id is None
    assert ask("/retell", {"tool": "b", "arguments": {"call_id": "call_llm"}}).id is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_an_empty_body_is_a_tool_without_arguments(method: str) -> None:
    call = ask("/retell/fn/book", b"", method=method)

    assert (call.kind, call.tool, call.arguments) == (Kind.ARGS, "book", b"{}")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_without_a_body_the_query_is_the_arguments(method: str) -> None:
    query = f"date=2026-01-02&q=a+b%20c&e=&call_id={CALL}&x=1&x=2&%ff=%ff"
    call = ask("/retell/fn/book", b"", method=method, query=query)

    assert (call.kind, call.id, call.tool) == (Kind.ARGS, CALL, "book")
    assert call.arguments is not None
    assert orjson.loads(call.arguments) == {
        "date": "2026-01-02", "q": "a b c", "e": "", "x": ["1", "2"], "\ufffd": "\ufffd",
    }  # fmt: skip


def test_without_a_query_there_are_no_arguments() -> None:
    assert ask("/retell/fn/book", b"", method="GET").arguments == b"{}"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_a_question_about_a_functions_path_runs_nothing(method: str) -> None:
    assert ask("/retell/fn/book", FUNCTION, method=method).kind is Kind.OTHER


HEADER = (b"X-Call-ID", b"call_header")


@pytest.mark.parametrize(
    ("path", "body", "fields", "query", "found"),
    [
        # A signed body beats a header.
        ("/retell", FUNCTION, [HEADER], "call_id=call_query", CALL),
        ("/retell/fn/book", FUNCTION, [HEADER], "call_id=call_query", CALL),
        ("/retell", FUNCTION | {"call": {}}, [HEADER], "", "call_header"),
        ("/retell", FUNCTION | {"call": {"call_id": "{{call_id}}"}}, [HEADER], "", "call_header"),
        ("/retell", FUNCTION | {"call": None}, [], "call_id=call_query", "call_query"),
        ("/retell", EVENT, [HEADER], "", CALL),
        # Events and ringing calls are Retell's own words: a header adds nothing.
        ("/retell", EVENT | {"call": {}}, [HEADER], "call_id=call_query", None),
        ("/retell", INBOUND | {"call_inbound": {}}, [HEADER], "", None),
        ("/retell/fn/book", {}, [HEADER], "call_id=call_query", "call_header"),
        ("/retell/fn/book", {}, [], "call_id=call_query", "call_query"),
        ("/retell/fn/book", {}, [], "", None),
        ("/api/mcp/retell/tools", TOOLS, [HEADER], "", CALL),
        ("/api/mcp/retell/tools", TOOLS | {"call_id": "call_1"}, [HEADER], "", "call_header"),
        ("/api/mcp/retell/tools", TOOLS | {"call_id": 5}, [], "call_id=call_query", "call_query"),
        ("/mcp/call_seg", RPC, [HEADER], "call_id=call_query", "call_header"),
        ("/mcp/call_seg", RPC, [], "call_id=call_query", "call_query"),
        ("/mcp/call_seg", RPC, [], "", "call_seg"),
        ("/mcp/%7B%7Bcall_id%7D%7D", RPC, [], "", None),
        ("/mcp/%7B%7Bcall_id%7D%7D", RPC, [HEADER], "", "call_header"),
        ("/mcp/call_seg", RPC | {"call": SUBJECT, "call_id": CALL}, [], "", "call_seg"),
        ("/mcp", RPC, [HEADER, (b"x-call-id", b"call_two")], "", None),
        ("/llm/call_seg", {}, [HEADER], "call_id=call_query", "call_seg"),
        ("/llm/null", {}, [], "", None),
    ],
)
def test_where_a_kinds_call_id_comes_from(
    path: str, body: Any, fields: list[tuple[bytes, bytes]], query: str, found: str | None
) -> None:
    assert ask(path, body, *fields, query=query).id == found


@pytest.mark.parametrize(
    "call_id",
    [
        None, 5, 1.5, True, [], {}, "", "null", "x" * 1_000_000, "a\nb", "{{call_id}}",
        {"call_id": CALL},
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", [FUNCTION, EVENT])
def test_s3_an_id_that_is_none_is_missing_and_nothing_else_is_lost(
    body: dict[str, Any], call_id: Any
) -> None:
    call = ask("/retell", body | {"call": SUBJECT | {"call_id": call_id}})

    assert (call.id, call.start_ms) == (None, START)
    assert call.tool == body.get("name")


@pytest.mark.parametrize(
    "start",
    [None, "1767225600000", 1767225600000.0, 1.5e12, True, [], 0, -1, 2**53, 10**400, {}],
)
@pytest.mark.parametrize("body", [FUNCTION, EVENT])
def test_a_start_that_is_no_time_in_milliseconds_is_missing(
    body: dict[str, Any], start: Any
) -> None:
    call = ask("/retell", body | {"call": SUBJECT | {"start_timestamp": start}})

    assert (call.id, call.start_ms) == (CALL, None)


@pytest.mark.parametrize("start", [None, "x", 1.5, -1])
def test_an_inbound_start_that_is_no_time_is_missing(start: Any) -> None:
    call = ask("/retell", INBOUND | {"event_timestamp": start})

    assert (call.kind, call.start_ms) == (Kind.INBOUND, None)


def test_s3_of_equal_keys_the_last_counts() -> None:
    body = b'{"name":"a","name":"book","call":{"call_id":"x"},"call":{"call_id":"y"},"args":{}}'
    call = ask("/retell", body)

    assert (call.tool, call.id) == ("book", "y")


def test_s3_a_cut_emoji_hides_neither_call_nor_arguments() -> None:
    body = (
        b'{"name":"book","call":{"transcript":"ok \\ud83d","call_id":"call_1f"},'
        b'"args":{"note":"\\ud83d\\ude00 \\ude00"}}'
    )
    call = ask("/retell", body)

    assert (call.kind, call.id) == (Kind.FUNCTION, "call_1f")
    assert call.arguments == b'{"note":"\\ud83d\\ude00 \\ufffd"}'
    assert ask("/retell/fn/book", b'{"a":"\\ud83d"}').arguments == b'{"a":"\\ufffd"}'


def test_keys_may_be_escaped_and_in_any_order() -> None:
    body = b'{"\\u0061rgs":{},"call":{"c\\u0061ll_id":"call_1f"},"n\\u0061me":"book"}'
    call = ask("/retell", body)

    assert (call.kind, call.id, call.tool) == (Kind.FUNCTION, "call_1f", "book")


@pytest.mark.parametrize("name", [".", "..", "x" * (MAX_TOOL + 1)])
@pytest.mark.parametrize("path", ["/retell", "/api/mcp/retell/tools", "/mcp"])
def test_a_tools_name_leads_nowhere(path: str, name: str) -> None:
    """It may be filled into an arm's path."""
    bodies = {
        "/retell": FUNCTION | {"name": name},
        "/api/mcp/retell/tools": TOOLS | {"tool": name},
        "/mcp": RPC | {"params": {"name": name}},
    }
    assert refused(path, bodies[path], status=200 if path == "/mcp" else 400) == "bad_tool"


def test_null_arguments_are_none_at_all() -> None:
    assert ask("/retell", FUNCTION | {"args": None}).arguments == b"{}"
    assert ask("/retell", TOOLS | {"arguments": None}).arguments == b"{}"


def test_a_custom_llm_socket_is_of_its_paths_call() -> None:
    call = ask("/llm/call_seg", b"", method="GET")

    assert (call.kind, call.id) == (Kind.LLM, "call_seg")


def _recognised(route: Route, head: Head, body: bytes) -> Call | None:
    try:
        return recognise(route, head, body, IDS)
    except Refused as refused:
        fault = refused
    assert (fault.status in (200, 400, 405), fault.code in REFUSALS) == (True, True)
    return None


def _recognise_or_refuse(path: str, method: str, body: bytes) -> None:
    route = match(path)
    assert route is not None
    target = f"{path}?call_id=call_q&a=%ff"
    head = read_head(method, target, (), peer="", secure=False, trusted=NOWHERE)
    call = _recognised(route, head, body)
    if call is None:
        return
    assert call.body is body
    assert call.kind in route.kinds or call.kind is Kind.OTHER
    if call.id is not None:
        assert 0 < len(call.id.encode()) <= 512
    if call.arguments is not None:
        json.loads(call.arguments.decode())
    if call.rpc_id is not None:
        json.loads(call.rpc_id.decode())
    if call.tool is not None:
        assert 0 < len(call.tool.encode()) <= 4 * MAX_TOOL


METHODS = st.sampled_from(["POST", "PUT", "GET", "DELETE", "HEAD"])


@given(st.sampled_from(PATHS), METHODS, st.binary(max_size=80))
def test_any_bytes_are_recognised_or_refused(path: str, method: str, body: bytes) -> None:
    _recognise_or_refuse(path, method, body)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid body with bytes overwritten, cut out, doubled or put in."""
    body = bytearray(json.dumps(draw(st.sampled_from(SHAPES))).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 12)))
        fill = draw(
            st.binary(max_size=4)
            | st.sampled_from(
                [b'"', b"null", b"{}", b"[", b"\\ud800", b"1e999", b"-", b'"":', b","]
            )
            | st.just(bytes(body[start:end]) * 2)
        )
        body[start:end] = fill
    return bytes(body)


@given(st.sampled_from(PATHS), METHODS, mutated())
@example("/mcp", "POST", b'{"jsonrpc":"2.0","id":-,"method":"x"}')
def test_any_mutation_of_a_true_body_is_recognised_or_refused(
    path: str, method: str, body: bytes
) -> None:
    _recognise_or_refuse(path, method, body)


ODD: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just([]) | st.just({})
)


@given(
    st.sampled_from(PATHS),
    st.sampled_from(SHAPES),
    st.dictionaries(
        st.sampled_from(
            ["event", "call", "chat", "name", "args", "tool", "arguments", "call_id", "jsonrpc",
             "id", "method", "params", "call_inbound", "event_timestamp"]
        ),
        ODD | st.dictionaries(st.sampled_from(["call_id", "start_timestamp", "name"]), ODD),
        max_size=4,
    ),
)  # fmt: skip
def test_any_field_may_have_any_type(path: str, shape: dict[str, Any], odd: dict[str, Any]) -> None:
    _recognise_or_refuse(path, "POST", json.dumps(shape | odd).encode())
