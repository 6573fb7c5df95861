from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from proxy.adapters.clock import LoopClock
from proxy.adapters.outbox import EventOutbox
from proxy.core.outbox import State, letter_of
from proxy.errors import StoreFailed
from proxy.outbox_desk import OutboxDesk
from tests.adapters.outbox_kit import call
from tests.path_kit import REFUSED, Network, World
from tests.test_durable import Process

SLOW: dict[str, Any] = {"retry_first": "10m", "retry_max": "10m"}


class Desk:
    def __init__(self, folder: Path) -> None:
        self.process = Process(folder / "state", World(webhook=Network(REFUSED)))
        self.desk = OutboxDesk(self.process.durable, LoopClock())

    @property
    def box(self) -> EventOutbox:
        assert self.process.durable.box is not None
        return self.process.durable.box

    async def kill(self, id: int, reason: str = "webhook answered 422") -> None:
        """Make an entry dead, as the courier does."""
        entry = self.box.lines.find(id)
        assert entry is not None
        dead = replace(entry, state=State.DEAD, reason=reason)
        await self.box.store.update(dead)
        self.box.lines.put(dead, 0.0)

    def ids(self, state: str = "all", call_id: str | None = None) -> list[int]:
        return [row["id"] for row in self.desk.overview(state, call_id)["entries"]]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    one = Desk(tmp_path)
    await one.process.start(**SLOW)
    for number, call_id in enumerate(("call_a", "call_b", "call_a"), 1):
        assert await one.process.take(number, call_id) == 200
    yield one
    await one.process.stop()


async def test_an_operator_sees_what_waits_and_why(desk: Desk) -> None:
    await desk.kill(2)
    shown = desk.desk.overview("all", None)

    assert orjson.dumps(shown)
    assert (shown["store"], shown["usable"], shown["takes"], shown["delivers"]) == (
        "sqlite", True, True, True
    )  # fmt: skip
    assert (shown["queued"], shown["dead"], shown["under_way"], shown["left_out"]) == (2, 1, 0, 0)
    assert shown["bytes"] > 0
    assert shown["oldest_seconds"] == 0
    row = shown["entries"][1]
    assert (row["id"], row["call_id"], row["event"], row["kind"], row["arm"]) == (
        2, "call_b", "call_ended", "event", "webhook"
    )  # fmt: skip
    assert (row["state"], row["reason"], row["next_at"]) == ("dead", "webhook answered 422", None)
    assert shown["entries"][0]["next_at"] > shown["entries"][0]["received_at"]


async def test_entries_are_found_by_state_and_call(desk: Desk) -> None:
    await desk.kill(2)

    assert desk.ids() == [1, 2, 3]
    assert desk.ids("dead") == [2]
    assert desk.ids("queued", "call_a") == [1, 3]
    assert desk.ids("all", "call_x") == []
    with pytest.raises(ValueError, match="Expected all, queued, dead"):
        desk.desk.overview("lost", None)


async def test_a_page_has_an_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.outbox_desk.MOST", 2)

    assert desk.ids() == [1, 2]
    assert desk.desk.overview("all", None)["left_out"] == 1


async def test_a_body_and_a_credential_are_not_shown_unasked(desk: Desk) -> None:
    """A transcript is personal data; a signature, a token, a cookie are nobody's to read."""
    shown = await desk.desk.show("1", body=False)

    assert shown["request"]["body_bytes"] == len(call(1).body)
    assert "body" not in shown["request"]
    assert dict(map(tuple, shown["request"]["headers"])) == {
        "Content-Type": "application/json",
        "X-Retell-Signature": "(7 bytes, not shown)",
    }
    whole = await desk.desk.show("1", body=True)
    assert whole["request"]["body"] == call(1).body.decode()
    assert (shown["request"]["method"], shown["request"]["target"]) == ("POST", "/retell")


async def test_every_header_that_may_hold_a_credential_is_hidden(desk: Desk) -> None:
    names = (b"Authorization", b"cookie", b"X-Api-Key", b"x-app-token", b"X-Password")
    odd = call(4)
    odd.head.end_to_end = [(name, b"hunter2") for name in names]
    await desk.process.durable.take(odd, "webhook", until=0.0)

    shown = await desk.desk.show("4", body=True)

    assert "hunter2" not in str(shown)


async def test_a_body_that_is_no_text_is_shown_in_base64(desk: Desk) -> None:
    binary = call(4)
    binary.body = b"\xff\x00"
    await desk.process.durable.take(binary, "webhook", until=0.0)

    assert (await desk.desk.show("4", body=True))["request"]["body_base64"] == "/wA="


async def test_a_letter_that_is_gone_is_said(desk: Desk) -> None:
    await desk.box.store.remove(1)

    assert (await desk.desk.show("1", body=True))["request"] is None
    assert letter_of(call(1)).body


@pytest.mark.parametrize("entry", ["99", "x", "", "²", "-1", "1.0"])
async def test_an_unknown_entry_is_said(desk: Desk, entry: str) -> None:
    with pytest.raises(KeyError):
        await desk.desk.show(entry, body=False)
    with pytest.raises(KeyError):
        await desk.desk.retry(entry)
    with pytest.raises(KeyError):
        await desk.desk.drop(entry)


async def test_dead_ones_are_brought_back_one_or_all(desk: Desk) -> None:
    for id in (1, 2, 3):
        await desk.kill(id)
    assert await desk.desk.retry("2") == {"retried": 1, "left": 0}
    assert desk.ids("dead") == [1, 3]

    assert await desk.desk.retry("dead") == {"retried": 2, "left": 0}
    assert desk.ids("dead") == []
    assert await desk.desk.retry("dead") == {"retried": 0, "left": 0}


async def test_thousands_are_changed_a_page_at_a_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.outbox_desk.MOST", 2)
    for id in (1, 2, 3):
        await desk.kill(id)

    assert await desk.desk.retry("dead") == {"retried": 2, "left": 1}
    assert await desk.desk.drop("dead") == {"dropped": 1, "left": 0}


async def test_what_is_being_delivered_is_not_delivered_twice(desk: Desk) -> None:
    entry = desk.box.lines.take(LoopClock().now() + 3600)
    assert entry is not None
    with pytest.raises(ValueError, match="being delivered"):
        await desk.desk.retry(str(entry.id))

    (row,) = [row for row in desk.desk.overview("all", None)["entries"] if row["under_way"]]
    assert (row["id"], row["next_at"]) == (entry.id, None)
    await desk.box.become(entry, entry)


async def test_entries_are_dropped_one_or_all_that_are_dead(desk: Desk) -> None:
    await desk.kill(1)
    await desk.kill(2)
    assert await desk.desk.drop("3") == {"dropped": 1, "left": 0}
    assert await desk.desk.drop("dead") == {"dropped": 2, "left": 0}

    assert desk.ids() == []
    assert await desk.box.letter(1) is None


async def test_without_an_outbox_the_reason_is_said(tmp_path: Path) -> None:
    process = Process(tmp_path / "state", World())
    await process.start(enabled=False)
    desk = OutboxDesk(process.durable, LoopClock())

    assert desk.overview("all", None) == {
        "store": None, "usable": False, "why": "outbox.enabled is false",
        "entries": [], "left_out": 0,
    }  # fmt: skip
    with pytest.raises(StoreFailed, match=r"outbox\.enabled is false"):
        await desk.show("1", body=False)
    await process.stop()


async def test_an_empty_outbox_has_no_oldest(tmp_path: Path) -> None:
    process = Process(tmp_path / "state", World())
    await process.start()

    assert OutboxDesk(process.durable, LoopClock()).summary()["oldest_seconds"] is None
    await process.stop()
