"""How is a real MCP server asked, whatever era it speaks, and whoever asks?

Callers who speak its era are relayed, others crossed over; what is no MCP is translated.
"""

from __future__ import annotations

from backends.base import BackendConfig, Send
from backends.mcp_asking import Asking
from backends.mcp_cross import Cross
from backends.mcp_listing import Listing
from backends.mcp_peer import Peer
from backends.mcp_relay import Relay
from backends.mcp_sessions import Sessions
from backends.mcp_tools import Tools
from backends.mcp_translation import Translation
from proxy.core.dialects import jsonrpc
from proxy.core.dialects.catalogue import Catalogue
from proxy.core.dialects.headers import bearer_fields
from proxy.core.model import TOOL_KINDS, Call, Era, Kind, Reply
from proxy.core.targets import Targets
from proxy.errors import ProbeFailed, UpstreamFailed

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_MCP, _LEGACY = Kind.MCP, Era.LEGACY


class McpBackend:
    """Speaks MCP over Streamable HTTP in both of its eras."""

    kinds = TOOL_KINDS
    speaks_mcp = True

    def __init__(self, config: BackendConfig) -> None:
        query = f"?{config.query}" if config.query else ""
        targets = Targets(config.path, config.query, config.paths)
        peer = Peer(f"{config.path or '/mcp'}{query}", bearer_fields(config.bearer))
        sessions = Sessions(peer, config)
        self._peer = peer
        self._listing = Listing(peer, sessions)
        self._lists = config.probe == "tools/list"
        self._tools = Tools(config, self._listing)
        asking = Asking(config, peer, sessions, self._listing)
        self._translation = Translation(asking, self._tools, targets)
        self._cross = Cross(peer, sessions, asking, self._tools, targets)
        self._relay = Relay(
            config,
            peer=peer,
            sessions=sessions,
            asking=asking,
            tools=self._tools,
            targets=targets,
        )

    async def handle(self, call: Call, send: Send) -> Reply:
        """Relay what is MCP already, ask for the tool where the call is something else."""
        if call.kind is not _MCP:
            return await self._translation.handle(call, send)
        era = call.era or jsonrpc.era_of(call.head.named)
        if await self._speaks(era, send):
            reply = await self._relay.handle(call, era, send)
            if reply is not None:
                return reply
        return await self._cross.handle(call, era, send)

    async def _speaks(self, era: Era, send: Send) -> bool:
        if era is _LEGACY:
            return not self._peer.no_legacy
        return await self._peer.current_era(send) is era

    async def probe(self, send: Send) -> None:
        """Ask for something harmless; raises `ProbeFailed`."""
        try:
            await self._listing.check(send, listing=self._lists)
        except UpstreamFailed as failure:
            raise ProbeFailed(str(failure)) from failure

    @property
    def catalogue(self) -> Catalogue | None:
        """What the server lists and says of itself; None if it was never asked."""
        return self._listing.catalogue

    async def refresh(self, send: Send) -> None:
        """Learn era, introduction and catalogue anew; raises `ProbeFailed` or `UpstreamFailed`."""
        await self._listing.refresh(send)

    def is_read_only(self, tool: str) -> bool:
        """The server's own catalogue says that the tool changes nothing (readOnlyHint)."""
        return self._tools.is_read_only(tool)
