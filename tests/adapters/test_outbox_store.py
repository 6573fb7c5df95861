from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from proxy.adapters import outbox_store
from proxy.adapters.logs import configure
from proxy.adapters.outbox_file import Job, OutboxFile
from proxy.adapters.outbox_store import SqliteOutbox
from proxy.core.outbox import Entry
from proxy.errors import StoreFailed
from tests.adapters.outbox_kit import WALL, Ear, event

ROOT = Path(__file__).parents[2]


class Kept:
    """A store that runs."""

    def __init__(self, path: Path) -> None:
        self.path, self.ear, self.log = path, Ear(), io.StringIO()
        log = configure(lambda: WALL, stream=self.log)
        self.store = SqliteOutbox(path, wall_ms=lambda: WALL, log=log)
        self.running = asyncio.ensure_future(self.store.run(self.ear))

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.store.aclose()


@contextlib.asynccontextmanager
async def keeping(path: Path) -> AsyncIterator[Kept]:
    kept = Kept(path)
    try:
        await kept.ear.hears()
        yield kept
    finally:
        await kept.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


async def test_what_was_kept_is_told_to_who_comes_next(path: Path) -> None:
    async with keeping(path) as kept:
        assert kept.ear.entries == {}
        first = await kept.store.put(*event(1))
        second = await kept.store.put(*event(2))
        await kept.store.remove(first.id)
        await kept.store.update(second)
    async with keeping(path) as kept:
        assert kept.ear.entries == {second.id: second}
        assert await kept.store.letter(second.id) == event(2)[1]
        assert await kept.store.letter(first.id) is None


class Counting(OutboxFile):
    """Counts the jobs of each commit."""

    commits: list[int]

    def _transact(self, jobs: Sequence[Job]) -> list[Any]:
        self.commits.append(len(jobs))
        return super()._transact(jobs)


async def test_many_events_share_one_commit_and_the_loop_waits_for_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes in while the disk is busy goes into the next commit together."""
    commits: list[int] = []
    Counting.commits = commits
    monkeypatch.setattr(outbox_store, "OutboxFile", Counting)
    disk = threading.Event()
    async with keeping(path) as kept:
        busy = asyncio.Event()

        def slow(_: sqlite3.Connection) -> None:
            kept.store._loop.call_soon_threadsafe(busy.set)
            assert disk.wait(20)

        first = kept.store._wish(slow)
        await busy.wait()
        puts = [asyncio.ensure_future(kept.store.put(*event(n))) for n in range(1, 200)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(put.done() for put in puts)
        disk.set()
        await first
        entries = await asyncio.gather(*puts)

    assert [entry.received_ms - WALL for entry in entries] == list(range(1, 200))
    assert commits == [1, 128, 71]


async def test_a_full_disk_refuses_and_recovers_by_itself(path: Path) -> None:
    def pages(most: int) -> Job:
        return lambda db: db.execute(f"PRAGMA max_page_count = {most}").fetchall()

    async with keeping(path) as kept:
        before = await kept.store.put(*event(1))
        await kept.store._wish(pages(20))
        with pytest.raises(StoreFailed, match="full"):
            await kept.store.put(*event(2, size=500_000))
        assert await kept.store.letter(before.id) is not None
        await kept.store._wish(pages(100_000))

        after = await kept.store.put(*event(3, size=500_000))

        assert after.id > before.id
        assert kept.ear.replacements == 1


async def test_room_to_forget_is_never_taken_by_events(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that is full to its last byte nothing could ever be deleted again."""
    room = 100_000
    monkeypatch.setattr(OutboxFile, "room", lambda _: room)
    async with keeping(path) as kept:
        small = await kept.store.put(*event(1))
        with pytest.raises(StoreFailed, match="nearly full"):
            await kept.store.put(*event(2, size=60_000))
        room = 0
        with pytest.raises(StoreFailed, match="nearly full"):
            await kept.store.put(*event(3))
        await kept.store.update(small)
        await kept.store.remove(small.id)

        room = 100_000
        assert (await kept.store.put(*event(4))).id > small.id


async def test_a_commit_is_bounded_in_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_store, "BATCH_BYTES", 100_000)
    monkeypatch.setattr(outbox_store, "OutboxFile", Counting)
    commits: list[int] = []
    Counting.commits = commits
    disk = threading.Event()
    async with keeping(path) as kept:
        first = kept.store._wish(lambda _: disk.wait(20))
        await asyncio.sleep(0)
        puts = [asyncio.ensure_future(kept.store.put(*event(n, size=60_000))) for n in range(1, 7)]
        await asyncio.sleep(0)
        disk.set()
        await asyncio.gather(first, *puts)

    assert sum(commits) == 7
    assert max(commits[1:]) <= 2


async def test_a_place_that_cannot_be_had_is_asked_for_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_store, "REOPEN_FIRST", 0.01)
    path.mkdir()
    async with keeping(path) as kept:
        assert kept.ear.failures == ["Is a directory"]
        with pytest.raises(StoreFailed):
            await kept.store.put(*event())

        path.rmdir()
        while not kept.ear.replacements:
            await kept.ear.hears()

        assert (await kept.store.put(*event())).id == 1


async def test_a_broken_file_is_told_of_aloud_and_service_goes_on(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)
    async with keeping(path) as kept:
        entry = await kept.store.put(*event())
        (line,) = map(json.loads, kept.log.getvalue().splitlines())
    async with keeping(path) as kept:
        assert kept.ear.entries == {entry.id: entry}

    assert (line["event"], line["level"], line["saved"]) == ("outbox_set_aside", "error", 0)
    assert Path(line["file"]).exists()


async def test_a_file_that_is_lost_while_it_runs_is_opened_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_store, "REOPEN_FIRST", 0.01)
    async with keeping(path) as kept:
        entry = await kept.store.put(*event())
        await kept.store._wish(act=OutboxFile.close)
        await kept.ear.hears()

        assert kept.ear.replacements == 2
        assert kept.ear.entries == {entry.id: entry}


async def test_a_bug_does_not_end_the_thread(path: Path) -> None:
    def buggy(_: OutboxFile) -> None:
        raise KeyError("a bug")

    async with keeping(path) as kept:
        with pytest.raises(StoreFailed, match="KeyError"):
            await kept.store._wish(act=buggy)

        assert (await kept.store.put(*event())).id == 1


async def test_who_no_longer_waits_is_kept_all_the_same(path: Path) -> None:
    """A caller who hung up: the event may be delivered, though nobody was told that it is safe."""
    async with keeping(path) as kept:
        gone = asyncio.ensure_future(kept.store.put(*event(1)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await kept.store.put(*event(2))
    async with keeping(path) as kept:
        assert len(kept.ear.entries) == 2


async def test_what_was_begun_is_finished_at_the_end(path: Path) -> None:
    async with keeping(path) as kept:
        puts = [asyncio.ensure_future(kept.store.put(*event(n))) for n in range(1, 300)]
        await asyncio.sleep(0)
    entries = await asyncio.gather(*puts)
    async with keeping(path) as kept:
        assert list(kept.ear.entries.values()) == entries
    with pytest.raises(StoreFailed, match="closed"):
        await kept.store.put(*event())


async def test_a_store_that_was_never_used_can_be_closed(path: Path) -> None:
    store = SqliteOutbox(path, wall_ms=lambda: WALL, log=structlog.get_logger())

    await store.aclose()

    assert not path.exists()


# -- kill -9.


class Told:
    """What the process that was killed had said of its events before."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[int, int]] = {}  # id: number, worker
        self.gone: set[int] = set()

    def read(self, line: bytes) -> None:
        what, *numbers = line.decode().split()
        if what == "kept":
            id, number, worker = map(int, numbers)
            self.kept[id] = (number, worker)
        elif what == "gone":
            self.gone.add(int(numbers[0]))


async def die(path: Path, told: Told, *, lines: int, after: float) -> None:
    """Let a process keep events, and kill it: so many acknowledgements and seconds after."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.adapters.outbox_kit", str(path), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(lines):
        told.read(await process.stdout.readline())
    await asyncio.sleep(after)
    process.kill()
    rest = await process.stdout.read()
    for line in rest.splitlines(keepends=True):
        if line.endswith(b"\n"):
            told.read(line)
    await process.wait()


def found_in(entries: dict[int, Entry]) -> dict[int, tuple[int, int]]:
    return {
        id: (entry.received_ms - WALL, int((entry.call_id or "").removeprefix("call_")))
        for id, entry in entries.items()
    }


async def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(path: Path) -> None:
    """Eight processes, one after another on one file, each killed at a moment drawn by lot.

    What was acknowledged is there, whole; what was acknowledged as
    forgotten is not; and what nobody was told of may be there or not.
    """
    lot, told = random.Random(20261122), Told()
    for _ in range(8):
        await die(path, told, lines=lot.randrange(0, 120), after=lot.uniform(0, 0.01))

    async with keeping(path) as kept:
        found, store = found_in(kept.ear.entries), kept.store
        for id, (number, worker) in found.items():
            size = (number * 997) % 20_000
            assert await store.letter(id) == event(number, f"call_{worker}", size)[1]
        assert not kept.log.getvalue()

    # Who was killed between "kept" and "gone" may have forgotten it without a word.
    may_be_gone = {id for id, (number, _) in told.kept.items() if number % 4 == 0}
    assert len(told.kept) > 200
    assert told.gone
    assert not told.gone & found.keys()
    assert told.kept.keys() - may_be_gone <= found.keys()
    assert all(found[id] == told.kept[id] for id in found.keys() & told.kept.keys())
