"""`callsplit breaker`: how the arms' breakers stand, and an operator's hand on them."""

from __future__ import annotations

from typing import Any

import typer

from proxy.cli.admin_client import ADMIN, TOKEN, Admin
from proxy.cli.output import FORMAT, USAGE, Format, emit, fail, print_table

breaker_app = typer.Typer(help="Breakers of the running sidecar.", no_args_is_help=True)
ARM = typer.Argument(help="The arm, as named in the rules.")

SERVICE = typer.Option("", "--service", help="Only this arm.")
TOOL = typer.Option(
    "",
    "--tool",
    help="Only this tool's breaker on the arm; left out: the arm's and all its tools'.",
)
REASON = typer.Option("", "--reason", help="Why; goes into the log.")


def describe(state: dict[str, Any]) -> str:
    """A breaker's state in words, with the time until it is tried again."""
    left = state.get("reopens_in")
    return str(state["state"]) if left is None else f"{state['state']} for {left:.0f} s more"


def rows(breakers: dict[str, Any]) -> list[list[object]]:
    """One row an arm, and one for each tool that has a breaker there."""
    return [
        [name, describe(state), state["failures"], lately(state), last_change(state)]
        for arm, of_arm in breakers.items()
        for name, state in [(arm, of_arm), *of_tools(arm, of_arm)]
    ]


def of_tools(arm: str, state: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The breakers that tools have on an arm, under the name of both."""
    return [(f"{arm} {tool}", one) for tool, one in state.get("tools", {}).items()]


def lately(state: dict[str, Any]) -> str:
    """What the window shows; empty if no rule asks for a rate."""
    window = state.get("window")
    if not window:
        return ""
    rates = {"failed": window["failure_rate"], "slow": window["slow_rate"]}
    told = [f"{rate:.0f} % {what}" for what, rate in rates.items() if rate is not None]
    return f"{', '.join(told)} of {window['volume']}"


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
    columns = ("arm", "breaker", "failures in a row", "lately", "last change")
    emit(breakers, output, lambda: print_table("", columns, rows(breakers)))


def _change(action: str, arm: str, tool: str, reason: str, admin: Admin) -> None:
    said = {"reason": reason} | ({"tool": tool} if tool else {})
    change = admin.post(f"/breakers/{arm}/{action}", None, **said)
    typer.echo(f"{arm} {tool}".rstrip() + f": {change['before']} -> {change['after']}")


@breaker_app.command()
def reset(
    arm: str = ARM,
    tool: str = TOOL,
    reason: str = REASON,
    admin: str = ADMIN,
    admin_token: str = TOKEN,
) -> None:
    """Close it and forget what was counted.

    From then on it works by itself again.
    """
    _change("reset", arm, tool, reason, Admin(admin, admin_token))


@breaker_app.command("open")
def force_open(
    arm: str = ARM,
    tool: str = TOOL,
    reason: str = REASON,
    admin: str = ADMIN,
    admin_token: str = TOKEN,
) -> None:
    """Ask this arm no more until `reset`."""
    _change("open", arm, tool, reason, Admin(admin, admin_token))


@breaker_app.command()
def close(
    arm: str = ARM,
    tool: str = TOOL,
    reason: str = REASON,
    admin: str = ADMIN,
    admin_token: str = TOKEN,
) -> None:
    """Ask this arm whatever happens, until `reset`."""
    _change("close", arm, tool, reason, Admin(admin, admin_token))


@breaker_app.command("metrics-only")
def metrics_only(
    arm: str = ARM,
    tool: str = TOOL,
    reason: str = REASON,
    admin: str = ADMIN,
    admin_token: str = TOKEN,
) -> None:
    """Count, but never refuse, until `reset`."""
    _change("metrics-only", arm, tool, reason, Admin(admin, admin_token))
