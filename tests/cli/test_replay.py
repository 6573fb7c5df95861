from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from proxy.cli.replay import age, replay_app
from tests.fakes import FakeAdmin

RECORD = {
    "id": "00112233445566778899aabbccddeeff", "call_id": "call_1a", "tool": "book_appointment",
    "state": "unknown", "age": 754.2, "run": 2,
}  # fmt: skip


def page(*records: dict[str, Any], more: bool = False) -> dict[str, Any]:
    return {"unknown": len(records), "records": list(records), "more": more}


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_what_is_held_is_listed_with_what_a_release_needs(runner: CliRunner) -> None:
    with FakeAdmin({"/replays": (200, page(RECORD))}) as admin:
        result = runner.invoke(replay_app, ["list", "--admin", admin.url])

    assert result.exit_code == 0
    for shown in (RECORD["id"], "call_1a", "book_appointment", "unknown", "13 min", "2"):
        assert str(shown) in result.stdout
    assert admin.asked[0][1] == "/replays?state=held"
    assert result.stderr == ""


def test_one_calls_finished_writes_are_asked_for_by_name(runner: CliRunner) -> None:
    with FakeAdmin({"/replays": (200, page())}) as admin:
        result = runner.invoke(
            replay_app,
            ["list", "--state", "done", "--call", "call_1a", "-o", "json", "--admin", admin.url],
        )

    assert json.loads(result.stdout)["records"] == []
    assert admin.asked[0][1] == "/replays?state=done&call_id=call_1a"


def test_a_list_that_is_cut_off_says_so(runner: CliRunner) -> None:
    with FakeAdmin({"/replays": (200, page(RECORD, more=True))}) as admin:
        result = runner.invoke(replay_app, ["list", "--admin", admin.url])

    assert "there are more" in result.stderr


def test_another_state_is_refused_in_the_sidecars_words(runner: CliRunner) -> None:
    error = {"error": {"code": "unknown_state", "message": "Expected held, all."}}
    with FakeAdmin({"/replays": (400, error)}) as admin:
        result = runner.invoke(replay_app, ["list", "--state", "x", "--admin", admin.url])

    assert result.exit_code == 1
    assert "Expected held, all." in result.stderr


def test_a_release_tells_what_it_changed_and_why(runner: CliRunner) -> None:
    path = f"/replays/{RECORD['id']}/release"
    with FakeAdmin({path: (200, {"before": "unknown", "after": "released"})}) as admin:
        result = runner.invoke(
            replay_app, ["release", str(RECORD["id"]), "--reason", "checked", "--admin", admin.url]
        )

    assert result.exit_code == 0
    assert result.stdout == f"{RECORD['id']}: unknown -> released\n"
    assert admin.asked[0][:2] == ("POST", f"{path}?reason=checked")


def test_what_runs_is_not_released(runner: CliRunner) -> None:
    error = {"error": {"code": "still_running", "message": "It is running."}}
    with FakeAdmin({"/replays/aa/release": (409, error)}) as admin:
        result = runner.invoke(replay_app, ["release", "aa", "--admin", admin.url])

    assert result.exit_code == 1
    assert "It is running." in result.stderr


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (7200.0, "2 h")],
)
def test_ages_are_told_as_people_would(seconds: float, said: str) -> None:
    assert age(seconds) == said
