"""What a tool's caller hears where an arm came to no end: whole, in time, and never twice."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.core.model import Reply
from proxy.core.replay_values import RunState
from tests.fakes import FakeIncoming
from tests.path_kit import DIED, Network, read
from tests.test_protocol import EVENTS, Server, world

FROM_WEBHOOK = b'{"jsonrpc":"2.0","id":7,"result":{"content":[],"isError":false}}'
ANSWER = b'data: {"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"hi"}]}}\n\n'
PROGRESS = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n'


def call(tool: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool}}


class Place:
    def __init__(self, *chunks: bytes | Exception) -> None:
        server = Server((200, b""), headers=EVENTS)
        server.chunks = list(chunks)
        self.world = world(server, webhook=Network((200, FROM_WEBHOOK)))

    async def ask(self, tool: str) -> Reply:
        headers = ((b"x-call-id", b"call_7"), (b"accept", b"text/event-stream"))
        body = orjson.dumps(call(tool))
        return await self.world.handler.handle(
            FakeIncoming(target="/mcp", headers=headers, body=body)
        )


async def test_a_stream_that_comes_to_its_answer_is_left_alone() -> None:
    place = Place(PROGRESS, ANSWER)

    assert await read(await place.ask("book")) == PROGRESS + ANSWER
    assert place.world.exchange.outcome == "ok"
    assert place.world.deliveries == (1, 0)


@pytest.mark.parametrize("end", [[], [DIED]])
async def test_a_read_that_breaks_off_is_answered_by_the_other_arm(end: list[Exception]) -> None:
    place = Place(PROGRESS, *end)

    assert await read(await place.ask("slots")) == (
        PROGRESS + b"event: message\ndata: " + FROM_WEBHOOK + b"\n\n"
    )
    assert (place.world.exchange.outcome, place.world.exchange.arm) == ("rescued", "webhook")
    assert place.world.deliveries == (1, 1)


@pytest.mark.parametrize("end", [[], [DIED]])
async def test_a_write_that_breaks_off_is_pending_and_runs_nowhere_else(
    end: list[Exception],
) -> None:
    place = Place(PROGRESS, *end)
    events = await read(await place.ask("book"))

    assert events.startswith(PROGRESS)
    last = orjson.loads(events.removeprefix(PROGRESS).split(b"data: ")[1])
    assert last["id"] == 7
    assert last["result"]["isError"] is True
    assert "say_pending" in place.world.exchange.flags
    assert place.world.deliveries == (1, 0)
    (run,) = place.world.once.guard.store
    assert run.state is RunState.UNKNOWN


async def test_a_read_is_not_asked_for_a_third_time() -> None:
    place = Place(PROGRESS, DIED)
    place.world.webhook.answers = [DIED]
    events = await read(await place.ask("slots"))

    assert b'"isError":true' in events
    assert place.world.exchange.outcome == "last_answer"
    assert place.world.deliveries == (1, 1)


async def test_a_rescue_that_streams_too_and_breaks_off_has_a_last_word() -> None:
    place = Place()
    place.world.mcp.answers = [DIED]
    broken = Server((200, b""), headers=EVENTS)
    broken.chunks = [PROGRESS, DIED]
    place.world.arms["webhook"].upstream = broken
    events = await read(await place.ask("slots"))

    assert b'"isError":true' in events
    assert len(broken.seen) == 1


async def continued(percent: float) -> Place:
    place = Place()
    place.world = world(Server(DIED), webhook=Network((200, FROM_WEBHOOK)), percent=percent)
    more = call("slots")
    more["params"] |= {"requestState": "s", "inputResponses": {}}
    headers = ((b"x-call-id", b"call_7"),)
    body = orjson.dumps(more)
    await place.world.handler.handle(FakeIncoming(target="/mcp", headers=headers, body=body))
    return place


@pytest.mark.parametrize(("percent", "asked"), [(100.0, 1), (0.0, 0)])
async def test_what_a_tool_has_asked_is_answered_to_its_own_arm_alone(
    percent: float, asked: int
) -> None:
    """The other arm knows nothing of the question."""
    place = await continued(percent)

    assert place.world.deliveries == (asked, 0)
    assert place.world.exchange.outcome == "last_answer"
