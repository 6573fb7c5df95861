"""What a health page must say."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.expect import Expected, expect_faults

GUIDE = {"status": ["healthy", "ok"], "checks.mcp_tools.status": {"not": "degraded"}}


@pytest.mark.parametrize(
    ("body", "misfit"),
    [
        (b'{"status":"healthy","checks":{"mcp_tools":{"status":"healthy"}}}', ""),
        (b'{"status":"ok"}', ""),
        (b'{"status":"unhealthy"}', "status is not as expected"),
        (b'{"state":"ok"}', "status is not as expected"),
        (b'{"status":"ok","checks":{"mcp_tools":{"status":"degraded"}}}',
         "checks.mcp_tools.status is not as expected"),
        (b"[]", "status is not as expected"),
        (b"OK", "the answer is no JSON"),
        (b"", "the answer is no JSON"),
        (b"null", "the answer is no JSON"),
    ],
)  # fmt: skip
def test_a_page_is_believed_only_if_all_of_it_fits(body: bytes, misfit: str) -> None:
    assert expect_faults(GUIDE) == []
    assert Expected(GUIDE).misfit(body) == misfit


@pytest.mark.parametrize(
    ("expect", "body", "fits"),
    [
        ({"ok": True}, b'{"ok":true}', True),
        ({"ok": True}, b'{"ok":1}', False),
        ({"lag": [0, 1]}, b'{"lag":1}', True),
        ({"any": [{"a": 1}, {"b": 1}]}, b'{"b":1}', True),
        ({"not": {"maintenance": True}}, b'{"maintenance":true}', False),
        ({"queues.0.state": "up"}, b'{"queues":[{"state":"up"}]}', True),
    ],
)
def test_it_speaks_the_language_of_matchers(
    expect: dict[str, Any], body: bytes, fits: bool
) -> None:
    assert expect_faults(expect) == []
    assert (Expected(expect).misfit(body) == "") is fits


@pytest.mark.parametrize(
    ("expect", "at"),
    [({}, ""), ({"status": []}, "status.in"), ({"status": [None]}, "status.in.0"),
     ({"a": {"is": 1}}, "a.is")],
)  # fmt: skip
def test_what_could_never_fit_is_a_fault(expect: dict[str, Any], at: str) -> None:
    assert [place for place, _ in expect_faults(expect)] == [at]
