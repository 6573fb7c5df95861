from __future__ import annotations

import pytest

from backends.base import BackendConfig
from backends.mcp_hearing import error_in, judge_protocol, judged, lost, text_of
from backends.mcp_listing import Listing
from backends.mcp_peer import Peer
from backends.mcp_sessions import Sessions
from backends.mcp_tools import Tools
from proxy.core.dialects.jsonrpc import RpcError
from proxy.core.model import Call, Form, Reply
from proxy.errors import UpstreamFailed
from tests.backends.kit import Stream, json_reply, rpc_error, text_result
from tests.backends.told import Told, answer_of, bodiless, legacy, modern


def tools() -> Tools:
    peer, config = Peer("/mcp", []), BackendConfig("mcp")
    return Tools(config, Listing(peer, Sessions(peer, config)))


async def hear(call: Call, reply: Reply) -> Reply:
    return await judged(call, reply, call.tool or "", tools(), Told())


@pytest.mark.parametrize(
    ("status", "answer", "label"),
    [
        (200, b"{}", "success"),
        (200, RpcError(-32602, ""), "business_no"),
        (404, RpcError(-32601, ""), "business_no"),
        (400, RpcError(-32020, ""), "business_no"),
        (405, RpcError(-32000, ""), "business_no"),
        (406, None, "business_no"),
        (413, None, "business_no"),
        (415, None, "business_no"),
        (404, None, "refused"),
        (405, None, "refused"),
        (401, RpcError(-32000, ""), "refused"),
        (403, None, "refused"),
        (421, None, "refused"),
        (429, RpcError(-32000, ""), "busy"),
        (200, RpcError(-32603, ""), "failed"),
        (503, RpcError(-32000, ""), "failed"),
        (302, None, "redirect"),
    ],
)
def test_where_no_tool_can_run_an_error_is_the_servers_to_tell(
    status: int, answer: bytes | RpcError | None, label: str
) -> None:
    assert judge_protocol(Reply(status), answer).label == label


@pytest.mark.parametrize(
    ("status", "label"),
    [
        (200, None),
        (202, None),
        (400, "business_no"),
        (404, "business_no"),
        (405, "business_no"),
        (406, "business_no"),
        (401, None),
        (403, None),
        (429, None),
        (503, None),
        (302, None),
    ],
)
@pytest.mark.parametrize("form", [Form.STREAM, Form.NOTIFICATION, Form.ANSWER])
async def test_a_no_to_what_wants_no_result_is_the_servers_to_tell(
    form: Form, status: int, label: str | None
) -> None:
    call = legacy("notifications/x", {}, rpc_id=None)
    if form is Form.STREAM:
        call = bodiless(form, None)
    elif form is Form.ANSWER:
        call = legacy("", {})
        call.form = form

    reply = await hear(call, Reply(status))

    assert (reply.verdict.label if reply.verdict is not None else None) == label


async def test_what_streams_or_is_compressed_is_relayed_unjudged() -> None:
    for reply in (
        Reply(200, [(b"content-type", b"text/event-stream")], Stream()),
        Reply(200, [(b"content-type", b"text/event-stream")], b"data: {}\n\n"),
        Reply(200, [], Stream()),
        json_reply(b"\x1f\x8b", headers=[(b"Content-Encoding", b"gzip")]),
    ):
        assert (await hear(modern(), reply)).verdict is None
        assert await error_in(reply, b"1") is None


async def test_an_error_is_found_before_it_is_relayed() -> None:
    assert await error_in(rpc_error(-32600, status=400), b"1") == RpcError(-32600, "no")
    assert await error_in(json_reply(b"words", 400), b"1") is None
    assert await error_in(Reply(404), None) is None
    assert await error_in(json_reply({"id": 1, "result": {}}), b"1") is None


async def test_the_body_keeps_its_bytes_if_the_id_is_right() -> None:
    body = b'{ "jsonrpc":"2.0", "result" : {"content":[], "n": 1.50}, "id":"own-1" }'

    assert (await hear(modern(), json_reply(body))).body == body


@pytest.mark.parametrize("rpc_id", [b"null", b'"server-error"', b"7"])
async def test_a_strange_id_never_reaches_the_caller(rpc_id: bytes) -> None:
    error = b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32602,"message":"no"}}' % rpc_id

    reply = await hear(modern("prompts/get", {}), json_reply(error, 400))

    assert answer_of(reply)["id"] == "own-1"


async def test_an_id_that_a_server_keeps_as_text_is_put_right() -> None:
    call = modern(rpc_id=b"7")
    answer = {"jsonrpc": "2.0", "id": "7", "result": text_result("x")}

    assert answer_of(await hear(call, json_reply(answer)))["id"] == 7


async def test_an_answer_to_somebody_else_is_none() -> None:
    with pytest.raises(UpstreamFailed):
        await hear(modern(), json_reply({"jsonrpc": "2.0", "id": "x", "result": {}}))


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "member", [b'"\xff":0,', b'"x\xc3":"y",', b'"\xed\xa0\x80":[],'], ids=["no", "cut", "half"]
)
async def test_a_name_that_is_no_utf8_makes_an_answer_none(member: bytes, status: int) -> None:
    """Found by fuzzing: only the members that answer had been read, and the backend crashed."""
    result = b'"result":{"content":[]}' if status == 200 else b'"error":{"code":-32602}'
    answer = b'{%b"jsonrpc":"2.0","id":"own-1",%b}' % (member, result)

    with pytest.raises(UpstreamFailed):
        await hear(modern(), json_reply(answer, status))


async def test_an_invitation_to_the_servers_tokens_is_not_passed_on() -> None:
    headers = [(b"WWW-Authenticate", b"Bearer"), (b"Allow", b"POST")]

    reply = await hear(bodiless(Form.STREAM, None), Reply(405, headers))

    assert reply.headers == [(b"Allow", b"POST")]


def test_a_lost_session_is_nobodys_fault_and_nobody_hears_of_it() -> None:
    verdict = lost(Reply(404)).verdict

    assert verdict is not None
    assert not verdict.delivers
    assert not verdict.config_fault
    assert text_of(Reply(404, [], b"x")) == b"x"
    assert text_of(Reply(404, [], Stream())) == b""
