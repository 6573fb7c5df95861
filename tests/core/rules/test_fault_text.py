from __future__ import annotations

from proxy.core.rules.fault_text import fault_text, headline
from proxy.errors import Fault

FAULT = Fault(
    "unknown key 'timeuot'",
    path="backends.mcp.timeuot",
    file="rules/rules.yaml",
    line=27,
    column=5,
    source="    timeuot: 2s",
    hint="did you mean 'timeout'?",
)


def test_a_fault_shows_where_what_the_line_and_the_way_out() -> None:
    assert fault_text(FAULT).splitlines() == [
        "rules/rules.yaml:27:5: backends.mcp.timeuot: unknown key 'timeuot'",
        "        timeuot: 2s",
        "        ^",
        "    did you mean 'timeout'?",
    ]


def test_the_headline_holds_no_source() -> None:
    assert headline(FAULT) == "rules/rules.yaml:27:5: backends.mcp.timeuot: unknown key 'timeuot'"


def test_what_is_not_known_is_left_out() -> None:
    assert fault_text(Fault("is empty", file="r.yaml")) == "r.yaml: is empty"
    assert fault_text(Fault("MCP_X is set")) == "MCP_X is set"


def test_the_caret_stands_below_the_column_after_tabs_too() -> None:
    lines = fault_text(Fault("x", file="f", line=1, column=3, source="\t\tkey: 1")).splitlines()

    assert lines[2] == "    \t\t^"


def test_a_long_line_is_shown_around_the_column() -> None:
    source = "a" * 500 + "HERE" + "b" * 500
    shown, caret = fault_text(Fault("x", line=1, column=501, source=source)).splitlines()[1:3]

    assert len(shown) <= 104
    assert shown[len(caret) - 1 :].startswith("HERE")


def test_a_column_past_the_lines_end_is_no_trouble() -> None:
    caret = fault_text(Fault("x", line=1, column=99, source="ab")).splitlines()[2]

    assert caret == "      ^"
