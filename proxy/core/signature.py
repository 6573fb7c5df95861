"""Did Retell sign these bytes, and lately?  And: sign bytes as Retell does.

The header `x-retell-signature` reads `v=<ms>,d=<hex>`: unix milliseconds, and HMAC-SHA256 of the
raw body followed by those milliseconds in decimal.  Only the body is signed.
"""

from __future__ import annotations

import hmac
from binascii import unhexlify
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from typing import TypeAlias

HEADER = b"x-retell-signature"

Stamp: TypeAlias = tuple[int, bytes]
"""Unix milliseconds and the raw digest, as a header claims them."""

TOLERANCE_MS = 300_000
"""How far a signature's time may lie from ours, either way, unless the rules say otherwise."""


class SignatureResult(StrEnum):
    """What became of one signature header."""

    OK = "ok"
    MISSING = "missing"
    MALFORMED = "malformed"
    STALE = "stale"  # Retell's own, but from outside the window
    WRONG = "wrong"


_WRONG = (SignatureResult.WRONG, -1)
_BLOCK = 64  # bytes of SHA-256
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


class Key:
    """A secret to verify with: its HMAC (RFC 2104) begun once, not anew for every request.

    That halves what a signature costs.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: bytes) -> None:
        block = secret if len(secret) <= _BLOCK else sha256(secret).digest()
        block = block.ljust(_BLOCK, b"\0")
        self._inner = sha256(block.translate(_INNER))
        self._outer = sha256(block.translate(_OUTER))

    def digest(self, body: bytes, ms: bytes) -> bytes:
        """The raw digest over `body` and the milliseconds in decimal."""
        inner = self._inner.copy()
        inner.update(body)
        inner.update(ms)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


def sign(secret: bytes, body: bytes, ms: int) -> bytes:
    """Return the header's value for `body`, signed at `ms` (unix milliseconds)."""
    digest = hmac.digest(secret, b"%b%d" % (body, ms), "sha256")
    return b"v=%d,d=%b" % (ms, digest.hex().encode())


def read(header: bytes) -> Stamp | None:
    """Time and digest in `header`; None if it is malformed.  All that is known before the body."""
    time, _, text = header.partition(b",d=")
    ms = time[2:]
    # As strict as Retell's Python SDK; 32 digits are far more than any time needs.
    if time[:2] != b"v=" or not ms.isdigit() or len(ms) > 32 or len(text) != 64:
        return None
    try:
        return (int(ms), unhexlify(text)) if text == text.lower() else None
    except ValueError:
        return None


def verify(
    secrets: Sequence[bytes],
    body: bytes,
    header: bytes | None,
    wall_ms: int,
    tolerance_ms: int = TOLERANCE_MS,
) -> SignatureResult:
    """Judge `header` over the raw `body`; raises on no bytes whatever."""
    if header is None:
        return SignatureResult.MISSING
    stamp = read(header)
    if stamp is None:
        return SignatureResult.MALFORMED
    return identify(tuple(map(Key, secrets)), body, stamp, wall_ms, tolerance_ms)[0]


def identify(
    keys: Sequence[Key],
    body: bytes,
    stamp: Stamp,
    wall_ms: int,
    tolerance_ms: int = TOLERANCE_MS,
) -> tuple[SignatureResult, int]:
    """Judge what was read: ok, stale or wrong, and the place of the key that signed (or -1).

    An exact `tolerance_ms` is still in time, as in Retell's SDKs.
    """
    ms, digest = stamp
    text, signer = b"%d" % ms, -1
    for place, key in enumerate(keys):  # To the end: how long it takes says nothing of which key.
        if hmac.compare_digest(key.digest(body, text), digest):
            signer = place
    if signer < 0:
        return _WRONG
    result = SignatureResult.OK if abs(wall_ms - ms) <= tolerance_ms else SignatureResult.STALE
    return result, signer
