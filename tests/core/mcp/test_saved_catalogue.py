from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialects.catalogue import Catalogue, parse_page
from proxy.core.mcp.saved_catalogue import dump, load, place_of

HERE = place_of("http://127.0.0.1:8000/mcp?key=secret")


def catalogue(*tools: dict[str, Any], **more: Any) -> Catalogue:
    found = parse_page(json.dumps({"tools": tools}).encode()).tools
    return Catalogue({tool.name: tool for tool in found}, **more)


KNOWN = catalogue(
    {
        "name": "slots",
        "annotations": {"readOnlyHint": True},
        "outputSchema": {"type": "object"},
        "inputSchema": {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}},
    },
    {"name": "book", "description": "größe"},
    whole=False,
    instructions='Say "hi".',
)


@pytest.mark.parametrize("known", [KNOWN, catalogue()])
def test_what_is_read_is_what_was_written(known: Catalogue) -> None:
    found = load(dump(known, HERE), HERE)

    assert found == known
    assert found is not None
    assert list(found.tools) == list(known.tools)
    assert found.effects == known.effects


def test_a_catalogue_of_another_place_does_not_count() -> None:
    assert load(dump(KNOWN, HERE), place_of("http://127.0.0.1:8001/mcp")) is None


def test_the_place_does_not_tell_where_it_is() -> None:
    assert b"secret" not in dump(KNOWN, HERE)
    assert place_of("http://a/\udc80") != place_of("http://a/")


@given(st.data())
def test_a_file_that_is_cut_or_altered_never_counts(data: st.DataObject) -> None:
    """A single bit may be what calls a tool read-only."""
    written = dump(KNOWN, HERE)
    at = data.draw(st.integers(0, len(written) - 1))
    bit = data.draw(st.integers(0, 7))
    altered = written[:at] + bytes([written[at] ^ 1 << bit]) + written[at + 1 :]

    for broken in (written[:at], altered):
        with pytest.raises(ValueError):
            load(broken, HERE)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"format":2}', b'{"format":1,"digest":"","said":{}}', b"\xff"]
)
def test_what_was_never_written_here_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        load(document, HERE)
