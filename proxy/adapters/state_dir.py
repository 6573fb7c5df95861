"""Where does this replica keep what must outlive it?  One directory, one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from proxy.errors import SettingsError

LOCK = "lock"

_NO_PLACE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW


class StateHeld(SettingsError):
    """Another process holds the directory."""


class StateDir:
    """The directory, held by a lock that ends with this process, however it ends.

    Without a writable place `writable` is False and `why` tells the reason: nothing is kept then,
    and the service runs on.  Every file in it is 0600 and replaced as a whole.
    """

    def __init__(
        self, path: Path, lock: int | None, why: str = "", *, awaited: bool = False
    ) -> None:
        self.path = path
        self.why = why
        self._lock = lock
        self._awaited = awaited

    @classmethod
    def open(cls, path: Path | str) -> StateDir:
        """Make and lock the directory.

        Raises `StateHeld` if another process holds it, `SettingsError` if the path cannot be a
        directory.
        """
        place = Path(path).absolute()
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno in _NO_PLACE:
                return cls(place, None, os.strerror(error.errno))
            raise SettingsError(f"state_dir {place}: {error.strerror}") from None
        return cls._locked(place, lock)

    @classmethod
    def awaited(cls, path: Path | str) -> StateDir:
        """The directory of a process that will hand its lock on: to be read until it does."""
        return cls(Path(path).absolute(), None, "another process holds it still", awaited=True)

    def adopt(self, lock: int) -> None:
        """Hold the directory by the lock of the process that held it, from now on."""
        self._lock, self._awaited, self.why = lock, False, ""

    def sign(self) -> None:
        """Tell whoever wants the directory who holds it."""
        if self._lock is not None:
            with suppress(OSError):
                _sign(self._lock)

    @classmethod
    def _locked(cls, place: Path, lock: int) -> StateDir:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sign(lock)
        except OSError as error:
            holder = os.pread(lock, 20, 0).strip().decode("ascii", "replace")
            os.close(lock)
            if error.errno in _NO_PLACE | _NO_LOCKS:
                return cls(place, None, f"no lock can be had: {error.strerror}")
            raise StateHeld(held(place, holder)) from None
        return cls(place, lock)

    @property
    def lock(self) -> int | None:
        """The descriptor by which it is held; whoever has a copy holds it too."""
        return self._lock

    @property
    def readable(self) -> bool:
        """Whether what is kept here counts."""
        return self._lock is not None or self._awaited

    @property
    def number(self) -> int:
        """The same for two processes if they mean the same directory; 0: there is none."""
        try:
            return self.file(LOCK).stat().st_ino
        except OSError:
            return 0

    @property
    def writable(self) -> bool:
        """Whether anything is kept here."""
        return self._lock is not None

    def file(self, name: str) -> Path:
        """Where a file of this name stands."""
        return self.path / name

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none.  Raises `OSError`."""
        try:
            return self.file(name).read_bytes()
        except FileNotFoundError:
            return None

    def replace(self, name: str, content: bytes) -> None:
        """Put a file there as a whole: after a crash it is the old one or the new one.

        Blocks until the disk has it.  Raises `OSError`; the old file then stands untouched.
        """
        new = self.file(f"{name}.new")
        try:
            with os.fdopen(os.open(new, _NEW, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.file(name))
        except OSError:
            new.unlink(missing_ok=True)
            raise
        self._sync()

    def set_aside(self, name: str, wall_ms: int) -> Path:
        """Move a file that cannot be read out of the way, for a person to look at; its new place.

        Raises `OSError`.
        """
        aside = self.file(f"{name}.broken-{wall_ms}")
        self.file(name).replace(aside)
        self._sync()
        return aside

    def close(self) -> None:
        """Let the next process have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _sync(self) -> None:
        """A rename is safe only once its directory is on the disk too."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _sign(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def held(place: Path, holder: str) -> str:
    """Why a second process does not start there, and the way out."""
    who = f"process {holder}" if holder.isdigit() else "another process"
    return (
        f"state_dir {place} is in use by {who}; stop that one first, or give this one a "
        "state_dir of its own"
    )
