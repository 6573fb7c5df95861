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

    Beyond `most` the oldest are forgotten before their time: memory has a bound, 2 MiB.
    """

    __slots__ = ("_longest_ms", "_old", "_room", "_rotated_at", "_young")

    def __init__(self, *, most: int = MOST) -> None:
        self._longest_ms = 0  # tolerance since it last rotated
        self._room = max(1, most // 2)
        self._young = _Generation(self._room)
        self._old = _Generation(1)
        self._rotated_at = 0

    def __len__(self) -> int:
        return self._young.count + self._old.count

    def again(self, digest: bytes, wall_ms: int, target: str = "", *, tolerance_ms: int) -> bool:
        """Remember a signature that holds; True if it was known.

        The tolerance may change: what is here stays for the longest one until it has rotated.

        Without a body it covers the time alone, and two requests may share that: then `target`
        (method, path and query) tells them apart.
        """
        self._longest_ms = max(self._longest_ms, tolerance_ms)
        if self._is_past(wall_ms, 2) or self._young.count >= self._room:
            self._rotate(wall_ms, tolerance_ms)
        key = _key(digest, target)
        known = self._old.has(key)
        return not self._young.add(key) or known

    def forget(self, digest: bytes, target: str = "") -> None:
        """Take back what was new a moment ago: its request was only told to come again."""
        key = _key(digest, target)
        self._young.remove(key)
        self._old.remove(key)  # Others may have come meanwhile, and with them a rotation.

    def _rotate(self, wall_ms: int, tolerance_ms: int) -> None:
        """One of the near future, seen now, holds for twice the tolerance."""
        self._old = _Generation(1) if self._is_past(wall_ms, 4) else self._young
        self._young = _Generation(self._room)
        self._rotated_at, self._longest_ms = wall_ms, tolerance_ms

    def _is_past(self, wall_ms: int, times: int) -> bool:
        return wall_ms >= self._rotated_at + times * self._longest_ms


def _key(digest: bytes, target: str) -> int:
    if target:
        digest = blake2b(target.encode("utf-8", "surrogateescape"), key=digest).digest()
    return int.from_bytes(digest[:8], "little") or 1


class _Generation:
    """A set of numbers from 1 to 2**64 - 1, 16 bytes each at the most: open addressing, half empty.

    A set of Python's takes five times that, and milliseconds to be let go.  They are pieces of
    digests, so nobody who does not know the key can choose where they fall.
    """

    __slots__ = ("_mask", "_slots", "count")

    def __init__(self, room: int) -> None:
        size = 1 << (2 * room - 1).bit_length()
        self.count = 0
        self._mask = size - 1
        self._slots = memoryview(bytearray(8 * size)).cast("Q")  # pages come as they are used

    def has(self, key: int) -> bool:
        return self._slots[self._place(key)] == key

    def add(self, key: int) -> bool:
        """True if it is new."""
        place = self._place(key)
        if self._slots[place] == key:
            return False
        self._slots[place] = key
        self.count += 1
        return True

    def remove(self, key: int) -> None:
        """Close the gap too: what was placed past it must be found without it."""
        slots, mask = self._slots, self._mask
        gap = self._place(key)
        if slots[gap] != key:
            return
        self.count -= 1
        place = (gap + 1) & mask
        while (found := slots[place]) != 0:
            if (place - found) & mask >= (place - gap) & mask:  # It may stand as far back as there.
                slots[gap], gap = found, place
            place = (place + 1) & mask
        slots[gap] = 0

    def _place(self, key: int) -> int:
        """Where it stands, or the free place where it belongs."""
        slots, mask = self._slots, self._mask
        place = key & mask
        while (found := slots[place]) != 0 and found != key:
            place = (place + 1) & mask
        return place
