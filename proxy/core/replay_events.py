"""Has this event been delivered already?  In doubt it is delivered: better twice than never."""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

from proxy.core.fingerprints import Fingerprints
from proxy.core.model import Call, Kind

MOST = 200_000
KEEP = 24 * 3600.0
LEASE = 60.0
"""Seconds after which a delivery under way keeps nobody waiting: no event may take that long."""

_ONCE = frozenset(
    {"call_started", "call_ended", "call_analyzed", "chat_started", "chat_ended", "chat_analyzed"}
)
"""Events that a call or chat has once.  Any other may come again, and then says something else."""

_EVERY_TIME = "transcript_updated"
_EVENT = Kind.EVENT  # Bound once: reading a member of an enumeration is slow in Python 3.11.


class EventStep(StrEnum):
    """What to do about an event."""

    DELIVER = "deliver"
    WAIT = "wait"  # it is being delivered
    DELIVERED = "delivered"


_DELIVER, _WAIT, _DELIVERED = EventStep.DELIVER, EventStep.WAIT, EventStep.DELIVERED


def event_key(call: Call) -> int | None:
    """The same positive number, below 2**64, for the same event; None: deliver it every time.

    That the signature's time may change from try to try does not matter.
    """
    event = call.event
    if call.kind is not _EVENT or call.id is None or event is None or event == _EVERY_TIME:
        return None
    text = f"{len(event)}:{event}{len(call.id)}:{call.id}".encode()
    if event not in _ONCE:  # a transfer's destination is part of its body
        text += blake2b(call.body, digest_size=16).digest()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") or 1


class EventGuard:
    """Which events are under way, and which have been taken; `now` is seconds."""

    def __init__(self, *, most: int = MOST, keep: float = KEEP) -> None:
        self.delivered = Fingerprints(keep=keep, most=most)
        self._under_way: dict[int, float] = {}  # since when

    @property
    def under_way(self) -> int:
        """Events that are being delivered."""
        return len(self._under_way)

    def keys_under_way(self) -> list[int]:
        """Of those."""
        return list(self._under_way)

    def begin(self, key: int, now: float) -> EventStep:
        """What to do about an event; after DELIVER, `ended` must tell what came of it."""
        if self.delivered.seen(key, now):
            return _DELIVERED
        began = self._under_way.get(key)
        if began is not None and now < began + LEASE:
            return _WAIT
        self._under_way[key] = now
        return _DELIVER

    def ended(self, key: int, now: float, *, delivered: bool) -> None:
        """It was taken with a 2xx, or not: then its next try is delivered."""
        self._under_way.pop(key, None)
        if delivered:
            self.delivered.add(key, now)
