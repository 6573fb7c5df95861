"""Which side of a share is a call on?  The same on every replica, after every restart.

A threshold on the hash as a fraction, no modulus: 0 % is nobody, 100 % is everybody, and
raising a share only ever adds calls.  `tests/vectors/split.json` freezes the hash; changing it
moves live calls.
"""

from __future__ import annotations

import mmh3

RANGE = 1 << 32
"""Hashes lie in 0 .. RANGE - 1."""


def call_hash(call_id: str, salt: str) -> int:
    """MurmurHash3 x86 32 (seed 0, unsigned) of `salt:call_id`, the exact bytes.

    Bytes that are no UTF-8 arrive as surrogate escapes and are hashed as the bytes they were.
    """
    text = f"{salt}:{call_id}"
    try:
        # Never hand mmh3 a str: 5.3 crashes the process on one with a lone surrogate.
        raw = text.encode()
    except UnicodeEncodeError:
        raw = _raw(text)
    hashed: int = mmh3.hash(raw, 0, False)
    return hashed


def threshold(percent: float) -> int:
    """The first hash outside a share of `percent`."""
    return round(percent / 100 * RANGE)


def in_share(hashed: int, percent: float) -> bool:
    """True if a call of this hash is among `percent` of all calls."""
    return hashed < threshold(percent)


def _raw(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate, as JSON can spell it; any fixed bytes will do
        return text.encode("utf-8", "surrogatepass")
