"""Every error of callsplit, in one tree: what failed, and what may follow from it."""

from __future__ import annotations

from dataclasses import dataclass


class CallsplitError(Exception):
    """The root; never raised itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in a rules file.  `line` and `column` count from 1; 0 = no place."""

    message: str
    path: str = ""  # dotted, as `backends.mcp.timeout`
    file: str = ""
    line: int = 0
    column: int = 0
    source: str = ""  # the source line, without its end
    hint: str = ""  # the way out, or "did you mean ..."


class RulesError(CallsplitError):
    """A rules file cannot be used; every fault is listed at once."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(f"{len(faults)} fault(s) in the rules")
        self.faults = faults


class SettingsError(CallsplitError):
    """The environment, an env file or a secret reference cannot be used."""


class Refused(CallsplitError):
    """The edge turns a request away; nothing has reached an arm.

    `code` is stable and machine-readable; `message` never echoes input.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: int | None = None,
        close: bool = False,
        allow: str = "",
        challenge: str = "",
        rpc_code: int = 0,
        rpc_id: bytes = b"",
        data: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.close = close  # the request's framing or body is in doubt: drop the connection
        self.allow = allow  # the Allow header of a 405
        # For an MCP caller: the JSON-RPC error's code (0: that of a bad request), the raw JSON of
        # the request's own ID (b"": not known), and the error's `data` (raw JSON).
        self.rpc_code = rpc_code
        self.rpc_id = rpc_id
        self.data = data
        self.challenge = challenge  # the WWW-Authenticate header of a 401


class UpstreamFailed(CallsplitError):
    """An arm gave no usable answer.

    `why` is the suffix of a rescue reason (`connect`, `timeout`, `reset`, `full`, `status`, `body`,
    `config`, `open`).  `sent` is False only if it is certain that no byte of the
    request left this process towards a peer that could act on it; True reads "unknown".
    """

    def __init__(self, why: str, detail: str, *, sent: bool) -> None:
        super().__init__(f"{why}: {detail}")
        self.why = why
        self.detail = detail
        self.sent = sent


class ProbeFailed(CallsplitError):
    """A synthetic probe says that an arm is not well."""


class StoreFailed(CallsplitError):
    """What should outlive this process could not be kept, or could not be read."""


class ClientGone(CallsplitError):
    """The caller hung up before its answer was written."""
