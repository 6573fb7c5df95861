"""What the rules read in an answer."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.verdict import BUSINESS_NO, FAILED_BODY

RULES = BodyVerdicts(
    [
        ({"error.code": {"in": ["SLOT_TAKEN", "CLOSED"]}}, BUSINESS_NO),
        ({"error": {"exists": True}}, FAILED_BODY),
        ({"Header.X": "odd"}, FAILED_BODY),
        ({"any": [{"status": "down"}, {"items.0.ok": False}]}, FAILED_BODY),
        ({"not": {"status": {"exists": True}}, "empty": True}, FAILED_BODY),
    ]
)


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (b'{"error": {"code": "SLOT_TAKEN"}}', BUSINESS_NO),
        (b'{"error": {"code": "OTHER"}}', FAILED_BODY),
        (b'{"error": null}', None),
        (b'{"status": "down"}', FAILED_BODY),
        (b'{"status": "up"}', None),
        (b'{"items": [{"ok": false}]}', FAILED_BODY),
        (b'{"Header": {"X": "odd"}}', FAILED_BODY),
        (b'{"header": {"x": "odd"}}', None),
        (b'{"empty": true}', FAILED_BODY),
        (b"[]", None),
        (b"null", None),
        (b"no JSON", None),
        (b"", None),
        (b"[" * 5000, None),
    ],
)
def test_the_first_condition_that_holds_decides(body: bytes, verdict: Any) -> None:
    assert RULES.of_body(body) is verdict


RESULTS = BodyVerdicts(
    [
        ({"status": "error"}, FAILED_BODY),
        ({"isError": True, "text": {"prefix": "Error executing tool"}}, FAILED_BODY),
        ({"isError": True, "text": {"prefix": "maybe"}}, BUSINESS_NO),
    ]
)


@pytest.mark.parametrize(
    ("text", "structured", "is_error", "verdict"),
    [
        ("whatever", b'{"status":"error"}', False, FAILED_BODY),
        ('{"status":"error"}', b"", False, FAILED_BODY),
        ('{"status":"error"}', b'{"status":"ok"}', False, None),
        ("Error executing tool book: connection refused", b"", True, FAILED_BODY),
        ("Error executing tool book: connection refused", b"", False, None),
        ("maybe later", b"", True, BUSINESS_NO),
        ("Hello", b'{"isError":true,"text":"maybe"}', False, BUSINESS_NO),
        ("[1]", b"", False, None),
        ("lone \ud800 half", b"", False, None),
    ],
)
def test_a_tools_result_is_what_it_says_not_how_it_is_wrapped(
    text: str, structured: bytes, is_error: bool, verdict: Any
) -> None:
    assert RESULTS.of_result(text, structured, is_error=is_error) is verdict
