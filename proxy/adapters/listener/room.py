"""Is there room for one more client, or one more body, and who makes room if there is little?"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from heapq import nsmallest
from operator import attrgetter
from typing import Protocol

from proxy.core.addresses import NOWHERE, Networks
from proxy.core.limits import neighbourhood

CROWDED = 0.9
"""Of all connections: from here on those who say nothing make room for others."""

SPARE = 64
"""Connections beyond a bound that hear why they are closed; beyond those there is no word."""

FREE = 16_384
"""Bytes of each body that always have room: what most calls send whole."""


class Client(Protocol):
    """What is to be known of a connection."""

    due: float

    @property
    def owes(self) -> bool:
        """It is the client's turn to say something."""

    def expire(self) -> None:
        """End its patience now."""


class Entry(Enum):
    """What becomes of a client who comes."""

    WELCOME = "it is served"
    TURNED_AWAY = "it hears why not"
    CUT = "there is no room even for that"


class Room:
    """The clients of one listener, counted.

    `most` bounds all of them, `per_address` those of one address (of one /64 in IPv6) that is
    none of `trusted`: a proxy's clients are many.
    """

    def __init__(
        self, most: int, *, per_address: int | None = None, trusted: Networks = NOWHERE
    ) -> None:
        self.open = 0
        self.let_go = 0  # to make room, before their time
        self.refused = {"full": 0, "address": 0}
        self._by_address: dict[str, int] = {}
        self.resize(most, per_address=per_address, trusted=trusted)

    def resize(
        self, most: int, *, per_address: int | None = None, trusted: Networks = NOWHERE
    ) -> None:
        """Other bounds, for whoever comes from now on."""
        self.most = most
        self._per_address = per_address
        self._trusted = trusted

    def enter(self, peer: str) -> Entry:
        """One comes.  Counted whatever becomes of it: tell `leave` when it is gone."""
        self.open += 1
        beyond = self.open - self.most
        reason = "full"
        if peer:
            place = neighbourhood(peer)
            here = self._by_address[place] = self._by_address.get(place, 0) + 1
            if beyond <= 0 and self._per_address is not None and peer not in self._trusted:
                beyond, reason = here - self._per_address, "address"
        if beyond <= 0:
            return Entry.WELCOME
        self.refused[reason] += 1
        return Entry.TURNED_AWAY if beyond <= SPARE else Entry.CUT

    def leave(self, peer: str) -> None:
        """One has gone."""
        self.open -= 1
        if not peer:
            return
        place = neighbourhood(peer)
        here = self._by_address[place] - 1
        if here:
            self._by_address[place] = here
        else:
            del self._by_address[place]

    def make_room(self, clients: Iterable[Client]) -> None:
        """If it is crowded, let those go who have kept us waiting longest.

        By their own deadlines: first who came and said nothing or stopped half way, last the kept
        connections of good clients.  Nobody goes whose request is being answered.
        """
        excess = self.open - int(self.most * CROWDED)
        if excess <= 0:
            return
        waited_for = [client for client in clients if client.owes]
        for client in nsmallest(excess, waited_for, key=attrgetter("due")):
            self.let_go += 1
            client.expire()


class Arriving:
    """Request bodies that are still on their way in: how many, and how much of them is here.

    Whose they are is mostly not known yet: a signature is over the whole body.  `most` bounds what
    they hold in memory together, beyond `FREE` of each; None: no bound.
    """

    __slots__ = ("bodies", "held", "most")

    def __init__(self, most: int | None = None) -> None:
        self.bodies = 0
        self.held = 0
        self.most = most

    def grow(self, size: int) -> bool:
        """So many bytes more of a body are here; False: that is too much."""
        self.held += size
        return self.most is None or self.held <= self.most
