"""`callsplit breaker`: how the arms' breakers stand, and an operator's hand on them."""

from __future__ import annotations

from typing import Any

import typer

from proxy.cli.admin_client import ADMIN, TOKEN, Admin
from proxy.cli.output import FORMAT, USAGE, Format, emit, fail, print_table

breaker_app = typer.Typer(help="Breakers of the running sidecar.", no_args_is_help=True)
ARM = typer.Argument(help="The arm, as named in the rules.")

SERVICE = typer.Option("", "--service", help="Only this arm.")
REASON = typer.Option("", "--reason", help="Why; goes into the log.")


def describe(state: dict[str, Any]) -> str:
    """A breaker's state in words, with the time until it is tried again."""
    left = state.get("reopens_in")
    return str(state["state"]) if left is None else f"{state['state']} for {left:.0f} s more"


def rows(breakers: dict[str, Any]) -> list[list[object]]:
    """One row an arm."""
    return [
        [arm, describe(state), state["failures"], last_change(state)]
        for arm, state in breakers.items()
    ]


def last_change(state: dict[str, Any]) -> str:
    """Why and when a breaker came to stand as it does; empty if it never changed."""
    last = state.get("last")
    return f"{last['why']}, {last['at']}" if last else ""


@breaker_app.command()
def status(
    service: str = SERVICE, admin: str = ADMIN, admin_token: str = TOKEN, output: Format = FORMAT
) -> None:
    """Show every arm's breaker."""
    breakers = Admin(admin, admin_token).get("/breakers")
    if service:
        if service not in breakers:
            fail(f"no arm is called {service}; there are {', '.join(breakers)}", USAGE)
        breakers = {service: breakers[service]}
    columns = ("arm", "breaker", "failures in a row", "last change")
    emit(breakers, output, lambda: print_table("", columns, rows(breakers)))


def _change(action: str, arm: str, reason: str, admin: Admin) -> None:
    change = admin.post(f"/breakers/{arm}/{action}", reason=reason)
    typer.echo(f"{arm}: {change['before']} -> {change['after']}")


@breaker_app.command()
def reset(
    arm: str = ARM, reason: str = REASON, admin: str = ADMIN, admin_token: str = TOKEN
) -> None:
    """Close it and forget what was counted.

    From then on it works by itself again.
    """
    _change("reset", arm, reason, Admin(admin, admin_token))


@breaker_app.command("open")
def force_open(
    arm: str = ARM, reason: str = REASON, admin: str = ADMIN, admin_token: str = TOKEN
) -> None:
    """Ask this arm no more until `reset`."""
    _change("open", arm, reason, Admin(admin, admin_token))


@breaker_app.command()
def close(
    arm: str = ARM, reason: str = REASON, admin: str = ADMIN, admin_token: str = TOKEN
) -> None:
    """Ask this arm whatever happens, until `reset`."""
    _change("close", arm, reason, Admin(admin, admin_token))


@breaker_app.command("metrics-only")
def metrics_only(
    arm: str = ARM, reason: str = REASON, admin: str = ADMIN, admin_token: str = TOKEN
) -> None:
    """Count, but never refuse, until `reset`."""
    _change("metrics-only", arm, reason, Admin(admin, admin_token))
