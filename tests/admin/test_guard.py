from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.admin.api import admin_application
from tests.fakes import FakeOperations

Client = TestClient[web.Request, web.Application]
LOCAL = {"Host": "127.0.0.1:9901"}
TOKEN = {"Authorization": "Bearer s3cret", **LOCAL}


@pytest.fixture
def audit() -> list[dict[str, Any]]:
    return []


@pytest.fixture
async def admin(audit: list[dict[str, Any]]) -> AsyncIterator[Client]:
    app = admin_application(FakeOperations(), token=lambda: None, audit=audit.append)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
async def locked(audit: list[dict[str, Any]]) -> AsyncIterator[Client]:
    app = admin_application(FakeOperations(), token=lambda: b"s3cret", audit=audit.append)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1.evil.test", "", "[::1", "a,b"])
async def test_a_foreign_host_is_refused_against_dns_rebinding(admin: Client, host: str) -> None:
    answer = await admin.get("/status", headers={"Host": host})

    assert answer.status == 403


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9901", "127.0.0.1", "[::1]:9901", "10.0.0.7:9901"]
)
async def test_localhost_and_literal_addresses_pass_as_host(admin: Client, host: str) -> None:
    assert (await admin.get("/status", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_change_from_another_site_is_refused(
    admin: Client, audit: list[dict[str, Any]], headers: dict[str, str]
) -> None:
    answer = await admin.post("/breakers/mcp/reset", headers={**LOCAL, **headers})

    assert answer.status == 403
    assert not audit


async def test_a_change_from_the_same_origin_passes(admin: Client) -> None:
    headers = {**LOCAL, "Origin": "http://127.0.0.1:9901", "Sec-Fetch-Site": "same-origin"}

    assert (await admin.post("/breakers/mcp/reset", headers=headers)).status == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer wrong",
        "Basic s3cret",
        "Bearer s3cre",
        "Bearer s3cret1",
        "Bearer sécret",
    ],
)
async def test_a_wrong_token_is_refused(locked: Client, value: str) -> None:
    answer = await locked.get("/status", headers={**LOCAL, "Authorization": value})

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_the_right_token_passes_and_is_named_in_the_audit(
    locked: Client, audit: list[dict[str, Any]]
) -> None:
    assert (await locked.get("/status", headers=TOKEN)).status == 200
    assert (await locked.post("/breakers/mcp/reset", headers=TOKEN)).status == 200
    assert audit[0]["who"] == "token"


@pytest.mark.parametrize("path", ["/live", "/ready"])
async def test_kubelets_need_no_token(locked: Client, path: str) -> None:
    assert (await locked.get(path, headers=LOCAL)).status == 200
