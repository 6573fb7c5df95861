"""Which tools does an MCP server list, and what does it say of itself?

The catalogue is kept from the last `tools/list` that came to its end; one that fails changes
nothing.
"""

from __future__ import annotations

from typing import Final

from backends.base import Send
from backends.mcp_answers import told
from backends.mcp_peer import Agreed, Peer, lost_session
from backends.mcp_sessions import Sessions
from proxy.core.dialects import jsonrpc
from proxy.core.dialects.catalogue import Catalogue, Listed, Mirror, parse_page
from proxy.core.model import Era
from proxy.errors import ProbeFailed, UpstreamFailed

PAGES: Final = 50
"""How far a `tools/list` is followed: a server that pages in a circle must not hang us."""


class Listing:
    """A server's catalogue, and questions that need no more than that."""

    def __init__(self, peer: Peer, sessions: Sessions) -> None:
        self.catalogue: Catalogue | None = None  # None: never listed
        self._peer = peer
        self._sessions = sessions

    def get(self, tool: str) -> Listed | None:
        """What the server last said of a tool."""
        return self.catalogue.tools.get(tool) if self.catalogue is not None else None

    def mirrors(self, tool: str) -> tuple[Mirror, ...]:
        """The arguments that the server wants repeated in headers."""
        listed = self.get(tool)
        return listed.mirrors if listed is not None else ()

    async def lacks(self, tool: str, send: Send) -> bool:
        """The server's own catalogue does not have the tool.

        Asked for anew: in an older one a tool that the server has learned since, and has run,
        would be missing too.
        """
        try:
            await self.renew(send)
        except (UpstreamFailed, ProbeFailed):
            return False
        assert self.catalogue is not None
        return self.catalogue.whole and self.get(tool) is None

    async def check(self, send: Send, *, listing: bool) -> None:
        """Ask for something harmless: the catalogue, or what the server's era has instead.

        Raises `ProbeFailed` once a newly learned era does not help, `UpstreamFailed`.
        """
        try:
            return await self._check(await self._peer.current_era(send), send, listing=listing)
        except UpstreamFailed:
            if not self._peer.no_legacy:
                raise
        except ProbeFailed:
            await self._peer.learn_era(send)
        return await self._check(await self._peer.current_era(send), send, listing=listing)

    async def _check(self, era: Era, send: Send, *, listing: bool) -> None:
        if listing or era is Era.LEGACY:
            return await self._renew(era, send)
        reply, answer = await self._peer.ask(jsonrpc.server_discover(), send)
        if not isinstance(answer, bytes):
            raise ProbeFailed(told("server/discover", reply, answer))
        return None

    async def refresh(self, send: Send) -> None:
        """Learn everything anew: era, introduction, catalogue.

        Raises `ProbeFailed`, `UpstreamFailed`.
        """
        if self._peer.no_legacy:  # It may speak that by now.
            await self._sessions.serves_legacy(send)
        era = await self._peer.learn_era(send)
        await self._renew(era, send)
        if era is Era.LEGACY:
            self._sessions.make_ready()

    async def renew(self, send: Send) -> None:
        """Renew the catalogue; raises `ProbeFailed`, `UpstreamFailed`."""
        await self._renew(await self._peer.current_era(send), send)

    async def _renew(self, era: Era, send: Send) -> None:
        if era is Era.MODERN:
            return await self._list(era, send, None)
        try:
            return await self._list_in_session(send)
        except _LostSession:
            return await self._list_in_session(send)

    async def _list_in_session(self, send: Send) -> None:
        """In one session to the last page: its cursors may hold nowhere else."""
        seat = await self._sessions.lease(None, send)
        try:
            await self._list(Era.LEGACY, send, seat.agreed)
        except _LostSession:
            self._sessions.lose(seat)
            raise
        finally:
            self._sessions.release(seat)

    async def _list(self, era: Era, send: Send, agreed: Agreed | None) -> None:
        tools: dict[str, Listed] = {}
        cursor: str | None = None
        for _ in range(PAGES):
            reply, answer = await self._peer.ask(jsonrpc.tools_list(era, cursor), send, agreed)
            if not isinstance(answer, bytes):
                finding = told("tools/list", reply, answer)
                if agreed is not None and lost_session(reply.status, agreed.session, answer):
                    raise _LostSession(finding)
                raise ProbeFailed(finding)
            try:
                page = parse_page(answer)
            except ValueError as error:
                raise ProbeFailed("tools/list: no list of tools") from error
            tools |= {tool.name: tool for tool in page.tools}
            cursor = page.cursor
            if cursor is None:
                break
        welcome = self._peer.welcome
        said = welcome.instructions if welcome is not None else ""
        self.catalogue = Catalogue(tools, whole=cursor is None, instructions=said)


class _LostSession(ProbeFailed):
    """The session of a question is gone."""
