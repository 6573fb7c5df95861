from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import msgspec
import orjson
import pytest

from proxy.adapters.logs import configure
from proxy.adapters.replay_file import FILE, ReplayFile, closed
from proxy.adapters.state_dir import StateDir
from proxy.core.dialects.kept import Kept
from proxy.core.model import Kind
from proxy.core.replay import ReplayGuard
from proxy.core.replay_dump import VERSION, Saved
from proxy.core.replay_events import EventGuard, EventStep
from proxy.core.replay_values import Done, Replay, Run, Wait
from proxy.errors import SettingsError
from tests.fakes import FakeClock

BOOKED = Done(Kept(Kind.FUNCTION, 200, (), b"booked", "success"), True)


class Sidecar:
    """What of one process has to do with the file."""

    def __init__(self, state: StateDir, clock: FakeClock) -> None:
        self.guard, self.events, self.clock = ReplayGuard(), EventGuard(), clock
        self._log = io.StringIO()
        log = configure(clock.wall_ms, stream=self._log)
        self.file = ReplayFile(state, clock=clock, log=log)
        self.file.load(self.guard, self.events)

    def ask(self, key: bytes) -> object:
        return self.guard.begin(key, "call_1a", tool="t", replay_for=900.0, now=self.clock.now())

    def run(self, key: bytes) -> Run:
        run = self.ask(key)
        assert isinstance(run, Run)
        return run

    def save(self) -> None:
        self.file.save(self.guard, self.events)

    @property
    def said(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self._log.getvalue().splitlines()]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    held = StateDir.open(tmp_path / "state")
    yield held
    held.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def failing(*_: object, **__: object) -> Any:
    raise OSError(28, "No space left on device")


def test_the_next_process_knows_what_the_last_one_knew(state: StateDir, clock: FakeClock) -> None:
    first = Sidecar(state, clock)
    first.guard.finished(first.run(b"done"), BOOKED, clock.now())
    first.run(b"in flight")
    first.events.ended(7, clock.now(), delivered=True)
    first.save()
    clock.advance(60.0)
    second = Sidecar(state, FakeClock(now=3.0, wall_ms=clock.wall_ms()))

    assert second.ask(b"done") == Replay(BOOKED)
    assert second.ask(b"in flight") == Wait(b"in flight", unknown=True)
    assert second.events.begin(7, 3.0) is EventStep.DELIVERED
    assert [(line["event"], line["records"], line["unknown"]) for line in second.said] == [
        ("replays_loaded", 2, 1)
    ]


def test_a_first_start_has_nothing_to_say(state: StateDir, clock: FakeClock) -> None:
    assert Sidecar(state, clock).said == []


def test_nobody_else_may_read_the_file(state: StateDir, clock: FakeClock) -> None:
    """It holds what backends answered."""
    Sidecar(state, clock).save()
    assert stat.S_IMODE(state.file(FILE).stat().st_mode) == 0o600


def test_a_file_is_there_still_after_it_was_read(state: StateDir, clock: FakeClock) -> None:
    """A process that is killed has written none; an old doubt is better than none."""
    first = Sidecar(state, clock)
    first.guard.unknown(first.run(b"k"), clock.now())
    first.save()
    Sidecar(state, clock)

    assert Sidecar(state, clock).ask(b"k") == Wait(b"k", unknown=True)


def test_an_old_file_cannot_hold_a_write_back_for_ever(state: StateDir, clock: FakeClock) -> None:
    first = Sidecar(state, clock)
    first.guard.unknown(first.run(b"k"), clock.now())
    first.save()
    clock.advance(3 * 3600.0)

    assert isinstance(Sidecar(state, clock).ask(b"k"), Run)


def other_version() -> bytes:
    return closed(Saved(VERSION + 1, [], [], []))


def saved() -> bytes:
    return closed(Saved(VERSION, [], [(b"k", 1)], []))


def other_shape() -> bytes:
    """Whole, but not what this program writes."""
    values = msgspec.msgpack.encode({"version": "one"})
    head = saved().partition(b"\n")[0] + b"\n"
    return head + blake2b(values, digest_size=16).digest() + values


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not begin"),
        (b"garbage", "does not begin"),
        (saved()[:-1], "cut or altered"),
        (saved()[:-1] + b"\xff", "cut or altered"),
        (saved() + b"x", "cut or altered"),
        (saved()[:25], "cut or altered"),
        (other_version(), f"version {VERSION + 1}"),
        (other_shape(), "version"),
    ],
)
def test_a_broken_file_is_set_aside_and_service_goes_on(
    state: StateDir, clock: FakeClock, content: bytes, why: str
) -> None:
    state.replace(FILE, content)
    sidecar = Sidecar(state, clock)
    aside = state.file(f"{FILE}.broken-{clock.wall_ms()}")

    (line,) = sidecar.said
    assert (line["event"], line["level"], line["file"]) == ("replays_broken", "error", str(aside))
    assert why in line["why"]
    assert aside.read_bytes() == content
    assert isinstance(sidecar.ask(b"k"), Run)
    sidecar.save()
    assert state.read(FILE) is not None


def test_a_broken_file_that_stays_in_the_way_stops_nothing(
    state: StateDir, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.replace(FILE, b"garbage")
    monkeypatch.setattr(Path, "replace", failing)
    sidecar = Sidecar(state, clock)

    assert "No space left" in sidecar.said[0]["file"]
    assert isinstance(sidecar.ask(b"k"), Run)


def test_a_file_that_cannot_be_read_stops_nothing(
    state: StateDir, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", failing)
    sidecar = Sidecar(state, clock)

    assert sidecar.said[0]["event"] == "replays_not_read"
    assert isinstance(sidecar.ask(b"k"), Run)


def test_a_disk_that_is_full_at_the_end_is_told_of(
    state: StateDir, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = Sidecar(state, clock)
    sidecar.run(b"k")
    monkeypatch.setattr(os, "fsync", failing)
    sidecar.save()

    assert [(line["event"], line["records"]) for line in sidecar.said] == [
        ("replays_not_written", 1)
    ]


def test_without_a_place_it_works_from_memory_and_says_so_once(
    tmp_path: Path, clock: FakeClock
) -> None:
    sidecar = Sidecar(StateDir(tmp_path, None, "Read-only file system"), clock)
    sidecar.run(b"k")
    sidecar.save()

    (line,) = sidecar.said
    assert (line["event"], line["why"]) == ("replays_in_memory_only", "Read-only file system")
    assert list(tmp_path.iterdir()) == []


def test_one_process_takes_over_from_another_that_still_runs(
    state: StateDir, clock: FakeClock, tmp_path: Path
) -> None:
    old, new = Sidecar(state, clock), Sidecar(StateDir(tmp_path, None), clock)
    old.guard.finished(old.run(b"done"), BOOKED, clock.now())
    text = old.file.text(old.guard, old.events)

    new.file.take_over(text, new.guard, new.events)

    assert new.ask(b"done") == Replay(BOOKED)
    new.file.keep(text, 1)  # It has no place.
    old.file.keep(text, 1)
    assert state.read(FILE) == text


class Contended:
    """A lock that tells when a second one wants it."""

    def __init__(self, wanted: Event) -> None:
        self._lock, self._wanted = Lock(), wanted

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._wanted.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("last_word", ["save", "close"])
def test_the_last_word_waits_for_what_is_being_written(
    state: StateDir, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, last_word: str
) -> None:
    """A process that ends, or is followed, while a thread writes yet what was known before it."""
    sidecar, wanted = Sidecar(state, clock), Event()
    monkeypatch.setattr(sidecar.file, "_writing", Contended(wanted))
    before = sidecar.file.text(sidecar.guard, sidecar.events)
    sidecar.run(b"k")
    ends = Thread(target=sidecar.save if last_word == "save" else sidecar.file.close)
    replace = StateDir.replace

    def slow(self: StateDir, name: str, content: bytes) -> None:
        if content == before:
            ends.start()
            assert wanted.wait(20)
        replace(self, name, content)

    monkeypatch.setattr(StateDir, "replace", slow)
    sidecar.file.keep(before, 0)
    ends.join(20)

    found = Sidecar(state, clock)
    assert len(found.guard.store) == (last_word == "save")


@pytest.mark.parametrize("last_word", ["save", "close"])
def test_nothing_is_written_after_the_last_word(
    state: StateDir, clock: FakeClock, last_word: str
) -> None:
    sidecar = Sidecar(state, clock)
    before = sidecar.file.text(sidecar.guard, sidecar.events)
    sidecar.run(b"k")
    if last_word == "save":
        sidecar.save()
    else:
        sidecar.file.close()
    last = state.read(FILE)

    sidecar.file.keep(before, 0)

    assert state.read(FILE) == last != before


@pytest.mark.parametrize("text", [b"", b"x" * 99, closed(Saved(VERSION + 1, [], [], []))])
def test_what_another_version_knows_cannot_be_taken_over(
    state: StateDir, clock: FakeClock, text: bytes
) -> None:
    sidecar = Sidecar(state, clock)

    with pytest.raises(SettingsError, match="cannot be read here"):
        sidecar.file.take_over(text, sidecar.guard, sidecar.events)
