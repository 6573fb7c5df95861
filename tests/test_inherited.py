from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.adapters import sockets
from proxy.adapters.channel import Channel, Go, Hello, No, Offer, Place, State, Taken
from proxy.adapters.replay_file import ReplayFile
from proxy.adapters.sockets import LISTENER
from proxy.adapters.state_dir import StateDir
from proxy.core.rules import Address
from proxy.errors import SettingsError
from proxy.inherited import PREDECESSOR, Inherited, excuse
from proxy.predecessor import Predecessor
from tests.handover_kit import Side, pair


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that stands where a service manager puts it."""
    monkeypatch.setattr(sockets, "FIRST", 720)
    (sock,) = sockets.bound("127.0.0.1", 0)
    os.dup2(sock.fileno(), 720)
    with sock:
        yield sock
    try:
        os.close(720)
    except OSError:
        pass  # Whoever took it has closed it.


GIVEN = {"LISTEN_FDS": "1", "LISTEN_PID": "7"}


async def test_a_process_on_its_own_has_nothing(tmp_path: Path) -> None:
    found = await Inherited.find({}, pid=7, state_dir=str(tmp_path / "state"))

    assert found.before is None
    assert (found.addresses, found.note) == ({}, "")
    assert found.claim(LISTENER, "127.0.0.1:1") == []
    assert not found.given(LISTENER)
    state = found.state(str(tmp_path / "state"))
    assert state.writable
    state.close()
    await found.fail("nobody hears it")


async def test_a_given_socket_outranks_the_rules(listening: socket.socket, tmp_path: Path) -> None:
    found = await Inherited.find(GIVEN, pid=7, state_dir=str(tmp_path))

    assert found.addresses == {LISTENER: Address(*sockets.address(listening))}
    assert found.given(LISTENER)
    (sock,) = found.claim(LISTENER, "0.0.0.0:1")
    assert sockets.inode(sock) == sockets.inode(listening)
    assert found.claim(LISTENER, "0.0.0.0:1") == []
    sock.close()
    found.close()


async def test_what_nobody_claims_is_closed(listening: socket.socket, tmp_path: Path) -> None:
    found = await Inherited.find(GIVEN, pid=7, state_dir=str(tmp_path))

    found.close()

    with pytest.raises(OSError):
        os.fstat(720)


async def test_sockets_for_another_process_are_told_of(
    listening: socket.socket, tmp_path: Path
) -> None:
    found = await Inherited.find(GIVEN, pid=8, state_dir=str(tmp_path))

    assert found.note == "LISTEN_FDS is for process 7, not for this one"
    assert found.addresses == {}


async def test_who_holds_the_state_is_found(listening: socket.socket, tmp_path: Path) -> None:
    """By its socket; and its own offer holds besides."""
    old = Side(tmp_path / "state")
    given = {LISTENER: listening.dup()}
    await old.open(source=Inherited(given))

    found = await Inherited.find(GIVEN, pid=7, state_dir=str(tmp_path / "state"))

    assert found.before is not None
    assert found.given(LISTENER)
    assert found.state(str(tmp_path / "state")).readable
    await found.fail("it was a test")
    found.close()
    await old.close()
    assert "handover_refused" in old.events


async def test_a_stranger_is_told_why(listening: socket.socket, tmp_path: Path) -> None:
    old = Side(tmp_path / "state")
    await old.open()

    with pytest.raises(SettingsError, match="is in use by process"):
        await Inherited.find(GIVEN, pid=7, state_dir=str(tmp_path / "state"))
    with pytest.raises(OSError):
        os.fstat(720)
    await old.close()


async def test_a_parent_is_followed_wherever_its_state_lies(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    parent = Channel(theirs)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        parent.send(Offer([Place("admin", True, "")], 0), [sock.fileno()])
    environment = {PREDECESSOR: str(ours.detach())}

    found = await Inherited.find(environment, pid=7, state_dir=str(tmp_path))

    assert (await parent.receive())[0] == Hello(1, 7)
    assert found.addresses == {"admin": Address("127.0.0.1", port)}
    assert found.given("admin")
    (sock,) = found.claim("admin", "127.0.0.1:1")
    sock.close()
    assert found.before is not None
    found.before.close()
    parent.close()


@pytest.mark.parametrize("goes", [True, False])
async def test_the_outbox_is_the_old_ones_until_its_last_word(tmp_path: Path, goes: bool) -> None:
    """One that is too slow to follow would deliver what the old one, going on, delivers too."""
    ours, theirs = pair()
    held = StateDir.open(tmp_path)
    (tmp_path / "lock").write_text("1\n")
    theirs.send(Offer([], held.number))
    found = Inherited(before=await Predecessor.meet(ours, pid=7))
    new = Side(tmp_path)
    state = found.state(str(tmp_path))
    replays = ReplayFile(state, clock=new.clock, log=new.log)
    learning = asyncio.ensure_future(
        found.learn(new.once, new.box, state, replays, clock=new.clock, start=new.start)
    )
    assert held.lock is not None
    text = replays.text(new.once.guard, new.once.events)
    theirs.send(State(text, [], [], locked=True), [held.lock])
    async with asyncio.timeout(20):
        while not isinstance((await theirs.receive())[0], Taken):
            pass

    assert new.box.done == []
    assert (tmp_path / "lock").read_text() == "1\n"
    if goes:
        theirs.send(Go())
        await learning
        assert new.box.done == ["start"]
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
        await asyncio.gather(*(task for task in new.tasks if "replays" in task.get_name()))
    theirs.close()
    if not goes:
        with pytest.raises(SettingsError, match="did not let go"):
            await learning
        assert new.box.done == []
    await asyncio.gather(*new.tasks)
    for each in (state, held):
        each.close()
    ours.close()


@pytest.mark.parametrize("place", ["x", "99999", "-1", "9" * 30, "9" * 5000])
async def test_a_line_that_leads_nowhere_is_explained(place: str, tmp_path: Path) -> None:
    environment = {PREDECESSOR: place}

    with pytest.raises(SettingsError, match="callsplit itself"):
        await Inherited.find(environment, pid=7, state_dir=str(tmp_path))
    excuse(environment, "nobody hears it")


def test_a_parent_hears_an_excuse() -> None:
    ours, theirs = socket.socketpair()
    excuse({PREDECESSOR: str(ours.detach())}, "faults in the rules")
    excuse({}, "nobody hears it")

    assert b"faults in the rules" in theirs.recv(999)
    theirs.close()
    assert No("a") == No("a")
