from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from proxy.core.rules.secret_care import (
    OLD_DAYS,
    SHORTEST,
    Dated,
    age_warnings,
    dated,
    length_warnings,
)
from tests.rules_kit import document, rules

DAY = date(2026, 1, 31)


def since(ref: str = "env:T", day: date = DAY) -> dict[str, str]:
    return {"ref": ref, "since": str(day)}


def test_every_secret_may_say_since_when_it_is_in_use() -> None:
    backends = document()["backends"]
    backends["mcp"]["bearer"] = since("env:UP?")
    found = dated(
        rules(
            auth={"tokens": ["env:OLD", since()], "retell_keys": [since("file:/k")]},
            admin={"token": since("env:A")},
            backends=backends,
        )
    )

    assert found == [
        Dated("admin.token", "env:A", DAY),
        Dated("auth.retell_keys.0", "file:/k", DAY),
        Dated("auth.tokens.1", "env:T", DAY),
        Dated("backends.mcp.bearer", "env:UP?", DAY),
    ]


@pytest.mark.parametrize(
    ("age", "warned"), [(0, False), (OLD_DAYS - 1, False), (OLD_DAYS, True), (4000, True)]
)
def test_a_secret_is_old_after_so_many_days(age: int, warned: bool) -> None:
    told = age_warnings(rules(auth={"tokens": [since()]}), DAY + timedelta(age))

    assert bool(told) is warned
    if told:
        assert told[0].startswith(f"auth.tokens.0: env:T has been in use for {age} days")


def test_a_day_to_come_cannot_be_right() -> None:
    (told,) = age_warnings(rules(auth={"tokens": [since()]}), DAY - timedelta(1))

    assert told == "auth.tokens.0: env:T is in use since 2026-01-31, a day that is to come"


def test_without_a_day_no_age_is_known() -> None:
    written = rules(auth={"tokens": ["env:T"]})

    assert dated(written) == []
    assert age_warnings(written, DAY) == []


SHORT: list[tuple[dict[str, Any], str]] = [
    ({"auth": {"tokens": ["env:GOOD", "env:SHORT"]}}, "auth.tokens.1"),
    ({"admin": {"token": "env:SHORT"}}, "admin.token"),
    ({"split": {"force": {"header": "x-force", "token": "env:SHORT"}}}, "split.force.token"),
]


@pytest.mark.parametrize(("sections", "path"), SHORT, ids=[path for _, path in SHORT])
def test_a_token_that_could_be_found_by_trying_is_pointed_out(
    sections: dict[str, Any], path: str
) -> None:
    lengths = {"env:GOOD": SHORTEST, "env:SHORT": SHORTEST - 1}

    (told,) = length_warnings(rules(**sections), lambda ref: lengths[ref.ref])

    assert told.startswith(f"{path}: env:SHORT is shorter than 16 bytes")


def test_what_is_absent_is_not_short() -> None:
    assert length_warnings(rules(auth={"tokens": ["env:A?"]}), lambda _: 0) == []
