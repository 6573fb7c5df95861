from __future__ import annotations

import pytest
from msgspec import UNSET, Raw

from proxy.core.tool_call import MAX_TOOL, arguments_of, checked, is_tool, tool_of
from proxy.errors import Refused


@pytest.mark.parametrize("name", ["book", "...", "a/b", "x" * MAX_TOOL, "ä"])
def test_a_tool_may_have_any_short_name(name: str) -> None:
    assert tool_of(name) == name
    assert is_tool(name)


@pytest.mark.parametrize("name", [".", "..", "x" * (MAX_TOOL + 1)])
def test_a_way_up_is_no_tool(name: str) -> None:
    assert not is_tool(name)
    with pytest.raises(Refused) as refused:
        tool_of(name)
    assert (refused.value.status, refused.value.code) == (400, "bad_tool")


def test_arguments_stay_as_they_were_written() -> None:
    assert arguments_of(Raw(b'{"a": 1.0}')) == b'{"a": 1.0}'
    assert arguments_of(Raw(b"null")) == b"{}"
    assert arguments_of(UNSET) == b"{}"


def test_what_is_no_utf_8_is_no_json() -> None:
    assert checked("ü".encode()) == "ü".encode()
    with pytest.raises(ValueError, match="utf-8"):
        arguments_of(Raw(b'"\xff"'))
