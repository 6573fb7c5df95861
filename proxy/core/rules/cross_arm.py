"""Which parts of one backend's rules contradict each other: breaker, verdicts, health?"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from proxy.core.expect import expect_faults
from proxy.core.matchers import answer_faults
from proxy.core.model import Effect, Kind
from proxy.core.rules.arm import Backend, Breaker, Health
from proxy.core.rules.finding import Finding, Path, of_when
from proxy.core.rules.model import Rules
from proxy.core.rules.tools import DEFAULT
from proxy.core.suggest import did_you_mean
from proxy.core.units import say_duration

OWN_PROBES = {"mcp": ("server/discover", "tools/list")}
"""Probes that a handler of ours knows by name."""

SPEAKS = {"webhook": Kind.FUNCTION, "tools": Kind.TOOLS, "mcp": Kind.TOOLS}
"""By handler of ours: the kind whose path a tool that is probed is asked at."""


def of_arms_own(rules: Rules) -> Iterator[Finding]:
    """What does not fit together within each backend."""
    for name, backend in rules.backends.items():
        path: Path = ("backends", name)
        yield from _of_breaker(rules, (*path, "breaker"), backend)
        yield from _of_verdicts((*path, "body_verdicts"), backend)
        if backend.health is not None:
            yield from _of_health(rules, (*path, "health"), backend, backend.health)


def _of_breaker(rules: Rules, path: Path, backend: Backend) -> Iterator[Finding]:
    said = backend.breaker
    written = said.model_fields_set
    if "open_max" in written and said.open_max < said.open_for:
        rest = say_duration(said.open_for)
        yield Finding((*path, "open_max"), f"is shorter than the first rest, open_for: {rest}")
    yield from _idle(path, said)
    if said.slow is not None and said.slow >= backend.timeout:
        message = f"no answer can take longer: the timeout is {say_duration(backend.timeout)}"
        yield Finding((*path, "slow"), message, "time-outs alone would be slow", warning=True)
    if said.per_tool and not rules.tools.keys() - {DEFAULT}:
        message = "no tool has an entry in `tools`, so none gets a breaker"
        yield Finding((*path, "per_tool"), message, warning=True)


def _idle(path: Path, said: Breaker) -> Iterator[Finding]:
    """Keys that are written, but without the one that gives them a meaning."""
    written = said.model_fields_set
    if said.slow is None and "slow_rate" in written:
        hint = "write slow: 1s beside it, or take it away"
        yield Finding((*path, "slow_rate"), "nothing is slow without `slow`", hint, warning=True)
    if said.slow is None and said.failure_rate is None:
        for key in ("window", "min_volume"):
            if key in written:
                message = f"{key} concerns the rates, and none is asked for"
                hint = "write failure_rate: 50% or slow: 1s beside it, or take it away"
                yield Finding((*path, key), message, hint, warning=True)


def _of_verdicts(path: Path, backend: Backend) -> Iterator[Finding]:
    for index, entry in enumerate(backend.body_verdicts):
        for at, message in answer_faults(entry.when):
            yield of_when((*path, index, "when"), at, message)


def _of_health(rules: Rules, path: Path, backend: Backend, said: Health) -> Iterator[Finding]:
    if said.expect is not None:
        for at, message in expect_faults(said.expect):
            yield of_when((*path, "expect"), at, message, what="expect")
        if said.path is None:
            yield Finding((*path, "expect"), "there is no `path` whose answer could be read")
    if said.path is not None and said.probe is not None:
        message = "an arm is asked in one way: by `path`, or by `probe`"
        yield Finding((*path, "probe"), message)
    if said.probe is not None:
        yield from _of_probe(rules, (*path, "probe"), backend, said.probe)
    if said.arguments is not None and not is_tool(rules, said.probe):
        yield Finding((*path, "arguments"), "there is no `probe` that is a tool to call with them")


def is_tool(rules: Rules, probe: str | None) -> bool:
    """Whether a probe is a tool of the rules."""
    return probe is not None and probe != DEFAULT and probe in rules.tools


def _of_probe(rules: Rules, path: Path, backend: Backend, probe: str) -> Iterator[Finding]:
    own = OWN_PROBES.get(backend.handler, ())
    if is_tool(rules, probe):
        yield from _of_tool(rules, path, backend, probe)
    elif backend.handler in SPEAKS and probe not in own:
        known = [*own, *(tool for tool in rules.tools if is_tool(rules, tool))]
        hint = did_you_mean(probe, known) or f"known here: {', '.join(known) or 'no probe'}"
        message = f"'{probe}' is neither a tool of the rules nor a probe of {backend.handler}"
        yield Finding(path, message, hint)


def _of_tool(rules: Rules, path: Path, backend: Backend, probe: str) -> Iterator[Finding]:
    if rules.tool(probe).effect is not Effect.READ:
        message = f"'{probe}' may change something: a probe calls it for nobody"
        yield Finding(path, message, "only a tool with effect: read can be probed with")
    kind = SPEAKS.get(backend.handler)
    own = urlsplit(backend.url or "").path or (backend.paths.get(kind) if kind else "")
    if kind is not None and not own:
        yield Finding(path, "the url has no path at which a tool could be called")
