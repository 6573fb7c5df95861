from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from proxy.adapters.logs import configure
from proxy.adapters.rules_file import load_rules
from proxy.app import App
from proxy.core.rules.fault_text import described
from proxy.errors import Fault, RulesError, SettingsError
from proxy.settings import load_settings

RULES = """
version: 1
listen: {address: "127.0.0.1:0", drain_grace: 5s}
admin: {address: "127.0.0.1:0"}
split: {percent: 0}
backends:
  mcp: {handler: demo, options: {like: mcp}}
  webhook: {handler: demo}
tools: {get_available_slots: {effect: read}}
"""
SLOTS = {"name": "get_available_slots", "args": {}, "call": {"call_id": "call_7"}}

Make = Callable[..., Awaitable[App]]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
async def make(tmp_path: Path, stream: io.StringIO) -> AsyncIterator[Make]:
    apps: list[App] = []

    async def start(text: str = RULES, access_fd: int | None = None, **flags: Any) -> App:
        path = tmp_path / "rules.yaml"
        path.write_text(f"state_dir: {tmp_path / f'state{len(apps)}'}\n{text}")
        settings = load_settings(**flags)
        log = configure(lambda: 0, stream=stream)
        app = App(load_rules(path, {}), settings, log, access_fd=access_fd)
        apps.append(app)
        await app.start()
        return app

    yield start
    for app in apps:
        await app.drain()


def events(stream: io.StringIO, name: str) -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in lines if line["event"] == name]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def url(app: App, path: str) -> str:
    host, port = app.listener.address
    return f"http://{host}:{port}{path}"


async def ask(method: str, target: str, **options: Any) -> tuple[int, Mapping[str, str], bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, target, **options) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


async def test_a_call_is_answered_and_accounted(make: Make) -> None:
    read, write = os.pipe()
    app = await make(access_fd=write)
    status, headers, _ = await ask("POST", url(app, "/retell"), json=SLOTS)
    assert status == 200
    assert headers["x-callsplit-arm"] == "webhook"
    await app.drain()

    line = orjson.loads(os.read(read, 65536))
    assert (line["call_id"], line["outcome"]) == ("call_7", "ok")
    os.close(read)
    os.close(write)


async def test_a_saved_file_is_in_force_without_a_restart(make: Make, tmp_path: Path) -> None:
    app = await make()
    (tmp_path / "rules.yaml").write_text(RULES.replace("percent: 0", "percent: 100"))

    await until(lambda: app.handler.line.splitter.history.latest.percent == 100)
    assert app.condition.fault is None


async def test_a_bad_file_leaves_the_good_rules_and_says_so(
    make: Make, tmp_path: Path, stream: io.StringIO
) -> None:
    app = await make()
    line = app.handler.line
    (tmp_path / "rules.yaml").write_text(RULES.replace("percent: 0", "percent: 101"))
    await until(lambda: app.condition.fault)

    assert app.handler.line is line
    assert "rules.yaml:5" in (app.condition.fault or "")
    assert app.metrics.registry.get_sample_value("callsplit_rules_last_reload_success") == 0
    assert len(events(stream, "rules_refused")) == 1

    (tmp_path / "rules.yaml").write_text(RULES + "\n")
    await until(lambda: app.condition.fault is None)


async def test_a_signal_reloads_what_has_not_changed(make: Make, stream: io.StringIO) -> None:
    """Secrets in files may have been rotated."""
    app = await make()
    await app.reload()

    await until(lambda: len(events(stream, "rules_loaded")) == 2)


async def test_a_key_that_needs_a_restart_is_named(
    make: Make, tmp_path: Path, stream: io.StringIO
) -> None:
    await make()
    changed = RULES + "metrics: {namespace: other}\n"
    (tmp_path / "rules.yaml").write_text(changed)

    await until(lambda: events(stream, "restart_needed"))
    assert events(stream, "restart_needed")[0]["key"] == "metrics.namespace"


async def test_warnings_of_the_rules_are_logged(make: Make, stream: io.StringIO) -> None:
    app = await make(RULES.replace("effect: read", "effect: read, stale_if_error: 1m"))
    (warned,) = events(stream, "rules_warned")

    assert "stale_if_error" in warned["message"]
    assert "rules.yaml:" in warned["message"]
    assert app.operations.status()["rules"]["warnings"] == [warned["message"]]


async def test_a_share_that_strangers_could_aim_at_is_warned_about_with_each_load(
    make: Make, stream: io.StringIO
) -> None:
    """`rules check` says the same: whoever skipped it reads it in the log."""
    app = await make(RULES.replace("percent: 0", "percent: 25"))
    await app.reload()
    await until(lambda: len(events(stream, "rules_loaded")) == 2)

    warned = [event["message"] for event in events(stream, "rules_warned")]
    assert len(warned) == 2
    assert all("split.salt" in message for message in warned)


async def test_draining_tells_the_balancer_before_it_closes(make: Make) -> None:
    app = await make()
    assert app.operations.unready() == []
    await app.drain()

    assert app.operations.unready() == ["draining"]
    assert len(app.tasks) == 0


async def test_an_address_that_is_taken_is_an_error_and_leaves_nothing_open(make: Make) -> None:
    first = await make()
    host, port = first.admin_address
    with pytest.raises(OSError, match="in use"):
        await make(RULES.replace('admin: {address: "127.0.0.1:0"}',
                                 f'admin: {{address: "{host}:{port}"}}'))  # fmt: skip


async def test_what_never_became_a_request_is_refused_and_counted(make: Make) -> None:
    app = await make()
    host, port = app.listener.address
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GARBAGE\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"GARBAGE" not in answer
    assert b"erver:" not in answer
    labels = {"kind": "other", "arm": "none", "outcome": "refused", "code_class": "4xx"}
    assert app.metrics.registry.get_sample_value("callsplit_requests_total", labels) == 1


async def test_the_observe_listener_stands_beside(make: Make) -> None:
    app = await make(RULES.replace("drain_grace: 5s", 'observe: "127.0.0.1:0"'))
    assert app.observe_address is not None
    host, port = app.observe_address
    status, _, _ = await ask("GET", f"http://{host}:{port}/ready")
    assert status == 200


async def test_the_guides_health_path_answers(make: Make) -> None:
    app = await make()
    _, _, body = await ask("GET", url(app, "/api/mcp/retell/health"))
    assert orjson.loads(body)["status"] == "healthy"


async def test_a_changed_backend_retires_its_pool(make: Make, tmp_path: Path) -> None:
    text = RULES.replace("webhook: {handler: demo}",
                         'webhook: {handler: webhook, url: "http://127.0.0.1:1/a"}')  # fmt: skip
    app = await make(text)
    before = app.wiring.upstreams["webhook"]
    (tmp_path / "rules.yaml").write_text(text.replace("127.0.0.1:1/a", "127.0.0.1:2/a"))

    await until(lambda: app.wiring.upstreams["webhook"] is not before)


async def test_rules_that_cannot_go_into_force_start_nothing(make: Make) -> None:
    with pytest.raises((RulesError, SettingsError)):
        await make(RULES + "auth: {require: {function: [signature]}}\n")


async def test_flags_outrank_the_files_addresses(make: Make) -> None:
    text = RULES.replace("127.0.0.1:0", "127.0.0.1:9", 1).replace("127.0.0.1:0", "127.0.0.1:10")
    app = await make(text, listen="127.0.0.1:0", admin_listen="127.0.0.1:0")

    assert app.listener.address[1] not in (0, 9)
    assert app.admin_address[1] not in (0, 10)


async def test_an_admin_token_is_asked_for(
    make: Make, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    monkeypatch.setenv("ADMIN_T", "s3cret")
    app = await make(
        RULES.replace('"127.0.0.1:0"}\nsplit', '"127.0.0.1:0", token: env:ADMIN_T}\nsplit')
    )
    host, port = app.admin_address
    base, headers = f"http://{host}:{port}", {"Authorization": "Bearer s3cret"}

    assert (await ask("GET", f"{base}/status"))[0] == 401
    assert (await ask("POST", f"{base}/breakers/mcp/reset", headers=headers))[0] == 200
    assert events(stream, "operator_changed")[0]["what"] == "breaker reset mcp"


async def test_without_an_access_log_nothing_is_written(make: Make) -> None:
    read, write = os.pipe()
    app = await make(RULES.replace("drain_grace: 5s", "access_log: false"), access_fd=write)
    await app.drain()
    os.close(write)

    assert os.read(read, 10) == b""
    os.close(read)


def test_a_fault_is_described_without_its_source_line() -> None:
    fault = Fault(
        "bad",
        file="r.yaml",
        line=3,
        column=7,
        path="auth.tokens.0",
        source="s3cret",
        hint="use env:",
    )

    assert described(fault) == "r.yaml:3:7: auth.tokens.0: bad (use env:)"
    assert described(Fault("is gone", file="r.yaml")) == "r.yaml: is gone"
    assert described(Fault("bad")) == "bad"


# --- MCP sessions --------------------------------------------------------------------------------

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
PING = {"jsonrpc": "2.0", "id": 2, "method": "ping"}


async def opened(app: App) -> str:
    """The token of a new session."""
    status, headers, _ = await ask("POST", url(app, "/mcp"), json=INITIALIZE, headers=ACCEPT)
    assert status == 200
    return headers["mcp-session-id"]


async def pinged(app: App, token: str) -> int:
    fields = {**ACCEPT, "mcp-protocol-version": "2025-06-18", "mcp-session-id": token}
    return (await ask("POST", url(app, "/mcp"), json=PING, headers=fields))[0]


ACCEPT = {"accept": "application/json, text/event-stream"}


async def test_an_mcp_session_outlives_its_process(make: Make) -> None:
    first = await make()
    token = await opened(first)
    assert await pinged(first, token) == 200
    stranger = await make()
    assert await pinged(stranger, token) == 404
    await first.drain()
    key = first.state.file("session-key").read_bytes()
    stranger.state.path.with_name("state2").mkdir()
    stranger.state.path.with_name("state2").joinpath("session-key").write_bytes(key)

    assert await pinged(await make(), token) == 200


async def test_replicas_that_share_a_key_know_each_others_sessions(
    make: Make, tmp_path: Path
) -> None:
    """Also those from before they shared one."""
    (tmp_path / "key").write_text("k" * 32)
    plain = RULES.replace("drain_grace: 5s", "drain_grace: 5s, session_keys: []")
    shared = plain.replace("[]", f"['file:{tmp_path / 'key'}']")
    one, other = await make(plain), await make(shared)
    before = await opened(one)
    one.condition.loaded.path.write_text(f"state_dir: {one.state.path}\n{shared}")
    await one.reload()
    await until(lambda: one.condition.loaded.rules.listen.session_keys)

    assert await pinged(one, before) == 200
    assert await pinged(other, before) == 404
    assert await pinged(other, await opened(one)) == 200
    assert await pinged(one, await opened(other)) == 200
