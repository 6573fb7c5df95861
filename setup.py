"""How callsplit is built.  What it is stands in setup.cfg; here is only its compiled form.

With CALLSPLIT_COMPILE=1 the modules of COMPILED become one C extension (mypyc), from the very same
sources.  Without it nothing is compiled.  `make compiled` does it, apart from the tree.
"""

from __future__ import annotations

import configparser
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

COMPILED = {
    "the path itself, run once per request": """
        proxy.handler proxy.hedging proxy.attempt proxy.once proxy.flights proxy.cached proxy.line
        proxy.relay proxy.edge proxy.sessions proxy.endings proxy.finale proxy.lasting
        proxy.passing proxy.protocol
    """,
    "who may ask: every byte of a head, every credential": """
        proxy.core.addresses proxy.core.auth proxy.core.force proxy.core.guard proxy.core.head
        proxy.core.hops proxy.core.limits proxy.core.origins proxy.core.readings proxy.core.routes
        proxy.core.seen_signatures proxy.core.shedding proxy.core.signature proxy.core.tokens
    """,
    "what is asked, and which arm answers": """
        proxy.core.call_id proxy.core.dialects.headers proxy.core.dialects.members proxy.core.dotted
        proxy.core.doubts proxy.core.entry proxy.core.exchange_headers proxy.core.history
        proxy.core.look proxy.core.matchers proxy.core.mcp.asked proxy.core.mcp.face
        proxy.core.mcp.mirrored
        proxy.core.mcp.refusal proxy.core.mcp.session proxy.core.partial proxy.core.recognise
        proxy.core.records proxy.core.session_split proxy.core.split proxy.core.splitter
        proxy.core.targets proxy.core.tool_call proxy.core.tool_table proxy.core.when
    """,
    "what has run, or is kept": """
        proxy.core.cache proxy.core.cache_key proxy.core.fingerprints proxy.core.replay
        proxy.core.replay_events proxy.core.replay_former proxy.core.replay_key
        proxy.core.replay_last proxy.core.replay_store
    """,
    "whether the arm may be asked, and what its answer means": """
        proxy.core.arm_breaker proxy.core.body_verdicts proxy.core.breaker
        proxy.core.breaker_values proxy.core.dialects.answers proxy.core.dialects.last_answer
        proxy.core.dialects.sse proxy.core.rates proxy.core.rescue proxy.core.rest
        proxy.core.retry_after proxy.core.retry_budget proxy.core.trials proxy.core.verdict
        proxy.core.window
    """,
    "both legs' wire": """
        proxy.adapters.listener.chunks proxy.adapters.listener.framing
        proxy.adapters.listener.request proxy.adapters.listener.seams proxy.adapters.turn
        proxy.adapters.upstream.answer proxy.adapters.upstream.connection
        proxy.adapters.upstream.framing proxy.adapters.upstream.head
        proxy.adapters.upstream.pool proxy.adapters.upstream.sweep proxy.adapters.upstream.wire
    """,
    "what is told of each exchange": """
        proxy.adapters.access proxy.adapters.clock proxy.adapters.logs proxy.adapters.tallies
        proxy.adapters.watch
    """,
}
"""Modules, by what they do for a request.  Any module may leave; all others stay Python."""

INTERPRETED = {
    "backends": "users' backends may inherit from ours, and from compiled classes they cannot",
    "proxy.adapters.listener.connection": "inherits from aiohttp's RequestHandler, which has slots",
    "proxy.adapters.listener.outlet": "the same",
    "proxy.adapters.upstream.body": "weakly referenced, which an object of C cannot be",
    "proxy.adapters.upstream.waiting": "only asked where every connection is in use",
    "proxy.core.dialects.function": "decodes into its own structs: see `proxy.core.shapes`",
    "proxy.core.dialects.jsonrpc": "the same",
    "proxy.core.dialects.kept": "the same",
    "proxy.core.dialects.tools": "the same",
    "proxy.core.exchange": "a struct with a default that C takes for the field's value",
    "proxy.core.fields": "decodes into its own structs",
    "proxy.core.model": "structs and enumerations: msgspec's C makes them already",
    "proxy.core.rules": "pydantic reads its annotations; once per reload",
    "proxy.core.shapes": "msgspec decodes by its annotations, of which C keeps too little",
    "proxy.core.soundness": "judges values of any type, and C would refuse them before it could",
    "proxy.core.tool_call_id": "decodes into its own structs",
    "proxy.errors": "users' backends may inherit from them",
    "proxy.ports": "protocols",
}
"""Modules and packages that a request meets too, and why they are not compiled."""

NAME = "callsplit_native"


def modules() -> list[str]:
    """Every module that is compiled."""
    return [name for group in COMPILED.values() for name in group.split()]


def needs() -> list[str]:
    """What compiling takes besides setuptools: mypyc, and all types that mypy is to see."""
    setup_cfg = configparser.ConfigParser()
    setup_cfg.read(Path(__file__).with_name("setup.cfg"))
    shipped = setup_cfg["options"]["install_requires"].split("\n")
    dev = setup_cfg["options.extras_require"]["dev"].split("\n")
    return [*filter(None, shipped), *(each for each in dev if each.startswith(("mypy", "types-")))]


def missing() -> str | None:
    """What a C extension cannot be built without, if it is not there."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return (
            f"a C compiler, and {compiler} is not there (Debian: apt-get install build-essential)"
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's C headers (Debian: apt-get install python3-dev)"
    return None


def extensions() -> list[Extension]:
    """The modules as one extension and a stub each.  Ends the build if it cannot be made."""
    if absent := missing():
        raise SystemExit(f"callsplit: compiling needs {absent}")
    from mypyc.build import mypycify  # Not there where nothing is compiled.

    paths = [f"{name.replace('.', '/')}.py" for name in modules()]
    made = mypycify(
        ["--config-file", "setup.cfg", *paths], opt_level="3", multi_file=True, group_name=NAME
    )
    for extension in made:  # Calls between its files need no detour then.
        extension.extra_compile_args.append("-fvisibility=hidden")
    return list(made)


if __name__ == "__main__":
    asked = os.environ.get("CALLSPLIT_COMPILE") == "1"
    # pip asks for the needs and the metadata first, when mypyc may not be there yet.
    describes = {"egg_info", "dist_info"} & set(sys.argv)
    setup(
        setup_requires=needs() if asked else [],
        ext_modules=extensions() if asked and not describes else [],
    )
