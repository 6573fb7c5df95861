from __future__ import annotations

import asyncio
import io
import json

import pytest

from proxy.adapters.logs import configure
from proxy.ageing import Ageing
from tests.fakes import FakeClock
from tests.rules_kit import rules

DAY_MS = 86_400_000
NOW_MS = FakeClock().wall_ms()  # 2026-01-01


def ageing(days: float = 0, length: int = 32) -> tuple[Ageing, io.StringIO]:
    stream = io.StringIO()
    clock = FakeClock(wall_ms=NOW_MS + round(days * DAY_MS))
    log = configure(clock.wall_ms, stream=stream)
    return Ageing(clock=clock, log=log, length=lambda _: length), stream


DATED = rules(auth={"tokens": [{"ref": "env:T", "since": "2025-12-01"}, "env:U"]})


def test_before_there_are_rules_there_is_nothing_to_tell() -> None:
    ages, _ = ageing()

    assert (ages.warnings(), ages.page(), dict(ages.since())) == ([], [], {})


def test_the_age_is_that_of_the_day_on_which_it_is_asked_for() -> None:
    ages, _ = ageing(0.5)

    assert ages.use(DATED) == []
    assert ages.page() == [
        {"key": "auth.tokens.0", "ref": "env:T", "since": "2025-12-01", "age_days": 31}
    ]
    assert ages.since() == {("auth.tokens.0",): 1_764_547_200.0}


def test_an_old_secret_is_told_at_load_and_whenever_one_looks() -> None:
    ages, _ = ageing(60)

    (told,) = ages.use(DATED)
    assert "in use for 91 days" in told
    assert ages.warnings() == [told]


def test_a_short_one_is_told_too() -> None:
    ages, _ = ageing(length=8)

    assert len(ages.use(DATED)) == 2


async def test_the_log_is_reminded_day_after_day() -> None:
    ages, stream = ageing(60)
    ages.use(DATED)
    reminding = asyncio.create_task(ages.remind(every=0.0))
    while stream.getvalue().count("\n") < 3:
        await asyncio.sleep(0)
    reminding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reminding

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {(line["level"], line["event"]) for line in lines} == {("warning", "rules_warned")}
    assert "91 days" in lines[0]["message"]
