from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import methods
from mcp_types.jsonrpc import JSONRPCResponse

from proxy.core.dialects import sse
from proxy.core.dialects.kept import Kept, again, keep
from proxy.core.model import Call, Counts, Head, Headers, Kind, Ran, Reply, Verdict

JSON = (b"content-type", b"application/json")
MODERN, LEGACY = b"2026-07-28", b"2025-11-25"
PLAIN_KINDS = [Kind.FUNCTION, Kind.ARGS, Kind.TOOLS]
SLOTS = b'{"slots": ["10:00"], "price": 12.50}'
BOTH = b"application/json, text/event-stream"


def call_of(kind: Kind, **more: Any) -> Call:
    head = Head("POST", "/retell", "", {}, [], b"localhost", "127.0.0.1")
    return Call(kind, head, id="call_1", tool="get_available_slots", **more)


def mcp_call(
    rpc_id: bytes | None = b"7", *, version: bytes | None = MODERN, accept: bytes = BOTH
) -> Call:
    call = call_of(Kind.MCP, rpc_id=rpc_id, rpc_method="tools/call")
    call.head.named[b"accept"] = accept
    if version is not None:
        call.head.named[b"mcp-protocol-version"] = version
    return call


def rpc(result: str, rpc_id: str = "7") -> bytes:
    return f'{{"jsonrpc":"2.0","id":{rpc_id},"result":{result}}}'.encode()


def kept_of(call: Call, reply: Reply) -> Kept:
    kept = keep(call, reply)
    assert kept is not None
    return kept


def kept_rpc(result: str) -> Kept:
    return kept_of(mcp_call(), Reply(200, [JSON], rpc(result)))


def result_in(reply: Reply, rpc_id: object) -> dict[str, Any]:
    assert isinstance(reply.body, bytes)
    message = json.loads(reply.body)
    assert message["id"] == rpc_id
    result: dict[str, Any] = message["result"]
    return result


TEXT = '"content":[{"type":"text","text":"Ten o\'clock."}]'
SAID = "{" + TEXT + "}"


@pytest.mark.parametrize("first", PLAIN_KINDS)
@pytest.mark.parametrize("second", PLAIN_KINDS)
def test_between_functions_and_tools_the_bytes_are_the_same(first: Kind, second: Kind) -> None:
    kept = kept_of(call_of(first), Reply(201, [JSON], SLOTS))

    reply = again(call_of(second), kept)

    assert (reply.status, reply.headers, reply.body) == (201, [JSON], SLOTS)
    assert reply.verdict is not None
    assert reply.verdict.label == "success"


@given(body=st.binary(max_size=200), status=st.sampled_from([200, 204, 404, 422]))
def test_any_bytes_come_back_as_they_were(body: bytes, status: int) -> None:
    kept = kept_of(call_of(Kind.EVENT), Reply(status, [], body))

    reply = again(call_of(Kind.EVENT), kept)

    assert (reply.status, reply.body) == (status, body)


def test_a_legacy_caller_hears_no_structure_that_is_no_object() -> None:
    """Before 2026-07-28 there was none, and a strict client would refuse the whole answer."""
    kept = kept_rpc('{"resultType":"complete","structuredContent":["10:00"],' + TEXT + "}")

    legacy = result_in(again(mcp_call(version=LEGACY), kept), 7)

    assert legacy == json.loads(SAID)
    assert result_in(again(mcp_call(), kept), 7)["structuredContent"] == ["10:00"]


def test_every_answer_has_headers_of_its_own() -> None:
    """What one caller is told besides must not show in the next one's answer."""
    kept = kept_of(call_of(Kind.FUNCTION), Reply(200, [JSON], SLOTS))

    again(call_of(Kind.FUNCTION), kept).headers.append((b"x-callsplit-arm", b"mcp"))

    assert again(call_of(Kind.FUNCTION), kept).headers == [JSON]


@pytest.mark.parametrize(
    "name",
    [
        b"Set-Cookie",
        b"Mcp-Session-Id",
        b"Date",
        b"X-Request-Id",
        b"Content-Length",
        b"Content-Encoding",
        b"Connection",
        b"ETag",
        b"Cache-Control",
        b"X-Customer",
        b"WWW-Authenticate",
    ],
)
def test_headers_of_one_exchange_are_never_kept(name: bytes) -> None:
    value = b"identity" if name == b"Content-Encoding" else b"1"
    headers = [(name, value), (b"Content-Type", b"text/plain"), (b"Content-Language", b"de")]

    kept = kept_of(call_of(Kind.FUNCTION), Reply(200, headers, b"x"))

    assert kept.headers == ((b"content-type", b"text/plain"), (b"content-language", b"de"))


async def stream() -> AsyncIterator[bytes]:
    yield b"x"


def test_a_streamed_answer_cannot_be_kept() -> None:
    assert keep(call_of(Kind.FUNCTION), Reply(200, [], stream())) is None


def test_an_answer_is_kept_up_to_the_limit() -> None:
    call = call_of(Kind.FUNCTION)

    assert keep(call, Reply(200, [], b"x" * 65_536)) is not None
    assert keep(call, Reply(200, [], b"x" * 65_537)) is None
    assert keep(call, Reply(200, [], b"xxxx"), 4) is not None
    assert keep(call, Reply(200, [], b"xxxxx"), 4) is None


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", gzip.compress(SLOTS, mtime=0)),
        (b" GZIP ", gzip.compress(SLOTS, mtime=0)),
        (b"x-gzip", gzip.compress(SLOTS, mtime=0)),
        (b"deflate", zlib.compress(SLOTS)),
        (b"identity", SLOTS),
    ],
)
def test_a_compressed_answer_is_kept_plain(coding: bytes, body: bytes) -> None:
    """Who asks next may not take what the first one took."""
    reply = Reply(200, [JSON, (b"Content-Encoding", coding)], body)

    kept = kept_of(call_of(Kind.FUNCTION), reply)

    assert kept.body == SLOTS
    assert kept.headers == (JSON,)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"br", b"\x8b\x01\x80x\x03"),
        (b"gzip, gzip", gzip.compress(gzip.compress(b"x", mtime=0), mtime=0)),
        (b"gzip", b"no gzip at all"),
        (b"gzip", gzip.compress(SLOTS, mtime=0)[:-9]),
        (b"gzip", gzip.compress(b"x", mtime=0) + b"surplus"),
        (b"gzip", gzip.compress(b"0" * 1_000_000, mtime=0)),
        (b"deflate", b"\xff\xff"),
    ],
    ids=["brotli", "twice", "broken", "cut", "surplus", "bomb", "no deflate"],
)
def test_what_cannot_be_read_plain_is_not_kept(coding: bytes, body: bytes) -> None:
    headers = [(b"content-encoding", coding)]

    assert keep(call_of(Kind.FUNCTION), Reply(200, headers, body)) is None


def test_an_empty_body_is_plain_whatever_it_says() -> None:
    reply = Reply(204, [(b"content-encoding", b"br")])

    assert kept_of(call_of(Kind.EVENT), reply).body == b""


@pytest.mark.parametrize(
    ("status", "body", "label", "no"),
    [
        (200, b"{}", "success", False),
        (200, b'{"success":false}', "business_no", True),
        (422, b"", "business_no", True),
        (500, b"", "failed", False),
    ],
)
def test_an_answer_without_a_verdict_is_judged(
    status: int, body: bytes, label: str, no: bool
) -> None:
    kept = kept_of(call_of(Kind.FUNCTION), Reply(status, [], body))

    assert (kept.label, kept.business_no) == (label, no)


def test_the_nearest_verdict_counts() -> None:
    """The caller's own, then the backend's, then what status and body say."""
    mine = Verdict("cut", Ran.UNKNOWN, Counts.NOTHING)
    backends = Verdict("business_no", Ran.YES, Counts.SUCCESS)
    reply = Reply(200, [], b"{}", verdict=backends)

    own = keep(call_of(Kind.FUNCTION), reply, verdict=mine)

    assert kept_of(call_of(Kind.FUNCTION), reply).label == "business_no"
    assert own is not None
    assert own.label == "cut"
    assert again(call_of(Kind.FUNCTION), own).verdict is None


def test_a_kept_answer_survives_being_written_down() -> None:
    """Records are drained to disk at a stop, and shared between replicas."""
    kept = kept_of(call_of(Kind.FUNCTION), Reply(200, [JSON], b"\xff\x00"))

    assert msgspec.json.decode(msgspec.json.encode(kept), type=Kept) == kept


def test_its_size_counts_body_and_headers() -> None:
    small = kept_of(call_of(Kind.FUNCTION), Reply(200, [], b""))
    large = kept_of(call_of(Kind.FUNCTION), Reply(200, [JSON], b"x" * 100))

    assert large.size - small.size == 100 + len(JSON[0]) + len(JSON[1])


@pytest.mark.parametrize("rpc_id", [b"8", b'"a-1"', b"-1"])
@pytest.mark.parametrize("version", [MODERN, LEGACY, None])
def test_an_mcp_caller_hears_its_own_id(rpc_id: bytes, version: bytes | None) -> None:
    kept = kept_rpc(SAID)

    reply = again(mcp_call(rpc_id, version=version), kept)

    assert reply.status == 200
    assert reply.headers == [JSON]
    assert result_in(reply, json.loads(rpc_id))["content"][0]["text"] == "Ten o'clock."


@pytest.mark.parametrize(
    ("version", "said", "heard"),
    [
        (MODERN, "{%s}", {"resultType"}),
        (MODERN, '{"resultType":"complete",%s}', {"resultType"}),
        (LEGACY, "{%s}", set()),
        (LEGACY, '{"resultType":"complete",%s}', set()),
        (None, '{"resultType":"complete",%s}', set()),
    ],
)
def test_an_mcp_caller_hears_the_result_in_its_era(
    version: bytes | None, said: str, heard: set[str]
) -> None:
    result = result_in(again(mcp_call(version=version), kept_rpc(said % TEXT)), 7)

    assert result.keys() - {"content"} == heard


def test_what_is_no_text_comes_back_too() -> None:
    """From MCP to MCP nothing is rendered: pictures, links and structure stay."""
    said = '{"content":[{"type":"image","data":"aGk=","mimeType":"image/png"}],"x":1.50}'

    reply = again(mcp_call(b"9", version=LEGACY), kept_rpc(said))

    assert reply.body == rpc(said, "9")


def test_an_error_comes_back_under_the_callers_id() -> None:
    error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no"}}'
    kept = kept_of(mcp_call(), Reply(404, [JSON], error))

    reply = again(mcp_call(b"9"), kept)

    assert reply.status == 404
    assert reply.body == error.replace(b"null", b"9")


def test_an_mcp_caller_that_takes_only_events_gets_one() -> None:
    reply = again(mcp_call(b"9", accept=b"text/event-stream"), kept_rpc(SAID))

    assert reply.headers == [(b"content-type", b"text/event-stream")]
    assert isinstance(reply.body, bytes)
    (event,) = sse.Parser().feed(reply.body)
    assert json.loads(event.data)["id"] == 9


@pytest.mark.parametrize("kind", [Kind.MCP, Kind.FUNCTION])
def test_nobody_waits_for_an_answer_to_a_notification(kind: Kind) -> None:
    first = mcp_call() if kind is Kind.MCP else call_of(kind)
    kept = kept_of(first, Reply(200, [JSON], rpc(SAID)))

    assert again(mcp_call(None), kept) == Reply(202, verdict=again(first, kept).verdict)


EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]


def test_of_an_event_stream_the_answer_is_kept() -> None:
    """Progress was for the first caller alone."""
    progress = sse.render(b'{"jsonrpc":"2.0","method":"notifications/progress"}')
    noise = b": ping\n\ndata:\n\ndata: no JSON\n\n"
    body = noise + progress + sse.render(rpc(SAID))

    kept = kept_of(mcp_call(), Reply(200, EVENTS, body))

    assert kept.body == rpc(SAID)
    assert kept.headers == (JSON,)
    assert result_in(again(mcp_call(b"9"), kept), 9)["resultType"] == "complete"


@pytest.mark.parametrize("rpc_id", [b"7", None])
def test_an_event_stream_without_an_answer_is_not_kept(rpc_id: bytes | None) -> None:
    body = sse.render(rpc("{}", "1"))

    assert keep(mcp_call(rpc_id), Reply(200, EVENTS, body)) is None


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        (rpc('{"resultType":"input_required"}'), True),
        (rpc('{"resultType":"input_required",' + TEXT + "}"), True),
        (rpc('{"resultType":"complete",' + TEXT + "}"), False),
        (rpc('{"resultType":null,' + TEXT + "}"), False),
        (rpc('{"task":{"taskId":"1"}}'), True),
        (rpc('{"resultType":5}'), False),
        (rpc('"resultType"'), False),
        (b'{"resultType":"input_required"}', False),
        (rpc(SAID), False),
        (b'{"resultType"', False),
    ],
)
def test_a_tool_that_asks_for_more_has_not_answered(body: bytes, asks: bool) -> None:
    assert kept_of(mcp_call(), Reply(200, [JSON], body)).asks_more is asks


def test_only_mcp_asks_for_more() -> None:
    kept = kept_of(call_of(Kind.FUNCTION), Reply(200, [JSON], rpc("{}")))

    assert kept.asks_more is False


def test_the_arms_word_on_keeping_goes_along() -> None:
    kept = kept_of(call_of(Kind.FUNCTION), Reply(200, [JSON], SLOTS, ttl=1.5, private=True))

    assert (kept.ttl, kept.private) == (1.5, True)


def test_a_question_keeps_its_mark() -> None:
    reply = again(mcp_call(), kept_rpc('{"resultType":"input_required"}'))

    assert result_in(reply, 7) == {"resultType": "input_required"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", rpc("5")])
def test_what_is_no_json_rpc_comes_back_as_it_is(body: bytes) -> None:
    kept = kept_of(mcp_call(), Reply(404, [(b"content-type", b"text/html")], body))

    for caller in (mcp_call(b"9"), call_of(Kind.FUNCTION)):
        reply = again(caller, kept)

        assert (reply.status, reply.body) == (404, body)


@pytest.mark.parametrize("version", [MODERN, LEGACY])
def test_an_mcp_caller_hears_a_function_answer_as_a_result(version: bytes) -> None:
    kept = kept_of(call_of(Kind.FUNCTION), Reply(201, [JSON], SLOTS))

    reply = again(mcp_call(b'"a"', version=version), kept)

    assert reply.status == 200
    assert isinstance(reply.body, bytes)
    JSONRPCResponse.model_validate_json(reply.body, strict=True)
    result = result_in(reply, "a")
    methods.validate_server_result("tools/call", version.decode(), result)
    assert result["content"] == [{"type": "text", "text": SLOTS.decode()}]
    assert result["structuredContent"] == json.loads(SLOTS)
    assert result["isError"] is False


def test_an_mcp_caller_hears_a_no_as_an_error() -> None:
    kept = kept_of(call_of(Kind.FUNCTION), Reply(200, [JSON], b'{"success":false,"message":"no"}'))

    reply = again(mcp_call(), kept)

    assert result_in(reply, 7)["isError"] is True
    assert reply.verdict is not None
    assert reply.verdict.label == "business_no"


def test_a_declared_schema_binds_the_structured_content() -> None:
    schema = {"type": "object", "required": ["result"], "properties": {"result": {}}}
    kept = kept_of(call_of(Kind.TOOLS), Reply(200, [JSON], b"[1]"))

    result = result_in(again(mcp_call(), kept, {**schema, "additionalProperties": False}), 7)

    assert result["structuredContent"] == {"result": "[1]"}


@pytest.mark.parametrize(
    ("kind", "said", "content_type", "body"),
    [
        (Kind.FUNCTION, SAID, b"text/plain; charset=utf-8", b"Ten o'clock."),
        (
            Kind.ARGS,
            '{"content":[{"type":"text","text":"{\\"a\\":1.50}"}]}',
            b"application/json",
            b'{"a":1.50}',
        ),
        (
            Kind.TOOLS,
            '{"content":[{"type":"text","text":"Taken."}],"isError":true}',
            b"application/json",
            b'{"success":false,"error":"Taken.","status_code":400}',
        ),
    ],
)
def test_other_callers_hear_an_mcp_answer_unwrapped(
    kind: Kind, said: str, content_type: bytes, body: bytes
) -> None:
    kept = kept_of(mcp_call(), Reply(202, [JSON, (b"content-language", b"en")], rpc(said)))

    reply = again(call_of(kind), kept)

    assert (reply.status, reply.headers) == (200, [(b"content-type", content_type)])
    assert reply.body == body


def test_other_callers_hear_nothing_of_a_protocol_error() -> None:
    error = b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"internal words"}}'
    kept = kept_of(mcp_call(), Reply(400, [JSON], error))

    reply = again(call_of(Kind.FUNCTION), kept)

    assert reply.status == 400
    assert reply.body == b'{"success":false,"message":"The backend failed."}'


@given(
    text=st.text(max_size=50),
    no=st.booleans(),
    first=st.sampled_from(PLAIN_KINDS),
    second=st.sampled_from([*PLAIN_KINDS, Kind.MCP]),
)
def test_every_language_hears_the_same_verdict(
    text: str, no: bool, first: Kind, second: Kind
) -> None:
    body = json.dumps({"success": not no, "message": text}).encode()
    kept = kept_of(call_of(first), Reply(200, [JSON], body))

    reply = again(mcp_call() if second is Kind.MCP else call_of(second), kept)

    assert reply.verdict is not None
    assert reply.verdict.label == ("business_no" if no else "success")
    if second is Kind.MCP:
        assert result_in(reply, 7)["isError"] is no
