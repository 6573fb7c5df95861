from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from proxy.core.model import Reply, Verdict
from proxy.errors import UpstreamFailed
from proxy.finale import Finale, as_events

ANSWER = b'event: message\ndata: {"jsonrpc":"2.0","id":7,"result":{}}\n\n'
PROGRESS = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n'
LAST = b"event: message\ndata: the last word\n\n"
BROKE = UpstreamFailed("reset", "cut", sent=True)


class Told:
    """An arm's stream: chunks, failures, and waits for `go`."""

    def __init__(self, *steps: bytes | Exception | None) -> None:
        self.steps = list(steps)
        self.go = asyncio.Event()
        self.closed = self.lates = self.drops = 0
        self.read: list[bytes] = []

    def __aiter__(self) -> Told:
        return self

    async def __anext__(self) -> bytes:
        if not self.steps:
            raise StopAsyncIteration
        step = self.steps[0]
        if step is None:
            await self.go.wait()
        self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        if step is None:
            return await self.__anext__()
        self.read.append(step)
        return step

    async def aclose(self) -> None:
        self.closed += 1

    def late(self) -> None:
        self.lates += 1

    def drop(self) -> None:
        self.drops += 1
        self.steps.clear()
        self.go.set()


class Desk:
    def __init__(self) -> None:
        self.failed: list[Verdict] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.append(task)
        return task

    async def finish(self, verdict: Verdict) -> bytes:
        self.failed.append(verdict)
        return LAST

    def finale(self, told: Told, **kind: Any) -> Finale:
        if "first" in kind:
            kind["first"] += asyncio.get_running_loop().time()
        return Finale(told, b"7", self.finish, start=self.start, **kind)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def everything(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_a_stream_with_its_answer_is_handed_on_as_it_is(desk: Desk) -> None:
    told = Told(b": ping\n\n", PROGRESS, ANSWER[:20], ANSWER[20:], b"data: more\n\n")

    assert await everything(desk.finale(told)) == b": ping\n\n" + PROGRESS + ANSWER + (
        b"data: more\n\n"
    )
    assert desk.failed == []


@pytest.mark.parametrize("end", [[], [BROKE]])
@pytest.mark.parametrize("timed", [{}, {"first": 60.0, "patience": 60.0}])
async def test_a_stream_that_ends_without_its_answer_has_a_last_word(
    desk: Desk, end: list[Exception], timed: dict[str, float]
) -> None:
    told = Told(PROGRESS, *end)

    assert await everything(desk.finale(told, **timed)) == PROGRESS + LAST
    assert [verdict.why for verdict in desk.failed] == ["reset" if end else "body"]


async def test_half_an_event_is_never_handed_on(desk: Desk) -> None:
    """The last word would be read as a part of it."""
    told = Told(PROGRESS + ANSWER[:30], BROKE)

    assert await everything(desk.finale(told)) == PROGRESS + LAST


async def test_whatever_happens_after_the_answer_does_not_unmake_it(desk: Desk) -> None:
    told = Told(ANSWER + b"half an ev", BROKE)

    assert await everything(desk.finale(told)) == ANSWER + b"half an ev"
    assert desk.failed == []


async def test_the_answer_to_another_request_is_not_the_answer(desk: Desk) -> None:
    other = ANSWER.replace(b"7", b"8")
    told = Told(other)

    assert await everything(desk.finale(told)) == other + LAST


@pytest.mark.parametrize(("end", "last"), [([], b""), ([BROKE], LAST)], ids=["ended", "broken off"])
async def test_a_legacy_stream_may_end_if_its_reader_can_come_back(
    desk: Desk, end: list[Exception], last: bytes
) -> None:
    told = Told(b"id: 3\nretry: 500\ndata:\n\n", *end)

    said = await everything(desk.finale(told, resumable=True))
    assert said == b"id: 3\nretry: 500\ndata:\n\n" + last


async def test_a_modern_stream_has_no_way_back(desk: Desk) -> None:
    assert (await everything(desk.finale(Told(b"id: 3\ndata:\n\n")))).endswith(LAST)


async def test_an_event_too_large_to_be_read_goes_through(desk: Desk) -> None:
    large = [b"data: " + b"x" * 2**20] + [b"x" * 2**20] * 4
    told = Told(*large, b"\n\n")

    assert len(await everything(desk.finale(told))) == 5 * 2**20 + 8
    assert desk.failed == []


async def test_an_arm_that_says_nothing_in_time_is_late_and_broken_off(desk: Desk) -> None:
    told = Told(PROGRESS, None, ANSWER)
    stream = desk.finale(told, first=60.0, patience=0.0)

    assert await everything(stream) == PROGRESS + LAST
    assert (told.lates, told.closed) == (1, 1)
    assert [verdict.why for verdict in desk.failed] == ["timeout"]


async def test_a_late_write_is_read_to_its_end_all_the_same(desk: Desk) -> None:
    told = Told(None, PROGRESS, ANSWER)
    stream = desk.finale(told, first=0.0, linger=60.0)
    assert await everything(stream) == LAST
    assert told.closed == 0

    told.go.set()
    await asyncio.gather(*desk.tasks)
    assert told.read == [PROGRESS, ANSWER]
    assert told.closed == 1


async def test_a_write_whose_reader_leaves_is_read_to_its_end(desk: Desk) -> None:
    told = Told(PROGRESS, None, ANSWER)
    stream = desk.finale(told, first=60.0, patience=60.0, linger=60.0)
    assert await anext(stream) == PROGRESS
    await stream.aclose()
    await stream.aclose()

    told.go.set()
    await asyncio.gather(*desk.tasks)
    assert told.read == [PROGRESS, ANSWER]
    assert told.closed == 1


async def test_a_write_that_never_ends_is_let_go_of(desk: Desk) -> None:
    told = Told(None)
    stream = desk.finale(told, first=60.0, linger=0.001)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await stream.aclose()

    await asyncio.gather(*desk.tasks, return_exceptions=True)
    assert told.closed == 1


async def test_a_read_whose_reader_leaves_is_broken_off(desk: Desk) -> None:
    told = Told(None, ANSWER)
    stream = desk.finale(told, first=60.0)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await stream.aclose()

    assert (told.closed, told.read) == (1, [])


async def test_a_stream_that_is_dropped_still_has_its_last_word(desk: Desk) -> None:
    told = Told(None, ANSWER)
    stream = desk.finale(told)
    stream.drop()

    assert await everything(stream) == LAST


async def test_events_are_made_of_json_only_if_it_is_none_yet() -> None:
    headers = [(b"content-type", b"text/event-stream")]

    assert as_events(Reply(200, headers, ANSWER)) == ANSWER
    assert as_events(Reply(200, [(b"content-type", b"application/json")], b"{}")) == (
        b"event: message\ndata: {}\n\n"
    )
