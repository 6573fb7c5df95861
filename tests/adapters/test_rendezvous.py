from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from proxy.adapters import rendezvous
from proxy.adapters.rendezvous import FILE, Rendezvous, user_of, visit
from tests.handover_kit import soon


@pytest.mark.parametrize("depth", [0, 4])
async def test_a_visitor_finds_who_waits(tmp_path: Path, depth: int) -> None:
    """Also where the path is longer than a unix socket's may be."""
    folder = tmp_path.joinpath(*["x" * 40] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    came: list[socket.socket] = []
    place = Rendezvous(folder, came.append)
    assert place.open()

    visitor = visit(folder)

    assert visitor is not None
    await soon(lambda: came)
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert user_of(visitor) == os.geteuid()
    visitor.close()
    came[0].close()
    place.close()
    place.close()
    assert not (folder / FILE).exists()
    assert visit(folder) is None


async def test_what_a_crash_left_is_in_nobodys_way(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / FILE))
    assert visit(tmp_path) is None
    place = Rendezvous(tmp_path, lambda sock: sock.close())

    assert place.open()
    visitor = visit(str(tmp_path))
    assert visitor is not None
    visitor.close()
    place.close()


async def test_without_a_place_nobody_is_found(tmp_path: Path) -> None:
    place = Rendezvous(tmp_path / "missing", lambda _: None)

    assert not place.open()
    assert place.why == "No such file or directory"
    assert visit(tmp_path / "missing") is None


async def test_another_user_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[socket.socket] = []
    place = Rendezvous(tmp_path, came.append)
    place.open()
    with socket.socket(socket.AF_UNIX) as visitor:
        monkeypatch.setattr(rendezvous, "user_of", lambda _: 12345)
        visitor.connect(str(tmp_path / FILE))
        assert visit(tmp_path) is None  # Nor is what another user has put there.
        visitor.setblocking(False)
        async with asyncio.timeout(20):
            assert await asyncio.get_running_loop().sock_recv(visitor, 1) == b""

    assert not came
    place.close()


async def test_where_the_system_does_not_tell_users_nobody_is_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = socket.socketpair()
    monkeypatch.delattr(socket, "SO_PEERCRED")

    assert user_of(one) == -1
    one.close()
    other.close()


async def test_a_visitor_who_has_left_is_no_trouble(tmp_path: Path) -> None:
    place = Rendezvous(tmp_path, lambda sock: sock.close())
    place.open()

    place._knock()  # Nobody is there.

    place.close()
