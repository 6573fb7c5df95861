from __future__ import annotations

import os
import sqlite3
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.adapters import outbox_file
from proxy.adapters.outbox_file import SCHEMA, OutboxFile, put, remove, update
from proxy.core.outbox import Entry, State
from proxy.errors import StoreFailed
from tests.adapters.outbox_kit import WALL, event


class Opened:
    """A file in a folder, and what was set aside."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "outbox.db"
        self.aside: list[tuple[Path, list[Entry]]] = []
        self.stamp = WALL
        self.file = self.new()

    def new(self) -> OutboxFile:
        return OutboxFile(
            self.path,
            wall_ms=lambda: self.stamp,
            replaced=lambda path, saved: self.aside.append((path, saved)),
        )

    def again(self) -> list[Entry]:
        """What a process finds that starts now."""
        self.file.close()
        self.file = self.new()
        return self.file.open()

    def put(self, count: int, size: int = 0) -> list[Entry]:
        found: list[Entry] = self.file.batch(
            [put(*event(n, size=size)) for n in range(1, count + 1)]
        )
        return found


@pytest.fixture
def box(tmp_path: Path) -> Any:
    box = Opened(tmp_path)
    box.file.open()
    yield box
    box.file.close()


def test_what_was_put_is_there_in_its_order(box: Opened) -> None:
    kept = box.put(3)

    assert [entry.id for entry in kept] == [1, 2, 3]
    assert box.again() == kept
    assert box.file.letter(2) == event(2)[1]


def test_a_number_is_never_given_twice(box: Opened) -> None:
    """Or an operator's `drop 7` would hit another event than the one he looked at."""
    box.put(2)
    box.file.batch([remove(1), remove(2)])
    box.again()

    (kept,) = box.file.batch([put(*event())])

    assert kept.id == 3


def test_changes_stay(box: Opened) -> None:
    first, second = box.put(2)
    dead = replace(first, tries=4, next_ms=9, since_ms=8, state=State.DEAD, reason="why")

    box.file.batch([update(dead), remove(second.id)])

    assert box.again() == [dead]
    assert box.file.letter(second.id) is None


def test_its_owner_alone_may_read_it(box: Opened) -> None:
    """Transcripts lie there, and so does what callers presented."""
    box.put(1)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in box.path.parent.iterdir()}

    assert modes == dict.fromkeys(["outbox.db", "outbox.db-wal", "outbox.db-shm"], 0o600)


def test_a_file_that_others_could_read_is_closed_to_them(box: Opened) -> None:
    box.file.close()
    box.path.chmod(0o644)
    box.again()

    assert stat.S_IMODE(box.path.stat().st_mode) == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    box = Opened(tmp_path)
    box.path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StoreFailed):
        box.file.open()
    assert not box.file.is_open


def test_every_commit_is_synced(box: Opened) -> None:
    def pragmas(db: sqlite3.Connection) -> tuple[Any, ...]:
        names = ("journal_mode", "synchronous", "secure_delete", "auto_vacuum")
        return tuple(db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)

    assert box.file.batch([pragmas]) == [("wal", 2, 1, 2)]


def test_nothing_of_what_was_delivered_stays_on_the_disk(box: Opened) -> None:
    secret = replace(event(1)[1], body=b"my number is 0123456789" * 1000)
    (kept,) = box.file.batch([put(event(1)[0], secret)])
    assert b"0123456789" in b"".join(p.read_bytes() for p in box.path.parent.iterdir())

    box.file.batch([remove(kept.id)])

    assert b"0123456789" not in b"".join(p.read_bytes() for p in box.path.parent.iterdir())


def test_the_file_shrinks_with_what_it_holds(box: Opened) -> None:
    kept = box.put(20, size=100_000)
    box.file.batch([remove(entry.id) for entry in kept[1:]])
    box.again()
    box.file.close()

    assert box.path.stat().st_size < 300_000


def test_a_full_disk_refuses_the_whole_batch_and_nothing_else(box: Opened) -> None:
    """SQLite's own limit of pages fails as a full disk does (SQLITE_FULL)."""
    (kept,) = box.put(1)
    box.file.batch([lambda db: db.execute("PRAGMA max_page_count = 40")])

    outcomes = box.file.batch([put(*event(2)), put(*event(3, size=1_000_000))])
    still = box.file.letter(kept.id)
    box.file.batch([lambda db: db.execute("PRAGMA max_page_count = 100000")])
    later = box.file.batch([put(*event(4, size=1_000_000))])

    assert [type(outcome) for outcome in outcomes] == [StoreFailed, StoreFailed]
    assert "full" in str(outcomes[0])
    assert still == event(1)[1]
    assert [entry.received_ms - WALL for entry in box.again()] == [1, 4]
    assert isinstance(later[0], Entry)
    assert not box.aside


def test_events_leave_a_part_of_the_disk_free(box: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(box.path.parent)
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    monkeypatch.setattr(outbox_file, "RESERVE", whole)
    assert box.file.room() <= max(0, free - whole // 4) + 2**24
    monkeypatch.setattr(outbox_file, "RESERVE", 0)
    assert box.file.room() > 0

    gone = OutboxFile(box.path / "x" / "y", wall_ms=lambda: 0, replaced=lambda _, __: None)
    assert gone.room() == 0


def test_the_log_stays_small(box: Opened) -> None:
    """What stands in it is not free for deletions."""
    for _ in range(20):
        box.put(5, size=100_000)

    assert box.path.with_name("outbox.db-wal").stat().st_size < 4 * 2**20


def test_a_bug_in_one_job_does_not_take_the_others_along(box: Opened) -> None:
    def buggy(_: sqlite3.Connection) -> None:
        raise KeyError("a bug")

    bad, good = box.file.batch([buggy, put(*event())])

    assert isinstance(bad, StoreFailed)
    assert box.again() == [good]


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    box = Opened(tmp_path)
    box.path.write_bytes(b"this is no database, whatever its name says" * 100)

    assert box.file.open() == []
    (aside, saved), kept = box.aside[0], box.put(1)

    assert aside.read_bytes().startswith(b"this is no database")
    assert kept[0].id > WALL, "no number of the old file is given again"
    assert aside.name == f"outbox.db.broken-{WALL}"
    assert saved == []
    assert box.again() == kept
    box.file.close()


def test_what_is_set_aside_never_replaces_what_was_set_aside_before(tmp_path: Path) -> None:
    box = Opened(tmp_path)
    for _ in range(2):
        box.file.close()
        box.path.write_bytes(b"no database" * 100)
        box.file.open()
    box.file.close()

    assert len({aside for aside, _ in box.aside}) == 2


@pytest.mark.parametrize("version", [SCHEMA + 1, 0])
def test_a_file_of_another_build_is_set_aside_as_it_is(tmp_path: Path, version: int) -> None:
    """A newer one's, after a downgrade, waits there for the upgrade; a stranger's is left alone."""
    box = Opened(tmp_path)
    with sqlite3.connect(box.path) as db:
        db.execute("CREATE TABLE entries (something_else)")
        db.execute(f"PRAGMA user_version = {version}")
    db.close()

    assert box.file.open() == []
    assert [saved for _, saved in box.aside] == [[]]
    box.file.close()


def test_a_file_without_its_table_is_set_aside(tmp_path: Path) -> None:
    box = Opened(tmp_path)
    with sqlite3.connect(box.path) as db:
        db.execute("CREATE TABLE other (x)")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.close()

    assert box.file.open() == []
    assert len(box.aside) == 1
    box.file.close()


def tear(path: Path, at: int, count: int = 4096) -> None:
    """Put noise over a piece of the file, as a broken disk does."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xee" * count)


def test_what_can_still_be_read_of_a_torn_file_is_saved(tmp_path: Path) -> None:
    box = Opened(tmp_path)
    box.file.open()
    kept = box.put(200, size=200)
    box.file.close()
    tear(box.path, box.path.stat().st_size // 2)

    found = box.again()

    assert len(box.aside) == 1
    assert box.aside[0][1] == found
    assert 0 < len(found) < len(kept)
    assert {kept[0].id, kept[-1].id} <= {entry.id for entry in found}, "from both ends"
    assert set(found) <= set(kept)
    letters = [box.file.letter(entry.id) for entry in found]
    assert letters == [event(entry.received_ms - WALL, size=200)[1] for entry in found]
    box.file.close()


def torn(tmp_path: Path) -> tuple[Opened, list[Entry]]:
    """A file whose pages are noise, but for the first; open, and nobody has noticed yet."""
    box = Opened(tmp_path)
    box.file.open()
    kept = box.put(200, size=200)
    box.again()
    tear(box.path, 4096, box.path.stat().st_size - 4096)
    box.file.batch([lambda db: db.execute("PRAGMA cache_size = 0")])
    return box, kept


def test_damage_that_shows_while_it_runs_costs_no_new_event(tmp_path: Path) -> None:
    """The batch that met it is done again in the new file: who waits for it is answered."""
    box, kept = torn(tmp_path)

    outcomes = box.file.batch([*(remove(e.id) for e in kept), put(*event(999))])

    assert isinstance(outcomes[-1], Entry)
    assert len(box.aside) == 1
    assert outcomes[-1] in box.again()
    box.file.close()


def test_damage_that_cannot_be_set_aside_fails_the_batch_and_the_file(tmp_path: Path) -> None:
    box, kept = torn(tmp_path)
    block(box)

    outcomes = box.file.batch([*(remove(e.id) for e in kept), put(*event(999))])

    assert {type(outcome) for outcome in outcomes} == {StoreFailed}
    assert not box.file.is_open


def block(box: Opened) -> None:
    """Let nothing be moved to where it would be set aside: no name may be that long."""
    box.stamp = 10**300


def test_a_letter_on_a_torn_page_is_gone_and_the_others_are_not(tmp_path: Path) -> None:
    """One dead entry is better than a file set aside because somebody read in it."""
    box = Opened(tmp_path)
    box.file.open()
    letters = [replace(event()[1], body=b"%d" % n * 60_000) for n in (1, 2, 3)]
    kept = box.file.batch([put(event()[0], each) for each in letters])
    box.again()
    content = box.path.read_bytes()
    full = [at for at in range(0, len(content), 4096) if content[at + 4 :].startswith(b"2" * 4092)]
    tear(box.path, full[len(full) // 2])

    assert [box.file.letter(entry.id) for entry in kept] == [letters[0], None, letters[2]]
    assert not box.aside
    box.file.close()


def test_a_letter_that_the_disk_has_changed_is_not_sent(box: Opened) -> None:
    """SQLite has no checksums of its own: a flipped bit in a body is a body to it."""
    (kept,) = box.put(1)
    for change in (
        "UPDATE entries SET body = x'00'",
        "UPDATE entries SET head = 'text'",
        "UPDATE entries SET head = x'93', crc = 1",
    ):
        box.file.batch([partial(execute, change)])

        assert box.file.letter(kept.id) is None


def execute(sql: str, db: sqlite3.Connection) -> None:
    db.execute(sql)


def test_a_row_that_is_no_entry_is_damage(box: Opened) -> None:
    box.put(2)
    box.file.batch([lambda db: db.execute("UPDATE entries SET state = 'lost' WHERE id = 1")])

    found = box.again()

    assert [entry.id for entry in found] == [2]
    assert len(box.aside) == 1


def test_without_a_file_nothing_is_promised(tmp_path: Path) -> None:
    box = Opened(tmp_path)
    (outcome,) = box.file.batch([put(*event())])

    assert isinstance(outcome, StoreFailed)
    with pytest.raises(StoreFailed, match="not open"):
        box.file.letter(1)


def test_a_letter_that_cannot_be_read_now_is_not_gone(box: Opened) -> None:
    """What passes with the disk's trouble must not make an entry dead."""
    (kept,) = box.put(1)
    box.file._connection().close()

    with pytest.raises(StoreFailed):
        box.file.letter(kept.id)


def test_a_place_that_cannot_be_had_is_said_and_had_later(tmp_path: Path) -> None:
    box = Opened(tmp_path)
    box.path.mkdir()
    with pytest.raises(StoreFailed, match="directory"):
        box.file.open()

    box.path.rmdir()

    assert box.file.open() == []
    box.file.close()


def test_damage_in_a_place_that_has_gone_bad_too_is_said(tmp_path: Path) -> None:
    box = Opened(tmp_path / "state")
    box.path.parent.mkdir()
    box.path.write_bytes(b"no database" * 100)
    block(box)

    with pytest.raises(StoreFailed, match="a new file cannot be begun"):
        box.file.open()
    assert not box.file.is_open
