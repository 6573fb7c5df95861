from __future__ import annotations

from proxy.core.rules import SecretRef
from proxy.core.rules.walk import secrets, values
from tests.rules_kit import rules


def test_every_value_has_its_path() -> None:
    found = dict(values(rules(auth={"allow": ["10.0.0.0/8"]}, tools={"book": {"effect": "read"}})))

    assert str(found["auth.allow.0"]) == "10.0.0.0/8"
    assert found["backends.mcp.breaker.failures"] == 5
    assert found["tools.book.effect"] == "read"


def test_only_what_was_written_is_told_if_so_asked() -> None:
    found = dict(values(rules(rollout={"every": "1m"}), written=True))

    assert "rollout.every" in found
    assert "rollout.steps" not in found
    assert "limits" not in found


def test_secrets_are_found_wherever_they_stand() -> None:
    found = dict(
        secrets(
            rules(
                admin={"token": "env:A"},
                split={"salt": "env:B?", "force": {"header": "x", "token": "env:C"}},
                auth={"tokens": ["env:D", {"ref": "env:E", "since": "2026-01-31"}]},
                state="env:F?",
            )
        )
    )

    assert {path: ref.ref for path, ref in found.items()} == {
        "admin.token": "env:A",
        "split.salt": "env:B",
        "split.force.token": "env:C",
        "auth.tokens.0": "env:D",
        "auth.tokens.1": "env:E",
        "backends.webhook.sign": "env:RETELL_API_KEY",
        "state": "env:F",
    }
    assert found["state"] == SecretRef("env:F", optional=True)
