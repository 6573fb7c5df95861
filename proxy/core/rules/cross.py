"""Which parts of the rules contradict each other?"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.core.matchers import faults as when_faults
from proxy.core.matchers import uses_request_fields
from proxy.core.model import Effect
from proxy.core.rules.arm import Backend
from proxy.core.rules.caching import of_caching
from proxy.core.rules.cross_arm import of_arms_own
from proxy.core.rules.cross_tls import of_tls
from proxy.core.rules.finding import Finding, Path, of_when
from proxy.core.rules.literal import of_literals
from proxy.core.rules.model import Rules
from proxy.core.rules.serving import of_serving
from proxy.core.rules.split import Override
from proxy.core.rules.tools import DEFAULT, resolve
from proxy.core.suggest import did_you_mean

RESERVED = frozenset({"none", "other"})
"""What logs and metrics call "no arm": no backend may be named so."""


def contradictions(rules: Rules) -> list[Finding]:
    """Everything that only shows once the sections are seen together."""
    return [
        *_of_listeners(rules),
        *_of_arms(rules),
        *_of_overrides(rules),
        *_of_backends(rules),
        *of_arms_own(rules),
        *_of_tools(rules),
        *of_caching(rules),
        *of_serving(rules),
        *of_tls(rules),
        *of_literals(rules),
    ]


def _of_listeners(rules: Rules) -> Iterator[Finding]:
    taken = {rules.listen.address: "listen.address"}
    for path, address in (
        (("listen", "observe"), rules.listen.observe),
        (("admin", "address"), rules.admin.address),
    ):
        if address is None or address.port == 0:
            continue
        if address in taken:
            yield Finding(path, f"{address} is taken by {taken[address]} already")
        taken.setdefault(address, ".".join(path))


def _of_arms(rules: Rules) -> Iterator[Finding]:
    split = rules.split
    yield from _of_backend(rules, ("split", "to"), split.to)
    yield from _of_backend(rules, ("split", "otherwise"), split.otherwise)
    if rules.passthrough is not None:
        yield from _of_backend(rules, ("passthrough",), rules.passthrough)
    if split.to == split.otherwise:
        yield Finding(("split", "otherwise"), f"both arms are '{split.to}'", "name two backends")


def _of_backend(rules: Rules, path: Path, name: str) -> Iterator[Finding]:
    if name not in rules.backends:
        known = ", ".join(rules.backends) or "none"
        hint = did_you_mean(name, rules.backends) or f"backends here: {known}"
        yield Finding(path, f"no backend is named '{name}'", hint)


def _of_overrides(rules: Rules) -> Iterator[Finding]:
    for index, override in enumerate(rules.split.overrides):
        path: Path = ("split", "overrides", index)
        below = when_faults(override.when)
        for at, message in below:
            yield of_when((*path, "when"), at, message)
        if (override.to is None) == (override.percent is None):
            yield Finding(path, "an override has either `to` or `percent`")
        yield from _of_target(rules, path, override, usable=not below)


def _of_target(rules: Rules, path: Path, override: Override, *, usable: bool) -> Iterator[Finding]:
    split, to = rules.split, override.to
    arms = {split.to, split.otherwise}
    if to is not None and to not in rules.backends:
        yield from _of_backend(rules, (*path, "to"), to)
    elif to is not None and to not in arms and arms <= rules.backends.keys():
        hint = f"an override chooses {split.to} or {split.otherwise}"
        yield Finding((*path, "to"), f"'{to}' is no arm of this split", hint)
    if usable and uses_request_fields(override.when) and to != split.otherwise:
        yield Finding(
            (*path, "when"),
            "tool and header differ between the requests of one call",
            f"such an override can only send to {split.otherwise}: a call keeps its arm",
        )


def _of_backends(rules: Rules) -> Iterator[Finding]:
    for name, backend in rules.backends.items():
        path: Path = ("backends", name)
        if name in RESERVED:
            yield Finding(path, f"'{name}' is what logs call no arm at all", at_key=True)
        if backend.url is None and backend.handler in ("webhook", "mcp", "tools"):
            yield Finding(path, f"a backend with handler {backend.handler} needs a url")
        if name == rules.passthrough and backend.url is None:
            yield Finding(("passthrough",), f"'{name}' has no url to pass requests to")
        if name == rules.split.otherwise and backend.handler == "webhook":
            yield from _of_signing(rules, path, backend)


def _of_signing(rules: Rules, path: Path, backend: Backend) -> Iterator[Finding]:
    to = rules.backends.get(rules.split.to)
    if to is not None and to.handler != "webhook" and backend.sign is None:
        yield Finding(
            path,
            "MCP calls that this webhook answers carry no Retell signature: we compose them",
            "if it verifies signatures, add sign: env:RETELL_API_KEY",
            at_key=True,
            warning=True,
        )


def _of_tools(rules: Rules) -> Iterator[Finding]:
    for tool, entry in rules.tools.items():
        for arm in entry.names:
            if arm not in rules.backends:
                hint = did_you_mean(arm, rules.backends)
                message = f"no backend is named '{arm}'"
                yield Finding(("tools", tool, "names", arm), message, hint, at_key=True)
        if entry.hedge and tool != DEFAULT:
            yield from _of_hedge(rules, tool)


def _of_hedge(rules: Rules, tool: str) -> Iterator[Finding]:
    effect = resolve(rules.tools, tool).effect
    if effect is not Effect.READ:
        message = f"both arms would run '{tool}', whose effect is {effect}"
        hint = "only a tool with effect: read can be hedged"
        yield Finding(("tools", tool, "hedge"), message, hint)
