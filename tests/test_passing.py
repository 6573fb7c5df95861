"""A path that is not ours: see also `test_handler.py`, where it is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.core.exchange import Exchange
from proxy.core.model import Head, Kind, Reason
from proxy.edge import Visit
from proxy.errors import Refused
from proxy.passing import pass_through
from tests.path_kit import DIED, SLOW, Network, World

HEAD = Head("PUT", "/page", "a=1", {}, [(b"x-own", b"1")], b"a", "192.0.2.1", target="/page?a=1")


def open_world(webhook: Network) -> World:
    world = World(webhook=webhook)
    world.line = replace(world.line, passthrough="webhook")
    return world


def visit() -> Visit:
    return Visit(HEAD, World().line.edge._rules.auth.present(HEAD), 0.0)


async def test_what_is_not_ours_goes_on_as_it_stands() -> None:
    world = open_world(Network((418, b"tea")))
    x = Exchange("r", 0.0)
    reply = await pass_through(world.line, visit(), b"body", x, world.clock)

    outbound = world.webhook.seen[0][0]
    assert (outbound.method, outbound.target, outbound.body) == ("PUT", "/page?a=1", b"body")
    assert (b"x-own", b"1") in outbound.headers
    assert (reply.status, reply.body) == (418, b"tea")
    assert (x.kind, x.reason, x.arm) == (Kind.PASSTHROUGH, Reason.PASSTHROUGH, "webhook")


async def test_what_is_not_ours_leaves_connections_to_calls() -> None:
    """A page that is taken slowly holds one, and its reader need not prove anything."""
    world = open_world(Network((200, b"page")))
    arm = replace(world.line.arms["webhook"], spare=lambda: False)
    world.line = replace(world.line, arms={**world.line.arms, "webhook": arm})
    with pytest.raises(Refused) as refused:
        await pass_through(world.line, visit(), b"", Exchange("r", 0.0), world.clock)

    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    assert not world.webhook.seen


@pytest.mark.parametrize(("failure", "status"), [(DIED, 502), (SLOW, 504)])
async def test_no_answer_is_told_by_its_status(failure: Exception, status: int) -> None:
    world = open_world(Network(failure))
    with pytest.raises(Refused) as refused:
        await pass_through(world.line, visit(), b"", Exchange("r", 0.0), world.clock)

    assert refused.value.status == status
