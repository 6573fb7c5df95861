"""What callers may write, as hypothesis has it: whole streams, and requests that must be served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.model import Kind
from tests.functional.wire import Answer
from tests.fuzz import bodies, ingress
from tests.fuzz.stage import Stage
from tests.fuzz.strategies import (
    ANY_BODY,
    MARKER,
    TARGETS,
    Sent,
    good_requests,
    spoiled,
    streams,
)
from tests.fuzz.wires import Loop


@pytest.fixture
def loop() -> Any:
    loop = Loop()
    yield loop
    loop.close()


def examples(test: Callable[[Any], None], strategy: st.SearchStrategy[Any], count: int) -> None:
    """Hold every example of a strategy against a promise."""
    settings(max_examples=count)(given(strategy)(test))()


def test_no_stream_breaks_a_promise(loop: Loop) -> None:
    def holds(stream: bytes) -> None:
        for cut in (0, 1):
            loop.run(ingress.check(stream, cut))

    examples(holds, streams(), 150)


def test_without_a_credential_no_byte_reaches_an_arm(loop: Loop) -> None:
    examples(lambda stream: loop.run(ingress.check_locked(stream)), streams(), 150)


def test_no_body_breaks_a_promise_whatever_befell_it() -> None:
    target = bodies.Bodies()
    paths = st.sampled_from(["/retell", *TARGETS.values(), "/mcp", "/retell?call_id=call_0q"])
    fields = st.sampled_from(
        ["", "MCP-Protocol-Version: 2026-07-28\nMcp-Method: tools/call\nMcp-Name: book\n",
         "MCP-Protocol-Version: 2025-11-25\n", "X-Call-ID: call_0h\n", "Mcp-Session-Id: x\n"]
    )  # fmt: skip
    requests = st.builds(
        lambda path, field, body: f"POST {path}\n{field}\n".encode() + body,
        paths, fields, ANY_BODY | spoiled(ANY_BODY),
    )  # fmt: skip

    examples(lambda data: target(data), requests, 150)
    target.close()


def test_a_good_request_is_served_once_and_arrives_byte_for_byte(tmp_path: Path) -> None:
    """Over real sockets, to a webhook that says the marker to nobody."""

    async def serve(sent: Sent) -> None:
        seen = stage.world.webhook.seen
        seen.clear()
        answer = await stage.sidecar.ask(sent.raw)

        if sent.kind is Kind.EVENT and answer.reason == "replayed":
            assert (answer.status, seen) == (204, [])
            return  # An example before had the same call and event, and that is taken once.
        check_answer(answer, sent)
        if sent.kind in (Kind.MCP, Kind.TOOLS):
            return  # The webhook speaks neither; what it is asked is composed.
        (arrived,) = seen
        assert arrived.body == sent.body
        assert arrived.target.partition(b"?")[2] == sent.target.partition("?")[2].encode()

    # A write that is repeated does not arrive: that is the guard's promise, not this one's.
    rules = {"split": {"percent": 0}, "tools": {"default": {"effect": "read"}, "book": READ}}
    with Stage(tmp_path, **rules) as stage:
        examples(lambda sent: stage.run(serve(sent)), good_requests(), 120)


READ = {"effect": "read"}


def test_a_good_request_runs_one_tool_of_an_mcp_server_with_its_very_arguments(
    tmp_path: Path,
) -> None:
    async def serve(sent: Sent) -> None:
        stage.world.mcp.seen.clear()
        stage.world.webhook.seen.clear()
        answer = await stage.sidecar.ask(sent.raw)

        check_answer(answer, sent)
        (call,) = stage.world.mcp.tools
        assert not stage.world.webhook.seen
        assert call.json["params"]["arguments"] == arguments_of(sent)

    rules = {"tools": {"default": {"effect": "read"}, "book": READ}}
    kinds = (Kind.FUNCTION, Kind.TOOLS, Kind.MCP)
    with Stage(tmp_path, **rules) as stage:
        examples(lambda sent: stage.run(serve(sent)), good_requests(*kinds), 120)


def arguments_of(sent: Sent) -> Any:
    """What the tool was to be called with."""
    value = sent.value
    if sent.kind is Kind.MCP:
        return value["params"]["arguments"]
    return {Kind.FUNCTION: value.get("args"), Kind.TOOLS: value.get("arguments")}.get(
        sent.kind, value
    )


def check_answer(answer: Answer, sent: Sent) -> None:
    """Served, in HTTP, and without a word of what was asked."""
    assert answer.status == 200, answer
    assert MARKER.encode() not in answer.head
    if sent.kind is not Kind.MCP:
        assert MARKER.encode() not in answer.body
