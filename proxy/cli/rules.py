"""`callsplit rules`: check a rules file, show what it comes to, print its schema and keys."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.cli.output import FINE, PROBLEM, USAGE, fail, say

if TYPE_CHECKING:
    from proxy.adapters.rules_file import LoadedRules
    from proxy.settings import Settings

rules_app = typer.Typer(name="rules", help="Check and show the rules file.", no_args_is_help=True)


class Form(StrEnum):
    """Forms in which rules are shown."""

    YAML = "yaml"
    JSON = "json"


RulesPath = Annotated[
    Path | None,
    typer.Argument(help="The rules file; else CALLSPLIT_RULES, else rules/rules.yaml."),
]
EnvFile = Annotated[
    Path | None, typer.Option("--env-file", help="Variables to fill in besides the environment's.")
]

FileOnly = Annotated[
    bool,
    typer.Option(
        "--file-only", help="Look at the file alone, not for secrets and handlers: for CI."
    ),
]


@rules_app.command()
def check(path: RulesPath = None, env_file: EnvFile = None, file_only: FileOnly = False) -> None:
    """Tell all that is wrong with a rules file.

    Exit 1 if it cannot go into force.
    """
    settings = _settings(path, env_file)
    loaded = _loaded(settings)
    _print_notes(loaded)
    faults = [] if file_only else _faults_here(loaded, settings)
    for fault in faults:
        print(f"{loaded.path}: {fault}")
    if faults:
        say(f"{len(faults)} fault(s): these rules cannot go into force here")
        raise typer.Exit(PROBLEM)
    say(f"{loaded.path} is fine (digest {loaded.digest})")
    raise typer.Exit(FINE)


@rules_app.command()
def show(
    path: RulesPath = None,
    env_file: EnvFile = None,
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the data.")] = Form.YAML,
) -> None:
    """Print every value in effect.

    Defaults included; secrets stand as references.
    """
    from proxy.core.rules.show import shown

    _dump(shown(_loaded(_settings(path, env_file)).rules), output)


@rules_app.command()
def schema() -> None:
    """Print the JSON Schema of a rules file, for editors."""
    from proxy.core.rules.schema import rules_schema

    _dump(rules_schema(), Form.JSON)


@rules_app.command(hidden=True)
def reference(
    into: Annotated[Path | None, typer.Option(help="Bring this file's table up to date.")] = None,
) -> None:
    """Print the table of all keys, as it stands in rules/README.md."""
    from proxy.core.rules.reference import reference as table
    from proxy.core.rules.reference import with_reference

    if into is None:
        sys.stdout.write(table())
        return
    into.write_text(with_reference(into.read_text()))


def _settings(path: Path | None, env_file: Path | None) -> Settings:
    from proxy.errors import SettingsError
    from proxy.settings import load_settings

    try:
        return load_settings(env_file=env_file, rules=path)
    except SettingsError as error:
        fail(str(error), USAGE)


def _loaded(settings: Settings) -> LoadedRules:
    from proxy.adapters.rules_file import load_rules
    from proxy.core.rules.fault_text import fault_text
    from proxy.errors import RulesError

    try:
        return load_rules(settings.rules, settings.environment)
    except RulesError as error:
        for fault in error.faults:
            print(fault_text(fault))
        say(f"{len(error.faults)} fault(s)")
        raise typer.Exit(PROBLEM) from None


def _faults_here(loaded: LoadedRules, settings: Settings) -> list[str]:
    """What only shows on the machine that is to serve."""
    return [
        *_handler_faults(loaded),
        *_start_faults(loaded, settings),
        *_certificate_faults(loaded),
    ]


def _certificate_faults(loaded: LoadedRules) -> Iterator[str]:
    """Files of TLS that cannot be used; warnings are printed at once."""
    from proxy.adapters.certificates import examine
    from proxy.adapters.clock import LoopClock
    from proxy.core.rules.fault_text import described

    faults, warnings = examine(loaded.rules, LoopClock().wall_ms())
    for line in warnings:
        print(f"warning: {line}")
    yield from map(described, faults)


def _start_faults(loaded: LoadedRules, settings: Settings) -> list[str]:
    """What stands in the way here, with this environment; warnings are printed at once."""
    from datetime import UTC, datetime

    from proxy.core.rules.admission import start_faults, start_warnings
    from proxy.core.rules.secret_care import age_warnings, length_warnings

    notes = [
        *start_warnings(loaded.rules, settings.has_secret),
        *age_warnings(loaded.rules, datetime.now(UTC).date()),
        *length_warnings(loaded.rules, settings.secret_length),
    ]
    for line in notes:
        print(f"warning: {line}")
    return start_faults(loaded.rules, settings.has_secret)


def _handler_faults(loaded: LoadedRules) -> Iterator[str]:
    """Handlers that are not there; what they make of their options only `serve` can tell."""
    from backends import registry

    for name, backend in loaded.rules.backends.items():
        try:
            registry.load(backend.handler)
        except LookupError as error:
            hint = getattr(error, "hint", "")
            yield f"backends.{name}.handler: {error}" + (f" ({hint})" if hint else "")


def _print_notes(loaded: LoadedRules) -> None:
    """What is worth a look, although nothing is wrong with it."""
    from proxy.core.rules.fault_text import fault_text
    from proxy.core.rules.in_force import not_in_force

    for warning in loaded.warnings:
        print(f"warning: {fault_text(warning)}")
    for key in not_in_force(loaded.rules):
        print(f"not yet in force: {key}")


def _dump(value: Any, form: Form) -> None:
    if form is Form.JSON:
        import orjson

        sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    import yaml

    yaml.safe_dump(value, sys.stdout, sort_keys=False, allow_unicode=True, width=100)
