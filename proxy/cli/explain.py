"""`callsplit explain`: why does a call get its arm, and what would change that?"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.cli.admin_client import TOKEN, Admin
from proxy.cli.output import FORMAT, USAGE, Format, emit, fail, print_table, say

if TYPE_CHECKING:
    from proxy.adapters.rules_file import LoadedRules
    from proxy.settings import Settings

BY_NATURE = frozenset({"event", "inbound", "alert"})
"""Kinds that not every arm takes: then the call's arm is not the request's."""

MAX_BODY = 256 * 1024
"""Bytes; the admin takes no more either."""


def explain(
    call_id: Annotated[str | None, typer.Option(help="The call's (or chat's) ID.")] = None,
    body: Annotated[
        Path | None, typer.Option(help="A request's JSON body, for overrides; - reads stdin.")
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(help="The rules file; else CALLSPLIT_RULES, else rules/rules.yaml."),
    ] = None,
    percent: Annotated[
        float | None, typer.Option(min=0, max=100, help="As if the share were this.")
    ] = None,
    admin: Annotated[
        str | None, typer.Option(help="Ask the running sidecar here: it knows history and records.")
    ] = None,
    admin_token: str = TOKEN,
    env_file: Annotated[
        Path | None, typer.Option(help="Variables to fill in besides the environment's.")
    ] = None,
    output: Format = FORMAT,
) -> None:
    """Tell why a call goes where it goes.

    By a rules file, or by a running sidecar (--admin).
    """
    if call_id is None and body is None:
        fail("which call? give --call-id, --body or both", USAGE)
    if call_id is not None and not _is_text(call_id):
        fail("--call-id is no text", USAGE)
    content = None if body is None else _read(body)
    if admin is None:
        page = _by_rules(call_id, content, rules, percent, env_file)
    elif rules is not None or percent is not None or env_file is not None:
        fail(
            "a sidecar goes by its own rules: --admin takes no --rules, --percent, --env-file",
            USAGE,
        )
    else:
        page = _by_sidecar(Admin(admin, admin_token), call_id, content)
    emit(page, output, lambda: _print(page))


def _is_text(argument: str) -> bool:
    """False for bytes that the shell passed and no encoding explains."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(MAX_BODY + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BODY + 1)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", USAGE)
    if len(content) > MAX_BODY:
        fail(f"{path} is larger than {MAX_BODY // 1024} kB", USAGE)
    return content


def _by_sidecar(sidecar: Admin, call_id: str | None, body: bytes | None) -> dict[str, Any]:
    query = {} if call_id is None else {"call_id": call_id}
    page: dict[str, Any] = (
        sidecar.get("/explain", **query)
        if body is None
        else sidecar.post("/explain", body, **query)
    )
    return page


def _by_rules(
    call_id: str | None,
    body: bytes | None,
    path: Path | None,
    percent: float | None,
    env_file: Path | None,
) -> dict[str, Any]:
    from dataclasses import replace

    from proxy.core.call_id import CallIds
    from proxy.core.entry import Entry
    from proxy.core.example import example_call
    from proxy.core.explain import explain as explain_call
    from proxy.core.fields import fields
    from proxy.core.splitter import Splitter

    settings, loaded = _load(path, env_file)
    split, now = loaded.rules.split, time.time_ns() // 1_000_000
    salt = _salt(settings, loaded)
    ids = CallIds.of(split.call_id_headers, split.call_id_query)
    try:
        entry = Entry.from_rules(split, salt=salt, at_ms=now, why=str(loaded.path))
        if percent is not None:
            entry = replace(entry, percent=percent, who="--percent", why="")
        call = example_call(call_id, body, ids)
    except ValueError as error:
        fail(str(error), USAGE)
    splitter = Splitter(entry, fields_of=fields, arms=loaded.rules.backends)
    return explain_call(splitter, call, now).to_dict()


def _load(path: Path | None, env_file: Path | None) -> tuple[Settings, LoadedRules]:
    from proxy.adapters.rules_file import load_rules
    from proxy.core.rules.fault_text import fault_text
    from proxy.errors import RulesError, SettingsError
    from proxy.settings import load_settings

    try:
        settings = load_settings(env_file=env_file, rules=path)
        return settings, load_rules(settings.rules, settings.environment)
    except SettingsError as error:
        fail(str(error), USAGE)
    except RulesError as error:
        for fault in error.faults:
            say(fault_text(fault))
        fail(f"{len(error.faults)} fault(s): these rules decide nothing")


def _salt(settings: Settings, loaded: LoadedRules) -> str:
    from proxy.errors import SettingsError

    salt = loaded.rules.split.salt
    if isinstance(salt, str):
        return salt
    try:
        secret = settings.secret(salt)
    except SettingsError as error:
        fail(str(error))
    if secret is None:
        say(f"callsplit: split.salt ({salt}) is not set here; where it is, hashes are others")
    return (secret or b"").decode("utf-8", "surrogateescape")


def _print(page: dict[str, Any]) -> None:
    print_table("", ("", ""), _facts(page))
    if page["overrides"]:
        print_table("overrides", ("", "leads to", "when", "used", "why"), _overrides(page))
    if page["steps"]:
        steps = [
            (f"{step['percent']:g} %", step["arm"], "changes" if step["changes"] else "")
            for step in page["steps"]
        ]
        print_table("were it a new call, and the share", ("share", "arm", ""), steps)


def _facts(page: dict[str, Any]) -> list[tuple[str, str]]:
    entry, record = page["entry"], page["record"]
    facts = [
        ("call", page["call_id"] or "no usable ID"),
        ("arm", page["arm"]),
        ("reason", f"{page['reason']}: {page['because']}"),
    ]
    if page["kind"] in BY_NATURE:
        facts.append(("but", f"this {page['kind']} itself goes to an arm that takes such requests"))
    if page["hashed"] is not None:
        hashed, fraction, joins_at = page["hashed"], page["fraction"], page["joins_at"]
        facts += [
            ("hash", f"{hashed} = {100 * fraction:.4f} %; joins at {joins_at:g} %"),
            ("threshold", f"{page['threshold']} = {page['percent']:g} %"),
        ]
    kill = ", kill switch ON" if entry["kill"] else ""
    since = f"since {_stamp(entry['at_ms'])} by {entry['who'] or 'nobody'}"
    facts += [
        ("split", f"{entry['percent']:g} % to {entry['to']}, cap {entry['cap']:g} %{kill}"),
        ("entry", f"{entry['epoch']}, {since}" + (f": {entry['why']}" if entry["why"] else "")),
        ("judged by", _judged(page)),
        ("record", "none" if record is None else _record(record)),
    ]
    return facts


def _judged(page: dict[str, Any]) -> str:
    judged_ms = page["judged_ms"]
    return str(page["judged_by"]) + ("" if judged_ms is None else f", {_stamp(judged_ms)}")


def _record(record: dict[str, Any]) -> str:
    ended = ", ended" if record["ended"] else ""
    return f"{record['arm']} by {record['reason']}, seen about {_stamp(record['seen_ms'])}{ended}"


def _overrides(page: dict[str, Any]) -> list[tuple[str, ...]]:
    import json

    return [
        (
            str(each["number"]),
            each["leads_to"] + (" (test)" if each["test"] else ""),
            json.dumps(each["when"], ensure_ascii=False),
            "yes" if each["used"] else "",
            each["why"],
        )
        for each in page["overrides"]
    ]


def _stamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
