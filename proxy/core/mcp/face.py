"""What does an MCP caller hear whose arm speaks no MCP, or is away?

The face is an MCP server of our own, in both eras: it introduces itself, lists tools and declines
the rest.  Tools themselves are run by the arms.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias

import orjson
from msgspec import Raw

from proxy.core.dialects import jsonrpc
from proxy.core.dialects.answers import no_such_method, rpc_reply
from proxy.core.dialects.catalogue import Catalogue
from proxy.core.dialects.jsonrpc import RpcError
from proxy.core.dialects.members import members_of
from proxy.core.mcp.listing import listing
from proxy.core.model import Call, Counts, Era, Form, Ran, Reply, Verdict
from proxy.core.rules.tools import Tool

TTL_MS: Final = 60_000
"""For how long a caller may keep what the face says: as long as a catalogue is kept unasked."""

ANSWERED: Final = Verdict("success", Ran.NO, Counts.NOTHING)
DECLINED: Final = Verdict("business_no", Ran.NO, Counts.NOTHING)

_CAPABILITIES: Final = b'"capabilities":{"tools":{}}'
_CACHE: Final = b'"ttlMs":%d,"cacheScope":"private"' % TTL_MS
_NO_PARAMS: Final[Mapping[str, Raw]] = {}

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_LEGACY, _MODERN = Era.LEGACY, Era.MODERN
_UNANSWERED = frozenset({Form.NOTIFICATION, Form.ANSWER})

_Members: TypeAlias = bytes | RpcError
"""The members of a result, without its braces; or an error instead."""


def nothing() -> Catalogue | None:
    """No server has ever said anything."""
    return None


class Face:
    """Answers every MCP message but `tools/call`.

    `tools` are those of the rules, and `arm` is the one whose server has told `catalogue`.
    """

    def __init__(
        self,
        tools: Collection[Tool] = (),
        *,
        arm: str = "",
        catalogue: Callable[[], Catalogue | None] = nothing,
    ) -> None:
        self._tools = tools
        self._arm = arm
        self._catalogue = catalogue
        self._named = {tool.name: tool.names[arm] for tool in tools if arm in tool.names}
        self._listed: tuple[Catalogue | None, dict[Era, bytes]] = (None, {})
        self._methods: dict[tuple[Era, str | None], Callable[[Call], _Members]] = {
            (_LEGACY, "initialize"): self._initialize,
            (_LEGACY, "ping"): self._nothing,
            (_LEGACY, "logging/setLevel"): self._nothing,
            (_LEGACY, "tools/list"): self._list_legacy,
            (_MODERN, "server/discover"): self._discover,
            (_MODERN, "tools/list"): self._list_modern,
        }

    def knows(self, call: Call) -> bool:
        """Whether it has more to say to this request than that it cannot help."""
        return (_era(call), call.rpc_method) in self._methods

    def promised(self, call: Call, arm: str) -> Mapping[str, Any] | None:
        """The output schema that callers of `arm` know of a tool, as its server has listed it.

        To be put into `Call.promised` where `arm` is asked first: whoever answers in its place.
        """
        known = self._catalogue() if arm == self._arm else None
        if known is None or call.tool is None:
            return None
        listed = known.tools.get(self._named.get(call.tool, call.tool))
        return listed.output_schema if listed is not None else None

    def answer(self, call: Call) -> Reply:
        """What a server that has tools, and nothing else, says to this message."""
        if call.head.method != "POST":
            return _without_body(call)
        if call.rpc_id is None or call.form in _UNANSWERED:
            return Reply(202, verdict=ANSWERED)
        era = _era(call)
        method = self._methods.get((era, call.rpc_method))
        if method is None:
            return no_such_method(call)
        said = method(call)
        if isinstance(said, RpcError):
            message = jsonrpc.render_error(call.rpc_id, said.code, said.message)
            status = 400 if era is _MODERN else 200
            return rpc_reply(call, message, status=status, verdict=DECLINED)
        head = jsonrpc.COMPLETE if era is _MODERN else b""
        message = b'{"jsonrpc":"2.0","id":%b,"result":{%b%b}}' % (call.rpc_id, head, said)
        return rpc_reply(call, message, verdict=ANSWERED)

    def _initialize(self, call: Call) -> _Members:
        try:
            asked = orjson.loads(bytes(_params(call).get("protocolVersion", b"null")))
        except ValueError:
            asked = None
        if not isinstance(asked, str):
            return RpcError(jsonrpc.INVALID_PARAMS, "protocolVersion is missing.")
        version = asked.encode("utf-8", "replace")
        if version not in jsonrpc.HANDSHAKE_VERSIONS:
            version = jsonrpc.LEGACY_VERSION
        return b'"protocolVersion":"%b",%b,"serverInfo":%b%b' % (
            version,
            _CAPABILITIES,
            jsonrpc.SELF,
            self._instructions(),
        )

    def _discover(self, _: Call) -> _Members:
        return b'"supportedVersions":["%b"],%b%b,%b' % (
            jsonrpc.MODERN_VERSION,
            _CAPABILITIES,
            self._instructions(),
            _CACHE,
        )

    def _nothing(self, _: Call) -> _Members:
        """Also to logging/setLevel, although we declare no logging: nothing is ever said at all.

        A client that asks has been told of it by a server that is away now; an error would be its
        first.
        """
        return b""

    def _list_legacy(self, call: Call) -> _Members:
        return _unknown_cursor(call) or b'"tools":%b' % self._list(_LEGACY)

    def _list_modern(self, call: Call) -> _Members:
        return _unknown_cursor(call) or b'"tools":%b,%b' % (self._list(_MODERN), _CACHE)

    def _list(self, era: Era) -> bytes:
        """Rendered once per catalogue."""
        known = self._catalogue()
        of, lists = self._listed
        if known is not of:
            self._listed = (known, lists := {})
        if era not in lists:
            lists[era] = listing(self._tools, self._arm, known, era)
        return lists[era]

    def _instructions(self) -> bytes:
        known = self._catalogue()
        said = known.instructions if known is not None else ""
        return b',"instructions":%b' % orjson.dumps(said) if said else b""


def _era(call: Call) -> Era:
    return call.era or jsonrpc.era_of(call.head.named)


def _without_body(call: Call) -> Reply:
    """Nothing is said of our own accord; a session of ours ends by being forgotten."""
    if call.head.method == "DELETE" and call.session is not None:
        return Reply(204, verdict=ANSWERED)
    return no_such_method(call)


def _params(call: Call) -> Mapping[str, Raw]:
    """Raises ValueError if they are no object."""
    params = bytes(members_of(call.body).get("params", b"null"))
    return members_of(params) if params != b"null" else _NO_PARAMS


def _unknown_cursor(call: Call) -> RpcError | None:
    """We list everything at once, and so have given nobody a cursor."""
    try:
        cursor = bytes(_params(call).get("cursor", b"null"))
    except ValueError:
        return RpcError(jsonrpc.INVALID_PARAMS, "params must be an object.")
    if cursor != b"null":
        return RpcError(jsonrpc.INVALID_PARAMS, "This cursor is unknown.")
    return None
