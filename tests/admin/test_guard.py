from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.admin.api import admin_application
from proxy.admin.guard import BODY_LIMIT, REASONS
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
def refused() -> list[str]:
    return []


@pytest.fixture
async def locked(audit: list[dict[str, Any]], refused: list[str]) -> AsyncIterator[Client]:
    app = admin_application(
        FakeOperations(),
        token=lambda: b"s3cret",
        audit=audit.append,
        refused=lambda reason, peer: refused.append(f"{reason} {peer}"),
        guess_seconds=0.0,
    )
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1.evil.test", "", "[::1", "a,b"])
@pytest.mark.row("A9")
async def test_a_foreign_host_is_refused_against_dns_rebinding(admin: Client, host: str) -> None:
    answer = await admin.get("/status", headers={"Host": host})

    assert answer.status == 403


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9901", "127.0.0.1", "[::1]:9901", "10.0.0.7:9901"]
)
async def test_localhost_and_literal_addresses_pass_as_host(admin: Client, host: str) -> None:
    assert (await admin.get("/status", headers={"Host": host})).status == 200


@pytest.mark.row("A9")
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
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
@pytest.mark.row("A9")
async def test_a_wrong_token_is_refused(locked: Client, refused: list[str], value: str) -> None:
    answer = await locked.get("/status", headers={**LOCAL, "Authorization": value})

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    wrong = value.startswith("Bearer ")
    assert refused == [f"{'wrong' if wrong else 'missing'} 127.0.0.1"]


async def test_two_tokens_are_none(locked: Client) -> None:
    """Whose word would count?"""
    headers = [*LOCAL.items(), *[("Authorization", "Bearer s3cret")] * 2]

    assert (await locked.get("/status", headers=headers)).status == 401


async def test_every_refusal_is_told_with_its_reason(locked: Client, refused: list[str]) -> None:
    await locked.get("/status", headers={"Host": "evil.test"})
    await locked.post("/breakers/mcp/reset", headers={**TOKEN, "Origin": "http://evil.test"})
    await locked.get("/status", headers=LOCAL)
    await locked.post("/explain", data=b"x" * (BODY_LIMIT + 1), headers=TOKEN)
    await locked.get("/status", headers=TOKEN)
    await locked.get("/live", headers=LOCAL)

    reasons = [one.partition(" ")[0] for one in refused]
    assert reasons == ["host", "cross_site", "missing", "body"]
    assert set(reasons) < set(REASONS)


async def test_guesses_are_slow_and_right_answers_are_not() -> None:
    """The wait is not timed: it is over only when this test says so."""
    app = admin_application(
        FakeOperations(), token=lambda: b"s3cret", audit=lambda _: None, guess_seconds=3600.0
    )
    async with TestClient(TestServer(app)) as client:
        guess = asyncio.ensure_future(
            client.get("/status", headers={**LOCAL, "Authorization": "Bearer guess"})
        )
        for _ in range(5):
            assert (await client.get("/status", headers=TOKEN)).status == 200
            assert (await client.get("/status", headers=LOCAL)).status == 401
        assert not guess.done()
        guess.cancel()
        with pytest.raises(asyncio.CancelledError):
            await guess


@pytest.mark.row("A10")
async def test_a_declared_gigabyte_is_refused_from_the_head(locked: Client) -> None:
    """The body is not waited for: it never comes."""
    port = locked.server.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /explain HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer s3cret\r\n"
        b"Content-Length: 1073741824\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()

    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in head


async def test_the_right_token_passes_and_is_named_in_the_audit(
    locked: Client, audit: list[dict[str, Any]]
) -> None:
    assert (await locked.get("/status", headers=TOKEN)).status == 200
    assert (await locked.post("/breakers/mcp/reset", headers=TOKEN)).status == 200
    assert audit[0]["who"] == "token"


@pytest.mark.parametrize("path", ["/live", "/ready"])
async def test_kubelets_need_no_token(locked: Client, path: str) -> None:
    assert (await locked.get(path, headers=LOCAL)).status == 200
