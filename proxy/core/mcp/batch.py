"""Which messages are in a batch, and how do their answers stand in one?

Source: MCP 2025-03-26, the one revision in which a POST may carry a JSON array of messages; and
JSON-RPC 2.0, section 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import UNSET, Raw, Struct
from msgspec.json import Decoder

from proxy.core.dialects import jsonrpc, sse
from proxy.core.dialects.jsonrpc import RpcError
from proxy.core.mcp.asked import id_of, is_message
from proxy.core.mcp.refusal import refusal
from proxy.core.partial import mended
from proxy.core.shapes import read_shape
from proxy.core.tool_call import checked
from proxy.errors import Refused

MAX_MESSAGES: Final = 50
"""Messages of one batch."""

_elements = Decoder(list[Raw]).decode


class Message(Struct, frozen=True, gc=False):
    """One of a batch, as it was written; `rpc_id` (raw JSON) is None if it wants no answer."""

    body: bytes
    rpc_id: bytes | None


def split_batch(body: bytes) -> list[Message]:
    """The messages of a batch, all of them or none; raises `Refused`.

    Each is still to be judged as if it had come alone.
    """
    try:
        elements = _elements(mended(body))
    except (ValueError, RecursionError):
        message = "The body is not valid JSON."
        raise refusal("malformed_json", message, rpc_code=jsonrpc.PARSE_ERROR) from None
    if not 0 < len(elements) <= MAX_MESSAGES:
        raise refusal("rpc_batch", f"A batch has 1 to {MAX_MESSAGES} messages.")
    return [_message(bytes(element)) for element in elements]


def join_batch(answers: Iterable[bytes]) -> bytes:
    """The answers as one JSON array."""
    return b"[%b]" % b",".join(answers)


def answer_in(text: bytes, rpc_id: bytes) -> bytes | None:
    """The answer to `rpc_id` that a JSON text is, with that very ID; None if it is none."""
    try:
        answer = jsonrpc.parse_answer(checked(text), rpc_id)
    except ValueError:
        return None
    if answer is None:
        return None
    if isinstance(answer, RpcError):  # Its ID may be null, or missing.
        return jsonrpc.render_error(rpc_id, answer.code, answer.message, answer.data)
    return text.strip()


def answer_among(events: Iterable[sse.Event], rpc_id: bytes) -> bytes | None:
    """The same, of the messages of a stream."""
    for event in events:
        if event.name == b"message" and (answer := answer_in(event.data, rpc_id)) is not None:
            return answer
    return None


def no_answer(rpc_id: bytes, message: str) -> bytes:
    """What stands in the place of an answer that never came."""
    return jsonrpc.render_error(rpc_id, jsonrpc.INTERNAL_ERROR, message)


def _message(text: bytes) -> Message:
    try:
        shape, _ = read_shape(text)
        fits = shape is not None and shape.jsonrpc is not UNSET and is_message(shape, text)
    except ValueError:
        shape, fits = None, False
    if shape is None or not fits:
        raise _unfit("A batch holds something that is no JSON-RPC 2.0 message.")
    if shape.method == "initialize":
        raise _unfit("Nobody begins a session in a batch.")
    rpc_id = id_of(shape)
    if shape.method and shape.id is not UNSET and rpc_id is None:
        raise _unfit("A JSON-RPC ID is a short string or a number.")
    return Message(text, rpc_id if shape.method else None)


def _unfit(message: str) -> Refused:
    return refusal("rpc_batch", message)
