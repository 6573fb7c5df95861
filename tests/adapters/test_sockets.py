from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.adapters import sockets
from proxy.errors import SettingsError


class Fds:
    """Descriptors in a row, as a service manager passes them."""

    def __init__(self) -> None:
        self.own: list[socket.socket] = []

    def pass_on(self, *given: socket.socket | int) -> dict[str, str]:
        for at, each in enumerate(given):
            os.dup2(each if isinstance(each, int) else each.fileno(), sockets.FIRST + at)
        return {"LISTEN_FDS": str(len(given)), "LISTEN_PID": "7"}

    def listening(self, family: int = socket.AF_INET) -> socket.socket:
        sock = self.plain(family)
        sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        sock.listen()
        return sock

    def plain(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        self.own.append(socket.socket(family, kind))
        return self.own[-1]


@pytest.fixture
def fds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fds]:
    """From a descriptor on that nobody here uses."""
    monkeypatch.setattr(sockets, "FIRST", 700)
    fds = Fds()
    yield fds
    for sock in fds.own:
        sock.close()
    for fd in range(700, 704):
        try:
            os.close(fd)
        except OSError:
            pass


def test_nothing_is_given_unless_somebody_says_so() -> None:
    assert sockets.given({}, 7) == {}
    assert sockets.given({"LISTEN_FDS": "", "LISTEN_PID": "7"}, 7) == {}


def test_sockets_for_another_process_are_none_of_ours(fds: Fds) -> None:
    environment = fds.pass_on(fds.listening())

    assert sockets.given(environment, 8) == {}
    assert not sockets.is_for(environment, 8)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ["callsplit"]),
        ("callsplit", ["callsplit"]),
        ("unknown", ["callsplit"]),
        ("callsplit.socket", ["callsplit"]),
        ("admin:callsplit", ["admin", "callsplit"]),
        ("admin:anything", ["admin", "callsplit"]),
        ("observe:admin", ["observe", "admin"]),
        ("callsplit:admin:observe", ["callsplit", "admin", "observe"]),
    ],
)
def test_names_say_what_a_socket_is_for(fds: Fds, names: str | None, expected: list[str]) -> None:
    """The first one without a name of ours is the listener."""
    environment = fds.pass_on(*(fds.listening() for _ in expected))
    if names is not None:
        environment["LISTEN_FDNAMES"] = names

    found = sockets.given(environment, 7)

    assert list(found) == expected
    for at, sock in enumerate(found.values()):
        assert sockets.address(sock) == fds.own[at].getsockname()
        assert not os.get_inheritable(sock.fileno())
        assert not sock.getblocking()
        sock.close()


def test_a_supervisor_that_knows_no_process_id_may_leave_it_out(fds: Fds) -> None:
    environment = fds.pass_on(fds.listening())
    del environment["LISTEN_PID"]

    found = sockets.given(environment, 7)

    assert list(found) == ["callsplit"]
    found["callsplit"].close()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("callsplit:callsplit", "two sockets named callsplit"),
        ("callsplit:http", "socket 2 of LISTEN_FDS is for nothing here"),
        ("a:b", "socket 2 of LISTEN_FDS is for nothing here"),
        ("callsplit", "LISTEN_FDNAMES has 1 names for 2 sockets"),
    ],
)
def test_names_that_fit_nothing_are_refused(fds: Fds, names: str, told: str) -> None:
    environment = fds.pass_on(fds.listening(), fds.listening())

    with pytest.raises(SettingsError, match=told):
        sockets.given({**environment, "LISTEN_FDNAMES": names}, 7)


@pytest.mark.parametrize("count", ["x", "-1", "1.5", "65", "9" * 5000, "٣"])
def test_a_count_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(SettingsError, match="LISTEN_FDS"):
        sockets.given({"LISTEN_FDS": count, "LISTEN_PID": "7"}, 7)


def test_what_cannot_be_listened_on_is_explained(fds: Fds) -> None:
    reading, writing = os.pipe()
    accepted = fds.plain(), fds.plain(kind=socket.SOCK_DGRAM), fds.plain(socket.AF_UNIX)
    cases: list[tuple[socket.socket | int, str]] = [
        (accepted[0], "does not listen"),
        (accepted[1], "takes no connections"),
        (accepted[2], "is no TCP socket"),
        (reading, "is no socket"),
    ]
    for given, told in cases:
        with pytest.raises(SettingsError, match=told):
            sockets.given(fds.pass_on(given), 7)
    os.close(reading)
    os.close(writing)


def test_a_descriptor_that_is_not_open_is_explained(fds: Fds) -> None:
    with pytest.raises(SettingsError, match=r"descriptor 700 .* is not open"):
        sockets.given({"LISTEN_FDS": "1"}, 7)


def test_one_that_is_of_no_use_takes_no_other_along(fds: Fds) -> None:
    """The first was fine already: it does not stay open."""
    environment = fds.pass_on(fds.listening(), fds.plain())

    with pytest.raises(SettingsError, match="does not listen"):
        sockets.given({**environment, "LISTEN_FDNAMES": "callsplit:admin"}, 7)
    with pytest.raises(OSError):
        os.fstat(sockets.FIRST)


def test_an_address_is_taken_at_once() -> None:
    with ExitStack() as stack:
        (first,) = sockets.bound("127.0.0.1", 0)
        stack.callback(first.close)
        host, port = sockets.address(first)

        with pytest.raises(OSError, match=f"127.0.0.1:{port}: address already in use"):
            sockets.bound(host, port)
        with socket.create_connection((host, port)):
            pass


def test_localhost_is_whatever_this_machine_has() -> None:
    found = sockets.bound("localhost", 0)

    assert {sock.getsockname()[0] for sock in found} <= {"127.0.0.1", "::1"}
    sockets.close(found)


def test_a_family_that_is_not_here_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0)),  # nobody's here
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)

    (found,) = sockets.bound("localhost", 0)

    assert found.getsockname()[0] == "127.0.0.1"
    found.close()


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1:0: cannot assign"):
        sockets.bound("192.0.2.1", 0)
    with pytest.raises(OSError, match=r"\[2001:db8::1\]:0: "):
        sockets.bound("2001:db8::1", 0)


def test_a_fault_half_way_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    (taken,) = sockets.bound("127.0.0.1", 0)
    places = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", taken.getsockname()),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)

    with pytest.raises(OSError, match="already in use"):
        sockets.bound("localhost", 0)
    taken.close()


def test_two_processes_see_the_same_number_for_one_socket() -> None:
    (one,), (other,) = sockets.bound("127.0.0.1", 0), sockets.bound("127.0.0.1", 0)
    with one, other, one.dup() as copy:
        assert sockets.inode(one) == sockets.inode(copy) != sockets.inode(other)


def test_the_unit_that_we_ship_names_a_socket_that_is_for_something() -> None:
    units = Path(__file__).parents[2] / "deploy" / "systemd"
    socket_unit = (units / "callsplit.socket").read_text()
    service = (units / "callsplit.service").read_text()

    assert f"FileDescriptorName={sockets.LISTENER}\n" in socket_unit
    assert "Type=notify\n" in service
    assert "NotifyAccess=main\n" in service
