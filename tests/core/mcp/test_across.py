from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types import methods

from proxy.core.dialects import jsonrpc
from proxy.core.dialects.jsonrpc import RpcError
from proxy.core.mcp import across
from proxy.core.mcp.across import Welcome
from proxy.core.mcp.questions import params_of
from proxy.core.model import Era

INFO = {"name": "theirs", "version": "2"}
CAPABLE = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True, "x": 1},
    "prompts": {},
    "logging": {},
    "tasks": {"list": {}},
    "completions": {},
}
LEGACY = {"protocolVersion": "2025-06-18", "serverInfo": INFO, "capabilities": CAPABLE}
MODERN = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": CAPABLE,
    "_meta": {across.SERVER_INFO: INFO},
}


def raw(value: object) -> bytes:
    return json.dumps(value).encode()


def welcome(said: dict[str, Any], **more: Any) -> Welcome:
    return across.read_welcome(raw({**said, **more}))


@pytest.mark.parametrize("said", [LEGACY, MODERN])
def test_both_eras_introductions_say_the_same(said: dict[str, Any]) -> None:
    found = welcome(said, instructions="Ask.")

    assert json.loads(found.server_info) == INFO
    assert found.instructions == "Ask."
    assert set(found.capabilities) == set(CAPABLE)
    assert found.version == said.get("protocolVersion", "").encode()


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"serverInfo": 5, "capabilities": [], "instructions": {}, "protocolVersion": 7},
        {"protocolVersion": "2025\n11", "instructions": None},
    ],
)
def test_what_is_odd_in_an_introduction_is_not_believed(said: dict[str, Any]) -> None:
    assert across.read_welcome(raw(said)) == Welcome()


def test_a_number_that_is_too_large_for_us_is_not_believed_either() -> None:
    assert across.read_welcome(b'{"instructions":1e999}') == Welcome()


@pytest.mark.parametrize("said", [b"[]", b"nonsense", b""])
def test_what_is_no_object_is_no_introduction(said: bytes) -> None:
    with pytest.raises(ValueError, match="object"):
        across.read_welcome(said)


@pytest.mark.parametrize("instructions", ["", "Ask."])
def test_a_legacy_server_is_discovered(instructions: str) -> None:
    said = json.loads(across.discovered(welcome(LEGACY, instructions=instructions)))

    methods.validate_server_result("server/discover", "2026-07-28", said)
    assert said["supportedVersions"] == ["2026-07-28"]
    assert said["_meta"][across.SERVER_INFO] == INFO
    assert said.get("instructions", "") == instructions
    assert said["capabilities"] == {
        "tools": {},
        "resources": {"x": 1},
        "prompts": {},
        "completions": {},
    }, "nothing that needs a stream of news"


@pytest.mark.parametrize(
    ("asked", "version"),
    [
        ({"protocolVersion": "2025-03-26"}, "2025-03-26"),
        ({"protocolVersion": "1999-01-01"}, "2025-11-25"),
        ({}, "2025-11-25"),
    ],
)
def test_a_modern_server_is_introduced_to_a_legacy_caller(
    asked: dict[str, str], version: str
) -> None:
    params = params_of(raw({"params": asked}))

    said = json.loads(across.initialized(welcome(MODERN), params))

    methods.validate_server_result("initialize", version, said)
    assert said["protocolVersion"] == version
    assert said["serverInfo"] == INFO


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("tools/list", {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}),
        ("resources/read", {"contents": [{"uri": "file:///a", "text": "x"}]}),
        ("prompts/get", {"messages": []}),
        ("tools/call", {"content": [{"type": "image", "data": "QQ==", "mimeType": "image/png"}]}),
    ],
)
def test_a_legacy_result_becomes_a_modern_one(method: str, result: dict[str, Any]) -> None:
    said = json.loads(across.for_modern(method, raw(result), raw(INFO)))

    methods.validate_server_result(method, "2026-07-28", said)
    assert said["resultType"] == "complete"
    assert ("ttlMs" in said) == (method in across.MAY_BE_KEPT)
    assert said["_meta"] == {across.SERVER_INFO: INFO}
    assert {k: v for k, v in said.items() if k in result} == result


def test_what_a_server_says_already_stays() -> None:
    own = {"resultType": "input_required", "_meta": {"a": 1, across.SERVER_INFO: {}}, "ttlMs": 5}

    said = json.loads(across.for_modern("tools/list", raw(own), raw(INFO)))

    assert said == {**own, "cacheScope": "private"}


def test_a_modern_result_loses_what_only_moderns_understand() -> None:
    result = {"resultType": "complete", "ttlMs": 5, "cacheScope": "public", "prompts": [1.50]}

    assert across.for_legacy("prompts/list", raw(result)) == b'{"prompts":[1.5]}'
    assert across.for_legacy("prompts/list", b'{"prompts":[]}') == b'{"prompts":[]}'


@pytest.mark.parametrize("kind", ["input_required", "something new"])
def test_a_result_that_asks_for_more_is_none_for_a_legacy_caller(kind: str) -> None:
    result = raw({"resultType": kind})

    assert across.asks_for_more(result)
    assert across.for_legacy("tools/call", result) is None


def test_output_schemas_that_describe_no_object_are_left_out_for_older_clients() -> None:
    tools = [
        {"name": "a", "outputSchema": {"type": "object"}},
        {"name": "b", "outputSchema": {"type": "array"}},
        {"name": "c"},
    ]

    said = across.for_legacy("tools/list", raw({"tools": tools}))

    assert said is not None
    assert json.loads(said)["tools"] == [tools[0], {"name": "b"}, tools[2]]
    assert across.for_legacy("tools/list", b"{}") == b'{"tools":[]}'
    with pytest.raises(ValueError, match="list"):
        across.for_legacy("tools/list", b'{"tools":5}')


@pytest.mark.parametrize(("content", "kept"), [({"a": 1}, True), ([1], False), ("x", False)])
def test_structured_content_that_is_no_object_is_left_out_for_older_clients(
    content: object, kept: bool
) -> None:
    said = across.for_legacy("tools/call", raw({"content": [], "structuredContent": content}))

    assert said is not None
    assert ("structuredContent" in json.loads(said)) is kept


@pytest.mark.parametrize("broken", [b"[]", b"5"])
def test_a_result_that_is_no_object_crosses_no_era(broken: bytes) -> None:
    with pytest.raises(ValueError, match="object"):
        across.for_modern("ping", broken, b"{}")
    with pytest.raises(ValueError, match="object"):
        across.for_legacy("ping", broken)


@pytest.mark.parametrize(
    ("code", "modern", "status"),
    [
        (-32601, -32601, 404),
        (-32602, -32602, 400),
        (-32002, -32602, 400),
        (-32022, -32022, 400),
        (-32603, -32603, 200),
        (-32000, -32000, 200),
        (7, 7, 200),
    ],
)
def test_an_error_has_code_and_status_of_its_callers_era(
    code: int, modern: int, status: int
) -> None:
    error = RpcError(code, "no")

    assert across.code_for(Era.LEGACY, error) == code
    assert across.status_of(Era.LEGACY, code) == 200
    assert across.code_for(Era.MODERN, error) == modern
    assert across.status_of(Era.MODERN, modern) == status


def test_a_server_that_names_nobody_is_us() -> None:
    assert Welcome().server_info == jsonrpc.SELF
