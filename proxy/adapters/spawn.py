"""How is another process like this one started?  The same command, with a line to this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

ENDS_BY_ITSELF: Final = 0.5
"""Seconds for one that has failed."""

KILLED_AFTER: Final = 5.0
"""Seconds for a process that is told to end."""


def own_command() -> list[str]:
    """How this process was started, by the same interpreter."""
    return [sys.executable, *sys.orig_argv[1:]]


class Spawned:
    """A process that was started to follow this one."""

    def __init__(self, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        self._process = process
        self.line = line

    @classmethod
    def start(
        cls, command: Sequence[str], environment: Mapping[str, str], *, variable: str
    ) -> Spawned:
        """Run it; `variable` will tell it the descriptor of its line.  Raises `OSError`.

        Blocks while the process is made, some milliseconds.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            try:
                process = subprocess.Popen(  # noqa: S603 - the command that runs already
                    command, env={**environment, variable: str(fd)}, pass_fds=[fd]
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def end(self) -> int:
        """Have it end, if it has not; its exit code.  Blocks until it is gone."""
        try:
            return self._process.wait(ENDS_BY_ITSELF)
        except subprocess.TimeoutExpired:
            self._process.terminate()
        try:
            return self._process.wait(KILLED_AFTER)
        except subprocess.TimeoutExpired:
            os.kill(self._process.pid, signal.SIGKILL)
            return self._process.wait()

    def let_go(self) -> None:
        """It outlives this process, and nobody here waits for its end."""
        self._process.returncode = 0  # Else its object complains when it goes.
