"""Where does a successor find the process before it?  At a socket beside the state that it keeps.

Only processes of the same user are heard there.  A path that is too long for a unix socket is
reached through the directory's descriptor.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

FILE: Final = "handover"

_LONGEST: Final = 100  # bytes of a path; the kernel takes 107
_CREDENTIALS: Final = struct.Struct("3i")  # of the other end: process, user, group


class Rendezvous:
    """The socket in a state directory that this process holds; `came` hears of each visitor."""

    def __init__(self, folder: Path, came: Callable[[socket.socket], None]) -> None:
        self._path = folder / FILE
        self._came = came
        self._sock: socket.socket | None = None
        self.why = ""  # it could not be opened

    def open(self) -> bool:
        """Wait for visitors; False: no socket can be had there, and `why` tells the reason."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            self._path.unlink(missing_ok=True)  # Of a process that ended badly.
            _at(self._path, sock.bind)
            self._path.chmod(0o600)
            sock.listen(4)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            self.why = error.strerror or str(error)
            return False
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._knock)
        return True

    def close(self) -> None:
        """Wait for nobody any more, and leave the place to the next process."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
            with suppress(OSError):
                self._path.unlink()

    def _knock(self) -> None:
        assert self._sock is not None
        try:
            visitor, _ = self._sock.accept()
        except OSError:
            return
        if user_of(visitor) in (os.geteuid(), 0):
            self._came(visitor)
        else:
            visitor.close()


def visit(folder: Path | str) -> socket.socket | None:
    """A connection to the process that holds that directory; None: nobody waits there."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        _at(Path(folder).absolute() / FILE, sock.connect)
        if user_of(sock) in (os.geteuid(), 0):
            return sock
    except OSError:
        pass
    sock.close()
    return None


def user_of(sock: socket.socket) -> int:
    """Who is at the other end; -1 where the system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return -1
    told = sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(told)[1]
    return user


def _at(path: Path, act: Callable[[str], object]) -> None:
    """Bind or connect there."""
    if len(os.fsencode(path)) <= _LONGEST:
        act(str(path))
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        act(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
