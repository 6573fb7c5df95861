"""Which call is this?  Where an ID may stand, and what only looks like one.

The bytes of an ID are never changed: no trimming, no case folding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_plus

from proxy.core.model import Head

MAX_BYTES = 512
"""An ID longer than this, in UTF-8, is no ID."""

_PLACEHOLDERS = frozenset(
    {"null", "none", "undefined", "unknown", "current", "call_1", "12345", "dummy_call_id"}
)
_SHORT = max(map(len, _PLACEHOLDERS))
# Control characters, line separators, and halves of characters that no encoder takes.
_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029" + chr(0xD800) + "-" + chr(0xDFFF) + "]").search


@dataclass(frozen=True, slots=True)
class CallIds:
    """Where an ID may stand beside the body.  First named, first read."""

    headers: tuple[bytes, ...] = (b"x-call-id", b"x-retell-call-id")  # lower case
    query: tuple[str, ...] = ("call_id",)

    @classmethod
    def of(cls, headers: Iterable[str], query: Iterable[str]) -> CallIds:
        """From the names in the rules."""
        return cls(tuple(name.lower().encode() for name in headers), tuple(query))


def usable(text: str | None) -> str | None:
    """`text` itself if it can be a call's ID, else None: placeholders, junk, too long."""
    if not text or len(text) > MAX_BYTES:
        return None
    if text.isascii():
        if not text.isprintable():
            return None
    elif _UNFIT(text) or len(text.encode()) > MAX_BYTES:
        return None
    if "{{" in text or ("%" in text and "{{" in unquote_plus(text)):
        return None  # A template that nobody filled in.
    if text.isspace() or (len(text) <= _SHORT and text.lower() in _PLACEHOLDERS):
        return None
    return text


def beside_body(head: Head, ids: CallIds, segment: str | None = None) -> str | None:
    """The first usable ID in headers, query and the path's own segment, in this order.

    A header or parameter that stands twice says nothing: two readers could take two calls.
    """
    return from_headers(head, ids) or from_query(head, ids) or usable(segment)


def from_headers(head: Head, ids: CallIds) -> str | None:
    """The first usable ID in a header."""
    for name in ids.headers:
        value = head.named.get(name)
        if value is not None and name not in head.repeated:
            found = usable(_text(value))
            if found is not None:
                return found
    return None


def from_query(head: Head, ids: CallIds) -> str | None:
    """The first usable ID in the query."""
    if not head.query:
        return None
    for name in ids.query:
        values = [value for key, value in query_pairs(head.query) if key == name]
        if len(values) == 1 and (found := usable(values[0])) is not None:
            return found
    return None


def query_pairs(query: str, errors: str = "surrogateescape") -> list[tuple[str, str]]:
    """Names and values, decoded once; `errors` says what becomes of bytes that are no UTF-8."""
    pairs = [part.partition("=") for part in query.split("&") if part]
    return [
        (unquote_plus(name, errors=errors), unquote_plus(value, errors=errors))
        for name, _, value in pairs
    ]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
