"""The sidecar whole, on real sockets: in the test's own loop, or as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

from proxy.adapters.clock import LoopClock
from proxy.adapters.descriptors import raise_descriptors
from proxy.adapters.logs import configure
from proxy.adapters.rules_file import load_rules
from proxy.app import App
from proxy.settings import load_settings
from tests.functional.wire import DEADLINE, Answer, Client, Origin, request, until
from tests.interpreter import python

ROOT = Path(__file__).parents[2]
Document: TypeAlias = dict[str, Any]

BOOK = "book_appointment"  # a write
SLOTS = "get_available_slots"  # a read
SAY = "I cannot reach our system."
PENDING = "It may have happened already."


def rules(mcp: Origin, webhook: Origin, **sections: Any) -> Document:
    """Both arms, everything to MCP, no limits, no credentials; `sections` are merged into it.

    Nobody is asked what the tests do not ask: no probes, no catalogue.
    """
    patient = {"connect_timeout": "10s"}  # the machine may be busy with other things
    mcp_arm = {"handler": "mcp", "url": f"{mcp.url}/mcp", "timeout": "10s", **patient}
    whole: Document = {
        "version": 1,
        "listen": {"address": "127.0.0.1:0", "drain_grace": "5s"},
        "admin": {"address": "127.0.0.1:0"},
        "split": {"to": "mcp", "otherwise": "webhook", "percent": 100, "salt": "functional"},
        "backends": {
            "mcp": {**mcp_arm, "catalogue_every": None},
            "webhook": {"handler": "webhook", "url": f"{webhook.url}/hook", **patient},
        },
        "tools": {
            "default": {"effect": "write", "say": SAY, "say_pending": PENDING},
            BOOK: {"effect": "write"},
            SLOTS: {"effect": "read"},
        },
        "limits": {"tools_per_minute": None, "ip_per_minute": None},
        "outbox": {"enabled": False},
        "metrics": {"namespace": "t"},
    }
    return merged(whole, sections)


def merged(base: Document, more: Mapping[str, Any]) -> Document:
    """`base` with `more` laid over it, mapping by mapping."""
    result = dict(base)
    for key, value in more.items():
        below = result.get(key)
        deeper = isinstance(below, dict) and isinstance(value, dict)
        result[key] = merged(below, value) if deeper and below is not None else value
    return result


def kept_in(folder: Path, document: Document | str) -> Document | str:
    """The rules with a place of the test's own for what outlives the process."""
    if isinstance(document, str):
        return document
    return {"state_dir": str(folder / "state"), **document}


def write_rules(path: Path, document: Document | str) -> None:
    """Replace the file as editors and ConfigMaps do: whole, at once."""
    content = document if isinstance(document, str) else json.dumps(document, indent=1)
    fresh = path.with_suffix(".new")
    fresh.write_text(content)
    fresh.replace(path)


def write_env(path: Path, variables: Mapping[str, str]) -> Path:
    path.write_text("".join(f"{name}='{value}'\n" for name, value in variables.items()))
    return path


# -- Bodies as Retell sends them.


def function(tool: str, call_id: str | None = "call_a", args: object = None, **call: Any) -> bytes:
    about = call if call_id is None else {"call_id": call_id, **call}
    return json.dumps({"name": tool, "call": about, "args": args or {}}).encode()


def event(name: str = "call_ended", call_id: str = "call_a", **call: Any) -> bytes:
    return json.dumps({"event": name, "call": {"call_id": call_id, **call}}).encode()


def tools_call(tool: str, args: object = None, rpc_id: object = 7) -> bytes:
    params = {"name": tool, "arguments": args or {}}
    message = {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": params}
    return json.dumps(message).encode()


class Metrics:
    """One scrape."""

    def __init__(self, exposition: str, namespace: str = "t") -> None:
        self.samples = [
            sample
            for family in text_string_to_metric_families(exposition)
            for sample in family.samples
        ]
        self._namespace = namespace

    def total(self, name: str, **labels: str) -> float:
        """The sum over every child that has these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"{self._namespace}_{name}"
            and labels.items() <= sample.labels.items()
        )


class Asking:
    """What can be asked of a sidecar, wherever it runs."""

    port: int
    admin_port: int

    def __init__(self) -> None:
        self._idle: list[Client] = []
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        """A connection of the test's own."""
        client = await Client.connect(self.port)
        self._clients.append(client)
        return client

    async def ask(self, raw: bytes) -> Answer:
        """Send these bytes over a kept connection."""
        client = self._idle.pop() if self._idle else await self.connect()
        answer = await client.ask(raw)
        if client.usable:
            self._idle.append(client)
        else:
            await client.close()
        return answer

    async def post(self, target: str, body: bytes, *fields: bytes) -> Answer:
        return await self.ask(request("POST", target, body, *fields))

    async def get(self, target: str, *fields: bytes) -> Answer:
        return await self.ask(request("GET", target, None, *fields))

    async def call(self, tool: str, call_id: str | None = "call_a", **args: Any) -> Answer:
        """A custom function of Retell's."""
        return await self.post("/retell", function(tool, call_id, args))

    async def admin(
        self, target: str, *fields: bytes, method: str = "GET", body: bytes | None = None
    ) -> Answer:
        return await ask_once(self.admin_port, method, target, *fields, body=body)

    async def metrics(self) -> Metrics:
        return Metrics((await self.admin("/metrics")).body.decode())

    async def status(self) -> Any:
        return (await self.admin("/status")).json

    async def breaker(self, arm: str = "mcp") -> Any:
        return (await self.admin("/breakers")).json[arm]

    async def hang_up(self) -> None:
        """Close every connection; the next request opens one."""
        for client in self._clients:
            await client.close()
        self._clients.clear()
        self._idle.clear()


async def ask_once(
    port: int, method: str, target: str, *fields: bytes, body: bytes | None = None
) -> Answer:
    """One request to a page, on a connection of its own."""
    client = await Client.connect(port)
    try:
        host = b"Host: 127.0.0.1:%d" % port
        own = () if any(field.lower().startswith(b"host:") for field in fields) else (host,)
        lines = [f"{method} {target} HTTP/1.1".encode(), *own, *fields, b"Connection: close"]
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        return await client.ask(b"\r\n".join(lines) + b"\r\n\r\n" + (body or b""))
    finally:
        await client.close()


class Sidecar(Asking):
    """The real `App` in the loop of the test."""

    def __init__(self, folder: Path, app: App, log: io.StringIO, access: Path) -> None:
        super().__init__()
        self.folder, self.app = folder, app
        self.rules_path = folder / "rules.yaml"
        self._log = log
        self._access = access
        self.port, self.admin_port = app.listener.address[1], app.admin_address[1]

    async def lines(self, count: int, **fields: Any) -> list[Any]:
        """The access lines with these fields, once there are `count` of them."""
        found: list[Any] = []

        def enough() -> bool:
            whole = self._access.read_bytes().splitlines(keepends=True)
            every = [json.loads(line) for line in whole if line.endswith(b"\n")]
            found[:] = [line for line in every if fields.items() <= line.items()]
            return len(found) >= count

        await until(enough, f"{count} access lines with {fields}")
        return found

    @property
    def log(self) -> str:
        """Everything that was logged."""
        return self._log.getvalue()

    def events(self, name: str) -> list[Any]:
        """What was logged by that name."""
        return [one for one in map(json.loads, self._log.getvalue().splitlines())
                if one["event"] == name]  # fmt: skip

    async def write(self, document: Document | str) -> None:
        """Change the rules file, and wait until the watch has acted on it."""
        before, refused = self.app.condition.taken_ms, len(self.events("rules_refused"))
        write_rules(self.rules_path, kept_in(self.folder, document))
        await until(
            lambda: (
                self.app.condition.taken_ms != before
                or len(self.events("rules_refused")) != refused
            ),
            "the change was noticed",
        )

    async def settled(self) -> None:
        """Nothing is under way any more."""
        await until(lambda: self.app.handler.inflight == 0, "every exchange has ended")
        upstreams = self.app.wiring.upstreams.values()
        await until(lambda: not any(upstream.busy for upstream in upstreams), "no upstream is busy")


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    document: Document | str,
    variables: Mapping[str, str] | None = None,
    *,
    crashes: bool = False,
) -> AsyncIterator[Sidecar]:
    """A sidecar on free ports; at the end it must be empty, and crashed only if it should have."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    raise_descriptors()  # as `serve` does
    path, access = folder / "rules.yaml", folder / "access.log"
    write_rules(path, kept_in(folder, document))
    settings = load_settings(env_file=write_env(folder / "env", variables or {}), rules=path)
    loaded = load_rules(path, settings.environment)
    stream = io.StringIO()
    log = configure(LoopClock().wall_ms, stream=stream)
    fd = os.open(access, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    app = App(loaded, settings, log, access_fd=fd)
    try:
        await app.start()
    except OSError:
        await app.aclose()
        os.close(fd)
        raise
    sidecar = Sidecar(folder, app, stream, access)
    try:
        yield sidecar
        await sidecar.hang_up()
    finally:
        await app.drain()
        os.close(fd)
    assert app.handler.inflight == 0
    assert app.listener.open_connections == 0
    assert all(u.busy == u.idle == 0 for u in app.wiring.upstreams.values())
    assert not len(app.tasks)
    assert not reports, reports
    assert bool(sidecar.events("exchange_crashed")) is crashes
    assert not sidecar.events("task_crashed")


class Process(Asking):
    """`python -m proxy serve`, for signals, exit codes and crashes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.rules_path = folder / "rules.yaml"
        self.out = folder / "stdout"
        self.err = folder / "stderr"
        self._process: asyncio.subprocess.Process | None = None

    async def start(
        self,
        document: Document | str,
        variables: Mapping[str, str] | None = None,
        *,
        arguments: Sequence[str] = (),
        stdout: int | None = None,
    ) -> None:
        """Start it with these rules; it need not come up."""
        write_rules(self.rules_path, kept_in(self.rules_path.parent, document))
        await self.launch(variables, arguments=arguments, stdout=stdout)

    async def launch(
        self,
        variables: Mapping[str, str] | None = None,
        *,
        arguments: Sequence[str] = (),
        stdout: int | None = None,
    ) -> None:
        """Start it with the rules that lie there."""
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        command = ["-m", "proxy", "serve", "--rules", str(self.rules_path), *arguments]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self._process = await asyncio.create_subprocess_exec(
                *python(), *command, cwd=ROOT, env={**keep, **(variables or {})},
                stdout=out if stdout is None else stdout, stderr=err,
            )  # fmt: skip

    async def up(self) -> None:
        """Wait until it serves."""
        await until(lambda: self.events("sidecar_started") or self.ended, "the sidecar started")
        assert not self.ended, self.err.read_text()
        (started,) = self.events("sidecar_started")
        self.port = int(started["address"].rpartition(":")[2])
        self.admin_port = int(started["admin"].rpartition(":")[2])

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def code(self) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()

    def events(self, name: str) -> list[Any]:
        written = self.err.read_text().splitlines(keepends=True)  # the last may be half a line
        lines = [line for line in written if line.startswith("{") and line.endswith("\n")]
        return [one for one in map(json.loads, lines) if one["event"] == name]

    @property
    def said(self) -> str:
        """What it told the terminal, in words: no colours, no line breaks."""
        return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m", "", self.err.read_text()))

    async def stop(self) -> None:
        await self.hang_up()
        if self._process is not None and not self.ended:
            self.process.kill()
            await self.process.wait()


class Crowd:
    """Callers, each a coroutine that asks until `over`; what they heard is in `got`."""

    def __init__(self, *callers: Callable[[Crowd], Coroutine[Any, Any, None]]) -> None:
        self.got: list[Answer] = []
        self.over = False
        self._tasks = [asyncio.create_task(caller(self)) for caller in callers]

    async def more(self, count: int) -> None:
        """Return once so many more answers have been heard, or a caller has failed."""
        target = len(self.got) + count
        await until(lambda: len(self.got) >= target or any(task.done() for task in self._tasks))

    async def stop(self) -> list[Answer]:
        self.over = True
        await asyncio.gather(*self._tasks)
        return self.got
