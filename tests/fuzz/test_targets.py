"""A target that cannot fail proves nothing: each is shown something that breaks a promise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from backends.base import Send
from backends.webhook import WebhookBackend
from proxy.adapters.listener import connection as listener
from proxy.adapters.upstream import answer as arm_answer
from proxy.core.dialects import sse
from proxy.core.model import Call, Reply
from proxy.core.rules.finding import Finding
from proxy.errors import Fault
from tests.desync.strict import Message
from tests.fuzz import answers, bodies, ingress, rules
from tests.fuzz.run_fuzz import WORDS, replay
from tests.fuzz.targets import TARGETS, Target, seeds

GET = b"GET /app HTTP/1.1\r\nHost: a\r\n\r\n"
FUNCTION = b'POST /retell\n\n{"name":"book","args":{},"call":{"call_id":"call_0a"}}'


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    target = TARGETS[request.param]()
    yield target
    target.close()


@pytest.mark.parametrize("target", ["ingress"], indirect=True)
def test_a_lenient_listener_is_found(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without our own look at it, aiohttp's parser passes two codings."""
    stream = b"POST /app HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n"
    target(stream)
    monkeypatch.setattr(listener, "framing_fault", lambda *_: 0)
    monkeypatch.setattr("proxy.core.guard._check_coding", lambda *_: None)

    with pytest.raises(AssertionError, match="holds no such request"):
        target(stream)


@pytest.mark.parametrize(
    "found",
    [
        Message((b"GET", b"/other"), (1, 1), (), b"", "none", 0),
        Message((b"POST", b"/app"), (1, 1), (), b"", "none", 0),
        Message((b"GET", b"/app"), (1, 1), (), b"x", "none", 0),
        Message((b"GET", b"/app"), (1, 1), ((b"X-New", b"1"),), b"", "none", 0),
    ],
)
def test_a_request_that_nobody_sent_is_found(found: Message) -> None:
    sent = Message((b"GET", b"/app"), (1, 1), ((b"Host", b"a"),), b"", "none", 0)

    with pytest.raises(AssertionError):
        ingress.check_arrived([found], [sent])
    with pytest.raises(AssertionError):
        ingress.check_arrived([sent, sent], [sent])


@pytest.mark.parametrize("body", [b'{"error":{"code":"x7","message":"Nothing."}}', b"<html>"])
def test_an_echo_is_found(body: bytes) -> None:
    with pytest.raises((AssertionError, ValueError)):
        ingress.check_refusal(body)


class Twice(WebhookBackend):
    """Asks its arm two times."""

    async def handle(self, call: Call, send: Send) -> Reply:
        await super().handle(call, send)
        return await super().handle(call, send)


class Crashing(WebhookBackend):
    async def handle(self, call: Call, send: Send) -> Reply:
        raise KeyError("a bug")


@pytest.mark.parametrize("backend", [Twice, Crashing])
def test_a_backend_that_runs_a_tool_twice_or_crashes_is_found(backend: Any) -> None:
    asked, made = bodies.Asked(FUNCTION), backend(bodies.config())

    with pytest.raises(AssertionError):
        asyncio.run(bodies.check(asked, made, bodies.Told(), 100))


@pytest.mark.parametrize("target", ["upstream"], indirect=True)
def test_an_answer_that_is_cut_and_taken_is_found(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = b"\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    target(said)
    monkeypatch.setattr(arm_answer.Answer, "ends_with_connection", True)

    with pytest.raises(AssertionError, match="no answer"):
        target(said)


def test_events_that_are_read_otherwise_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answers.check_events(b"data:  x\n\n")
    monkeypatch.setattr(
        sse.Parser, "feed", lambda *_: [sse.Event(b"message", b"x")]
    )  # one blank too many is gone

    with pytest.raises(AssertionError):
        answers.check_events(b"data:  x\n\n")


@pytest.mark.parametrize("target", ["tokens"], indirect=True)
def test_a_token_of_anybodys_making_is_found(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.core.mcp.session.hmac.compare_digest", lambda *_: True)

    with pytest.raises(AssertionError):
        target(seeds("tokens")[0].read_bytes())


@pytest.mark.parametrize(
    "fault",
    [
        Fault(""),
        Fault("x", file="rules.yaml", line=9, column=1),
        Fault("x", file="rules.yaml", line=1, column=0),
        Fault("x", file="rules.yaml", line=1, column=1, source="other"),
        Fault(f"x {rules.TOKEN}"),
        Fault("x", column=3),
    ],
)
def test_a_fault_without_its_place_is_found(fault: Fault) -> None:
    with pytest.raises(AssertionError):
        rules.check_fault(fault, b"a: 1\n")


@pytest.mark.parametrize("target", ["rules"], indirect=True)
def test_a_crash_of_the_loader_is_found(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> list[Finding]:
        raise KeyError("a bug")

    monkeypatch.setattr("proxy.core.rules.check.contradictions", bug)

    with pytest.raises(KeyError):
        target((seeds("rules")[-1].parent / "two-arms").read_bytes())


# -- What `make fuzz` needs beside atheris.


def test_each_target_has_words_that_no_fuzzer_guesses() -> None:
    assert {path.stem for path in WORDS.iterdir()} == set(TARGETS)


def test_what_was_found_can_be_replayed_by_name_or_folder(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    named, nameless = tmp_path / "ingress-crash-0", tmp_path / "0"
    named.write_bytes(GET)
    nameless.write_bytes(GET)

    assert replay([named, seeds("tokens")[0]]) == 0
    assert replay([nameless]) == 2
    assert "which target?" in capsys.readouterr().err
