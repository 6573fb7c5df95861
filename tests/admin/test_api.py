from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.admin.api import admin_application, observe_application
from proxy.admin.guard import BODY_LIMIT
from tests.fakes import FakeOperations

Client = TestClient[web.Request, web.Application]
LOCAL = {"Host": "127.0.0.1:9901"}
LOCALLY = {"who": "local", "from": "127.0.0.1"}


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def audit() -> list[dict[str, Any]]:
    return []


@pytest.fixture
async def admin(operations: FakeOperations, audit: list[dict[str, Any]]) -> AsyncIterator[Client]:
    app = admin_application(operations, token=lambda: None, audit=audit.append)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_ready_tells_why_traffic_is_not_welcome(
    admin: Client, operations: FakeOperations
) -> None:
    assert (await admin.get("/ready", headers=LOCAL)).status == 200

    operations.reasons = ["draining"]
    answer = await admin.get("/ready", headers=LOCAL)

    assert answer.status == 503
    assert await answer.json() == {"ready": False, "reasons": ["draining"]}


@pytest.mark.parametrize(
    "path", ["/live", "/status", "/config", "/breakers", "/replays", "/metrics"]
)
async def test_every_page_answers(admin: Client, path: str) -> None:
    answer = await admin.get(path, headers=LOCAL)

    assert answer.status == 200
    assert "Server" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


async def test_metrics_come_in_the_form_that_was_asked_for(admin: Client) -> None:
    plain = await admin.get("/metrics", headers=LOCAL)
    open_metrics = await admin.get(
        "/metrics", headers={**LOCAL, "Accept": "application/openmetrics-text"}
    )

    assert await plain.text() == "up 1\n"
    assert await open_metrics.text() == "# EOF\n"


async def test_explain_takes_a_call_id_or_a_body(admin: Client) -> None:
    by_id = await admin.get("/explain?call_id=call_1a", headers=LOCAL)
    by_body = await admin.post("/explain", data=b'{"call":{}}', headers=LOCAL)

    assert await by_id.json() == {"call_id": "call_1a", "body": 0}
    assert await by_body.json() == {"call_id": None, "body": 11}


@pytest.mark.row("A10")
async def test_explain_says_what_it_lacks(admin: Client) -> None:
    nothing = await admin.get("/explain", headers=LOCAL)
    broken = await admin.post("/explain", data=b"{", headers=LOCAL)

    assert nothing.status == 400
    assert broken.status == 400
    assert (await broken.json())["error"]["message"] == "the body is not JSON"


@pytest.mark.row("A10")
async def test_a_breaker_is_reset_by_post_and_audited(
    admin: Client, audit: list[dict[str, Any]]
) -> None:
    answer = await admin.post("/breakers/mcp/reset?reason=fixed", headers=LOCAL)

    assert await answer.json() == {"before": "open", "after": "closed"}
    assert audit == [
        {
            **LOCALLY, "what": "breaker reset mcp", "why": "fixed",
            "before": "open", "after": "closed",
        }
    ]  # fmt: skip


async def test_a_tools_breaker_is_changed_alone_and_audited(
    admin: Client, audit: list[dict[str, Any]]
) -> None:
    done = await admin.post("/breakers/mcp/reset?tool=slots", headers=LOCAL)
    unknown = await admin.post("/breakers/mcp/reset?tool=nobody", headers=LOCAL)

    assert (done.status, unknown.status) == (200, 404)
    assert [one["what"] for one in audit] == ["breaker reset mcp slots"]


@pytest.mark.row("A9")
async def test_a_change_by_get_is_refused(admin: Client, audit: list[dict[str, Any]]) -> None:
    answer = await admin.get("/breakers/mcp/reset", headers=LOCAL)

    assert answer.status == 405
    assert answer.headers["Allow"] == "POST"
    assert not audit


async def test_unknown_arms_actions_and_pages_are_named_errors(admin: Client) -> None:
    arm = await admin.post("/breakers/nobody/reset", headers=LOCAL)
    action = await admin.post("/breakers/mcp/explode", headers=LOCAL)
    page = await admin.get("/nowhere", headers=LOCAL)

    assert (arm.status, (await arm.json())["error"]["code"]) == (404, "unknown_arm")
    assert (action.status, (await action.json())["error"]["code"]) == (400, "unknown_action")
    assert (page.status, (await page.json())["error"]["code"]) == (404, "not_found")


async def pieces(size: int) -> AsyncIterator[bytes]:
    """Sent in chunks, without a length."""
    for _ in range(size // 1024):
        yield b"x" * 1024


@pytest.mark.row("A10")
@pytest.mark.parametrize("data", [b"x" * (BODY_LIMIT + 1), pieces(BODY_LIMIT + 1024)])
async def test_a_body_over_the_limit_is_refused(admin: Client, data: Any) -> None:
    answer = await admin.post("/explain", data=data, headers=LOCAL)

    assert (answer.status, (await answer.json())["error"]["code"]) == (413, "body_too_large")


async def test_the_observe_listener_has_nothing_else(operations: FakeOperations) -> None:
    async with TestClient(TestServer(observe_application(operations))) as observe:
        for path in ("/live", "/ready", "/metrics"):
            assert (await observe.get(path, headers={"Host": "10.1.2.3:9100"})).status == 200
        for path in ("/status", "/config", "/breakers", "/explain?call_id=x"):
            assert (await observe.get(path, headers=LOCAL)).status == 404


async def test_replays_are_asked_for_by_state_and_call(admin: Client) -> None:
    plain = await admin.get("/replays", headers=LOCAL)
    narrow = await admin.get("/replays?state=all&call_id=call_1a", headers=LOCAL)
    wrong = await admin.get("/replays?state=x", headers=LOCAL)

    assert (await plain.json())["asked"] == ["held", None]
    assert (await narrow.json())["asked"] == ["all", "call_1a"]
    assert wrong.status == 400
    assert (await wrong.json())["error"]["message"] == "Expected held or all."


async def test_a_release_is_audited(admin: Client, audit: list[dict[str, Any]]) -> None:
    answer = await admin.post("/replays/bb/release?reason=checked", headers=LOCAL)

    assert await answer.json() == {"before": "unknown", "after": "released"}
    assert audit == [
        {
            **LOCALLY, "what": "replay release bb", "why": "checked",
            "before": "unknown", "after": "released",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(("record", "status"), [("aa", 409), ("cc", 404)])
async def test_what_cannot_be_released_says_why(
    admin: Client, audit: list[dict[str, Any]], record: str, status: int
) -> None:
    answer = await admin.post(f"/replays/{record}/release", headers=LOCAL)

    assert answer.status == status
    assert audit == []


async def test_nothing_is_released_by_looking(admin: Client) -> None:
    assert (await admin.get("/replays/bb/release", headers=LOCAL)).status == 405
