from __future__ import annotations

import json

import pytest

from backends import mcp_translation
from backends.base import ToolConfig
from proxy.core.model import Era, Kind
from tests.backends.kit import body_of, json_reply, make_call, text_result
from tests.backends.told import Rig, message

ERAS = [(Era.LEGACY,), (Era.MODERN,), (Era.LEGACY, Era.MODERN)]


@pytest.mark.parametrize("eras", ERAS)
@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.ARGS, Kind.TOOLS])
async def test_who_speaks_no_mcp_hears_what_the_tool_says(
    kind: Kind, eras: tuple[Era, ...]
) -> None:
    rig = Rig(*eras)

    reply = await rig.ask(make_call(kind))

    said = json.loads(body_of(reply))
    assert (said["data"] if kind is Kind.TOOLS else said) == {"date": "2026-01-02", "n": 1.5}
    assert reply.verdict is not None
    assert reply.verdict.label == "success"
    assert rig.told.ran[0][0] == {"date": "2026-01-02", "n": 1.5}
    asked = message(rig.told.sent[-1].body)
    assert ("_meta" in asked["params"]) is (Era.MODERN in eras)


@pytest.mark.parametrize("eras", ERAS)
async def test_a_failing_server_is_not_put_into_words(eras: tuple[Era, ...]) -> None:
    rig = Rig(*eras)
    rig.told.answers["tools/call"] = lambda _: json_reply(b"secret trace", 500)

    reply = await rig.ask(make_call(Kind.FUNCTION))

    assert (reply.status, reply.verdict) == (500, None)
    assert json.loads(body_of(reply)) == {"success": False, "message": "The backend failed."}


async def test_what_is_kept_of_tools_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names come from callers."""
    monkeypatch.setattr(mcp_translation, "REQUESTS_KEPT", 2)
    rig = Rig()

    for tool in ("a", "b", "c", "c"):
        await rig.ask(make_call(Kind.FUNCTION, tool=tool))
        assert message(rig.told.sent[-2 if tool == "a" else -1].body)

    assert len(rig.arm._translation._requests) == 2


async def test_a_tool_may_have_another_name_there() -> None:
    rig = Rig(tools={"buchen": ToolConfig(name="book")})

    await rig.ask(make_call(Kind.FUNCTION, tool="buchen"))

    assert len(rig.told.ran) == 1


async def test_how_long_an_answer_may_be_kept_is_passed_on() -> None:
    rig = Rig()
    rig.told.answers["tools/call"] = text_result("ten", ttlMs=2000, cacheScope="private")

    reply = await rig.ask(make_call(Kind.FUNCTION))

    assert (reply.ttl, reply.private) == (2.0, True)
