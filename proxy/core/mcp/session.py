"""What does the token of a legacy MCP session say, and is it one of ours?

The token is the session: whose it is and since when travel with its caller, so that every replica
with the same key knows it and none has to keep it.  Nobody can alter one, or use it with another
credential than it was made for: both are under its MAC.  It hides nothing.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import orjson

from proxy.core.model import Session

MAX_AGE_MS: Final = 24 * 3_600_000
"""Not older than the history of the split: nothing else knows what has befallen a session."""

MAX_UPSTREAM: Final = 2048
"""Characters of an arm's own session ID."""

VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""What a legacy caller may ask for.  Tokens hold the place: only ever add at the end."""

# 1 byte format, 16 ID, 6 when it was issued, 1 version, 1 length of the arm's name, that name, the
# arm's own session ID (empty: none), 16 MAC.
_FORMAT: Final = 1
_ID, _ISSUED, _VERSION, _LENGTH, _ARM = 1, 17, 23, 24, 25
_MAC: Final = 16
_LONGEST: Final = 4096  # of a token: more is none of ours, and nothing is computed over it
_DOMAIN: Final = b"callsplit mcp session\n"  # whatever else the key may be used for
_LATEST: Final = VERSIONS[-1]
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")


def mint(session: Session, credential: str, keys: Sequence[bytes]) -> bytes:
    """The token of a session, for whoever proved himself by `credential`; the first key signs.

    Raises ValueError for a session that no token can hold: its ID is not 32 hex digits, its version
    none of VERSIONS, its `upstream` not `fit`.
    """
    upstream, arm = session.upstream or "", session.arm.encode()
    if session.upstream is not None and not fit(upstream):
        raise ValueError("an upstream session ID that no header could carry")
    parts = (
        bytes((_FORMAT,)),
        bytes.fromhex(session.id),
        session.issued_ms.to_bytes(_VERSION - _ISSUED, "big"),
        bytes((VERSIONS.index(session.version), len(arm))),
        arm,
        upstream.encode(),
    )
    if len(parts[1]) != _ISSUED - _ID:
        raise ValueError("a session's ID has 32 hex digits")
    payload = b"".join(parts)
    return urlsafe_b64encode(payload + _mac(keys[0], payload, credential)).rstrip(b"=")


def read(token: bytes, credential: str, keys: Sequence[bytes], wall_ms: int) -> Session | None:
    """The session of a token that one of `keys` signed for `credential`, and not too long ago.

    None for everything else.
    """
    raw = _decoded(token)
    if len(raw) < _ARM + _MAC or raw[0] != _FORMAT:
        return None
    payload, mac = raw[:-_MAC], raw[-_MAC:]
    if not any(hmac.compare_digest(mac, _mac(key, payload, credential)) for key in keys):
        return None
    issued_ms, version = int.from_bytes(payload[_ISSUED:_VERSION], "big"), payload[_VERSION]
    if wall_ms - issued_ms > MAX_AGE_MS or version >= len(VERSIONS):
        return None
    ends = _ARM + payload[_LENGTH]
    return Session(
        payload[_ID:_ISSUED].hex(),
        payload[_ARM:ends].decode(),
        VERSIONS[version],
        issued_ms,
        payload[ends:].decode() or None,
    )


def fit(upstream: str) -> bool:
    """Whether this can be an arm's session ID: visible ASCII (spec 2025-11-25), not too long."""
    visible = upstream.isascii() and upstream.isprintable() and " " not in upstream
    return visible and 0 < len(upstream) <= MAX_UPSTREAM


def version_asked(body: bytes) -> str:
    """The protocol version that an `initialize` asks for; the latest, if that is none we know."""
    try:
        asked = orjson.loads(body)["params"]["protocolVersion"]
    except (ValueError, LookupError, TypeError):
        return _LATEST
    return asked if asked in VERSIONS else _LATEST


def _mac(key: bytes, payload: bytes, credential: str) -> bytes:
    text = _DOMAIN + _digest(credential) + payload
    return hmac.digest(key, text, "sha256")[:_MAC]


@lru_cache(maxsize=256)
def _digest(credential: str) -> bytes:
    """One length for all, so that no credential runs into what follows it."""
    return blake2b(credential.encode(), digest_size=16).digest()


def _decoded(token: bytes) -> bytes:
    """The bytes behind a token; b"" if it is not what `mint` would write for them."""
    if len(token) > _LONGEST:
        return b""
    plain = token.translate(_FROM_URL)
    try:
        raw = b64decode(plain + b"=" * (-len(token) % 4), validate=True)
    except ValueError:
        return b""
    # Several texts decode to the same bytes: spare bits at the end, both alphabets.
    return raw if urlsafe_b64encode(raw).rstrip(b"=") == token else b""
