"""Did Retell sign these bytes, and lately?  And: sign bytes as Retell does.

The header `x-retell-signature` reads `v=<ms>,d=<hex>`: unix milliseconds, and HMAC-SHA256 of the
raw body followed by those milliseconds in decimal.  Only the body is signed.
"""

from __future__ import annotations

import hmac
import re
from binascii import unhexlify
from collections.abc import Sequence
from enum import StrEnum

HEADER = b"x-retell-signature"

TOLERANCE_MS = 300_000
"""How far a signature's time may lie from ours, either way, unless the rules say otherwise."""

# As strict as Retell's Python SDK; 32 digits are far more than any time needs.
_FORM = re.compile(rb"v=([0-9]{1,32}),d=([0-9a-f]{64})")


class SignatureResult(StrEnum):
    """What became of one signature header."""

    OK = "ok"
    MISSING = "missing"
    MALFORMED = "malformed"
    STALE = "stale"  # Retell's own, but from outside the window
    WRONG = "wrong"


def sign(key: bytes, body: bytes, ms: int) -> bytes:
    """Return the header's value for `body`, signed at `ms` (unix milliseconds)."""
    digest = hmac.digest(key, b"%b%d" % (body, ms), "sha256")
    return b"v=%d,d=%b" % (ms, digest.hex().encode())


def well_formed(header: bytes) -> bool:
    """Tell whether `header` could be a signature at all; all that is known before the body."""
    return _FORM.fullmatch(header) is not None


def verify(
    keys: Sequence[bytes],
    body: bytes,
    header: bytes | None,
    wall_ms: int,
    tolerance_ms: int = TOLERANCE_MS,
) -> SignatureResult:
    """Judge `header` over the raw `body`; raises on no bytes whatever."""
    return identify(keys, body, header, wall_ms, tolerance_ms)[0]


def identify(
    keys: Sequence[bytes],
    body: bytes,
    header: bytes | None,
    wall_ms: int,
    tolerance_ms: int = TOLERANCE_MS,
) -> tuple[SignatureResult, int]:
    """Judge like `verify`, and return the index of the key that signed (-1 if none of them).

    An exact `tolerance_ms` is still in time, as in Retell's SDKs.
    """
    if header is None:
        return SignatureResult.MISSING, -1
    form = _FORM.fullmatch(header)
    if form is None:
        return SignatureResult.MALFORMED, -1
    ms = int(form[1])
    signer = _signer(keys, b"%b%d" % (body, ms), unhexlify(form[2]))
    if signer < 0:
        return SignatureResult.WRONG, -1
    if abs(wall_ms - ms) > tolerance_ms:
        return SignatureResult.STALE, signer
    return SignatureResult.OK, signer


def _signer(keys: Sequence[bytes], message: bytes, digest: bytes) -> int:
    found = -1
    for index, key in enumerate(keys):  # To the end: how long it takes says nothing of which key.
        if hmac.compare_digest(hmac.digest(key, message, "sha256"), digest):
            found = index
    return found
