"""What has been asked just now is not asked again: the tool cache on the path of a request.

`look` says what a request may do: go on unnoticed, hear a kept answer, or go on with a `Fetch`
whose answer may be kept.  Of requests that may share one answer the first asks and its twins `join`
it, each for as long as it can wait; if nothing comes of the first, each asks for itself, once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Final, TypeAlias

from msgspec import Struct

from proxy.core.cache import MAX_BYTES, MAX_COUNT, Cache, Entry, Miss, may_share
from proxy.core.cache_key import CacheRule, cache_rule, spot_of, tenant_of
from proxy.core.dialects.kept import Kept, again
from proxy.core.fields import fields
from proxy.core.model import Call, Effect, Reply
from proxy.core.rules.tools import Tool
from proxy.core.tool_table import ToolTable
from proxy.flights import Flights
from proxy.ports import Clock, Watch

AGE: Final = b"x-callsplit-age"
"""Header: whole seconds since the arm was asked for this answer."""

STALE: Final = (b"x-callsplit-stale", b"true")

_Dropped: TypeAlias = tuple[CacheRule, ...]


class Landed(Struct, frozen=True, gc=False):
    """What came of a fetch that others joined."""

    kept: Kept
    arm: str


class Fetch:
    """A request whose answer may be kept.  It must end, in `keep` or `fail`; `with` sees to that.

    `twin`: an earlier one is under way, so `Cached.join` it first.  `arm` is who gave the answer
    that was joined: its rescuer, if the first one had to be rescued.
    """

    __slots__ = ("_cached", "arm", "call", "miss", "rule")

    def __init__(self, cached: Cached, call: Call, rule: CacheRule, miss: Miss) -> None:
        self.call = call
        self.rule = rule
        self.miss = miss
        self.arm = miss.arm
        self._cached = cached

    @property
    def twin(self) -> bool:
        """Somebody has asked already, and has no answer yet."""
        return self.miss.leader is not None

    def keep(self, kept: Kept | None, arm: str) -> None:
        """`arm` has answered, and this is what can be kept of it; None: nothing.

        A rescue is kept as what it is, an answer of the arm that gave it.
        """
        self._cached.landed(self, kept, arm)

    def fail(self) -> None:
        """No arm has answered; harmless after `keep`."""
        self._cached.landed(self, None, self.arm)

    def __enter__(self) -> Fetch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.fail()


class Cached:
    """The kept answers of one process; they outlive a reload where their rules stay."""

    def __init__(
        self, *, clock: Clock, watch: Watch, max_bytes: int = MAX_BYTES, max_count: int = MAX_COUNT
    ) -> None:
        self.cache = Cache(max_bytes=max_bytes, max_count=max_count)
        self._clock = clock
        self._watch = watch
        self._flights: Flights[Miss, Landed | None] = Flights(clock)
        self._rules: dict[str, CacheRule] = {}
        self._drops: dict[str, _Dropped] = {}
        self._drops_unknown: _Dropped = ()
        self._arms: dict[str, object] = {}

    @property
    def tools(self) -> Collection[str]:
        """Those whose answers are kept."""
        return self._rules.keys()

    def use(
        self, tools: ToolTable, *, arms: Mapping[str, object], call_ids: Collection[str]
    ) -> None:
        """Put rules into force; what they change is forgotten.

        `arms` says of each arm where it is and what it speaks: anything that equals itself as long
        as the arm gives the same answers.  `call_ids` are the query's names for a call's ID.
        """
        resolved = {name: tools.get(name) for name in tools.names}
        rules = {
            name: rule
            for name, tool in resolved.items()
            if (rule := cache_rule(tool, call_ids)) is not None
        }
        for name, rule in self._rules.items():
            if rules.get(name) != rule:
                self.cache.drop(name)
        for arm, before in self._arms.items():
            if arm not in arms or arms[arm] != before:
                self.cache.drop_arm(arm)
        self._rules, self._arms = rules, dict(arms)
        self._drops = {name: _drops(tool, rules) for name, tool in resolved.items()}
        self._drops_unknown = _drops(tools.get(None), rules)

    def look(self, call: Call, arm: str, now: float) -> Reply | Fetch | None:
        """What a request decided for `arm` may do; None: its answers are not kept."""
        rule = self._rules.get(call.tool or "")
        if rule is None:
            return None
        spot = spot_of(rule, call, fields(call))
        if spot is None:
            self._watch.cache_looked(rule.tool, "skipped")
            return None
        entry = self.cache.fresh(arm, spot, now)
        if entry is not None:
            self._watch.cache_looked(rule.tool, "hit")
            return _reply(call, rule, entry, now)
        return Fetch(self, call, rule, self.cache.begin(arm, spot, now))

    async def join(self, fetch: Fetch, until: float) -> Reply | None:
        """The first one's answer, if it comes by `until`; None: ask for yourself.

        A rescue is heard, too: its twins would have been rescued likewise (`Fetch.arm` says
        by whom).  So is a business "no", though it is not kept.
        """
        miss, leader = fetch.miss, fetch.miss.leader
        if leader is None:
            return None
        landed = None if leader.ended else await self._flights.wait(leader, until)
        miss.leader = None
        if landed is not None:
            fetch.arm = landed.arm
            self._end(fetch, "joined", None)
            return _again(fetch.call, fetch.rule, landed.kept, age=0)
        now = self._clock.now()
        entry = self.cache.fresh(miss.arm, miss.spot, now)
        if entry is None:
            return None
        self._end(fetch, "hit", None)
        return _reply(fetch.call, fetch.rule, entry, now)

    def stale(self, fetch: Fetch) -> Reply | None:
        """An answer that is past its time, marked, for who would hear the last answer instead."""
        now = self._clock.now()
        entry = self.cache.stale(fetch.miss.arm, fetch.miss.spot, now)
        if entry is None:
            return None
        self._end(fetch, "stale", None)
        reply = _reply(fetch.call, fetch.rule, entry, now)
        reply.headers.append(STALE)
        return reply

    def wrote(self, call: Call) -> None:
        """A write has succeeded, or nobody knows: forget what it makes untrue.

        Of its tenant only, if the request names one; on every arm.  Answers on their way are not
        kept either, and nobody joins them any more: they may be from before.
        """
        if call.tool is None:
            return
        drops = self._drops.get(call.tool, self._drops_unknown)
        if drops:
            found = fields(call)
            for rule in drops:
                self.cache.drop(rule.tool, tenant_of(rule, found))

    def landed(self, fetch: Fetch, kept: Kept | None, arm: str) -> None:
        """What came of a fetch: see `Fetch.keep`."""
        if fetch.miss.ended:
            return
        heard = None
        if kept is not None and may_share(kept, fetch.rule):
            self.cache.put(fetch.miss, fetch.rule, kept, arm=arm)
            heard = Landed(kept, arm)
        self._end(fetch, "miss", heard)

    def _end(self, fetch: Fetch, result: str, heard: Landed | None) -> None:
        self.cache.end(fetch.miss)
        self._flights.land(fetch.miss, heard)
        self._watch.cache_looked(fetch.rule.tool, result)


def _drops(tool: Tool, rules: Mapping[str, CacheRule]) -> _Dropped:
    if tool.effect is Effect.READ:
        return ()
    return tuple(rules[name] for name in tool.invalidates if name in rules)


def _reply(call: Call, rule: CacheRule, entry: Entry, now: float) -> Reply:
    return _again(call, rule, entry.kept, age=int(now - entry.asked))


def _again(call: Call, rule: CacheRule, kept: Kept, *, age: int) -> Reply:
    reply = again(call, kept, rule.output_schema)
    reply.headers.append((AGE, b"%d" % age))
    return reply
