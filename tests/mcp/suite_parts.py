"""What is asked of callsplit by the conformance suite, part by part?  Nothing may be lost by it.

everything   both eras, through callsplit as direct, on our own everything-server
reference    the same on the protocol project's `server-everything`, a second opinion
outage       the MCP server is dead and a webhook answers: the basic scenarios as direct
client       callsplit is the client, and the suite the server
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.mcp import suite, suite_rig
from tests.mcp.suite import LEGACY, MODERN, Said, lost
from tests.mcp.suite_tools import Tools

Say: TypeAlias = Callable[[str], None]

REQUIRED = [["--requirements", LEGACY], ["--requirements", MODERN]]
"""What each revision demands, frozen at its release; these must pass whole."""

WHOLE = [["--suite", "all", "--spec-version", LEGACY], ["--suite", "all", "--spec-version", MODERN]]
"""Everything that the suite knows to ask of a revision."""

BASIC = {
    LEGACY: (
        "server-initialize", "ping", "tools-list", "tools-call-simple-text", "tools-call-error",
        "server-session-lifecycle", "dns-rebinding-protection",
    ),
    MODERN: (
        "tools-list", "tools-call-simple-text", "tools-call-error", "http-header-validation",
        "dns-rebinding-protection",
    ),
}  # fmt: skip
"""What a webhook's two tools can answer; each is held to the wire's schema besides."""

AS_CLIENT = [
    (LEGACY, "initialize"),
    (LEGACY, "tools_call"),
    (LEGACY, "sse-retry"),
    (MODERN, "tools_call"),
    (MODERN, "request-metadata"),
    (MODERN, "http-standard-headers"),
    (MODERN, "http-custom-headers"),
    (MODERN, "http-invalid-tool-headers"),
]
"""What calling a tool shows of a client, by the revision that the server speaks."""

NOT_YET: dict[str, str] = {}
"""Scenarios of `AS_CLIENT` that callsplit is known to lose in, and why; winning is told, too."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run, and what it has lost against the same run without callsplit."""

    part: str
    asked: str
    direct: Said | None  # None: there is no such run, everything must pass
    through: Said
    lost: list[str]
    known: str = ""  # why it is known to lose

    @property
    def surprises(self) -> bool:
        """Something was lost, or what is known to be lost was not."""
        return bool(self.lost) is not bool(self.known)

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        direct = self.direct and {"passed": self.direct.passed, "failed": self.direct.failed}
        return {
            "part": self.part,
            "asked": self.asked,
            "direct": direct,
            "through": {"passed": self.through.passed, "failed": self.through.failed},
            "lost": self.lost,
            "known": self.known,
        }


class Incomplete(Exception):
    """The server does not pass without callsplit what it is there to pass."""


def everything(
    tools: Tools, folder: Path, say: Say, runs: list[list[str]] | None = None
) -> Iterator[Row]:
    """Our own everything-server, through `/mcp/{call_id}`."""
    with (
        suite_rig.everything(folder) as server,
        suite_rig.sidecar(folder / "sidecar", server.url) as url,
    ):
        for asked in runs or REQUIRED + WHOLE:
            direct, through = _both(tools, (server.url, url), asked, folder, say)
            if direct.code != 0:
                raise Incomplete(f"direct, {' '.join(asked)}: {direct.reasons}")
            yield _row("everything", asked, direct, through)


def reference(tools: Tools, folder: Path, say: Say) -> Iterator[Row]:
    """The `server-everything`; it has other tools than the suite asks for, and passes less."""
    with (
        suite_rig.reference(tools, folder) as server,
        suite_rig.sidecar(folder / "sidecar", server.url) as url,
    ):
        direct, through = _both(tools, (server.url, url), WHOLE[0], folder, say)
        yield _row("reference", WHOLE[0], direct, through)


def outage(tools: Tools, folder: Path, say: Say) -> Generator[Row, None, None]:
    """The MCP server is dead and the webhook answers: to who saw it alive, and to who did not."""
    with suite_rig.everything(folder) as server, suite_rig.webhook(folder) as hook:
        with suite_rig.sidecar(folder / "killed", server.url, hook) as url:
            before = {
                version: _basic(tools, server.url, version, folder / "direct", say)
                for version in BASIC
            }
            server.kill()
            yield from _against(before, tools, url, folder / "after it was killed", say)
        # Whoever has heard enough need not wait for the rest.
        with suite_rig.sidecar(folder / "never", server.url, hook) as url:
            yield from _against(before, tools, url, folder / "never seen alive", say)


def _against(
    before: dict[str, Said], tools: Tools, url: str, folder: Path, say: Say
) -> Iterator[Row]:
    for version, direct in before.items():
        through = _basic(tools, url, version, folder, say)
        yield _row("outage", ["basic", f"{version},", folder.name], direct, through)


def client(tools: Tools, folder: Path, say: Say) -> Iterator[Row]:
    """The sidecar calls the suite's own servers, for functions of Retell's."""
    for version, scenario in AS_CLIENT:
        say(f"client: {scenario} {version}")
        yield as_client(tools, folder / f"{scenario}-{version}", version, scenario)


def as_client(tools: Tools, folder: Path, version: str, scenario: str) -> Row:
    """One of the scenarios; everything in it must pass."""
    command = shlex.join([sys.executable, "-m", "tests.mcp.suite_client"])
    asked = ["--scenario", scenario, "--spec-version", version]
    through = suite.client(tools, command, asked, folder / "run")
    known = NOT_YET.get(scenario, "")
    return Row("client", f"{scenario} {version}", None, through, _failed(through), known)


PARTS: dict[str, Callable[[Tools, Path, Say], Iterator[Row]]] = {
    "everything": everything, "reference": reference, "outage": outage, "client": client,
}  # fmt: skip


def _both(
    tools: Tools, urls: tuple[str, str], asked: list[str], folder: Path, say: Say
) -> tuple[Said, Said]:
    """Direct, then through callsplit."""
    label = " ".join(asked)
    results = []
    for way, url in zip(("direct", "through"), urls, strict=True):
        say(f"{folder.name}: {label}, {way}")
        results.append(suite.server(tools, url, asked, folder / way / "-".join(asked)))
    return results[0], results[1]


def _basic(tools: Tools, url: str, version: str, folder: Path, say: Say) -> Said:
    """The basic scenarios of an era, as one."""
    say(f"outage: basic {version}, {folder.name}")
    whole = Said(0)
    for scenario in BASIC[version]:
        asked = ["--scenario", scenario, "--spec-version", version]
        whole.take(suite.server(tools, url, asked, folder / f"{scenario}-{version}"))
    return whole


def _row(part: str, asked: list[str], direct: Said, through: Said) -> Row:
    return Row(part, " ".join(asked), direct, through, lost(direct, through))


def _failed(through: Said) -> list[str]:
    """What must not be in a run that is compared with none."""
    failed = sorted(through.outcomes.get(suite.FAILED, {}))
    nothing = [] if through.passed else ["nothing passed"]
    return nothing + [f"{check}: {through.reasons.get(check, '')}" for check in failed]
