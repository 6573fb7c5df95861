from __future__ import annotations

import pytest
import typer

from proxy.cli.admin_client import Admin, Unreachable
from tests.fakes import FakeAdmin


def test_it_asks_with_the_token_and_the_query() -> None:
    with FakeAdmin({"/explain": (200, {"arm": "mcp"})}) as admin:
        answer = Admin(admin.url, "s3cret").get("/explain", call_id="call 1")

    assert answer == {"arm": "mcp"}
    assert admin.asked == [("GET", "/explain?call_id=call+1", "Bearer s3cret")]


def test_an_address_may_come_without_its_scheme() -> None:
    with FakeAdmin({"/live": (200, {})}) as admin:
        status, _ = Admin(admin.url.removeprefix("http://")).ask("GET", "/live")

    assert status == 200


def test_a_text_answer_is_given_as_text() -> None:
    with FakeAdmin({"/metrics": (200, b"up 1\n")}) as admin:
        assert Admin(admin.url).ask("GET", "/metrics") == (200, "up 1\n")


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://", "nonsense://", "http://127.0.0.1:99999", "http://[::1"]
)
def test_what_is_no_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(typer.Exit) as end:
        Admin(url)

    assert end.value.exit_code == 2


def test_nobody_there_is_said_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeAdmin({}) as admin:
        url = admin.url

    with pytest.raises(Unreachable):
        Admin(url).ask("GET", "/live")
    with pytest.raises(typer.Exit):
        Admin(url).get("/status")
    assert "connection refused; is it running?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {}, "CALLSPLIT_ADMIN_TOKEN"),
        (404, {"error": {"code": "unknown_arm", "message": "No such arm."}}, "No such arm."),
        (404, {"error": {"code": "not_found", "message": "x"}}, "is it the admin listener?"),
        (500, b"oops", "answered 500"),
        (200, b"<html>", "is it the admin listener?"),
    ],
)
def test_a_refusal_is_passed_on_in_words(
    capsys: pytest.CaptureFixture[str], status: int, body: object, said: str
) -> None:
    with FakeAdmin({"/breakers/x/reset": (status, body)}) as admin:
        client = Admin(admin.url)
        with pytest.raises(typer.Exit) as end:
            client.post("/breakers/x/reset")

    assert end.value.exit_code == 1
    assert said in capsys.readouterr().err
