"""A batch of MCP messages: each an exchange of its own, their answers put together.

They run side by side and are judged, split, guarded and accounted for one by one; only the HTTP
request that brought them, and the one that takes their answers away, is shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from backends.base import ANSWER_LIMIT
from proxy.core.dialects import sse
from proxy.core.dialects.answers import EVENTS, JSON
from proxy.core.dialects.headers import media_type
from proxy.core.mcp.batch import (
    Message,
    answer_among,
    answer_in,
    join_batch,
    no_answer,
    split_batch,
)
from proxy.core.model import Reply
from proxy.errors import UpstreamFailed
from proxy.hedged import Start
from proxy.ports import Incoming
from proxy.relay import let_go

Handle: TypeAlias = Callable[[Incoming], Coroutine[Any, Any, Reply]]

ROOM = 2 * ANSWER_LIMIT
"""The most bytes of streamed answers that a batch holds until its last answer is here."""
PATIENCE = 2.0
"""Seconds for a stream of events to end once its answer is here."""

_NONE = "There was no answer."
_BROKEN = "The answer broke off."
_TOO_LARGE = "The answer is too large for a batch: ask for it alone."


class Part:
    """One message as if it had come alone, in the head of the whole (an `Incoming`)."""

    def __init__(self, whole: Incoming, message: Message) -> None:
        self.method = whole.method
        self.target = whole.target
        self.version = whole.version
        self.headers = whole.headers
        self.peer = whole.peer
        self.secure = whole.secure
        self.perishable = False  # It goes with the whole.
        self.message = message
        self.early: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._whole = whole

    def declared_length(self) -> int | None:
        """That of the message."""
        return len(self.message.body)

    async def read(self, limit: int, deadline: float) -> bytes:
        """The message: the whole was within the limit, and in time."""
        return self.message.body

    def answer(self, reply: Reply) -> bool:
        """Answer now, while the handler goes on."""
        if self.gone or self.early.done() or not isinstance(reply.body, bytes):
            return False
        self.early.set_result(reply)
        return True

    @property
    def gone(self) -> bool:
        """The caller has hung up."""
        return self._whole.gone


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one message.

    `answer` is the one it wanted, if it did; `other` what was said to one that wants none.
    """

    status: int
    answer: bytes | None = None
    other: bytes = b""


async def answer_batch(handle: Handle, incoming: Incoming, body: bytes, *, start: Start) -> Reply:
    """Answer every message of a batch in one JSON array, in their order; 202 if none wants one.

    `handle` is who answers requests that come alone.  What a server says on its way to an answer
    is left out: an array has no place for it.  Raises `Refused` for what is no batch, before any
    of it runs.
    """
    parts = [Part(incoming, message) for message in split_batch(body)]
    limit = min(ANSWER_LIMIT, ROOM // len(parts))
    tasks = [start(_serve(handle, part, limit, start), "message of a batch") for part in parts]
    pairs = list(zip(parts, tasks, strict=True))
    try:
        for part, task in pairs:
            either: set[asyncio.Future[Any]] = {part.early, task}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        for part, task in pairs:
            if not part.early.done():  # The others are writes that nobody waits for any more.
                task.cancel()
        raise
    return _together([_outcome(part, task) for part, task in pairs])


async def _serve(handle: Handle, part: Part, limit: int, start: Start) -> Said:
    reply = await handle(part)
    if isinstance(reply.body, bytes):
        return _whole(reply, reply.body, part.message.rpc_id)
    if part.message.rpc_id is None or part.early.done():
        await let_go(reply.body, 0.0)
        return Said(reply.status)
    return await _streamed(reply, reply.body, part.message.rpc_id, limit, start)


def _outcome(part: Part, task: asyncio.Task[Said]) -> Said:
    rpc_id = part.message.rpc_id
    if part.early.done():
        reply = part.early.result()
        assert isinstance(reply.body, bytes)
        return _whole(reply, reply.body, rpc_id)
    if not task.cancelled() and task.exception() is None:
        return task.result()
    return Said(500, None if rpc_id is None else no_answer(rpc_id, _BROKEN))


def _whole(reply: Reply, body: bytes, rpc_id: bytes | None) -> Said:
    if rpc_id is None:
        return Said(reply.status, other=body)
    if media_type(reply.headers) == EVENTS:
        answer = answer_among(sse.Parser().feed(body), rpc_id)
    else:
        answer = answer_in(body, rpc_id)
    return Said(reply.status, answer or no_answer(rpc_id, _NONE))


async def _streamed(
    reply: Reply, chunks: AsyncIterator[bytes], rpc_id: bytes, limit: int, start: Start
) -> Said:
    read = _heard if media_type(reply.headers) == EVENTS else _read
    fault = _NONE
    try:
        answer = await read(chunks, rpc_id, limit)
        if answer is not None:
            start(_read_out(chunks), "the end of an answer")
            return Said(reply.status, answer)
    except UpstreamFailed:
        fault = _BROKEN
    except ValueError:
        fault = _TOO_LARGE
    await let_go(chunks, 0.0)
    return Said(reply.status, no_answer(rpc_id, fault))


async def _heard(chunks: AsyncIterator[bytes], rpc_id: bytes, limit: int) -> bytes | None:
    """The answer in a stream of events; raises ValueError if one of them is over the limit."""
    parser = sse.Parser(limit)
    async for chunk in chunks:
        answer = answer_among(parser.feed(chunk), rpc_id)
        if answer is not None:
            return answer
    return None


async def _read(chunks: AsyncIterator[bytes], rpc_id: bytes, limit: int) -> bytes | None:
    """The answer that a stream is; raises ValueError if it is over the limit."""
    parts, size = [], 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise ValueError("the answer is too large")
        parts.append(chunk)
    return answer_in(b"".join(parts), rpc_id)


async def _read_out(chunks: AsyncIterator[bytes]) -> None:
    """Let a stream come to its own end: its connection can be used again."""
    try:
        async with asyncio.timeout(PATIENCE):
            async for _ in chunks:
                pass
    except (TimeoutError, UpstreamFailed):
        pass  # What was wanted is here.
    finally:
        await let_go(chunks, 0.0)


def _together(all_said: list[Said]) -> Reply:
    """One answer for all; where all of them were turned away alike, with their status."""
    answers = [said.answer for said in all_said if said.answer is not None]
    fields = [(b"content-type", JSON)]
    if answers:
        statuses = {said.status for said in all_said}
        alike = len(statuses) == 1 and 400 <= all_said[0].status < 500
        return Reply(all_said[0].status if alike else 200, fields, join_batch(answers))
    for said in all_said:
        if said.status >= 400:
            return Reply(said.status, fields if said.other else [], said.other)
    return Reply(202)
