"""Which fields of a body tell what it is, or how it went?

Apart from what reads them: compiled, a module would lose the types that are decoded by.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.json import Decoder

from proxy.core.partial import Partial


class CallPart(Struct, gc=False):
    """`call` or `chat`."""

    call_id: str | None = None
    chat_id: str | None = None
    start_timestamp: int | None = None
    transcript_with_tool_calls: Raw | UnsetType = UNSET
    message_with_tool_calls: Raw | UnsetType = UNSET  # of a chat


class InboundPart(Struct, gc=False):
    """`call_inbound` or `chat_inbound`."""

    call_id: str | None = None
    chat_id: str | None = None
    from_number: str | None = None
    to_number: str | None = None


class Meta(Struct, gc=False):
    """What `_meta` must say of every request of the modern era of MCP."""

    version: Raw | UnsetType = field(default=UNSET, name="io.modelcontextprotocol/protocolVersion")
    capabilities: Raw | UnsetType = field(
        default=UNSET, name="io.modelcontextprotocol/clientCapabilities"
    )


class Params(Struct, gc=False):
    """The `params` of a JSON-RPC message."""

    name: str | None = None
    arguments: Raw | UnsetType = UNSET
    uri: str | None = None
    meta: Meta | None = field(default=None, name="_meta")
    input_responses: Raw | UnsetType = field(default=UNSET, name="inputResponses")
    request_state: Raw | UnsetType = field(default=UNSET, name="requestState")


class Shape(Struct, gc=False):
    """The top level of every body that callsplit knows; of equal keys the last counts."""

    name: str | None = None
    call: CallPart | None = None
    args: Raw | UnsetType = UNSET
    event: str | None = None
    chat: CallPart | None = None
    event_timestamp: int | None = None
    call_inbound: InboundPart | None = None
    chat_inbound: InboundPart | None = None
    jsonrpc: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: str | None = None
    params: Params | None = None
    tool: str | None = None
    arguments: Raw | UnsetType = UNSET
    call_id: str | None = None


class AnswerShape(Struct, gc=False):
    """The top level of a JSON-RPC answer."""

    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class Said(Struct, gc=False):
    """What the top level of an answer says of its success."""

    success: Any = None
    status_code: Any = None
    jsonrpc: Raw = Raw()
    error: Raw = Raw()


read_shape = Partial(Shape).read
read_answer = Partial(AnswerShape).read
read_said = Decoder(Said).decode
