"""`callsplit replay`: which writes are held back from running again, and letting one run."""

from __future__ import annotations

from typing import Any

import typer

from proxy.cli.admin_client import ADMIN, TOKEN, Admin
from proxy.cli.output import FORMAT, Format, emit, print_table, say

replay_app = typer.Typer(help="Writes that the running sidecar remembers.", no_args_is_help=True)

STATE = typer.Option(
    "held", "--state", help="held (unknown and in_flight), unknown, in_flight, done or all."
)
CALL = typer.Option("", "--call", help="Only those of this call.")
RECORD = typer.Argument(help="The record's ID, as `list` shows it.")
REASON = typer.Option("", "--reason", help="Why; goes into the log.")

_UNITS = ((3600, "h"), (60, "min"))


def age(seconds: float) -> str:
    """How long, in the unit that people would use."""
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def rows(records: list[dict[str, Any]]) -> list[list[object]]:
    """One row a record."""
    return [
        [each["id"], each["call_id"], each["tool"], each["state"], age(each["age"]), each["run"]]
        for each in records
    ]


@replay_app.command("list")
def show(
    state: str = STATE,
    call: str = CALL,
    admin: str = ADMIN,
    admin_token: str = TOKEN,
    output: Format = FORMAT,
) -> None:
    """Show the writes that must not run again, the doubtful ones first."""
    only = {"call_id": call} if call else {}
    page = Admin(admin, admin_token).get("/replays", state=state, **only)
    columns = ("id", "call", "tool", "state", "for", "run")
    emit(page, output, lambda: print_table("", columns, rows(page["records"])))
    if page["more"]:
        say("there are more; --call or --state narrows it down")


@replay_app.command()
def release(
    record: str = RECORD, reason: str = REASON, admin: str = ADMIN, admin_token: str = TOKEN
) -> None:
    """Let a write run again.

    For one that may have run: look first whether it did, or it may be done twice.
    """
    change = Admin(admin, admin_token).post(f"/replays/{record}/release", reason=reason)
    typer.echo(f"{record}: {change['before']} -> {change['after']}")
