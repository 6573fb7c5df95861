"""In which session of ours is a legacy server asked, if it keeps any?

A call has one of its own: what a session remembers is nobody else's business.  What belongs to no
call is asked in sessions that have one exchange at a time.  A few begun sessions lie ready, so
that a call's first tool need not wait for a handshake; a call that got one keeps it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Final

from backends.base import BackendConfig, Send
from backends.mcp_flights import Flights
from backends.mcp_peer import Agreed, Peer
from proxy.core.mcp.across import Welcome
from proxy.errors import UpstreamFailed

CALLS_KEPT: Final = 5_000
"""Calls whose sessions are kept: half of the sessions that the SDKs' servers hold."""

IDLE_MS: Final = 25 * 60_000
"""A session unused for so long is given up, before its server does so (the SDKs' after 30 min)."""

YOUNG_MS: Final = 10_000
"""A session that is lost so early is begun anew only within the budget of repeats."""

READY: Final = 2
"""Begun sessions that wait for a call."""

LOOSE: Final = 8
"""Sessions kept for what belongs to no call."""

_PATIENCE_MS: Final = 3_000  # with an errand that begins sessions: it may never have been run
_ENDED_AT_ONCE: Final = 4  # idle sessions per lease: there may be thousands after a lull


@dataclass(slots=True, eq=False)
class Seat:
    """A session of ours, or none where the server keeps none; `key` is the call that it is for."""

    agreed: Agreed
    used_ms: int = 0
    key: str | None = None
    users: int = 0
    lost: bool = False  # the server does not know it any more
    began_ms: int = 0


class Sessions:
    """Our own sessions at one server."""

    def __init__(self, peer: Peer, config: BackendConfig) -> None:
        self._peer = peer
        self._aside = config.aside
        self._wall_ms = config.wall_ms
        self._without: Seat | None = None  # the server keeps no sessions
        self._of: OrderedDict[str, Seat] = OrderedDict()  # by call, the longest unused first
        self._ready: list[Seat] = []
        self._loose: list[Seat] = []
        self._opening: Flights[Seat] = Flights()
        self._readying_until = 0

    async def lease(self, key: str | None, send: Send) -> Seat:
        """The session of call `key`, or any; give it back with `release`.

        Raises `UpstreamFailed` if it must be begun and the handshake fails.
        """
        if self._without is not None:
            return self._without
        now = self._wall_ms()
        self._end_idle(now)
        if key is None:
            seat = self._take(self._loose, now) or await self._begin(send)
        else:
            seat = self._of.get(key) or await self._opening.once(
                key, partial(self._begin_for, key, send)
            )
        seat.users += 1
        seat.used_ms = now
        if seat.key is not None and seat.key in self._of:
            self._of.move_to_end(seat.key)
        return seat

    def release(self, seat: Seat) -> None:
        """The exchange in it is over."""
        if seat.agreed.session is None:
            return
        seat.users -= 1
        seat.used_ms = self._wall_ms()
        if seat.lost:
            return
        if seat.key is None and len(self._loose) < LOOSE:
            self._loose.append(seat)
        elif not seat.users and (seat.key is None or self._of.get(seat.key) is not seat):
            self.end(seat.agreed)

    def is_young(self, seat: Seat) -> bool:
        """It began a moment ago: its server seems to forget sessions all the time."""
        return self._wall_ms() - seat.began_ms < YOUNG_MS

    def lose(self, seat: Seat) -> None:
        """The server does not know it any more, and so hardly those that wait; release it too."""
        if seat.lost:
            return
        seat.lost = True
        self._ready.clear()
        self._loose.clear()
        if self._without is seat:
            self._without = None
        if seat.key is not None and self._of.get(seat.key) is seat:
            del self._of[seat.key]

    async def welcome(self, send: Send) -> Welcome:
        """How the server introduced itself."""
        if self._peer.welcome is None:
            self.release(await self.lease(None, send))
        return self._peer.welcome or Welcome()

    async def serves_legacy(self, send: Send) -> bool:
        """Whether the server still takes a handshake that is known to be well-formed."""
        try:
            self.end(await self._peer.shake_hands(send))
        except UpstreamFailed:
            return not self._peer.no_legacy
        return True

    def make_ready(self) -> None:
        """Have sessions begun beside the path, if some are missing or have grown old."""
        now = self._wall_ms()
        while self._ready and now - self._ready[0].used_ms >= IDLE_MS:  # The oldest are first.
            self.end(self._ready.pop(0).agreed)
        if self._without is None and len(self._ready) < READY and now >= self._readying_until:
            self._readying_until = now + _PATIENCE_MS
            self._aside(self._fill)

    async def _fill(self, send: Send) -> None:
        try:
            while self._without is None and len(self._ready) < READY:
                seat = await self._shake_hands(send)
                if seat.agreed.session is not None:
                    self._ready.append(seat)
        finally:
            self._readying_until = 0

    async def _begin_for(self, key: str, send: Send) -> Seat:
        seat = await self._begin(send)
        if seat.agreed.session is None:
            return seat
        seat.key = key
        self._of[key] = seat
        if len(self._of) > CALLS_KEPT:
            _, oldest = self._of.popitem(last=False)
            if not oldest.users:  # Else whoever uses it ends it.
                self.end(oldest.agreed)
        return seat

    async def _begin(self, send: Send) -> Seat:
        seat = self._take(self._ready, self._wall_ms()) or await self._shake_hands(send)
        self.make_ready()
        return seat

    async def _shake_hands(self, send: Send) -> Seat:
        now = self._wall_ms()
        seat = Seat(await self._peer.shake_hands(send), now, began_ms=now)
        if seat.agreed.session is None:
            self._without = seat
        return seat

    def _take(self, seats: list[Seat], now: int) -> Seat | None:
        while seats:
            seat = seats.pop(0)  # In turn: so none of them grows old unseen.
            if now - seat.used_ms < IDLE_MS:
                return seat
            self.end(seat.agreed)
        return None

    def _end_idle(self, now: int) -> None:
        for _ in range(_ENDED_AT_ONCE):
            seat = next(iter(self._of.values()), None)
            if seat is None or seat.users or now - seat.used_ms < IDLE_MS:
                return
            self._of.popitem(last=False)
            self.end(seat.agreed)

    def end(self, agreed: Agreed) -> None:
        """Tell the server, beside the path, that nobody needs a session any more."""
        if agreed.session is not None:
            self._aside(partial(self._peer.end, agreed))
