from __future__ import annotations

import json

import pytest

from proxy.core.mcp.refusal import is_rpc, refusal, refusal_body, to_rpc
from proxy.errors import Refused


def test_a_refusal_is_a_json_rpc_error_with_our_word_in_its_data() -> None:
    refused = refusal("rpc_bad_id", "No ID.", rpc_id=b'"a"')

    assert json.loads(refusal_body(refused, "req-7")) == {
        "jsonrpc": "2.0",
        "id": "a",
        "error": {
            "code": -32600,
            "message": "No ID.",
            "data": {"code": "rpc_bad_id", "request_id": "req-7"},
        },
    }
    assert refused.status == 400


def test_without_a_known_id_there_is_none() -> None:
    """Null is no ID in the schemas of MCP, whatever JSON-RPC says of it."""
    assert "id" not in json.loads(refusal_body(refusal("rpc_x", "x"), "r"))


def test_data_that_the_specification_defines_stays_alone() -> None:
    refused = refusal("rpc_version", "x", rpc_code=-32022, data=b'{"supported":[]}')

    assert json.loads(refusal_body(refused, "r"))["error"]["data"] == {"supported": []}


@pytest.mark.parametrize(("status", "code"), [(401, -32600), (429, -32600), (503, -32603)])
def test_any_refusal_can_be_told_in_json_rpc(status: int, code: int) -> None:
    refused = Refused(status, "some_word", "x")
    assert not is_rpc(refused)

    to_rpc(refused, b"7")

    assert is_rpc(refused)
    assert (refused.rpc_code, refused.rpc_id) == (code, b"7")


def test_what_a_refusal_says_already_stays() -> None:
    refused = refusal("rpc_x", "x", rpc_code=-32020, rpc_id=b"1")

    to_rpc(refused, b"2")
    to_rpc(refused)

    assert (refused.rpc_code, refused.rpc_id) == (-32020, b"1")


def test_a_word_of_json_rpc_is_enough() -> None:
    assert is_rpc(Refused(404, "rpc_session_unknown", "x"))
    assert json.loads(refusal_body(Refused(404, "rpc_x", "x"), "r"))["error"]["code"] == -32600
