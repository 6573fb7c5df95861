"""Events for the tests of the outbox's stores, and a process that keeps them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
from msgspec.structs import replace

from proxy.adapters.metrics import Metrics
from proxy.adapters.outbox_store import SqliteOutbox
from proxy.adapters.outbox_watch import OutboxFigures
from proxy.core.model import Call, Head, Kind
from proxy.core.outbox import Entry, Letter, entry_of, letter_of
from proxy.ports import OutboxEar

WALL = 1_767_225_600_000


def call(number: int = 1, call_id: str | None = "call_7", size: int = 0) -> Call:
    body = b'{"n":%d,"pad":"%b"}' % (number, b"x" * size)
    headers = [(b"Content-Type", b"application/json"), (b"X-Retell-Signature", b"v=1,d=2")]
    named = {name.lower(): value for name, value in headers}
    head = Head("POST", "/retell", "", named, headers, b"h", "192.0.2.1", False, "/retell")
    return Call(Kind.EVENT, head, body, call_id, event="call_ended")


def event(number: int = 1, call_id: str | None = "call_7", size: int = 0) -> tuple[Entry, Letter]:
    one = call(number, call_id, size)
    return entry_of(one, "webhook", WALL + number), letter_of(one)


class Ear:
    """Hears a store, and remembers."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.replacements = 0
        self.failures: list[str] = []
        self.news = asyncio.Event()

    def replaced(self, entries: Sequence[Entry]) -> None:
        self.entries = {entry.id: entry for entry in entries}
        self.replacements += 1
        self.news.set()

    def changed(self, id: int, entry: Entry | None) -> None:
        if entry is None:
            self.entries.pop(id, None)
        else:
            self.entries[id] = entry
        self.news.set()

    def failed(self, why: str) -> None:
        self.failures.append(why)
        self.news.set()

    async def hears(self) -> None:
        """Wait for the next news."""
        async with asyncio.timeout(20):
            await self.news.wait()
        self.news.clear()


class FakeStore:
    """A store in memory; it fails when told to, and waits when told to."""

    name = "fake"

    def __init__(self) -> None:
        self.leading = True
        self.kept: dict[int, tuple[Entry, Letter]] = {}
        self.fault: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.closed = False
        self.done: list[tuple[str, int]] = []
        self._count = 0

    async def run(self, ear: OutboxEar) -> None:
        ear.replaced([entry for entry, _ in self.kept.values()])
        await asyncio.Event().wait()

    async def put(self, entry: Entry, letter: Letter) -> Entry:
        await self._obey()
        self._count += 1
        kept = replace(entry, id=self._count)
        self.kept[kept.id] = kept, letter
        return kept

    async def letter(self, id: int) -> Letter | None:
        await self._obey()
        return self.kept[id][1] if id in self.kept else None

    async def update(self, entry: Entry) -> None:
        await self._obey()
        self.done.append((entry.state, entry.id))
        self.kept[entry.id] = entry, self.kept[entry.id][1]

    async def remove(self, id: int) -> None:
        await self._obey()
        self.done.append(("removed", id))
        self.kept.pop(id, None)

    async def aclose(self) -> None:
        self.closed = True

    async def _obey(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault


def figures() -> OutboxFigures:
    return Metrics("t").outbox


async def settle(turns: int = 20) -> None:
    """Let everything run that can."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def keep_on(path: Path) -> None:
    """Keep events for ever, and forget every fourth: say so once it is done, never before."""
    store, ear = SqliteOutbox(path, wall_ms=lambda: WALL, log=structlog.get_logger()), Ear()
    running = asyncio.ensure_future(store.run(ear))
    await ear.hears()

    def say(what: str) -> None:
        os.write(
            sys.stdout.fileno(), f"{what}\n".encode()
        )  # Without a buffer, or it tells too late.

    async def one(worker: int, number: int) -> None:
        kept = await store.put(*event(number, f"call_{worker}", size=(number * 997) % 20_000))
        say(f"kept {kept.id} {number} {worker}")
        if number % 4 == 0:
            await store.remove(kept.id)
            say(f"gone {kept.id}")

    async def work(worker: int) -> None:
        number = 0
        while True:
            number += 1
            await one(worker, number)

    say("begun")
    await asyncio.gather(running, *(work(worker) for worker in range(8)))


if __name__ == "__main__":
    asyncio.run(keep_on(Path(sys.argv[1])))
