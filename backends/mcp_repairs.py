"""In which session of the server does a legacy caller's session go on, now?

Its token names the one that it began with.  If the server has lost that since, a new one takes its
place here; elsewhere, another replica makes its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from backends.base import Send
from backends.mcp_flights import Flights
from backends.mcp_peer import Peer
from backends.mcp_sessions import YOUNG_MS
from proxy.core.dialects.members import document_of
from proxy.core.mcp.questions import introduction, params_of
from proxy.core.model import Session

SESSIONS_KEPT: Final = 5_000
"""Callers' sessions of which something is known here that their tokens do not say."""

PARAMS_KEPT: Final = 4_096
"""Bytes of what a caller said at the beginning of its session; of longer words only the version."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What a session began with (raw JSON, b"": not known), and what it is at the server now."""

    params: bytes = b""
    upstream: bytes | None = None
    moved_ms: int | None = None  # when it became another than the token says


class Repairs:
    """The callers' sessions at one server."""

    def __init__(self, peer: Peer, wall_ms: Callable[[], int]) -> None:
        self._peer = peer
        self._wall_ms = wall_ms
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._renewing: Flights[bytes | None] = Flights()

    def now(self, session: Session) -> bytes | None:
        """The server's ID of a caller's session; None: it has none."""
        known = self._known.get(session.id)
        if known is not None and known.moved_ms is not None:
            return known.upstream
        return session.upstream.encode() if session.upstream is not None else None

    def is_young(self, session: Session) -> bool:
        """It was begun anew a moment ago: its server seems to forget sessions all the time."""
        known = self._known.get(session.id)
        moved = known.moved_ms if known is not None else None
        return moved is not None and self._wall_ms() - moved < YOUNG_MS

    def begun(self, session: Session, message: bytes) -> None:
        """A caller's `initialize` was taken."""
        try:
            params = document_of(params_of(message))
        except ValueError:
            return
        if len(params) <= PARAMS_KEPT:
            self._keep(session.id, _Known(params))

    async def renew(self, session: Session, lost: bytes | None, send: Send) -> bytes | None:
        """Begin the session anew if nobody has since `lost` was; raises `UpstreamFailed`.

        None: the server keeps no sessions now.
        """
        now = self.now(session)
        if now != lost:
            return now
        return await self._renewing.once(session.id, partial(self._renew, session, send))

    async def _renew(self, session: Session, send: Send) -> bytes | None:
        known = self._known.get(session.id) or _Known()
        params = known.params or introduction(session.version.encode())
        agreed = await self._peer.shake_hands(send, params)
        self._keep(session.id, _Known(known.params, agreed.session, self._wall_ms()))
        return agreed.session

    def end(self, session: Session) -> None:
        """The caller has ended it."""
        self._known.pop(session.id, None)

    def _keep(self, session: str, known: _Known) -> None:
        self._known[session] = known
        self._known.move_to_end(session)
        if len(self._known) > SESSIONS_KEPT:
            self._known.popitem(last=False)
