"""What is done to the sidecar: slowhttptest's three modes, and what it has no mode for."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.bench.process import Broken
from tests.slow.stand import Stand, answer_on

CONNECTIONS, SECONDS = 200, 15
"""Longer than a head may take (10 s)."""

MB = 2**20
Attack = Callable[[Stand], dict[str, Any]]


def slowhttptest(stand: Stand, path: str, *options: str) -> dict[str, Any]:
    """One run of it, and what it found by itself."""
    if shutil.which("slowhttptest") is None:
        raise Broken("slowhttptest is missing; as root: apt-get install slowhttptest")
    command = ["slowhttptest", "-c", str(CONNECTIONS), "-r", "100", "-l", str(SECONDS), "-p", "3"]
    url = f"http://127.0.0.1:{stand.port}{path}"
    run = subprocess.run(
        [*command, *options, "-u", url], capture_output=True, text=True, timeout=SECONDS + 20
    )
    said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", run.stdout)
    found = {"command": " ".join([*command, *options, "-u", path])}
    for key, text in (
        ("service_available", r"service available:\s*(\S+)"),
        ("ended", r"Test ended on (.*)"),
        ("exit_status", r"Exit status: (.*)"),
    ):
        values = re.findall(text, said)
        found[key] = values[-1].strip() if values else "?"
    if found["exit_status"] == "?":
        raise Broken(f"slowhttptest said: {run.stdout[-500:]} {run.stderr[-500:]}")
    return {**found, "reached": found["service_available"] == "YES"}


def slow_heads(stand: Stand) -> dict[str, Any]:
    """Slowloris: a field every two seconds."""
    return slowhttptest(stand, "/retell", "-H", "-i", "2", "-x", "24")


def slow_bodies(stand: Stand) -> dict[str, Any]:
    """A body of 8 kB, some bytes every two seconds."""
    return slowhttptest(stand, "/retell", "-B", "-i", "2", "-s", "8192", "-x", "32")


def slow_readers(stand: Stand) -> dict[str, Any]:
    """Three pages of 5 MB each, read by 32 bytes every two seconds through a tiny window."""
    options = ("-X", "-n", "2", "-z", "32", "-w", "512", "-y", "1024", "-k", "3")
    return slowhttptest(stand, f"/page/{5 * MB}", *options)


def idle(stand: Stand) -> dict[str, Any]:
    """2,000 connections that say nothing (row L10)."""
    with ExitStack() as stack:
        for _ in range(2000):
            stack.enter_context(socket.create_connection(("127.0.0.1", stand.port)))
        time.sleep(5)
        return {"connections": stand.connections}


def crowd(stand: Stand) -> dict[str, Any]:
    """Twice as many as may connect, and who is cut comes again at once."""
    held: list[socket.socket] = []
    again, ends = 0, time.monotonic() + 8
    while time.monotonic() < ends:
        while len(held) < 2 * CONNECTIONS:
            sock = socket.create_connection(("127.0.0.1", stand.port))
            sock.setblocking(False)
            sock.send(b"GET /slow HTTP/1.1\r\nHost: a\r\nX-")
            held.append(sock)
            again += 1
        time.sleep(0.02)
        held = [sock for sock in held if _is_open(sock)]
    for sock in held:
        sock.close()
    return {"may_connect": CONNECTIONS, "connected": again}


def large_answers(stand: Stand) -> dict[str, Any]:
    """Three readers of 60 MB, who take next to nothing (row R12)."""
    with ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", stand.port))
            sock.sendall(b"GET /page/%d HTTP/1.1\r\nHost: a\r\n\r\n" % (60 * MB))
        time.sleep(5)
    return {"bytes": 3 * 60 * MB}


def pipeline(stand: Stand) -> dict[str, Any]:
    """10,000 requests on one connection, no answer read (row F19)."""
    with socket.create_connection(("127.0.0.1", stand.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(3)
        try:
            sock.sendall(b"GET /page/1000 HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000)
        except TimeoutError:
            pass
        time.sleep(2)
    return {"requests": 10_000}


def tiny_chunks(stand: Stand) -> dict[str, Any]:
    """300,000 chunks of one byte (row L13); how much CPU they take in all."""
    body = b'{"event":"call_ended","call":{"call_id":"call_tiny"},"t":"' + b"x" * 299_940 + b'"}'
    head = b"POST /retell HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    before = stand.sidecar.cpu()
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as sock:
        status = answer_on(sock, head + chunks + b"0\r\n\r\n")
    spent = round(stand.sidecar.cpu() - before, 2)
    return {"status": status, "cpu_seconds": spent, "reached": status == 200 and spent < 1.0}


def _is_open(sock: socket.socket) -> bool:
    try:
        if sock.recv(4096):
            return True
    except BlockingIOError:
        return True
    except OSError:
        pass
    sock.close()
    return False


ATTACKS: dict[str, Attack] = {
    "slow_heads": slow_heads,
    "slow_bodies": slow_bodies,
    "slow_readers": slow_readers,
    "idle": idle,
    "crowd": crowd,
    "large_answers": large_answers,
    "pipeline": pipeline,
    "tiny_chunks": tiny_chunks,
}
