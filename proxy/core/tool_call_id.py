"""Which of the agent's tool calls is this request?

Retell names it nowhere in a function's body, but the transcript that comes along ends with
the tool call that is being made.  Where that does not tell, Retell's signature does: the same bytes
signed at the same moment are the same tool call, sent once more by Retell, or by a thief.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from proxy.core.model import Call
from proxy.core.signature import HEADER

MAX_ID = 128
"""Characters; a longer ID is none."""

_INVOCATION = "tool_call_invocation"
_MARK = b'"tool_call_invocation"'
_START = b'{"role":' + _MARK


class _Turn(Struct, gc=False):
    """One entry of a transcript, whatever it is."""

    role: Any = None
    tool_call_id: Any = None
    name: Any = None


_turns = msgspec.json.Decoder(list[_Turn]).decode


def tool_call_id(call: Call) -> str | None:
    """An ID of the tool call that a request makes; None if it cannot be told for sure."""
    return _from_transcript(call) or (_from_signature(call) if call.signed else None)


def _from_signature(call: Call) -> str:
    """Its digest, in hex."""
    return call.head.named[HEADER][-64:].decode("latin-1")


def _from_transcript(call: Call) -> str | None:
    """The ID that the transcript gives.

    It is that of the last invocation of the tool, unless the ID stands anywhere else: then either
    that one has its result already, or IDs are given twice.
    """
    if call.turns is None or call.tool is None:
        return None
    text = bytes(call.turns)
    if text.rfind(_MARK) < 0:  # from the end: it is faster, and what is looked for stands there
        return None
    try:
        found = _last(_tail(text), call.tool) or _last(_turns(text), call.tool)
    except (ValueError, RecursionError):
        return None
    return found if found is not None and _stands_once(text, b'"%b"' % found.encode()) else None


def _stands_once(text: bytes, word: bytes) -> bool:
    at = text.rfind(word)
    return at >= 0 and text.rfind(word, 0, at) < 0


def _tail(text: bytes) -> Sequence[_Turn]:
    """The entries from the last invocation on, without reading those before it.

    What is found is where an object begins: inside a text, its quotes would be escaped.  From an
    object deeper down than an entry, the rest is no JSON, for the brackets do not match.
    """
    at = text.rfind(_START)
    if at < 0:
        return ()
    try:
        return _turns(b"[" + text[at:])
    except msgspec.DecodeError:
        return ()


def _last(turns: Sequence[_Turn], tool: str) -> str | None:
    """The ID of the last invocation of a tool; None if there is none, or if that has none."""
    for turn in reversed(turns):
        if turn.role == _INVOCATION and turn.name == tool:
            found = turn.tool_call_id
            return found if isinstance(found, str) and 0 < len(found) <= MAX_ID else None
    return None
