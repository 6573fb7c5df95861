"""Raw HTTP/1.1, both ends: origins that record every byte, a client that invents none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

Fields: TypeAlias = list[tuple[bytes, bytes]]

JSON = b"Content-Type: application/json"
OK = b"200 OK"
DEADLINE = 20.0
"""Seconds that nothing here ever needs: who waits longer has found a fault."""


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(DEADLINE):
        try:
            while not condition():
                await asyncio.sleep(0.002)
        except asyncio.CancelledError:
            raise AssertionError(f"never came true: {what or condition}") from None


def _fields(head: bytes) -> Fields:
    pairs = [line.partition(b":") for line in head.split(b"\r\n")[1:] if line]
    return [(name, value.strip(b" \t")) for name, _, value in pairs]


@dataclass(frozen=True)
class Message:
    """A request or an answer, exactly as it arrived."""

    head: bytes  # up to and with its empty line
    body: bytes
    connection: int = 0  # which connection of the origin carried it, from 1

    @property
    def fields(self) -> Fields:
        return _fields(self.head[:-4])

    @property
    def names(self) -> set[bytes]:
        return {name.lower() for name, _ in self.fields}

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each.lower() == name]

    def value(self, name: bytes) -> bytes | None:
        return next(iter(self.values(name)), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Seen(Message):
    """A request at an origin."""

    @property
    def method(self) -> bytes:
        return self.head.split(b" ", 1)[0]

    @property
    def target(self) -> bytes:
        return self.head.split(b" ", 2)[1]


@dataclass(frozen=True)
class Answer(Message):
    """An answer at a client."""

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def arm(self) -> str:
        return (self.value(b"x-callsplit-arm") or b"-").decode()

    @property
    def reason(self) -> str:
        return (self.value(b"x-callsplit-reason") or b"-").decode()

    @property
    def code(self) -> str:
        """The code of a refusal."""
        return str(self.about["code"])

    @property
    def about(self) -> Any:
        """What a refusal says of itself; an MCP caller finds it in the data of its error."""
        error = self.json["error"]
        return error["data"] if "jsonrpc" in self.json else error


class Peer:
    """The origin's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self, connection: int) -> Seen | None:
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head, re.I)
        body = await self.reader.readexactly(int(length[1])) if length else b""
        return Seen(head, body, connection)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def left(self) -> None:
        """Wait until the other side has hung up."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass


Play: TypeAlias = Callable[[Peer, Seen], Awaitable[bool]]
"""Answers one request; False: the connection carries no more."""


class Origin:
    """A server that records what it is asked and plays `play`; at first nobody listens there."""

    def __init__(self, name: str, play: Play) -> None:
        self.name, self.play = name, play
        self.seen: list[Seen] = []
        self.connections = 0
        self.open = 0
        self.idle: float | None = None  # seconds after which a quiet connection is closed
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._sock = self._bind(0)
        self.port: int = self._sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def tools(self) -> list[Seen]:
        """The requests that run a tool, of an MCP server."""
        return [seen for seen in self.seen if method_of(seen) == "tools/call"]

    async def listen(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, sock=self._sock, limit=2**25, backlog=1024
        )

    async def refuse(self) -> None:
        """From now on connections are refused, as by a process that died."""
        await self.stop()
        self._sock = self._bind(self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._sock.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _bind(self, port: int) -> socket.socket:
        """A port that is taken, and that refuses connections until somebody listens."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.setblocking(False)
        return sock

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        self.open += 1
        peer, number, more = Peer(reader, writer), self.connections, True
        try:
            while more and (seen := await asyncio.wait_for(peer.request(number), self.idle)):
                self.seen.append(seen)
                more = await self.play(peer, seen)
        except TimeoutError:
            pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # Cancelled by `stop`; the streams of Python 3.11 complain of a cancelled task.
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()


# -- What an origin may do.


def response(body: bytes = b"", *fields: bytes, status: bytes = OK) -> bytes:
    """A framed answer with these fields and no others."""
    lines = [b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def says(raw: bytes) -> Play:
    """These bytes, whatever was asked."""

    async def play(peer: Peer, _: Seen) -> bool:
        await peer.send(raw)
        return True

    return play


def answers(body: bytes, *fields: bytes, status: bytes = OK) -> Play:
    return says(response(body, *(fields or (JSON,)), status=status))


def says_and_closes(raw: bytes) -> Play:
    async def play(peer: Peer, _: Seen) -> bool:
        await peer.send(raw)
        return False

    return play


async def dies(_: Peer, __: Seen) -> bool:
    """Close without a word."""
    return False


async def resets(peer: Peer, _: Seen) -> bool:
    peer.reset()
    return False


async def freezes(peer: Peer, _: Seen) -> bool:
    """Say nothing until the other side gives up."""
    await peer.left()
    return False


def waits(event: asyncio.Event, then: Play) -> Play:
    async def play(peer: Peer, seen: Seen) -> bool:
        await event.wait()
        return await then(peer, seen)

    return play


def finishes(go: asyncio.Event, ends: list[str], *, first: bytes = b"", last: bytes = b"") -> Play:
    """Run until told to end; `ends` hears whether it `finished` or was `cut` before."""

    async def play(peer: Peer, _: Seen) -> bool:
        await peer.send(first)
        told, left = asyncio.ensure_future(go.wait()), asyncio.ensure_future(peer.left())
        await asyncio.wait({told, left}, return_when=asyncio.FIRST_COMPLETED)
        ends.append("cut" if left.done() else "finished")
        told.cancel()
        left.cancel()
        await asyncio.gather(told, left, return_exceptions=True)
        await peer.send(last)
        return False

    return play


def in_turn(*plays: Play) -> Play:
    """One for each request; the last one for all that follow."""
    left = list(plays)

    async def play(peer: Peer, seen: Seen) -> bool:
        return await (left.pop(0) if len(left) > 1 else left[0])(peer, seen)

    return play


def method_of(seen: Seen) -> str:
    """The JSON-RPC method of a request, "" if it is none."""
    try:
        message = json.loads(seen.body)
    except ValueError:
        return ""
    return str(message.get("method", "")) if isinstance(message, dict) else ""


def rpc(seen: Seen, result: object) -> bytes:
    """A JSON-RPC answer with the asker's ID."""
    message = {"jsonrpc": "2.0", "id": json.loads(seen.body).get("id"), "result": result}
    return response(json.dumps(message).encode(), JSON)


def text(said: str, **more: Any) -> dict[str, Any]:
    """What an MCP tool said."""
    block = {"type": "text", "text": said}
    return {"resultType": "complete", "content": [block], "isError": False, **more}


def runs(result: object) -> Play:
    """Run the tool, with this result."""

    async def play(peer: Peer, seen: Seen) -> bool:
        await peer.send(rpc(seen, result))
        return True

    return play


def mcp(call: Play) -> Play:
    """A modern MCP server that plays `call` when a tool is called."""
    about: dict[str, object] = {
        "server/discover": {"resultType": "complete", "supportedVersions": ["2026-07-28"]},
        "tools/list": {"resultType": "complete", "tools": []},
        "ping": {},
    }

    async def play(peer: Peer, seen: Seen) -> bool:
        method = method_of(seen)
        if method == "tools/call":
            return await call(peer, seen)
        taken = response(b"", status=b"202 Accepted")
        await peer.send(taken if method.startswith("notifications/") else rpc(seen, about[method]))
        return True

    return play


# -- The client.


class Client:
    """Writes the bytes it is given and reads answers by the letter of RFC 9112."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.usable = True

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**25))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, raw: bytes) -> Answer:
        await self.send(raw)
        return await self.answer(raw.split(b" ", 1)[0])

    async def answer(self, method: bytes = b"POST") -> Answer:
        """One whole answer; `IncompleteReadError` if it is cut."""
        async with asyncio.timeout(DEADLINE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            answer = Answer(head, b"")
            if answer.value(b"connection") == b"close":
                self.usable = False
            return Answer(head, await self._body(answer, method))

    async def _body(self, answer: Answer, method: bytes) -> bytes:
        length = answer.value(b"content-length")
        if method == b"HEAD" or answer.status in (204, 304) or answer.status < 200:
            return b""
        if answer.value(b"transfer-encoding") == b"chunked":
            return await self._chunks()
        if length is not None:
            return await self.reader.readexactly(int(length))
        self.usable = False
        return await self.reader.read(-1)

    async def _chunks(self) -> bytes:
        parts = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            parts.append((await self.reader.readexactly(size + 2))[:-2])
        assert await self.reader.readexactly(2) == b"\r\n"
        return b"".join(parts)

    async def closed(self) -> bool:
        """The other side has closed, and said nothing more."""
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read(-1) == b""
            return True

    def abort(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def request(
    method: str, target: str, body: bytes | None = None, *fields: bytes, chunked: bool = False
) -> bytes:
    """The bytes of a request that has a Host, its own fields, its framing, and nothing else."""
    lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: sidecar.test", *fields]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
        whole = body or b""
        pieces = filter(None, (whole[:3], whole[3:]))
        coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return b"\r\n".join(lines) + b"\r\n\r\n" + coded + b"0\r\n\r\n"
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")
