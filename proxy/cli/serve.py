"""`callsplit serve`: run the sidecar until it is told to stop."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from proxy.cli.output import FINE, USAGE, fail, say

if TYPE_CHECKING:
    from proxy.adapters.rules_file import LoadedRules
    from proxy.errors import RulesError
    from proxy.settings import Settings


def serve(
    rules: Annotated[
        Path | None, typer.Option("--rules", help="The rules file; else CALLSPLIT_RULES.")
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option("--env-file", help="Variables besides the environment's.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="host:port; outranks listen.address.")
    ] = None,
    admin_listen: Annotated[
        str | None, typer.Option("--admin-listen", help="host:port; outranks admin.address.")
    ] = None,
) -> None:
    """Run the sidecar.

    SIGTERM drains and ends it, SIGHUP reloads the rules, SIGUSR2 restarts it without a lost call.
    """
    from proxy.errors import RulesError, SettingsError
    from proxy.settings import load_settings

    try:
        settings = load_settings(
            env_file=env_file, rules=rules, listen=listen, admin_listen=admin_listen
        )
        code = run(load(settings), settings)
    except SettingsError as error:
        fail(str(error), USAGE)
    except RulesError as error:
        refuse(error)
    raise typer.Exit(code)


def load(settings: Settings) -> LoadedRules:
    """The rules; what is wrong with them a process that waits for this one hears too."""
    from proxy.adapters.rules_file import load_rules
    from proxy.errors import RulesError
    from proxy.inherited import excuse

    try:
        return load_rules(settings.rules, settings.environment)
    except RulesError as error:
        excuse(settings.environment, why_not(error))
        raise


def refuse(error: RulesError) -> NoReturn:
    """Print every fault with its place; end with exit 2."""
    from proxy.core.rules.fault_text import fault_text

    for fault in error.faults:
        say(fault_text(fault))
    fail("these rules cannot go into force here; nothing was started", USAGE)


def run(loaded: LoadedRules, settings: Settings) -> int:
    """Serve until a signal ends it; the exit code.  Raises `RulesError` or `SettingsError`."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(loaded, settings))


def cannot_listen(error: OSError) -> str:
    """What failed, where, and the way out.  The loop names the address in its own error."""
    why = error.strerror or str(error)
    hint = "is another process there? " if error.errno == errno.EADDRINUSE else ""
    return (
        f"cannot listen: {why}; {hint}listen.address and admin.address, or --listen and "
        "--admin-listen, name other addresses"
    )


async def _serve(loaded: LoadedRules, settings: Settings) -> int:
    import gc
    import os

    from proxy.adapters.clock import LoopClock
    from proxy.adapters.descriptors import raise_descriptors
    from proxy.adapters.logs import configure
    from proxy.adapters.spawn import own_command
    from proxy.adapters.supervisor import Supervisor
    from proxy.app import App
    from proxy.errors import CallsplitError
    from proxy.inherited import Inherited
    from proxy.lifecycle import Lifecycle
    from proxy.settings import environment_of_successor

    raise_descriptors()
    environment = settings.environment
    log = configure(LoopClock().wall_ms, human=settings.log_format == "console")
    inherited = await Inherited.find(environment, pid=os.getpid(), state_dir=loaded.rules.state_dir)
    if inherited.note:
        log.warning("sockets_ignored", why=inherited.note)
    app: App | None = None
    try:
        app = App(loaded, settings, log, access_fd=sys.stdout.fileno(), inherited=inherited)
        life = Lifecycle(
            app,
            Supervisor(environment),
            log,
            command=own_command(),
            environment=environment_of_successor(),
        )
        await life.start()
    except (OSError, CallsplitError) as error:
        await inherited.fail(why_not(error))
        if app is not None:
            await app.aclose()
        if isinstance(error, OSError):
            fail(cannot_listen(error), USAGE)
        raise
    gc.collect()
    gc.freeze()  # what start-up made stays: without it each full collection walks it, up to 45 ms
    # By default the young are walked for every 700 new objects: fewer than 64 requests under way
    # hold, and nothing on their path makes cycles that could be found.
    gc.set_threshold(50_000, 20, 50)
    await life.end()
    return FINE


def why_not(error: Exception) -> str:
    """One line for the process that was to be followed; no source line, it may hold a secret."""
    from proxy.core.rules.fault_text import headline
    from proxy.errors import RulesError

    if isinstance(error, RulesError):
        return "; ".join(headline(fault) for fault in error.faults)
    return cannot_listen(error) if isinstance(error, OSError) else str(error)
