"""`callsplit health`: is the sidecar alive, and is traffic welcome?  For containers and people."""

from __future__ import annotations

import time
from typing import Any

import typer

from proxy.cli.admin_client import ADMIN, TOKEN, Admin, Unreachable
from proxy.cli.breaker import describe, last_change
from proxy.cli.output import FORMAT, Format, emit, print_table

HEALTHY, WARNING, CRITICAL = 0, 1, 2
WELL = frozenset({"yes", "in force", "closed", "forced_closed", "metrics_only"})


def health(
    live: bool = typer.Option(False, "--live", help="Only whether the process answers."),
    wait: float = typer.Option(0.0, "--wait", help="Seconds to wait until it is ready."),
    admin: str = ADMIN,
    admin_token: str = TOKEN,
    output: Format = FORMAT,
) -> None:
    """Check the running sidecar.  Exit 0: healthy, 1: a warning, 2: critical."""
    sidecar, until = Admin(admin, admin_token), time.monotonic() + wait
    while True:
        code, checks = _check(sidecar, live=live)
        if code is not CRITICAL or time.monotonic() >= until:
            break
        time.sleep(0.2)
    shown = [{"check": name, "result": result, "hint": hint} for name, result, hint in checks]
    emit(shown, output, lambda: print_table("", ("check", "result", "hint"), checks))
    raise typer.Exit(code)


def _check(sidecar: Admin, *, live: bool) -> tuple[int, list[tuple[str, str, str]]]:
    try:
        status, page = sidecar.ask("GET", "/live" if live else "/ready")
    except Unreachable as gone:
        return CRITICAL, [("process", "no answer", f"{gone}; is it running? try `callsplit serve`")]
    if live:
        return (HEALTHY, [("process", "alive", "")]) if status == 200 else _odd(status)
    reasons = page.get("reasons", []) if isinstance(page, dict) else []
    if status != 200:
        return CRITICAL, [("ready", "no", ", ".join(reasons) or f"the admin answered {status}")]
    return _ready(sidecar.get("/status"))


def _odd(status: int) -> tuple[int, list[tuple[str, str, str]]]:
    return CRITICAL, [("process", f"answered {status}", "is this the admin listener?")]


def _ready(page: dict[str, Any]) -> tuple[int, list[tuple[str, str, str]]]:
    """Ready; what is not well beyond that is a warning, because somebody answers all the same."""
    fault = page["rules"]["fault"]
    checks = [("ready", "yes", ""), ("rules", "not taken" if fault else "in force", fault or "")]
    for arm, state in page["arms"].items():
        breaker, probed = state["breaker"], state["health"]
        checks.append((f"breaker {arm}", describe(breaker), _advice(arm, breaker)))
        if probed is not None and not probed["ok"]:
            checks.append((f"probe of {arm}", "unwell", f"{probed['detail']}, {probed['at']}"))
    well = all(result in WELL for _, result, _ in checks)
    return (HEALTHY if well else WARNING), checks


def _advice(arm: str, breaker: dict[str, Any]) -> str:
    if breaker["state"] == "forced_open":
        return f"by an operator; `callsplit breaker reset {arm}` lets it work again"
    return "" if breaker["state"] in WELL else last_change(breaker)
