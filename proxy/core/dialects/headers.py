"""Which header fields cross a translation, and whose credential goes upstream?"""

from __future__ import annotations

from proxy.core.model import Headers

# Of a request: the caller's credentials (minted for us, not for the arm), what described the
# old body or asked for an answer's form, and what belongs to the old protocol.
_REQUEST_STALE = frozenset(
    {
        b"accept",
        b"accept-charset",
        b"accept-encoding",
        b"authorization",
        b"cookie",
        b"digest",
        b"last-event-id",
        b"origin",  # an MCP server refuses strangers' origins: its guard against DNS rebinding
        b"range",
        b"referer",
        b"signature",
        b"signature-input",
        b"want-digest",
        b"x-retell-signature",
    }
)
_REQUEST_PREFIXES = (b"content-", b"if-", b"mcp-")

# Of an answer: whatever described the old body, its cache life or the old protocol.
_REPLY_STALE = frozenset(
    {
        b"accept-ranges",
        b"age",
        b"allow",
        b"cache-control",
        b"digest",
        b"etag",
        b"expires",
        b"last-modified",
        b"repr-digest",
        b"vary",
        b"www-authenticate",
        b"x-accel-buffering",
    }
)
_REPLY_PREFIXES = (b"content-", b"mcp-")


AUTHORIZATION = frozenset({b"authorization"})
SIGNATURE = frozenset({b"x-retell-signature"})


def bearer_fields(bearer: bytes | None) -> Headers:
    """The arm's own credential as a header, if it has one."""
    return [(b"authorization", b"Bearer " + bearer)] if bearer else []


def for_new_body(end_to_end: Headers, own: Headers) -> Headers:
    """A request's fields when its body was composed anew; `own` are the composer's."""
    kept = [
        field
        for field in end_to_end
        if (name := field[0].lower()) not in _REQUEST_STALE
        and not name.startswith(_REQUEST_PREFIXES)
    ]
    kept += own
    return kept


def for_same_body(end_to_end: Headers, own: Headers, dropped: frozenset[bytes]) -> Headers:
    """A request's fields when its body stays, without `dropped`, with `own` instead."""
    kept = [field for field in end_to_end if field[0].lower() not in dropped]
    kept += own
    return kept


def for_new_answer(headers: Headers, content_type: bytes) -> Headers:
    """An answer's fields when its body was rendered anew."""
    kept = [
        field
        for field in headers
        if (name := field[0].lower()) not in _REPLY_STALE and not name.startswith(_REPLY_PREFIXES)
    ]
    kept.append((b"content-type", content_type))
    return kept


def value_of(headers: Headers, name: bytes) -> bytes:
    """The first value of a field, b"" if it is absent; `name` in lower case."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return b""


def media_type(headers: Headers) -> bytes:
    """The media type without its parameters, in lower case; b"" if none is given."""
    return value_of(headers, b"content-type").partition(b";")[0].strip().lower()
