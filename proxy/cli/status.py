"""`callsplit status`: what the running sidecar does, on one page."""

from __future__ import annotations

from typing import Any

from proxy.cli.admin_client import ADMIN, TOKEN, Admin
from proxy.cli.breaker import describe
from proxy.cli.output import FORMAT, Format, emit, print_table


def status(admin: str = ADMIN, admin_token: str = TOKEN, output: Format = FORMAT) -> None:
    """Show share, arms, breakers and rules of the running sidecar."""
    page = Admin(admin, admin_token).get("/status")
    emit(page, output, lambda: _print(page))


def _print(page: dict[str, Any]) -> None:
    split, rules = page["split"], page["rules"]
    facts = [
        ("share", f"{split['percent']:g} % to {split['to']}, the rest to {split['otherwise']}"),
        ("cap", f"{split['cap']:g} %"),
        ("kill switch", "ON: no call reaches " + split["to"] if split["kill_switch"] else "off"),
        ("last 5 minutes", f"{split['actual_percent']:.1f} % of the tool calls to {split['to']}"),
        ("in flight", page["inflight"]),
        ("connections", page["connections"]),
        ("rules", f"{rules['digest']} from {rules['path']}, taken {rules['taken_at']}"),
        ("last reload", rules["fault"] or "fine"),
        *(("warning", warning) for warning in rules["warnings"]),
        *(("warning", fault) for fault in _certificate_faults(page)),
        *(("secret", _age(secret)) for secret in page.get("secrets", ())),
        ("state", page["state"]),
        ("up since", page["started_at"]),
    ]
    print_table(f"callsplit {page['version']}", ("", ""), facts)
    arms = [
        [name, describe(arm["breaker"]), _health(arm["health"]), arm["live_calls"], arm["busy"],
         arm["idle"], arm["url"] or arm["handler"]]
        for name, arm in page["arms"].items()
    ]  # fmt: skip
    columns = ("arm", "breaker", "health", "live calls", "busy", "idle", "where")
    print_table("", columns, arms)


def _certificate_faults(page: dict[str, Any]) -> list[str]:
    """Why new files of TLS are not in force."""
    known = page.get("certificates", [])
    return [f"the old certificate stays: {one['fault']}" for one in known if one["fault"]]


def _age(secret: dict[str, Any]) -> str:
    return f"{secret['key']} ({secret['ref']}) in use for {secret['age_days']} days"


def _health(result: dict[str, Any] | None) -> str:
    if result is None:
        return "not probed"
    return f"well {result['at']}" if result["ok"] else f"unwell {result['at']}: {result['detail']}"
