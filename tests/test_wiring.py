from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from backends.mcp import McpBackend
from proxy.adapters.certificates import Certificates
from proxy.adapters.clock import LoopClock
from proxy.adapters.logs import configure
from proxy.adapters.metrics import Metrics
from proxy.adapters.rules_file import parse_rules
from proxy.adapters.upstream import Sweep
from proxy.adapters.watch import Watcher
from proxy.core.breaker_values import State
from proxy.core.dialects.catalogue import Catalogue, Listed
from proxy.core.model import Call, Head, Kind, Reply
from proxy.core.rules import Rules, SecretRef
from proxy.errors import RulesError, SettingsError
from proxy.line import Line
from proxy.wiring import Known, Wiring, backend_paths, limit, speaking, tool_config

PLAIN = """
version: 1
split: {percent: 25}
backends:
  mcp: {handler: tools, url: "http://127.0.0.1:1/api/mcp/retell/tools"}
  webhook: {handler: webhook, url: "http://127.0.0.1:1/hook", paths: {event: /events}}
"""


def rules(text: str = PLAIN) -> Rules:
    return parse_rules(text.encode(), {}, path=Path("rules.yaml")).rules


def health() -> Reply:
    return Reply(200)


@pytest.fixture
async def make() -> Callable[..., Wiring]:
    def wiring(*, catalogue: Known = lambda _: None, **secrets: bytes) -> Wiring:
        clock = LoopClock()
        log = configure(clock.wall_ms, stream=io.StringIO())
        watch = Watcher(Metrics("n"), log, now=clock.now, access=None, to="mcp")

        def secret(ref: SecretRef) -> bytes | None:
            found = secrets.get(ref.ref.removeprefix("env:"))
            if found is None and not ref.optional:
                raise SettingsError(f"{ref.ref} is not set")
            return found

        sweep = Sweep(clock)
        return Wiring(
            clock=clock,
            watch=watch,
            sweep=sweep,
            secret=secret,
            certificates=Certificates(clock=clock, log=log),
            catalogue=catalogue,
        )

    return wiring


async def test_rules_become_a_line(make: Callable[..., Wiring]) -> None:
    wiring = make()
    prepared = wiring.prepare(rules(), health)
    assert wiring.commit(prepared) == []

    line = prepared.line
    assert set(line.arms) == {"mcp", "webhook"}
    assert line.other("mcp") is line.arms["webhook"]
    assert line.other("webhook") is line.arms["mcp"]
    assert not line.arms["mcp"].in_process
    assert line.splitter.present(LoopClock().wall_ms()).percent == 25


async def test_what_has_not_changed_outlives_a_reload(make: Callable[..., Wiring]) -> None:
    """Connections, breakers and the memory of calls are worth more than a tidy restart."""
    wiring = make()
    before = wiring.prepare(rules(), health)
    wiring.commit(before)
    before.line.arms["mcp"].breaker.trip(0.0)

    after = wiring.prepare(rules(PLAIN.replace("25", "50")), health)
    retired = wiring.commit(after)

    assert retired == []
    assert after.line.splitter is before.line.splitter
    for name in ("mcp", "webhook"):
        assert after.line.arms[name].upstream is before.line.arms[name].upstream
        assert after.line.arms[name].breaker is before.line.arms[name].breaker
        assert after.line.arms[name].retries is before.line.arms[name].retries
        assert after.line.arms[name].pace is before.line.arms[name].pace
    assert after.line.arms["mcp"].breaker.state is State.OPEN
    assert after.line.splitter.history.latest.percent == 50


async def test_a_changed_endpoint_gets_a_new_pool_and_the_old_one_is_handed_over(
    make: Callable[..., Wiring],
) -> None:
    wiring = make()
    before = wiring.prepare(rules(), health)
    wiring.commit(before)
    after = wiring.prepare(rules(PLAIN.replace("127.0.0.1:1/hook", "127.0.0.1:2/hook")), health)
    retired = wiring.commit(after)

    assert retired == [before.upstreams["webhook"]]
    assert after.upstreams["mcp"] is before.upstreams["mcp"]


async def test_preparing_changes_nothing(make: Callable[..., Wiring]) -> None:
    wiring = make()
    wiring.commit(wiring.prepare(rules(), health))
    upstreams, breakers = wiring.upstreams, wiring.breakers

    wiring.prepare(rules(PLAIN.replace("25", "50")), health)

    assert wiring.upstreams is upstreams
    assert wiring.breakers is breakers
    splitter = wiring.prepare(rules(), health).splitter
    assert splitter.history.latest.percent == 25


async def test_an_arm_is_asked_again_within_the_budget_of_the_rules(
    make: Callable[..., Wiring],
) -> None:
    wiring = make()
    given: dict[str, int] = {}
    for budget in ("20%", "0%"):
        text = f"{PLAIN}\nfallback: {{retry_budget: {budget}}}".replace("tools,", "mcp,")
        prepared = wiring.prepare(rules(text), health)
        wiring.commit(prepared)
        arm = prepared.line.arms["mcp"]
        assert isinstance(arm.backend, McpBackend)
        for _ in range(1000):
            arm.retries.asked(LoopClock().now())
        given[budget] = sum(arm.backend._relay._may_repeat() for _ in range(1000))

    assert given == {"20%": 200, "0%": 0}
    repeats = wiring._watch.metrics.repeats
    assert (repeats["mcp", "given"], repeats["mcp", "refused"]) == (200, 1800)


async def test_a_pool_waits_and_the_edge_sheds_as_the_rules_say(
    make: Callable[..., Wiring],
) -> None:
    text = PLAIN.replace('hook",', 'hook", queue: 7, queue_timeout: 40ms,')
    limits = "limits: {in_flight: 10, max_lag: 100ms, hops: 5}"
    prepared = make().prepare(rules(f"{text}\n{limits}"), health)

    endpoint = prepared.upstreams["webhook"].endpoint
    assert (endpoint.queue, endpoint.queue_timeout) == (7, 0.04)
    edge = prepared.edge._rules
    assert (edge.in_flight, edge.max_lag, edge.hops) == (10, 0.1, 5)


async def test_a_breaker_switched_off_by_rules_is_told(make: Callable[..., Wiring]) -> None:
    wiring = make()
    wiring.commit(wiring.prepare(rules(), health))
    off = PLAIN.replace("handler: webhook,", "handler: webhook, breaker: {enabled: false},")
    prepared = wiring.prepare(rules(off), health)
    wiring.commit(prepared)

    assert prepared.line.arms["webhook"].breaker.state is State.METRICS_ONLY


async def test_a_required_credential_without_a_key_is_refused(
    make: Callable[..., Wiring],
) -> None:
    text = PLAIN + "auth: {retell_keys: [env:KEY?], require: {function: [signature]}}\n"
    with pytest.raises(RulesError) as refused:
        make().prepare(rules(text), health)
    assert "auth.require.function" in refused.value.faults[0].message

    make(KEY=b"k").prepare(rules(text), health)


async def test_a_missing_secret_is_refused(make: Callable[..., Wiring]) -> None:
    text = PLAIN.replace("handler: webhook,", "handler: webhook, bearer: env:TOKEN,")
    with pytest.raises((RulesError, SettingsError)) as refused:
        make().prepare(rules(text), health)
    said = getattr(refused.value, "faults", [refused.value])
    assert "env:TOKEN" in str(said[0])


async def test_a_salt_may_be_plain_or_secret(make: Callable[..., Wiring]) -> None:
    plain = PLAIN.replace("percent: 25", "percent: 25, salt: pepper")
    secret = PLAIN.replace("percent: 25", "percent: 25, salt: env:SALT?")

    assert make().prepare(rules(plain), health).entry.salt == "pepper"
    assert make(SALT=b"s\xff").prepare(rules(secret), health).entry.salt == "s\udcff"
    assert make().prepare(rules(secret), health).entry.salt == ""


async def test_an_in_process_handler_needs_no_url(make: Callable[..., Wiring]) -> None:
    text = PLAIN.replace('{handler: tools, url: "http://127.0.0.1:1/api/mcp/retell/tools"}',
                         "{handler: demo, options: {like: mcp}}")  # fmt: skip
    arm = make().prepare(rules(text), health).line.arms["mcp"]

    assert arm.in_process
    assert Kind.EVENT not in arm.backend.kinds


async def test_forcing_needs_its_token(make: Callable[..., Wiring]) -> None:
    text = PLAIN.replace("percent: 25", "percent: 25, force: {header: x-arm, token: env:FORCE?}")
    rules_with_force = rules(text)

    assert make(FORCE=b"t" * 32).prepare(rules_with_force, health)
    assert make().prepare(rules_with_force, health)


def test_paths_of_backends_are_closed_to_passthrough() -> None:
    assert backend_paths(rules()) == ["/api/mcp/retell/tools", "/hook", "/events"]


def test_a_limit_of_null_does_not_bind() -> None:
    assert limit(None, 3.0) is None
    found = limit(100, 3.0)
    assert found is not None
    assert found.depth == 300


async def test_a_reload_tells_the_breakers_what_the_rules_say_now(
    make: Callable[..., Wiring],
) -> None:
    wiring = make()
    wiring.commit(wiring.prepare(rules(), health))
    said = "handler: webhook, breaker: {failures: 7, per_tool: true},"
    text = PLAIN.replace("handler: webhook,", said) + "tools: {slots: {effect: read}}\n"
    prepared = wiring.prepare(rules(text), health)
    assert wiring.breakers["webhook"].config.failures == 5, "not before it is in force"
    wiring.commit(prepared)

    breaker = prepared.line.arms["webhook"].breaker
    assert [each.config.failures for each in breaker.each()] == [7, 7]
    assert [each.tool for each in breaker.each()] == ["", "slots"]
    wiring.commit(wiring.prepare(rules(), health))
    assert breaker.each() == (breaker,)


async def test_an_arms_answers_are_read_as_the_rules_say(make: Callable[..., Wiring]) -> None:
    said = "handler: webhook, body_verdicts: [{when: {a: 1}, verdict: failed}],"
    text = PLAIN.replace("handler: webhook,", said)
    arms = make().prepare(rules(text), health).line.arms

    assert arms["webhook"].by_rule is not None
    assert arms["mcp"].by_rule is None


async def test_a_tool_may_have_another_name_on_an_arm(make: Callable[..., Wiring]) -> None:
    text = PLAIN + "tools: {slots: {effect: read, names: {mcp: checkSlots}}}\n"
    tools = make().prepare(rules(text), health).line.tools

    assert tool_config(tools, "slots", "mcp").name == "checkSlots"
    assert tool_config(tools, "slots", "webhook").name == ""


async def test_every_backend_has_a_rescuer_also_one_that_is_no_arm_of_the_split(
    make: Callable[..., Wiring],
) -> None:
    text = PLAIN + "  former: {handler: mcp, url: 'http://127.0.0.1:1/old'}\n"
    line = make().prepare(rules(text), health).line

    assert set(line.covers) == {"mcp", "webhook", "former"}
    assert line.covers["former"] == line.arms["webhook"].backend.kinds - {Kind.OTHER}
    assert not line.covers["webhook"]


SIGNED = PLAIN + "listen: {session_keys: [env:NEW?, env:OLD?]}\n"


@pytest.mark.parametrize(
    ("secrets", "keys"),
    [
        ({}, ()),
        ({"NEW": b"n" * 16, "OLD": b"o" * 32}, (b"n" * 16, b"o" * 32)),
        ({"OLD": b"o" * 32}, (b"o" * 32,)),
    ],
)
async def test_the_keys_of_sessions_come_in_the_order_of_the_rules(
    make: Callable[..., Wiring], secrets: dict[str, bytes], keys: tuple[bytes, ...]
) -> None:
    """The first one signs."""
    prepared = make(**secrets).prepare(rules(SIGNED), health)

    assert prepared.session_keys == keys
    assert "nnnn" not in repr(prepared)


async def test_a_session_key_that_could_be_found_by_trying_is_refused(
    make: Callable[..., Wiring],
) -> None:
    with pytest.raises(RulesError) as refused:
        make(NEW=b"n" * 16, OLD=b"o" * 15).prepare(rules(SIGNED), health)

    [fault] = refused.value.faults
    assert fault.message == "listen.session_keys: a key is shorter than 16 bytes"
    assert "openssl rand -hex 32" in fault.hint


SPEAKING = """
version: 1
backends:
  mcp: {handler: mcp, url: "http://127.0.0.1:1/mcp", catalogue_every: 5s}
  webhook: {handler: webhook, url: "http://127.0.0.1:1/hook"}
tools:
  slots: {description: Slots., names: {mcp: checkSlots, webhook: slots_v2}}
"""


def listed(line: Line) -> list[str]:
    """What an MCP caller finds at the face."""
    head = Head("POST", "/mcp", "", {}, [], b"h", "127.0.0.1")
    asked = Call(Kind.MCP, head, b"{}", rpc_id=b"1", rpc_method="tools/list")
    body = line.face.answer(asked).body
    assert isinstance(body, bytes)
    return [tool["name"] for tool in orjson.loads(body)["result"]["tools"]]


async def test_mcp_callers_find_the_names_of_the_arm_that_speaks_mcp(
    make: Callable[..., Wiring],
) -> None:
    line = make().prepare(rules(SPEAKING), health).line

    assert listed(line) == ["checkSlots"]
    assert line.tools.known("checkSlots") == "slots"
    assert line.tools.known("slots_v2") == "slots_v2"


async def test_where_no_arm_speaks_mcp_tools_have_the_names_of_the_rules(
    make: Callable[..., Wiring],
) -> None:
    line = make().prepare(rules(SPEAKING.replace("handler: mcp", "handler: demo")), health).line

    assert listed(line) == ["slots"]
    assert line.tools.known("checkSlots") == "checkSlots"


async def test_what_the_server_lists_is_asked_for_whenever_it_is_needed(
    make: Callable[..., Wiring],
) -> None:
    known: dict[str, Catalogue] = {}
    wiring = make(catalogue=known.get)
    line = wiring.prepare(rules(SPEAKING), health).line
    before = listed(line)

    known["mcp"] = Catalogue({"greet": Listed("greet", raw=b'{"name":"greet"}')})

    assert before == ["checkSlots"]
    assert listed(line) == ["greet", "checkSlots"]


async def test_the_arms_of_the_split_come_first(make: Callable[..., Wiring]) -> None:
    text = SPEAKING.replace("  webhook:", "  a: {handler: mcp, url: http://h/}\n  webhook:")
    loaded = rules(text)
    line = make().prepare(loaded, health).line

    assert speaking(loaded, line.arms) == ["mcp", "a"]


async def test_a_backend_may_leave_things_to_be_done_beside_the_path(
    make: Callable[..., Wiring],
) -> None:
    wiring = make()
    seen: list[tuple[object, str]] = []

    def aside(upstream: object, arm: str) -> Callable[[object], None]:
        seen.append((upstream, arm))
        return lambda _: None

    wiring._aside = aside

    prepared = wiring.prepare(rules(), health)

    assert seen == [(prepared.upstreams[name], name) for name in prepared.upstreams]


@pytest.mark.parametrize(
    ("old", "new", "stays"),
    [
        ("percent: 25", "percent: 30", True),
        ("handler: tools,", "handler: tools, bearer: env:OTHER,", False),
        ("handler: tools,", "handler: tools, timeout: 3s,", False),
        ("127.0.0.1:1/api", "127.0.0.1:2/api", False),
        ("version: 1", "version: 1\nfallback: {retry_budget: 50%}", False),
        ("version: 1", "version: 1\ntools: {slots: {effect: read}}", False),
    ],
)
async def test_a_backend_goes_on_after_a_reload_that_does_not_concern_it(
    make: Callable[..., Wiring], old: str, new: str, stays: bool
) -> None:
    """It may hold sessions of live calls."""
    wiring = make(OTHER=b"x")
    before = wiring.prepare(rules(), health)
    wiring.commit(before)

    after = wiring.prepare(rules(PLAIN.replace(old, new)), health)

    one, other = before.line.arms["mcp"], after.line.arms["mcp"]
    assert (other.backend is one.backend) is stays
