"""callsplit's admin API, as the proof asks it."""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection
from typing import Any

from tests.bench.process import Broken


def get(port: int, path: str) -> tuple[int, Any]:
    """Status and JSON; status 0 if nobody listens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except ConnectionRefusedError:
        return 0, None
    finally:
        connection.close()


def text(port: int, path: str) -> str:
    """A page as it is."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def await_ready(port: int, seconds: float = 20.0) -> None:
    """Return when /ready says 200.  Raises `Broken` if it does not."""
    ends = time.monotonic() + seconds
    while get(port, "/ready")[0] != 200:
        if time.monotonic() > ends:
            raise Broken("callsplit does not become ready")
        time.sleep(0.002)


def digest(port: int) -> str:
    """Which rules are in force."""
    return str(get(port, "/status")[1]["rules"]["digest"])


def await_other_digest(port: int, before: str, seconds: float = 5.0) -> str:
    """The digest that comes after `before`.  Raises `Broken` if none does."""
    ends = time.monotonic() + seconds
    while (now := digest(port)) == before:
        if time.monotonic() > ends:
            raise Broken("new rules did not come into force")
        time.sleep(0.02)
    return now
