"""How does Retell call a custom function?  `{"name", "call", "args"}`, and any JSON back."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import orjson
from msgspec import Raw

CALL_LIMIT = 1024
"""The most bytes of a call object that are kept and sent on."""

_FIELDS = (
    "call_type",
    "agent_id",
    "agent_version",
    "direction",
    "from_number",
    "to_number",
    "start_timestamp",
    "metadata",
)


class _Fields(msgspec.Struct):
    call_id: Raw = Raw()
    chat_id: Raw = Raw()
    call_type: Raw = Raw()
    agent_id: Raw = Raw()
    agent_version: Raw = Raw()
    direction: Raw = Raw()
    from_number: Raw = Raw()
    to_number: Raw = Raw()
    start_timestamp: Raw = Raw()
    metadata: Raw = Raw()


class _Body(msgspec.Struct):
    call: _Fields | None = None
    chat: _Fields | None = None
    call_inbound: _Fields | None = None
    chat_inbound: _Fields | None = None


_body = msgspec.json.Decoder(_Body)


@dataclass(frozen=True, slots=True)
class CallObject:
    """What a composed request says of its call: the member's name and its raw JSON object."""

    member: bytes = b"call"
    json: bytes = b"{}"


def bare_call(call_id: str | None) -> CallObject:
    """The call object of which nothing but the ID is known."""
    if call_id is None:
        return CallObject()
    member = b"chat" if call_id.startswith("chat_") else b"call"
    return CallObject(member, b'{"%b_id":%b}' % (member, orjson.dumps(call_id)))


def call_object(body: bytes, call_id: str) -> CallObject | None:
    """The part of a body's call object that a later composed request may repeat.

    None if the body holds no call of that ID.  Metadata, and then all but the ID, are left
    out where the object would pass `CALL_LIMIT`.
    """
    try:
        found = _body.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    chat = found.call is None and found.call_inbound is None
    fields = found.call or found.call_inbound or found.chat or found.chat_inbound
    own_id = orjson.dumps(call_id)
    if fields is None or bytes(fields.chat_id if chat else fields.call_id) != own_id:
        return None
    member = b"chat" if chat else b"call"
    whole = _trimmed(b'{"%b_id":%b' % (member, own_id), fields)
    return CallObject(member, whole) if _is_text(whole) else None


def _trimmed(head: bytes, fields: _Fields) -> bytes:
    said = [(name, bytes(getattr(fields, name))) for name in _FIELDS]
    for names in (_FIELDS, _FIELDS[:-1]):
        members = [b',"%b":%b' % (n.encode(), raw) for n, raw in said if raw and n in names]
        whole = b"".join((head, *members, b"}"))
        if len(whole) <= CALL_LIMIT:
            return whole
    return head + b"}"


def _is_text(raw: bytes) -> bool:
    """Raw values were taken unread: their encoding has not been looked at yet."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def compose(tool: str, arguments: bytes | None, call: CallObject) -> bytes:
    """The body of a function POST; `arguments` is raw JSON."""
    return b'{"name":%b,"%b":%b,"args":%b}' % (
        orjson.dumps(tool),
        call.member,
        call.json,
        arguments or b"{}",
    )


def spoken(sentence: str, *, success: bool = False) -> bytes:
    """An answer in words that the agent can speak; it says no, unless `success`."""
    flag = b"true" if success else b"false"
    return b'{"success":%b,"message":%b}' % (flag, orjson.dumps(sentence))
