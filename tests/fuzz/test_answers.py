"""What arms may answer, as hypothesis has it: on the wire, and in the ears of callers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.desync import strict
from tests.functional.kit import event, function
from tests.functional.wire import Answer, request, says_and_closes
from tests.fuzz import upstream
from tests.fuzz.stage import Stage
from tests.fuzz.strategies import arm_answers
from tests.fuzz.wires import Loop, Quiet


@pytest.fixture
def quiet() -> Iterator[Quiet]:
    quiet = Quiet()
    yield quiet
    quiet.close()


def test_an_answer_is_handed_on_if_and_only_if_it_is_one(quiet: Quiet) -> None:
    loop = Loop()
    methods, limits = st.sampled_from([b"POST", b"HEAD"]), st.sampled_from([262_144, 0, 16])

    @settings(max_examples=200)
    @given(arm_answers(), methods, limits, st.sampled_from([0, 50_000]))
    def holds(said: bytes, method: bytes, limit: int, cut: int) -> None:
        loop.run(upstream.check(said, method, limit, cut, quiet))

    holds()
    loop.close()


def test_a_caller_hears_a_whole_answer_or_a_broken_connection(tmp_path: Path) -> None:
    """Never an answer that is cut and does not look it, and never one of somebody else's."""
    calls = 0

    async def ask(said: bytes) -> None:
        nonlocal calls
        calls += 1
        body = (
            event("call_ended", f"call_0{calls}") if calls % 2 else function("book", f"c_{calls}")
        )
        stage.world.webhook.play = says_and_closes(said)
        stage.world.webhook.seen.clear()
        try:
            answer = await stage.sidecar.ask(request("POST", "/retell", body))
        except (asyncio.IncompleteReadError, ConnectionError):
            # Only what has begun to stream can break: longer than what is kept whole, or events.
            assert len(said) > 200_000 or b"event-stream" in said
        else:
            check(answer, said)
        assert len(stage.world.webhook.seen) <= 1

    with Stage(tmp_path, split={"percent": 0}, backends=UNBROKEN) as stage:

        @settings(max_examples=120)
        @given(arm_answers())
        def holds(said: bytes) -> None:
            stage.run(ask(said))

        holds()


UNBROKEN = {"webhook": {"breaker": {"enabled": False}}}
"""Many of these answers are failures, and what is asked here is each of them."""


def check(answer: Answer, said: bytes) -> None:
    """The arm's own words, all of them and no more; or ours, which are whole."""
    if answer.reason == "last_answer":
        assert answer.status in (200, 503)
        assert answer.json
    elif answer.arm == "webhook":
        read = strict.responses(said, [b"POST"], ended=True)
        assert read.messages or read.fault.startswith(upstream.HARMLESS)
        for whole in read.messages:
            assert (answer.status, answer.body) == (whole.status, whole.body)
