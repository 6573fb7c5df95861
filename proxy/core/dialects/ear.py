"""What does a tool answer in a stream of events that is read by, or for, somebody else?"""

from __future__ import annotations

from msgspec import Raw

from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.dialects import jsonrpc, sse
from proxy.core.dialects.members import document_of, members_of
from proxy.core.model import Verdict
from proxy.core.verdict import FAILED_BODY, judge_rpc


class Answered:
    """Whether a stream of events has come to the answer to request `rpc_id` (raw JSON).

    `lost`: an event is larger than any that is read, so nobody can tell.  `asks`: the server waits
    for its client, having asked it something last.  `mended`: what the last chunk made whole, where
    the answer in it stood under another ID than the request's; servers refuse with null.
    """

    __slots__ = ("_parser", "_rpc_id", "asks", "lost", "mended", "yes")

    def __init__(self, rpc_id: bytes) -> None:
        self.yes = self.lost = self.asks = False
        self.mended = b""
        self._rpc_id = rpc_id
        self._parser = sse.Parser()

    @property
    def numbered(self) -> bool:
        """An event had an ID: its reader can come back for what follows."""
        return self._parser.numbered

    def feed(self, chunk: bytes) -> bool:
        """Listen to what came; whether that made an event whole."""
        if self.lost:
            return True
        try:
            events = self._parser.feed(chunk)
        except ValueError:
            self.lost = self.yes = True
            return True
        self.mended = b""
        for at, event in enumerate(events):
            if not self.yes and event.name == b"message" and event.data:
                self._hear(event.data, at, events)
        return bool(events)

    def _hear(self, message: bytes, at: int, events: list[sse.Event]) -> None:
        try:
            self.yes = jsonrpc.parse_answer(message, self._rpc_id) is not None
            members = members_of(message)
        except ValueError:
            return  # No JSON-RPC: its reader passes it over as well.
        self.asks = not self.yes and "method" in members and "id" in members
        if self.yes and bytes(members.get("id", b"")) != self._rpc_id:
            members["id"] = Raw(self._rpc_id)
            events[at] = sse.Event(b"message", document_of(members))
            self.mended = b"".join(sse.render(each.data, each.name) for each in events)


class Ear:
    """Listens for the answer to a `tools/call`; `rpc_id` is the caller's own, raw JSON.

    `message` is the JSON-RPC message that answers, None as long as it has not come.  `verdict` is
    that on it; the tool may have run as long as nobody has said so.
    """

    __slots__ = ("_by_rule", "_parser", "_rpc_id", "message", "numbered", "verdict")

    def __init__(self, rpc_id: bytes, by_rule: BodyVerdicts | None = None) -> None:
        self.message: bytes | None = None
        self.verdict: Verdict = FAILED_BODY
        self.numbered = False  # an event had an ID: its reader can come back for what follows
        self._rpc_id = rpc_id
        self._by_rule = by_rule
        self._parser: sse.Parser | None = sse.Parser()

    def feed(self, chunk: bytes) -> bool:
        """Listen to what came; whether nothing more is to be learned."""
        if self._parser is None:
            return True
        try:
            for event in self._parser.feed(chunk):
                self._hear(event)
            self.numbered = self._parser.numbered
        except ValueError:  # no answer of any server is so large
            self._parser = None
        if self.message is not None:
            self._parser = None
        return self._parser is None

    def _hear(self, event: sse.Event) -> None:
        if self.message is not None or event.name != b"message" or not event.data:
            return
        try:
            answer = jsonrpc.parse_tool_answer(event.data, self._rpc_id, complete=False)
        except ValueError:
            return  # No JSON-RPC: its reader passes it over as well.
        if answer is not None:
            self.message = event.data
            self.verdict = judge_rpc(200, [], answer, by_rule=self._by_rule)
