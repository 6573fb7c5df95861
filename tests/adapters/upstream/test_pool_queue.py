"""What happens while every connection is in use: who waits, who is next, who is told no."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from proxy.adapters.upstream import HttpUpstream
from proxy.adapters.upstream.connection import Connection
from proxy.core.model import Reply
from proxy.errors import UpstreamFailed
from tests.adapters.upstream.origin import Client, Peer, answering, failing, ok, post, until

Origins = Any
PATIENT: dict[str, Any] = {"queue_timeout": 60.0}


class Desk:
    """An origin that answers each request only when it is told to; requests in order of arrival."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.at_once = 0  # most exchanges that were here at a time
        self._open = 0
        self._served = asyncio.Semaphore(0)

    async def script(self, peer: Peer) -> None:
        while request := await peer.request():
            self.asked.append(request.split(b"\r\n\r\n", 1)[1])
            self._open += 1
            self.at_once = max(self.at_once, self._open)
            await self._served.acquire()
            self._open -= 1
            await peer.send(ok(self.asked[-1]))

    def heard(self, count: int) -> bool:
        return len(self.asked) >= count

    def serve(self, count: int = 1) -> None:
        for _ in range(count):
            self._served.release()


class Crowd:
    """Senders whose order is that of their numbers."""

    def __init__(self, client: Client, upstream: HttpUpstream) -> None:
        self.client, self.upstream = client, upstream
        self.tasks: list[asyncio.Task[Reply]] = []
        self.ended: list[int] = []

    async def add(self, count: int = 1, *, desk: Desk | None = None, **options: Any) -> None:
        """Each asks once its forerunner has its place; `desk` has heard of them then."""
        for _ in range(count):
            here = self.upstream.waiting + self.upstream.busy
            task = asyncio.create_task(self._one(len(self.tasks), options))
            self.tasks.append(task)
            await until(partial(self._came, task, here))
            if desk is not None:
                await until(partial(desk.heard, len(self.tasks)))

    async def _one(self, number: int, options: dict[str, Any]) -> Reply:
        try:
            return await self.client.send(self.upstream, post(b"%d" % number), **options)
        finally:
            self.ended.append(number)

    def _came(self, task: asyncio.Task[Reply], here: int) -> bool:
        return task.done() or self.upstream.waiting + self.upstream.busy > here

    async def all(self) -> list[Reply | BaseException]:
        return await asyncio.gather(*self.tasks, return_exceptions=True)


def when_served(upstream: HttpUpstream, then: Callable[[], object]) -> None:
    """Have something happen between what comes free and who gets it: he has not run yet."""
    serve = upstream._waiting.serve

    def serving(what: Connection | None) -> bool:
        upstream._waiting.serve = serve  # type: ignore[method-assign]
        served = serve(what)
        then()
        return served

    upstream._waiting.serve = serving  # type: ignore[method-assign]


async def test_who_waits_is_served_in_order_over_the_same_connection(
    origins: Origins, client: Client
) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(6)
    assert (upstream.busy, upstream.waiting) == (1, 5)

    desk.serve(6)
    await crowd.all()

    assert desk.asked == [b"%d" % number for number in range(6)]
    assert crowd.ended == [*range(6)]
    assert (origin.connections, desk.at_once, upstream.full_total) == (1, 1, 0)
    assert (upstream.busy, upstream.idle, upstream.waiting) == (0, 1, 0)


async def test_no_newcomer_overtakes_in_the_turn_in_which_a_connection_comes_free(
    origins: Origins, client: Client
) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(2)
    late: list[asyncio.Task[Reply]] = []
    crowd.tasks[0].add_done_callback(
        lambda _: late.append(asyncio.create_task(client.send(upstream, post(b"late"))))
    )
    desk.serve(3)
    await crowd.all()
    await late[0]

    assert desk.asked == [b"0", b"1", b"late"]


async def test_a_full_queue_turns_away_at_once(origins: Origins, client: Client) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, queue=2, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(3)

    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent, upstream.full_total) == ("full", False, 1)

    desk.serve(3)
    assert all(isinstance(end, Reply) for end in await crowd.all())
    assert origin.connections == 1


async def test_without_a_queue_nobody_waits(origins: Origins, client: Client) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, queue=0, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(1)
    assert (await failing(client.send(upstream))).why == "full"
    desk.serve()
    await crowd.all()


async def test_waiting_has_an_end_and_then_nothing_was_sent(
    origins: Origins, client: Client
) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, queue_timeout=0.1)
    crowd = Crowd(client, upstream)
    await crowd.add(1, desk=desk, deadline=client.soon(1000))
    await crowd.add(2, deadline=client.soon(1000))
    client.clock.ahead += 0.1

    for task in crowd.tasks[1:]:
        failure = await failing(task)
        assert (failure.why, failure.sent) == ("full", False)
    assert (upstream.waiting, upstream.full_total) == (0, 2)
    desk.serve()
    await crowd.all()
    assert desk.asked == [b"0"]


async def test_nobody_waits_past_the_own_deadline(origins: Origins, client: Client) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(1, desk=desk, deadline=client.soon(1000))
    await crowd.add(1, deadline=client.soon(5))
    client.clock.ahead += 5

    failure = await failing(crowd.tasks[1])
    assert (failure.why, failure.sent) == ("full", False)
    desk.serve()
    await crowd.all()
    assert desk.asked == [b"0"]


async def test_a_connection_that_comes_free_too_late_for_one_is_in_time_for_the_next(
    origins: Origins, client: Client
) -> None:
    """The sweep is coarse: a deadline may pass before it looks."""
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(1, desk=desk, deadline=client.soon(1000))
    await crowd.add(1, deadline=client.soon(5))
    await crowd.add(1, deadline=client.soon(1000))

    def passes() -> None:
        client.clock.ahead += 5

    when_served(upstream, passes)
    desk.serve(2)

    failure = await failing(crowd.tasks[1])
    assert (failure.why, failure.sent) == ("full", False)
    await crowd.all()
    assert desk.asked == [b"0", b"2"]


# -- Who leaves.


async def test_who_is_cancelled_makes_room_and_nobody_waits_for_him(
    origins: Origins, client: Client
) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, queue=2, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(3)
    crowd.tasks[1].cancel()
    await until(lambda: upstream.waiting == 1)
    await crowd.add(1)
    assert upstream.waiting == 2

    desk.serve(3)
    await crowd.all()
    assert desk.asked == [b"0", b"2", b"3"]


@pytest.mark.parametrize("dead", [False, True])
async def test_who_is_cancelled_in_the_turn_of_his_turn_hands_it_on(
    origins: Origins, client: Client, dead: bool
) -> None:
    """The connection is his already, but he will never run.  It may have ended meanwhile too."""
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(1, desk=desk)
    await crowd.add(2)
    (connection,) = upstream._busy

    def leaves() -> None:
        crowd.tasks[1].cancel()
        if dead:
            connection.drop()

    when_served(upstream, leaves)
    desk.serve(2)
    ends = await crowd.all()

    assert isinstance(ends[1], asyncio.CancelledError)
    assert desk.asked == [b"0", b"2"]
    assert (origin.connections, upstream.idle) == (1 + dead, 1)


@pytest.mark.parametrize("others", [0, 1])
async def test_a_place_that_nobody_takes_goes_on(
    origins: Origins, client: Client, others: int
) -> None:
    """Like that, but what came free is the place of a connection that was closed."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await told.wait()
        await peer.send(ok(b"last", b"Connection: close"))

    told = asyncio.Event()
    origin = await origins(script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(2 + others)
    when_served(upstream, lambda: crowd.tasks[1].cancel())
    told.set()
    ends = await crowd.all()

    assert isinstance(ends[1], asyncio.CancelledError)
    assert (origin.connections, upstream.busy) == (1 + others, 0)


# -- What comes free.


async def test_a_connection_that_ends_leaves_its_place_to_the_first_in_line(
    origins: Origins, client: Client
) -> None:
    origin = await origins(answering(ok(b"x", b"Connection: close")))
    upstream = client.upstream(origin.port, connections=2, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(8)

    assert [end.body for end in await crowd.all() if isinstance(end, Reply)] == [b"x"] * 8
    assert (origin.connections, upstream.opened_total) == (8, 8)
    assert sorted(crowd.ended) == [*range(8)]


async def test_a_connect_that_fails_wakes_the_next(client: Client) -> None:
    """Each fails on its own, at once, as a connect: nobody waits for what cannot come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    upstream = client.upstream(port, connections=1, **PATIENT)
    tasks = [asyncio.create_task(client.send(upstream)) for _ in range(5)]

    ends = await asyncio.gather(*tasks, return_exceptions=True)

    assert {(end.why, end.sent) for end in ends if isinstance(end, UpstreamFailed)} == {
        ("connect", False)
    }
    assert (len(ends), upstream.waiting, upstream.busy) == (5, 0, 0)


async def test_a_connection_that_is_gone_before_it_was_used_wakes_the_next(
    origins: Origins, client: Client
) -> None:
    origin = await origins(answering(then=ok(b"fine")))
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    real, opened = upstream._dialer, 0

    class Dialer:
        async def open(self, make: Any, patience: float) -> Connection:
            nonlocal opened
            opened += 1
            connection = await real.open(make, patience)
            if opened == 1:
                connection.drop()
            return connection

    upstream._dialer = Dialer()  # type: ignore[assignment]
    tasks = [asyncio.create_task(client.send(upstream)) for _ in range(2)]
    first, second = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(first, UpstreamFailed)
    assert (first.why, first.sent) == ("connect", False)
    assert isinstance(second, Reply)


async def test_a_connection_that_ends_on_its_way_to_the_next_costs_him_no_turn(
    origins: Origins, client: Client
) -> None:
    """It was handed to him and died before he ran: he comes before those behind him."""
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(1, desk=desk)
    await crowd.add(2)
    (connection,) = upstream._busy
    when_served(upstream, connection.drop)

    desk.serve(3)
    await crowd.all()

    assert origin.connections == 2
    assert desk.asked == [b"0", b"2", b"1"]  # the place that the dead one left was 2's already


async def test_an_origin_that_closes_without_a_word_after_each_answer_serves_everybody(
    origins: Origins, client: Client
) -> None:
    """What is handed on is dead each time; nobody is asked twice.

    Who wrote just before the end of the connection came in cannot know, and says so: sent.
    """
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append((await peer.request()).split(b"\r\n\r\n")[1])
        await peer.send(ok(seen[-1]))

    origin = await origins(script)
    upstream = client.upstream(origin.port, connections=2, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(20)

    ends = await crowd.all()

    unlucky = [end for end in ends if not isinstance(end, Reply)]
    assert all(isinstance(end, UpstreamFailed) and end.sent for end in unlucky)
    answered = [end.body for end in ends if isinstance(end, Reply)]
    assert answered == seen
    assert len(answered) + len(unlucky) == 20
    assert len(unlucky) < 5


async def test_a_lingering_write_keeps_its_place_until_it_ends(
    origins: Origins, client: Client
) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(1, desk=desk, linger=100.0, deadline=client.soon(5))
    await crowd.add(1, deadline=client.soon(1000))
    client.clock.ahead += 5
    assert (await failing(crowd.tasks[0])).why == "timeout"
    assert (upstream.busy, upstream.waiting) == (1, 1)

    desk.serve(2)
    assert (await crowd.tasks[1]).body == b"1"
    assert origin.connections == 1


async def test_a_probe_waits_like_anybody_and_hands_on_what_it_was_given(
    origins: Origins, client: Client
) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(1)
    probe = asyncio.create_task(upstream.connect(deadline=client.soon()))
    await until(lambda: upstream.waiting == 1)
    await crowd.add(1)

    desk.serve(2)
    await crowd.all()
    await probe
    assert (origin.connections, upstream.idle) == (1, 1)


async def test_a_probe_does_not_take_a_dead_connection_that_came_free_for_a_live_one(
    client: Client,
) -> None:
    """The answer and the end of the connection are there together."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        upstream = client.upstream(listening.getsockname()[1], connections=1, **PATIENT)
        running = asyncio.create_task(client.send(upstream))
        accepted, _ = await loop.sock_accept(listening)
        accepted.setblocking(False)
        probe = asyncio.create_task(upstream.connect(deadline=client.soon()))
        await until(lambda: upstream.waiting == 1)
        await loop.sock_recv(accepted, 65_536)
        await loop.sock_sendall(accepted, ok())
        accepted.close()

        await asyncio.gather(running, probe)
        assert (upstream.opened_total, upstream.idle) == (2, 1)


# -- The end, and everything at once.


async def test_closing_tells_those_who_still_wait(origins: Origins, client: Client) -> None:
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(3)
    await upstream.aclose(0.01)

    for task in crowd.tasks[1:]:
        failure = await failing(task)
        assert (failure.why, failure.sent) == ("connect", False)
    assert (await failing(crowd.tasks[0])).sent


async def test_a_retired_pool_still_serves_its_line(origins: Origins, client: Client) -> None:
    """They began under the old rules; closing waits for them too."""
    desk = Desk()
    origin = await origins(desk.script)
    upstream = client.upstream(origin.port, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(3)
    closing = asyncio.create_task(upstream.aclose(30.0))
    desk.serve(3)

    assert [end.body for end in await crowd.all() if isinstance(end, Reply)] == [b"0", b"1", b"2"]
    await closing
    assert (origin.connections, upstream.idle) == (3, 0)


async def test_whatever_happens_at_once_no_place_is_lost_and_none_is_given_twice(
    origins: Origins, client: Client
) -> None:
    """300 senders over three connections: answers, cuts, cancels, patience that ends."""
    lot = random.Random(20261122)
    most = 0

    async def script(peer: Peer) -> None:
        nonlocal most
        while request := await peer.request():
            most = max(most, upstream.busy + upstream.idle)
            await asyncio.sleep(lot.random() * 0.004)
            play = request.rpartition(b"\r\n\r\n")[2]
            if play == b"cut":
                return
            await peer.send(ok(play, *[b"Connection: close"] * (play == b"close")))
            if play == b"leave":
                return

    origin = await origins(script)
    upstream = client.upstream(origin.port, connections=3, queue=40, queue_timeout=0.2)
    ends: list[str] = []

    async def one() -> None:
        play = lot.choice([b"keep", b"keep", b"keep", b"close", b"cut", b"leave"])
        await asyncio.sleep(lot.random() * 0.3)
        try:
            async with asyncio.timeout(lot.choice([30.0, 30.0, 0.002, 0.01])):
                reply = await client.send(upstream, post(play), linger=lot.choice([0.0, 1.0]))
        except TimeoutError:
            ends.append("cancelled")
        except UpstreamFailed as failure:
            ends.append(failure.why)
        else:
            assert reply.body == play
            ends.append("answered")

    await asyncio.gather(*[one() for _ in range(300)])

    assert {"answered", "cancelled", "reset"} <= set(ends)
    assert set(ends) <= {"answered", "cancelled", "reset", "full"}
    await until(lambda: upstream.busy == 0)
    assert upstream.waiting == 0
    assert most == 3
    after = [asyncio.create_task(client.send(upstream, post(b"keep"))) for _ in range(3)]
    assert [(await task).body for task in after] == [b"keep"] * 3


async def test_addresses_that_change_while_somebody_waits_are_those_he_gets(
    origins: Origins, client: Client
) -> None:
    """What runs on the old address ends there; what has not begun begins at the new one."""
    old, new = Desk(), Desk()
    there = await origins(old.script)
    await origins(new.script, host="127.0.0.2", port=there.port)
    current = ["127.0.0.1"]

    def lookup(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in current]

    url = f"http://app.test:{there.port}"
    upstream = client.upstream(0, url=url, lookup=lookup, connections=1, **PATIENT)
    crowd = Crowd(client, upstream)
    await crowd.add(1, desk=old, deadline=client.soon(1000))
    await crowd.add(1, deadline=client.soon(1000))
    current[:] = ["127.0.0.2"]
    client.clock.ahead += 30.0
    (connection,) = upstream._busy
    await until(lambda: connection.retired)
    old.serve()
    new.serve()
    await crowd.all()

    assert (old.asked, new.asked) == ([b"0"], [b"1"])
