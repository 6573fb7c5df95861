from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.model import Effect
from proxy.core.rules import Rules
from tests.rules_kit import document, rules


def test_backends_alone_make_a_rule_set() -> None:
    assert set(rules().backends) == {"mcp", "webhook"}
    assert rules().passthrough is None
    assert rules().state == "memory"


def test_rules_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        rules().passthrough = "mcp"  # type: ignore[misc]


def test_a_tool_is_found_by_its_name() -> None:
    found = rules(tools={"slots": {"effect": "read"}})

    assert found.tool("slots").effect is Effect.READ
    assert found.tool("book").effect is Effect.WRITE


@pytest.mark.parametrize(
    "state",
    ["memory", "redis://cache:6379/0", "rediss://cache", "redis+sentinel://a,b/mymaster", "env:A?",
     "file:/run/redis_url"],
)  # fmt: skip
def test_a_state_is_memory_or_a_redis_or_a_reference(state: str) -> None:
    assert rules(state=state).state == state


@pytest.mark.parametrize("state", ["", "disk", "http://a", "redis://", "env:A-B", 5, None, {}])
def test_another_state_is_refused(state: Any) -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate(document(state=state))


def test_a_password_in_the_state_is_refused_unseen() -> None:
    with pytest.raises(ValidationError) as caught:
        Rules.model_validate(document(state="redis://:hunter2@cache/0"))
    (detail,) = caught.value.errors(include_url=False, include_input=False)
    assert "hunter2" not in str(detail["msg"])
