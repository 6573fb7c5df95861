"""Every row of the table of failures."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.dialects.jsonrpc import RpcError, ToolResult
from proxy.core.model import Counts, Headers, Ran, Verdict
from proxy.core.verdict import (
    BREAKER_OPEN,
    BUSINESS_NO,
    BUSY,
    CUT,
    FAILED_BODY,
    FAILED_STATUS,
    REDIRECT,
    REFUSED,
    SUCCESS,
    judge_body,
    judge_failure,
    judge_reply,
    judge_rpc,
    judge_status,
)
from proxy.errors import UpstreamFailed

RETRY: Headers = [(b"retry-after", b"30")]
ANSWERS = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.builds(RpcError, st.integers(-32800, -31900), st.just("x")),
    st.builds(ToolResult, st.just("Unknown tool: x"), is_error=st.booleans()),
)


# HTTP answers.


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (200, [], SUCCESS),
        (204, RETRY, SUCCESS),
        (301, [], REDIRECT),
        (304, [], REDIRECT),
        (399, [], REDIRECT),
        (401, [], REFUSED),
        (508, [], REFUSED),
        (403, [], REFUSED),
        (405, [], REFUSED),
        (406, [], REFUSED),
        (413, RETRY, REFUSED),
        (415, [], REFUSED),
        (421, [], REFUSED),
        (400, [], BUSINESS_NO),
        (404, [], BUSINESS_NO),
        (409, [], BUSINESS_NO),
        (422, RETRY, BUSINESS_NO),
        (429, [], BUSY),
        (429, RETRY, Verdict("busy", Ran.UNKNOWN, Counts.FAILURE, "status", retry_after=30.0)),
        (503, RETRY, Verdict("busy", Ran.UNKNOWN, Counts.FAILURE, "status", retry_after=30.0)),
        (503, [(b"retry-after", b"soon")], BUSY),
        (503, [], FAILED_STATUS),
        (500, RETRY, FAILED_STATUS),
        (502, [], FAILED_STATUS),
        (599, [], FAILED_STATUS),
        (999, [], FAILED_STATUS),
        (100, [], FAILED_STATUS),
    ],
)
def test_a_status_is_judged(status: int, headers: Headers, expected: Verdict) -> None:
    assert judge_status(status, headers) == expected
    assert judge_reply(status, headers, b"") == expected
    assert judge_reply(status, headers, None) == expected
    assert judge_rpc(status, headers, None) == (REFUSED if expected is BUSINESS_NO else expected), (
        "from an MCP upstream any 4xx without a JSON-RPC answer came before dispatch"
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", SUCCESS),
        (b'{"success":true,"data":{"refunded":false}}', SUCCESS),
        (b'{"success":false,"error":"taken","status_code":404}', BUSINESS_NO),
        (b'{"success":false,"error":"taken"}', BUSINESS_NO),
        (b'{"success":false,"status_code":null}', BUSINESS_NO),
        (b'{"success":false,"status_code":"500"}', BUSINESS_NO),
        (b'{"success":false,"status_code":499}', BUSINESS_NO),
        (b'{"success":false,"status_code":500}', FAILED_BODY),
        (b' { "status_code" : 503 , "success" : false } ', FAILED_BODY),
        (b'{"success":true,"status_code":500,"x":false}', SUCCESS),
        (b'{"success":0,"status_code":500,"x":false}', SUCCESS),
        (b'{"data":{"success":false,"status_code":500}}', SUCCESS),
        (b'{"status_code":500}', SUCCESS),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}', FAILED_BODY),
        (b'{"jsonrpc":"2.0","id":1,"result":{"error":"x"}}', SUCCESS),
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":null}', SUCCESS),
        (b'{"error":"about \\"jsonrpc\\"","note":"jsonrpc"}', SUCCESS),
        (b'{"error":{"jsonrpc":"2.0"}}', SUCCESS),
        (b'[{"success":false,"status_code":500}]', SUCCESS),
        (b'"success": false', SUCCESS),
        (b'{"success":false,"status_code":500', SUCCESS),
        (b'{"success":false,"status_code":500,"x":"\xff"}', FAILED_BODY),
        (b'{"x":"\\ud800","success":false}', SUCCESS),
        (b'{"success":false,"status_code":' + b"[" * 100_000, SUCCESS),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_good_status_can_carry_a_bad_body(body: bytes, expected: Verdict) -> None:
    assert judge_reply(200, [], body) == expected
    assert judge_reply(201, [], body) == expected


def test_a_body_speaks_only_for_a_good_status() -> None:
    assert judge_reply(422, [], b'{"success":false,"status_code":500}') is BUSINESS_NO
    assert judge_reply(500, [], b'{"success":false,"status_code":404}') is FAILED_STATUS


def test_a_compressed_body_is_judged_too() -> None:
    assert judge_body(gzip.compress(b'{"success":false,"status_code":500}')) is FAILED_BODY
    assert judge_body(gzip.compress(b'{"success":true}')) is SUCCESS


def test_a_body_that_only_looks_compressed_is_the_callers() -> None:
    assert judge_body(b"\x1f\x8bno gzip") is SUCCESS


def test_a_compression_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b'{"x":"' + b" " * 50_000_000 + b'","success":false}')

    assert judge_body(bomb) is SUCCESS


@given(st.binary() | st.text().map(lambda text: f'{{"success":false,{text}'.encode()))
def test_no_body_breaks_the_judge(body: bytes) -> None:
    assert judge_body(body) in (SUCCESS, BUSINESS_NO, FAILED_BODY)


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_a_backend_may_promise_that_a_status_comes_before_the_tool(status: int) -> None:
    promised = judge_reply(status, RETRY, b"", not_executed=frozenset({status}))
    plain = judge_reply(status, RETRY, b"")

    assert promised.ran is Ran.NO
    assert (promised.label, promised.counts, promised.why, promised.retry_after) == (
        plain.label,
        plain.counts,
        plain.why,
        plain.retry_after,
    )


def test_a_redirect_is_neither_delivered_nor_rescued() -> None:
    assert not REDIRECT.delivers
    assert not REDIRECT.rescuable
    assert REDIRECT.config_fault
    assert REDIRECT.counts is Counts.NOTHING


def test_a_business_no_is_delivered_and_shows_that_the_arm_works() -> None:
    assert BUSINESS_NO.delivers
    assert BUSINESS_NO.counts is Counts.SUCCESS


# MCP answers.


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (200, -32601, REFUSED),
        (404, -32601, REFUSED),
        (400, -32020, REFUSED),
        (200, -32022, REFUSED),
        (200, -32029, REFUSED),
        (200, -32030, FAILED_BODY),
        (200, -32019, FAILED_BODY),
        (200, -32602, FAILED_BODY),
        (400, -32602, FAILED_BODY),
        (200, -32603, FAILED_BODY),
        (400, -32603, FAILED_BODY),
        (500, -32603, FAILED_STATUS),
        (200, -32000, FAILED_BODY),
        (200, 42, FAILED_BODY),
        (404, -32600, REFUSED),
        (404, -32001, REFUSED),
        (400, -32000, REFUSED),
        (401, -32603, REFUSED),
        (508, -32603, REFUSED),
        (429, -32000, BUSY),
        (503, -32000, FAILED_STATUS),
    ],
)
def test_an_rpc_error_is_judged(status: int, code: int, expected: Verdict) -> None:
    assert judge_rpc(status, [], RpcError(code, "x")) == expected


def test_a_busy_server_that_speaks_json_rpc_is_still_busy() -> None:
    verdict = judge_rpc(503, RETRY, RpcError(-32000, "too many sessions"))

    assert (verdict.label, verdict.retry_after) == ("busy", 30.0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ToolResult("done"), SUCCESS),
        (b'{"tools":[]}', SUCCESS),
        (ToolResult("no slot", is_error=True), BUSINESS_NO),
        (ToolResult("Unknown tool: book", is_error=True), BUSINESS_NO),
    ],
)
def test_a_result_is_judged(answer: ToolResult | bytes, expected: Verdict) -> None:
    assert judge_rpc(200, [], answer) is expected


def test_a_notification_that_was_taken_is_a_success() -> None:
    assert judge_rpc(202, [], None) is SUCCESS


def test_a_result_under_a_failed_status_is_a_failure() -> None:
    assert judge_rpc(500, [], ToolResult("done")) is FAILED_STATUS


@given(st.integers(100, 999), ANSWERS)
def test_nothing_that_is_delivered_may_also_be_rescued(
    status: int, answer: ToolResult | RpcError | bytes | None
) -> None:
    verdict = judge_rpc(status, RETRY, answer)

    assert verdict.delivers is (verdict.label in ("success", "business_no"))
    if verdict.counts is Counts.FAILURE:
        assert not verdict.config_fault
        assert verdict.ran is not Ran.YES


# What the rules read.

BY_RULE = BodyVerdicts(
    [
        ({"error.code": "SLOT_TAKEN"}, BUSINESS_NO),
        ({"error": {"exists": True}}, FAILED_BODY),
        ({"isError": True, "text": {"prefix": "Traceback"}}, FAILED_BODY),
    ]
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"code":"SLOT_TAKEN"}}', BUSINESS_NO),
        (b'{"error":{"code":"SLOT_TAKEN"},"success":false,"status_code":500}', BUSINESS_NO),
        (b'{"error":{"code":"E2"},"success":true}', FAILED_BODY),
        (b'{"success":false,"status_code":500}', FAILED_BODY),
        (b'{"success":false}', BUSINESS_NO),
        (b"{}", SUCCESS),
    ],
)
def test_the_rules_outrank_what_we_know_to_read(body: bytes, expected: Verdict) -> None:
    assert judge_reply(200, [], body, by_rule=BY_RULE) is expected
    assert judge_reply(200, [], gzip.compress(body), by_rule=BY_RULE) is expected


def test_the_rules_read_no_body_under_a_failed_status() -> None:
    body = b'{"error":{"code":"SLOT_TAKEN"}}'

    assert judge_reply(500, [], body, by_rule=BY_RULE) is FAILED_STATUS


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (ToolResult("Traceback ...", is_error=True), FAILED_BODY),
        (ToolResult("Taken.", is_error=True), BUSINESS_NO),
        (ToolResult("", b'{"error":{"code":"SLOT_TAKEN"}}'), BUSINESS_NO),
        (ToolResult('{"error":1}'), FAILED_BODY),
        (ToolResult("fine"), SUCCESS),
    ],
)
def test_the_rules_read_a_tools_result(said: ToolResult, expected: Verdict) -> None:
    assert judge_rpc(200, [], said, by_rule=BY_RULE) is expected


# No answer.


@pytest.mark.parametrize(
    ("why", "sent", "dispatched", "expected"),
    [
        ("open", False, False, BREAKER_OPEN),
        ("full", False, True, Verdict("not_sent", Ran.NO, Counts.NOTHING, "full")),
        ("connect", False, True, Verdict("not_sent", Ran.NO, Counts.FAILURE, "connect")),
        ("timeout", False, True, Verdict("not_sent", Ran.NO, Counts.FAILURE, "timeout")),
        ("timeout", True, True, Verdict("failed", Ran.UNKNOWN, Counts.FAILURE, "timeout")),
        ("timeout", True, False, Verdict("failed", Ran.NO, Counts.FAILURE, "timeout")),
        ("reset", True, True, Verdict("failed", Ran.UNKNOWN, Counts.FAILURE, "reset")),
        ("reset", True, False, Verdict("failed", Ran.NO, Counts.FAILURE, "reset")),
        ("body", True, True, FAILED_BODY),
        ("status", True, True, FAILED_STATUS),
        ("config", False, True, REFUSED),
        (
            "config",
            True,
            True,
            Verdict("refused", Ran.UNKNOWN, Counts.NOTHING, "config", config_fault=True),
        ),
    ],
)
def test_a_failure_is_judged(why: str, sent: bool, dispatched: bool, expected: Verdict) -> None:
    error = UpstreamFailed(why, "x", sent=sent)

    assert judge_failure(error, dispatched=dispatched) == expected


def test_an_attempt_that_we_cut_counts_nothing_and_may_have_run() -> None:
    assert (CUT.ran, CUT.counts) == (Ran.UNKNOWN, Counts.NOTHING)
