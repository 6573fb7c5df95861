from __future__ import annotations

import socket

import pytest
from aiohttp import web

from proxy.adapters import sockets
from proxy.adapters.listener import Listener
from proxy.adapters.sockets import LISTENER
from proxy.core.model import Reply
from proxy.core.rules import Address
from proxy.doors import Doors, shares
from proxy.ports import Incoming
from tests.handover_kit import answered_by

HERE = Address("127.0.0.1", 0)


def listener() -> Listener:
    async def handle(_: Incoming) -> Reply:
        return Reply(200, [], b"callers")

    return Listener(handle, lambda status: Reply(status))


def page() -> web.AppRunner:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="page")

    pages = web.Application()
    pages.add_routes([web.get("/", answer)])
    return web.AppRunner(pages)


class Has:
    """Somebody who has sockets already."""

    def __init__(self, **found: socket.socket) -> None:
        self.found = found

    def claim(self, name: str, address: str) -> list[socket.socket]:
        return [self.found[name]] if name in self.found else []

    def given(self, name: str) -> bool:
        return name in self.found


async def test_everybody_is_served_at_his_own_door() -> None:
    callers = listener()
    doors = Doors(callers)
    assert doors.address("admin") is None
    doors.claim({LISTENER: HERE, "admin": HERE})
    await doors.open({"admin": page()})
    ports = [address[1] for name in (LISTENER, "admin") if (address := doors.address(name))]

    assert [await answered_by(port) for port in ports] == [b"callers", b"page"]
    await callers.drain(0.1)
    await doors.aclose()
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            await answered_by(port)


async def test_who_comes_while_nobody_accepts_waits() -> None:
    callers = listener()
    doors = Doors(callers)
    doors.claim({LISTENER: HERE, "admin": HERE})
    await doors.open({"admin": page()})
    await doors.shut()
    waiting = []
    for name in (LISTENER, "admin"):
        address = doors.address(name)
        assert address is not None
        waiting.append(socket.create_connection(address))

    await doors.reopen()

    for sock, (place, _) in zip(waiting, doors.places(), strict=True):
        address = doors.address(place.name)
        assert address is not None
        assert await answered_by(address[1]) in (b"callers", b"page")
        sock.close()
    await callers.drain(0.1)
    await doors.aclose()


async def test_sockets_that_somebody_has_are_taken() -> None:
    (given,) = sockets.bound("127.0.0.1", 0)
    port = given.getsockname()[1]
    callers = listener()
    doors = Doors(callers, Has(callsplit=given))
    doors.claim({LISTENER: Address("127.0.0.1", 1), "admin": HERE})
    await doors.open({})

    assert doors.address(LISTENER) == ("127.0.0.1", port)
    assert [(place.name, place.given, place.address) for place, _ in doors.places()] == [
        (LISTENER, True, "127.0.0.1:1"),
        ("admin", False, "127.0.0.1:0"),
    ]
    assert shares(doors.places(), sockets.inode(given))
    assert not shares(doors.places(), 1)
    await callers.drain(0.1)
    await doors.aclose()


async def test_an_address_that_is_taken_opens_nothing() -> None:
    (taken,) = sockets.bound("127.0.0.1", 0)
    doors = Doors(listener())

    with pytest.raises(OSError, match="already in use"):
        doors.claim({LISTENER: HERE, "admin": Address(*sockets.address(taken))})

    await doors.aclose()
    taken.close()
