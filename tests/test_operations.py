from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from proxy.adapters.logs import configure
from proxy.adapters.rules_file import parse_rules
from proxy.app import App
from proxy.core.replay import ReplayGuard
from proxy.core.replay_values import Run
from proxy.operations import SidecarOperations
from proxy.settings import load_settings

RULES = """
version: 1
listen: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0", token: "env:ADMIN_TOKEN?"}
split: {percent: 25, salt: pepper}
backends:
  mcp: {handler: demo, options: {like: mcp}}
  webhook: {handler: demo}
"""


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    rules = f"{RULES}state_dir: {tmp_path / 'state'}\n"
    loaded = parse_rules(rules.encode(), {}, path=Path("rules.yaml"))
    log = configure(lambda: 0, stream=io.StringIO())
    app = App(loaded, load_settings(), log)
    await app.start()
    yield app
    await app.drain()


@pytest.fixture
def operations(app: App) -> SidecarOperations:
    return app.operations


async def test_a_started_sidecar_is_ready(operations: SidecarOperations) -> None:
    assert operations.unready() == []


async def test_the_status_page_tells_split_arms_and_rules(operations: SidecarOperations) -> None:
    page = operations.status()

    assert page["split"]["percent"] == 25
    assert page["split"]["kill_switch"] is False
    assert set(page["arms"]) == {"mcp", "webhook"}
    assert page["arms"]["mcp"]["breaker"]["state"] == "closed"
    assert (page["arms"]["mcp"]["waiting"], page["arms"]["mcp"]["full_total"]) == (0, 0)
    assert page["rules"]["fault"] is None
    assert page["tasks"] == len(asyncio.all_tasks())
    assert orjson.dumps(page)


async def test_the_configuration_shows_references_never_secrets(
    operations: SidecarOperations,
) -> None:
    page = operations.config()

    assert page["rules"]["admin"]["token"] == "env:ADMIN_TOKEN?"
    assert page["rules"]["split"]["percent"] == 25
    assert orjson.dumps(page)


async def test_a_salt_written_as_text_is_not_shown(operations: SidecarOperations) -> None:
    """Whoever knows it can craft call IDs."""
    assert "pepper" not in str(operations.config())


async def test_a_call_is_explained_by_its_id_or_by_its_body(
    operations: SidecarOperations,
) -> None:
    by_id = operations.explain("call_7", None)
    by_body = operations.explain(None, b'{"event":"call_started","call":{"call_id":"call_7"}}')

    assert by_id["call_id"] == by_body["call_id"] == "call_7"
    assert by_id["arm"] == by_body["arm"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b'{"hello":"world"}'])
async def test_a_body_that_is_no_request_is_an_error_without_echo(
    operations: SidecarOperations, body: bytes
) -> None:
    with pytest.raises(ValueError) as refused:
        operations.explain(None, body)

    assert "hello" not in str(refused.value)


async def test_an_operator_opens_and_resets_a_breaker(
    app: App, operations: SidecarOperations
) -> None:
    opened = operations.change_breaker("mcp", "open")
    shown = app.metrics.registry.get_sample_value(
        "callsplit_breaker_state", {"arm": "mcp", "state": "forced_open"}
    )
    again = operations.change_breaker("mcp", "open")
    reset = operations.change_breaker("mcp", "reset")

    assert opened == {"before": "closed", "after": "forced_open"}
    assert shown == 1
    assert again == {"before": "forced_open", "after": "forced_open"}
    assert reset == {"before": "forced_open", "after": "closed"}
    assert operations.breakers()["mcp"]["state"] == "closed"


async def test_an_operators_hand_on_an_arm_is_laid_on_all_its_tools(
    app: App, operations: SidecarOperations
) -> None:
    app.wiring.breakers["mcp"].name_tools(["slots", "book"])

    assert operations.change_breaker("mcp", "open", "slots")["after"] == "forced_open"
    page = operations.breakers()["mcp"]
    assert page["state"] == "closed"
    assert {tool: one["state"] for tool, one in page["tools"].items()} == {
        "slots": "forced_open",
        "book": "closed",
    }
    shown = app.metrics.registry.get_sample_value(
        "callsplit_tool_breaker_state", {"arm": "mcp", "tool": "slots", "state": "forced_open"}
    )
    assert shown == 1

    operations.change_breaker("mcp", "metrics-only")
    page = operations.breakers()["mcp"]
    assert {page["state"], *(one["state"] for one in page["tools"].values())} == {"metrics_only"}
    assert set(page["tools"]["slots"]["last"]) == {"before", "after", "why", "at"}
    with pytest.raises(KeyError):
        operations.change_breaker("mcp", "reset", "nobody")


@pytest.mark.parametrize("action", ["close", "metrics-only"])
async def test_the_other_hands_on_a_breaker(operations: SidecarOperations, action: str) -> None:
    assert operations.change_breaker("webhook", action)["before"] == "closed"


async def test_unknown_arms_and_actions_are_errors(operations: SidecarOperations) -> None:
    with pytest.raises(KeyError):
        operations.change_breaker("nobody", "reset")
    with pytest.raises(ValueError, match="metrics-only"):
        operations.change_breaker("mcp", "explode")


async def test_metrics_come_in_both_forms(operations: SidecarOperations) -> None:
    plain, plain_type = operations.metrics("")
    openly, open_type = operations.metrics("application/openmetrics-text; version=1.0.0")

    assert b"callsplit_build_info" in plain
    assert plain_type.startswith("text/plain")
    assert openly.endswith(b"# EOF\n")
    assert open_type.startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=a", "\xff", "text/plain; version=9.9.9", ";="]
)
async def test_a_scraper_that_asks_for_what_is_no_version_hears_the_oldest_form(
    operations: SidecarOperations, accept: str
) -> None:
    text, content_type = operations.metrics(accept)

    assert b"callsplit_build_info" in text
    assert content_type.startswith("text/plain")


async def test_the_guides_health_page_is_unhealthy_only_if_nobody_can_answer(
    operations: SidecarOperations,
) -> None:
    assert operations.health().status == 200
    operations.change_breaker("mcp", "open")
    degraded = operations.health()
    operations.change_breaker("webhook", "open")

    assert degraded.status == 200
    assert isinstance(degraded.body, bytes)
    assert orjson.loads(degraded.body)["status"] == "degraded"
    assert operations.health().status == 503


def replays(operations: SidecarOperations, state: str = "held") -> list[dict[str, object]]:
    page = operations.replays(state, None)
    assert orjson.dumps(page)
    return list(page["records"])


async def test_what_may_have_run_is_shown_and_can_be_released(app: App) -> None:
    guard, now = ReplayGuard(), app.clock.now()
    operations = SidecarOperations(
        app.condition, clock=app.clock, handler=app.handler, listener=app.listener,
        probes=app.probes, watcher=app.watcher, wiring=app.wiring, durable=app.durable, guard=guard,
    )  # fmt: skip
    run = guard.begin(b"k" * 16, "call_1a", tool="book", replay_for=900.0, now=now)
    assert isinstance(run, Run)
    with pytest.raises(ValueError, match="running"):
        operations.release_replay(run.key.hex())
    guard.unknown(run, now)

    (shown,) = replays(operations)
    assert shown["id"] == run.key.hex()
    assert (shown["call_id"], shown["tool"], shown["state"]) == ("call_1a", "book", "unknown")
    assert replays(operations, "done") == []
    assert operations.replays("all", "call_2b")["records"] == []
    assert operations.replays("all", None)["unknown"] == 1
    assert operations.release_replay(run.key.hex()) == {"before": "unknown", "after": "released"}
    assert replays(operations, "all") == []


@pytest.mark.parametrize("record", ["00" * 16, "no hex at all"])
async def test_an_unknown_record_cannot_be_released(
    operations: SidecarOperations, record: str
) -> None:
    with pytest.raises(KeyError):
        operations.release_replay(record)


async def test_an_unknown_state_is_refused(operations: SidecarOperations) -> None:
    with pytest.raises(ValueError, match="held"):
        operations.replays("sideways", None)


async def test_a_page_of_replays_has_an_end(
    operations: SidecarOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.operations.MOST_RECORDS", 2)
    for n in range(3):
        operations._guard.begin(b"%d" % n, "call_1a", tool="t", replay_for=9.0, now=1.0)
    page = operations.replays("held", None)

    assert len(page["records"]) == 2
    assert page["more"] is True
