from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.admin.api import admin_application, observe_application
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


async def test_what_waits_is_listed_as_asked(admin: Client, operations: FakeOperations) -> None:
    plain = await admin.get("/outbox", headers=LOCAL)
    narrow = await admin.get("/outbox?state=dead&call_id=call_7", headers=LOCAL)
    wrong = await admin.get("/outbox?state=lost", headers=LOCAL)

    assert (await plain.json())["store"] == "sqlite"
    assert narrow.status == 200
    assert operations.outbox.asked == [("overview", "all", None), ("overview", "dead", "call_7")]
    assert (wrong.status, (await wrong.json())["error"]["code"]) == (400, "unknown_state")


async def test_a_body_is_shown_to_who_asks_for_it_and_that_is_written_down(
    admin: Client, audit: list[dict[str, Any]]
) -> None:
    plain = await admin.get("/outbox/7", headers=LOCAL)
    assert (await plain.json())["request"] == {}
    assert not audit

    whole = await admin.get("/outbox/7?whole=true&reason=complaint", headers=LOCAL)

    assert (await whole.json())["request"] == {"body": "{}"}
    assert audit == [
        {**LOCALLY, "why": "complaint", "what": "outbox show 7 with its body"}
    ]  # fmt: skip


@pytest.mark.parametrize(("action", "done"), [("retry", "retried"), ("drop", "dropped")])
@pytest.mark.parametrize("entry", ["7", "dead"])
async def test_a_change_is_made_and_audited(
    admin: Client, audit: list[dict[str, Any]], action: str, done: str, entry: str
) -> None:
    answer = await admin.post(f"/outbox/{entry}/{action}?reason=mended", headers=LOCAL)

    assert await answer.json() == {done: 1}
    assert audit == [
        {
            **LOCALLY, "why": "mended", "what": f"outbox {action} {entry}", done: 1,
            "before": {"queued": 0, "dead": 1}, "after": {"queued": 0, "dead": 1},
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/outbox/77", 404, "unknown_entry"),
        ("POST", "/outbox/77/retry", 404, "unknown_entry"),
        ("POST", "/outbox/8/retry", 409, "under_way"),
        ("POST", "/outbox/7/burn", 400, "unknown_action"),
        ("GET", "/outbox/9", 503, "store_failed"),
        ("POST", "/outbox/9/drop", 503, "store_failed"),
    ],
)
async def test_what_cannot_be_is_a_named_error(
    admin: Client, audit: list[dict[str, Any]], method: str, path: str, status: int, code: str
) -> None:
    answer = await admin.request(method, path, headers=LOCAL)

    assert (answer.status, (await answer.json())["error"]["code"]) == (status, code)
    assert not audit


async def test_a_change_by_get_is_refused(admin: Client) -> None:
    assert (await admin.get("/outbox/7/drop", headers=LOCAL)).status == 405


async def test_the_observe_listener_knows_nothing_of_it(operations: FakeOperations) -> None:
    async with TestClient(TestServer(observe_application(operations))) as observe:
        for path in ("/outbox", "/outbox/7", "/outbox/7?whole=true"):
            assert (await observe.get(path, headers=LOCAL)).status == 404
