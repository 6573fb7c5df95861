"""`callsplit`: the commands and where they live."""

from __future__ import annotations

import typer

from proxy import __version__
from proxy.cli.breaker import breaker_app
from proxy.cli.demo import demo
from proxy.cli.explain import explain
from proxy.cli.health import health
from proxy.cli.outbox import outbox_app
from proxy.cli.replay import replay_app
from proxy.cli.rules import rules_app
from proxy.cli.serve import serve
from proxy.cli.status import status

app = typer.Typer(
    name="callsplit",
    help="Split live phone calls between an MCP backend and a webhook backend.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"callsplit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Split live phone calls between an MCP backend and a webhook backend."""


app.command()(serve)
app.command()(demo)
app.add_typer(rules_app)
app.command()(explain)
app.command()(status)
app.command()(health)
app.add_typer(breaker_app, name="breaker")
app.add_typer(replay_app, name="replay")
app.add_typer(outbox_app, name="outbox")


def main() -> None:
    """The console script."""
    app()
