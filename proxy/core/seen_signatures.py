"""Has a request with this very signature been here before?

Retell signs a body and a time, so a request that was captured verifies again until that time is
too long ago.  Whatever verifies is remembered for as long.
"""

from __future__ import annotations

from hashlib import blake2b

MOST = 131_072
"""Signatures that are remembered at a time: more than 200 a second, with Retell's tolerance."""


class SeenSignatures:
    """The signatures that could still hold, in two generations; the older one goes as a whole.

    Beyond `most` the oldest are forgotten before their time: memory has a bound.
    """

    __slots__ = ("_old", "_room", "_rotates_at", "_young", "tolerance_ms")

    def __init__(self, tolerance_ms: int, *, most: int = MOST) -> None:
        self.tolerance_ms = tolerance_ms
        self._room = max(1, most // 2)
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()
        self._rotates_at = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def again(self, digest: bytes, wall_ms: int, target: str = "") -> bool:
        """Remember a signature that holds; True if it was known.

        Without a body it covers the time alone, and two requests may share that: then `target`
        (method, path and query) tells them apart.
        """
        if wall_ms >= self._rotates_at or len(self._young) >= self._room:
            self._rotate(wall_ms)
        if target:
            digest = blake2b(target.encode("utf-8", "surrogateescape"), key=digest).digest()
        key = digest[:12]
        known = key in self._young or key in self._old
        self._young.add(key)
        return known

    def _rotate(self, wall_ms: int) -> None:
        """One of the near future, seen now, holds for twice the tolerance."""
        idle = wall_ms >= self._rotates_at + 2 * self.tolerance_ms
        self._old = set() if idle else self._young
        self._young = set()
        self._rotates_at = wall_ms + 2 * self.tolerance_ms
