"""From rules to a `Line`: names concrete classes, keeps what outlives a reload.

`prepare` may fail and changes nothing; `commit` cannot fail.  What stays the same stays: pools of
unchanged endpoints, breakers by arm, the split's history and records, the limits' memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from backends import registry
from backends.base import BackendConfig, Errand, ToolConfig
from proxy.adapters.certificates import Certificates, Side
from proxy.adapters.clock import LoopClock
from proxy.adapters.upstream import Endpoint, HttpUpstream, Sweep
from proxy.adapters.watch import Watcher
from proxy.arm_rules import body_verdicts, breaker_config, breaker_tools
from proxy.core.addresses import Networks
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.auth import AuthPolicy, Credentials
from proxy.core.call_id import CallIds
from proxy.core.dialects.catalogue import Catalogue
from proxy.core.entry import Entry
from proxy.core.fields import fields
from proxy.core.force import Force
from proxy.core.hedge import Pace
from proxy.core.hops import INSTANCE
from proxy.core.limits import Limit
from proxy.core.mcp.face import Face
from proxy.core.model import Kind, Reply
from proxy.core.origins import Origins
from proxy.core.rescue import coverable
from proxy.core.retry_budget import RetryBudget
from proxy.core.rules import Backend as BackendRules
from proxy.core.rules import Rules, SecretRef
from proxy.core.rules.admission import requirements, start_faults
from proxy.core.rules.auth import Repeats
from proxy.core.rules.options import resolved
from proxy.core.rules.tls_ends import place_of
from proxy.core.splitter import Splitter
from proxy.core.tool_table import ToolTable
from proxy.edge import Edge, EdgeRules, Load
from proxy.errors import Fault, RulesError, SettingsError
from proxy.line import Line
from proxy.ports import Arm, Upstream

NO_URL = "http://127.0.0.1:9"
"""For handlers that answer in process: the upstream they never use (RFC 863, discard)."""

NETWORK_HANDLERS = frozenset({"webhook", "mcp", "tools"})
"""Handlers whose every wait is bounded by their upstream's deadline."""

SHORTEST_KEY = 16
"""Bytes of a key for MCP sessions."""

Secret = Callable[[SecretRef], bytes | None]
Aside = Callable[[Upstream, str], Callable[[Errand], None]]
"""By upstream and arm: what a backend may hand things to that nobody waits for."""
Known = Callable[[str], Catalogue | None]
"""What the server of an arm has listed last, if anything is known of it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What can go into force at once."""

    rules: Rules
    line: Line
    splitter: Splitter
    entry: Entry
    edge: Edge
    upstreams: Mapping[str, HttpUpstream]
    breakers: Mapping[str, ArmBreaker]
    sides: Mapping[str, Side]
    session_keys: tuple[bytes, ...] = field(default=(), repr=False)  # that the rules give
    admin_token: bytes | None = field(default=None, repr=False)


class Wiring:
    """Makes lines of rules.

    `secret` resolves a reference to bytes, None if it may be absent and is; it raises
    `SettingsError`.  `catalogue` is asked whenever the face lists tools.  `own` is the word by
    which this process knows its own requests.
    """

    def __init__(
        self,
        *,
        clock: LoopClock,
        watch: Watcher,
        sweep: Sweep,
        secret: Secret,
        certificates: Certificates,
        load: Load = lambda: (0, 0.0),
        catalogue: Known = lambda _: None,
        aside: Aside = lambda *_: lambda _: None,
        own: bytes = b"",
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.upstreams: Mapping[str, HttpUpstream] = {}
        self.breakers: Mapping[str, ArmBreaker] = {}
        self._arms: Mapping[str, Arm] = {}
        self._splitter: Splitter | None = None
        self._edge: Edge | None = None
        self._clock = clock
        self._watch = watch
        self._sweep = sweep
        self._secret = secret
        self._certificates = certificates
        certificates.renewed = self._renew
        self._jitter = jitter
        self._load = load
        self._catalogue = catalogue
        self._aside = aside
        self._own = own

    def prepare(self, rules: Rules, health: Callable[[], Reply]) -> Prepared:
        """Build everything; changes nothing.  Raises `RulesError` or `SettingsError`."""
        faults = start_faults(rules, self._has)
        if faults:
            raise RulesError([Fault(text) for text in faults])
        tools = ToolTable(rules.tools, rules.fallback.budget)
        sides = self._certificates.prepare(rules)
        upstreams = {
            name: self._upstream(name, entry, sides.get(place_of(name)))
            for name, entry in rules.backends.items()
        }
        breakers = {name: self._breaker(name, rules) for name in rules.backends}
        arms = {
            name: self._arm(name, rules, tools, upstreams[name], breakers[name])
            for name in rules.backends
        }
        entry = Entry.from_rules(
            rules.split, salt=self._salt(rules), at_ms=self._clock.wall_ms(), why="rules loaded"
        )
        splitter = self._splitter or Splitter(entry, fields_of=fields, arms=arms)
        edge = Edge(
            self._edge_rules(rules), self._watch, self._edge, load=self._load, own=self._own
        )
        line = Line(
            edge=edge,
            ids=CallIds.of(rules.split.call_id_headers, rules.split.call_id_query),
            splitter=splitter,
            arms=arms,
            to=rules.split.to,
            otherwise=rules.split.otherwise,
            tools=tools,
            fallback=rules.fallback,
            health=health,
            covers={name: covers(rules, arms, name) for name in arms},
            face=self._face(tools, speaking(rules, arms)),
            passthrough=rules.passthrough,
            expose_headers=rules.listen.expose_headers,
        )
        keys = self._session_keys(rules)
        admin = self._maybe(rules.admin.token)
        return Prepared(rules, line, splitter, entry, edge, upstreams, breakers, sides, keys, admin)

    def commit(self, prepared: Prepared) -> list[HttpUpstream]:
        """Put it into force; the pools that nobody uses any more are for the caller to close."""
        kept = set(prepared.upstreams.values())
        retired = [upstream for upstream in self.upstreams.values() if upstream not in kept]
        now = self._clock.now()
        for name, breaker in prepared.breakers.items():
            breaker.name_tools(breaker_tools(prepared.rules, name))
            for each in breaker.each():
                change = each.configure(breaker_config(prepared.rules, name), now)
                if change is not None:
                    self._watch.breaker_changed(name, change)
        if self._splitter is not None:
            self._splitter.sync(prepared.entry, arms=prepared.line.arms)
        self._splitter, self._edge = prepared.splitter, prepared.edge
        self.upstreams, self.breakers = prepared.upstreams, prepared.breakers
        self._certificates.commit(prepared.sides)
        self._arms = prepared.line.arms
        return retired

    def _has(self, ref: SecretRef) -> bool:
        try:
            return self._secret(ref) is not None
        except SettingsError:
            return False

    def _maybe(self, ref: SecretRef | None) -> bytes | None:
        return self._secret(ref) if ref is not None else None

    def _all(self, refs: Iterable[SecretRef]) -> tuple[bytes, ...]:
        return tuple(secret for ref in refs if (secret := self._secret(ref)) is not None)

    def _salt(self, rules: Rules) -> str:
        salt = rules.split.salt
        if isinstance(salt, str):
            return salt
        return (self._secret(salt) or b"").decode("utf-8", "surrogateescape")

    def _session_keys(self, rules: Rules) -> tuple[bytes, ...]:
        keys = self._all(rules.listen.session_keys)
        if any(len(key) < SHORTEST_KEY for key in keys):
            fault = f"listen.session_keys: a key is shorter than {SHORTEST_KEY} bytes"
            hint = "whoever holds a session could find it by trying: openssl rand -hex 32"
            raise RulesError([Fault(fault, hint=hint)])
        return keys

    def _renew(self, place: str) -> None:
        """The certificates of one end have changed under its connections."""
        for name, upstream in self.upstreams.items():
            if place_of(name) == place:
                upstream.renew()

    def _upstream(self, name: str, entry: BackendRules, side: Side | None) -> HttpUpstream:
        endpoint = Endpoint.from_url(
            entry.url or NO_URL,
            connections=entry.connections,
            queue=entry.queue,
            queue_timeout=entry.queue_timeout,
            connect_timeout=entry.connect_timeout,
            keepalive=entry.keepalive,
            server_name=entry.tls.server_name,
            tls=side.end if side is not None else None,
        )
        before = self.upstreams.get(name)
        if before is not None and before.endpoint == endpoint:
            return before
        always = [(INSTANCE, self._own)] if self._own else []
        return HttpUpstream(endpoint, clock=self._clock, sweep=self._sweep, always=always, tls=side)

    def _breaker(self, name: str, rules: Rules) -> ArmBreaker:
        known = self.breakers.get(name)
        return known or ArmBreaker(breaker_config(rules, name), jitter=self._jitter)

    def _arm(
        self,
        name: str,
        rules: Rules,
        tools: ToolTable,
        upstream: HttpUpstream,
        breaker: ArmBreaker,
    ) -> Arm:
        entry, before = rules.backends[name], self._arms.get(name)
        retries = before.retries if before is not None else RetryBudget()
        pace = before.pace if before is not None else Pace()
        ratio = rules.fallback.retry_budget / 100
        url = urlsplit(entry.url or "")
        config = BackendConfig(
            name=name,
            path=url.path,
            query=url.query,
            paths=entry.paths,
            bearer=self._maybe(entry.bearer),
            sign=self._maybe(entry.sign),
            health_path=(entry.health.path or "") if entry.health else "",
            probe=(entry.health.probe or "") if entry.health else "",
            tools={tool: tool_config(tools, tool, name) for tool in tools.names},
            by_rule=body_verdicts(entry),
            options=resolved(entry.options, self._secret),
            wall_ms=self._clock.wall_ms,
            may_repeat=self._may_repeat(name, retries, ratio),
            aside=self._aside(upstream, name),
        )
        made_of = (entry, config.tools, config.bearer, config.sign, config.options, ratio, upstream)
        if before is not None and before.made_of == made_of:
            backend = before.backend  # What it has learned, and the sessions it holds, go on.
        else:
            backend = registry.create(entry.handler, config)
        return Arm(
            name,
            backend,
            upstream,
            breaker,
            entry.timeout,
            entry.not_executed,
            config.by_rule,
            listeners=max(1, entry.connections // 2),
            spare=lambda: upstream.busy < max(1, entry.connections * 3 // 4),
            speaks_mcp=bool(getattr(backend, "speaks_mcp", False)),
            in_process=entry.handler not in NETWORK_HANDLERS,
            sign=config.sign,
            retries=retries,
            retry_ratio=ratio,
            pace=pace,
            made_of=made_of,
        )

    def _face(self, tools: ToolTable, arms: list[str]) -> Face:
        """MCP callers hear the same names of tools from it as from the arms."""
        tools.speak_as(arms)
        if not arms:
            return Face(tools.ruled)
        return Face(tools.ruled, arm=arms[0], catalogue=partial(self._catalogue, arms[0]))

    def _may_repeat(self, arm: str, retries: RetryBudget, ratio: float) -> Callable[[], bool]:
        def may_repeat() -> bool:
            given = retries.take(self._clock.now(), ratio)
            self._watch.repeated(arm, "given" if given else "refused")
            return given

        return may_repeat

    def _edge_rules(self, rules: Rules) -> EdgeRules:
        auth, limits, listen, force = rules.auth, rules.limits, rules.listen, rules.split.force
        credentials = Credentials(self._all(auth.tokens), self._all(auth.retell_keys))
        policy = AuthPolicy(
            requirements(rules), credentials, tolerance_ms=round(auth.signature_tolerance * 1000)
        )
        token = self._maybe(force.token) if force is not None else None
        return EdgeRules(
            auth=policy,
            allow=Networks.of(auth.allow),
            trusted=Networks.of(listen.trusted_proxies),
            body_limit=listen.body_limit,
            body_timeout=listen.body_timeout,
            tool_limit=limit(limits.tools_per_minute, limits.burst),
            address_limit=limit(limits.ip_per_minute, limits.burst),
            in_flight=limits.in_flight,
            max_lag=limits.max_lag,
            hops=limits.hops,
            once_only=auth.signature_repeats is Repeats.REFUSE,
            force=Force(force.header.encode(), token) if force is not None else None,
            origins=Origins(listen.origins),
            passthrough=rules.passthrough is not None,
            backend_paths=backend_paths(rules),
        )


def covers(rules: Rules, arms: Mapping[str, Arm], arm: str) -> frozenset[Kind]:
    """The kinds that the opposite of `arm` may answer instead of it."""
    split, fallback = rules.split, rules.fallback
    other = split.to if arm == split.otherwise else split.otherwise
    return coverable(
        arm,
        otherwise=split.otherwise,
        takes=arms[other].backend.kinds,
        enabled=fallback.enabled,
        both_ways=fallback.both_ways,
    )


def speaking(rules: Rules, arms: Mapping[str, Arm]) -> list[str]:
    """The arms that speak MCP, those of the split first."""
    first = (rules.split.to, rules.split.otherwise)
    return [name for name in dict.fromkeys((*first, *arms)) if arms[name].speaks_mcp]


def limit(per_minute: int | None, burst: float) -> Limit | None:
    """A limit of the rules; None switches it off."""
    return Limit(per_minute, burst) if per_minute is not None else None


def backend_paths(rules: Rules) -> list[str]:
    """Every path at which a backend is called: closed to passthrough."""
    own = [urlsplit(entry.url or "").path for entry in rules.backends.values()]
    by_kind = [path for entry in rules.backends.values() for path in entry.paths.values()]
    return [path for path in (*own, *by_kind) if path not in ("", "/")]


def tool_config(tools: ToolTable, tool: str, arm: str) -> ToolConfig:
    """What the backend of `arm` may know of a tool."""
    known = tools.get(tool)
    return ToolConfig(known.effect, known.names.get(arm, ""), known.output_schema)


def same_answers(rules: Rules) -> dict[str, object]:
    """What says of each arm where it is and what it speaks: equal, and its answers still hold."""
    return {
        name: (arm.handler, arm.url, arm.paths, arm.options, arm.bearer, arm.sign)
        for name, arm in rules.backends.items()
    }
