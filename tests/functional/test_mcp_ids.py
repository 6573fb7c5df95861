"""Equal JSON-RPC IDs, at the same time, from everywhere: each caller hears its own answer.

Every client counts from the same number, and an upstream may answer in any order.  1,000 rounds:
each a handful of callers with one ID among them, all of them in the upstream's hands before it
answers the first.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, Sidecar, function, tools_call
from tests.functional.wire import (
    JSON,
    Answer,
    Peer,
    Seen,
    method_of,
    request,
    response,
    rpc,
    text,
    until,
)

LEGACY, MODERN = b"2025-11-25", b"2026-07-28"
Fields: TypeAlias = tuple[bytes, ...]
IDS: list[Any] = [1, 0, "1", "one", -7, 2**53]
LISTED = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in (SLOTS, BOOK)]}
ABOUT = {"name": "told", "version": "1"}
ACCEPT = b"Accept: application/json, text/event-stream"


@dataclass
class Told:
    """An MCP server of some eras that answers a tool only when it is told to, in any order."""

    modern: bool
    legacy: bool
    waiting: dict[str, asyncio.Event] = field(default_factory=dict)
    streams: set[str] = field(default_factory=set)  # markers whose answers come as events
    faults: list[str] = field(default_factory=list)
    sessions: dict[bytes, set[str]] = field(default_factory=dict)  # and the IDs under way there

    async def play(self, peer: Peer, seen: Seen) -> bool:
        await peer.send(await self._answer(seen))
        return True

    async def _answer(self, seen: Seen) -> bytes:
        method, modern = method_of(seen), seen.value(b"mcp-protocol-version") == MODERN
        if seen.method != b"POST":
            return response(status=b"405 Method Not Allowed")
        if modern and not self.modern:
            return refusal(seen, -32600, "Unsupported protocol version")
        if not modern and not self.legacy:
            return refusal(seen, -32022, "Unsupported protocol version",
                           supported=[MODERN.decode()], requested="")  # fmt: skip
        if method == "initialize":
            return self._opened(seen)
        session = seen.value(b"mcp-session-id")
        if not modern and session not in self.sessions:
            return response(status=b"404 Not Found" if session else b"400 Bad Request")
        if method.startswith("notifications/"):
            return response(status=b"202 Accepted")
        if method == "tools/call":
            return await self._tool(seen, None if modern else session)
        return rpc(seen, {"resultType": "complete", **self._known(method)})

    def _known(self, method: str) -> dict[str, Any]:
        if method == "tools/list":
            return LISTED
        assert method == "server/discover", method
        return {"supportedVersions": [MODERN.decode()], "capabilities": {"tools": {}},
                "serverInfo": ABOUT}  # fmt: skip

    def _opened(self, seen: Seen) -> bytes:
        session = b"upstream-%d" % len(self.sessions)
        self.sessions[session] = set()
        about = {"protocolVersion": LEGACY.decode(), "capabilities": {"tools": {}},
                 "serverInfo": ABOUT}  # fmt: skip
        return rpc(seen, about).replace(b"\r\n", b"\r\nMcp-Session-Id: %b\r\n" % session, 1)

    async def _tool(self, seen: Seen, session: bytes | None) -> bytes:
        number, marker = json.dumps(seen.json["id"]), seen.json["params"]["arguments"]["marker"]
        under_way = self.sessions[session] if session is not None else set()
        if number in under_way:
            self.faults.append(f"{marker}: ID {number} is under way in {session!r} already")
        under_way.add(number)
        go = self.waiting[marker] = asyncio.Event()
        await go.wait()
        under_way.discard(number)
        plain = rpc(seen, text(marker))
        if marker not in self.streams:
            return plain
        message = b"event: message\ndata: %b\n\n" % plain.partition(b"\r\n\r\n")[2]
        return response(message, b"Content-Type: text/event-stream")


def refusal(seen: Seen, code: int, message: str, **data: Any) -> bytes:
    error = {"code": code, "message": message, **({"data": data} if data else {})}
    body = {"jsonrpc": "2.0", "id": seen.json.get("id"), "error": error}
    return response(json.dumps(body).encode(), JSON, status=b"400 Bad Request")


@dataclass(frozen=True)
class Asked:
    """One caller of a round."""

    marker: str
    raw: bytes
    rpc_id: Any = None  # None: a function of Retell's, which has none

    def check(self, answer: Answer) -> None:
        """It heard what was meant for it, and nothing else."""
        assert (answer.status, answer.arm) == (200, "mcp"), (self, answer)
        if self.rpc_id is None:
            assert answer.body == self.marker.encode(), (self, answer)
            return
        message = message_of(answer)
        assert message["id"] == self.rpc_id, (self, answer)
        assert type(message["id"]) is type(self.rpc_id), (self, answer)
        assert [block["text"] for block in message["result"]["content"]] == [self.marker]


def message_of(answer: Answer) -> Any:
    """The JSON-RPC message of an answer, also of one that came as an event."""
    if (answer.value(b"content-type") or b"").startswith(b"text/event-stream"):
        (data,) = [line for line in answer.body.splitlines() if line.startswith(b"data:")]
        return json.loads(data.removeprefix(b"data:"))
    return answer.json


def modern_call(call: str, tool: str, args: object, rpc_id: object) -> bytes:
    about = "io.modelcontextprotocol/"
    message = json.loads(tools_call(tool, args, rpc_id))
    message["params"]["_meta"] = {
        f"{about}protocolVersion": MODERN.decode(),
        f"{about}clientInfo": ABOUT,
        f"{about}clientCapabilities": {},
    }
    fields = b"MCP-Protocol-Version: " + MODERN, b"Mcp-Method: tools/call"
    return request("POST", f"/mcp/{call}", json.dumps(message).encode(), JSON, ACCEPT, *fields,
                   b"Mcp-Name: " + tool.encode())  # fmt: skip


def legacy_call(call: str, tool: str, args: object, rpc_id: object, *session: bytes) -> bytes:
    fields = b"MCP-Protocol-Version: " + LEGACY, *session
    body = tools_call(tool, args, rpc_id)
    return request("POST", f"/mcp/{call}", body, JSON, ACCEPT, *fields)


async def opened(sidecar: Sidecar, call: str) -> Fields:
    """What every request of a legacy session bears, its handshake done."""
    about = {"protocolVersion": LEGACY.decode(), "capabilities": {}, "clientInfo": ABOUT}
    first = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}
    answer = await sidecar.post(f"/mcp/{call}", json.dumps(first).encode(), JSON, ACCEPT)
    assert answer.status == 200, answer
    token = answer.value(b"mcp-session-id")  # None: the server has none either.
    fields = (b"Mcp-Session-Id: " + token,) if token else ()
    then = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    version = b"MCP-Protocol-Version: " + LEGACY
    heard = await sidecar.post(f"/mcp/{call}", then, JSON, ACCEPT, version, *fields)
    assert heard.status == 202, heard
    return fields


CALLS = [f"call_of_{number}" for number in range(4)]
Caller = Callable[[str, object], Asked]


def callers(pick: random.Random, sessions: Mapping[str, Fields]) -> list[Caller]:
    """Who takes part in a round: each legacy session once at most, the others as often as not."""

    def as_function(marker: str, _: object) -> Asked:
        tool, call = pick.choice((SLOTS, BOOK)), pick.choice(CALLS)
        return Asked(marker, request("POST", "/retell", function(tool, call, {"marker": marker})))

    def as_modern(marker: str, rpc_id: object) -> Asked:
        tool, call = pick.choice((SLOTS, BOOK)), pick.choice(CALLS)
        return Asked(marker, modern_call(call, tool, {"marker": marker}, rpc_id), rpc_id)

    def as_bare(marker: str, rpc_id: object) -> Asked:
        tool, call = pick.choice((SLOTS, BOOK)), pick.choice(CALLS)
        return Asked(marker, legacy_call(call, tool, {"marker": marker}, rpc_id), rpc_id)

    def as_session(call: str) -> Caller:
        def ask(marker: str, rpc_id: object) -> Asked:
            tool = pick.choice((SLOTS, BOOK))
            raw = legacy_call(call, tool, {"marker": marker}, rpc_id, *sessions[call])
            return Asked(marker, raw, rpc_id)

        return ask

    every = [as_function, as_modern, as_bare] * 2 + [as_session(call) for call in sessions]
    return pick.sample(every, pick.randint(2, 6))


async def play_round(
    seed: int, sidecar: Sidecar, told: Told, sessions: Mapping[str, Fields]
) -> None:
    pick = random.Random(seed)
    rpc_id = pick.choice(IDS)
    every = [
        caller(f"{seed}.{number}", rpc_id) for number, caller in enumerate(callers(pick, sessions))
    ]
    told.waiting.clear()
    told.streams = {asked.marker for asked in every if pick.random() < 0.4}
    tasks = [asyncio.create_task(sidecar.ask(asked.raw)) for asked in every]
    markers = [asked.marker for asked in every]
    await until(
        lambda: set(markers) <= set(told.waiting) or any(task.done() for task in tasks),
        f"all of seed {seed} are at the server",
    )

    for marker in pick.sample(markers, len(markers)):
        if marker in told.waiting:
            told.waiting[marker].set()
        if pick.random() < 0.5:
            await asyncio.sleep(0)

    for asked, task in zip(every, tasks, strict=True):
        asked.check(await task)
    assert not told.faults, (seed, told.faults)


@pytest.mark.parametrize(
    ("modern", "legacy", "rounds"),
    [(True, True, 1000), (False, True, 500), (True, False, 500)],
    ids=["server of both eras", "legacy server", "modern server"],
)
async def test_callers_with_equal_ids_at_the_same_time_each_hear_their_own_answer(
    world: World, modern: bool, legacy: bool, rounds: int
) -> None:
    told = Told(modern, legacy)
    world.mcp.play = told.play
    sidecar = await world.sidecar()
    sessions = {call: await opened(sidecar, call) for call in CALLS}

    for seed in range(rounds):
        await play_round(seed, sidecar, told, sessions)

    assert not world.webhook.seen
