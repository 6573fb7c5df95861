from __future__ import annotations

from proxy.core.rules.finding import Finding


def test_a_path_is_said_with_dots() -> None:
    assert Finding(("auth", "tokens", 0), "x").dotted == "auth.tokens.0"
    assert Finding((), "x").dotted == ""
