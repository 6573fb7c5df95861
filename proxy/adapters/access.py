"""What happened to each exchange?  One access line each, off the request's path.

Lines have the shape of the events in `logs.py`, but are encoded straight from structs, some at a
time: a structlog event costs twenty times as much.  A thread writes them, so that a slow disk or a
stalled pipe never stops a call; past the bound, lines are dropped and counted.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

import msgspec
from msgspec import Struct

from proxy.adapters.logs import cap, clean, legible, stamp
from proxy.core.exchange import Exchange


class Tried(Struct, gc=False):
    """One attempt of a line; `ms` are milliseconds."""

    arm: str
    verdict: str
    why: str | None
    status: int
    ms: float


class Line(Struct, gc=False):
    """The fields of one access line, in their order; `ms` are milliseconds."""

    timestamp: str
    level: str
    event: str
    request_id: str
    call_id: str | None
    session: str | None
    kind: str
    tool: str | None
    call_event: str | None
    arm: str
    reason: str | None
    decided: str
    decided_by: str | None
    outcome: str
    status: int
    code: str | None
    attempts: list[Tried]
    flags: list[str]
    method: str
    path: str | None
    peer: str
    bytes_in: int
    bytes_out: int
    ms: float


_encoder = msgspec.json.Encoder()
_encode, _encode_lines = _encoder.encode, _encoder.encode_lines


def line(x: Exchange, wall_ms: int) -> Line:
    """What is told of an exchange that ended at `wall_ms`.

    Call ID, tool and method are bounded where they are read; path and event are capped here.
    """
    return Line(
        stamp(wall_ms),
        "info",
        "exchange_ended",
        x.request_id,
        x.call_id,
        x.session,
        x.kind,
        x.tool,
        cap(x.event),
        x.arm,
        x.reason,
        x.decided,
        x.decided_by,
        x.outcome,
        x.status,
        x.code or None,
        [
            Tried(a.arm, a.verdict.label, a.verdict.why, a.status, _ms(a.seconds))
            for a in x.attempts
        ],
        x.flags,
        x.method,
        cap(x.path if x.path[:1] == "/" else _without_user(x.path)),
        x.peer,
        x.bytes_in,
        x.bytes_out,
        _ms(x.ended - x.started),
    )


def text(lines: list[Line]) -> bytes:
    """Lines of JSON, also for text that is not valid Unicode (bytes as surrogate escapes)."""
    try:
        told = _encode_lines(lines)
    except UnicodeEncodeError:
        told = b"".join([_encode(_cleaned(each)) + b"\n" for each in lines])
    return legible(told)


def _cleaned(each: Line) -> Line:
    fields = msgspec.structs.asdict(each)
    return msgspec.structs.replace(each, **{key: clean(value) for key, value in fields.items()})


def _ms(seconds: float) -> float:
    """Two digits; a third of what `round` costs."""
    return int(seconds * 100_000 + 0.5) / 100


class AccessLog:
    """Collects exchanges, encodes some at a time, hands what is due to a writing thread.

    `later(seconds, call)` is the loop's timer, `now()` the clock that exchanges are timed by.
    `dropped` counts lines lost because more than `pending_limit` chunks waited for the disk.
    """

    FLUSH_SECONDS = 0.1
    CHUNK_BYTES = 256 * 1024
    BATCH = 64  # exchanges encoded in one go: far less than a millisecond

    def __init__(
        self,
        fd: int,
        *,
        later: Callable[[float, Callable[[], None]], object],
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        pending_limit: int = 256,
    ) -> None:
        self.dropped = 0
        self._fd = fd
        self._later = later
        self._now = now
        self._wall_ms = wall_ms
        self._ended: list[Exchange] = []
        self._texts: list[bytes] = []
        self._size = 0
        self._count = 0
        self._armed = False
        self._queue: queue.Queue[tuple[bytes, int] | None] = queue.Queue(pending_limit)
        self._writer = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._writer.start()

    def write(self, x: Exchange) -> None:
        """Add the line of an ended exchange, of which nothing changes any more."""
        self._ended.append(x)
        if len(self._ended) >= self.BATCH:
            self._encode()
            if self._size >= self.CHUNK_BYTES:
                self.flush()
        if not self._armed:
            self._armed = True
            self._later(self.FLUSH_SECONDS, self._timer)

    def flush(self) -> None:
        """Hand what there is to the thread."""
        self._encode()
        texts, count = self._texts, self._count
        self._texts, self._size, self._count = [], 0, 0
        if not texts:
            return
        try:
            self._queue.put_nowait((b"".join(texts), count))
        except queue.Full:
            self.dropped += count

    def close(self, timeout: float = 2.0) -> None:
        """Write the rest; wait for the disk for at most `timeout` seconds."""
        self.flush()
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            return
        self._writer.join(timeout)

    def _encode(self) -> None:
        ended, self._ended = self._ended, []
        if not ended:
            return
        ago = self._wall_ms() - self._now() * 1000.0  # from the exchanges' clock to the wall's
        encoded = text([line(x, round(ago + x.ended * 1000.0)) for x in ended])
        self._texts.append(encoded)
        self._size += len(encoded)
        self._count += len(ended)

    def _timer(self) -> None:
        self._armed = False
        self.flush()

    def _write(self) -> None:
        while (chunk := self._queue.get()) is not None:
            rest, count = memoryview(chunk[0]), chunk[1]
            try:
                while rest:
                    written = os.write(self._fd, rest)  # Within the slice, C would write twice.
                    rest = rest[written:]
            except OSError:  # the disk is full or the reader is gone: the calls go on
                self.dropped += count


def _without_user(target: str) -> str:
    """A target that names a server (and is refused): a password may stand before its name."""
    place = target.find("://") + 3 if "://" in target else 0
    server, slash, path = target[place:].partition("/")
    return target[:place] + server.rpartition("@")[2] + slash + path
