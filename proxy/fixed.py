"""What do command line and start fix, whatever the rules file says later?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proxy.adapters.listener import Options
from proxy.adapters.rules_file import LoadedRules
from proxy.core.rules import Address, Rules
from proxy.core.rules.parse import parse_address
from proxy.errors import SettingsError
from proxy.settings import Settings


def listener_options(rules: Rules) -> Options:
    """What the listener is told of the rules, once, at start."""
    return Options(head_timeout=rules.listen.header_timeout, idle_timeout=rules.listen.idle_timeout)


def fixed_at_start(rules: Rules) -> dict[str, Any]:
    """Keys that a running process cannot change."""
    listen = rules.listen
    return {
        "listen.address": listen.address,
        "listen.observe": listen.observe,
        "listen.header_timeout": listen.header_timeout,
        "listen.idle_timeout": listen.idle_timeout,
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


def with_flags(loaded: LoadedRules, settings: Settings) -> LoadedRules:
    """The rules with the addresses of the command line, which outrank the file.

    Raises `SettingsError` for what is no address.
    """
    rules = loaded.rules
    if settings.listen is not None:
        update = {"address": flag("--listen", settings.listen)}
        rules = rules.model_copy(update={"listen": rules.listen.model_copy(update=update)})
    if settings.admin_listen is not None:
        update = {"address": flag("--admin-listen", settings.admin_listen)}
        rules = rules.model_copy(update={"admin": rules.admin.model_copy(update=update)})
    return replace(loaded, rules=rules)


def flag(name: str, value: str) -> Address:
    """An address given by a flag or setting."""
    try:
        return parse_address(value)
    except ValueError as fault:
        raise SettingsError(f"{name}: {fault}") from fault
