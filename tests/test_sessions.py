from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from proxy import sessions as module
from proxy.core.addresses import NOWHERE
from proxy.core.head import read_head
from proxy.core.mcp.session import MAX_AGE_MS, MAX_UPSTREAM, mint, read
from proxy.core.model import Call, Era, Form, Headers, Kind, Reply, Session
from proxy.errors import Refused
from proxy.sessions import HEADER, KNOWN, Sessions
from tests.fakes import FakeWatch
from tests.interpreter import interpreted_only

NOW = 1_767_225_600_000
KEY, WHO = b"k" * 32, "token_8d1c62a6b0a4e3f1"
UPSTREAM = "3f2c9e1d" * 4
MINE = Session("0123456789abcdef" * 2, "mcp", "2025-06-18", NOW, UPSTREAM)


class Desk:
    """The sessions of one process."""

    def __init__(self, *keys: bytes) -> None:
        self.watch = FakeWatch()
        numbers = count(1)
        self.sessions = Sessions(watch=self.watch, new_id=lambda: f"{next(numbers):032x}")
        self.sessions.use(keys or (KEY,))

    @property
    def told(self) -> list[object]:
        return [value for what, value in self.watch.told if what == "mcp_session"]

    def open(self, call: Call, credential: str = WHO, wall_ms: int = NOW) -> Session | None:
        self.sessions.open(call, credential, wall_ms)
        return call.session

    def refusal(self, call: Call, credential: str = WHO, wall_ms: int = NOW) -> Refused:
        with pytest.raises(Refused) as refused:
            self.sessions.open(call, credential, wall_ms)
        assert call.session is None
        return refused.value

    def stamp(self, call: Call, reply: Reply, arm: str = "mcp", *, faced: bool = False) -> Reply:
        self.sessions.stamp(call, reply, arm, WHO, faced=faced)
        return reply

    def opened(self, arm: str = "mcp", upstream: str | None = UPSTREAM) -> bytes:
        """The token of a new session."""
        call = message("initialize")
        self.open(call)
        reply = self.stamp(call, answer(upstream), arm, faced=upstream is None)
        [token] = ids(reply)
        return token


def message(
    method: str | None = "tools/list",
    *tokens: bytes,
    call_id: str | None = None,
    rpc_id: bytes | None = b"1",
    era: Era = Era.LEGACY,
    form: Form = Form.REQUEST,
    kind: Kind = Kind.MCP,
    name: bytes = b"Mcp-Session-Id",
    version: object = "2025-06-18",
) -> Call:
    fields = [(b"Host", b"h"), *((name, token) for token in tokens)]
    head = read_head("POST", "/mcp", fields, peer="192.0.2.1", secure=False, trusted=NOWHERE)
    body = json.dumps({"method": method, "params": {"protocolVersion": version}}).encode()
    return Call(kind, head, body, id=call_id, rpc_id=rpc_id, rpc_method=method, form=form, era=era)


def answer(upstream: str | None = None, status: int = 200) -> Reply:
    own = [] if upstream is None else [(b"Mcp-Session-Id", upstream.encode("latin-1"))]
    return Reply(status, [(b"content-type", b"application/json"), *own], b"{}")


def ids(reply: Reply) -> list[bytes]:
    return [value for name, value in reply.headers if name.lower() == HEADER]


def upstreamed(call: Call) -> Headers:
    return [field for field in call.head.end_to_end if b"session" in field[0].lower()]


# --- open --------------------------------------------------------------------------------------


def test_a_token_of_ours_tells_the_session_and_goes_no_further() -> None:
    desk = Desk()
    call = message("tools/call", mint(MINE, WHO, [KEY]))

    assert desk.open(call) == MINE
    assert upstreamed(call) == []
    assert desk.open(message("ping", mint(MINE, WHO, [KEY]))) == MINE
    assert desk.told == []


@pytest.mark.parametrize(
    ("token", "credential", "wall_ms"),
    [
        (mint(MINE, WHO, [KEY]), "", NOW),
        (mint(MINE, WHO, [KEY]), "token_1", NOW),
        (mint(MINE, "", [KEY]), WHO, NOW),
        (mint(MINE, WHO, [b"o" * 32]), WHO, NOW),
        (mint(MINE, WHO, [KEY]), WHO, NOW + MAX_AGE_MS + 1),
        (UPSTREAM.encode(), WHO, NOW),
        (b"", WHO, NOW),
    ],
)
@pytest.mark.parametrize("form", [Form.REQUEST, Form.STREAM, Form.END])
def test_what_is_no_live_session_of_this_caller_is_unknown(
    token: bytes, credential: str, wall_ms: int, form: Form
) -> None:
    desk = Desk()
    desk.open(message("ping", mint(MINE, WHO, [KEY])))  # Remembered, and no reason to be lax.
    refused = desk.refusal(message("ping", token, form=form), credential, wall_ms)

    assert (refused.status, refused.code, refused.rpc_id) == (404, "rpc_session_unknown", b"1")
    assert desk.told == ["refused"]


def test_a_callers_answer_has_the_servers_id() -> None:
    """A tool may ask back while it runs: its question and the call may have one number."""
    desk = Desk()
    token = desk.opened()
    asked, answer = message("tools/call", token), message(None, token, form=Form.ANSWER)
    for call in (asked, answer):
        desk.open(call)
        desk.sessions.begin(call)
    desk.sessions.finish(answer)

    with pytest.raises(Refused, match="still under way"):
        desk.sessions.begin(asked)
    assert desk.refusal(message(None, b"gone", form=Form.ANSWER)).rpc_id == b""


def test_a_notification_of_an_unknown_session_is_refused_without_an_id() -> None:
    refused = Desk().refusal(message("notifications/initialized", b"x", rpc_id=None))

    assert (refused.status, refused.rpc_id) == (404, b"")


def test_two_sessions_at_once_are_none() -> None:
    token = mint(MINE, WHO, [KEY])
    call = message("ping", token, token)
    refused = Desk().refusal(call)

    assert (refused.status, refused.rpc_code, refused.rpc_id) == (400, -32600, b"1")
    assert upstreamed(call) == []


def test_a_request_may_do_without_a_session() -> None:
    assert Desk().open(message("tools/call")) is None


@pytest.mark.parametrize("token", [UPSTREAM.encode(), mint(MINE, WHO, [KEY])])
@pytest.mark.parametrize("name", [b"Mcp-Session-Id", b"mcp_session_id"])
def test_the_modern_era_knows_no_sessions(token: bytes, name: bytes) -> None:
    """The header means nothing there; no arm sees it, not even as its twin to CGI."""
    call = message("tools/call", token, token, era=Era.MODERN, name=name)

    assert Desk().open(call) is None
    assert upstreamed(call) == []


def test_a_request_that_is_no_mcp_is_left_alone() -> None:
    call = message("x", b"a", kind=Kind.FUNCTION)

    assert Desk().open(call) is None
    assert upstreamed(call) == [(b"Mcp-Session-Id", b"a")]


@pytest.mark.parametrize("tokens", [(), (b"of-somebody",), (b"a", b"b"), (mint(MINE, WHO, [KEY]),)])
def test_initialize_begins_a_draft_whatever_session_it_names(tokens: tuple[bytes, ...]) -> None:
    call = message("initialize", *tokens, version="2025-03-26")

    assert Desk().open(call) == Session("0" * 31 + "1", "", "2025-03-26", NOW)
    assert upstreamed(call) == []


def test_an_initialize_that_wants_no_answer_begins_nothing() -> None:
    assert Desk().open(message("initialize", rpc_id=None, form=Form.NOTIFICATION)) is None


def test_with_another_key_known_tokens_are_checked_anew() -> None:
    """A key that leaked is taken out of the rules: from then on it opens nothing."""
    desk, token = Desk(KEY), mint(MINE, WHO, [KEY])
    assert desk.open(message("ping", token)) == MINE
    desk.sessions.use([b"n" * 32, KEY])
    assert desk.open(message("ping", token)) == MINE

    desk.sessions.use([b"n" * 32])
    desk.refusal(message("ping", token))


@interpreted_only
def test_a_known_token_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []

    def counting(token: bytes, *rest: Any) -> Session | None:
        checked.append(token)
        return read(token, *rest)

    monkeypatch.setattr(module, "read", counting)
    desk, token = Desk(), mint(MINE, WHO, [KEY])
    for _ in range(3):
        desk.open(message("ping", token))
    desk.open(message("ping", desk.opened()))

    assert checked == [token]


def test_what_is_remembered_has_a_bound_and_the_oldest_goes() -> None:
    desk = Desk()
    tokens = [mint(replace(MINE, issued_ms=NOW - n), WHO, [KEY]) for n in range(KNOWN + 10)]
    for token in tokens:
        assert desk.open(message("ping", tokens[0])) is not None
        assert desk.open(message("ping", token)) is not None

    known = {token for token, _ in desk.sessions._known}
    assert len(known) == KNOWN
    assert tokens[0] in known
    assert tokens[1] not in known
    assert desk.open(message("ping", tokens[1])) is not None


# --- stamp -------------------------------------------------------------------------------------


def test_an_initialize_is_answered_with_a_token_of_ours() -> None:
    desk = Desk()
    call = message("initialize")
    desk.open(call, wall_ms=NOW)
    reply = desk.stamp(call, answer(UPSTREAM))

    [token] = ids(reply)
    expected = Session("0" * 31 + "1", "mcp", "2025-06-18", NOW, UPSTREAM)
    assert read(token, WHO, [KEY], NOW) == expected
    assert (b"content-type", b"application/json") in reply.headers
    assert desk.open(message("ping", token), wall_ms=NOW + 1) == expected
    assert desk.told == ["opened"]


@pytest.mark.parametrize(
    ("call_id", "upstream", "faced", "stamped"),
    [
        (None, UPSTREAM, False, True),
        (None, None, False, True),  # It is what the caller is split by.
        ("call_1", UPSTREAM, False, True),
        ("call_1", None, False, False),  # The arm keeps no sessions, and needs none.
        ("call_1", None, True, True),
        (None, None, True, True),
    ],
)
def test_a_session_is_opened_where_one_is_needed(
    call_id: str | None, upstream: str | None, faced: bool, stamped: bool
) -> None:
    desk = Desk()
    call = message("initialize", call_id=call_id)
    desk.open(call)
    reply = desk.stamp(call, answer(upstream), faced=faced)

    assert len(ids(reply)) == stamped
    if stamped:
        session = read(ids(reply)[0], WHO, [KEY], NOW)
        assert session is not None
        assert session.upstream == upstream


@pytest.mark.parametrize("status", [199, 300, 400, 401, 404, 500, 503])
def test_an_initialize_that_failed_opens_nothing(status: int) -> None:
    """SDKs put a fresh session ID on their refusals too."""
    desk = Desk()
    call = message("initialize")
    desk.open(call)

    assert ids(desk.stamp(call, answer(UPSTREAM, status))) == []
    assert desk.told == []


@pytest.mark.parametrize("era", list(Era))
@pytest.mark.parametrize("status", [200, 202, 400, 404])
def test_an_arms_own_id_is_taken_off_every_other_answer(era: Era, status: int) -> None:
    desk = Desk()
    tokens = (desk.opened(),) if era is Era.LEGACY else ()
    call = message("tools/list", *tokens, era=era)
    desk.open(call)

    assert ids(desk.stamp(call, answer("another", status))) == []


def test_an_answer_that_is_no_mcp_keeps_its_headers() -> None:
    call = message(kind=Kind.FUNCTION)

    assert ids(Desk().stamp(call, answer("a"))) == [b"a"]


@pytest.mark.parametrize("upstream", ["two words", "caf\xe9", "x" * (MAX_UPSTREAM + 1)])
def test_an_arms_id_that_no_header_could_carry_is_none(upstream: str) -> None:
    desk = Desk()

    session = desk.open(message("ping", desk.opened(upstream=upstream)))
    assert session is not None
    assert session.upstream is None


def test_an_answer_of_our_own_has_no_session_of_an_arms() -> None:
    """The face answered since the arm is away: nothing on its answer can be the arm's."""
    desk = Desk()
    call = message("initialize")
    desk.open(call)
    [token] = ids(desk.stamp(call, answer("not-an-arms"), "webhook", faced=True))

    session = read(token, WHO, [KEY], NOW)
    assert session is not None
    assert (session.arm, session.upstream) == ("webhook", None)


def test_headers_that_answers_share_are_not_written_to() -> None:
    shared = [(b"content-type", b"application/json")]
    desk = Desk()
    call = message("initialize")
    desk.open(call)
    reply = desk.stamp(call, Reply(200, shared, b"{}"), faced=True)

    assert len(ids(reply)) == 1
    assert len(shared) == 1


# --- the end -----------------------------------------------------------------------------------


def ended(desk: Desk, token: bytes, status: int) -> None:
    call = message(None, token, rpc_id=None, form=Form.END)
    desk.open(call)
    desk.stamp(call, answer(status=status))


@pytest.mark.parametrize("status", [200, 202, 204, 404, 405])
def test_a_session_that_its_caller_ended_is_unknown_afterwards(status: int) -> None:
    desk = Desk()
    token, other = desk.opened(), desk.opened()
    ended(desk, token, status)

    assert desk.refusal(message("ping", token)).status == 404
    assert desk.refusal(message(None, token, form=Form.END)).status == 404
    assert desk.open(message("ping", other)) is not None
    assert desk.told == ["opened", "opened", "ended", "refused", "refused"]


@pytest.mark.parametrize("status", [400, 401, 500, 502, 503])
def test_an_end_that_failed_is_none(status: int) -> None:
    desk = Desk()
    token = desk.opened()
    ended(desk, token, status)

    assert desk.open(message("ping", token)) is not None


def test_two_ends_at_once_count_once() -> None:
    desk = Desk()
    token = desk.opened()
    both = [message(None, token, rpc_id=None, form=Form.END) for _ in range(2)]
    for call in both:
        desk.open(call)
    for call in both:
        desk.sessions.end(call)

    assert desk.told == ["opened", "ended"]


def test_who_has_no_session_ends_none() -> None:
    desk = Desk()
    call = message(None, rpc_id=None, form=Form.END)
    desk.open(call)
    desk.stamp(call, answer(status=405))
    desk.sessions.end(call)

    assert desk.told == []


@interpreted_only
def test_the_memory_of_ended_sessions_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENDED", 3)
    desk = Desk()
    tokens = [desk.opened() for _ in range(5)]
    for token in tokens:
        ended(desk, token, 204)

    for token in tokens[2:]:
        desk.refusal(message("ping", token))


# --- one ID at a time --------------------------------------------------------------------------


def asked(desk: Desk, token: bytes, rpc_id: bytes | None) -> Call:
    call = message("tools/call", token, rpc_id=rpc_id)
    desk.open(call)
    return call


@pytest.mark.parametrize(
    ("one", "other"),
    [(b"1", b"1"), (b'"a"', b'"a"'), (b'"a"', b'"\\u0061"'), (b"1", b"1.0"), (b"1e999", b"1e999")],
)
def test_an_id_that_is_under_way_is_refused(one: bytes, other: bytes) -> None:
    """However it is spelt: the server reads values, and answers one of the two."""
    desk = Desk()
    token = desk.opened()
    first, second = asked(desk, token, one), asked(desk, token, other)
    desk.sessions.begin(first)

    with pytest.raises(Refused) as refused:
        desk.sessions.begin(second)
    assert (refused.value.status, refused.value.rpc_code) == (400, -32600)
    assert (refused.value.code, refused.value.rpc_id) == ("rpc_id_in_use", other)
    desk.sessions.finish(first)
    desk.sessions.begin(second)


@pytest.mark.parametrize(("one", "other"), [(b"1", b'"1"'), (b"1", b"2"), (b'"a"', b'"A"')])
def test_other_ids_are_other_requests(one: bytes, other: bytes) -> None:
    desk = Desk()
    token = desk.opened()
    desk.sessions.begin(asked(desk, token, one))

    desk.sessions.begin(asked(desk, token, other))


def test_other_sessions_have_the_same_ids() -> None:
    desk = Desk()
    for token in (desk.opened(), desk.opened()):
        desk.sessions.begin(asked(desk, token, b"1"))


@pytest.mark.parametrize(
    "make",
    [
        lambda desk: asked(desk, desk.opened(), None),
        lambda desk: message("initialize"),
        lambda desk: message("tools/call"),
        lambda desk: message("tools/call", era=Era.MODERN),
        lambda desk: message("x", kind=Kind.FUNCTION),
    ],
)
def test_what_is_in_no_session_may_use_any_id(make: Callable[[Desk], Call]) -> None:
    desk = Desk()
    call = make(desk)
    desk.open(call)

    desk.sessions.begin(call)
    desk.sessions.begin(call)
    desk.sessions.finish(call)
    assert not desk.sessions._asked


def test_the_same_request_again_goes_as_far_as_to_the_guard() -> None:
    """A write that is sent again waits for its twin; nobody else is let past it."""
    desk = Desk()
    token = desk.opened()
    first, again, other = (asked(desk, token, b"1") for _ in range(3))
    other.body = b"something else"
    assert desk.sessions.begin(first, guarded=True)

    assert not desk.sessions.begin(again, guarded=True)
    for call, guarded in ((again, False), (other, True)):
        with pytest.raises(Refused):
            desk.sessions.begin(call, guarded=guarded)
    desk.sessions.finish(first)
    assert desk.sessions.begin(other, guarded=True)


def test_a_finish_without_a_begin_is_harmless() -> None:
    desk = Desk()
    call = asked(desk, desk.opened(), b"1")
    desk.sessions.finish(call)
    desk.sessions.finish(call)

    desk.sessions.begin(call)


class Conversations(RuleBasedStateMachine):
    """Any number of callers in a few sessions: nobody is ever in another's, nor after its end."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.alive: dict[bytes, str] = {}
        self.dead: set[bytes] = set()
        self.under_way: dict[tuple[bytes, bytes], Call] = {}

    @rule(arm=st.sampled_from(["mcp", "webhook"]), upstream=st.none() | st.just(UPSTREAM))
    def opens(self, arm: str, upstream: str | None) -> None:
        token = self.desk.opened(arm, upstream)
        assert token not in self.alive.keys() | self.dead
        self.alive[token] = arm

    @rule(data=st.data(), rpc_id=st.sampled_from([b"1", b"2", b'"1"']))
    def asks(self, data: st.DataObject, rpc_id: bytes) -> None:
        if not self.alive:
            return
        token = data.draw(st.sampled_from(sorted(self.alive)))
        call = message("tools/call", token, rpc_id=rpc_id)
        session = self.desk.open(call)
        assert session is not None
        assert session.arm == self.alive[token]
        if (token, rpc_id) in self.under_way:
            with pytest.raises(Refused):
                self.desk.sessions.begin(call)
        else:
            self.desk.sessions.begin(call)
            self.under_way[token, rpc_id] = call

    @rule(data=st.data())
    def hears(self, data: st.DataObject) -> None:
        if self.under_way:
            key = data.draw(st.sampled_from(sorted(self.under_way)))
            self.desk.sessions.finish(self.under_way.pop(key))

    @rule(data=st.data(), status=st.sampled_from([200, 204, 405, 503]))
    def ends(self, data: st.DataObject, status: int) -> None:
        if not self.alive:
            return
        token = data.draw(st.sampled_from(sorted(self.alive)))
        ended(self.desk, token, status)
        if status != 503:
            del self.alive[token]
            self.dead.add(token)

    @rule(data=st.data())
    def comes_back(self, data: st.DataObject) -> None:
        if self.dead:
            token = data.draw(st.sampled_from(sorted(self.dead)))
            assert self.desk.refusal(message("ping", token)).status == 404

    @rule()
    def rotates(self) -> None:
        self.desk.sessions.use([b"n" * 32, KEY])

    @invariant()
    def nothing_is_kept_for_longer_than_it_takes(self) -> None:
        assert len(self.desk.sessions._asked) == len(self.under_way)


TestConversations = Conversations.TestCase
TestConversations.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
