"""How does a request's progress reach a caller whose request we put to the server ourselves?

Its own token goes in the place of ours; everything else that the server says meanwhile, and only
to this request, keeps its bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from msgspec import Raw

from backends.base import close
from proxy.core.dialects import sse
from proxy.core.dialects.members import document_of, members_of
from proxy.errors import UpstreamFailed


class Progress:
    """The events for a caller, up to and with the answer to its request, which is `rpc_id` there.

    `finish` renders the answer, None for a message that is none.  `ended` is called once, when
    nothing more is heard of the server, and told whether it had answered.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        finish: Callable[[bytes], bytes | None],
        *,
        rpc_id: bytes,
        token: bytes,
    ) -> None:
        self.rpc_id = rpc_id
        self.ended: Callable[[bool], None] | None = None
        self._chunks = chunks
        self._token = token
        self._finish = finish
        self._parser = sse.Parser()
        self._answered = False

    def __aiter__(self) -> Progress:
        return self

    async def __anext__(self) -> bytes:
        while not self._answered:
            try:
                chunk = await self._chunks.__anext__()
                said = b"".join(map(self._rendered, self._parser.feed(chunk)))
            except ValueError as error:
                await self.aclose()
                raise UpstreamFailed("body", "the stream holds no JSON-RPC", sent=True) from error
            except BaseException:
                self._end()
                raise
            if said:
                return said
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Let go of the server's stream; harmless after the end."""
        self._end()
        await close(self._chunks)

    def drop(self) -> None:
        """Break it off, unread."""
        self._end()
        drop = getattr(self._chunks, "drop", None)
        if drop is not None:
            drop()

    def _rendered(self, event: sse.Event) -> bytes:
        if event.name != b"message" or not event.data or self._answered:
            return b""
        message = self._finish(event.data)
        self._answered = message is not None
        return sse.render(message if message is not None else self._passed_on(event.data))

    def _passed_on(self, message: bytes) -> bytes:
        """A notification; that of progress under the caller's own token."""
        members = members_of(message)
        if bytes(members.get("method", b"")) != b'"notifications/progress"':
            return message
        params = members_of(bytes(members.get("params", b"{}")))
        params["progressToken"] = Raw(self._token)
        members["params"] = Raw(document_of(params))
        return document_of(members)

    def _end(self) -> None:
        ended, self.ended = self.ended, None
        if ended is not None:
            ended(self._answered)
