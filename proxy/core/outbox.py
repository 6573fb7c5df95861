"""What waits in the outbox: an event that no arm took, kept as it came until one does.

A *letter* is the request itself, whole; an *entry* is what is known of it without reading it.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

import msgspec
from msgspec import Struct

from proxy.core.hops import HEADER as HOPS
from proxy.core.model import Call, Head, Headers, Kind

QUEUEABLE = frozenset({Kind.EVENT, Kind.ALERT})
"""Kinds whose answer is their status alone: anybody may give it, once they are safe."""

MAX_NAME = 512
"""Characters of a call ID or an event's name that an entry keeps (Retell's have some 30)."""

OVERHEAD = 512
"""Bytes that an entry counts for besides its letter's."""


class State(StrEnum):
    """Where an entry stands."""

    QUEUED = "queued"  # to be delivered
    DEAD = "dead"  # given up, kept until an operator retries or drops it


class Letter(Struct, frozen=True, array_like=True, gc=False):
    """The request as it came.

    Holds personal data, and whatever credential its sender presented.  `headers` are end-to-end
    only; `call_id` and `event` are whole, as the arms must hear them.
    """

    method: str
    path: str
    query: str
    target: str
    host: bytes
    peer: str
    secure: bool
    headers: Headers
    call_id: str | None
    event: str | None
    start_ms: int | None
    signed: bool
    hops: bytes  # sidecars that it had passed, as it said; b"" if it said nothing
    body: bytes = b""


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """What is known of a letter without reading it.

    `id` rises in the order of arrival; a store gives it (0: none yet).  Times are unix
    milliseconds.  `since_ms` is when the present patience with it began: its arrival, or the last
    retry by hand.
    """

    kind: str
    call_id: str | None  # shortened to a digest if it is too long; None: of no call
    event: str
    arm: str  # for which it was meant
    size: int  # bytes it counts for
    received_ms: int
    since_ms: int
    next_ms: int  # not tried before
    tries: int = 0  # redeliveries so far
    state: State = State.QUEUED
    reason: str = ""  # why the last try failed, or why it is dead
    id: int = 0

    @property
    def line(self) -> str | int:
        """Those with the same one are delivered one after another."""
        return self.id if self.call_id is None else self.call_id


_encode = msgspec.msgpack.Encoder().encode
_decode_letter = msgspec.msgpack.Decoder(Letter).decode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


def name_of(call_id: str | None) -> str | None:
    """A call ID as entries know it: a caller must not fill the memory with one."""
    if call_id is None or len(call_id) <= MAX_NAME:
        return call_id
    return f"long_{blake2b(call_id.encode(), digest_size=16).hexdigest()}"


def letter_of(call: Call) -> Letter:
    """All that it takes to ask an arm again what `call` asks."""
    head = call.head
    return Letter(
        method=head.method,
        path=head.path,
        query=head.query,
        target=head.target,
        host=head.host,
        peer=head.peer,
        secure=head.secure,
        headers=head.end_to_end,
        call_id=call.id,
        event=call.event,
        start_ms=call.start_ms,
        signed=call.signed,
        hops=head.named.get(HOPS, b""),
        body=call.body,
    )


def entry_of(call: Call, arm: str, wall_ms: int) -> Entry:
    """An entry for `call`, meant for `arm`; due at once."""
    headers = sum(len(name) + len(value) for name, value in call.head.end_to_end)
    return Entry(
        kind=call.kind,
        call_id=name_of(call.id),
        event=(call.event or "")[:MAX_NAME],
        arm=arm,
        size=len(call.body) + headers + OVERHEAD,
        received_ms=wall_ms,
        since_ms=wall_ms,
        next_ms=wall_ms,
    )


def call_of(entry: Entry, letter: Letter) -> Call:
    """The call as a backend is asked to answer it."""
    named = {name.lower(): value for name, value in letter.headers}
    if letter.hops:
        named[HOPS] = letter.hops
    head = Head(
        method=letter.method,
        path=letter.path,
        query=letter.query,
        named=named,
        end_to_end=letter.headers,
        host=letter.host,
        peer=letter.peer,
        secure=letter.secure,
        target=letter.target,
    )
    return Call(
        Kind(entry.kind),
        head,
        letter.body,
        letter.call_id,
        start_ms=letter.start_ms,
        event=letter.event,
        signed=letter.signed,
    )


def pack_letter(letter: Letter) -> tuple[bytes, bytes]:
    """A letter as two strings of bytes: all but its body, and its body as it came."""
    return _encode(msgspec.structs.replace(letter, body=b"")), letter.body


def unpack_letter(head: bytes, body: bytes) -> Letter:
    """The way back; raises ValueError for what is no letter."""
    return msgspec.structs.replace(_decode_letter(head), body=body)


def pack_entry(entry: Entry) -> bytes:
    """An entry as bytes."""
    return _encode(entry)


def unpack_entry(packed: bytes) -> Entry:
    """The way back; raises ValueError for what is no entry."""
    return _decode_entry(packed)
