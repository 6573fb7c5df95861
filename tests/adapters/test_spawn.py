from __future__ import annotations

import os
import signal
import sys

import pytest

from proxy.adapters import spawn
from proxy.adapters.spawn import Spawned, own_command

SPEAKS = "import os, socket; socket.socket(fileno=int(os.environ['LINE'])).sendall(b'here')"
DEAF = (
    "import os, signal, socket, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "socket.socket(fileno=int(os.environ['LINE'])).sendall(b'here'); time.sleep(60)"
)
SLEEPS = "import time; time.sleep(60)"


def started(code: str) -> Spawned:
    return Spawned.start([sys.executable, "-c", code], dict(os.environ), variable="LINE")


def test_another_process_has_a_line_to_this_one() -> None:
    spawned = started(SPEAKS)

    assert spawned.line.recv(9) == b"here"
    assert spawned.line.recv(9) == b""
    assert spawned.end() == 0
    spawned.line.close()


@pytest.mark.parametrize(("code", "signal_"), [(SLEEPS, signal.SIGTERM), (DEAF, signal.SIGKILL)])
def test_one_that_fails_is_ended(
    monkeypatch: pytest.MonkeyPatch, code: str, signal_: signal.Signals
) -> None:
    monkeypatch.setattr(spawn, "KILLED_AFTER", 0.2 if code == DEAF else 20.0)
    monkeypatch.setattr(spawn, "ENDS_BY_ITSELF", 0.0)
    spawned = started(code)
    if code == DEAF:
        assert spawned.line.recv(9) == b"here"

    assert spawned.end() == -signal_
    spawned.line.close()


def test_a_command_that_is_none_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(FileNotFoundError):
        Spawned.start(["/nobody/is/there"], {}, variable="LINE")
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_is_let_go_lives_on() -> None:
    spawned = started(SLEEPS)
    spawned.line.close()

    spawned.let_go()
    pid = spawned.pid
    del spawned

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_the_own_command_is_this_one() -> None:
    assert own_command() == [sys.executable, *sys.orig_argv[1:]]
