"""Which session is a legacy MCP caller in, and is it alive?

`open` reads it off a request, `stamp` puts a new one on the answer to `initialize`; between them,
`begin` and `finish` let no two requests of one session have the same JSON-RPC ID at a time.  Tokens
are checked, not kept, so all that is remembered here is bounded and may be forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import orjson

from proxy.core.dialects.headers import value_of
from proxy.core.dialects.jsonrpc import INVALID_REQUEST
from proxy.core.head import drop
from proxy.core.mcp.session import MAX_AGE_MS, fit, mint, read, version_asked
from proxy.core.model import Call, Era, Form, Kind, Reply, Session
from proxy.errors import Refused
from proxy.ports import Watch

HEADER: Final = b"mcp-session-id"
KNOWN: Final = 4096
"""Tokens whose check is remembered."""

ENDED: Final = 16_384
"""Sessions of which is remembered that their callers ended them."""

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_MCP, _MODERN, _END, _ANSWER = Kind.MCP, Era.MODERN, Form.END, Form.ANSWER
_NOT_THERE: Final = frozenset({404, 405})  # to DELETE: the arm has no such session, or keeps none


class Sessions:
    """The sessions of one process; `use` gives it its keys before the first request.

    `new_id()` gives 32 hex digits.
    """

    def __init__(self, *, watch: Watch, new_id: Callable[[], str]) -> None:
        self._watch = watch
        self._new_id = new_id
        self._keys: tuple[bytes, ...] = ()
        self._known: OrderedDict[tuple[bytes, str], Session] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._asked: dict[tuple[str, object], bytes] = {}  # and with which body

    def use(self, keys: Sequence[bytes]) -> None:
        """Sign with the first of these, and take what any of them has signed."""
        if tuple(keys) != self._keys:
            self._keys = tuple(keys)
            self._known.clear()

    def open(self, call: Call, credential: str, wall_ms: int) -> None:
        """Set `call.session`, a draft for `initialize`; no arm sees the caller's header.

        `credential` is the visit's.  Raises `Refused` 404 for what is no live session of ours and
        of this credential, 400 for a header that stands twice.
        """
        if call.kind is not _MCP:
            return
        head = call.head
        drop(head, HEADER)
        if call.era is _MODERN:  # There are none any more, and the header means nothing.
            return
        if _begins(call):
            call.session = Session(self._new_id(), "", version_asked(call.body), wall_ms)
            return
        token = head.named.get(HEADER)
        if token is None:
            return
        if HEADER in head.repeated:
            raise _refused(call, 400, "rpc_bad_session", "The request names two sessions.")
        session = self._find(token, credential, wall_ms)
        if session is None:
            self._watch.mcp_session("refused")
            raise _refused(
                call, 404, "rpc_session_unknown", "There is no such session: initialize anew."
            )
        call.session = session

    def begin(self, call: Call, *, guarded: bool = False) -> bool:
        """Note that a request of a session is under way; True: `finish` must follow.

        Raises `Refused` 400 if one of the same ID is: the spec forbids it, and servers would leave
        one of them without an answer for ever.  The same request again is let through where it is
        `guarded`, for then it goes no further than to the guard.
        """
        asked = _asked(call)
        if asked is None:
            return False
        body = self._asked.get(asked)
        if body is None:
            self._asked[asked] = call.body
            return True
        if not guarded or body != call.body:
            message = "A request with this id is still under way in this session."
            raise _refused(call, 400, "rpc_id_in_use", message)
        return False

    def finish(self, call: Call) -> None:
        """Its answer has been sent, to the end of a stream; harmless a second time."""
        asked = _asked(call)
        if asked is not None:
            self._asked.pop(asked, None)

    def stamp(
        self,
        call: Call,
        reply: Reply,
        arm: str,
        credential: str,
        *,
        faced: bool = False,
        refused: bool = False,
    ) -> None:
        """Make the answer to an MCP message speak of our sessions alone.

        `arm` is that of the decision, whoever answered; `faced`: the face did, not the arm;
        `refused`: it was an error, whatever its status.  A session begins with a good answer to
        `initialize`, and ends with one to DELETE.
        """
        if call.kind is not _MCP:
            return
        upstream = value_of(reply.headers, HEADER)
        if upstream:
            reply.headers = [field for field in reply.headers if field[0].lower() != HEADER]
        session, status = call.session, reply.status
        if session is None:
            return
        good = 200 <= status < 300
        if session.arm:
            if call.form is _END and (good or status in _NOT_THERE):
                self.end(call)
        elif good and not refused and (upstream or faced or call.id is None):
            self._mint(session, reply, arm, credential, b"" if faced else upstream)

    def end(self, call: Call) -> None:
        """Forget a call's session: its token is none from now on, as far as this process knows."""
        session = call.session
        if session is None or session.id in self._ended:
            return
        self._ended[session.id] = None
        if len(self._ended) > ENDED:
            self._ended.popitem(last=False)
        self._watch.mcp_session("ended")

    def _mint(
        self, draft: Session, reply: Reply, arm: str, credential: str, upstream: bytes
    ) -> None:
        own = upstream.decode("latin-1")
        session = Session(draft.id, arm, draft.version, draft.issued_ms, own if fit(own) else None)
        token = mint(session, credential, self._keys)
        reply.headers = [*reply.headers, (HEADER, token)]
        self._remember(token, credential, session)
        self._watch.mcp_session("opened")

    def _find(self, token: bytes, credential: str, wall_ms: int) -> Session | None:
        """The live session of a token."""
        key = (token, credential)
        session = self._known.get(key)
        if session is not None:
            self._known.move_to_end(key)
        else:
            session = read(token, credential, self._keys, wall_ms)
            if session is None:
                return None
            self._remember(token, credential, session)
        old = wall_ms - session.issued_ms > MAX_AGE_MS
        return None if old or session.id in self._ended else session

    def _remember(self, token: bytes, credential: str, session: Session) -> None:
        self._known[token, credential] = session
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)


def _begins(call: Call) -> bool:
    return call.rpc_method == "initialize" and call.rpc_id is not None


def _asked(call: Call) -> tuple[str, object] | None:
    """By what a request of a session can be confused with another; None: by nothing."""
    session, rpc_id = call.session, call.rpc_id
    if session is None or rpc_id is None or not session.arm or call.form is _ANSWER:
        return None  # The ID of an answer is the server's, who counts on its own.
    try:
        return session.id, orjson.loads(rpc_id)  # "a" and "\u0061" are one ID, 1 and "1" are two.
    except ValueError:  # Half a surrogate pair, or 1e999.
        return session.id, rpc_id


def _refused(call: Call, status: int, code: str, message: str) -> Refused:
    rpc_id = b"" if call.rpc_id is None or call.form is _ANSWER else call.rpc_id
    return Refused(status, code, message, rpc_code=INVALID_REQUEST, rpc_id=rpc_id)
