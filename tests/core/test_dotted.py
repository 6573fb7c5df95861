from __future__ import annotations

import pytest

from proxy.core.dotted import below

VALUE = {
    "status": "ok",
    "error": {"code": 7, "null": None},
    "a.b": {"c": 1},
    "a": {"b": 2},
    "items": [{"id": "x"}, [3, 4]],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", VALUE),
        ("status", "ok"),
        ("error.code", 7),
        ("error.null", None),
        ("error.code.deeper", None),
        ("status.0", None),
        ("absent", None),
        ("absent.deeper", None),
        ("a.b", {"c": 1}),
        ("a.b.c", None),
        ("items.0.id", "x"),
        ("items.1.1", 4),
        ("items.2", None),
        ("items.-1", None),
        ("items.x", None),
        ("items.²", None),
        ("items." + "9" * 5000, None),
    ],
)
def test_a_path_leads_to_a_value_or_to_none(path: str, found: object) -> None:
    assert below(VALUE, path) == found
