"""What may come to the admin listener, as hypothesis has it."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.functional.kit import function
from tests.functional.wire import Answer, Client, request
from tests.fuzz.operating import admin_requests
from tests.fuzz.stage import Stage
from tests.fuzz.strategies import MARKER, streams

ECHOING = "/explain"
"""The one page that is asked about what its asker sends; all others say nothing of it."""

FINE = frozenset({200, 201, 204, 400, 401, 403, 404, 405, 409, 411, 413, 415, 417, 431, 503})


def test_no_request_to_the_admin_listener_makes_it_fail(tmp_path: Path) -> None:
    """Nothing is changed but by POST from here, each change is told, and nothing is echoed."""

    async def ask(raw: bytes) -> None:
        changes = len(stage.sidecar.events("operator_changed"))
        client = await Client.connect(stage.sidecar.admin_port)
        try:
            answer = await client.ask(raw)
        finally:
            await client.close()
        check(answer, raw)
        method, target = raw.split(b" ", 2)[:2]
        changed = len(stage.sidecar.events("operator_changed")) - changes
        path = target.partition(b"?")[0]
        made = method == b"POST" and answer.status == 200 and path != ECHOING.encode()
        reads = path.startswith(b"/outbox/") and b"whole=true" in target
        assert changed == made or (reads and changed <= 1)

    with Stage(tmp_path) as stage:
        stage.run(stage.sidecar.ask(request("POST", "/retell", function("book"))))

        @settings(max_examples=200)
        @given(admin_requests())
        def holds(raw: bytes) -> None:
            stage.run(ask(raw))

        holds()


def check(answer: Answer, raw: bytes) -> None:
    assert answer.status in FINE, answer
    assert b"aiohttp" not in answer.head
    if ECHOING.encode() not in raw:
        assert MARKER.encode() not in answer.head + answer.body
    if answer.status >= 400 and answer.body:
        assert set(json.loads(answer.body)) <= {"error", "ready", "reasons"}


def test_bytes_that_are_no_request_are_survived(tmp_path: Path) -> None:
    async def send(stream: bytes) -> None:
        client = await Client.connect(stage.sidecar.admin_port)
        await client.send(stream)
        await client.close()

    with Stage(tmp_path) as stage:

        @settings(max_examples=60)
        @given(streams() | st.binary(max_size=300))
        def holds(stream: bytes) -> None:
            stage.run(send(stream))

        holds()
        assert stage.run(stage.sidecar.admin("/live")).status == 200
        assert not [line for line in stage.sidecar.log.splitlines() if '"level":"error"' in line]
        assert MARKER not in stage.sidecar.log
