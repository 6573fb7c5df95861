from __future__ import annotations

from msgspec import UNSET

from proxy.core.shapes import Params, read_said, read_shape


def test_every_field_that_tells_a_kind_is_read() -> None:
    """One body with all of them; no real one has."""
    shape, _ = read_shape(
        b'{"name":"n","args":{},"event":"e","event_timestamp":1,"method":"m","jsonrpc":"2.0","id":1,'
        b'"tool":"t","arguments":[],"call_id":"top","params":{"name":"p","arguments":{"a":1}},'
        b'"call":{"call_id":"c","start_timestamp":2},"chat":{"chat_id":"h"},'
        b'"call_inbound":{"call_id":"i","from_number":"+1","to_number":"+2"},'
        b'"chat_inbound":{"chat_id":"j"}}'
    )

    assert shape is not None
    assert (shape.name, shape.event, shape.event_timestamp) == ("n", "e", 1)
    assert (shape.method, shape.tool, shape.call_id) == ("m", "t", "top")
    assert UNSET not in (shape.args, shape.jsonrpc, shape.id, shape.arguments)
    assert shape.call is not None
    assert (shape.call.call_id, shape.call.start_timestamp) == ("c", 2)
    assert shape.chat is not None
    assert shape.chat.chat_id == "h"
    assert shape.call_inbound is not None
    assert (shape.call_inbound.call_id, shape.call_inbound.from_number) == ("i", "+1")
    assert shape.call_inbound.to_number == "+2"
    assert shape.chat_inbound is not None
    assert shape.chat_inbound.chat_id == "j"
    assert isinstance(shape.params, Params)
    assert shape.params.name == "p"


def test_an_empty_object_tells_nothing() -> None:
    shape, _ = read_shape(b"{}")

    assert shape is not None
    assert {getattr(shape, name) for name in shape.__struct_fields__} == {None, UNSET}


def test_what_an_answer_says_of_its_success_is_read_whatever_its_type() -> None:
    said = read_said(b'{"success":"no","status_code":503,"jsonrpc":"2.0","error":null,"data":[1]}')

    assert (said.success, said.status_code) == ("no", 503)
    assert (bytes(said.jsonrpc), bytes(said.error)) == (b'"2.0"', b"null")
