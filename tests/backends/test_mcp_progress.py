from __future__ import annotations

import pytest

from backends.mcp_progress import Progress
from proxy.errors import UpstreamFailed
from tests.backends.kit import Stream

NOTE = b'{"method":"notifications/progress","params":{"progressToken":9,"progress":0.50}}'
OTHER = b'{"method":"notifications/message","params":{"data":1.50}}'
DONE = b'{"id":3,"result":{}}'


def data(message: bytes) -> bytes:
    return b"data: %b\n\n" % message


class Droppable(Stream):
    dropped = False

    def drop(self) -> None:
        self.dropped = True


class Heard:
    def __init__(self, stream: Stream) -> None:
        self.ends: list[bool] = []
        self.progress = Progress(stream, self._finish, rpc_id=b"3", token=b'"mine"')
        self.progress.ended = self.ends.append

    def _finish(self, message: bytes) -> bytes | None:
        return b'{"answer":1}' if message == DONE else None

    async def all(self) -> list[bytes]:
        return [chunk async for chunk in self.progress]


async def test_each_message_is_passed_on_and_the_token_put_back() -> None:
    stream = Stream(b": ping\n\n", data(NOTE), data(OTHER), data(DONE), data(OTHER))
    heard = Heard(stream)

    chunks = await heard.all()

    assert chunks == [
        b'event: message\ndata: {"method":"notifications/progress",'
        b'"params":{"progressToken":"mine","progress":0.50}}\n\n',
        b"event: message\ndata: %b\n\n" % OTHER,
        b'event: message\ndata: {"answer":1}\n\n',
    ]
    assert heard.ends == [True]
    assert stream.closed


async def test_what_follows_the_answer_in_one_piece_is_not_heard() -> None:
    heard = Heard(Stream(data(DONE) + data(OTHER)))

    assert await heard.all() == [b'event: message\ndata: {"answer":1}\n\n']


@pytest.mark.parametrize("message", [b"nonsense", b"[]", b'{"method":"notifications/progress",'])
async def test_what_is_no_message_is_the_servers_failure(message: bytes) -> None:
    stream = Stream(data(message))
    heard = Heard(stream)

    with pytest.raises(UpstreamFailed) as caught:
        await heard.all()

    assert caught.value.sent
    assert heard.ends == [False]
    assert stream.closed


async def test_a_stream_that_just_ends_is_told_of_as_such() -> None:
    heard = Heard(Stream(data(OTHER)))

    assert len(await heard.all()) == 1
    assert heard.ends == [False]


async def test_its_reader_may_leave_or_break_it_off_and_it_ends_once() -> None:
    stream = Droppable(data(OTHER))
    heard = Heard(stream)

    heard.progress.drop()
    await heard.progress.aclose()

    assert stream.dropped
    assert stream.closed
    assert heard.ends == [False]


async def test_a_stream_that_cannot_be_broken_off_is_left() -> None:
    heard = Heard(Stream())

    heard.progress.drop()

    assert heard.ends == [False]
