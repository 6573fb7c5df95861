"""`callsplit outbox`: events that no arm took, and an operator's hand on them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import typer

from proxy.cli.admin_client import ADMIN, TOKEN, Admin
from proxy.cli.output import FORMAT, Format, emit, fail, print_table, say

outbox_app = typer.Typer(
    help="Events that wait because no backend took them.", no_args_is_help=True
)

STATE = typer.Option("all", "--state", help="queued, dead or all.")
CALL = typer.Option("", "--call", help="Only those of this call.")
ENTRY = typer.Argument(help="The event's number, as `list` shows it.")
ENTRIES = typer.Argument(help="The event's number, or `dead` for all that are.")
BODY = typer.Option(False, "--body", help="Its body too: personal data. The log says who asked.")
REASON = typer.Option("", "--reason", help="Why; goes into the log.")
YES = typer.Option(False, "--yes", help="Do not ask whether that is meant.")


def rows(entries: list[dict[str, Any]]) -> list[list[object]]:
    """One row an event."""
    return [
        [each["id"], each["call_id"], each["event"], _stands(each), each["tries"],
         each["received_at"], each["bytes"], each["reason"]]
        for each in entries
    ]  # fmt: skip


def headline(page: dict[str, Any]) -> str:
    """How the outbox stands, in a line."""
    if not page["store"]:
        return f"no outbox: {page['why']}"
    oldest = page["oldest_seconds"]
    parts = [f"{page['queued']} queued", f"{page['dead']} dead", f"{page['bytes']} bytes"]
    if oldest is not None:
        parts.append(f"the oldest waits for {oldest} s")
    if not page["usable"]:
        parts.append(f"the {page['store']} store cannot be used: {page['why']}")
    elif not page["takes"]:
        parts.append("takes no more (outbox.enabled is false)")
    elif not page["delivers"]:
        parts.append("another replica delivers")
    return ", ".join(parts)


def _stands(entry: dict[str, Any]) -> str:
    if entry["under_way"]:
        return "under way"
    return f"next {entry['next_at']}" if entry["next_at"] else str(entry["state"])


@outbox_app.command("list")
def show_all(
    state: str = STATE,
    call: str = CALL,
    admin: str = ADMIN,
    admin_token: str = TOKEN,
    output: Format = FORMAT,
) -> None:
    """Show what waits, the oldest first."""
    only = {"call_id": call} if call else {}
    page = Admin(admin, admin_token).get("/outbox", state=state, **only)
    columns = ("id", "call", "event", "state", "tries", "received", "bytes", "reason")
    emit(page, output, lambda: print_table(headline(page), columns, rows(page["entries"])))
    if page["left_out"]:
        say(f"{page['left_out']} more; --call or --state narrows it down")


@outbox_app.command()
def show(
    entry: str = ENTRY,
    body: bool = BODY,
    reason: str = REASON,
    admin: str = ADMIN,
    admin_token: str = TOKEN,
    output: Format = FORMAT,
) -> None:
    """Show one event with its headers and its size.

    Its body holds personal data (the transcript, numbers), so it is shown only with --body.
    """
    asked = {"whole": "true", "reason": reason} if body else {}
    page = Admin(admin, admin_token).get(f"/outbox/{quote(entry, safe='')}", **asked)
    emit(page, output, lambda: _print(page))


@outbox_app.command()
def retry(
    entry: str = ENTRIES, reason: str = REASON, admin: str = ADMIN, admin_token: str = TOKEN
) -> None:
    """Deliver it now, with all its time again.

    `dead` brings back all that were given up: mend first what they died of.
    """
    _change("retry", "retried", entry, reason, Admin(admin, admin_token))


@outbox_app.command()
def drop(
    entry: str = ENTRIES,
    reason: str = REASON,
    yes: bool = YES,
    admin: str = ADMIN,
    admin_token: str = TOKEN,
) -> None:
    """Forget it, delivered or not.

    It was acknowledged to its sender, who will not send it again.
    """
    what = "every dead event" if entry == "dead" else f"event {entry}"
    if not yes and not typer.confirm(f"Forget {what} for good?", err=True):
        fail("nothing was dropped")
    _change("drop", "dropped", entry, reason, Admin(admin, admin_token))


def _change(action: str, done: str, entry: str, reason: str, admin: Admin) -> None:
    """Page by page; what dies again meanwhile is not brought back again."""
    changed, wanted = 0, 1
    while changed < wanted:
        answer = admin.post(f"/outbox/{quote(entry, safe='')}/{action}", reason=reason)
        wanted = changed + answer[done] + answer["left"] if not changed else wanted
        changed += answer[done]
        if not answer[done]:
            break
    typer.echo(f"{changed} {done}")


def _print(page: dict[str, Any]) -> None:
    about = {key: value for key, value in page.items() if key != "request"}
    print_table("", ("", ""), about.items())
    request = page["request"]
    if request is None:
        say("its request cannot be read any more")
        return
    typer.echo(f"{request['method']} {request['target']}")
    for name, value in request["headers"]:
        typer.echo(f"{name}: {value}")
    typer.echo(f"({request['body_bytes']} bytes of body)")
    if (body := request.get("body", request.get("body_base64"))) is not None:
        typer.echo(f"\n{body}")
