"""How does an outbox lie on the disk?  One SQLite file, used by one thread.

WAL with full sync: when a batch's commit has returned, a crash loses nothing of it, be it of this
process or of the machine.  A file that SQLite cannot make sense of is set aside, for a person to
look at; what can still be read of it moves into a new one.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from proxy.core.outbox import Entry, Letter, pack_letter, unpack_letter
from proxy.errors import StoreFailed

SCHEMA = 1
"""Kept as the file's user_version.  A file of another one is not read."""

RESERVE = 32 * 2**20
"""Bytes of the disk that events leave free (of a small one a quarter): to forget takes room too."""

LOG_PAGES = 256
"""Pages after which the log is written back, so that it stays small."""

FREED_PAGES = 1024
"""Pages given back to the disk at most by one batch that removes something."""

_FIELDS = [name for name in Entry.__struct_fields__ if name != "id"]
_NAMES = ", ".join(_FIELDS)
_CREATE = f"""
CREATE TABLE entries (
  id INTEGER PRIMARY KEY AUTOINCREMENT, {_NAMES},
  head BLOB NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL
)"""
_LIST = f"SELECT {_NAMES}, id FROM entries ORDER BY id"  # noqa: S608 - names of ours
_ROW = f"SELECT {_NAMES}, id, head, crc, body FROM entries WHERE id = ?"  # noqa: S608
_NEXT = "SELECT id FROM entries WHERE id > ? ORDER BY id LIMIT 1"
_PREVIOUS = "SELECT id FROM entries WHERE id < ? ORDER BY id DESC LIMIT 1"
_LAST = 2**63 - 1
_COUNT_FROM = "INSERT INTO sqlite_sequence VALUES ('entries', ?)"
"""No number of a file that was set aside is given again: somebody may still hold it."""
_PUT = f"""INSERT INTO entries ({_NAMES}, id, head, crc, body)
VALUES ({"?, " * len(_FIELDS)}?, ?, ?, ?)"""  # noqa: S608
_GET = "SELECT head, crc, body FROM entries WHERE id = ?"
_UPDATE = """UPDATE entries SET since_ms = ?, next_ms = ?, tries = ?, state = ?, reason = ?
WHERE id = ?"""
_REMOVE = "DELETE FROM entries WHERE id = ?"

Job: TypeAlias = Callable[[sqlite3.Connection], Any]
"""One thing to do within a batch's transaction."""


class Damaged(Exception):
    """It is the file that is broken, not the disk or the place."""


class OutboxFile:
    """The file at `path`; `wall_ms()` names what is set aside.

    `replaced(aside, entries)` hears of every file that had to be set aside: where it is now, and
    what was saved of it.
    """

    def __init__(
        self,
        path: Path,
        *,
        wall_ms: Callable[[], int],
        replaced: Callable[[Path, list[Entry]], None],
    ) -> None:
        self.path = path
        self._wall_ms = wall_ms
        self._replaced = replaced
        self._db: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        """It can be used, as far as is known."""
        return self._db is not None

    def open(self) -> list[Entry]:
        """What waits, in order.  Raises `StoreFailed` if the file cannot be had."""
        self.close()
        try:
            self._db, entries = connect(self.path)
        except Damaged:
            return self._begin_anew()
        except (OSError, sqlite3.Error) as error:
            raise StoreFailed(_told(error)) from error
        return entries

    def batch(self, jobs: Sequence[Job]) -> list[Any]:
        """Do all of it, or nothing: the results, or for each job why it failed."""
        try:
            return self._transact(jobs)
        except Damaged:
            try:
                self._begin_anew()
                return self._transact(jobs)
            except (StoreFailed, Damaged) as error:
                return [StoreFailed(str(error))] * len(jobs)
        except StoreFailed as error:
            return [error] * len(jobs)
        except Exception as bug:  # of one job: it must not take the others along
            if len(jobs) == 1:
                return [StoreFailed(f"{type(bug).__name__}: {bug}")]
            return [self.batch([job])[0] for job in jobs]

    def room(self) -> int:
        """Bytes that events may still take."""
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return 0
        reserve = min(RESERVE, disk.f_blocks * disk.f_frsize // 4)
        return max(0, disk.f_bavail * disk.f_frsize - reserve)

    def letter(self, id: int) -> Letter | None:
        """The letter of that entry; None if it is gone or damaged.  Raises `StoreFailed`.

        Outside of any batch: a torn page that is met within a transaction spoils it whole.
        """
        try:
            row = self._connection().execute(_GET, (id,)).fetchone()
        except sqlite3.Error as error:
            if isinstance(why := _translated(error), Damaged):
                return None
            raise why from error
        return _letter(*row) if row is not None else None

    def close(self) -> None:
        """Leave one tidy file behind."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _transact(self, jobs: Sequence[Job]) -> list[Any]:
        db = self._connection()
        try:
            db.execute("BEGIN IMMEDIATE")
            results = [job(db) for job in jobs]
            db.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                with suppress(sqlite3.Error):  # The log may hold the room that is wanted.
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                raise _translated(error) from error
            raise
        _tidy(db)
        return results

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreFailed("the file is not open")
        return self._db

    def _begin_anew(self) -> list[Entry]:
        """Set the file aside, and save into a new one what can be read of it.

        Raises `StoreFailed` if not even that can be done.
        """
        self.close()
        try:
            aside = set_aside(self.path, self._wall_ms())
            self._db, _ = connect(self.path)
            self._db.execute(_COUNT_FROM, (self._wall_ms(),))
            saved = [save(self._db, row) for row in readable(aside)]
        except (OSError, sqlite3.Error, Damaged) as error:
            self.close()
            raise StoreFailed(f"a new file cannot be begun: {_told(error)}") from error
        saved.sort(key=lambda entry: entry.id)
        self._replaced(aside, saved)
        return saved


# -- Jobs.


def put(entry: Entry, letter: Letter) -> Job:
    """Keep both; the entry with its number."""
    head, body = pack_letter(letter)

    def job(db: sqlite3.Connection) -> Entry:
        row = (*msgspec.structs.astuple(entry)[:-1], None, head, _crc(head, body), body)
        return msgspec.structs.replace(entry, id=db.execute(_PUT, row).lastrowid)

    return job


def update(entry: Entry) -> Job:
    """Keep what an entry has become."""
    row = (entry.since_ms, entry.next_ms, entry.tries, entry.state, entry.reason, entry.id)

    def job(db: sqlite3.Connection) -> None:
        db.execute(_UPDATE, row)

    return job


def remove(id: int) -> Job:
    """Forget an entry and its letter."""

    def job(db: sqlite3.Connection) -> None:
        db.execute(_REMOVE, (id,))

    return job


# -- The file.


def connect(path: Path) -> tuple[sqlite3.Connection, list[Entry]]:
    """Open or make the file, and read what waits.

    Raises `Damaged`, `OSError` or `sqlite3.Error`.
    """
    make(path)
    db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    try:
        entries = _prepared(db)
        _sync(path.parent)
    except BaseException as error:
        db.close()
        if isinstance(error, sqlite3.Error) and isinstance(_translated(error, new=True), Damaged):
            raise Damaged(str(error)) from error
        raise
    return db, entries


def make(path: Path) -> None:
    """Have a file there that its owner alone may read; SQLite gives its side files the same."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_IMODE(os.fstat(file).st_mode) != 0o600:
            os.fchmod(file, 0o600)
    finally:
        os.close(file)


def set_aside(path: Path, wall_ms: int) -> Path:
    """Move a file with all that belongs to it out of the way; its new place."""
    aside = path.with_name(f"{path.name}.broken-{wall_ms}")
    while aside.exists():
        wall_ms += 1
        aside = path.with_name(f"{path.name}.broken-{wall_ms}")
    for side in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + side).replace(aside.with_name(aside.name + side))
    _sync(path.parent)
    return aside


def readable(path: Path) -> Iterator[tuple[Any, ...]]:
    """The rows of a broken file that can be read."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for id in sorted(_numbers(db)):
            with suppress(sqlite3.Error):
                row = db.execute(_ROW, (id,)).fetchone()
                if row is not None and _is_sound(row):
                    yield row


def _numbers(db: sqlite3.Connection) -> set[int]:
    """Those that can be found, step by step from both ends towards the damage."""
    found: set[int] = set()
    try:
        if db.execute("PRAGMA user_version").fetchone() != (SCHEMA,):
            return found
    except sqlite3.Error:
        return found
    for step, at in ((_NEXT, 0), (_PREVIOUS, _LAST)):
        with suppress(sqlite3.Error):
            while (row := db.execute(step, (at,)).fetchone()) is not None and row[0] not in found:
                (at,) = row
                found.add(at)
    return found


def save(db: sqlite3.Connection, row: tuple[Any, ...]) -> Entry:
    """Put a row of another file into this one."""
    db.execute(_PUT, row)
    return _entry(row[:-3])


def _prepared(db: sqlite3.Connection) -> list[Entry]:
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # Has its effect before the first table only.
    db.execute("PRAGMA journal_mode = WAL")  # Where WAL cannot be had, the old journal is as safe.
    db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")  # What was delivered is personal data: wiped.
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables == 0:
        db.executescript(f"BEGIN; {_CREATE}; PRAGMA user_version = {SCHEMA}; COMMIT")
    elif version != SCHEMA:
        raise Damaged(f"its schema is {version}, this build reads {SCHEMA}")
    try:
        return [_entry(row) for row in db.execute(_LIST)]
    except ValueError as error:
        raise Damaged(str(error)) from error


def _entry(row: Sequence[Any]) -> Entry:
    """Raises ValueError for what is none."""
    return msgspec.convert(row, Entry)


def _letter(head: bytes, crc: int, body: bytes) -> Letter | None:
    """The disk may have changed what it was given: nobody is sent that."""
    try:
        return unpack_letter(head, body) if _crc(head, body) == crc else None
    except (TypeError, ValueError):
        return None


def _is_sound(row: tuple[Any, ...]) -> bool:
    try:
        _entry(row[:-3])
        return _letter(*row[-3:]) is not None
    except (TypeError, ValueError):
        return False


def _crc(head: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(head))


def _tidy(db: sqlite3.Connection) -> None:
    """Let the file shrink with what it holds; and once nothing waits, let no copy stand in the log.

    By a script, because only that runs the pragma to its end: each of its steps frees one page.
    """
    with suppress(sqlite3.Error):
        if db.execute("PRAGMA freelist_count").fetchone() != (0,):
            db.executescript(f"PRAGMA incremental_vacuum({FREED_PAGES})")
            if db.execute("SELECT 1 FROM entries LIMIT 1").fetchone() is None:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _sync(directory: Path) -> None:
    """A new name is safe only once its directory is on the disk too."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _translated(error: sqlite3.Error, *, new: bool = False) -> Exception:
    """Who is to blame; in a file that was just opened a missing table is damage too."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    broken = code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    if broken or code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return Damaged(str(error))
    if new and code & 0xFF == sqlite3.SQLITE_ERROR:
        return Damaged(str(error))
    return StoreFailed(_told(error))


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
