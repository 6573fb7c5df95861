from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.adapters.supervisor import Supervisor


@pytest.fixture(params=["file", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Where a service manager listens, and its end."""
    name = f"@callsplit-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        sock.setblocking(False)
        yield name, sock


def test_each_turn_of_events_is_told(heard: tuple[str, socket.socket]) -> None:
    name, sock = heard
    manager = Supervisor({"NOTIFY_SOCKET": name})

    assert manager.ready("serving on 127.0.0.1:1")
    assert sock.recv(999) == b"READY=1\nSTATUS=serving on 127.0.0.1:1"
    assert manager.reloading()
    first, second = sock.recv(999).split(b"\n")
    assert first == b"RELOADING=1"
    assert second.startswith(b"MONOTONIC_USEC=")
    assert second.partition(b"=")[2].isdigit()
    assert manager.followed_by(77, "serving")
    assert sock.recv(999) == b"MAINPID=77\nREADY=1\nSTATUS=serving"
    assert manager.stopping("draining")
    assert sock.recv(999) == b"STOPPING=1\nSTATUS=draining"


@pytest.mark.parametrize("place", ["", "relative", "/nobody/is/there", "vsock:2:1", "/a\0b"])
def test_where_nobody_listens_nothing_happens(place: str) -> None:
    manager = Supervisor({"NOTIFY_SOCKET": place})

    assert not manager.ready("serving")


def test_without_a_service_manager_nothing_happens() -> None:
    assert not Supervisor({}).ready("serving")


def test_one_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        manager = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        while manager.reloading():
            pass  # Its queue fills.
