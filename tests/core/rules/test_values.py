from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.core.model import Kind
from proxy.core.rules import values

CASES: list[tuple[Any, Any, Any, Any]] = [
    # type, written, becomes, shown
    (values.Duration, "250ms", 0.25, "250ms"),
    (values.DurationOrZero, "0s", 0.0, "0ms"),
    (values.Size, "10MB", 10 * 2**20, "10MB"),
    (values.Percent, "50%", 50.0, 50.0),
    (values.Percent, 12, 12.0, 12.0),
    (values.HeaderName, "X-A", "x-a", "x-a"),
    (values.RuledKind, "event", Kind.EVENT, "event"),
    (values.Url, "http://a/", "http://a/", "http://a/"),
    (values.UrlPath, "/a", "/a", "/a"),
    (values.Name, "a", "a", "a"),
]


@pytest.mark.parametrize(("type_", "written", "becomes", "shown"), CASES)
def test_a_value_is_read_and_shown(type_: Any, written: Any, becomes: Any, shown: Any) -> None:
    adapter = TypeAdapter(type_)
    value = adapter.validate_python(written)

    assert value == becomes
    assert type(value) is type(becomes)
    assert adapter.dump_python(value, mode="json") == shown


def test_addresses_and_networks_are_shown_as_text() -> None:
    cases: list[tuple[Any, str]] = [(values.ListenAddress, "127.0.0.1:1"), (values.Cidr, "::/8")]
    for type_, text in cases:
        adapter = TypeAdapter[Any](type_)
        assert adapter.dump_python(adapter.validate_python(text), mode="json") == text


@pytest.mark.parametrize(
    ("type_", "written"),
    [
        (values.Duration, "0s"),
        (values.Duration, 5),
        (values.Duration, True),
        (values.Duration, None),
        (values.Duration, ["5s"]),
        (values.Duration, {"s": 5}),
        (values.Size, "0B"),
        (values.Size, 10),
        (values.Percent, "50"),
        (values.Percent, True),
        (values.Percent, None),
        (values.Percent, []),
        (values.Percent, float("nan")),
        (values.Count, 0),
    ],
)
def test_a_value_of_the_wrong_sort_is_refused(type_: Any, written: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(type_).validate_python(written)
