"""What one probe asks, and what it takes for an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from backends.base import BackendConfig, Send
from backends.mcp import McpBackend
from backends.tools import ToolsBackend
from proxy.adapters.asking import Asking, ask, never_got_there
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.breaker_values import BreakerConfig
from proxy.core.expect import LIMIT, Expected
from proxy.core.model import Call, Kind, Outbound, Reply
from proxy.core.probe_call import probe_call
from proxy.core.verdict import BUSINESS_NO, FAILED_BODY
from proxy.errors import ProbeFailed, UpstreamFailed
from proxy.ports import Arm
from tests.fakes import FakeUpstream

SLOTS = probe_call("get_slots", {"date": "tomorrow"}, frozenset({Kind.TOOLS}))
WELL = Expected({"status": ["healthy", "ok"]})


class Stream:
    """A body in pieces, which must be closed."""

    def __init__(self, *chunks: bytes) -> None:
        self.closed = False
        self._chunks = list(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop(0)

    async def aclose(self) -> None:
        self.closed = True


class Plain:
    """A backend without a probe of its own."""

    kinds = frozenset(Kind)

    async def handle(self, call: Call, send: Send) -> Reply:
        return await send(Outbound("POST", "/hook", list(call.head.end_to_end), call.body))


class Wrapping(Plain):
    """A backend whose probe tells every failure as its own."""

    async def probe(self, send: Send) -> None:
        try:
            await send(Outbound("POST", "/own", []), dispatches=False)
        except UpstreamFailed:
            raise ProbeFailed("my own words")  # noqa: B904


class Own(Plain):
    """A backend with one."""

    async def probe(self, send: Send) -> None:
        await send(Outbound("POST", "/own", []), dispatches=False)


def arm(endpoint: FakeUpstream, backend: Any = None, **more: Any) -> Arm:
    breaker = ArmBreaker(BreakerConfig())
    return Arm("mcp", backend or Plain(), endpoint, breaker, 2.0, **more)


async def failure(endpoint: FakeUpstream, asking: Asking, backend: Any = None, **more: Any) -> str:
    """What a failing probe tells operators; "" if it does not fail."""
    try:
        await ask(arm(endpoint, backend, **more), asking, 7.0)
    except (ProbeFailed, UpstreamFailed) as failed:
        return str(failed)
    return ""


@pytest.mark.parametrize(
    ("backend", "asking", "targets"),
    [
        (Plain(), Asking(), []),
        (Own(), Asking(), ["/own"]),
        (Plain(), Asking("/health?deep=1"), ["/health?deep=1"]),
        (Own(), Asking("/health"), ["/health"]),
        (Own(), Asking(call=SLOTS), ["/hook"]),
    ],
    ids=["connect", "own", "path", "path, though it has its own", "tool, though it has its own"],
)
async def test_what_the_rules_name_comes_first(
    backend: Plain, asking: Asking, targets: list[str]
) -> None:
    endpoint = FakeUpstream()

    assert await failure(endpoint, asking, backend) == ""

    assert [sent.outbound.target for sent in endpoint.sent] == targets
    assert not any(sent.extra for sent in endpoint.sent)
    assert endpoint.connects + [sent.deadline for sent in endpoint.sent] == [7.0]


async def test_a_health_path_is_asked_plainly() -> None:
    endpoint = FakeUpstream()
    await ask(arm(endpoint), Asking("/health"), 7.0)

    ((outbound, *_),) = endpoint.sent
    assert (outbound.method, outbound.body) == ("GET", b"")
    assert (b"user-agent", b"callsplit-probe") in outbound.headers


@pytest.mark.parametrize("status", [301, 404, 500, 503])
@pytest.mark.parametrize("expected", [None, WELL], ids=["any", "expected"])
async def test_any_status_but_2xx_is_bad(status: int, expected: Expected | None) -> None:
    body = Stream(b'{"status":"ok"}')

    assert await failure(FakeUpstream(Reply(status, body=body)), Asking("/h", expected)) == (
        f"status {status}"
    )
    assert body.closed


async def test_an_answer_that_nobody_reads_is_left_at_once() -> None:
    body = Stream(b"x" * 100)

    assert await failure(FakeUpstream(Reply(200, body=body)), Asking("/h")) == ""
    assert body.closed


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"status":"healthy"}', ""),
        (b'{"status":"unhealthy"}', "status is not as expected"),
        (b"<html>", "the answer is no JSON"),
    ],
)
async def test_a_page_that_says_200_whatever_it_finds_is_read(body: bytes, detail: str) -> None:
    """The guide's health page does."""
    endpoint = FakeUpstream(Reply(200, body=body))

    assert await failure(endpoint, Asking("/h", WELL)) == detail
    assert (b"accept-encoding", b"identity") in endpoint.sent[0].outbound.headers
    streamed = FakeUpstream(Reply(200, body=Stream(body[:9], body[9:])))
    assert await failure(streamed, Asking("/h", WELL)) == detail


async def test_a_page_without_end_is_not_read_to_its_end() -> None:
    body = Stream(*[b" " * LIMIT] * 3)

    assert "too large" in await failure(FakeUpstream(Reply(200, body=body)), Asking("/h", WELL))
    assert body.closed


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (Reply(200, body=b'{"slots":[]}'), ""),
        (Reply(200, body=b'{"success":false}'), ""),
        (Reply(404), ""),
        (Reply(200, body=b'{"success":false,"status_code":500}'), "get_slots: failed, status 200"),
        (Reply(500), "get_slots: failed, status 500"),
        (Reply(503, [(b"retry-after", b"9")]), "get_slots: busy, status 503"),
        (Reply(401), "get_slots: refused, status 401"),
        (Reply(302), "get_slots: redirect, status 302"),
        (Reply(200, verdict=FAILED_BODY), "get_slots: failed, status 200"),
        (Reply(500, verdict=BUSINESS_NO), ""),
    ],
    ids=str,
)
async def test_a_tools_answer_is_judged_as_a_callers_would_be(reply: Reply, detail: str) -> None:
    """A business "no" is well: the arm did its work."""
    assert await failure(FakeUpstream(reply), Asking(call=SLOTS)) == detail


async def test_the_rules_read_a_probes_answer_too() -> None:
    by_rule = BodyVerdicts([({"state": "broken"}, FAILED_BODY)])
    endpoint = FakeUpstream(Reply(200, body=b'{"state":"broken"}'))

    assert await failure(endpoint, Asking(call=SLOTS), by_rule=by_rule) != ""


async def test_a_tools_answer_that_streams_is_left() -> None:
    body = Stream(b"x")

    assert await failure(FakeUpstream(Reply(200, body=body)), Asking(call=SLOTS)) == ""
    assert body.closed


async def test_a_tool_is_asked_through_the_backend_in_the_arms_own_language() -> None:
    backend = ToolsBackend(BackendConfig("mcp", path="/api/tools", bearer=b"ours"))
    endpoint = FakeUpstream(Reply(200, body=b'{"success":true}'))

    assert await failure(endpoint, Asking(call=SLOTS), backend) == ""

    ((outbound, *_),) = endpoint.sent
    assert outbound.target == "/api/tools"
    assert orjson.loads(outbound.body) == {"tool": "get_slots", "arguments": {"date": "tomorrow"}}
    assert (b"authorization", b"Bearer ours") in outbound.headers


@pytest.mark.parametrize(
    ("why", "nothing_said"), [("full", True), ("connect", False), ("timeout", False)]
)
async def test_a_full_pool_is_told_from_a_failing_arm_also_through_a_backend(
    why: str, nothing_said: bool
) -> None:
    failure = UpstreamFailed(why, "x", sent=False)
    assert never_got_there(failure) is nothing_said
    for wrapped in (McpBackend(BackendConfig("mcp", path="/mcp")), Wrapping()):
        endpoint = FakeUpstream()
        endpoint.fails = failure
        with pytest.raises(ProbeFailed) as caught:
            await ask(arm(endpoint, wrapped), Asking(), 7.0)

        assert never_got_there(caught.value) is nothing_said
    assert not never_got_there(ProbeFailed("down"))
