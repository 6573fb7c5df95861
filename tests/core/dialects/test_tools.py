from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.dialects import tools


@pytest.mark.parametrize(
    ("arguments", "call_id", "expected"),
    [
        (
            b'{"date":"2026-01-02"}',
            "call_1",
            {"arguments": {"date": "2026-01-02"}, "call_id": "call_1"},
        ),
        (None, "call_1", {"arguments": {}, "call_id": "call_1"}),
        (b"{}", None, {"arguments": {}}),
    ],
)
def test_a_request_is_composed_in_the_guides_form(
    arguments: bytes | None, call_id: str | None, expected: dict[str, Any]
) -> None:
    body = tools.compose('get "slots"', arguments, call_id)

    assert json.loads(body) == {"tool": 'get "slots"', **expected}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('{"slots":["10:00"]}', {"success": True, "data": {"slots": ["10:00"]}}),
        ("booked for ten", {"success": True, "data": "booked for ten"}),
        ("", {"success": True, "data": ""}),
        ("[1]", {"success": True, "data": [1]}),
        ('{"success":"maybe"}', {"success": True, "data": {"success": "maybe"}}),
        ('{"success":false,"error":"taken","status_code":409}',) * 2,
        ('{"success":true,"data":{"x":1}}',) * 2,
        ("[" * 3000, {"success": True, "data": "[" * 3000}),
    ],
)
def test_what_a_tool_said_is_told_in_the_guides_form(said: str, expected: Any) -> None:
    wanted = json.loads(expected) if isinstance(expected, str) else expected

    assert json.loads(tools.render(said)) == wanted


def test_a_failure_carries_its_own_status() -> None:
    assert json.loads(tools.failure("Sorry.", tools.UNAVAILABLE)) == {
        "success": False,
        "error": "Sorry.",
        "status_code": 503,
    }
