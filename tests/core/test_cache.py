from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from proxy.core.cache import Cache, Entry, Miss, may_share, size_of
from proxy.core.cache_key import CacheRule, Spot, Tenant, cache_rule
from proxy.core.dialects.kept import Kept
from proxy.core.model import Kind
from proxy.core.rules.tools import ToolEntry, resolve

TTL, STALE = 60.0, 30.0
ANSWER = Kept(Kind.FUNCTION, 200, (), b"{}", "success")


def rule_of(**more: Any) -> CacheRule:
    entry = {"effect": "read", "cache": "60s", "cache_key": ["args", "metadata.company_id"]}
    tool = resolve(
        {"slots": ToolEntry.model_validate(entry | {"stale_if_error": "30s"} | more)}, "slots"
    )
    rule = cache_rule(tool, [])
    assert rule is not None
    return rule


RULE = rule_of()


def spot(name: str = "a", *tenant: str, tool: str = "slots") -> Spot:
    return Spot(tool, name.encode().ljust(16), tenant or ("42",))


def kept(**more: Any) -> Kept:
    return msgspec.structs.replace(ANSWER, **more)


def keep(
    cache: Cache,
    where: Spot,
    now: float = 0.0,
    *,
    arm: str = "mcp",
    answer: Kept = ANSWER,
    rule: CacheRule = RULE,
) -> bool:
    miss = cache.begin(arm, where, now)
    cache.end(miss)
    return cache.put(miss, rule, answer, arm=arm)


def test_an_answer_is_fresh_up_to_its_time_and_stale_for_a_while_after() -> None:
    cache = Cache()
    assert cache.fresh("mcp", spot(), 0.0) is None
    assert keep(cache, spot(), 10.0)

    fresh = cache.fresh("mcp", spot(), 10.0 + TTL - 0.001)
    assert fresh is not None
    assert (fresh.kept, fresh.asked) == (ANSWER, 10.0)
    assert cache.fresh("mcp", spot(), 10.0 + TTL) is None
    assert cache.stale("mcp", spot(), 10.0 + TTL + STALE - 0.001) is fresh
    assert cache.stale("mcp", spot(), 10.0 + TTL + STALE) is None


def test_the_other_arm_has_answers_of_its_own() -> None:
    cache = Cache()
    keep(cache, spot())

    assert cache.fresh("webhook", spot(), 1.0) is None
    assert cache.stale("webhook", spot(), 1.0) is None


def test_a_rescue_is_kept_as_an_answer_of_the_arm_that_gave_it() -> None:
    cache = Cache()
    miss = cache.begin("mcp", spot(), 0.0)

    assert cache.put(miss, RULE, ANSWER, arm="webhook")

    assert cache.fresh("mcp", spot(), 1.0) is None
    assert cache.fresh("webhook", spot(), 1.0) is not None


def test_an_answer_ages_from_the_question_on() -> None:
    """It may have been true at any time since."""
    cache = Cache()
    miss = cache.begin("mcp", spot(), 0.0)
    cache.put(miss, RULE, ANSWER, arm="mcp")

    assert cache.fresh("mcp", spot(), TTL) is None


@pytest.mark.parametrize(
    "answer",
    [
        kept(label="business_no"),
        kept(label="failed"),
        kept(label="busy", status=429),
        kept(asks_more=True),
        kept(private=True),
        kept(ttl=0.0),
    ],
)
def test_only_a_final_success_for_everybody_is_kept(answer: Kept) -> None:
    cache = Cache()

    assert not keep(cache, spot(), answer=answer)
    assert len(cache) == cache.bytes == 0


def test_a_private_answer_stays_in_its_call() -> None:
    of_one_call = rule_of(cache_key=None)

    assert may_share(kept(private=True), of_one_call)
    assert keep(Cache(), spot(), answer=kept(private=True), rule=of_one_call)


@pytest.mark.parametrize(("said", "lasts"), [(5.0, 5.0), (600.0, TTL), (None, TTL)])
def test_the_shorter_word_on_how_long_counts(said: float | None, lasts: float) -> None:
    cache = Cache()
    keep(cache, spot(), answer=kept(ttl=said))

    assert cache.fresh("mcp", spot(), lasts - 0.001) is not None
    assert cache.fresh("mcp", spot(), lasts) is None
    assert cache.stale("mcp", spot(), lasts + STALE - 0.001) is not None


def test_twins_follow_the_first_until_it_has_ended() -> None:
    cache = Cache()
    first = cache.begin("mcp", spot(), 0.0)

    assert first.leader is None
    assert cache.begin("mcp", spot(), 1.0).leader is first
    assert cache.begin("webhook", spot(), 1.0).leader is None
    assert cache.begin("mcp", spot("b"), 1.0).leader is None

    cache.end(first)
    cache.end(first)
    assert cache.begin("mcp", spot(), 2.0).leader is None


def test_a_twin_that_ends_leaves_the_first_in_the_lead() -> None:
    cache = Cache()
    first = cache.begin("mcp", spot(), 0.0)
    cache.end(cache.begin("mcp", spot(), 1.0))

    assert cache.begin("mcp", spot(), 2.0).leader is first


def test_an_older_question_does_not_replace_a_newer_answer() -> None:
    cache = Cache()
    old, new = cache.begin("mcp", spot(), 0.0), cache.begin("mcp", spot(), 1.0)

    assert cache.put(new, RULE, kept(body=b"new"), arm="mcp")
    assert not cache.put(old, RULE, kept(body=b"old"), arm="mcp")
    assert body(cache.fresh("mcp", spot(), 2.0)) == b"new"

    assert keep(cache, spot(), 3.0, answer=kept(body=b"newer"))
    assert body(cache.fresh("mcp", spot(), 3.0)) == b"newer"
    assert len(cache) == 1


def body(entry: Entry | None) -> bytes:
    assert entry is not None
    return entry.kept.body


def test_a_write_drops_its_tenants_answers_on_both_arms() -> None:
    cache = Cache()
    for arm in ("mcp", "webhook"):
        keep(cache, spot("a", "42"), arm=arm)
        keep(cache, spot("b", "43"), arm=arm)
        keep(cache, spot("c", "42", tool="info"), arm=arm)

    cache.drop("slots", ("42",))

    for arm in ("mcp", "webhook"):
        assert cache.fresh(arm, spot("a", "42"), 1.0) is None
        assert cache.stale(arm, spot("a", "42"), 1.0) is None
        assert cache.fresh(arm, spot("b", "43"), 1.0) is not None
        assert cache.fresh(arm, spot("c", "42", tool="info"), 1.0) is not None


@pytest.mark.parametrize("tenant", [None, ()])
def test_a_write_that_names_no_tenant_drops_everybodys(tenant: Tenant | None) -> None:
    cache = Cache()
    keep(cache, spot("a", "42"))
    keep(cache, spot("b", "43"))
    keep(cache, spot("c", "43", tool="info"))

    cache.drop("slots", tenant)

    assert len(cache) == 1


def test_a_write_spares_only_what_differs_in_every_field() -> None:
    """Company and language in one key: nobody says which of them a booking is about."""
    cache = Cache()
    for name, tenant in (("a", ("42", "de")), ("b", ("42", "en")), ("c", ("43", "fr"))):
        keep(cache, spot(name, *tenant))

    cache.drop("slots", ("42", "de"))

    assert len(cache) == 1
    assert cache.fresh("mcp", spot("c", "43", "fr"), 1.0) is not None


def test_fields_are_compared_each_with_its_own() -> None:
    cache = Cache()
    keep(cache, spot("a", "1", "2"))

    cache.drop("slots", ("2", "1"))

    assert len(cache) == 1


def test_what_was_asked_before_a_write_is_not_kept_after_it() -> None:
    """Its answer may be from before, whenever it comes."""
    cache = Cache()
    mine, others = cache.begin("mcp", spot("a", "42"), 0.0), cache.begin("mcp", spot("b", "43"), 0)
    twin = cache.begin("mcp", spot("a", "42"), 0.0)

    cache.drop("slots", ("42",))

    assert cache.begin("mcp", spot("a", "42"), 1.0).leader is None
    assert not cache.put(mine, RULE, ANSWER, arm="mcp")
    assert not cache.put(twin, RULE, ANSWER, arm="mcp")
    assert cache.put(others, RULE, ANSWER, arm="mcp")


def test_an_arm_that_has_moved_is_forgotten() -> None:
    cache = Cache()
    keep(cache, spot("a"))
    keep(cache, spot("a"), arm="webhook")
    miss = cache.begin("webhook", spot("b"), 0.0)

    cache.drop_arm("mcp")

    assert cache.fresh("mcp", spot("a"), 1.0) is None
    assert cache.fresh("webhook", spot("a"), 1.0) is not None
    assert not cache.put(miss, RULE, ANSWER, arm="mcp")
    assert cache.begin("webhook", spot("b"), 1.0).leader is None


def test_of_many_answers_those_longest_not_asked_for_go_first() -> None:
    cache = Cache(max_count=3)
    for name in "abc":
        keep(cache, spot(name))
    cache.fresh("mcp", spot("a"), 1.0)

    keep(cache, spot("d"))

    assert [cache.fresh("mcp", spot(name), 1.0) is not None for name in "abcd"] == [
        True, False, True, True,
    ]  # fmt: skip


def test_large_answers_take_more_room() -> None:
    cache = Cache(max_bytes=20_000)
    for name in "abc":
        assert keep(cache, spot(name), answer=kept(body=bytes(8_000)))

    assert len(cache) == 2
    assert cache.bytes <= 20_000


def test_an_answer_larger_than_all_room_moves_nobody_out() -> None:
    cache = Cache(max_bytes=5_000)
    keep(cache, spot("a"))

    assert not keep(cache, spot("b"), answer=kept(body=bytes(5_000)))
    assert len(cache) == 1


@dataclass
class Flying:
    """A question under way, as the model remembers it."""

    miss: Miss
    arm: str
    where: tuple[str, str]  # name and tenant
    asked: float
    leads: bool
    late: bool = False


ARMS, NAMES, TENANTS = ("mcp", "webhook"), ("x", "y"), ("42", "43", "44")


class CacheMachine(RuleBasedStateMachine):
    """Against a plain dict: what is served is what was kept, there, and nothing dropped since.

    Every answer has a body of its own, so that no two can be taken for each other.
    """

    flying = Bundle("flying")

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(max_count=8)
        self.now = 0.0
        self.model: dict[tuple[str, str, str], tuple[bytes, float]] = {}
        self.open: list[Flying] = []
        self.answers = 0

    def spot(self, name: str, tenant: str) -> Spot:
        return spot(name + tenant, tenant)

    @rule(
        target=flying,
        arm=st.sampled_from(ARMS),
        name=st.sampled_from(NAMES),
        tenant=st.sampled_from(TENANTS),
    )
    def ask(self, arm: str, name: str, tenant: str) -> Flying:
        miss = self.cache.begin(arm, self.spot(name, tenant), self.now)
        leading = [
            f.miss for f in self.open if f.leads and (f.arm, f.where) == (arm, (name, tenant))
        ]
        assert miss.leader is (leading[0] if leading else None)
        assert len(leading) <= 1
        asked = Flying(miss, arm, (name, tenant), self.now, leads=miss.leader is None)
        self.open.append(asked)
        return asked

    @rule(asked=flying, rescued=st.booleans(), label=st.sampled_from(["success", "business_no"]))
    def answer(self, asked: Flying, rescued: bool, label: str) -> None:
        if asked not in self.open:
            return
        self.open.remove(asked)
        arm = ARMS[1 - ARMS.index(asked.arm)] if rescued else asked.arm
        self.answers += 1
        text = b"%d" % self.answers
        stored = self.cache.put(asked.miss, RULE, kept(body=text, label=label), arm=arm)
        self.cache.end(asked.miss)
        before = self.model.get((arm, *asked.where))
        newer = before is not None and before[1] > asked.asked
        if asked.late or label != "success":
            assert not stored
        elif stored:
            self.model[arm, *asked.where] = (text, asked.asked)
        else:
            assert newer

    @rule(asked=flying)
    def fail(self, asked: Flying) -> None:
        if asked in self.open:
            self.open.remove(asked)
        self.cache.end(asked.miss)

    @rule(tenant=st.sampled_from([*TENANTS, None]))
    def write(self, tenant: str | None) -> None:
        self.cache.drop("slots", (tenant,) if tenant else None)
        for place in [place for place in self.model if tenant in (place[2], None)]:
            del self.model[place]
        for asked in self.open:
            if tenant in (asked.where[1], None):
                asked.late, asked.leads = True, False

    @rule(seconds=st.sampled_from([1.0, TTL / 2, TTL, TTL + STALE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def only_what_the_model_allows_is_heard(self) -> None:
        for arm in ARMS:
            for name in NAMES:
                for tenant in TENANTS:
                    self.look(arm, name, tenant)

    def look(self, arm: str, name: str, tenant: str) -> None:
        """A miss is always allowed: there is only so much room."""
        stale = self.cache.stale(arm, self.spot(name, tenant), self.now)
        known = self.model.get((arm, name, tenant))
        if stale is None:
            return
        assert known is not None
        assert (stale.kept.body, stale.asked) == known
        assert self.now < known[1] + TTL + STALE
        fresh = stale.fresh_until > self.now
        assert fresh == (self.now < known[1] + TTL)

    @invariant()
    def it_is_bounded_and_its_indexes_agree(self) -> None:
        cache = self.cache
        assert len(cache) <= 8
        assert cache.bytes == sum(map(size_of, cache._entries.values()))
        assert set().union(*cache._by_tool.values()) == cache._entries.keys()
        assert set().union(*cache._by_tenant.values()) == cache._entries.keys()
        assert all(cache._by_tool.values())
        assert all(cache._by_tenant.values())
        flying = {f.miss for f in self.open}
        assert set().union(*cache._open.values()) == flying
        assert set(cache._leaders.values()) <= flying


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
