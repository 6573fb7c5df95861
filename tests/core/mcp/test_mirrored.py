from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
)

from proxy.core.addresses import NOWHERE
from proxy.core.call_id import CallIds
from proxy.core.dialects.jsonrpc import header_text
from proxy.core.head import read_head
from proxy.core.mcp.mirrored import MAX_REQUESTED
from proxy.core.model import Call, Era, Headers
from proxy.core.recognise import recognise
from proxy.core.routes import match
from proxy.errors import Refused

MODERN = "2026-07-28"
VERSION, CAPABILITIES = (
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
)
META: dict[str, Any] = {VERSION: MODERN, CAPABILITIES: {}}
ROUTE = match("/mcp")
assert ROUTE is not None


def message(method: str = "tools/call", *, meta: object = META, **params: Any) -> dict[str, Any]:
    whole = {**params, "_meta": meta}
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": whole}


def head(
    method: str | None = "tools/call", name: str | None = "book", version: str | None = MODERN
) -> list[tuple[str, str]]:
    named = [("MCP-Protocol-Version", version), ("Mcp-Method", method), ("Mcp-Name", name)]
    return [(each, value) for each, value in named if value is not None]


def ask(body: dict[str, Any] | bytes, fields: list[tuple[str, str]]) -> Call:
    wire: Headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    asked = read_head("POST", "/mcp", wire, peer="", secure=False, trusted=NOWHERE)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert ROUTE is not None
    return recognise(ROUTE, asked, raw, CallIds())


def told(body: dict[str, Any] | bytes, fields: list[tuple[str, str]]) -> tuple[int, int]:
    with pytest.raises(Refused) as caught:
        ask(body, fields)
    assert caught.value.rpc_id == b"7"
    return caught.value.status, caught.value.rpc_code


BOOK = message(name="book", arguments={})

# -- What passes.


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (BOOK, head()),
        (BOOK, [(name.upper(), value) for name, value in head()]),
        (BOOK, [(name.lower(), f" {value}\t") for name, value in head()][:1] + head()[1:]),
        (BOOK, [*head()[:1], ("Mcp-Method", " tools/call"), ("Mcp-Name", "book  ")]),
        (BOOK, [*head(), ("Mcp-Param-Region", "eu"), ("Mcp-Param-Region", "us")]),
        (BOOK, head(name="=?base64?Ym9vaw==?=")),
        (message(name="büchen"), head(name="=?base64?YsO8Y2hlbg==?=")),
        (message(name="büchen"), head(name="büchen")),
        (message(name="日本"), head(name=header_text("日本").decode())),
        (message(name="=?base64?x?="), head(name=header_text("=?base64?x?=").decode())),
        (message("prompts/get", name="p"), head("prompts/get", "p")),
        (message("resources/read", uri="a://b"), head("resources/read", "a://b")),
        (message("tools/list"), head("tools/list", None)),
        (message("tools/list"), head("tools/list", "whatever")),
        (message(meta={**META, "x": 1, "progressToken": 3}, name="book"), head()),
        (
            b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"_meta":{"'
            + VERSION.encode()
            + b'":"2026\\u002d07-28","'
            + CAPABILITIES.encode()
            + b'":{}}}}',
            head("ping", None),
        ),
    ],
)
def test_a_request_that_says_the_same_twice_passes(
    body: dict[str, Any] | bytes, fields: list[tuple[str, str]]
) -> None:
    call = ask(body, [(name, value.strip()) if name.lower().endswith("version") else (name, value)
                      for name, value in fields])  # fmt: skip

    assert (call.era, call.rpc_id) == (Era.MODERN, b"7")


def test_a_notification_says_of_itself_only_its_version() -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/x"}

    assert ask(note, head(None, None)).rpc_id is None
    assert ask(note, head("another", "x")).rpc_id is None
    with pytest.raises(Refused) as caught:
        ask(note, head(version="2027-01-01"))
    assert (caught.value.rpc_code, caught.value.rpc_id) == (-32022, b"")


def test_legacy_callers_may_say_in_the_head_what_they_like() -> None:
    fields = [("Mcp-Method", "x"), ("Mcp-Method", "y"), ("Mcp-Name", "z")]

    assert ask(BOOK, fields).tool == "book"
    assert ask(BOOK, [("MCP-Protocol-Version", "2025-11-25"), *fields]).tool == "book"


# -- What does not.


@pytest.mark.parametrize(
    ("body", "fields", "code"),
    [
        (BOOK, head(None), -32020),
        (BOOK, head(""), -32020),
        (BOOK, head("TOOLS/CALL"), -32020),
        (BOOK, head("tools/list"), -32020),
        (BOOK, head("=?base64?dG9vbHMvY2FsbA==?="), -32020),
        (BOOK, head(name=None), -32020),
        (BOOK, head(name=""), -32020),
        (BOOK, head(name="Book"), -32020),
        (BOOK, head(name="cancel"), -32020),
        (BOOK, head(name="=?base64?Ym9vaw?="), -32020),
        (BOOK, head(name="=?base64?Ym9va!!==?="), -32020),
        (BOOK, head(name="=?base64?Ym9vax==?="), -32020),
        (BOOK, head(name="=?BASE64?Ym9vaw==?="), -32020),
        (BOOK, head(name="=?base64?/w==?="), -32020),
        (message(name="=?base64?x?="), head(name="=?base64?x?="), -32020),
        (BOOK, [*head(), ("mcp-name", "book")], -32020),
        (BOOK, [*head(), ("MCP-METHOD", "tools/call")], -32020),
        (BOOK, [*head(), ("MCP-Protocol-Version", MODERN)], -32020),
        (message("resources/read", uri="a://b"), head("resources/read", "a://c"), -32020),
        (message("prompts/get", name="p"), head("prompts/get", "q"), -32020),
        (message(meta={**META, VERSION: "2025-11-25"}, name="book"), head(), -32020),
        (message(meta={**META, VERSION: "v999.0.0"}, name="book"), head(), -32020),
        (message(meta={**META, VERSION: None}, name="book"), head(), -32020),
        (message(meta={**META, VERSION: 20260728}, name="book"), head(), -32020),
        (json.dumps(BOOK).replace(f'"{MODERN}"', "1e999").encode(), head(), -32020),
        (message(meta={VERSION: MODERN}, name="book"), head(), -32602),
        (message(meta={CAPABILITIES: {}}, name="book"), head(), -32602),
        (message(meta={**META, CAPABILITIES: None}, name="book"), head(), -32602),
        (message(meta={**META, CAPABILITIES: []}, name="book"), head(), -32602),
        (message(meta={}, name="book"), head(), -32602),
        (message(meta=None, name="book"), head(), -32602),
        (message(meta=[META], name="book"), head(), -32602),
        ({"jsonrpc": "2.0", "id": 7, "method": "tools/list"}, head("tools/list"), -32602),
        (message("tools/list") | {"params": None}, head("tools/list"), -32602),
        (message("tools/list") | {"params": [1]}, head("tools/list"), -32602),
        (message(name=5), head(name="5"), -32602),
        (message(), head(), -32602),
        (message("resources/read", name="x"), head("resources/read", "x"), -32602),
        (BOOK, head(version="2027-01-01"), -32022),
        (BOOK, head(version=""), -32022),
        (BOOK, head(version="2026-07-28, 2026-07-28"), -32022),
        ({"jsonrpc": "2.0", "id": 7, "method": "x"}, head("y", version="1999-01-01"), -32022),
    ],
)
def test_a_request_that_does_not_is_told_how(
    body: dict[str, Any] | bytes, fields: list[tuple[str, str]], code: int
) -> None:
    assert told(body, fields) == (400, code)


def test_an_unknown_version_is_told_which_are_known() -> None:
    with pytest.raises(Refused) as caught:
        ask(BOOK, head(version="v999.0.0"))

    assert json.loads(caught.value.data) == {"supported": [MODERN], "requested": "v999.0.0"}


def test_of_a_version_no_more_is_repeated_than_a_version_needs() -> None:
    with pytest.raises(Refused) as caught:
        ask(BOOK, head(version="ü" * 4000))

    assert json.loads(caught.value.data)["requested"] == "ü" * MAX_REQUESTED


# -- As the Python SDK's server has it.

NAMES = st.sampled_from(["book", "Book", "büchen", "日本", "", "=?base64?x?=", " book "])
WRAPPED = NAMES.map(lambda name: f"=?base64?{b64encode(name.encode()).decode()}?=")
PLAIN = NAMES.filter(lambda name: all(ord(character) < 256 for character in name))
METHODS = st.sampled_from(["tools/call", "prompts/get", "resources/read", "tools/list", "ping"])
METAS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        VERSION: st.sampled_from([MODERN, MODERN, "2025-11-25", None, 5]),
        CAPABILITIES: st.just({}),
        "x": st.none(),
    },
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    method, name = draw(METHODS), draw(NAMES)
    key = "uri" if method == "resources/read" else "name"
    meta = draw(METAS | st.just(META) | st.just(META))
    said = draw(st.just(header_text(name).decode()) | WRAPPED | PLAIN | st.none())
    asked = draw(st.just(method) | METHODS | st.none())
    fields = head(asked, said)
    if draw(st.integers(0, 9)) == 0:
        fields.append(draw(st.sampled_from(fields)))
    return message(method, meta=meta, **{key: name}), draw(st.permutations(fields))


def outcome(body: dict[str, Any], fields: list[tuple[str, str]]) -> tuple[int, int] | None:
    try:
        ask(body, fields)
    except Refused as refused:
        return refused.status, refused.rpc_code
    return None


@given(requests())
@example((message(name=" book "), head(name=" book ")))
def test_our_answer_is_that_of_the_python_sdk(
    asked: tuple[dict[str, Any], list[tuple[str, str]]],
) -> None:
    """Wherever the version in the head is one that there is."""
    body, fields = asked
    stripped = [(name, value.strip(" \t")) for name, value in fields]  # as any HTTP server does
    named = {name.lower(): value for name, value in stripped}
    expected: tuple[int, int] | None = None
    verdict = classify_inbound_request(body, headers=named)
    if find_duplicated_routing_header(stripped) is not None:
        expected = (400, -32020)
    elif isinstance(verdict, InboundLadderRejection):
        expected = (ERROR_CODE_HTTP_STATUS[verdict.code], verdict.code)

    assert outcome(body, stripped) == expected
