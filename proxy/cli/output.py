"""How do commands speak?  Data on stdout in the form asked for, talk on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, NoReturn

import typer

FINE, PROBLEM, USAGE = 0, 1, 2
"""Exit codes of every command, unless its help says otherwise."""


WIDE = 10_000
"""Columns of a pipe or a file: rows are not wrapped there, so that they can be searched."""


class Format(StrEnum):
    """Forms of a command's data."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


FORMAT = typer.Option(Format.TABLE, "--output", "-o", help="Form of the data on stdout.")


def emit(value: Any, form: Format, table: Callable[[], None]) -> None:
    """Print `value` as JSON or YAML, or let `table` print it for people."""
    if form is Format.JSON:
        import orjson

        sys.stdout.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode())
        sys.stdout.write("\n")
    elif form is Format.YAML:
        import yaml

        yaml.safe_dump(value, sys.stdout, sort_keys=False, allow_unicode=True)
    else:
        table()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; plain enough to read without colour, and no cell is ever cut off.

    Columns without any name have no header.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    shown = Table(
        *(Column(name, overflow="fold") for name in columns),
        box=box.SIMPLE_HEAD,
        show_header=any(columns),
    )
    for row in rows:
        shown.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    if title:
        console.print(Text(title))
    console.print(shown)


def say(text: str) -> None:
    """Talk: progress, hints, warnings."""
    typer.echo(text, err=True)


def fail(text: str, code: int = PROBLEM) -> NoReturn:
    """Say what is wrong and how to mend it; end with `code`."""
    say(f"callsplit: {text}")
    raise typer.Exit(code)
