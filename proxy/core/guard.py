"""Is this request's head fit to be read any further, and to go upstream?

The listener's parser has refused most broken framing; what it lets pass is judged here.
No refusal echoes a byte of the request.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from proxy.core.model import Head
from proxy.errors import Refused

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MAX_TARGET = 8190
"""Characters of a request target."""
MAX_FIELDS = 128
"""Header fields of one request."""
MAX_FIELD_BYTES = 61_440
"""Bytes of all header values together."""

_ABSURD = 64  # A length so many times over the limit is no body that is a little too large.
_ALLOW = ", ".join(sorted(METHODS))
_VERSIONS = frozenset({(1, 0), (1, 1)})
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding"})
_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])  # all but the tab
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # RFC 9110, 5.6.2
_SUFFIXED = re.compile(rb"[!#$&^_.+a-z0-9-]+/[!#$&^_.+a-z0-9-]+\+json").fullmatch  # RFC 6838, 4.2
_CODINGS = re.compile(rb"[a-z0-9-]+([ \t]*,[ \t]*[a-z0-9-]+)*").fullmatch
_HOST = re.compile(r"([A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?").fullmatch
_ABSOLUTE = re.compile(r"(https?)://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL).fullmatch
_JSON = b"application/json"
_PORTS = {"http": "80", "https": "443"}


def check_name(name: bytes) -> None:
    """Refuse a header name that is no token."""
    if _TOKEN(name) is None:
        raise Refused(400, "bad_header", "A header name is malformed.", close=True)


def check_values(values: bytes) -> None:
    """Refuse control bytes; `values` are all header values in one."""
    if len(values) > MAX_FIELD_BYTES:
        raise Refused(431, "headers_too_large", "The header is too large.", close=True)
    if len(values.translate(None, _CONTROLS)) != len(values):
        raise Refused(400, "bad_header", "A header value holds a control byte.", close=True)


def check_request(head: Head, version: tuple[int, int]) -> None:
    """Refuse what must not be routed; `OPTIONS *` is refused with 204, its answer.

    A target in absolute form that names our own authority becomes origin form in `head`.
    """
    if head.method not in METHODS:
        raise _bad_method(head.method)
    if version not in _VERSIONS:
        raise Refused(505, "http_version", "Only HTTP/1.0 and HTTP/1.1 are spoken.", close=True)
    if not _SINGLE.isdisjoint(head.repeated):
        raise Refused(400, "repeated_header", "A header stands twice.", close=True)
    named = head.named
    host = named.get(b"host", b"")
    if not good_host(host):
        raise Refused(400, "bad_host", "The Host header is missing or malformed.", close=True)
    if head.target[:1] != "/":
        _to_origin_form(head, host.decode("ascii"))
    _check_target(head.target)
    if b"transfer-encoding" in named:
        _check_coding(named, version)
    elif not named.get(b"content-length", b"0").isdigit():
        raise Refused(400, "bad_framing", "Content-Length is no number.", close=True)
    if b"expect" in named and (
        named[b"expect"].lower() != b"100-continue" or b"expect" in head.repeated
    ):
        raise Refused(417, "expectation_failed", "Expect may only ask for 100-continue.")


def check_length(length: int, limit: int) -> None:
    """Refuse a declared length that is over `limit`, both in bytes."""
    if length > limit * _ABSURD:
        raise Refused(400, "bad_framing", "Content-Length is no body's length.", close=True)
    if length > limit:
        raise Refused(413, "body_too_large", "The request body is too large.", close=True)


def check_json(head: Head) -> None:
    """Refuse a body that says it is none that we can read; one that says nothing may be."""
    named = head.named
    media = named.get(b"content-type", _JSON)
    coding = named.get(b"content-encoding", b"identity")
    if (media != _JSON and not _is_json(media)) or coding.lower() != b"identity":
        raise Refused(415, "unsupported_media_type", "The body must be JSON, and not compressed.")


@lru_cache(maxsize=256)
def good_host(host: bytes) -> bool:
    """One name or address with at most a port: no user, no path, no list (RFC 9110, 7.2)."""
    match = _HOST(host.decode("latin-1"))
    if match is None or int(match[2] or 0) > 65535:
        return False
    name = match[1]
    if name[0] != "[":
        return True
    try:
        ipaddress.IPv6Address(name[1:-1])
    except ValueError:
        return False
    return True


def _is_json(media: bytes) -> bool:
    """Of a Content-Type, whatever its parameters; suffixes: RFC 6839, 3.1."""
    essence = media.partition(b";")[0].strip().lower()
    return essence == _JSON or _SUFFIXED(essence) is not None


def _bad_method(method: str) -> Refused:
    if method in ("CONNECT", "TRACE"):
        return Refused(405, "method_not_allowed", "No such method here.", close=True, allow=_ALLOW)
    if method != method.upper():
        return Refused(400, "bad_method", "Methods are upper case.", close=True)
    return Refused(501, "unknown_method", "This method is not known here.", close=True)


@lru_cache(maxsize=256)  # of those that pass
def _check_target(target: str) -> None:
    if len(target) > MAX_TARGET:
        raise Refused(414, "target_too_long", "The request target is too long.", close=True)
    # A backslash is a slash to some servers; a fragment never belongs on the wire.
    forbidden = " " in target or "#" in target or "\\" in target
    if forbidden or not (target.isascii() and target.isprintable()):
        raise Refused(400, "bad_target", "The request target is malformed.", close=True)


def _to_origin_form(head: Head, host: str) -> None:
    """RFC 9112, 3.2: the absolute form is for proxies; we are nobody's way to elsewhere."""
    if head.target == "*" and head.method == "OPTIONS":
        raise Refused(204, "options", "")
    match = _ABSOLUTE(head.target)
    if match is None:
        raise Refused(400, "bad_target", "The request target is malformed.", close=True)
    scheme = match[1].lower()
    if _authority(match[2], scheme) != _authority(host, scheme):
        raise Refused(421, "misdirected", "This authority is not served here.", close=True)
    rest = match[3]
    head.target = rest if rest.startswith("/") else f"/{rest}"
    head.path, _, head.query = head.target.partition("?")


def _authority(text: str, scheme: str) -> str:
    return text.lower().removesuffix(":").removesuffix(f":{_PORTS[scheme]}")


def _check_coding(named: dict[bytes, bytes], version: tuple[int, int]) -> None:
    """One framing, and one that we undo: what else was coded would lose its coding."""
    coding = named[b"transfer-encoding"].lower()
    if b"content-length" in named or version == (1, 0) or _CODINGS(coding) is None:
        raise Refused(400, "bad_framing", "The body's framing is in doubt.", close=True)
    if coding != b"chunked":
        raise Refused(501, "unknown_coding", "Only the chunked coding is known.", close=True)
