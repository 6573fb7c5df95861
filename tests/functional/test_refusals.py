"""What a caller hears who is turned away: one short form, and nothing of his own or of ours.  O4.

The table has every code that the source can refuse with; a test sees to it.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.wire_faults import FAULTS
from tests.functional.conftest import World
from tests.functional.kit import ROOT, SLOTS, Sidecar, event, function, kept_in, running, tools_call
from tests.functional.test_mcp_bad_input import META, head, message, version
from tests.functional.wire import (
    JSON,
    Answer,
    Client,
    dies,
    request,
    response,
    says,
    until,
    waits,
)

MARK = "zqx9081"
"""Stands in everything that is sent: nothing that comes back may hold it."""

OURS = re.compile(
    rb"traceback|exception|\bfile \"|line \d+|python|aiohttp|uvloop|httptools|llhttp|callsplit/|"
    rb"\.py\b|0x[0-9a-f]{6}|proxy\.|backends\.|127\.0\.0\.1|\d+\.\d+\.\d+",
    re.IGNORECASE,
)
"""Who wrote this, in what, and where it runs."""


class Case(NamedTuple):
    """What is sent, what the answer's status is, and with which rules."""

    status: int
    raw: bytes
    rules: dict[str, Any] = {}


def post(target: str, body: object, *fields: bytes, **more: Any) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    mark = b"X-Mark: " + MARK.encode()
    return request("POST", target, raw, JSON, mark, *fields, **more)


def lines(*all_lines: str) -> bytes:
    return "\r\n".join((*all_lines, "", "")).encode()


EVENT = event(f"call_{MARK}", f"call_{MARK}")
TOKEN = {"auth": {"tokens": ["env:T"], "require": {"event": ["token"], "mcp": ["token"]}}}
BATCH = [message("tools/list"), message("tools/list")]
CALL = message(name=MARK, arguments={MARK: MARK})
PAGE = {"passthrough": "webhook"}
ONE = {"limits": {"in_flight": 1}}
QUICK = {"listen": {"header_timeout": "100ms", "body_timeout": "100ms"}}

CASES: dict[str, Case] = {
    # Before there is a request.
    "bad_request": Case(400, lines(f"\x16\x03{MARK}")),
    "too_slow": Case(408, f"POST /{MARK} HTTP/1.1\r\nHo".encode(), QUICK),
    "target_too_long": Case(414, lines(f"GET /{MARK * 2000} HTTP/1.1", "Host: a")),
    "headers_too_large": Case(431, post("/retell", EVENT, b"X: " + MARK.encode() * 2000)),
    "too_many_connections": Case(503, b"", {"listen": {"connections": 1}}),
    "http_version": Case(505, lines(f"GET /{MARK} HTTP/2.0", "Host: a")),
    # Its head.
    "address_not_allowed": Case(403, post("/retell", EVENT), {"auth": {"allow": ["192.0.2.0/24"]}}),
    "bad_header": Case(400, post("/retell", EVENT, b"X-Callsplit-Hops: " + MARK.encode())),
    "bad_host": Case(400, lines("GET /retell HTTP/1.1", f"Host: u@{MARK}")),
    "bad_target": Case(400, lines(f"GET /retell\\{MARK} HTTP/1.1", "Host: a")),
    "unknown_method": Case(501, lines(f"PURGE /{MARK} HTTP/1.1", "Host: a")),
    "method_not_allowed": Case(405, lines(f"TRACE /{MARK} HTTP/1.1", "Host: a")),
    "misdirected": Case(421, lines(f"GET http://{MARK}.test/retell HTTP/1.1", "Host: a")),
    "expectation_failed": Case(417, post("/retell", EVENT, b"Expect: " + MARK.encode())),
    "loop_detected": Case(508, post("/retell", EVENT, b"X-Callsplit-Hops: 99")),
    "not_found": Case(404, lines(f"GET /{MARK} HTTP/1.1", "Host: a")),
    "unauthorised": Case(401, post("/retell", EVENT, f"Authorization: {MARK}".encode()), TOKEN),
    "origin_not_allowed": Case(403, post("/mcp", CALL, f"Origin: http://{MARK}.test".encode())),
    "ip_limit": Case(429, post("/retell", EVENT), {"limits": {"ip_per_minute": 1, "burst": 1}}),
    "not_implemented": Case(501, lines(f"GET /llm/{MARK} HTTP/1.1", "Host: a")),
    # Its body.
    "unsupported_media_type": Case(415, post("/mcp", CALL, b"Content-Encoding: " + MARK.encode())),
    "body_too_large": Case(
        413, post("/retell", EVENT * 50, chunked=True), {"listen": {"body_limit": "1kB"}}
    ),
    "body_timeout": Case(408, post("/retell", EVENT)[:-5], QUICK),
    "bad_framing": Case(
        400,
        post("/retell", b"", chunked=True).replace(
            b"\r\n0\r\n\r\n", b"\r\n" + MARK.encode() + b"\r\n"
        ),
    ),
    "bad_tool": Case(400, post("/retell", function("..", f"call_{MARK}"))),
    "tool_mismatch": Case(400, post(f"/retell/fn/{MARK}", function(SLOTS, f"call_{MARK}"))),
    "kind_mismatch": Case(400, post(f"/retell/fn/{MARK}", CALL)),
    "malformed_json": Case(400, post("/mcp", f'{{"{MARK}"'.encode())),
    "rpc_bad_request": Case(400, post("/mcp", {MARK: MARK})),
    "rpc_bad_id": Case(400, post("/mcp", message("ping", [MARK]))),
    "rpc_batch": Case(400, post("/mcp", BATCH, version("2025-06-18"))),
    "rpc_bad_header": Case(400, post("/mcp", CALL, *[version("2025-11-25")] * 2)),
    "rpc_bad_meta": Case(400, post("/mcp", CALL, *head("tools/call", MARK))),
    "rpc_header_mismatch": Case(
        400, post("/mcp", CALL | {"params": {"name": MARK, "_meta": META}}, *head(MARK, MARK))
    ),
    "rpc_bad_params": Case(
        400, post("/mcp", message(_meta=META, name=5, x=MARK), *head("tools/call", MARK))
    ),
    "rpc_version": Case(400, post("/mcp", CALL, *head("tools/call", MARK, "2027-01-01"))),
    # Of an arm.
    "kind_not_taken": Case(
        501, post("/retell", EVENT), {"backends": {"webhook": {"handler": "tools"}}}
    ),
    "overloaded": Case(503, post("/retell", EVENT), ONE),
    "upstream_failed": Case(502, post(f"/{MARK}", EVENT), PAGE),
}

NOT_SEEN = {
    "bad_method": "the parser refuses what is no method of any standard",
    "repeated_header": "the parser refuses two Hosts, lengths and codings",
    "unknown_coding": "the listener refuses a coding that is not chunked alone",
    "options": "its answer has no body",
}
"""Codes of guards behind the parser, for the day that it takes more; `tests/core` has them."""


def codes(path: Path) -> Iterator[str]:
    """The codes that a module refuses with."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        where = {"Refused": 1, "refusal": 0, "_refusal": 1}.get(ast.unparse(node.func))
        if where is not None and len(node.args) > where:
            each = node.args[where]
            if isinstance(each, ast.Constant):
                yield str(each.value)


@pytest.mark.row("O4")
def test_the_table_has_every_code() -> None:
    files = [*(ROOT / "proxy").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]
    found = {code for path in files for code in codes(path) if "admin" not in path.parts}
    found |= {code for code, _ in FAULTS.values()}

    assert len(found) > 35
    assert found - {"ip_limit", "internal_error"} <= CASES.keys() | NOT_SEEN
    assert not CASES.keys() & NOT_SEEN.keys()


def assert_says_nothing(answer: Answer, status: int, code: str) -> None:
    """Short JSON that names its fault and itself, and nothing else."""
    assert answer.status == status
    assert answer.values(b"content-type") == [b"application/json"]
    about = answer.about
    assert about["code"] == code
    assert answer.values(b"x-request-id") == [about["request_id"].encode()]
    assert re.fullmatch("[0-9a-f]{32}", about["request_id"])
    assert len(answer.body) < 400
    whole = answer.head + answer.body
    assert MARK.encode() not in whole.lower()
    assert not OURS.findall(whole.replace(b"HTTP/1.1", b"", 1))
    assert answer.names.isdisjoint({b"server", b"x-powered-by", b"via", b"date"})


async def refused(sidecar: Sidecar, code: str) -> bytes:
    """Send it, and look at what is heard; the ID of the request."""
    case, client = CASES[code], await sidecar.connect()

    await client.send(case.raw)
    answer = await client.answer(case.raw.split(b" ", 1)[0])
    await client.close()

    assert_says_nothing(answer, case.status, code)
    return answer.value(b"x-request-id") or b""


async def assert_told(sidecar: Sidecar, ids: dict[str, bytes]) -> None:
    """One line each, by which an operator finds what a caller complains of."""
    lines = await sidecar.lines(len(ids), outcome="refused")
    told = {line["code"]: (line["request_id"], line["status"]) for line in lines}
    for code, request_id in ids.items():
        assert told[code] == (request_id.decode(), CASES[code].status), code


@pytest.mark.row("O4")
async def test_every_refusal_has_one_form_and_tells_nothing(world: World) -> None:
    sidecar = await world.sidecar()
    of_defaults = [code for code, case in CASES.items() if not case.rules]

    ids = {code: await refused(sidecar, code) for code in of_defaults if code != "rpc_version"}

    await assert_told(sidecar, ids)
    assert not world.webhook.seen


@pytest.mark.row("O4")
@pytest.mark.parametrize("code", [code for code, case in CASES.items() if case.rules])
async def test_what_the_rules_refuse_has_the_same_form(world: World, code: str) -> None:
    over = asyncio.Event()
    world.webhook.play = dies if code == "upstream_failed" else waits(over, dies)
    sidecar = await world.sidecar({"T": "token"}, **CASES[code].rules)
    await meanwhile(world, sidecar, code)

    request_id = await refused(sidecar, code)
    over.set()

    await assert_told(sidecar, {code: request_id})


async def meanwhile(world: World, sidecar: Sidecar, code: str) -> None:
    """What has to be so already."""
    if code in ("overloaded", "too_many_connections"):  # Who only waits would make room.
        await (await sidecar.connect()).send(request("POST", "/retell", event()))
        await until(lambda: world.webhook.seen)
    if code == "ip_limit":
        world.webhook.play = says(response(b"{}", JSON))
        await sidecar.post("/retell", event())


@pytest.mark.row("O4")
async def test_an_unknown_version_is_repeated_as_the_protocol_wants(world: World) -> None:
    """MCP 2026-07-28 wants `requested` in the error's data; it is capped, and no arm sees it."""
    sidecar = await world.sidecar()

    answer = await sidecar.ask(CASES["rpc_version"].raw)

    assert answer.status == 400
    assert answer.json["error"]["data"]["requested"] == "2027-01-01"
    assert MARK.encode() not in answer.body
    assert not world.mcp.seen


@pytest.mark.row("O4")
@pytest.mark.parametrize("target", ["/retell", "/page"])
async def test_a_bug_of_ours_tells_nothing_of_it(world: World, target: str) -> None:
    """The log has the traceback; the caller the ID to find it by."""
    document = kept_in(world.folder, world.rules(**PAGE))
    async with running(world.folder, document, crashes=True) as sidecar:

        def breaks(*_: object) -> bool:
            raise RuntimeError(MARK)

        sidecar.app.handler.line.edge.authorise = breaks  # type: ignore[assignment]
        sidecar.app.handler.line.edge.shed = breaks  # type: ignore[assignment]
        answer = await sidecar.post(target, EVENT)

        assert_says_nothing(answer, 500, "internal_error")
        (crash,) = sidecar.events("exchange_crashed")
        assert MARK in crash["exception"]


LAST: dict[str, bytes] = {
    "event": post("/retell", EVENT),
    "function": post("/retell", function(f"{MARK}_tool", f"call_{MARK}", {"a": MARK})),
    "mcp": post("/mcp/x", tools_call(f"{MARK}_tool", {"a": MARK})),
    "tools": post("/api/mcp/retell/tools", {"tool": MARK, "arguments": {"a": MARK}}),
    "args": post(f"/retell/fn/{MARK}", {"a": MARK}),
    "inbound": post("/retell", {"event": "call_inbound", "call_inbound": {"agent_id": MARK}}),
}


@pytest.mark.row("O4")
@pytest.mark.parametrize("kind", LAST)
async def test_the_last_answer_tells_nothing_of_what_broke(world: World, kind: str) -> None:
    """Nor does it repeat what was asked, nor what an arm said."""
    said = f"HTTP/1.1 500 {MARK}\r\nX-{MARK}: 1\r\nContent-Length: 7\r\n\r\n{MARK}".encode()
    world.mcp.play = world.webhook.play = says(said)
    sidecar = await world.sidecar()

    answer = await sidecar.ask(LAST[kind])

    assert answer.reason == "last_answer"
    whole = answer.head + answer.body
    assert MARK.encode() not in whole
    assert not OURS.findall(whole.replace(b"HTTP/1.1", b"", 1))


@pytest.mark.row("O4")
async def test_refusals_on_one_connection_have_ids_of_their_own(world: World) -> None:
    sidecar = await world.sidecar()
    client: Client = await sidecar.connect()

    heard = [await client.ask(CASES["not_found"].raw) for _ in range(5)]

    assert len({answer.value(b"x-request-id") for answer in heard}) == 5
