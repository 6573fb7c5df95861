"""One arm as a process of its own: `backend.py NAME webhook|mcp PORT LEDGER SEED`.

It runs tools after a moment and answers after another, so that a kill, a freeze or a cut can hit
before, between and behind.  SIGUSR1 makes it sick for a while: then it fails in every way it knows.
SIGTERM lets it finish what it began.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

SICK = 1.5
"""Seconds that one signal makes it sick."""

SLOW = 2.5
"""Seconds that a sick one may be silent: longer than anybody waits for a first attempt."""

SICKNESSES = (
    "none", "500 before", "500 after", "reset before", "reset after", "cut", "busy", "silent",
    "surplus",
)  # fmt: skip

_ABOUT: dict[str, dict[str, Any]] = {
    "server/discover": {"resultType": "complete", "supportedVersions": ["2026-07-28"]},
    "tools/list": {"resultType": "complete", "tools": []},
    "ping": {},
}


class Backend:
    """Books, cancels and takes events; what it did stands in the ledger."""

    def __init__(self, name: str, wire: str, ledger: Any, pick: random.Random) -> None:
        self._name, self._wire, self._ledger, self._pick = name, wire, ledger, pick
        self._sick_until = 0.0
        self.under_way = 0

    def fall_sick(self) -> None:
        """For a while."""
        self._sick_until = asyncio.get_running_loop().time() + SICK

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while (request := await read_request(reader)) is not None:
                self.under_way += 1
                try:
                    if not await self._exchange(*request, writer):
                        return
                finally:
                    self.under_way -= 1
        except (ConnectionError, asyncio.CancelledError):
            pass  # Whoever hung up: what ran has run.
        finally:
            writer.close()

    async def _exchange(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False: the connection carries no more."""
        sick = asyncio.get_running_loop().time() < self._sick_until
        illness = self._pick.choice(SICKNESSES) if sick else "none"
        await asyncio.sleep(self._pick.uniform(0.0, 0.015))
        if illness == "reset before":
            return reset(writer)
        if illness == "500 before":
            return await send(writer, framed(b"{}", "500 Internal Server Error"))
        if illness == "busy":
            return await send(writer, framed(b"{}", "503 Busy", "Retry-After: 1"))
        answer = self._answer(head, body)
        await asyncio.sleep(SLOW if illness == "silent" else self._pick.uniform(0.0, 0.01))
        if illness == "reset after":
            return reset(writer)
        if illness == "500 after":
            return await send(writer, framed(b"{}", "500 Internal Server Error"))
        if illness == "cut":
            await send(writer, answer[: len(answer) * 2 // 3])
            return False
        return await send(writer, answer + b"\r\nHTTP/1.1" * (illness == "surplus"))

    def _answer(self, head: bytes, body: bytes) -> bytes:
        """Do what is asked."""
        if head.startswith(b"GET"):
            return framed(b'{"status":"healthy"}')
        asked, call = json.loads(body), call_id(head)
        if self._wire == "mcp":
            return self._rpc(asked, call)
        if "event" not in asked:
            return framed(json.dumps(self._run(asked["name"], call, asked["args"])).encode())
        if asked["event"] == "call_inbound":
            return framed(b'{"call_inbound":{"dynamic_variables":{"vip":"true"}}}')
        self._ledger.note("event", call, asked["event"])
        return framed(b'{"status":"ok"}')

    def _rpc(self, asked: dict[str, Any], call: str) -> bytes:
        result = _ABOUT.get(asked["method"])
        if result is None:
            said = self._run(asked["params"]["name"], call, asked["params"]["arguments"])
            block = {"type": "text", "text": json.dumps(said)}
            no = said.get("success") is False
            result = {"resultType": "complete", "content": [block], "isError": no}
        message = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}).encode()
        return streamed(message) if self._pick.random() < 0.5 else framed(message)

    def _run(self, tool: str, call: str, arguments: dict[str, Any]) -> dict[str, Any]:
        slot = str(arguments.get("slot", ""))
        if tool == "book_appointment":
            if slot.startswith("taken"):
                return {"success": False, "message": "That time is taken."}
            self._ledger.note("booking", call, slot)
        elif tool == "cancel_appointment":
            self._ledger.note("cancelling", call, slot)
        return {"success": True, "tool": tool, "slot": slot, "by": self._name}


def call_id(head: bytes) -> str:
    """The call, as the sidecar tells it."""
    found = re.search(rb"\r\nx-callsplit-call-id: *([^\r]+)\r\n", head, re.I)
    return found[1].decode() if found else ""


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    """Head and body; None after a hang-up."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head, re.I)
        return head, await reader.readexactly(int(length[1])) if length else b""
    except asyncio.IncompleteReadError:
        return None


def framed(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *fields]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def streamed(message: bytes) -> bytes:
    """The same as a stream of one event, in chunks."""
    event = b"event: message\ndata: %b\n\n" % message
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
    return head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)


async def send(writer: asyncio.StreamWriter, data: bytes) -> bool:
    """Write it out; the connection may be kept."""
    writer.write(data)
    await writer.drain()
    return True


def reset(writer: asyncio.StreamWriter) -> bool:
    """Close with a RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def main() -> None:
    """Serve until told to end."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # Not this directory.
    from tests.chaos.ledger import Ledger

    name, wire, port, ledger, seed = sys.argv[1:]
    backend = Backend(name, wire, Ledger(Path(ledger), name), random.Random(seed))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, backend.fall_sick)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await asyncio.start_server(backend.serve, "127.0.0.1", int(port), backlog=1024)
    await ended.wait()
    server.close()
    patience = loop.time() + 1.0
    while backend.under_way and loop.time() < patience:
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main())
