from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.adapters.logs import configure
from proxy.adapters.session_key import FILE, KEY_BYTES, session_key
from proxy.adapters.state_dir import StateDir
from tests.fakes import FakeClock


class Asked:
    """A key as a starting process gets it, and what was logged of it."""

    def __init__(self, state: StateDir, *, shared: bool = False) -> None:
        stream = io.StringIO()
        log = configure(FakeClock().wall_ms, stream=stream)
        self.key = session_key(state, log, shared=shared)
        self.said: list[dict[str, Any]] = [orjson.loads(x) for x in stream.getvalue().splitlines()]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    held = StateDir.open(tmp_path / "state")
    yield held
    held.close()


def failing(*_: object) -> Any:
    raise OSError(28, "No space left on device")


def test_the_first_process_makes_a_key_and_the_next_one_finds_it(
    state: StateDir, tmp_path: Path
) -> None:
    first = Asked(state)
    state.close()
    again = StateDir.open(tmp_path / "state")
    second = Asked(again)
    again.close()

    assert first.key == second.key
    assert len(first.key) == KEY_BYTES
    assert (first.said, second.said) == ([], [])


def test_nobody_else_can_read_it(state: StateDir) -> None:
    Asked(state)

    assert stat.S_IMODE(state.file(FILE).stat().st_mode) == 0o600


def test_two_replicas_have_two_keys(state: StateDir, tmp_path: Path) -> None:
    other = StateDir.open(tmp_path / "other")
    keys = {Asked(state).key, Asked(other).key}
    other.close()

    assert len(keys) == 2


@pytest.mark.parametrize("content", [b"", b"short", b"x" * (KEY_BYTES + 1)])
def test_a_key_that_is_damaged_is_made_anew_and_said_once(state: StateDir, content: bytes) -> None:
    """Nobody may guess that an empty file signs: every token would be open to everybody."""
    state.replace(FILE, content)
    asked, again = Asked(state), Asked(state)

    assert [each["event"] for each in asked.said] == ["session_key_broken"]
    assert asked.key == again.key == state.read(FILE)
    assert again.said == []


@pytest.mark.parametrize("method", ["read", "replace"])
def test_a_disk_that_fails_costs_the_next_process_its_sessions_and_no_more(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(state, method, failing)
    asked, again = Asked(state), Asked(state)

    assert len(asked.key) == KEY_BYTES
    assert asked.key != again.key
    [line] = asked.said
    assert (line["event"], line["level"]) == ("session_key_in_memory_only", "warning")
    assert line["why"] == "No space left on device"


def test_without_a_writable_place_the_key_is_this_processes_own(tmp_path: Path) -> None:
    state = StateDir(tmp_path, None, "Read-only file system")
    asked = Asked(state)

    assert len(asked.key) == KEY_BYTES
    assert list(tmp_path.iterdir()) == []
    assert [each["why"] for each in asked.said] == ["Read-only file system"]


def test_where_the_rules_give_a_key_that_is_nothing_to_worry_about(tmp_path: Path) -> None:
    asked = Asked(StateDir(tmp_path, None, "Read-only file system"), shared=True)

    assert len(asked.key) == KEY_BYTES
    assert asked.said == []
