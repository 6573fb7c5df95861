"""How is an answer kept, and given again to another request for the same tool?

It is kept as it was said, and translated when it is given: who asks next may speak another
language.  Of its headers only those are kept that describe the body; all others belong to the
exchange, the session or the caller that it was for.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from proxy.core.dialects import answers, jsonrpc, sse
from proxy.core.dialects.headers import for_new_answer, media_type
from proxy.core.dialects.jsonrpc import ToolResult
from proxy.core.dialects.members import document_of, members_of
from proxy.core.model import Call, Era, Headers, Kind, Reply, Verdict
from proxy.core.verdict import BUSINESS_NO, SUCCESS, judge_reply

LIMIT = 65_536
"""The most bytes of a body that is kept, unless told otherwise."""

Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]

_MCP = Kind.MCP  # Bound once: reading a member of an enumeration is slow in Python 3.11.
_KEPT = frozenset({b"content-type", b"content-language"})
_CODING = b"content-encoding"
_LENGTHS = frozenset(len(name) for name in (*_KEPT, _CODING))
_PLAIN = frozenset({b"", b"identity"})
_INFLATED_BY: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # zlib's word for each wrapper
_VERDICTS: Final[Mapping[str, Verdict]] = {"success": SUCCESS, "business_no": BUSINESS_NO}
_FAILED = ToolResult("The backend failed.", is_error=True)
_OVERHEAD = 256
"""Bytes that a kept answer takes beside its own, roughly."""


class Kept(Struct, frozen=True, gc=False):
    """An answer in the language of the request that it was for; it can be stored anywhere.

    `label` is that of its verdict.  `asks_more`: the tool wants more input, or only promises an
    answer (MCP), so this is none to give to anybody else.  `ttl` and `private` are the reply's.
    """

    kind: Kind
    status: int
    headers: Fields
    body: bytes
    label: str
    asks_more: bool = False
    ttl: float | None = None
    private: bool = False

    @property
    def business_no(self) -> bool:
        """The business said no."""
        return self.label == BUSINESS_NO.label

    @property
    def size(self) -> int:
        """Bytes that it takes, roughly."""
        return len(self.body) + sum(len(k) + len(v) for k, v in self.headers) + _OVERHEAD


class _Result(Struct, rename="camel", gc=False):
    content: Raw | UnsetType = UNSET
    result_type: str | None = None


class _Said(Struct, gc=False):
    result: _Result | None = None


_said = msgspec.json.Decoder(_Said)


def keep(
    call: Call, reply: Reply, limit: int = LIMIT, *, verdict: Verdict | None = None
) -> Kept | None:
    """What to keep of an answer to `call`; `verdict` is how it was judged, if the caller knows.

    None if it cannot be kept: it streams, its body is larger than `limit` bytes, is compressed in
    a way that cannot be undone here, or is a stream of events without an answer.
    """
    body, coding = reply.body, b""
    if not isinstance(body, bytes) or len(body) > limit:
        return None
    headers: Fields = ()
    for name, value in reply.headers:
        if len(name) in _LENGTHS:  # Few are as long, which is seen at once.
            name = name.lower()
            if name in _KEPT:
                headers += ((name, value),)
            elif name == _CODING:
                coding = coding or value
    plain = _plain(body, coding, limit) if coding else body
    if plain is None:
        return None
    headers = _shared(headers)
    label = (verdict or reply.verdict or judge_reply(reply.status, reply.headers, plain)).label
    if call.kind is _MCP:
        return _kept_message(call, reply, headers, plain, label)
    return Kept(call.kind, reply.status, headers, plain, label, False, reply.ttl, reply.private)


@lru_cache(maxsize=256)
def _shared(headers: Fields) -> Fields:
    """Backends say few of these, so equal ones are kept once."""
    return headers


def again(call: Call, kept: Kept, output_schema: Mapping[str, Any] | None = None) -> Reply:
    """The kept answer for `call`, in its language.

    For a request of the same kind the same bytes, but for what JSON-RPC ties to one request.
    `output_schema` is the tool's, as MCP callers know it.
    """
    verdict = _VERDICTS.get(kept.label)
    if call.kind is Kind.MCP and kept.kind is Kind.MCP:
        return _readdressed(call, kept, verdict)
    if call.kind is Kind.MCP:
        return _to_mcp(call, kept, verdict, output_schema)
    if kept.kind is Kind.MCP:
        return _from_mcp(call, kept, verdict)
    return Reply(kept.status, list(kept.headers), kept.body, verdict=verdict)


def _plain(body: bytes, coding: bytes, limit: int) -> bytes | None:
    """The body as it reads uncompressed: the next caller may not take what the first one took."""
    coding = coding.strip().lower()
    if coding in _PLAIN or not body:
        return body
    if coding not in _INFLATED_BY:
        return None
    inflater = zlib.decompressobj(wbits=_INFLATED_BY[coding])
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        return None
    return plain if inflater.eof and not inflater.unused_data and len(plain) <= limit else None


def _kept_message(
    call: Call, reply: Reply, headers: Fields, body: bytes, label: str
) -> Kept | None:
    """Of a stream of events only the one that answers is kept."""
    message: bytes | None = body
    if media_type(list(headers)) == answers.EVENTS:
        message, headers = _answer_among(body, call.rpc_id), ((b"content-type", answers.JSON),)
    if message is None:
        return None
    more = _asks_more(message)
    return Kept(_MCP, reply.status, headers, message, label, more, reply.ttl, reply.private)


def _answer_among(events: bytes, rpc_id: bytes | None) -> bytes | None:
    """The message that answers request `rpc_id`, in a whole stream of events."""
    for event in sse.Parser(len(events)).feed(events):
        try:
            if rpc_id and event.data and jsonrpc.parse_answer(event.data, rpc_id) is not None:
                return event.data
        except ValueError:
            continue  # no JSON-RPC: its reader will have passed it over as well
    return None


def _asks_more(message: bytes) -> bool:
    """A tool's answer has content; a task's handle has none, nor has a question."""
    if b'"content"' in message and b'"resultType"' not in message:
        return False
    try:
        said = _said.decode(message)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    result = said.result
    return result is not None and (
        result.content is UNSET or result.result_type not in (None, "complete")
    )


def _readdressed(call: Call, kept: Kept, verdict: Verdict | None) -> Reply:
    """From MCP to MCP: all of the message but its ID and its era's mark."""
    if call.rpc_id is None:
        return Reply(202, verdict=verdict)  # Nobody waits for an answer to a notification.
    try:
        members = members_of(kept.body)
        members["jsonrpc"], members["id"] = Raw(b'"2.0"'), Raw(call.rpc_id)
        if "result" in members:
            era = jsonrpc.era_of(call.head.named)
            members["result"] = Raw(_in_era(bytes(members["result"]), era))
    except ValueError:  # no JSON-RPC: somebody else's words, which nobody here understands
        return Reply(kept.status, list(kept.headers), kept.body, verdict=verdict)
    message, headers = document_of(members), list(kept.headers)
    return answers.rpc_reply(call, message, status=kept.status, headers=headers, verdict=verdict)


def _in_era(result: bytes, era: Era) -> bytes:
    members = members_of(result)
    if era is Era.LEGACY:
        members.pop("resultType", None)
        if bytes(members.get("structuredContent", b"{"))[:1] != b"{":
            del members["structuredContent"]  # Then it could only be an object.
    else:
        members = {"resultType": Raw(b'"complete"'), **members}
    return document_of(members)


def _to_mcp(
    call: Call, kept: Kept, verdict: Verdict | None, output_schema: Mapping[str, Any] | None
) -> Reply:
    if call.rpc_id is None:
        return Reply(202, verdict=verdict)
    no = kept.business_no
    message = answers.as_result(
        call, call.rpc_id, kept.status, kept.body, output_schema, is_error=no
    )
    return answers.rpc_reply(call, message, headers=list(kept.headers), verdict=verdict)


def _from_mcp(call: Call, kept: Kept, verdict: Verdict | None) -> Reply:
    try:
        rpc_id = bytes(members_of(kept.body).get("id", Raw()))
        answer = jsonrpc.parse_tool_answer(kept.body, rpc_id, complete=False)
    except ValueError:
        return Reply(kept.status, list(kept.headers), kept.body, verdict=verdict)
    said = answer if isinstance(answer, ToolResult) else _FAILED
    content_type, body = answers.from_mcp(call.kind, said)
    headers: Headers = for_new_answer(list(kept.headers), content_type)
    status = 200 if 200 <= kept.status < 300 else kept.status
    return Reply(status, headers, body, verdict=verdict)
