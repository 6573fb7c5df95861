"""The path of a request, from its bytes to its account."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.core.auth import AuthPolicy, Credentials
from proxy.core.breaker_values import State
from proxy.core.limits import Limit
from proxy.core.model import Call, Kind
from proxy.core.requirement import Requirement
from proxy.errors import ClientGone, UpstreamFailed
from tests.fakes import FakeClock, FakeIncoming
from tests.interpreter import interpreted_only
from tests.path_kit import (
    BOOK,
    DIED,
    EVENT,
    GOOD,
    INBOUND,
    REFUSED,
    SLOTS,
    SLOW,
    Answer,
    Network,
    World,
    header,
    read,
    said,
)

# -- The plain way.


async def test_a_call_goes_to_its_arm_and_the_answer_says_so() -> None:
    world = World(percent=100)
    reply = await world.ask(BOOK)

    assert (reply.status, reply.body) == GOOD
    assert header(reply, b"x-callsplit-arm") == [b"mcp"]
    assert header(reply, b"x-callsplit-reason") == [b"share"]
    assert header(reply, b"x-request-id") == [b"0" * 31 + b"1"]
    assert world.deliveries == (1, 0)
    assert (world.exchange.outcome, world.exchange.call_id) == ("ok", "call_7")


async def test_at_share_0_nobody_reaches_the_new_arm() -> None:
    world = World(percent=0)
    await world.ask(BOOK)

    assert world.deliveries == (0, 1)
    assert world.exchange.arm == "webhook"


async def test_the_arm_hears_who_called_and_which_try_this_is() -> None:
    world = World()
    await world.ask(BOOK, peer="198.51.100.7")
    _, extra, _, _ = world.mcp.seen[0]

    told = dict(extra)
    assert told[b"x-request-id"] == b"0" * 31 + b"1"
    assert told[b"x-forwarded-for"] == b"198.51.100.7"
    assert told[b"x-callsplit-call-id"] == b"call_7"
    assert told[b"x-callsplit-attempt"] == b"1"
    assert told[b"traceparent"] == b"00-" + b"0" * 31 + b"1-" + b"0" * 16 + b"-00"


async def test_a_callers_own_traceparent_is_not_doubled() -> None:
    world = World()
    await world.ask(BOOK, headers=[(b"Traceparent", b"00-a-b-01")])
    outbound, extra, _, _ = world.mcp.seen[0]

    names = [name.lower() for name, _ in (*outbound.headers, *extra)]
    assert names.count(b"traceparent") == 1


async def test_an_event_goes_by_nature_to_the_arm_that_can_take_it() -> None:
    """That is no rescue: the mcp backend has no word for events."""
    world = World(percent=100)
    reply = await world.ask(EVENT)

    assert header(reply, b"x-callsplit-reason") == [b"kind"]
    assert world.deliveries == (0, 1)
    assert not [told for told in world.watch.told if told[0] == "rescued"]
    assert (world.exchange.decided, world.exchange.arm) == ("mcp", "webhook")


async def test_a_kind_that_no_backend_takes_is_501() -> None:
    world = World(mcp_kinds=frozenset())
    world.arms["webhook"].backend.kinds = frozenset()

    assert (await world.ask(EVENT)).status == 501
    assert world.exchange.code == "kind_not_taken"


async def test_an_unknown_shape_goes_to_the_otherwise_arm_whatever_it_answers() -> None:
    world = World(percent=100, webhook=Network((302, b"moved")))
    reply = await world.ask(b"not json at all")

    assert (reply.status, reply.body) == (302, b"moved")
    assert world.deliveries == (0, 1)
    assert world.webhook.seen[0][0].body == b"not json at all"
    assert world.exchange.kind is Kind.OTHER


async def test_an_unknown_shape_is_never_asked_elsewhere() -> None:
    """Nobody knows what it does, so it has an arm's own time and no rescue, both ways or not."""
    world = World(mcp_kinds=frozenset(Kind), webhook=Network(REFUSED), fallback={"both_ways": True})
    began = world.clock.now()
    assert (await world.ask({"odd": 1})).status == 503

    assert world.deliveries == (0, 1)
    assert world.webhook.seen[0][2] == began + 30.0


async def test_a_business_no_is_relayed_and_harms_nobody() -> None:
    world = World(mcp=Network((200, b'{"success":false,"message":"slot taken"}')))
    for _ in range(6):
        reply = await world.ask(BOOK)

    assert said(reply)["message"] == "slot taken"
    assert world.arms["mcp"].breaker.state is State.CLOSED
    assert world.deliveries == (6, 0)


async def test_the_health_page_is_ours() -> None:
    world = World()
    incoming = FakeIncoming("GET", "/api/mcp/retell/health")

    assert (await world.handler.handle(incoming)).status == 200
    assert world.deliveries == (0, 0)
    assert world.exchange.outcome == "ok"


async def test_custom_llm_sockets_are_not_carried_yet() -> None:
    world = World()

    assert (await world.handler.handle(FakeIncoming("GET", "/llm/call_7"))).status == 501


# -- Refusals.


async def test_a_refusal_is_json_with_a_request_id_and_reaches_nobody() -> None:
    world = World()
    reply = await world.ask(b"{", target="/api/mcp/retell/tools")

    assert reply.status == 400
    assert said(reply)["error"]["request_id"] == "0" * 31 + "1"
    assert header(reply, b"x-callsplit-arm") == []
    assert world.deliveries == (0, 0)
    assert world.exchange.outcome == "refused"


async def test_a_missing_credential_is_401_and_reaches_nobody() -> None:
    auth = AuthPolicy({Kind.FUNCTION: Requirement.any_of(["token"])}, Credentials((b"t" * 32,)))
    world = World(auth=auth)

    assert (await world.ask(BOOK)).status == 401
    assert world.deliveries == (0, 0)


async def test_a_tool_over_its_limit_hears_a_sentence_and_nothing_ran() -> None:
    """A 429 would make Retell retry and the caller wait in silence."""
    world = World(tool_limit=Limit(1, 1.0))
    await world.ask(BOOK)
    world.watch.told.clear()
    reply = await world.ask(BOOK | {"args": {"time": "11:00"}})

    assert reply.status == 200
    assert said(reply) == {"success": False, "message": world.line.tools.get("book").say.plain}
    assert world.deliveries == (1, 0)
    assert (world.exchange.outcome, world.exchange.code) == ("last_answer", "tool_limit")


async def test_a_caller_that_hung_up_is_accounted_as_gone() -> None:
    class Gone(FakeIncoming):
        async def read(self, limit: int, deadline: float) -> bytes:
            raise ClientGone

    world = World()
    await world.handler.handle(Gone(body=b"{}"))

    assert (world.exchange.outcome, world.exchange.status) == ("gone", 499)


async def test_a_caller_that_hangs_up_in_mid_call_is_gone_though_its_tool_ran() -> None:
    world = World()
    incoming = FakeIncoming(body=orjson.dumps(BOOK))

    async def hangs_up() -> tuple[int, bytes]:
        incoming.gone = True
        return GOOD

    world.mcp.answers = [hangs_up]
    await world.handler.handle(incoming)

    assert (world.exchange.outcome, world.exchange.status) == ("gone", 499)
    assert [attempt.verdict.label for attempt in world.exchange.attempts] == ["success"]


@interpreted_only
async def test_a_bug_of_ours_is_500_without_a_word_of_it() -> None:
    world = World()

    def broken(call: Call) -> Any:
        raise RuntimeError("secret detail")

    world.line.tools.terms = broken  # type: ignore[method-assign]
    reply = await world.ask(BOOK)

    assert reply.status == 500
    assert isinstance(reply.body, bytes)
    assert b"secret" not in reply.body
    assert [what for what, _ in world.watch.told].count("crashed") == 1
    assert world.exchange.outcome == "failed"


# -- Rescue and last answer.


async def test_a_write_that_never_left_is_rescued_once() -> None:
    world = World(mcp=Network(REFUSED))
    reply = await world.ask(BOOK)

    assert reply.status == 200
    assert header(reply, b"x-callsplit-reason") == [b"rescue_connect"]
    assert header(reply, b"x-callsplit-arm") == [b"webhook"]
    assert world.deliveries == (1, 1)
    assert dict(world.webhook.seen[0][1])[b"x-callsplit-attempt"] == b"2"
    assert ("rescued", ("mcp", "connect")) in world.watch.told
    assert [a.arm for a in world.exchange.attempts] == ["mcp", "webhook"]


@pytest.mark.parametrize("failure", [DIED, SLOW, (500, b""), (503, b"")])
async def test_a_write_that_may_have_run_is_never_sent_again(failure: Answer) -> None:
    world = World(mcp=Network(failure))
    reply = await world.ask(BOOK)

    assert reply.status == 200
    assert said(reply)["message"] == world.line.tools.get("book").say_pending.plain
    assert world.deliveries == (1, 0)
    assert world.exchange.flags == ["say_pending"]


@pytest.mark.parametrize("failure", [DIED, SLOW, (500, b""), (429, b"")])
@pytest.mark.parametrize("tool", ["slots", "put"])
async def test_what_may_run_twice_is_rescued_from_any_failure(failure: Answer, tool: str) -> None:
    world = World(mcp=Network(failure))
    reply = await world.ask({**SLOTS, "name": tool})

    assert (reply.status, reply.body) == GOOD
    assert world.deliveries == (1, 1)


async def test_if_both_arms_fail_the_caller_hears_what_is_known() -> None:
    """Nothing ran on either arm: the agent may try again."""
    world = World(mcp=Network(REFUSED), webhook=Network(REFUSED))
    reply = await world.ask(BOOK)

    assert said(reply)["message"] == world.line.tools.get("book").say.plain
    assert header(reply, b"x-callsplit-arm") == [b"none"]
    assert header(reply, b"x-callsplit-reason") == [b"last_answer"]


async def test_a_rescue_that_may_have_run_is_told_as_pending() -> None:
    world = World(mcp=Network(REFUSED), webhook=Network(DIED))

    assert said(await world.ask(BOOK))["message"] == world.line.tools.get("book").say_pending.plain


async def test_there_is_at_most_one_rescue() -> None:
    world = World(mcp=Network(REFUSED), webhook=Network(REFUSED))
    await world.ask(SLOTS)

    assert world.deliveries == (1, 1)


async def test_the_webhook_is_never_rescued_by_the_new_arm_at_share_0() -> None:
    world = World(percent=0, webhook=Network(REFUSED), fallback={"both_ways": True})
    reply = await world.ask(SLOTS)

    assert said(reply)["success"] is False
    assert world.deliveries == (0, 1)


async def test_the_kill_switch_closes_the_way_back_too() -> None:
    world = World(percent=50, kill=True, webhook=Network(REFUSED), fallback={"both_ways": True})
    await world.ask(SLOTS)

    assert world.deliveries == (0, 1)


async def test_with_both_ways_the_new_arm_may_rescue_the_webhook() -> None:
    world = World(percent=0.01, webhook=Network(REFUSED), fallback={"both_ways": True})
    reply = await world.ask(SLOTS)

    assert header(reply, b"x-callsplit-arm") == [b"mcp"]
    assert world.deliveries == (1, 1)


async def test_without_fallback_the_last_answer_follows_at_once() -> None:
    world = World(mcp=Network(REFUSED), fallback={"enabled": False})
    reply = await world.ask(BOOK)

    assert said(reply)["success"] is False
    assert world.deliveries == (1, 0)


async def test_a_redirect_is_never_relayed_nor_followed() -> None:
    world = World(mcp=Network((307, b"")))
    reply = await world.ask(SLOTS)

    assert reply.status == 200
    assert said(reply)["success"] is False
    assert world.deliveries == (1, 0)
    assert [what for what, _ in world.watch.told].count("config_fault") == 1


async def test_an_event_nobody_takes_is_503_so_that_retell_tries_again() -> None:
    world = World(webhook=Network(REFUSED))
    reply = await world.ask(EVENT)

    assert reply.status == 503
    assert header(reply, b"retry-after") == [b"5"]


async def test_an_inbound_call_that_nobody_answers_is_let_through() -> None:
    world = World(webhook=Network(REFUSED))
    reply = await world.ask(INBOUND)

    assert (reply.status, said(reply)) == (200, {"call_inbound": {}})


async def test_the_sentence_comes_in_the_callers_language() -> None:
    tools = {
        "default": {"say": {"en": "Sorry.", "de": "Leider nicht."}, "language": "metadata.lang"}
    }
    world = World(percent=0, webhook=Network(REFUSED), tools=tools)
    call = {"call_id": "call_7", "metadata": {"lang": "de-AT"}}

    assert said(await world.ask({**BOOK, "call": call}))["message"] == "Leider nicht."


async def test_a_rescue_does_not_start_when_its_time_is_gone() -> None:
    world = World()

    async def late() -> tuple[int, bytes]:
        world.clock.advance(4.8)
        raise SLOW

    world.mcp.answers = [late]
    reply = await world.ask(SLOTS)

    assert said(reply)["success"] is False
    assert world.deliveries == (1, 0)


async def test_the_first_attempt_leaves_the_rescue_its_time() -> None:
    world = World(fallback={"budget": {"function": "1s"}}, mcp=Network(REFUSED))
    began = world.clock.now()
    await world.ask(BOOK)

    assert world.mcp.seen[0][2] < began + 1.0
    assert world.webhook.seen[0][2] == began + 30.0


class Late(FakeIncoming):
    """Its body takes a minute."""

    def __init__(self, clock: FakeClock, **options: Any) -> None:
        super().__init__(**options)
        self._clock = clock

    async def read(self, limit: int, deadline: float) -> bytes:
        self._clock.advance(60.0)
        return await super().read(limit, deadline)


async def test_a_body_that_came_slowly_has_used_up_nobodys_budget() -> None:
    """Else a long transcript on a thin line would leave no arm any time at all."""
    world = World(mcp=Network(REFUSED))
    reply = await world.handler.handle(Late(world.clock, body=orjson.dumps(BOOK)))

    assert header(reply, b"x-callsplit-reason") == [b"rescue_connect"]
    assert world.mcp.seen[0][2] > world.clock.now()


async def test_an_upload_that_came_slowly_is_passed_through_in_the_arms_own_time() -> None:
    world = World(passthrough=True)
    await world.handler.handle(Late(world.clock, target="/upload", body=b"x"))

    assert world.webhook.seen[0][2] == world.clock.now() + 30.0


async def test_a_budget_of_events_bounds_every_attempt() -> None:
    world = World(percent=0)
    began = world.clock.now()
    await world.ask(EVENT)

    assert world.webhook.seen[0][2] == began + 9.0


async def test_only_a_write_lingers() -> None:
    world = World()
    await world.ask(BOOK)
    await world.ask(SLOTS)

    assert [linger for _, _, _, linger in world.mcp.seen] == [30.0, 0.0]


# -- Passthrough.


async def test_a_path_that_is_not_ours_is_passed_through_untouched() -> None:
    network = Network((302, b"moved"))
    world = World(webhook=network, passthrough=True)
    reply = await world.ask(b"a=1", target="/login?next=%2Fhome")

    outbound, _, _, linger = network.seen[0]
    assert (outbound.target, outbound.body, linger) == ("/login?next=%2Fhome", b"a=1", 0.0)
    assert (reply.status, reply.body) == (302, b"moved")
    assert header(reply, b"x-callsplit-reason") == [b"passthrough"]
    assert world.exchange.kind is Kind.PASSTHROUGH
    assert not world.exchange.attempts


@pytest.mark.parametrize(("failure", "status"), [(REFUSED, 502), (DIED, 502), (SLOW, 504)])
async def test_a_dead_application_is_a_gateway_error_and_no_breakers_business(
    failure: UpstreamFailed, status: int
) -> None:
    world = World(webhook=Network(failure), passthrough=True)
    reply = await world.ask(b"", target="/login")

    assert reply.status == status
    assert world.arms["webhook"].breaker.snapshot(0.0).failures == 0
    assert world.exchange.code == "upstream_failed"


async def test_without_passthrough_a_strange_path_is_404() -> None:
    assert (await World().ask(b"", target="/login")).status == 404


# -- The outbox.


async def test_an_event_that_no_arm_takes_waits_in_the_outbox() -> None:
    world = World(webhook=Network(REFUSED))
    world.outbox.works = True
    reply = await world.ask(EVENT)

    assert (reply.status, header(reply, b"x-callsplit-reason")) == (202, [b"last_answer"])
    assert [(call.event, arm) for call, arm in world.outbox.kept] == [("call_ended", "webhook")]
    assert world.exchange.flags == ["queued"]


async def test_an_event_that_waits_has_been_taken() -> None:
    """Retell's retry of it is answered, and is not kept a second time."""
    world = World(webhook=Network(REFUSED))
    world.outbox.works = True
    await world.ask(EVENT)

    assert (await world.ask(EVENT)).status == 204
    assert len(world.outbox.kept) == 1


async def test_a_later_event_joins_the_queue_of_its_call() -> None:
    world = World()
    world.outbox.works, world.outbox.queued = True, {"call_7"}
    reply = await world.ask(EVENT)

    assert reply.status == 202
    assert world.deliveries == (0, 0)


async def test_an_event_that_cannot_join_is_delivered() -> None:
    """Out of order is better than lost."""
    world = World()
    world.outbox.queued = {"call_7"}

    assert (await world.ask(EVENT)).status == 200
    assert world.deliveries == (0, 1)


async def test_only_events_wait() -> None:
    world = World(mcp=Network(REFUSED), webhook=Network(REFUSED))
    world.outbox.works = True

    assert said(await world.ask(BOOK))["success"] is False
    assert (await world.ask(INBOUND)).status == 200
    assert world.outbox.kept == []


async def test_an_event_that_is_too_much_now_waits() -> None:
    world = World(in_flight=1)
    world.handler.inflight, world.outbox.works = 5, True
    reply = await world.ask(EVENT)

    assert reply.status == 202
    assert world.deliveries == (0, 0)


async def test_an_event_that_is_too_much_and_cannot_wait_is_503() -> None:
    world = World(in_flight=1)
    world.handler.inflight = 5
    reply = await world.ask(EVENT)

    assert reply.status == 503
    assert header(reply, b"retry-after")


async def test_what_is_read_while_a_write_still_streams_is_not_kept_beyond_its_end() -> None:
    """A stream may begin before the tool has changed anything."""
    tools: dict[str, dict[str, Any]] = {
        "slots": {"effect": "read", "cache": "1m"},
        "book": {"invalidates": ["slots"]},
    }
    world = World(tools=tools)
    world.mcp.chunks = [b"booked"]
    streams = await world.ask(BOOK)
    world.mcp.chunks = None
    before = [await world.ask(SLOTS) for _ in range(2)]

    await read(streams)
    after = await world.ask(SLOTS)

    reasons = [header(reply, b"x-callsplit-reason") for reply in (*before, after)]
    assert reasons == [[b"recorded"], [b"cached"], [b"recorded"]]
