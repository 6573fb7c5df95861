"""A server on raw sockets that breaks in every way one can, and counts what reaches it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from tests.functional.wire import JSON, response

WARM = "warm"
"""Calls whose ID begins so are never harmed: they open connections for those that are."""

HANDSHAKE: dict[str, object] = {
    "server/discover": {"resultType": "complete", "supportedVersions": ["2026-07-28"]},
    "tools/list": {"resultType": "complete", "tools": []},
}
DRIP = 0.05  # seconds between two bytes
_HEAD_END = b"\r\n\r\n"
_CALL_ID = re.compile(rb"\r\nx-callsplit-call-id: *([^\r]+)\r\n", re.I)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.I)


class Wire(StrEnum):
    """The language of an arm."""

    WEBHOOK = "webhook"
    JSON = "mcp json"
    SSE = "mcp sse"


@dataclass(frozen=True)
class Asked:
    """One request, as far as an arm's answer depends on it."""

    call_id: str
    body: bytes
    carried: int  # requests that its connection had carried before

    @property
    def method(self) -> str:
        """Its JSON-RPC method, if it has one."""
        found = re.search(rb'"method":\s*"([^"]+)"', self.body)
        return found[1].decode() if found else ""


class Line:
    """One connection: nothing is read from it before somebody says so."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held = b""
        self.carried = 0

    async def arrived(self) -> bytes:
        """What lies in the kernel once anything does, left there; b"" after a hang-up."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._sock, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._sock)
        return self._sock.recv(65_536, socket.MSG_PEEK)

    async def request(self) -> Asked | None:
        """The next request, read to its end; None after a hang-up."""
        while (asked := self._whole()) is None:
            if not await self.arrived():
                return None
            self._held += self._sock.recv(65_536)
        self.carried += 1
        return asked

    def _whole(self) -> Asked | None:
        end = self._held.find(_HEAD_END) + len(_HEAD_END)
        if end < len(_HEAD_END):
            return None
        head = self._held[:end]
        length = _LENGTH.search(head)
        ends = end + (int(length[1]) if length else 0)
        if len(self._held) < ends:
            return None
        body, self._held = self._held[end:ends], self._held[ends:]
        return Asked(call_id_in(head), body, self.carried)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def left(self) -> None:
        """Wait until the other side has hung up."""
        while await self.arrived():
            self._sock.recv(65_536)

    def close(self) -> None:
        self._sock.close()

    def reset(self) -> None:
        """Close with a RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


def call_id_in(head: bytes) -> str:
    """The call that a request belongs to, as the sidecar tells it to both arms."""
    found = _CALL_ID.search(head)
    return found[1].decode() if found else ""


# -- Answers, in the language of the arm.


def framed(wire: Wire, asked: Asked, member: dict[str, object]) -> bytes:
    """A JSON-RPC answer, alone or as the only event of a stream in chunks."""
    message = json.dumps({"jsonrpc": "2.0", "id": json.loads(asked.body)["id"], **member})
    if wire is Wire.JSON:
        return response(message.encode(), JSON)
    event = f"event: message\ndata: {message}\n\n".encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
    return head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)


def good(wire: Wire, asked: Asked, name: str, padding: int = 0) -> bytes:
    """The tool ran; the answer says where."""
    said = json.dumps({"from": name, "padding": " " * padding})
    if wire is Wire.WEBHOOK:
        return response(said.encode(), JSON)
    block = {"type": "text", "text": said}
    result = {"resultType": "complete", "content": [block], "isError": False}
    return framed(wire, asked, {"result": result})


def failing(wire: Wire, asked: Asked, name: str) -> bytes:
    """A status that is fine, and a body that says: the backend failed."""
    message = f"oops at {name}"
    if wire is Wire.WEBHOOK:
        said = {"success": False, "error": message, "status_code": 500}
        return response(json.dumps(said).encode(), JSON)
    return framed(wire, asked, {"error": {"code": -32603, "message": message}})


Play = Callable[[Line, "RawOrigin", Asked], Awaitable[bool]]
"""Answer one request; False: the connection carries no more."""


async def _resets(line: Line, _: RawOrigin, __: Asked) -> bool:
    line.reset()
    return False


async def _freezes(line: Line, _: RawOrigin, __: Asked) -> bool:
    await line.left()
    return False


async def _drips(line: Line, origin: RawOrigin, asked: Asked) -> bool:
    """The head at once, then the body byte by byte, for longer than anybody waits."""
    whole = good(origin.wire, asked, origin.name, padding=10_000)
    begins = whole.index(_HEAD_END) + len(_HEAD_END)
    await line.send(whole[:begins])
    for at in range(begins, len(whole)):
        await line.send(whole[at : at + 1])
        await asyncio.sleep(DRIP)
    return True


async def _cuts_its_head(line: Line, origin: RawOrigin, asked: Asked) -> bool:
    whole = good(origin.wire, asked, origin.name)
    await line.send(whole[: whole.index(_HEAD_END) - 4])
    return False


async def _cuts_its_body(line: Line, origin: RawOrigin, asked: Asked) -> bool:
    whole = good(origin.wire, asked, origin.name)
    begins = whole.index(_HEAD_END) + len(_HEAD_END)
    await line.send(whole[: (begins + len(whole)) // 2])
    return False


async def _speaks_no_http(line: Line, _: RawOrigin, __: Asked) -> bool:
    await line.send(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")
    await line.left()
    return False


async def _says_too_much(line: Line, origin: RawOrigin, asked: Asked) -> bool:
    stolen = response(b'{"from":"nobody"}', JSON)
    await line.send(good(origin.wire, asked, origin.name) + stolen)
    return True


async def _fails_in_its_body(line: Line, origin: RawOrigin, asked: Asked) -> bool:
    return await origin.answer(line, failing(origin.wire, asked, origin.name))


async def _says_no(line: Line, origin: RawOrigin, asked: Asked) -> bool:
    """The business says no: the backend works."""
    if origin.wire is Wire.WEBHOOK:
        body = json.dumps({"success": False, "message": "taken", "from": origin.name})
        return await origin.answer(line, response(body.encode(), JSON))
    result = {"content": [{"type": "text", "text": f"taken at {origin.name}"}], "isError": True}
    return await origin.answer(line, framed(origin.wire, asked, {"result": result}))


def _status(status: bytes, *fields: bytes) -> Play:
    async def play(line: Line, origin: RawOrigin, _: Asked) -> bool:
        return await origin.answer(line, response(b"{}", JSON, *fields, status=status))

    return play


@dataclass(frozen=True)
class Fault:
    """One way to fail.  `why` is what a rescue is then called."""

    why: str
    play: Play = _freezes
    refuses: bool = False  # nobody listens, and kept connections are gone
    unread: bool = False  # it strikes while the request lies in the kernel
    slow: bool = False  # nothing but a deadline ends it


FAULTS = {
    "refuse": Fault("connect", refuses=True),
    "reset before reading": Fault("reset", _resets, unread=True),
    "reset after reading": Fault("reset", _resets),
    "freeze": Fault("timeout", _freezes, slow=True),
    "slow drip": Fault("timeout", _drips, slow=True),
    "cut mid-headers": Fault("reset", _cuts_its_head),
    "cut mid-body": Fault("reset", _cuts_its_body),
    "garbage": Fault("reset", _speaks_no_http),
    "surplus bytes": Fault("", _says_too_much),
    "500": Fault("status", _status(b"500 Internal Server Error")),
    "502": Fault("status", _status(b"502 Bad Gateway")),
    "503 retry-after": Fault("status", _status(b"503 Unavailable", b"Retry-After: 1")),
    "429": Fault("status", _status(b"429 Too Many Requests")),
    "200 with failure": Fault("body", _fails_in_its_body),
    "business no": Fault("", _says_no),
}


class RawOrigin:
    """One arm.  `closes`: every connection carries one request and no more."""

    def __init__(self, name: str, wire: Wire, *, closes: bool) -> None:
        self.name, self.wire, self.closes = name, wire, closes
        self.fault: Fault | None = None
        self.delivered: Counter[str] = Counter()  # by call: requests that can run something
        self.carried: dict[str, int] = {}  # by call: what its connection had carried before
        self.warm = 0
        self.go = asyncio.Event()  # lets the warm ones be answered, all at a time
        self._lines: dict[asyncio.Task[None], Line] = {}
        self._sock = self._bound(0)
        self.port: int = self._sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def _bound(self, port: int) -> socket.socket:
        """A port that is taken; it refuses connections until somebody listens there."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.setblocking(False)
        return sock

    def listen(self) -> None:
        self._sock.listen(1024)
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    async def break_with(self, fault: Fault) -> None:
        """From now on every call but the warm ones meets this."""
        self.fault = fault
        if fault.refuses:
            await self.stop()
            self._sock = self._bound(self.port)

    async def stop(self) -> None:
        """As a process that died: nobody listens, every connection is closed."""
        asyncio.get_running_loop().remove_reader(self._sock)
        lines = {**self._lines}
        for task in lines:
            task.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
        for line in lines.values():
            line.close()  # A task that was cancelled before it began has not.
        self._sock.close()

    async def answer(self, line: Line, raw: bytes) -> bool:
        """One whole answer; the connection is kept if it may be."""
        if self.closes:
            raw = raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        await line.send(raw)
        return not self.closes

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:
            return  # Whoever came has left again.
        sock.setblocking(False)
        line = Line(sock)
        task = asyncio.create_task(self._serve(line), name=f"{self.name} serves")
        self._lines[task] = line
        task.add_done_callback(self._lines.pop)

    async def _serve(self, line: Line) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                while await self._serve_one(line):
                    pass
            finally:
                line.close()

    async def _serve_one(self, line: Line) -> bool:
        fault = self.fault
        if fault is not None and fault.unread:
            call_id = call_id_in(await line.arrived())
            if call_id and not call_id.startswith(WARM):
                asked = Asked(call_id, b"", line.carried)
                self._count(asked)
                return await fault.play(line, self, asked)
        asked_for = await line.request()
        return asked_for is not None and await self._play(line, asked_for)

    async def _play(self, line: Line, asked: Asked) -> bool:
        if asked.method in HANDSHAKE:
            return await self.answer(
                line, framed(Wire.JSON, asked, {"result": HANDSHAKE[asked.method]})
            )
        if asked.call_id.startswith(WARM):
            self.warm += 1
            await self.go.wait()
        else:
            self._count(asked)
            if self.fault is not None:
                return await self.fault.play(line, self, asked)
        return await self.answer(line, good(self.wire, asked, self.name))

    def _count(self, asked: Asked) -> None:
        self.delivered[asked.call_id] += 1
        self.carried[asked.call_id] = asked.carried
