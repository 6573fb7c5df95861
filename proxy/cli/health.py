"""`callsplit health`: is the sidecar alive, and is traffic welcome?  For containers and people."""

from __future__ import annotations

import time

import typer

from proxy.cli.admin_client import ADMIN, TOKEN, Admin, Unreachable
from proxy.cli.output import FORMAT, Format, emit, print_table

HEALTHY, WARNING, CRITICAL = 0, 1, 2


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
        if code is HEALTHY or time.monotonic() >= until:
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
    return _arms(sidecar)


def _odd(status: int) -> tuple[int, list[tuple[str, str, str]]]:
    return CRITICAL, [("process", f"answered {status}", "is this the admin listener?")]


def _arms(sidecar: Admin) -> tuple[int, list[tuple[str, str, str]]]:
    """Ready; an arm that is not well is a warning, because the other one answers."""
    checks, code = [("ready", "yes", "")], HEALTHY
    for arm, state in sidecar.get("/breakers").items():
        well = state["state"] in ("closed", "forced_closed", "metrics_only")
        hint = "" if well else f"callsplit breaker status; its last change: {state['last']}"
        checks.append((f"breaker {arm}", state["state"], hint))
        code = code if well else WARNING
    return code, checks
