from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator

import orjson
import pytest

from proxy.adapters.access import AccessLog, line, text
from proxy.adapters.logs import configure, stamp
from proxy.core.exchange import Attempt, Exchange
from proxy.core.model import Counts, Kind, Ran, Reason, Verdict
from tests.interpreter import interpreted_only

WALL_MS = 1_767_225_600_123
GOOD = Verdict("success", Ran.YES, Counts.SUCCESS)


def exchange(request_id: str = "r1") -> Exchange:
    return Exchange(
        request_id, 10.0, kind=Kind.FUNCTION, call_id="call_1", tool="book", arm="mcp",
        reason=Reason.SHARE, outcome="ok", status=200, ended=10.25,
        attempts=[Attempt("mcp", GOOD, 0.2, 200)],
    )  # fmt: skip


class Later:
    """A loop's timer that rings when told to."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def ring(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_a_line_tells_where_a_call_went_and_why() -> None:
    fields = orjson.loads(text([line(exchange(), WALL_MS)]))

    assert fields["call_id"] == "call_1"
    assert (fields["kind"], fields["tool"]) == ("function", "book")
    assert (fields["arm"], fields["reason"]) == ("mcp", "share")
    assert fields["ms"] == 250.0
    assert fields["attempts"] == [
        {"arm": "mcp", "verdict": "success", "why": None, "status": 200, "ms": 200.0}
    ]


def test_access_lines_and_events_have_the_same_frame() -> None:
    stream = io.StringIO()
    configure(lambda: WALL_MS, stream=stream).info("rules_loaded")
    event = orjson.loads(stream.getvalue())
    access = orjson.loads(text([line(exchange(), WALL_MS)]))

    assert list(event) == list(access)[: len(event)]
    assert event["timestamp"] == access["timestamp"]


def test_a_path_that_is_no_text_does_not_cost_its_line_nor_the_others() -> None:
    odd = exchange("odd")
    odd.path = b"/caf\xe9".decode(errors="surrogateescape")

    lines = text([line(exchange(), WALL_MS), line(odd, WALL_MS)]).splitlines()

    told = [orjson.loads(each) for each in lines]
    assert [(each["request_id"], each["path"]) for each in told] == [("r1", ""), ("odd", "/caf?")]


@pytest.mark.row("O1")
@pytest.mark.parametrize("odd", ["\x85", "\x9b31m", "\u2028", "\u202e", "\x7f", "\r\n", "\x1b[2J"])
@pytest.mark.parametrize("broken", ["", "\udce9"], ids=["text", "no text"])
def test_a_line_holds_nothing_that_a_terminal_or_an_editor_would_act_on(
    odd: str, broken: str
) -> None:
    x = exchange()
    x.call_id, x.tool, x.event, x.path = f"id{odd}", f"tool{odd}", f"e{odd}", f"/{odd}{broken}"

    told = text([line(x, WALL_MS), line(exchange(), WALL_MS)])

    assert len(told.decode().splitlines()) == 2
    assert not re.search("[^\n -~]", told.decode())
    assert orjson.loads(told.splitlines()[0])["tool"] == f"tool{odd}"


def test_each_line_bears_the_time_at_which_its_exchange_ended(pipe: tuple[int, int]) -> None:
    """They are encoded some at a time, by a clock that is not the wall's."""
    read, write = pipe
    log = AccessLog(write, later=Later(), now=lambda: 100.0, wall_ms=lambda: WALL_MS)
    for ended in (98.5, 99.999):
        x = exchange()
        x.ended = ended
        log.write(x)
    log.close()

    lines = os.read(read, 65536).splitlines()
    stamps = [orjson.loads(each)["timestamp"] for each in lines]
    assert stamps == [stamp(WALL_MS - 1500), stamp(WALL_MS - 1)]


def test_lines_are_written_together_when_the_timer_rings(pipe: tuple[int, int]) -> None:
    read, write = pipe
    later = Later()
    log = AccessLog(write, later=later, now=lambda: 10.25, wall_ms=lambda: WALL_MS)
    log.write(exchange())
    log.write(exchange())
    assert len(later.calls) == 1

    later.ring()
    log.write(exchange())
    assert len(later.calls) == 1
    log.close()

    lines = os.read(read, 65536).splitlines()
    assert [orjson.loads(text)["request_id"] for text in lines] == ["r1", "r1", "r1"]


@interpreted_only
def test_a_full_chunk_does_not_wait_for_the_timer(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = pipe
    monkeypatch.setattr(AccessLog, "CHUNK_BYTES", 1)
    monkeypatch.setattr(AccessLog, "BATCH", 2)
    log = AccessLog(write, later=Later(), now=lambda: 10.25, wall_ms=lambda: WALL_MS)

    log.write(exchange())
    log.write(exchange())

    assert [orjson.loads(each)["event"] for each in os.read(read, 65536).splitlines()] == (
        ["exchange_ended"] * 2
    )
    log.close()


def test_a_stalled_reader_costs_lines_and_never_a_call(pipe: tuple[int, int]) -> None:
    read, write = pipe
    big = b"x" * (1 << 20)  # more than a pipe holds
    log = AccessLog(
        write, later=Later(), now=lambda: 10.25, wall_ms=lambda: WALL_MS, pending_limit=1
    )
    log._queue.put((big, 1))  # the thread hangs in this write
    while not log._queue.empty():
        pass
    log._queue.put((b"waiting\n", 1))

    log.write(exchange())
    log.flush()

    assert log.dropped == 1
    log.close(timeout=0.01)
    drained = 0
    while drained < len(big):
        drained += len(os.read(read, 1 << 20))
    log.close()


def test_a_full_disk_is_counted(pipe: tuple[int, int]) -> None:
    log = AccessLog(
        os.open("/dev/full", os.O_WRONLY), later=Later(), now=lambda: 10.25, wall_ms=lambda: WALL_MS
    )
    log.write(exchange())
    log.close()

    assert log.dropped == 1
    os.close(log._fd)


@pytest.mark.row("A8")
@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("/retell", "/retell"),
        ("/a@b", "/a@b"),
        ("http://user:hunter2@evil/a@b", "http://evil/a@b"),
        ("http://evil", "http://evil"),
        ("user:hunter2@evil:443", "evil:443"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_a_password_before_a_servers_name_is_left_out(target: str, told: str) -> None:
    x = Exchange("r", 0.0)
    x.path = target

    assert line(x, 0).path == told
