"""Is there room for one more client, or one more body, and who makes room if there is little?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from heapq import nsmallest
from operator import itemgetter
from typing import Final, Protocol, TypeAlias

from proxy.core.addresses import NOWHERE, Networks
from proxy.core.limits import neighbourhood

PART = 0.1
"""Of all connections: so many make room at once, for to look for them takes a while."""

SPARE = 64
"""Connections beyond a bound that hear why they are closed; beyond those there is no word."""

FREE = 16_384
"""Bytes of each body that always have room: what most calls send whole."""


Rank: TypeAlias = tuple[int, float]
"""Who is to make room: the lowest first."""

DONE: Final = 0  # has all it asked for, and only its end of the connection is still open
OWES: Final = 1  # it is the client's turn to say something; by when


class Client(Protocol):
    """What is to be known of a connection."""

    @property
    def rank(self) -> Rank | None:
        """None: it stays, whoever comes."""

    def evict(self) -> None:
        """End it now, without a word."""


class Entry(Enum):
    """What becomes of a client who comes."""

    WELCOME = "it is served"
    TURNED_AWAY = "it hears why not"
    CUT = "there is no room even for that"


class Room:
    """The clients of one listener, counted; `clients()` are those whom it can let go.

    `most` bounds all of them, `per_address` those of one address (of one /64 in IPv6) that is
    none of `trusted`: a proxy's clients are many.
    """

    def __init__(self, most: int, *, clients: Callable[[], Iterable[Client]] = lambda: ()) -> None:
        self.open = 0
        self.let_go = 0  # to make room, before their time
        self.refused = {"full": 0, "address": 0}
        self._clients = clients
        self._leaving: set[Client] = set()  # let go, and not gone yet
        self._searched = False  # in vain; until `look_again`
        self._by_address: dict[str, int] = {}
        self.resize(most)

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
        beyond, reason = self._beyond_share(peer), "address"
        if beyond <= 0:
            beyond, reason = self._beyond(), "full"
            if beyond > 0:
                self._make_room(beyond)
                beyond = self._beyond()
        if beyond <= 0:
            return Entry.WELCOME
        self.refused[reason] += 1
        return Entry.TURNED_AWAY if beyond <= SPARE else Entry.CUT

    def leave(self, peer: str, client: Client | None = None) -> None:
        """One has gone."""
        self.open -= 1
        if client is not None:
            self._leaving.discard(client)
        if not peer:
            return
        place = neighbourhood(peer)
        here = self._by_address[place] - 1
        if here:
            self._by_address[place] = here
        else:
            del self._by_address[place]

    def look_again(self) -> None:
        """Some time has passed: there may be somebody to let go."""
        self._searched = False

    def _beyond(self) -> int:
        return self.open - len(self._leaving) - self.most

    def _beyond_share(self, peer: str) -> int:
        """By how many this address has more than its own."""
        if not peer:
            return 0
        place = neighbourhood(peer)
        here = self._by_address[place] = self._by_address.get(place, 0) + 1
        if self._per_address is None or peer in self._trusted:
            return 0
        return here - self._per_address

    def _make_room(self, beyond: int) -> None:
        """Let those go who lose least, then those who have kept us waiting longest.

        By their own deadlines: first who came and said nothing or stopped half way, last the kept
        connections of good clients.  Nobody goes whose request is being answered.
        """
        if self._searched:
            return
        wanted = max(int(self.most * PART), min(beyond, SPARE))
        leaving, ranked = self._leaving, []
        for client in self._clients():
            rank = client.rank
            if rank is not None and client not in leaving:
                ranked.append((rank, client))
        self._searched = len(ranked) < wanted
        for _, client in nsmallest(wanted, ranked, key=itemgetter(0)):
            self._leaving.add(client)
            self.let_go += 1
            client.evict()


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
