"""Where does the demo play?  A whole sidecar, its two arms and its files, gone when it is over."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from backends.demo import SALON, Mood, Salon
from proxy.adapters.clock import LoopClock
from proxy.adapters.logs import configure
from proxy.adapters.rules_file import load_rules
from proxy.app import App
from proxy.cli.demo_rules import OTHERWISE, TO, DemoRules
from proxy.cli.demo_tally import Books, Tally
from proxy.settings import Settings

LISTEN_PORT, ADMIN_PORT = 8080, 9901
"""The usual ones, if nobody has them."""

CHUNK = 64 * 1024


class Feed:
    """The sidecar's own access lines, handed to `take` as they are written to `fd`."""

    def __init__(self, take: Callable[[Mapping[str, Any]], None]) -> None:
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._source, self.fd = os.pipe()
        self._loop.add_reader(self._source, self._readable)

    def close(self) -> None:
        """Read what is left, then end; the sidecar no longer writes."""
        self._loop.remove_reader(self._source)
        os.close(self.fd)
        while self._readable():
            pass
        os.close(self._source)

    def _readable(self) -> bool:
        """Take one chunk; False at the end."""
        chunk = os.read(self._source, CHUNK)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._take(orjson.loads(line))
        return bool(chunk)


class Stage:
    """A running sidecar and what the demo does to it."""

    def __init__(self, rules: DemoRules, app: App, tally: Tally) -> None:
        self.app = app
        self.tally = tally
        self.salon: Salon = SALON
        self.books = Books(SALON)
        self.key = rules.key_path.read_bytes()
        self._rules = rules

    @property
    def url(self) -> str:
        """Where Retell would call."""
        return "http://{}:{}/retell".format(*self.app.listener.address)

    @property
    def admin(self) -> str:
        """Where an operator would ask."""
        return "http://{}:{}".format(*self.app.admin_address)

    @property
    def moods(self) -> dict[str, Mood]:
        """How each arm is."""
        return {arm: self.salon.mood(arm) for arm in (TO, OTHERWISE)}

    def breaker(self) -> str:
        """The state of the MCP arm's breaker."""
        return self.app.handler.line.arms[TO].breaker.state

    def set_share(self, percent: float) -> None:
        """Save the rules file; the sidecar notices by itself."""
        self._rules.save(percent)

    def set_mood(self, mood: Mood) -> None:
        """Break the MCP arm, or heal it."""
        self.salon.set_mood(TO, mood)

    def look(self) -> dict[str, Any]:
        """The sidecar's status page now; brings tally and books up to date with it."""
        status = self.app.operations.status()
        self.tally.share_is(status["split"]["in_force_percent"])
        self.books.look()
        return status


@asynccontextmanager
async def open_stage(
    *, percent: float, open_for: float, listen: int | None = None, admin: int | None = None
) -> AsyncIterator[Stage]:
    """A sidecar that listens on 127.0.0.1; ports 0: any free ones, None: the usual ones if free.

    Leaves no file, port or task behind.  Raises `OSError` if it cannot listen.
    """
    async with AsyncExitStack() as closing:
        rules = _prepared(closing, percent, open_for, _or_usual(listen, LISTEN_PORT),
                          _or_usual(admin, ADMIN_PORT))  # fmt: skip
        tally = Tally()
        feed = Feed(tally.take)
        closing.callback(feed.close)
        app = _app(closing, rules, feed.fd)
        closing.push_async_callback(app.drain)
        await app.start()
        stage = Stage(rules, app, tally)
        closing.callback(stage.books.look)
        closing.callback(stage.set_mood, Mood.WELL)
        stage.set_mood(Mood.WELL)
        yield stage


def _prepared(
    closing: AsyncExitStack, percent: float, open_for: float, listen: int, admin: int
) -> DemoRules:
    """The temporary folder with a throwaway key and the rules."""
    folder = Path(closing.enter_context(TemporaryDirectory(prefix="callsplit-demo-")))
    rules = DemoRules(f"127.0.0.1:{listen}", f"127.0.0.1:{admin}", folder, open_for)
    rules.key_path.touch(mode=0o600)
    rules.key_path.write_text(f"key_{secrets.token_hex(16)}", encoding="ascii")
    rules.save(percent)
    return rules


def _app(closing: AsyncExitStack, rules: DemoRules, access_fd: int) -> App:
    """The sidecar, its events in a file; nothing of the user's own environment counts here."""
    events = closing.enter_context((rules.folder / "events.log").open("w", encoding="utf-8"))
    settings = Settings.model_construct(rules=rules.path)
    log = configure(LoopClock().wall_ms, stream=events)
    return App(load_rules(rules.path, {}), settings, log, access_fd=access_fd)


def _or_usual(port: int | None, usual: int) -> int:
    """The port that was asked for, else the usual one, else 0 (any) if somebody has it."""
    if port is not None:
        return port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", usual))
        except OSError:
            return 0
    return usual
