"""How do an old process and its successor talk?  In messages over a unix socket, sockets included.

A message is its length, the number of descriptors that come with it, and MessagePack.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from proxy.core.outbox import Entry, Letter
from proxy.core.replay_values import Done

VERSION: Final = 1
"""Of these messages.  Processes that speak different ones do not follow each other."""

MOST: Final = 256 * 2**20
"""Bytes of one message: what the replay guard keeps, with room to grow."""

_FRAME: Final = struct.Struct("!IB")
_CHUNK: Final = 256 * 1024
_MOST_FDS: Final = 32


class Message(msgspec.Struct, tag=True):
    """One message."""


# -- Until the successor is the service.


class Hello(Message):
    """The successor: here I am."""

    version: int
    pid: int
    listener: int = 0  # of the inherited socket for callers (`sockets.inode`); 0: it has none


class Place(msgspec.Struct, frozen=True):
    """A socket that goes with `Offer`."""

    name: str
    given: bool  # by a service manager: it is the one, whatever the rules say
    address: str  # of the rules


class Offer(Message):
    """The old one: these are my sockets, in the order of the descriptors that come along."""

    places: list[Place]
    state_dir: int  # inode of its lock; 0: it keeps nothing


class No(Message):
    """Either: this comes to nothing."""

    why: str


class Ready(Message):
    """The successor: everything stands, but for what you know."""


class State(Message):
    """The old one: I have stopped accepting; this is what I know.  The lock comes along.

    `runs` and `events` are under way here: how they end is told later.
    """

    replays: bytes
    runs: list[tuple[bytes, int]]  # key and number
    events: list[int]
    locked: bool


class Taken(Message):
    """The successor: I know it now."""


class Go(Message):
    """The old one: accept."""


# -- From then on: the old one asks and tells, the successor answers.


class Begin(Message):
    """May this write run?"""

    id: int
    key: bytes
    scope: str
    tool: str
    replay_for: float
    tool_call_id: str | None


class BeginEvent(Message):
    """Is this event to be delivered?"""

    id: int
    key: int


class Post(Message):
    """Keep this event."""

    id: int
    entry: Entry
    letter: Letter
    patience: float  # seconds


class Answer(Message):
    """To `Begin`: the number of the run, or what its caller hears; to the others: yes or no."""

    id: int
    run: int = 0
    done: Done | None = None
    yes: bool = False
    wait: bool = False


class Ended(Message):
    """This run has ended: with `done`, or by not running; without both nobody will know."""

    key: bytes
    number: int
    done: Done | None
    ran: bool


class EventEnded(Message):
    """This event has been taken, or not."""

    key: int
    taken: bool


Any_ = (
    Hello | Offer | No | Ready | State | Taken | Go
    | Begin | BeginEvent | Post | Answer | Ended | EventEnded
)  # fmt: skip

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Any_).decode


class Lost(Exception):
    """The other process is gone, or says what this one does not understand."""


def tell(sock: socket.socket, message: Message) -> None:
    """Say one thing where no loop runs; that nobody hears it is no trouble."""
    text = _encode(message)
    with suppress(OSError):
        sock.sendall(_FRAME.pack(len(text), 0) + text)


class Channel:
    """One end, on a running loop.  Messages arrive whole and in order."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self._fds: deque[int] = deque()
        self._unsent: deque[tuple[bytearray, Sequence[int]]] = deque()
        self._inbox: asyncio.Queue[tuple[Message, list[int]] | None] = asyncio.Queue()
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._reading, self._closed, self.lost = True, False, False
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Say it, if anybody is there; the descriptors are copied before this returns."""
        if self.lost:
            return
        text = _encode(message)
        own = [os.dup(fd) for fd in fds]
        self._unsent.append((bytearray(_FRAME.pack(len(text), len(own)) + text), own))
        self._flushed.clear()
        if len(self._unsent) == 1:
            self._loop.add_writer(self._sock.fileno(), self._writable)
            self._writable()

    async def receive(self) -> tuple[Message, list[int]]:
        """The next message with its descriptors, which are the receiver's.  Raises `Lost`."""
        item = await self._inbox.get()
        if item is None:
            self._inbox.put_nowait(None)
            raise Lost("the other process is gone")
        return item

    async def flush(self) -> None:
        """Until everything has been said, or nobody is there."""
        await self._flushed.wait()

    def close(self) -> None:
        """Say nothing more and hear nothing more; harmless a second time."""
        if not self._closed:
            self._closed = True
            self._lose()
            for _, fds in self._unsent:
                _close(fds)
            self._unsent.clear()
            _close(self._fds)
            while not self._inbox.empty():
                if (item := self._inbox.get_nowait()) is not None:
                    _close(item[1])
            self._inbox.put_nowait(None)
            self._sock.close()

    def _readable(self) -> None:
        try:
            data, fds, flags, _ = socket.recv_fds(self._sock, _CHUNK, _MOST_FDS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lose()
            return
        self._fds.extend(fds)
        if not data or flags & socket.MSG_CTRUNC:
            self._lose()
            return
        self._unread += data
        try:
            while self._next():
                pass
        except (ValueError, msgspec.MsgspecError):
            self._lose()

    def _next(self) -> bool:
        """Take one message out of what was read; False: it is not whole yet."""
        unread = self._unread
        if len(unread) < _FRAME.size:
            return False
        size, count = _FRAME.unpack_from(unread)
        if size > MOST:
            raise ValueError("too large")
        end = _FRAME.size + size
        if len(unread) < end:
            return False
        message: Any = _decode(memoryview(unread)[_FRAME.size : end].tobytes())
        del unread[:end]
        fds = [self._fds.popleft() for _ in range(min(count, len(self._fds)))]
        self._inbox.put_nowait((message, fds))
        return True

    def _writable(self) -> None:
        while self._unsent and not self.lost:
            text, fds = self._unsent[0]
            try:
                if fds:  # They travel with the message's first bytes.
                    sent = socket.send_fds(self._sock, [memoryview(text)[:_CHUNK]], fds)
                else:
                    sent = self._sock.send(memoryview(text)[:_CHUNK])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._lose()
                return
            _close(fds)
            del text[:sent]
            if text:
                self._unsent[0] = (text, ())
            else:
                self._unsent.popleft()
        if not self._closed:
            self._loop.remove_writer(self._sock.fileno())
        self._flushed.set()

    def _lose(self) -> None:
        """Nothing comes or goes any more; what came already may still be received."""
        if self._reading:
            self._reading, self.lost = False, True
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._flushed.set()
            self._inbox.put_nowait(None)


def _close(fds: Sequence[int] | deque[int]) -> None:
    for fd in fds:
        os.close(fd)
