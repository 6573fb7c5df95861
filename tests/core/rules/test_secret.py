from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from proxy.core.rules.parse import SecretError
from proxy.core.rules.secret import SecretRef, is_reference, parse_secret, say_secret

CASES: list[tuple[Any, SecretRef]] = [
    ("env:TOKEN", SecretRef("env:TOKEN")),
    ("env:TOKEN?", SecretRef("env:TOKEN", optional=True)),
    ("file:/run/secrets/a b", SecretRef("file:/run/secrets/a b")),
    ("file:secret?", SecretRef("file:secret", optional=True)),
    ({"ref": "env:TOKEN"}, SecretRef("env:TOKEN")),
    (
        {"ref": "env:TOKEN?", "since": "2026-01-31"},
        SecretRef("env:TOKEN", optional=True, since=date(2026, 1, 31)),
    ),
]


@pytest.mark.parametrize(("written", "ref"), CASES)
def test_a_reference_is_read(written: Any, ref: SecretRef) -> None:
    assert parse_secret(written) == ref
    assert parse_secret(ref) is ref
    assert parse_secret(say_secret(ref)) == ref


@pytest.mark.parametrize(
    "written",
    ["hunter2", "", "env:", "env:A-B", "env:1A", "env:A??", "file:", "file:/a\n", "ENV:A", 5, None,
     ["env:A"], {}, {"ref": "hunter2"}, {"ref": "env:A", "sinc": "2026-01-31"}, {"since": "x"}],
)  # fmt: skip
def test_a_secret_itself_is_refused_and_never_repeated(written: Any) -> None:
    with pytest.raises(SecretError) as caught:
        parse_secret(written)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", 20260131, []])
def test_since_is_a_day(since: Any) -> None:
    with pytest.raises(SecretError, match="a day"):
        parse_secret({"ref": "env:A", "since": since})


def test_a_text_is_meant_as_a_reference_by_its_first_word() -> None:
    assert is_reference("env:A-B")
    assert is_reference("file:x")
    assert not is_reference("salt")
    assert not is_reference(5)
