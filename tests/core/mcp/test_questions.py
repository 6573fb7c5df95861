from __future__ import annotations

import json
from typing import Any

import pytest
from mcp.shared.inbound import InboundModernRoute, classify_inbound_request
from mcp_types import methods
from mcp_types.jsonrpc import JSONRPCNotification, JSONRPCRequest

from proxy.core.dialects.jsonrpc import Request
from proxy.core.mcp import questions
from proxy.core.model import Era

ABOUT = "io.modelcontextprotocol/"
VERSIONS = {Era.MODERN: "2026-07-28", Era.LEGACY: "2025-11-25"}


def sent(request: Request, value: bytes = b"") -> tuple[dict[str, str], dict[str, Any]]:
    headers = {name.decode(): text.decode() for name, text in request.headers}
    return headers, json.loads(request.body(b"7", value))


def params(**given: Any) -> dict[str, Any]:
    """As they come from a caller."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "x", "params": given}
    return questions.params_of(json.dumps(message).encode())


def test_a_session_begins_as_the_revision_asks_for() -> None:
    headers, message = sent(questions.initialize(questions.introduction(b"2025-06-18")))

    JSONRPCRequest.model_validate(message)
    methods.validate_client_request("initialize", "2025-06-18", message["params"])
    assert message["params"]["protocolVersion"] == "2025-06-18"
    assert message["params"]["capabilities"] == {}
    assert "mcp-protocol-version" not in headers


def test_notifications_are_well_formed() -> None:
    JSONRPCNotification.model_validate_json(questions.INITIALIZED)
    found = JSONRPCNotification.model_validate_json(questions.cancelled(b'"a"'))

    assert found.params is not None
    assert found.params["requestId"] == "a"


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize(
    ("method", "given", "name"),
    [
        ("tools/call", {"name": "größe", "arguments": {}}, "=?base64?Z3LDtsOfZQ==?="),
        ("prompts/get", {"name": "greet"}, "greet"),
        ("resources/read", {"uri": "file:///a"}, "file:///a"),
        ("resources/list", {}, None),
    ],
)
def test_any_request_is_put_as_its_era_wants_it(
    era: Era, method: str, given: dict[str, Any], name: str | None
) -> None:
    asked = params(**given)

    request = questions.any_request(era, method, asked)
    headers, message = sent(request, questions.in_era(era, asked))

    methods.validate_client_request(method, VERSIONS[era], message["params"])
    assert headers["mcp-protocol-version"] == VERSIONS[era]
    if era is Era.MODERN:
        assert isinstance(classify_inbound_request(message, headers=headers), InboundModernRoute)
        assert headers["mcp-method"] == method
        assert headers.get("mcp-name") == name
    else:
        assert not {"mcp-method", "mcp-name"} & set(headers)


@pytest.mark.parametrize("name", [b"5", b"null", b"1e999"])
def test_a_name_that_is_none_is_not_repeated(name: bytes) -> None:
    """The server says what it thinks of it."""
    raw = questions.params_of(b'{"params":{"name":%b}}' % name)

    headers, _ = sent(questions.any_request(Era.MODERN, "tools/call", raw), b"{}")

    assert "mcp-name" not in headers


def test_what_a_caller_says_of_itself_is_not_passed_on() -> None:
    meta = {
        f"{ABOUT}clientInfo": {"name": "they", "version": "1"},
        f"{ABOUT}clientCapabilities": {"sampling": {}},
        "progressToken": "theirs",
        "traceparent": "00-ab-cd-01",
    }
    asked = params(name="t", _meta=meta, inputResponses={"a": 1}, requestState="x", more=1.50)

    legacy = json.loads(questions.in_era(Era.LEGACY, asked, b"9"))
    modern = json.loads(questions.in_era(Era.MODERN, asked))

    assert legacy == {
        "name": "t",
        "more": 1.5,
        "_meta": {"traceparent": "00-ab-cd-01", "progressToken": 9},
    }
    assert modern["requestState"] == "x"
    assert modern["_meta"]["traceparent"] == "00-ab-cd-01"
    assert "progressToken" not in modern["_meta"]
    assert modern["_meta"][f"{ABOUT}clientInfo"]["name"] == "callsplit"
    assert modern["_meta"][f"{ABOUT}clientCapabilities"] == {}


def test_params_keep_their_bytes() -> None:
    raw = b'{"params":{"arguments":{"n": 1.50, "big": 123456789012345678901234567890}}}'

    said = questions.in_era(Era.LEGACY, questions.params_of(raw))

    assert said == b'{"arguments":{"n": 1.50, "big": 123456789012345678901234567890}}'


@pytest.mark.parametrize(
    ("message", "found"),
    [(b"{}", {}), (b'{"params":{}}', {}), (b'{"params":{"a":1}}', {"a": b"1"})],
)
def test_params_may_be_absent(message: bytes, found: dict[str, bytes]) -> None:
    assert {k: bytes(v) for k, v in questions.params_of(message).items()} == found


@pytest.mark.parametrize("message", [b"[]", b'{"params":[]}', b'{"params":1}', b"{"])
def test_params_that_are_no_object_are_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="object"):
        questions.params_of(message)


@pytest.mark.parametrize(
    ("meta", "token"),
    [({"progressToken": 5}, b"5"), ({"progressToken": "a"}, b'"a"'), ({}, None), ("odd", None)],
)
def test_a_caller_may_want_to_hear_of_progress(meta: object, token: bytes | None) -> None:
    assert questions.progress_token(params(_meta=meta)) == token
