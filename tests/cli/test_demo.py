from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli.demo import called_as, conclude, play
from proxy.cli.demo_calls import Heard
from proxy.cli.demo_show import Plan
from proxy.cli.demo_words import Ending
from proxy.cli.main import app
from tests.cli.demo_kit import frame

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A fresh machine's, with temporary files where a test can look for them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLSPLIT")}
    return {**kept, "TMPDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}


def test_a_whole_demo_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing: every act, and what the summary then says of it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = CliRunner().invoke(app, ["demo", "--seconds", "8", "--rate", "6"])

    told, said, summary = result.stdout.partition("each signed and verified")
    assert said
    for number in range(1, 7):
        assert f"Act {number} of 6: " in told
    assert "breaker of mcp: open" in told
    for positive in ("mcp", "webhook", "rescued", "last answers", "bookings"):
        assert figure(summary, positive) > 0
    for never in ("double bookings", "changed arm", "unanswered"):
        assert figure(summary, never) == 0
    requests = re.search(r"(\d+) requests over HTTP", told)
    assert requests
    assert f"of {requests[1]} requests" in summary
    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == []


def figure(summary: str, label: str) -> int:
    found = re.search(rf"^  {label} +(\d+)", summary, re.MULTILINE)
    assert found, summary
    return int(found[1])


COMMAND = [sys.executable, "-m", "proxy", "demo", "--seconds", "0"]


@pytest.fixture
def piped(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield process
        process.kill()


def lines_until(process: subprocess.Popen[str], word: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError("".join(lines))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_piped_demo_with_its_summary(
    piped: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    told = "".join(lines_until(piped, "Act 1"))
    piped.send_signal(number)
    out, errors = piped.communicate(timeout=30)

    assert piped.returncode == 0
    assert errors == ""
    assert "Retell calls" in told
    assert "Everybody was answered" in out
    assert "python -m proxy serve" in out
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_ends_it_quietly(
    piped: subprocess.Popen[str], tmp_path: Path
) -> None:
    lines_until(piped, "Act 1")
    assert piped.stdout is not None
    assert piped.stderr is not None
    piped.stdout.close()

    assert piped.wait(timeout=30) == 1
    assert piped.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_it_draws_and_then_leaves_the_summary(
    environment: dict[str, str], tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        screen = read_until(ours, b"latest tool calls")
        process.send_signal(signal.SIGINT)
        screen += read_until(ours, b"the real thing")
        process.wait(timeout=30)
    os.close(ours)

    before, _, after = screen.rpartition(b"\x1b[?1049l")
    assert process.returncode == 0
    assert b"\x1b[?1049h" in before
    assert b"Everybody was answered" in after
    assert list(tmp_path.iterdir()) == []


def read_until(fd: int, word: bytes) -> bytes:
    read, ends = b"", time.monotonic() + 30
    while word not in read:
        assert time.monotonic() < ends, read
        if select.select([fd], [], [], 1)[0]:
            read += os.read(fd, 65536)
    return read


@pytest.mark.parametrize(
    "arguments", [["--seconds", "7.9"], ["--seconds", "-1"], ["--rate", "0"], ["--rate", "1000"]]
)
def test_what_cannot_be_played_is_a_usage_error(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["demo", *arguments])

    assert result.exit_code == 2
    assert arguments[0] in result.stderr


@pytest.mark.parametrize(("unanswered", "code"), [(0, 0), (1, 1)])
def test_a_caller_without_an_answer_fails_the_demo(
    capsys: pytest.CaptureFixture[str], unanswered: int, code: int
) -> None:
    shown = frame(heard=Heard(requests=9, unanswered=unanswered))
    ending = Ending(8, shown.tally, shown.books, shown.heard)

    assert conclude(ending, "callsplit") == code
    assert ("NOT AS IT SHOULD BE" in capsys.readouterr().out) is bool(code)


def test_where_it_cannot_listen_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    with socket.create_server(("127.0.0.1", 0)) as somebody, pytest.raises(typer.Exit) as ended:
        play(Plan(8, 4, listen=somebody.getsockname()[1], admin=0))

    assert ended.value.exit_code == 1
    assert "cannot run here" in capsys.readouterr().err


def test_hints_call_it_as_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "callsplit"
    program.touch(mode=0o755)
    assert called_as(str(program)) == str(program)
    assert called_as("/anywhere/proxy/__main__.py") == "python -m proxy"

    monkeypatch.setenv("PATH", str(tmp_path))
    assert called_as(str(program)) == "callsplit"
    assert called_as(".venv/bin/callsplit") == ".venv/bin/callsplit"
