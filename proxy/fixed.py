"""What do command line, start and machine fix, whatever the rules file says later?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proxy.adapters.listener import Options
from proxy.adapters.rules_file import LoadedRules
from proxy.adapters.sockets import LISTENER
from proxy.core.addresses import Networks
from proxy.core.rules import Address, Rules
from proxy.core.rules.parse import parse_address
from proxy.errors import SettingsError
from proxy.settings import Settings

OTHERS = 128
"""Descriptors for files, the loop, operators' connections and the like."""


def listener_options(rules: Rules, descriptors: int) -> Options:
    """What the listener is told of the rules; `descriptors` is how many this process may open."""
    listen = rules.listen
    return Options(
        head_timeout=listen.header_timeout,
        idle_timeout=listen.idle_timeout,
        write_timeout=listen.write_timeout,
        connections=min(listen.connections, affordable(rules, descriptors)),
        per_address=listen.connections_per_address,
        trusted=Networks.of(listen.trusted_proxies),
        arriving=rules.limits.bodies,
    )


def affordable(rules: Rules, descriptors: int) -> int:
    """How many callers may connect so that descriptors are left to ask the arms with."""
    arms = sum(backend.connections for backend in rules.backends.values())
    return max(1, descriptors - OTHERS - arms)


def descriptor_warnings(rules: Rules, descriptors: int) -> list[str]:
    """Connections that the rules promise and this process cannot open."""
    most, wanted = affordable(rules, descriptors), rules.listen.connections
    if most >= wanted:
        return []
    return [
        f"listen.connections: {wanted}, but this process may open {descriptors} files, which "
        f"leaves {most}: raise its limit (ulimit -n, or LimitNOFILE= in its systemd unit)"
    ]


def fixed_at_start(rules: Rules) -> dict[str, Any]:
    """Keys that a running process cannot change."""
    listen = rules.listen
    return {
        "listen.address": listen.address,
        "listen.observe": listen.observe,
        "listen.access_log": listen.access_log,
        "admin.address": rules.admin.address,
        "metrics.namespace": rules.metrics.namespace,
        "state": rules.state,
        "state_dir": rules.state_dir,
        "outbox.store": rules.outbox.store,
    }


def where_it_listens(rules: Rules, fixed: Mapping[str, Any]) -> Rules:
    """The rules with the addresses in use: who may ask is judged by those, not by the file's."""
    listen = rules.listen.model_copy(update={"address": fixed["listen.address"]})
    admin = rules.admin.model_copy(update={"address": fixed["admin.address"]})
    return rules.model_copy(update={"listen": listen, "admin": admin})


def with_flags(
    loaded: LoadedRules, settings: Settings, given: Mapping[str, Address] | None = None
) -> LoadedRules:
    """The rules with the addresses that outrank the file: of sockets that this process was `given`
    (by name), then of the command line.

    Raises `SettingsError` for what is no address.
    """
    rules, outranking = loaded.rules, dict(given or {})
    if settings.listen is not None:
        outranking.setdefault(LISTENER, flag("--listen", settings.listen))
    if settings.admin_listen is not None:
        outranking.setdefault("admin", flag("--admin-listen", settings.admin_listen))
    if (address := outranking.get("admin")) is not None:
        update = {"address": address}
        rules = rules.model_copy(update={"admin": rules.admin.model_copy(update=update)})
    keys = {LISTENER: "address", "observe": "observe"}
    listen = {key: outranking[name] for name, key in keys.items() if name in outranking}
    if listen:
        rules = rules.model_copy(update={"listen": rules.listen.model_copy(update=listen)})
    return replace(loaded, rules=rules)


def places(rules: Rules) -> dict[str, Address]:
    """Where the process listens, by the names of `proxy.adapters.sockets`."""
    found = {LISTENER: rules.listen.address, "admin": rules.admin.address}
    return found if rules.listen.observe is None else {**found, "observe": rules.listen.observe}


def flag(name: str, value: str) -> Address:
    """An address given by a flag or setting."""
    try:
        return parse_address(value)
    except ValueError as fault:
        raise SettingsError(f"{name}: {fault}") from fault
