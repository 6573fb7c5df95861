"""Which fields of a body tell what it is, or how it went?

Apart from what reads them: compiled, a module would lose the types that are decoded by.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType
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


class Params(Struct, gc=False):
    """The `params` of a JSON-RPC message."""

    name: str | None = None
    arguments: Raw | UnsetType = UNSET


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


class Said(Struct, gc=False):
    """What the top level of an answer says of its success."""

    success: Any = None
    status_code: Any = None
    jsonrpc: Raw = Raw()
    error: Raw = Raw()


read_shape = Partial(Shape).read
read_said = Decoder(Said).decode
