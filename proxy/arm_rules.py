"""What do the rules of one arm mean to its breaker, its verdicts, its probes and its catalogue?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from proxy.adapters.asking import Asking
from proxy.adapters.catalogues import Source
from proxy.adapters.probes import Probed
from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.breaker_values import BreakerConfig
from proxy.core.expect import Expected
from proxy.core.health import HealthConfig
from proxy.core.model import Verdict
from proxy.core.probe_call import probe_call
from proxy.core.rules import Backend, Rules
from proxy.core.rules.arm import Health
from proxy.core.rules.cross_arm import is_tool
from proxy.core.rules.tools import DEFAULT
from proxy.core.verdict import BUSINESS_NO, FAILED_BODY
from proxy.ports import Arm

PROBE_LEASE: Final = 10.0
"""Seconds after which a probe counts as lost, unless the rules give it longer."""

_VERDICTS: Final[dict[str, Verdict]] = {"failed": FAILED_BODY, "business_no": BUSINESS_NO}


def breaker_config(rules: Rules, name: str) -> BreakerConfig:
    """An arm's breaker as the rules want it."""
    backend = rules.backends[name]
    said, health = backend.breaker, backend.health
    patience = health.timeout if health is not None and health.timeout is not None else 0.0
    return BreakerConfig(
        failures=said.failures,
        open_for=said.open_for,
        open_max=said.open_max,
        half_open=said.half_open,
        last_resort=rules.fallback.last_resort,
        probe_lease=max(PROBE_LEASE, patience),
        window=said.window,
        min_volume=said.min_volume,
        failure_rate=said.failure_rate,
        slow=said.slow,
        slow_rate=said.slow_rate,
        enabled=said.enabled,
    )


def breaker_tools(rules: Rules, name: str) -> list[str]:
    """The tools that have a breaker of their own on an arm."""
    per_tool = rules.backends[name].breaker.per_tool
    return [tool for tool in rules.tools if per_tool and tool != DEFAULT]


def body_verdicts(backend: Backend) -> BodyVerdicts | None:
    """What the rules read in the arm's answers; None if nothing."""
    said = backend.body_verdicts
    return BodyVerdicts((one.when, _VERDICTS[one.verdict]) for one in said) if said else None


def probed(rules: Rules, arm: Arm, covered: Callable[[], bool]) -> Probed:
    """How an arm is probed; `covered()` tells whether its calls can be rescued."""
    said = rules.backends[arm.name].health
    if said is None:
        return Probed(arm, covered)
    config = HealthConfig(said.every, said.healthy_after, said.unhealthy_after)
    return Probed(arm, covered, config, _asking(rules, arm, said))


def sources(rules: Rules, arms: Iterable[Arm]) -> Iterator[Source]:
    """The arms whose MCP servers are asked what they list."""
    for arm in arms:
        refresh, said = getattr(arm.backend, "refresh", None), rules.backends[arm.name]
        if arm.speaks_mcp and refresh is not None and said.catalogue_every is not None:
            yield Source(arm, refresh, said.url or "", said.catalogue_every)


def _asking(rules: Rules, arm: Arm, said: Health) -> Asking:
    call = None
    if said.probe is not None and is_tool(rules, said.probe):
        call = probe_call(said.probe, said.arguments, arm.backend.kinds)
    expected = Expected(said.expect) if said.expect is not None else None
    return Asking(said.path or "", expected, call, said.timeout)
