"""From an arm's rules to what its breaker, its verdicts and its probes are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backends.base import Send
from proxy.arm_rules import body_verdicts, breaker_config, breaker_tools, probed, sources
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.breaker_values import BreakerConfig
from proxy.core.health import HealthConfig
from proxy.core.model import TOOL_KINDS, Kind
from proxy.core.rules import Rules
from proxy.core.verdict import BUSINESS_NO, FAILED_BODY
from proxy.ports import Arm
from tests.path_kit import Forwarding, Network
from tests.rules_kit import document, rules

TOOLS = {"default": {}, "get_slots": {"effect": "read"}, "book": {}}


def ruled(**keys: Any) -> Rules:
    backends = document()["backends"]
    backends["mcp"] |= keys
    return rules(backends=backends, tools=TOOLS, fallback={"last_resort": 7})


def arm() -> Arm:
    breaker = ArmBreaker(BreakerConfig())
    return Arm("mcp", Forwarding(TOOL_KINDS), Network(), breaker, 2.0)


def test_what_nobody_wrote_is_the_breakers_own_default() -> None:
    assert breaker_config(ruled(), "mcp") == BreakerConfig(last_resort=7)


def test_every_key_of_a_breaker_reaches_it() -> None:
    said = {
        "enabled": False, "failures": 4, "open_for": "1s", "open_max": "9s", "window": "20s",
        "min_volume": 3, "failure_rate": "40%", "slow": "700ms", "slow_rate": 60, "half_open": 2,
    }  # fmt: skip
    assert breaker_config(ruled(breaker=said), "mcp") == BreakerConfig(
        enabled=False, failures=4, open_for=1.0, open_max=9.0, window=20.0, min_volume=3,
        failure_rate=40.0, slow=0.7, slow_rate=60.0, half_open=2, last_resort=7,
    )  # fmt: skip


@pytest.mark.parametrize(("timeout", "lease"), [("2s", 10.0), ("30s", 30.0)])
def test_a_probe_holds_its_lease_for_as_long_as_it_may_take(timeout: str, lease: float) -> None:
    assert breaker_config(ruled(health={"timeout": timeout}), "mcp").probe_lease == lease


def test_tools_get_breakers_only_where_the_rules_want_them() -> None:
    wanted = ruled(breaker={"per_tool": True})

    assert breaker_tools(ruled(), "mcp") == []
    assert breaker_tools(wanted, "mcp") == ["get_slots", "book"]
    assert breaker_tools(wanted, "webhook") == []


def test_verdicts_of_the_rules_become_verdicts() -> None:
    said = [
        {"when": {"code": "TAKEN"}, "verdict": "business_no"},
        {"when": {"code": {"exists": True}}, "verdict": "failed"},
    ]
    by_rule = body_verdicts(ruled(body_verdicts=said).backends["mcp"])

    assert by_rule is not None
    assert by_rule.of_body(b'{"code":"TAKEN"}') is BUSINESS_NO
    assert by_rule.of_body(b'{"code":"E7"}') is FAILED_BODY
    assert body_verdicts(ruled().backends["mcp"]) is None


def test_without_health_only_the_breaker_asks_for_probes() -> None:
    how = probed(ruled(), arm(), lambda: True)

    assert how.health is None
    assert (how.asking.path, how.asking.call, how.asking.timeout) == ("", None, None)


def test_every_key_of_health_reaches_the_prober() -> None:
    said = {
        "path": "/h", "expect": {"status": "ok"}, "every": "5s", "timeout": "1s",
        "healthy_after": 4, "unhealthy_after": 5,
    }  # fmt: skip
    how = probed(ruled(health=said), arm(), lambda: True)

    assert how.health == HealthConfig(5.0, 4, 5)
    assert (how.asking.path, how.asking.timeout) == ("/h", 1.0)
    assert how.asking.expected is not None
    assert how.asking.expected.misfit(b'{"status":"no"}')


def test_a_probe_that_names_a_tool_calls_it() -> None:
    said = {"probe": "get_slots", "arguments": {"date": "tomorrow"}}
    call = probed(ruled(health=said), arm(), lambda: True).asking.call

    assert call is not None
    assert (call.kind, call.tool, call.arguments) == (
        Kind.TOOLS,
        "get_slots",
        b'{"date":"tomorrow"}',
    )


def test_a_probe_of_the_handlers_own_is_left_to_the_handler() -> None:
    asking = probed(ruled(health={"probe": "tools/list"}), arm(), lambda: True).asking

    assert (asking.path, asking.call) == ("", None)


class Listing(Forwarding):
    """A backend whose server can be asked what it lists."""

    async def refresh(self, send: Send) -> None: ...


def test_only_who_speaks_mcp_is_asked_what_it_lists() -> None:
    told = ruled(catalogue_every="5s")
    backend = Listing(TOOL_KINDS)
    speaks = Arm("mcp", backend, Network(), ArmBreaker(BreakerConfig()), 2.0, speaks_mcp=True)
    dumb = Arm("webhook", backend, Network(), ArmBreaker(BreakerConfig()), 2.0)
    silent = replace(speaks, backend=Forwarding(TOOL_KINDS))

    (found,) = sources(told, [speaks, dumb, silent])

    assert (found.arm, found.refresh, found.every) == (speaks, backend.refresh, 5.0)
    assert found.url == told.backends["mcp"].url
    assert not list(sources(ruled(catalogue_every=None), [speaks]))
