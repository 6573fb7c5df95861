"""The requests of a bench: Retell's own shapes, 1.2 kB, each with its own call and arguments."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.place import KEY

SIZE = 1200
_TRANSCRIPT = (
    "Agent: Thanks for calling, how can I help you today?\n"
    "User: I would like to come in next Tuesday, ideally in the morning.\n"
    "Agent: Let me see what is free on Tuesday morning, one moment please.\n"
)


def function(name: str, pick: random.Random) -> dict[str, Any]:
    """A custom function call, body as Retell sends it."""
    day = f"2026-{pick.randint(1, 12):02d}-{pick.randint(1, 28):02d}"
    arguments = {"date": day, "service": "checkup", "note": f"{pick.getrandbits(64):x}"}
    return {"name": name, "call": _call(pick, "ongoing"), "args": arguments}


def event(pick: random.Random) -> dict[str, Any]:
    """A call_started event."""
    return {"event": "call_started", "call": _call(pick, "ongoing")}


def a_write(pick: random.Random) -> dict[str, Any]:
    """A booking."""
    return function("book_appointment", pick)


def a_mix(pick: random.Random) -> dict[str, Any]:
    """40 % writes, 40 % reads, 20 % events."""
    dice = pick.random()
    if dice < 0.2:
        return event(pick)
    return function("book_appointment" if dice < 0.6 else "get_available_slots", pick)


LOADS: dict[str, Callable[[random.Random], dict[str, Any]]] = {"functions": a_write, "mix": a_mix}


def signed(body: bytes) -> bytes:
    """The whole request on the wire, signed now."""
    at = b"%d" % (time.time() * 1000)
    digest = hmac.new(KEY.encode(), body + at, hashlib.sha256).hexdigest().encode()
    return (
        b"POST /retell HTTP/1.1\r\nHost: calls.example\r\nContent-Type: application/json\r\n"
        b"User-Agent: axios/1.15.2\r\nX-Retell-Signature: v=%b,d=%b\r\nContent-Length: %d\r\n\r\n%b"
        % (at, digest, len(body), body)
    )


def pool(load: str, count: int, calls: int | None = None) -> list[bytes]:
    """`count` requests; good for five minutes, the signature's tolerance.

    With `calls` they belong to that many calls, always the same ones; else each to its own.
    """
    pick, shape = random.Random(), LOADS[load]
    requests = []
    for _ in range(count):
        body = shape(pick)
        if calls is not None:
            body["call"]["call_id"] = f"call_{pick.randrange(calls):027x}"
        requests.append(signed(_padded(body)))
    return requests


def write_pool(path: Path, load: str, count: int, calls: int | None = None) -> None:
    """A pool as `load.lua` reads it: each request behind its length on a line."""
    with path.open("wb") as file:
        for request in pool(load, count, calls):
            file.write(b"%d\n%b" % (len(request), request))


def _call(pick: random.Random, status: str) -> dict[str, Any]:
    return {
        "call_id": f"call_{pick.getrandbits(108):027x}",
        "call_type": "phone_call",
        "agent_id": "agent_5c1f0b6a",
        "agent_version": 4,
        "agent_name": "Front desk",
        "call_status": status,
        "direction": "inbound",
        "from_number": f"+1415555{pick.randint(0, 9999):04d}",
        "to_number": "+14155550199",
        "metadata": {"company_id": pick.randint(1, 50)},
        "retell_llm_dynamic_variables": {"language": "en"},
        "start_timestamp": int(time.time() * 1000) - pick.randint(1000, 60_000),
        "transcript": "",
    }


def _padded(body: dict[str, Any]) -> bytes:
    """The transcript makes up what is missing to `SIZE`."""
    missing = SIZE - len(json.dumps(body, separators=(",", ":")))
    text = (_TRANSCRIPT * (missing // len(_TRANSCRIPT) + 1)).replace("\n", " ")
    body["call"]["transcript"] = text[: max(missing, 0)]
    return json.dumps(body, separators=(",", ":")).encode()
