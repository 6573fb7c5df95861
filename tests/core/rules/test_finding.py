from __future__ import annotations

from proxy.core.rules.finding import Finding, of_when


def test_a_path_is_said_with_dots() -> None:
    assert Finding(("auth", "tokens", 0), "x").dotted == "auth.tokens.0"
    assert Finding((), "x").dotted == ""


def test_a_fault_below_a_when_names_its_key_or_its_item() -> None:
    path = ("split", "overrides", 0, "when")

    assert of_when(path, "", "is empty") == Finding(path, "`when` is empty")
    assert of_when(path, "", "is empty", what="expect").message == "`expect` is empty"
    assert of_when(path, "a.in.0", "must be text; add quotes") == Finding(
        (*path, "a.in.0"), "item 1: must be text", "add quotes"
    )
    assert of_when(path, "agent", "is no field").at_key
    assert of_when(path, "a..b", "is no path: ...").message == "'a..b' is no path: ..."
