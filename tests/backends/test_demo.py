from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mcp_types.jsonrpc import JSONRPCError, JSONRPCResponse

from backends.base import BackendConfig
from backends.demo import SALON, DemoBackend, Mood, Run, Salon
from proxy.core.model import TOOL_KINDS, Call, Kind, Outbound, Reply
from proxy.errors import ProbeFailed, UpstreamFailed
from tests.backends.kit import body_of, make_call, mcp_call


async def nowhere(outbound: Outbound, *, dispatches: bool = True) -> Reply:
    raise AssertionError("the demo has no upstream")


def arms(**more: Any) -> tuple[Salon, DemoBackend, DemoBackend]:
    salon = Salon()
    pair = [
        DemoBackend(BackendConfig(name, options={"like": name, "salon": salon, **more}))
        for name in ("mcp", "webhook")
    ]
    return salon, pair[0], pair[1]


def function(tool: str, **arguments: Any) -> Call:
    return make_call(Kind.FUNCTION, tool=tool, arguments=json.dumps(arguments).encode())


async def said(arm: DemoBackend, call: Call) -> Any:
    reply = await arm.handle(call, nowhere)
    assert reply.status == 200
    return json.loads(body_of(reply))


TEN = {"date": "2026-01-02", "time": "10:00"}


async def test_what_is_booked_on_one_arm_is_taken_on_the_other() -> None:
    salon, mcp, webhook = arms()

    booked = await said(mcp, function("book_appointment", **TEN, name="Ana"))
    again = await said(webhook, function("book_appointment", **TEN, name="Ben"))
    free = await said(webhook, function("get_available_slots", date="2026-01-02"))

    assert (booked["success"], again["success"]) == (True, False)
    assert {"time": "10:00", "available": True} not in free["slots"]
    assert salon.bookings["2026-01-02", "10:00"]["name"] == "Ana"
    assert list(salon.runs)[:2] == [
        Run("mcp", "book_appointment", "call_1"),
        Run("webhook", "book_appointment", "call_1"),
    ]
    assert salon.ran["mcp", "book_appointment"] == 1


async def test_a_cancelled_slot_is_free_again() -> None:
    _, mcp, webhook = arms()
    await said(mcp, function("book_appointment", date="2026-01-02", time="09:00"))
    booked = await said(mcp, function("book_appointment", **TEN))

    gone = await said(webhook, function("cancel_appointment", booking_id=booked["booking_id"]))
    twice = await said(webhook, function("cancel_appointment", booking_id=booked["booking_id"]))
    after = await said(mcp, function("book_appointment", **TEN))

    assert [answer["success"] for answer in (gone, twice, after)] == [True, False, True]
    assert after["booking_id"] != booked["booking_id"]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (function("get_customer_info", phone="+14155550100"), {"found": True, "name": "Ana Lopez"}),
        (function("get_customer_info", phone="+1"), {"found": False}),
        (function("get_company_info"), {"name": "Salon Mondlicht"}),
        (function("make_coffee"), {"success": False}),
        (function("book_appointment"), {"success": False}),
        (make_call(Kind.FUNCTION, tool=None, arguments=None), {"success": False}),
        (make_call(Kind.ARGS, tool="get_company_info", arguments=b"[]"), {"success": True}),
    ],
)
async def test_every_question_gets_an_answer(call: Call, expected: dict[str, Any]) -> None:
    _, mcp, _ = arms()

    answer = await said(mcp, call)

    assert expected.items() <= answer.items()


async def test_the_guides_callers_hear_its_form() -> None:
    _, mcp, _ = arms()

    answer = await said(mcp, make_call(Kind.TOOLS, tool="make_coffee"))

    assert answer["success"] is False


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_mcp_callers_hear_results(version: str) -> None:
    _, mcp, _ = arms()

    reply = await mcp.handle(mcp_call(version=version, tool="get_company_info"), nowhere)
    other = await mcp.handle(mcp_call("prompts/list", {}, tool=None), nowhere)

    message = JSONRPCResponse.model_validate_json(body_of(reply))
    assert message.id == "own-1"
    assert message.result["structuredContent"]["name"] == "Salon Mondlicht"
    assert message.result["isError"] is False
    assert JSONRPCError.model_validate_json(body_of(other)).error.code == -32601


async def test_events_and_ringing_callers_are_answered_by_the_webhook_arm() -> None:
    salon, mcp, webhook = arms()

    inbound = await said(webhook, make_call(Kind.INBOUND))
    event = await said(webhook, make_call(Kind.EVENT))
    other = await said(webhook, make_call(Kind.OTHER))

    assert (inbound, event, other) == ({"call_inbound": {}}, {"status": "ok"}, {"status": "ok"})
    assert salon.events["webhook", "call_ended"] == 1
    assert (mcp.kinds, Kind.EVENT in webhook.kinds) == (TOOL_KINDS, True)


@pytest.mark.parametrize(
    ("mood", "why", "sent"), [(Mood.REFUSE, "connect", False), (Mood.ERROR, "status", True)]
)
async def test_a_broken_arm_fails_as_a_real_one_would(mood: Mood, why: str, sent: bool) -> None:
    salon, mcp, webhook = arms()
    salon.set_mood("mcp", mood)

    with pytest.raises(UpstreamFailed) as caught:
        await mcp.handle(function("book_appointment", **TEN), nowhere)
    with pytest.raises(ProbeFailed):
        await mcp.probe(nowhere)
    await webhook.probe(nowhere)

    assert (caught.value.why, caught.value.sent) == (why, sent)
    assert not salon.runs


async def test_an_arm_that_hangs_has_run_the_tool_and_fails_once_healed() -> None:
    salon, mcp, _ = arms()
    salon.set_mood("mcp", Mood.HANG)
    asked = asyncio.ensure_future(mcp.handle(function("book_appointment", **TEN), nowhere))
    while not salon.runs:
        await asyncio.sleep(0)
    assert not asked.done()

    salon.set_mood("mcp", Mood.WELL)

    with pytest.raises(UpstreamFailed) as caught:
        await asked
    assert (caught.value.why, caught.value.sent) == ("timeout", True)
    await mcp.probe(nowhere)
    assert (await said(mcp, function("get_company_info")))["success"]


async def test_one_that_would_hang_does_not_once_it_is_healed() -> None:
    salon = Salon()
    salon.set_mood("mcp", Mood.HANG)
    salon.set_mood("mcp", Mood.WELL)

    await salon.until_healed("mcp")


async def test_an_arm_may_take_its_time() -> None:
    _, mcp, _ = arms(latency=1e-6)

    assert (await said(mcp, function("get_company_info")))["success"]


def test_arms_share_one_salon_unless_told_otherwise() -> None:
    one, other = DemoBackend(BackendConfig("a")), DemoBackend(BackendConfig("b"))

    assert one.salon is other.salon is SALON
