"""A caller who has connected and must speak TLS before anything is heard of it.

Each handshake is made with the context of its moment, so that certificates can change, and TLS be
switched on and off, under callers who stay.  It has a place in the room of connections, and the
time that a caller has for its first head.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final, Protocol, cast

from proxy.adapters.listener.connection import Connection
from proxy.adapters.listener.room import OWES, Entry, Rank

if TYPE_CHECKING:
    from proxy.adapters.listener.acceptor import Acceptor

OUTCOMES: Final = (
    "ok", "timeout", "closed", "plain", "version", "certificate", "refused", "crowded", "other"
)  # fmt: skip
"""How handshakes end; `refused`: by the caller, who did not like our certificate, say."""

_REASONS: Final = {
    "HTTP_REQUEST": "plain",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
    "NO_SHARED_CIPHER": "version",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate",
    "CERTIFICATE_VERIFY_FAILED": "certificate",
    "UNEXPECTED_EOF_WHILE_READING": "closed",
}


class Tls(Protocol):
    """What callers are met with."""

    @property
    def of_callers(self) -> ssl.SSLContext | None:
        """For the next one; None: no TLS."""

    def shaken(self, outcome: str) -> None:
        """One handshake has ended."""


class Handshake(asyncio.Protocol):
    """Takes an accepted socket; a `Connection` comes of it, or nothing."""

    def __init__(self, acceptor: Acceptor, context: ssl.SSLContext) -> None:
        self.due = 0.0
        self._ended = False
        self._acceptor = acceptor
        self._context = context
        self._peer = ""
        self._own: socket.socket | None = None  # until somebody else sees to it
        self._outcome = "closed"
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket away from a transport that would read its bytes as they are."""
        raw, acceptor = cast(asyncio.Transport, transport), self._acceptor
        peer = raw.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        welcome = acceptor.room.enter(self._peer) is Entry.WELCOME and not acceptor.closed
        self._own = _copy(raw) if welcome else None
        if self._own is None:
            self._outcome = "crowded"  # To say so would take the handshake there is no room for.
            self.settle()
        else:
            self.due = acceptor._loop.time() + acceptor.options.head_timeout
            self._task = acceptor.shake(self, self._shake())
        raw.abort()  # This closes its own descriptor, and no connection.

    @property
    def rank(self) -> Rank | None:
        """Until it ends it is the caller's turn."""
        return None if self._ended else (OWES, self.due)

    def evict(self) -> None:
        """Make room for another."""
        self._ended = True
        self._outcome = "crowded"
        self.cut()

    def cut(self) -> asyncio.Task[None] | None:
        """End it now; the task that is ending."""
        if self._task is not None and self._outcome != "ok":
            self._task.cancel()
        return self._task

    def settle(self) -> None:
        """It is over."""
        if self._own is not None:
            self._own.close()
        if self._outcome != "ok":
            self._leave()

    def welcome(self) -> Connection:
        """What the loop hands the caller to once they have shaken hands."""
        return _Shaken(self._acceptor, self)

    def shaken(self) -> float:
        """They have: the place is the connection's.  When its first head is due."""
        self._ended = True  # Its task has yet to hear of it; the place can be left once only.
        self._outcome = "ok"
        self._leave()
        return self.due

    async def _shake(self) -> None:
        own, self._own = self._own, None
        assert own is not None
        options = self._acceptor.options
        try:
            await self._acceptor._loop.connect_accepted_socket(
                self.welcome,
                own,
                ssl=self._context,
                ssl_handshake_timeout=options.head_timeout,
                ssl_shutdown_timeout=options.linger,
            )
        except ssl.SSLError as error:
            self._outcome = _outcome(error)
        except ConnectionAbortedError:  # So both loops call a handshake that takes too long.
            self._outcome = "timeout"
        except OSError:
            pass  # The caller hung up.

    def _leave(self) -> None:
        self._acceptor.room.leave(self._peer, self)
        if self._acceptor.tls is not None:
            self._acceptor.tls.shaken(self._outcome)


class _Shaken(Connection):
    """A connection that took a handshake: its place and its first deadline are that one's."""

    __slots__ = ("_handshake",)

    def __init__(self, acceptor: Acceptor, handshake: Handshake) -> None:
        super().__init__(acceptor, acceptor._loop)
        self._handshake = handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The place in the room changes hands."""
        self.first_due = self._handshake.shaken()
        super().connection_made(transport)


def _copy(raw: asyncio.Transport) -> socket.socket | None:
    """The socket once more; None: no descriptor is left."""
    try:
        own: socket.socket = raw.get_extra_info("socket").dup()
    except OSError:
        return None
    return own


def _outcome(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    return "refused" if "ALERT" in reason else _REASONS.get(reason, "other")
