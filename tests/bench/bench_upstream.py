"""What one upstream exchange costs: ours, a bare protocol (the floor) and aiohttp's client.

Run by hand: python tests/bench/bench_upstream.py [exchanges per round]
Each round measures the three side by side against the same raw origin in a process of its own; read
the ratios.  Figures are user + system CPU of the client, per exchange.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe
from typing import cast

import aiohttp
import uvloop

from proxy.adapters.upstream import Endpoint, HttpUpstream, Sweep
from proxy.core.model import Outbound

SAID = b'{"success":true,"message":"See you."}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nServer: origin\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(SAID)
) + SAID
BODY = b'{"name":"book_appointment","args":{"day":"' + b"x" * 1100 + b'"}}'
HEADERS = [
    (b"Content-Type", b"application/json"),
    (b"X-Retell-Signature", b"v=1767225600000,d=" + b"a" * 64),
    (b"User-Agent", b"axios/1.7"),
]
EXTRA = [
    (b"x-request-id", b"0123456789abcdef0123456789abcdef"),
    (b"x-forwarded-for", b"192.0.2.1"),
    (b"x-forwarded-proto", b"https"),
    (b"x-callsplit-call-id", b"call_0123456789abcdef"),
]
LANES = 32
ROUNDS = 9


class Origin(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


def origin(pipe: Pipe) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Origin, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.recv)

    uvloop.run(serve())


class Bare(asyncio.Protocol):
    """As little as an exchange can be: no checks, no deadlines, no pool."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.waiter.set_result(data[data.find(b"\r\n\r\n") + 4 :])

    async def send(self, request: bytes) -> bytes:
        self.waiter = self.loop.create_future()
        self.transport.write(request)
        return cast("bytes", await self.waiter)


class LoopClock:
    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time

    def wall_ms(self) -> int:
        return int(time.time() * 1000)


async def cost(one: Callable[[int], Awaitable[None]], exchanges: int) -> float:
    """CPU microseconds per exchange over `LANES` lanes."""

    async def lane(index: int) -> None:
        for _ in range(exchanges // LANES):
            await one(index)

    before = time.process_time()
    await asyncio.gather(*[lane(index) for index in range(LANES)])
    return (time.process_time() - before) / (exchanges // LANES * LANES) * 1e6


async def measure(port: int, exchanges: int) -> None:
    loop = asyncio.get_running_loop()
    clock = LoopClock()
    upstream = HttpUpstream(
        Endpoint.from_url(f"http://127.0.0.1:{port}"), clock=clock, sweep=Sweep(clock)
    )
    outbound = Outbound("POST", "/retell/webhook", HEADERS, BODY)
    request = b"POST /retell/webhook HTTP/1.1\r\nHost: x\r\n" + b"x-filler: " + b"a" * 420
    request += b"\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    bare = [(await loop.create_connection(Bare, "127.0.0.1", port))[1] for _ in range(LANES)]
    url = f"http://127.0.0.1:{port}/retell/webhook"
    headers = {name.decode(): value.decode() for name, value in HEADERS + EXTRA}

    async with aiohttp.ClientSession() as session:

        async def ours(_: int) -> None:
            reply = await upstream.send(outbound, EXTRA, deadline=clock.now() + 30)
            assert reply.status == 200

        async def floor(index: int) -> None:
            await bare[index].send(request)

        async def naive(_: int) -> None:
            async with session.post(url, data=BODY, headers=headers) as response:
                await response.read()

        rows: dict[str, list[float]] = {"floor": [], "ours": [], "aiohttp": []}
        for _ in range(ROUNDS):
            rows["floor"].append(await cost(floor, exchanges))
            rows["ours"].append(await cost(ours, exchanges))
            rows["aiohttp"].append(await cost(naive, exchanges // 5))
    base = statistics.median(rows["floor"])
    for name, values in rows.items():
        middle = statistics.median(values)
        print(f"{name:8} {middle:6.1f} us  x{middle / base:.2f}  best {min(values):.1f}")
    print(f"connections opened: {upstream.opened_total}")
    for protocol in bare:
        protocol.transport.close()
    await upstream.aclose(1.0)


def main() -> None:
    exchanges = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=origin, args=(there,), daemon=True)
    process.start()
    try:
        uvloop.run(measure(here.recv(), exchanges))
    finally:
        here.send("stop")
        process.join()


if __name__ == "__main__":
    main()
