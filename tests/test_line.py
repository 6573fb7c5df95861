from __future__ import annotations

from proxy.core.arm_breaker import ArmBreaker
from proxy.core.auth import AuthPolicy, Credentials
from proxy.core.breaker_values import BreakerConfig
from proxy.core.call_id import CallIds
from proxy.core.entry import Entry
from proxy.core.model import Call, Kind, Reply
from proxy.core.rules import Fallback
from proxy.core.splitter import Splitter
from proxy.core.tool_table import ToolTable
from proxy.edge import Edge, EdgeRules
from proxy.line import Line
from proxy.ports import Arm
from tests.fakes import FakeUpstream, FakeWatch

BOTH = frozenset({Kind.FUNCTION, Kind.EVENT})
TAKES = {"mcp": frozenset({Kind.FUNCTION}), "webhook": BOTH, "former": BOTH}


class Silent:
    kinds: frozenset[Kind] = frozenset()

    async def handle(self, call: Call, send: object) -> Reply:
        return Reply(200)


def line(**entry: object) -> Line:
    values = {"to": "mcp", "otherwise": "webhook", "percent": 50.0, **entry}
    fallback = Fallback()
    return Line(
        edge=Edge(EdgeRules(AuthPolicy({}, Credentials())), FakeWatch()),
        ids=CallIds(),
        splitter=Splitter(Entry(**values)),  # type: ignore[arg-type]
        arms={
            name: Arm(name, Silent(), FakeUpstream(), ArmBreaker(BreakerConfig()), 1.0)
            for name in TAKES
        },
        to="mcp",
        otherwise="webhook",
        tools=ToolTable({}, fallback.budget),
        fallback=fallback,
        health=lambda: Reply(200),
        covers={"mcp": BOTH, "webhook": TAKES["mcp"], "former": BOTH},
    )


def rescuer(of: Line, arm: str, kind: Kind) -> str | None:
    found = of.rescuer(arm, kind, 1_000_000)
    return found.name if found is not None else None


def test_each_arm_has_its_opposite() -> None:
    assert line().other("mcp").name == "webhook"
    assert line().other("webhook").name == "mcp"


def test_an_arm_that_left_the_split_is_rescued_by_the_safe_one() -> None:
    """Live calls stay on it; its events, and its failures, are for the arm that serves most."""
    assert line().other("former").name == "webhook"
    assert rescuer(line(percent=0.0), "former", Kind.FUNCTION) == "webhook"


def test_a_rescue_goes_from_the_shares_arm_to_the_other() -> None:
    assert rescuer(line(percent=0.0), "mcp", Kind.FUNCTION) == "webhook"


def test_the_way_back_is_shut_where_nobody_is_to_reach_the_shares_arm() -> None:
    assert rescuer(line(), "webhook", Kind.FUNCTION) == "mcp"
    assert rescuer(line(percent=0.0), "webhook", Kind.FUNCTION) is None
    assert rescuer(line(cap=0.0), "webhook", Kind.FUNCTION) is None
    assert rescuer(line(kill=True), "webhook", Kind.FUNCTION) is None


def test_an_arm_that_cannot_take_the_kind_rescues_nobody() -> None:
    assert rescuer(line(), "webhook", Kind.EVENT) is None
    assert rescuer(line(), "mcp", Kind.ALERT) is None
