"""What does a caller hear whose bytes never became a request?"""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.exchange import Exchange
from proxy.core.exchange_headers import headers_for_caller
from proxy.core.model import Kind, Reply
from proxy.core.shedding import CONNECTIONS, RETRY_AFTER
from proxy.errors import Refused
from proxy.line import Line
from proxy.ports import Clock, Watch

FAULTS = {
    400: ("bad_request", "The request is not well-formed."),
    408: ("too_slow", "The request took too long to arrive."),
    414: ("target_too_long", "The request line is too long."),
    431: ("headers_too_large", "The request header is too large."),
    500: ("internal_error", "Something went wrong here."),
    502: ("upstream_failed", "The application gave no answer."),
    503: ("too_many_connections", "Too many are connected; later, please."),
    505: ("http_version", "Only HTTP/1.0 and HTTP/1.1 are spoken."),
}


class WireFaults:
    """Answers in the listener's stead, and accounts for it; `line()` is the one in force."""

    def __init__(
        self, line: Callable[[], Line], watch: Watch, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._line = line
        self._watch = watch
        self._clock = clock
        self._new_id = new_id

    def answer(self, status: int) -> Reply:
        """The answer with this status; its body is bytes, and its connection closes."""
        code, message = FAULTS.get(status, FAULTS[400])
        full = status == 503
        if full:
            self._watch.shed(CONNECTIONS, Kind.OTHER)
        later = RETRY_AFTER if full else None
        x, line = Exchange(self._new_id(), self._clock.now()), self._line()
        refused = Refused(status, code, message, retry_after=later, close=True)
        reply = line.edge.refuse(refused, x.request_id)
        x.outcome, x.code, x.status, x.ended = "refused", code, status, x.started
        if line.expose_headers:
            reply.headers = headers_for_caller(reply.headers, x)
        self._watch.exchange_ended(x)
        return reply
