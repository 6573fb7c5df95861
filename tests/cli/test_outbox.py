from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from proxy.cli.outbox import headline, outbox_app
from tests.fakes import FakeAdmin

ROW: dict[str, Any] = {
    "id": 7, "call_id": "call_7", "kind": "event", "event": "call_ended", "arm": "webhook",
    "state": "dead", "under_way": False, "received_at": "2026-01-01T00:00:00.000Z", "tries": 3,
    "next_at": None, "bytes": 812, "reason": "webhook answered 422",
}  # fmt: skip
PAGE: dict[str, Any] = {
    "store": "sqlite", "usable": True, "why": "", "takes": True, "delivers": True, "queued": 2,
    "dead": 1, "under_way": 1, "bytes": 2048, "oldest_seconds": 61, "left_out": 0,
    "entries": [
        ROW,
        ROW | {"id": 8, "state": "queued", "next_at": "2026-01-01T00:01:00.000Z"},
        ROW | {"id": 9, "state": "queued", "under_way": True},
    ],
}  # fmt: skip
REQUEST = {
    "method": "POST", "target": "/retell", "body_bytes": 12,
    "headers": [["x-retell-signature", "(7 bytes, not shown)"]],
}  # fmt: skip


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_what_waits_is_listed_with_its_reason(runner: CliRunner) -> None:
    with FakeAdmin({"/outbox": (200, PAGE)}) as admin:
        result = runner.invoke(
            outbox_app, ["list", "--state", "dead", "--call", "call_7", "--admin", admin.url]
        )

    assert result.exit_code == 0
    assert "2 queued, 1 dead, 2048 bytes, the oldest waits for 61 s" in result.stdout
    assert "webhook answered 422" in result.stdout
    assert "next 2026-01-01T00:01:00.000Z" in result.stdout
    assert "under way" in result.stdout
    assert admin.asked == [("GET", "/outbox?state=dead&call_id=call_7", "")]


def test_the_list_is_data_for_other_programs_too(runner: CliRunner) -> None:
    with FakeAdmin({"/outbox": (200, PAGE | {"left_out": 5})}) as admin:
        result = runner.invoke(outbox_app, ["list", "-o", "json", "--admin", admin.url])

    assert json.loads(result.stdout)["entries"][0] == ROW
    assert "5 more" in result.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"store": None, "why": "outbox.enabled is false"}, "no outbox: outbox.enabled is false"),
        ({"usable": False, "why": "no space"}, "the sqlite store cannot be used: no space"),
        ({"takes": False}, "takes no more (outbox.enabled is false)"),
        ({"delivers": False}, "another replica delivers"),
    ],
)
def test_what_is_wrong_with_the_outbox_itself_is_said_first(
    changed: dict[str, Any], said: str
) -> None:
    assert said in headline(PAGE | {"oldest_seconds": None} | changed)


def test_one_event_is_shown_without_its_body(runner: CliRunner) -> None:
    with FakeAdmin({"/outbox/7": (200, ROW | {"request": REQUEST})}) as admin:
        result = runner.invoke(outbox_app, ["show", "7", "--admin", admin.url])

    assert result.exit_code == 0
    assert "POST /retell\nx-retell-signature: (7 bytes, not shown)\n" in result.stdout
    assert "(12 bytes of body)" in result.stdout
    assert admin.asked == [("GET", "/outbox/7", "")]


@pytest.mark.parametrize("key", ["body", "body_base64"])
def test_its_body_is_shown_to_who_asks_for_it(runner: CliRunner, key: str) -> None:
    request = REQUEST | {key: "what was said"}
    with FakeAdmin({"/outbox/7": (200, ROW | {"request": request})}) as admin:
        result = runner.invoke(
            outbox_app, ["show", "7", "--body", "--reason", "complaint", "--admin", admin.url]
        )

    assert result.stdout.endswith("\nwhat was said\n")
    assert admin.asked == [("GET", "/outbox/7?whole=true&reason=complaint", "")]


def test_help_says_that_a_body_is_personal_data(runner: CliRunner) -> None:
    said = runner.invoke(outbox_app, ["show", "--help"]).stdout

    assert "personal data" in said
    assert "--body" in said


def test_a_request_that_is_gone_is_said(runner: CliRunner) -> None:
    with FakeAdmin({"/outbox/7": (200, ROW | {"request": None})}) as admin:
        result = runner.invoke(outbox_app, ["show", "7", "--admin", admin.url])

    assert "cannot be read any more" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "path", "done"),
    [
        (["retry", "7"], "/outbox/7/retry", "retried"),
        (["drop", "7", "--yes"], "/outbox/7/drop", "dropped"),
        (["drop", "dead", "--yes"], "/outbox/dead/drop", "dropped"),
    ],
)
def test_a_change_is_posted_with_its_reason(
    runner: CliRunner, arguments: list[str], path: str, done: str
) -> None:
    with FakeAdmin({path: (200, {done: 1, "left": 0})}) as admin:
        result = runner.invoke(outbox_app, [*arguments, "--reason", "mended", "--admin", admin.url])

    assert result.stdout == f"1 {done}\n"
    assert admin.asked == [("POST", f"{path}?reason=mended", "")]


def test_thousands_are_changed_page_by_page_and_none_twice(runner: CliRunner) -> None:
    """Two of each page die again at once: they are left for the operator to look at."""
    with FakeAdmin({"/outbox/dead/retry": (200, {"retried": 1000, "left": 1500})}) as admin:
        result = runner.invoke(outbox_app, ["retry", "dead", "--admin", admin.url])

    assert result.stdout == "3000 retried\n"
    assert len(admin.asked) == 3


def test_with_nothing_dead_nothing_is_done(runner: CliRunner) -> None:
    with FakeAdmin({"/outbox/dead/retry": (200, {"retried": 0, "left": 0})}) as admin:
        result = runner.invoke(outbox_app, ["retry", "dead", "--admin", admin.url])

    assert result.stdout == "0 retried\n"
    assert len(admin.asked) == 1


@pytest.mark.parametrize(("answer", "code", "asked"), [("y\n", 0, 1), ("n\n", 1, 0), ("", 1, 0)])
def test_who_drops_is_asked_whether_he_means_it(
    runner: CliRunner, answer: str, code: int, asked: int
) -> None:
    with FakeAdmin({"/outbox/7/drop": (200, {"dropped": 1, "left": 0})}) as admin:
        result = runner.invoke(outbox_app, ["drop", "7", "--admin", admin.url], input=answer)

    assert result.exit_code == code
    assert len(admin.asked) == asked


def test_a_number_is_never_taken_for_a_path(runner: CliRunner) -> None:
    with FakeAdmin({}) as admin:
        result = runner.invoke(outbox_app, ["retry", "../breakers/mcp/open?", "--admin", admin.url])

    assert result.exit_code == 1
    assert admin.asked[0][1].startswith("/outbox/..%2Fbreakers%2Fmcp%2Fopen%3F/retry")
