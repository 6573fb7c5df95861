"""How does the migration guide's own wire read?

Asked: `{"tool", "arguments", "call_id"}`.  Answered, always with status 200:
`{"success": true, "data": ...}` or `{"success": false, "error": "...", "status_code": n}`.
"""

from __future__ import annotations

import msgspec
import orjson
from msgspec import Raw

REFUSED = 400
"""The `status_code` of an answer in which the business says no."""

UNAVAILABLE = 503
"""The `status_code` of an answer that no backend gave."""


class _Answer(msgspec.Struct):
    success: bool


_answer = msgspec.json.Decoder(_Answer)
_anything = msgspec.json.Decoder(Raw)


def compose(tool: str, arguments: bytes | None, call_id: str | None) -> bytes:
    """The body of a tools POST; `arguments` is raw JSON."""
    body = b'{"tool":%b,"arguments":%b' % (orjson.dumps(tool), arguments or b"{}")
    if call_id is None:
        return body + b"}"
    return b'%b,"call_id":%b}' % (body, orjson.dumps(call_id))


def render(text: str) -> bytes:
    """What a tool said, in the guide's form; a text that already has it stays as it is."""
    raw = text.encode()
    try:
        _answer.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return b'{"success":true,"data":%b}' % _value(text, raw)
    return raw


def failure(sentence: str, status_code: int) -> bytes:
    """An answer that says no."""
    return b'{"success":false,"error":%b,"status_code":%d}' % (orjson.dumps(sentence), status_code)


def _value(text: str, raw: bytes) -> bytes:
    """The JSON that the text is, or else the text as a JSON string."""
    try:
        _anything.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return orjson.dumps(text)
    return raw
