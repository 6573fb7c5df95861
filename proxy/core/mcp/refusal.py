"""How does a refusal read to an MCP caller?

As a JSON-RPC error.  Our own codes (words) stand in its `data`, never in the range of numbers that
belongs to JSON-RPC and MCP.  Where the request's ID is not known the error has none: null is no ID
in MCP's schemas (2025-11-25, 2026-07-28).
"""

from __future__ import annotations

import orjson

from proxy.core.dialects.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST
from proxy.errors import Refused


def refusal(
    code: str,
    message: str,
    *,
    rpc_id: bytes | None = None,
    rpc_code: int = INVALID_REQUEST,
    status: int = 400,
    data: bytes = b"",
    allow: str = "",
) -> Refused:
    """What an MCP caller is refused with; `rpc_id` and `data` are raw JSON."""
    return Refused(
        status, code, message, allow=allow, rpc_code=rpc_code, rpc_id=rpc_id or b"", data=data
    )


def to_rpc(refused: Refused, rpc_id: bytes | None = None) -> None:
    """Let a refusal be told as a JSON-RPC error; what it has of one already stays."""
    if not refused.rpc_code:
        refused.rpc_code = INTERNAL_ERROR if refused.status >= 500 else INVALID_REQUEST
    if rpc_id is not None and not refused.rpc_id:
        refused.rpc_id = rpc_id


def is_rpc(refused: Refused) -> bool:
    """Whether its caller speaks JSON-RPC."""
    return refused.rpc_code != 0 or refused.code.startswith("rpc_")


def refusal_body(refused: Refused, request_id: str) -> bytes:
    """The JSON-RPC error; where the specification gives it no data, it has our code as such."""
    to_rpc(refused)
    rpc_id = b'"id":%b,' % refused.rpc_id if refused.rpc_id else b""
    return b'{"jsonrpc":"2.0",%b"error":{"code":%d,"message":%b,"data":%b}}' % (
        rpc_id,
        refused.rpc_code,
        orjson.dumps(refused.message),
        refused.data or orjson.dumps({"code": refused.code, "request_id": request_id}),
    )
