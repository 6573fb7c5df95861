"""What happened to each exchange?  One access line each, off the request's path.

Lines have the shape of the events in `logs.py`, but are written straight by orjson: a
structlog event costs ten times as much.  A thread writes them, so that a slow disk or a
stalled pipe never stops a call; past the bound, lines are dropped and counted.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from proxy.adapters.logs import cap, dump, stamp
from proxy.core.exchange import Attempt, Exchange


def line(x: Exchange, wall_ms: int) -> dict[str, Any]:
    """The fields of one access line; `ms` are milliseconds.

    Call ID, tool and method are bounded where they are read; path and event are capped here.
    """
    return {
        "timestamp": stamp(wall_ms),
        "level": "info",
        "event": "exchange_ended",
        "request_id": x.request_id,
        "call_id": x.call_id,
        "kind": x.kind,
        "tool": x.tool,
        "call_event": cap(x.event),
        "arm": x.arm,
        "reason": x.reason,
        "decided": x.decided,
        "decided_by": x.decided_by,
        "outcome": x.outcome,
        "status": x.status,
        "code": x.code or None,
        "attempts": list(map(_attempt, x.attempts)),
        "flags": x.flags,
        "method": x.method,
        "path": cap(x.path),
        "peer": x.peer,
        "bytes_in": x.bytes_in,
        "bytes_out": x.bytes_out,
        "ms": _ms(x.ended - x.started),
    }


def _attempt(a: Attempt) -> dict[str, Any]:
    verdict = a.verdict
    return {
        "arm": a.arm,
        "verdict": verdict.label,
        "why": verdict.why,
        "status": a.status,
        "ms": _ms(a.seconds),
    }


def _ms(seconds: float) -> float:
    """Two digits; a third of what `round` costs."""
    return int(seconds * 100_000 + 0.5) / 100


class AccessLog:
    """Collects lines and hands them, some at a time, to a writing thread.

    `later(seconds, call)` is the loop's timer.  `dropped` counts lines lost
    because more than `pending_limit` chunks waited for the disk.
    """

    FLUSH_SECONDS = 0.1
    CHUNK_BYTES = 256 * 1024

    def __init__(
        self,
        fd: int,
        *,
        later: Callable[[float, Callable[[], None]], object],
        wall_ms: Callable[[], int],
        pending_limit: int = 256,
    ) -> None:
        self.dropped = 0
        self._fd = fd
        self._later = later
        self._wall_ms = wall_ms
        self._lines: list[bytes] = []
        self._size = 0
        self._armed = False
        self._queue: queue.Queue[tuple[bytes, int] | None] = queue.Queue(pending_limit)
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
        self._thread.start()

    def write(self, x: Exchange) -> None:
        """Add the line of an ended exchange."""
        text = dump(line(x, self._wall_ms()))
        self._lines.append(text)
        self._size += len(text)
        if self._size >= self.CHUNK_BYTES:
            self.flush()
        elif not self._armed:
            self._armed = True
            self._later(self.FLUSH_SECONDS, self._timer)

    def flush(self) -> None:
        """Hand what there is to the thread."""
        lines, self._lines, self._size = self._lines, [], 0
        if not lines:
            return
        try:
            self._queue.put_nowait((b"".join(lines), len(lines)))
        except queue.Full:
            self.dropped += len(lines)

    def close(self, timeout: float = 2.0) -> None:
        """Write the rest; wait for the disk for at most `timeout` seconds."""
        self.flush()
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _timer(self) -> None:
        self._armed = False
        self.flush()

    def _write(self) -> None:
        while (chunk := self._queue.get()) is not None:
            rest, count = memoryview(chunk[0]), chunk[1]
            try:
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            except OSError:  # the disk is full or the reader is gone: the calls go on
                self.dropped += count
