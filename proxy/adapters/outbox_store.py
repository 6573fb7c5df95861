"""Who writes the outbox's file?  One thread of its own, so that the loop never waits for a disk.

What has come in while the disk was busy goes into the next commit together: many events, one sync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeAlias

from structlog.typing import FilteringBoundLogger

from proxy.adapters import outbox_file as jobs
from proxy.adapters.outbox_file import Job, OutboxFile
from proxy.core.outbox import Entry, Letter
from proxy.errors import StoreFailed
from proxy.ports import OutboxEar

BATCH = 128
"""Jobs in one commit at most."""

BATCH_BYTES = 8 * 2**20
"""Bytes after which a commit takes no more: they stand in the log first, and then in the file."""

REOPEN_FIRST, REOPEN_MOST = 0.5, 15.0
"""Seconds until a file that cannot be had is asked for again: doubling."""


Act: TypeAlias = Callable[[OutboxFile], Any]
"""What is done on its own, not within a batch."""


class _Wish(NamedTuple):
    """One of both, and who waits for its result."""

    job: Job | None
    act: Act | None
    result: asyncio.Future[Any]
    size: int = 0  # bytes that it keeps


class SqliteOutbox:
    """An `OutboxStore` in one file; made on the loop that uses it."""

    name = "sqlite"
    leading = True

    def __init__(
        self, path: Path, *, wall_ms: Callable[[], int], log: FilteringBoundLogger
    ) -> None:
        self.path = path
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._file = OutboxFile(path, wall_ms=wall_ms, replaced=self._set_aside)
        self._wishes: SimpleQueue[_Wish | None] = SimpleQueue()  # None: the end
        self._thread = Thread(target=self._work, name="outbox", daemon=True)
        self._ear: OutboxEar | None = None
        self._lost = asyncio.Event()
        self._closed = False

    async def run(self, ear: OutboxEar) -> None:
        """Open the file, and open it again whenever it is lost; until cancelled."""
        self._ear, pause = ear, REOPEN_FIRST
        while True:
            self._lost.clear()
            try:
                entries = await self._wish(act=OutboxFile.open)
            except StoreFailed as error:
                ear.failed(str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, REOPEN_MOST)
                continue
            pause = REOPEN_FIRST
            ear.replaced(entries)
            await self._lost.wait()

    async def put(self, entry: Entry, letter: Letter) -> Entry:
        """Keep both; the entry with its number, once the disk has them."""
        kept: Entry = await self._wish(jobs.put(entry, letter), size=entry.size)
        return kept

    async def letter(self, id: int) -> Letter | None:
        """The letter of that entry; None if it is gone or damaged."""
        found: Letter | None = await self._wish(act=lambda file: file.letter(id))
        return found

    async def update(self, entry: Entry) -> None:
        """Keep what an entry has become."""
        await self._wish(jobs.update(entry))

    async def remove(self, id: int) -> None:
        """Forget an entry and its letter."""
        await self._wish(jobs.remove(id))

    async def aclose(self) -> None:
        """Let the thread do what it was given, and end."""
        self._closed = True
        if self._thread.is_alive():
            self._wishes.put(None)
            await asyncio.to_thread(self._thread.join)

    def _wish(
        self, job: Job | None = None, act: Act | None = None, size: int = 0
    ) -> asyncio.Future[Any]:
        result = self._loop.create_future()
        if self._closed:
            result.set_exception(StoreFailed("it is closed"))
            return result
        if self._thread.ident is None:
            self._thread.start()
        self._wishes.put(_Wish(job, act, result, size))
        return result

    # -- In the thread.

    def _work(self) -> None:
        while wishes := self._next():
            try:
                outcomes = self._answers(wishes)
            except Exception as bug:  # Whoever waits must hear of it: the thread goes on.
                outcomes = [StoreFailed(f"{type(bug).__name__}: {bug}")] * len(wishes)
            try:
                self._loop.call_soon_threadsafe(self._tell, wishes, outcomes)
            except RuntimeError:  # The loop is gone, and all who waited with it.
                break
        self._file.close()

    def _next(self) -> list[_Wish]:
        """What there is to do, as much as one commit takes; [] at the end."""
        found: list[_Wish] = []
        size = 0
        wish = self._wishes.get()
        while wish is not None:
            found.append(wish)
            size += wish.size
            if len(found) == BATCH or size > BATCH_BYTES:
                return found
            try:
                wish = self._wishes.get_nowait()
            except Empty:
                return found
        if found:  # The end comes after these.
            self._wishes.put(None)
        return found

    def _answers(self, wishes: Sequence[_Wish]) -> list[Any]:
        """Results, and failures as values, in the order of the wishes."""
        acted = [self._alone(wish) for wish in wishes]
        batch = [
            wish.job
            for wish, own in zip(wishes, acted, strict=True)
            if wish.job is not None and own is None
        ]
        done = iter(self._file.batch(batch) if batch else ())
        return [
            own if wish.job is None or own is not None else next(done)
            for wish, own in zip(wishes, acted, strict=True)
        ]

    def _alone(self, wish: _Wish) -> Any:
        """What is done, or refused, outside of the batch; None for what goes into it."""
        if wish.act is not None:
            return self._act(wish.act)
        if wish.size and 2 * wish.size > self._file.room():
            return StoreFailed("the disk is nearly full")
        return None

    def _act(self, act: Act) -> Any:
        try:
            return act(self._file)
        except StoreFailed as error:
            return error

    def _set_aside(self, aside: Path, saved: list[Entry]) -> None:
        with suppress(RuntimeError):  # The loop may be gone.
            self._loop.call_soon_threadsafe(self._begun_anew, aside, saved)

    # -- Back on the loop.

    def _tell(self, wishes: Sequence[_Wish], outcomes: Sequence[Any]) -> None:
        for wish, outcome in zip(wishes, outcomes, strict=True):
            if wish.result.done():  # Nobody waits any more.
                continue
            if isinstance(outcome, BaseException):
                wish.result.set_exception(outcome)
            else:
                wish.result.set_result(outcome)
        if not self._file.is_open:
            self._lost.set()

    def _begun_anew(self, aside: Path, saved: list[Entry]) -> None:
        self._log.error("outbox_set_aside", file=str(aside), saved=len(saved))
        if self._ear is not None:
            self._ear.replaced(saved)
