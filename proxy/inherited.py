"""What does this process begin with?  Sockets that it was given, and a process that it follows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

from proxy.adapters import sockets
from proxy.adapters.channel import Channel, No, tell
from proxy.adapters.rendezvous import visit
from proxy.adapters.replay_file import ReplayFile
from proxy.adapters.sockets import LISTENER
from proxy.adapters.state_dir import StateDir
from proxy.core.rules import Address
from proxy.durable import Durable
from proxy.errors import SettingsError
from proxy.once import Once
from proxy.ports import Clock
from proxy.predecessor import Predecessor, Start

PREDECESSOR = "CALLSPLIT_PREDECESSOR"
"""The descriptor that leads to the process which started this one to follow it."""


class Inherited:
    """Sockets by name, and whom to follow; fits `proxy.doors.Source`."""

    def __init__(
        self,
        given: Mapping[str, socket.socket] | None = None,
        before: Predecessor | None = None,
        note: str = "",
    ) -> None:
        self.before = before
        self.note = note  # what an operator should know
        self._given = dict(given or {})
        offered = before.offered if before is not None else []
        self.addresses = {  # where those listen that outrank the rules
            place.name: Address(*sockets.address(sock)) for place, sock in offered if place.given
        } | {name: Address(*sockets.address(sock)) for name, sock in self._given.items()}

    @classmethod
    async def find(cls, environment: Mapping[str, str], *, pid: int, state_dir: str) -> Inherited:
        """Look at what this process was started with, and who holds its `state_dir`.

        Raises `SettingsError` for sockets that cannot be used, and if it may not follow who does.
        """
        given = sockets.given(environment, pid)
        note = ""
        if environment.get("LISTEN_FDS") and not sockets.is_for(environment, pid):
            note = f"LISTEN_FDS is for process {environment['LISTEN_PID']}, not for this one"
        sock = _parent(environment) or visit(state_dir)
        if sock is None:
            return cls(given, note=note)
        channel = Channel(sock)
        listener = given.get(LISTENER)
        inode = sockets.inode(listener) if listener is not None else 0
        try:
            before = await Predecessor.meet(channel, pid=pid, listener=inode)
        except BaseException:
            channel.close()
            sockets.close(given.values())
            raise
        return cls(given, before, note)

    def state(self, path: str) -> StateDir:
        """The state directory: this process's own, or to be taken over.  Raises `SettingsError`."""
        return StateDir.open(path) if self.before is None else self.before.state(path)

    def claim(self, name: str, address: str) -> list[socket.socket]:
        """Sockets of that name: those given to this process, else the other one's."""
        if (own := self._given.pop(name, None)) is not None:
            return [own]
        return self.before.claim(name, address) if self.before is not None else []

    def given(self, name: str) -> bool:
        """Whether a service manager gave it."""
        return name in self.addresses

    async def learn(
        self,
        once: Once,
        durable: Durable,
        state: StateDir,
        replays: ReplayFile,
        *,
        clock: Clock,
        start: Start,
    ) -> None:
        """Know what has run and what waits, before the first call.

        From the file of the process that was here last, or from the one that still serves: from
        here on that does not.  Raises `SettingsError`.
        """
        before = self.before
        if before is None:
            replays.load(once.guard, once.events)
            await durable.start()
            return
        told = await before.take(state)
        replays.take_over(told.replays, once.guard, once.events)
        await before.go(once, told)
        state.sign()
        await durable.start()  # Not before: until its last word the old one may go on with it.
        before.serve(once, durable, clock=clock, start=start)
        keep = asyncio.to_thread(replays.keep, told.replays, len(once.guard.store))
        start(keep, "replays of the process before this one")

    async def fail(self, why: str) -> None:
        """It comes to nothing: tell the process that was to be followed."""
        if self.before is not None:
            await self.before.fail(why)

    def close(self) -> None:
        """Let go of what nobody claimed."""
        sockets.close(self._given.values())
        self._given.clear()
        if self.before is not None:
            self.before.refuse()


def excuse(environment: Mapping[str, str], why: str) -> None:
    """Tell the process that started this one why it will not follow; where no loop runs."""
    try:
        sock = _parent(environment)
    except SettingsError:
        return
    if sock is not None:
        tell(sock, No(why))
        sock.close()


def _parent(environment: Mapping[str, str]) -> socket.socket | None:
    place = environment.get(PREDECESSOR, "")
    if not place:
        return None
    try:
        return socket.socket(fileno=int(place))
    except (ValueError, OverflowError, OSError):
        raise SettingsError(f"{PREDECESSOR} is set by callsplit itself, for a restart") from None
