from __future__ import annotations

from collections.abc import AsyncIterator

from proxy.lasting import Lasting
from proxy.relay import Settled


class Dropped:
    def __init__(self) -> None:
        self.drops = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    def drop(self) -> None:
        self.drops += 1


def stream() -> tuple[Settled, Dropped]:
    source = Dropped()
    return Settled(Settled(source, lambda *_: None), lambda *_: None), source


def test_every_stream_ends_when_we_do() -> None:
    lasting = Lasting()
    (one, first), (two, second) = stream(), stream()
    lasting.add(one)
    lasting.add(two)
    assert lasting.discard(two)
    assert len(lasting) == 1

    lasting.end()
    assert (first.drops, second.drops) == (1, 0)


def test_one_that_begins_while_we_stop_ends_at_once() -> None:
    lasting = Lasting()
    lasting.end()
    late, source = stream()
    lasting.add(late)

    assert source.drops == 1


def test_a_stream_that_is_none_of_these_is_not_counted_off() -> None:
    lasting = Lasting()
    other, _ = stream()

    assert not lasting.discard(other)
