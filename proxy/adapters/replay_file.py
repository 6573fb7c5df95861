"""How does what the replay guards know pass from one process to the next?  In one file.

It is written when a process ends well and read when the next one starts.  It stays where it is:
after a crash an old truth is better than none, for it can only keep a write from running again.
"""

from __future__ import annotations

from hashlib import blake2b
from threading import Lock
from typing import Final

import msgspec
from structlog.typing import FilteringBoundLogger

from proxy.adapters.state_dir import StateDir
from proxy.core.replay import ReplayGuard
from proxy.core.replay_dump import Saved, dump, load
from proxy.core.replay_events import EventGuard
from proxy.errors import SettingsError
from proxy.ports import Clock

FILE: Final = "replays"

_HEAD: Final = b"callsplit replays 1\n"
_DIGEST: Final = 16  # bytes, before the values in MessagePack

_read = msgspec.msgpack.Decoder(Saved).decode


class ReplayFile:
    """The guards' file in the state directory.  No trouble with it keeps the service away."""

    def __init__(self, state: StateDir, *, clock: Clock, log: FilteringBoundLogger) -> None:
        self._state = state
        self._clock = clock
        self._log = log
        self._writing = Lock()  # Two threads may: see `keep`.
        self._closed = False

    def load(self, guard: ReplayGuard, events: EventGuard) -> None:
        """Take over what the last process knew, before the first request.

        A file that cannot be used is set aside.
        """
        if not self._state.writable:
            self._log.warning(
                "replays_in_memory_only", state_dir=str(self._state.path), why=self._state.why
            )
            return
        try:
            text = self._state.read(FILE)
            if text is None:
                return
            saved = opened(text)
            load(saved, guard, events, now=self._clock.now(), wall_ms=self._clock.wall_ms())
        except OSError as error:
            self._log.error("replays_not_read", why=error.strerror)
        except ValueError as error:
            self._set_aside(str(error))
        else:
            store = guard.store
            self._log.info("replays_loaded", records=len(store), unknown=store.unknown)

    def take_over(self, text: bytes, guard: ReplayGuard, events: EventGuard) -> None:
        """Know what the process before this one knows; raises `SettingsError` if it is no use."""
        now, wall_ms = self._clock.now(), self._clock.wall_ms()
        try:
            load(opened(text), guard, events, now=now, wall_ms=wall_ms)
        except ValueError as error:
            raise SettingsError(f"what has run there cannot be read here: {error}") from None

    def text(self, guard: ReplayGuard, events: EventGuard) -> bytes:
        """The file, as it would be now."""
        return closed(dump(guard, events, now=self._clock.now(), wall_ms=self._clock.wall_ms()))

    def keep(self, text: bytes, records: int) -> None:
        """Have this as the file, unless it is closed or saved: that was the last word.

        Blocks until the disk has it, and may be asked in any thread.
        """
        with self._writing:
            if not self._closed:
                self._write(text, records)

    def close(self) -> None:
        """Write nothing more; blocks until the disk has what is being written."""
        with self._writing:
            self._closed = True

    def save(self, guard: ReplayGuard, events: EventGuard) -> None:
        """Leave it to the next process; blocks until the disk has it."""
        if not self._state.writable:
            return
        text = self.text(guard, events)
        with self._writing:
            self._closed = True
            self._write(text, len(guard.store))

    def _write(self, text: bytes, records: int) -> None:
        if not self._state.writable:
            return
        try:
            self._state.replace(FILE, text)
        except OSError as error:
            self._log.error("replays_not_written", why=error.strerror, records=records)

    def _set_aside(self, why: str) -> None:
        """For a person to look at; what it knew is lost, so a repeat may run."""
        try:
            place = str(self._state.set_aside(FILE, self._clock.wall_ms()))
        except OSError as error:
            place = f"not set aside: {error.strerror}"
        self._log.error("replays_broken", why=why, file=place)


def closed(saved: Saved) -> bytes:
    """The file's bytes."""
    values = msgspec.msgpack.encode(saved)
    return _HEAD + blake2b(values, digest_size=_DIGEST).digest() + values


def opened(text: bytes) -> Saved:
    """What the file's bytes say; raises ValueError if they are not what was once written."""
    if not text.startswith(_HEAD):
        raise ValueError("it does not begin as such a file does")
    rest = memoryview(text)[len(_HEAD) :]
    digest, values = rest[:_DIGEST], rest[_DIGEST:]
    if blake2b(values, digest_size=_DIGEST).digest() != digest:
        raise ValueError("it is cut or altered: the digest does not fit")
    return _read(values)
