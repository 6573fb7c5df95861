"""Is this one of our tokens?  Compared as digests: no length, no place, no prefix leaks by time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256


class TokenSet:
    """Secrets that may be presented; only their digests are kept."""

    __slots__ = ("_digests",)

    def __init__(self, tokens: Iterable[bytes]) -> None:
        tokens = tuple(tokens)
        if not all(tokens):
            raise ValueError("a token is empty: it would let anybody in")
        self._digests = tuple(sha256(token).digest() for token in tokens)

    def __len__(self) -> int:
        return len(self._digests)

    def find(self, presented: bytes) -> int:
        """The place of the equal one, or -1; every one is compared, whichever it is."""
        digest, found = sha256(presented).digest(), -1
        for place, ours in enumerate(self._digests):
            if hmac.compare_digest(ours, digest):
                found = place
        return found


def bearer(value: bytes) -> bytes | None:
    """The token in an Authorization field; None if there is none in it (RFC 6750, 2.1)."""
    if value[:7].lower() != b"bearer ":
        return None
    return value[7:].strip(b" ") or None
