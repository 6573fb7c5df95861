from __future__ import annotations

from dataclasses import replace as with_
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.attempt import Attempts
from proxy.core.breaker_values import State
from proxy.core.model import TOOL_KINDS, Call, Head, Headers, Kind, Outbound
from proxy.core.outbox import Entry, Letter, entry_of, letter_of
from proxy.core.outbox_retry import Tried
from proxy.core.signature import SignatureResult, verify
from proxy.redelivery import Redelivery, Signing, destination
from tests.path_kit import DIED, EVENT, REFUSED, Network, World

KEY = b"key_redelivery_0001"
BODY = b'{"event":"call_ended","call":{"call_id":"call_7"}}'
STALE = (b"X-Retell-Signature", b"v=1,d=" + b"0" * 64)


def waiting(arm: str = "webhook", kind: Kind = Kind.EVENT) -> tuple[Entry, Letter]:
    head = Head("POST", "/retell", "", {}, [STALE], b"retell.example", "192.0.2.1", True, "/retell")
    call = Call(kind, head, BODY, "call_7", event="call_ended")
    return replace(entry_of(call, arm, 0), id=1, tries=2), letter_of(call)


class Post:
    def __init__(self, **world: Any) -> None:
        self.world = World(**world)
        self.attempts = Attempts(
            clock=self.world.clock, watch=self.world.watch, start=self.world.start
        )
        self.redelivery = Redelivery(
            lambda: self.world.line,
            self.attempts,
            clock=self.world.clock,
            new_id=lambda: "f" * 32,
        )

    def sign(self, key: bytes) -> None:
        self.world.arms["webhook"] = with_(self.world.arms["webhook"], sign=key)

    async def hand(self, **given: Any) -> Tried:
        return await self.redelivery.hand(*waiting(**given))

    @property
    def seen(self) -> tuple[Outbound, Headers]:
        outbound, extra, _, _ = self.world.webhook.seen[-1]
        return outbound, extra


async def test_it_arrives_as_it_came_and_says_that_it_comes_again() -> None:
    post = Post()
    tried = await post.hand()

    outbound, extra = post.seen
    assert (tried.arm, tried.status, tried.verdict.label) == ("webhook", 200, "success")
    assert outbound.body == BODY
    assert (b"x-callsplit-redelivered", b"3") in extra
    assert (b"x-request-id", b"f" * 32) in extra
    assert (b"x-callsplit-call-id", b"call_7") in extra
    assert (b"x-forwarded-for", b"192.0.2.1") in extra
    assert (b"x-forwarded-proto", b"https") in extra
    assert post.world.deliveries == (0, 1)


async def test_it_is_signed_anew_where_there_is_a_key() -> None:
    """The signature that it came with is stale after 5 minutes."""
    post = Post()
    post.sign(KEY)
    post.world.clock.advance(3600.0)
    tried = await post.hand()

    outbound, _ = post.seen
    (signature,) = [v for name, v in outbound.headers if name.lower() == b"x-retell-signature"]
    wall_ms = post.world.clock.wall_ms()
    assert verify([KEY], BODY, signature, wall_ms) is SignatureResult.OK
    assert tried.signed


async def test_without_a_key_the_signature_goes_on_as_it_is() -> None:
    post = Post()
    tried = await post.hand()

    assert STALE in post.seen[0].headers
    assert not tried.signed


@pytest.mark.parametrize(
    ("answer", "label", "status"),
    [(REFUSED, "not_sent", 0), (DIED, "failed", 0), ((503, b""), "failed", 503),
     ((422, b""), "business_no", 422), ((401, b""), "refused", 401)],
)  # fmt: skip
async def test_it_is_judged_as_on_the_path(answer: Any, label: str, status: int) -> None:
    post = Post(webhook=Network(answer))
    tried = await post.hand()

    assert (tried.verdict.label, tried.status) == (label, status)
    (attempt,) = [value for what, value in post.world.watch.told if what == "attempt"]
    assert (attempt.arm, attempt.verdict) == ("webhook", tried.verdict)


async def test_its_failures_open_the_breaker_and_an_open_one_keeps_it_away() -> None:
    post = Post(webhook=Network(REFUSED))
    for _ in range(5):
        assert (await post.hand()).began

    breaker = post.world.arms["webhook"].breaker
    assert breaker.state is State.OPEN
    assert (await post.hand()).verdict.why == "open", "and no last resort is lent"
    assert len(post.world.webhook.seen) == 5
    shut = post.redelivery.shut(waiting()[0])
    assert shut is not None
    assert not shut.began
    assert not post.redelivery.passes("webhook")


async def test_half_open_it_waits_for_the_probe_and_is_then_one_of_the_trials() -> None:
    post = Post()
    breaker, clock, entry = post.world.arms["webhook"].breaker, post.world.clock, waiting()[0]
    breaker.trip(clock.now())
    assert post.redelivery.shut(entry) is not None
    clock.advance(3600.0)
    breaker.tick(clock.now())
    assert post.redelivery.shut(entry) is not None

    probe = breaker.probe_due(clock.now())
    assert probe is not None
    breaker.probe_ended(probe, True, clock.now())
    assert post.redelivery.shut(entry) is None
    for _ in range(3):
        assert (await post.hand()).verdict.label == "success"

    assert breaker.state is State.CLOSED
    assert post.redelivery.passes("webhook")
    assert not post.redelivery.passes("gone")


async def test_an_operators_hand_keeps_it_away_too() -> None:
    post = Post()
    breaker = post.world.arms["webhook"].breaker
    breaker.force(State.FORCED_OPEN, 0.0)
    assert post.redelivery.shut(waiting()[0]) is not None

    breaker.reset(0.0)
    assert post.redelivery.shut(waiting()[0]) is None


async def test_a_long_answer_is_not_read_and_given_back() -> None:
    """An event's answer is its status."""
    network = Network()
    network.chunks = [b"x" * 10, b"y"]
    post = Post(webhook=network)
    tried = await post.hand()

    assert (tried.verdict.label, tried.status) == ("success", 200)
    assert network.closed == 1


async def test_the_guard_of_live_events_hears_nothing_of_it() -> None:
    """What Retell sends once more while it waits here is for the guard alone to judge."""
    post = Post()
    await post.hand()

    await post.world.ask(EVENT)

    assert post.world.deliveries == (0, 2)
    assert post.world.exchange.reason != "replayed"


ALL = frozenset(Kind)


@pytest.mark.parametrize(
    ("meant", "world", "arm"),
    [
        ("webhook", {}, "webhook"),
        ("mcp", {"mcp_kinds": TOOL_KINDS}, "webhook"),
        ("gone", {"mcp_kinds": ALL}, "webhook"),
        ("mcp", {"mcp_kinds": ALL}, "webhook"),  # where a rescue would have brought it
        ("mcp", {"mcp_kinds": ALL, "fallback": {"enabled": False}}, "mcp"),
        ("mcp", {"mcp_kinds": ALL, "fallback": {"enabled": False}, "kill": True}, "webhook"),
        ("webhook", {"mcp_kinds": ALL, "fallback": {"both_ways": True}}, "webhook"),
    ],
)
def test_it_goes_where_events_go_by_nature(meant: str, world: dict[str, Any], arm: str) -> None:
    line = World(**world).line

    assert destination(line, waiting(meant)[0], 0).name == arm


def test_where_only_the_new_arm_takes_events_they_go_there() -> None:
    world = World(mcp_kinds=ALL)
    world.arms["webhook"].backend.kinds = TOOL_KINDS

    assert destination(world.line, waiting("webhook")[0], 0).name == "mcp"


async def test_a_signing_upstream_is_otherwise_the_one_it_stands_before() -> None:
    network = Network()
    signing = Signing(network, KEY, World().clock)

    await signing.connect(deadline=0.0)
    await signing.aclose(0.0)

    assert network.seen == []
    assert network.closed == 0
