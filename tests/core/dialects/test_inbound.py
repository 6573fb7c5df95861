from __future__ import annotations

import json

import pytest

from proxy.core.dialects.inbound import no_instructions


@pytest.mark.parametrize(
    ("event", "member"),
    [("call_inbound", "call_inbound"), ("chat_inbound", "chat_inbound"), (None, "call_inbound")],
)
def test_no_instructions_leave_the_caller_to_the_numbers_own_agent(
    event: str | None, member: str
) -> None:
    assert json.loads(no_instructions(event)) == {member: {}}
