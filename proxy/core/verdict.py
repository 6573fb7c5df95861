"""How is one attempt at an arm judged: did the tool run, may another arm answer, who is at fault?

The first fitting rule decides.  `ran` errs towards UNKNOWN: only what certainly came before the
tool reads NO, because a NO lets the other arm run it.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Final

from msgspec import DecodeError

from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.dialects.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RpcError,
    ToolResult,
)
from proxy.core.model import Counts, Headers, Ran, Verdict
from proxy.core.retry_after import retry_after
from proxy.core.shapes import read_said
from proxy.errors import UpstreamFailed

SUCCESS: Final = Verdict("success", Ran.YES, Counts.SUCCESS)
BUSINESS_NO: Final = Verdict("business_no", Ran.YES, Counts.SUCCESS)  # the arm works: it said no
REFUSED: Final = Verdict("refused", Ran.NO, Counts.NOTHING, "config", config_fault=True)
BUSY: Final = Verdict("busy", Ran.UNKNOWN, Counts.FAILURE, "status")
FAILED_STATUS: Final = Verdict("failed", Ran.UNKNOWN, Counts.FAILURE, "status")
FAILED_BODY: Final = Verdict("failed", Ran.UNKNOWN, Counts.FAILURE, "body")
REDIRECT: Final = Verdict(
    "redirect", Ran.NO, Counts.NOTHING, "status", config_fault=True, rescuable=False
)
BREAKER_OPEN: Final = Verdict("not_sent", Ran.NO, Counts.NOTHING, "open")
CUT: Final = Verdict("cut", Ran.UNKNOWN, Counts.NOTHING)  # by us: nobody waits for the answer

REFUSALS: Final = frozenset({401, 403, 405, 406, 413, 415, 421, 508})
"""Statuses that come before any tool: credentials, method, media type, size, host, a loop."""

_NOTHING: Final[frozenset[int]] = frozenset()
_PROTOCOL_ERRORS: Final = range(-32029, -32019)  # -3202x: version, headers, capabilities
_AMBIGUOUS: Final = frozenset({INVALID_PARAMS, INTERNAL_ERROR})  # a tool may have begun
_GZIP: Final = b"\x1f\x8b"
_SPACE: Final = b" \t\r\n"
_INFLATED: Final = 262_144


def judge_reply(
    status: int,
    headers: Headers,
    body: bytes | None,
    *,
    not_executed: frozenset[int] = _NOTHING,
    by_rule: BodyVerdicts | None = None,
) -> Verdict:
    """Judge an HTTP answer; `body` is None if it streams.

    `not_executed` holds the statuses that promise: the tool has not run.  `by_rule` is what the
    rules read in the bodies of this arm.
    """
    if not 200 <= status < 300:
        return judge_status(status, headers, not_executed=not_executed)
    return judge_body(body, by_rule) if body else SUCCESS


def judge_status(
    status: int, headers: Headers, *, not_executed: frozenset[int] = _NOTHING
) -> Verdict:
    """Judge an HTTP answer by its head alone."""
    if 200 <= status < 300:
        return SUCCESS
    if 300 <= status < 400:
        return REDIRECT
    if status in REFUSALS:
        return REFUSED
    verdict = _by_class(status, headers)
    return replace(verdict, ran=Ran.NO) if status in not_executed else verdict


def judge_body(body: bytes, by_rule: BodyVerdicts | None = None) -> Verdict:
    """Judge the whole body of a 2xx: it may say that the backend, or the business, failed."""
    if body.startswith(_GZIP):
        body = _inflate(body)
    if by_rule is not None and (verdict := by_rule.of_body(body)) is not None:
        return verdict
    # Skipping through the JSON is as fast as searching it for the words; measured.
    if not body.lstrip(_SPACE).startswith(b"{"):
        return SUCCESS
    try:
        said = read_said(body)
    except (DecodeError, RecursionError, UnicodeDecodeError):
        return SUCCESS  # no JSON object: its text belongs to the caller
    if bytes(said.jsonrpc) and bytes(said.error) not in (b"", b"null"):
        return FAILED_BODY
    if said.success is not False:
        return SUCCESS
    code = said.status_code
    return FAILED_BODY if isinstance(code, int) and code >= 500 else BUSINESS_NO


def judge_rpc(
    status: int,
    headers: Headers,
    answer: ToolResult | RpcError | bytes | None,
    *,
    by_rule: BodyVerdicts | None = None,
) -> Verdict:
    """Judge what an MCP upstream answered.

    `answer` is what was read: a tool's result, another method's result (raw), an error, or None
    for a body without any.  Whether a tool is missing only its backend's catalogue can tell:
    then the verdict is `REFUSED`, without asking here.
    """
    if status in REFUSALS:
        return REFUSED
    if isinstance(answer, RpcError):
        return _judge_error(status, headers, answer.code)
    if 400 <= status < 500 and status != 429 and answer is None:
        return REFUSED  # a lost session, a wrong path, a gateway: nothing that runs tools spoke
    if not 200 <= status < 300:
        return judge_status(status, headers)
    return _judge_result(answer, by_rule) if isinstance(answer, ToolResult) else SUCCESS


def judge_failure(error: UpstreamFailed, *, dispatched: bool) -> Verdict:
    """Judge an attempt that gave no answer; `dispatched`: the leg that can run the tool began."""
    if error.why == "open":
        return BREAKER_OPEN
    ran = Ran.UNKNOWN if error.sent and dispatched else Ran.NO
    label = "failed" if error.sent else "not_sent"
    if error.why == "full":
        return Verdict(label, ran, Counts.NOTHING, "full")
    if error.why == "config":
        return Verdict("refused", ran, Counts.NOTHING, "config", config_fault=True)
    return Verdict(label, ran, Counts.FAILURE, error.why)


LATE = judge_failure(UpstreamFailed("timeout", "it may still answer", sent=True), dispatched=True)
"""That on a write at its deadline; what it answers later is nobody's but the guard's."""


def _judge_result(said: ToolResult, by_rule: BodyVerdicts | None) -> Verdict:
    own = None
    if by_rule is not None:
        own = by_rule.of_result(said.text, said.structured, is_error=said.is_error)
    return own or (BUSINESS_NO if said.is_error else SUCCESS)


def _by_class(status: int, headers: Headers) -> Verdict:
    if status in (429, 503):
        asked, rest = retry_after(headers)
        if asked or status == 429:
            return replace(BUSY, retry_after=rest) if rest is not None else BUSY
    return BUSINESS_NO if 400 <= status < 500 else FAILED_STATUS


def _judge_error(status: int, headers: Headers, code: int) -> Verdict:
    if code in _PROTOCOL_ERRORS or code == METHOD_NOT_FOUND:
        return REFUSED
    if status == 429 or status >= 500:
        return judge_status(status, headers)
    if 400 <= status < 500 and code not in _AMBIGUOUS:
        return REFUSED  # the transport's own no: a session, a version, a message it cannot read
    return FAILED_BODY


def _inflate(body: bytes) -> bytes:
    """As much of a compressed body as is ever judged; b"" if it is broken."""
    try:
        return zlib.decompressobj(wbits=31).decompress(body, _INFLATED)
    except zlib.error:
        return b""
