"""What an operator sees of the outbox, and may do: fits the admin's `OutboxOperations` port.

Plain JSON values.  A body is personal data, and is shown only to who asks for it; a header that
holds a credential is not shown at all.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any, Final

from proxy.adapters.logs import stamp
from proxy.adapters.outbox import EventOutbox
from proxy.core.model import Headers
from proxy.core.outbox import Entry, State
from proxy.core.rules.fill import is_secret_name
from proxy.durable import Durable
from proxy.errors import StoreFailed
from proxy.ports import Clock

MOST: Final = 1000
"""Entries on one page."""

DEAD: Final = "dead"
"""Instead of a number: all that are dead."""

STATES: Final = {
    "all": frozenset(State),
    "queued": frozenset({State.QUEUED}),
    "dead": frozenset({State.DEAD}),
}
_HIDDEN: Final = frozenset({"authorization", "cookie", "x-retell-signature"})


class OutboxDesk:
    """Reads and changes the outbox of a running sidecar."""

    def __init__(self, durable: Durable, clock: Clock) -> None:
        self._durable = durable
        self._clock = clock

    def summary(self) -> dict[str, Any]:
        """How it stands, in a few figures."""
        box = self._durable.box
        if box is None:
            return {"store": None, "usable": False, "why": self._durable.why_not}
        lines, wall_ms = box.lines, self._clock.wall_ms()
        oldest = lines.oldest_ms
        return {
            "store": box.store.name,
            "usable": box.usable,
            "why": box.why,
            "takes": box.terms.enabled,
            "delivers": box.store.leading,
            "queued": lines.queued,
            "dead": lines.dead,
            "under_way": lines.out,
            "bytes": lines.size,
            "oldest_seconds": None if oldest is None else max(0, (wall_ms - oldest) // 1000),
        }

    def overview(self, state: str, call_id: str | None) -> dict[str, Any]:
        """That, and the entries, oldest first; raises ValueError for an unknown state."""
        if (wanted := STATES.get(state)) is None:
            raise ValueError(f"Expected {', '.join(STATES)}.")
        box = self._durable.box
        fit = [
            entry
            for entry in (box.lines if box is not None else ())
            if entry.state in wanted and call_id in (None, entry.call_id)
        ]
        rows = [self._row(box, entry) for entry in fit[:MOST]] if box is not None else []
        return {**self.summary(), "entries": rows, "left_out": len(fit) - len(rows)}

    async def show(self, entry: str, *, body: bool) -> dict[str, Any]:
        """One of them with its request; raises KeyError or `StoreFailed`."""
        box = self._box()
        found = _found(box, entry)
        letter = await box.letter(found.id)
        if letter is None:
            return {**self._row(box, found), "request": None}
        request: dict[str, Any] = {
            "method": letter.method,
            "target": letter.target,
            "headers": [[name, value] for name, value in _shown(letter.headers)],
            "body_bytes": len(letter.body),
        }
        if body:
            request |= _text(letter.body)
        return {**self._row(box, found), "request": request}

    async def retry(self, entry: str) -> dict[str, Any]:
        """Have one delivered now, or of all that are dead as many as a page holds.

        Raises KeyError, ValueError if it is being delivered, or `StoreFailed`.
        """
        box = self._box()
        meant = _meant(box, entry)
        done = await asyncio.gather(*map(box.retry, meant[:MOST]))
        if not all(done):
            raise ValueError("It is being delivered at the moment.")
        return {"retried": len(done), "left": len(meant) - len(done)}

    async def drop(self, entry: str) -> dict[str, Any]:
        """Forget one, or of all that are dead as many as a page holds.

        Raises KeyError or `StoreFailed`.
        """
        box = self._box()
        meant = _meant(box, entry)
        done = await asyncio.gather(*(box.drop(found.id) for found in meant[:MOST]))
        return {"dropped": len(done), "left": len(meant) - len(done)}

    def _box(self) -> EventOutbox:
        if self._durable.box is None:
            raise StoreFailed(self._durable.why_not)
        return self._durable.box

    def _row(self, box: EventOutbox, entry: Entry) -> dict[str, Any]:
        under_way = box.lines.is_out(entry.id)
        waits = entry.state is State.QUEUED and not under_way
        return {
            "id": entry.id,
            "call_id": entry.call_id,
            "kind": entry.kind,
            "event": entry.event,
            "arm": entry.arm,
            "state": entry.state,
            "under_way": under_way,
            "received_at": stamp(entry.received_ms),
            "tries": entry.tries,
            "next_at": stamp(entry.next_ms) if waits else None,
            "bytes": entry.size,
            "reason": entry.reason,
        }


def _meant(box: EventOutbox, entry: str) -> list[Entry]:
    if entry == DEAD:
        return [each for each in box.lines if each.state is State.DEAD]
    return [_found(box, entry)]


def _found(box: EventOutbox, entry: str) -> Entry:
    found = box.lines.find(int(entry)) if entry.isascii() and entry.isdigit() else None
    if found is None:
        raise KeyError(entry)
    return found


def _shown(headers: Headers) -> list[tuple[str, str]]:
    """Names and values; of what may be a credential only its length."""
    shown = []
    for raw, value in headers:
        name = raw.decode("latin-1")
        hidden = name.lower() in _HIDDEN or is_secret_name(name)
        text = f"({len(value)} bytes, not shown)" if hidden else value.decode("latin-1")
        shown.append((name, text))
    return shown


def _text(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": b64encode(body).decode()}
