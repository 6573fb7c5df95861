"""What MCP's own schemas say of a message that we send: for the tests of either era."""

from __future__ import annotations

import json
from typing import Any, cast

import mcp_types
from mcp_types import methods
from pydantic import TypeAdapter

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"


def result_of(message: bytes, method: str, version: str, *, rpc_id: Any = 1) -> dict[str, Any]:
    """The result in an answer to `method`, which the schema of `version` knows to its last key."""
    answer = json.loads(message)
    assert answer.keys() == {"jsonrpc", "id", "result"}
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", rpc_id)
    result: dict[str, Any] = answer["result"]
    schema: TypeAdapter[Any] = TypeAdapter(cast(Any, methods.SERVER_RESULTS[method, version]))
    schema.validate_python(result, strict=True)
    known = methods.serialize_server_result(method, version, result)
    assert result == known
    return result


def error_of(message: bytes, *, rpc_id: Any = 1) -> tuple[int, str]:
    """Code and message of an error."""
    answer = json.loads(message)
    found = mcp_types.JSONRPCError.model_validate(answer, strict=True)
    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert found.id == rpc_id
    return found.error.code, found.error.message
