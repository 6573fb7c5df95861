from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from proxy import batch
from proxy.batch import Part, answer_batch
from proxy.core.dialects import sse
from proxy.core.mcp.batch import Message
from proxy.core.model import Reply
from proxy.errors import Refused, UpstreamFailed
from proxy.ports import Incoming
from tests.fakes import FakeIncoming

JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"Content-Type", b"text/event-stream; charset=utf-8")]
BROKE = UpstreamFailed("reset", "cut", sent=True)
PROGRESS = b'data: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n'


class Chunks:
    """A streamed body: chunks, failures, and waits for `go`."""

    def __init__(self, *steps: bytes | Exception | None) -> None:
        self.steps = list(steps)
        self.go = asyncio.Event()
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self.steps:
            raise StopAsyncIteration
        step = self.steps.pop(0)
        if step is None:
            await self.go.wait()
            return await self.__anext__()
        if isinstance(step, Exception):
            raise step
        return step

    async def aclose(self) -> None:
        self.closed += 1


Answer = Callable[[Incoming, Any], Awaitable[Reply]]


class Desk:
    """Answers single requests with `answer`, and holds the tasks."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Incoming] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.whole = FakeIncoming("POST", "/mcp/call_a", [(b"X-A", b"b")])

    def start(self, work: Coroutine[Any, Any, Any], _: str) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self.tasks.append(task)
        return task

    async def handle(self, incoming: Incoming) -> Reply:
        self.asked.append(incoming)
        return await self.answer(incoming, json.loads(await incoming.read(1, 0.0)))

    async def ask(self, *messages: Any) -> Reply:
        body = json.dumps(messages).encode()
        return await answer_batch(self.handle, self.whole, body, start=self.start)

    async def ended(self) -> None:
        await asyncio.gather(*self.tasks, return_exceptions=True)


def request(rpc_id: object = 1, method: str = "tools/call") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "method": method}


NOTE = {"jsonrpc": "2.0", "method": "notifications/x"}


def result(rpc_id: object = 1, **more: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": rpc_id, "result": more}).encode()


def read(reply: Reply) -> Any:
    assert isinstance(reply.body, bytes)
    assert reply.headers == JSON
    return json.loads(reply.body)


async def echo(_: Incoming, message: Any) -> Reply:
    if "id" not in message:
        return Reply(202)
    return Reply(200, list(JSON), result(message["id"]))


async def says(reply: Reply) -> tuple[Desk, Reply]:
    """The whole batch's answer to one request, which is answered with `reply`."""

    async def answer(*_: Any) -> Reply:
        return reply

    desk = Desk(answer)
    return desk, await desk.ask(request())


def fault(reply: Reply) -> tuple[Any, int, str]:
    (answer,) = read(reply)
    return answer["id"], answer["error"]["code"], answer["error"]["message"]


async def test_every_message_comes_alone_in_the_head_of_the_whole() -> None:
    desk = Desk(echo)

    await desk.ask(request(1), NOTE)

    first, second = desk.asked
    for asked in (first, second):
        assert (asked.method, asked.target, asked.peer) == ("POST", "/mcp/call_a", "192.0.2.1")
        assert (asked.headers, asked.version) == (desk.whole.headers, (1, 1))
        assert (asked.secure, asked.gone) == (False, False)
    assert json.loads(await first.read(0, 0.0)) == request(1)
    assert first.declared_length() == len(await first.read(0, 0.0))
    assert json.loads(await second.read(0, 0.0)) == NOTE


async def test_answers_stand_in_the_order_of_their_questions() -> None:
    """Whatever order they come in; all are asked at once."""
    gates = {n: asyncio.Event() for n in range(5)}

    async def answer(incoming: Incoming, message: Any) -> Reply:
        if "id" not in message:
            return Reply(202)
        await gates[message["id"]].wait()
        gates[message["id"] - 1].set()
        return await echo(incoming, message)

    desk = Desk(answer)
    gates[4].set()

    reply = await desk.ask(request(0), NOTE, *(request(n) for n in range(1, 5)))

    assert reply.status == 200
    assert [answer["id"] for answer in read(reply)] == [0, 1, 2, 3, 4]


async def test_equal_ids_have_each_their_own_answer() -> None:
    async def answer(_: Incoming, message: Any) -> Reply:
        return Reply(200, list(JSON), result(1, of=message["method"]))

    reply = await Desk(answer).ask(request(1, "a"), request(1, "b"))

    assert [answer["result"]["of"] for answer in read(reply)] == ["a", "b"]


async def test_where_nobody_waits_nothing_is_said() -> None:
    reply = await Desk(echo).ask(NOTE, {"jsonrpc": "2.0", "id": 3, "result": {}})

    assert (reply.status, reply.headers, reply.body) == (202, [], b"")


async def test_what_is_no_batch_runs_nothing() -> None:
    desk = Desk(echo)

    with pytest.raises(Refused):
        await desk.ask(request(), 5)

    assert not desk.asked


# -- Answers that stream.


async def test_of_a_stream_of_events_its_answer_is_taken() -> None:
    whole = PROGRESS + sse.render(result(1, x=1))
    chunks = Chunks(whole[:30], whole[30:-1], whole[-1:], b": bye\n\n")

    desk, reply = await says(Reply(200, EVENTS, chunks))

    assert read(reply) == [json.loads(result(1, x=1))]
    await desk.ended()
    assert not chunks.steps  # Read to its own end: the connection lives on.


async def test_nobody_waits_for_the_end_of_a_stream_that_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch, "PATIENCE", 0.0)
    chunks = Chunks(sse.render(result()), None)

    desk, reply = await says(Reply(200, EVENTS, chunks))

    assert read(reply) == [json.loads(result())]
    await desk.ended()
    assert chunks.closed == 1


async def test_a_large_answer_may_come_in_pieces() -> None:
    whole = result(1, text="x" * 3000)
    _, reply = await says(Reply(200, list(JSON), Chunks(whole[:1000], whole[1000:])))

    assert read(reply) == [json.loads(whole)]


@pytest.mark.parametrize(
    ("headers", "steps", "message"),
    [
        (EVENTS, [PROGRESS], "There was no answer."),
        (EVENTS, [sse.render(result(2))], "There was no answer."),
        (EVENTS, [PROGRESS, BROKE], "The answer broke off."),
        (JSON, [result(), b"x"], "There was no answer."),
        (JSON, [b"{", BROKE], "The answer broke off."),
        (EVENTS, [b"data: " + b"x" * 101], "too large"),
        (JSON, [b"x" * 60, b"x" * 60], "too large"),
    ],
)
async def test_a_stream_without_an_answer_gets_one(
    monkeypatch: pytest.MonkeyPatch, headers: Any, steps: list[Any], message: str
) -> None:
    monkeypatch.setattr(batch, "ROOM", 100)
    chunks = Chunks(*steps)

    _, reply = await says(Reply(200, headers, chunks))

    rpc_id, code, said = fault(reply)
    assert (rpc_id, code, message in said) == (1, -32603, True)
    assert chunks.closed == 1


async def test_the_more_messages_the_less_room_has_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "ROOM", 200)

    async def answer(_: Incoming, message: Any) -> Reply:
        return Reply(200, list(JSON), Chunks(result(message["id"], text="x" * 60)))

    alone = await Desk(answer).ask(request(1))
    beside = await Desk(answer).ask(request(1), request(2))

    assert "result" in read(alone)[0]
    assert [answer["error"]["code"] for answer in read(beside)] == [-32603, -32603]


async def test_a_stream_that_nobody_wants_is_let_go() -> None:
    chunks = Chunks(PROGRESS)

    async def answer(*_: Any) -> Reply:
        return Reply(200, EVENTS, chunks)

    assert (await Desk(answer).ask(NOTE)).status == 202
    assert chunks.closed == 1


# -- What goes wrong.


@pytest.mark.parametrize(
    "reply",
    [
        Reply(499),
        Reply(202),
        Reply(200, list(JSON), b"{}"),
        Reply(200, list(JSON), result(2)),
        Reply(500, [(b"content-type", b"text/plain")], b"oops"),
        Reply(200, EVENTS, PROGRESS),
    ],
)
async def test_a_request_is_always_answered(reply: Reply) -> None:
    _, told = await says(reply)

    assert fault(told)[:2] == (1, -32603)


async def test_events_may_come_whole() -> None:
    _, reply = await says(Reply(200, EVENTS, PROGRESS + sse.render(result())))

    assert read(reply) == [json.loads(result())]


async def test_one_that_crashes_does_not_take_the_others_along() -> None:
    async def answer(incoming: Incoming, message: Any) -> Reply:
        if message.get("id", 2) == 2:
            raise RuntimeError("a bug")
        if message["id"] == 3:
            raise asyncio.CancelledError
        return await echo(incoming, message)

    reply = await Desk(answer).ask(request(1), request(2), request(3), NOTE)

    first, second, third = read(reply)
    assert (first["id"], second["id"], third["id"]) == (1, 2, 3)
    assert "result" in first
    assert second["error"]["code"] == third["error"]["code"] == -32603
    assert reply.status == 200


GONE = b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"no such session"}}'


@pytest.mark.parametrize(
    ("messages", "statuses", "status"),
    [
        ([request(1)], [404], 404),
        ([request(1), NOTE], [404, 404], 404),
        ([request(1), NOTE], [200, 404], 200),
        ([request(1), request(2)], [404, 401], 200),
        ([request(1), request(2)], [503, 503], 200),
    ],
)
async def test_a_batch_that_is_refused_as_one_has_that_status(
    messages: list[Any], statuses: list[int], status: int
) -> None:
    """So a client that has lost its session begins anew."""
    left = list(statuses)

    async def answer(incoming: Incoming, message: Any) -> Reply:
        now = left.pop(0)
        return await echo(incoming, message) if now == 200 else Reply(now, list(JSON), GONE)

    reply = await Desk(answer).ask(*messages)

    assert reply.status == status
    answers = read(reply)
    assert [answer["id"] for answer in answers] == [m["id"] for m in messages if "id" in m]


async def test_a_refused_notification_is_told_if_nothing_else_is() -> None:
    async def answer(_: Incoming, message: Any) -> Reply:
        lost = message["method"] == "notifications/lost"
        return Reply(404, list(JSON), GONE) if lost else Reply(202)

    reply = await Desk(answer).ask(NOTE, {"jsonrpc": "2.0", "method": "notifications/lost"})

    assert (reply.status, reply.body) == (404, GONE)


# -- Writes whose caller can wait no longer.


async def test_a_message_that_is_answered_early_is_not_waited_for() -> None:
    late = asyncio.Event()
    rest = Chunks(b"x")

    async def answer(incoming: Incoming, message: Any) -> Reply:
        if message["id"] == 1:
            assert incoming.answer(Reply(200, list(JSON), result(1, say="pending")))
            assert not incoming.answer(Reply(200))
            await late.wait()
            return Reply(200, list(JSON), rest)
        return await echo(incoming, message)

    desk = Desk(answer)
    reply = await desk.ask(request(1), request(2))

    assert [a["result"] for a in read(reply)] == [{"say": "pending"}, {}]
    late.set()
    await desk.ended()
    assert rest.closed == 1


async def test_a_stream_is_no_early_answer_and_who_left_hears_none() -> None:
    whole = FakeIncoming()
    part = Part(whole, Message(b"{}", b"1"))

    assert not part.answer(Reply(200, [], Chunks()))
    whole.gone = True
    assert part.gone
    assert not part.answer(Reply(200))


async def test_a_batch_that_is_cut_off_cuts_what_somebody_waited_for() -> None:
    begun, ends = asyncio.Event(), list[object]()

    async def answer(incoming: Incoming, message: Any) -> Reply:
        if message["id"] == 1:
            incoming.answer(Reply(200, list(JSON), result(1)))
        else:
            begun.set()
        try:
            await asyncio.sleep(0 if message["id"] == 1 else 3600)
        except asyncio.CancelledError:
            ends.append(message["id"])
            raise
        return await echo(incoming, message)

    desk = Desk(answer)
    asking = asyncio.ensure_future(desk.ask(request(1), request(2)))
    await begun.wait()
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    await desk.ended()
    assert ends == [2]
