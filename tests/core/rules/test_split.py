from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.rules import SecretRef, Split


def test_without_a_word_nobody_reaches_the_new_arm() -> None:
    split = Split()

    assert (split.percent, split.cap, split.enabled) == (0.0, 100.0, True)
    assert (split.to, split.otherwise) == ("mcp", "webhook")
    assert split.force is None


@pytest.mark.parametrize(
    ("written", "salt"),
    [
        ("env:SALT?", SecretRef("env:SALT", optional=True)),
        ({"ref": "env:SALT"}, SecretRef("env:SALT")),
        ("pepper", "pepper"),
        ("", ""),
    ],
)
def test_a_salt_is_a_reference_or_a_text(written: Any, salt: Any) -> None:
    split = Split.model_validate({"salt": written})

    assert split.salt == salt
    assert Split.model_validate(split.model_dump(mode="json")).salt == salt


@pytest.mark.parametrize("written", [None, 5, True, "env:A-B", []])
def test_a_salt_of_another_sort_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        Split.model_validate({"salt": written})


def test_headers_are_lower_case_and_lists_frozen() -> None:
    split = Split.model_validate({"call_id_headers": ["X-Call"], "overrides": []})

    assert split.call_id_headers == ("x-call",)
    assert split.overrides == ()


def test_force_needs_header_and_token() -> None:
    with pytest.raises(ValidationError, match="token"):
        Split.model_validate({"force": {"header": "x-force"}})
