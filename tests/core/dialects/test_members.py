from __future__ import annotations

import json

import pytest

from proxy.core.dialects.members import with_text


def test_one_text_changes_and_every_other_value_keeps_its_bytes() -> None:
    document = b'{"call": {"n": 1.50}, "name":"old", "args": {"a": "\\u00e9"}}'

    changed = with_text(document, ("name",), 'a "new" one')

    assert json.loads(changed)["name"] == 'a "new" one'
    assert list(json.loads(changed)) == ["call", "name", "args"]
    assert b'{"n": 1.50}' in changed
    assert b'{"a": "\\u00e9"}' in changed


def test_a_text_deep_down_can_be_replaced() -> None:
    document = b'{"id":1e2,"params":{"_meta":{"x": 1.0},"name":"old"}}'

    changed = with_text(document, ("params", "name"), "new")

    assert changed == b'{"id":1e2,"params":{"_meta":{"x": 1.0},"name":"new"}}'


def test_half_an_emoji_is_no_fault_of_the_document() -> None:
    """What is recognised in spite of it can be translated in spite of it."""
    document = rb'{"name":"old","params":{"\ud83d":1,"name":"old"},"transcript":"ok \ude00"}'

    changed = json.loads(with_text(document, ("params", "name"), "new"))

    assert changed == {
        "name": "old",
        "params": {"\ufffd": 1, "name": "new"},
        "transcript": "ok \ufffd",
    }


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (b"", ("a",)),
        (b"[]", ("a",)),
        (b'{"a":}', ("a",)),
        (b'{"a":' * 5000, ("a",)),
        (b"{}", ("a", "b")),
        (b'{"a":1}', ("a", "b")),
    ],
)
def test_a_place_that_is_not_there_is_an_error(document: bytes, path: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="no"):
        with_text(document, path, "new")
