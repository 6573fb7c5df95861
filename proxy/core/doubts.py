"""What else may a webhook take a body for that came to a tool's own path?

A webhook has one URL for all that Retell sends, and goes by the body.  A tool's bare arguments may
have any names, though: only what has the whole shape of another kind is refused, and what is in
doubt must also prove what that kind must.
"""

from __future__ import annotations

from msgspec import UNSET, Raw, UnsetType

from proxy.core.model import Kind
from proxy.core.shapes import Shape
from proxy.errors import Refused

_RINGING = frozenset({"call_inbound", "chat_inbound"})
_TOLD = frozenset(
    {
        "call_started", "call_ended", "call_analyzed", "chat_started", "chat_ended",
        "chat_analyzed", "transcript_updated", "transfer_started", "transfer_bridged",
        "transfer_cancelled", "transfer_ended",
    }
)  # fmt: skip


def is_envelope(shape: Shape) -> bool:
    """Tell a function's whole body, with a usable call or without, from bare arguments."""
    about = shape.call or shape.chat
    return bool(shape.name) and (_is_object(shape.args) or (about is not None and _has(shape.args)))


def doubts(shape: Shape, tool: str | None) -> tuple[Kind, ...]:
    """The kinds that a body for `tool` may be taken for; raises `Refused` if there is no doubt."""
    about, inbound = shape.call or shape.chat, shape.call_inbound or shape.chat_inbound
    event = shape.event or ""
    if (
        (event in _TOLD and about is not None)
        or (event in _RINGING and inbound is not None)
        or (shape.method and _text(shape.jsonrpc) == b'"2.0"')
    ):
        raise Refused(400, "kind_mismatch", "This is nothing for a tool's own path.")
    named = shape.name if is_envelope(shape) else None
    asked = shape.tool if _is_object(shape.arguments) else None
    if (named or tool) != tool or (asked or tool) != tool:
        raise Refused(400, "tool_mismatch", "The body names another tool than the path.")
    found = []
    if event in _RINGING:
        found.append(Kind.INBOUND)
    elif event.startswith("alert_"):
        found.append(Kind.ALERT)
    elif event in _TOLD or (event and about is not None):
        found.append(Kind.EVENT)
    if shape.name and (about is not None or _has(shape.args)):
        found.append(Kind.FUNCTION)
    if shape.tool and _has(shape.arguments):
        found.append(Kind.TOOLS)
    return tuple(found)


def _has(raw: Raw | UnsetType) -> bool:
    return raw is not UNSET


def _is_object(raw: Raw | UnsetType) -> bool:
    """`null` stands for no arguments at all."""
    text = _text(raw)
    return text[:1] == b"{" or text == b"null"


def _text(raw: Raw | UnsetType) -> bytes:
    return b"" if raw is UNSET else bytes(raw)
