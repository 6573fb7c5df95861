"""What an attempt holds in its hands: the way out to its upstream, and an answer that streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from proxy.core.model import Headers, Outbound, Reply
from proxy.errors import UpstreamFailed
from proxy.ports import Upstream


class Sender:
    """One attempt's `send`: bound to its upstream, its deadline and its exchange's headers.

    `dispatched`: the leg that can run the tool has been begun.
    """

    __slots__ = ("_deadline", "_extra", "_linger", "_upstream", "dispatched")

    def __init__(
        self, upstream: Upstream, extra: Headers, *, deadline: float, linger: float
    ) -> None:
        self.dispatched = False
        self._upstream = upstream
        self._extra = extra
        self._deadline = deadline
        self._linger = linger

    async def __call__(self, outbound: Outbound, *, dispatches: bool = True) -> Reply:
        """See `backends.base.Send`."""
        if not dispatches:
            return await self._upstream.send(outbound, self._extra, deadline=self._deadline)
        self.dispatched = True
        return await self._upstream.send(
            outbound, self._extra, deadline=self._deadline, linger=self._linger
        )


class Settled:
    """A streamed body that tells exactly once how it ended.

    `ended(failure, whole)`: the upstream's failure if it broke, and whether the body was read to
    its end; neither means that the reader went away.  An async generator would not
    do: closed before its first step, it runs none of its own clean-up.
    """

    __slots__ = ("_chunks", "_ended", "size")

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        ended: Callable[[UpstreamFailed | None, bool], None],
    ) -> None:
        self.size = 0  # bytes handed on
        self._chunks = chunks
        self._ended: Callable[[UpstreamFailed | None, bool], None] | None = ended

    def __aiter__(self) -> Settled:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self._tell(None, whole=True)
            raise
        except UpstreamFailed as failure:
            self._tell(failure, whole=False)
            raise
        except BaseException:
            self._tell(None, whole=False)
            raise
        self.size += len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Let go of the upstream; harmless after the end."""
        self._tell(None, whole=False)
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()

    def _tell(self, failure: UpstreamFailed | None, *, whole: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(failure, whole)
