"""How is an outbox kept without a disk?  In one Redis, which the replicas share.

For replicas without a volume.  It survives the sidecars; whether it survives Redis is for Redis'
own persistence to say.  The entries are a stream, so they have one order for everybody.  One
replica at a time delivers (a lease); all hear what the others add and change, so that a call
keeps its order whichever replica its events reach.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol, TypeVar

from msgspec.structs import replace
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError, ResponseError

from proxy.core.outbox import (
    Entry,
    Letter,
    pack_entry,
    pack_letter,
    unpack_entry,
    unpack_letter,
)
from proxy.errors import StoreFailed
from proxy.ports import Clock, OutboxEar

PREFIX: Final = "callsplit:{outbox}:"
"""The braces keep all keys in one slot of a cluster."""

LEASE: Final = 10.0
"""Seconds for which one replica delivers; after a crash the next one waits as long."""

RENEW: Final = 3.0
"""Seconds after which the lease is renewed."""

LISTEN_MS: Final = 1000
"""Milliseconds that one look for news waits."""

NEWS: Final = 10_000
"""Changes that are kept for those who lag behind; they are at most a second behind."""

RECONNECT_FIRST, RECONNECT_MOST = 0.5, 15.0
"""Seconds until a Redis that is away is asked again: doubling."""

ANSWER: Final = 2.0
"""Seconds for an answer of Redis; more than one look for news takes."""

_SEQ, _LOG, _LETTERS, _ENTRIES, _NEWS, _LEADER = (
    PREFIX + name for name in ("seq", "log", "letters", "entries", "news", "leader")
)

# Numbers never start again at 1, not even in an emptied Redis: somebody may hold an old one.
_PUT = """
local known = redis.call('GET', KEYS[5])
if known then return tonumber(known) end
if redis.call('EXISTS', KEYS[1]) == 0 then
  local now = redis.call('TIME')
  redis.call('SET', KEYS[1], string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
end
local id = string.format('%.0f', redis.call('INCR', KEYS[1]))
redis.call('XADD', KEYS[2], id .. '-0', 'e', ARGV[1])
redis.call('HSET', KEYS[3], id .. 'h', ARGV[2], id .. 'b', ARGV[3])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[5], '*', 'i', id, 'e', ARGV[1], 'w', ARGV[4])
redis.call('SET', KEYS[5], id, 'PX', 60000)
return tonumber(id)
"""
_UPDATE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1] .. 'h') == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', 'i', ARGV[1], 'e', ARGV[2], 'w', ARGV[3])
return 1
"""
_REMOVE = """
redis.call('XDEL', KEYS[4], ARGV[1] .. '-0')
redis.call('HDEL', KEYS[1], ARGV[1] .. 'h', ARGV[1] .. 'b')
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'i', ARGV[1], 'e', '', 'w', ARGV[2])
return 1
"""
_LEAD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_LEAVE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"

_T = TypeVar("_T")


class Client(Protocol):
    """What is used of redis-py: commands, and their answers as it parses them."""

    async def execute_command(self, *arguments: Any) -> Any:
        """One command."""

    async def aclose(self) -> None:
        """Close every connection."""


def connect(url: str) -> Client:
    """A client that asks nothing twice by itself; raises `StoreFailed` for no URL."""
    try:
        client: Any = Redis.from_url(
            url,
            protocol=2,
            socket_connect_timeout=1.0,
            socket_timeout=ANSWER,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError) as error:
        raise StoreFailed(f"no redis URL: {error}") from None
    return client  # type: ignore[no-any-return]


class RedisOutbox:
    """An `OutboxStore` in a Redis; `me` tells this process from the other replicas."""

    name = "redis"

    def __init__(self, client: Client, *, clock: Clock, me: str = "") -> None:
        self._client = client
        self._clock = clock
        self._me = me or uuid.uuid4().hex
        self._leads_until = 0.0
        self._renews_at = 0.0
        self._in_doubt = False  # something may stand there that nobody here knows of

    @property
    def leading(self) -> bool:
        """This replica holds the lease, by its own clock, counted from before it asked."""
        return self._clock.now() < self._leads_until

    async def run(self, ear: OutboxEar) -> None:
        """Tell what there is and what changes; until cancelled."""
        pause = RECONNECT_FIRST
        while True:
            try:
                self._in_doubt = False
                news = await self._load(ear)
                pause = RECONNECT_FIRST
                while not self._in_doubt:
                    await self._lead()
                    news = await self._hear(ear, news)
                    obey()
            except StoreFailed as error:
                self._leads_until = 0.0
                ear.failed(str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, RECONNECT_MOST)

    async def put(self, entry: Entry, letter: Letter) -> Entry:
        """Keep both; the entry with its number.

        Asked once more if the connection breaks: what the first one may have kept is recognised.
        """
        packed, (head, body) = pack_entry(entry), pack_letter(letter)
        keys = (_SEQ, _LOG, _LETTERS, _NEWS, f"{PREFIX}nonce:{uuid.uuid4().hex}")
        script = (_PUT, len(keys), *keys, packed, head, body, self._me, NEWS)
        try:
            id = await self._client.execute_command("EVAL", *script)
        except NoConnection:
            id = await self._ask("EVAL", *script)
        except (RedisError, OSError) as error:
            self._in_doubt = not isinstance(error, ResponseError)
            raise StoreFailed(_told(error)) from error
        return replace(entry, id=int(id))

    async def letter(self, id: int) -> Letter | None:
        """The letter of that entry; None if it is gone or damaged."""
        head, body = await self._ask("HMGET", _LETTERS, f"{id}h", f"{id}b")
        if head is None or body is None:
            return None
        try:
            return unpack_letter(head, body)
        except ValueError:
            return None

    async def update(self, entry: Entry) -> None:
        """Keep what an entry has become, if it is still there."""
        keys = (_LETTERS, _ENTRIES, _NEWS)
        script = (_UPDATE, len(keys), *keys, entry.id, pack_entry(entry), self._me, NEWS)
        await self._ask("EVAL", *script)

    async def remove(self, id: int) -> None:
        """Forget an entry and its letter."""
        keys = (_LETTERS, _ENTRIES, _NEWS, _LOG)
        await self._ask("EVAL", _REMOVE, len(keys), *keys, id, self._me, NEWS)

    async def aclose(self) -> None:
        """Let another replica deliver at once, and hang up."""
        try:
            if self.leading:
                self._leads_until = 0.0
                await self._ask("EVAL", _LEAVE, 1, _LEADER, self._me)
        except StoreFailed:
            pass  # The lease ends by itself.
        finally:
            await self._client.aclose()

    async def _ask(self, *command: Any) -> Any:
        return await translated(self._client.execute_command(*command))

    async def _lead(self) -> None:
        """Take or renew the lease, if it is time to and nobody else has it."""
        now = self._clock.now()
        if now < self._renews_at:
            return
        self._renews_at = now + RENEW
        script = (_LEAD, 1, _LEADER, self._me, round(LEASE * 1000))
        holds = await self._ask("EVAL", *script)
        self._leads_until = now + LEASE - RENEW if holds else 0.0

    async def _load(self, ear: OutboxEar) -> str:
        """Tell all there is; where the news begin that come after it.

        The place is read first: what comes in between is told twice, and that does no harm.
        """
        last = await self._ask("XREVRANGE", _NEWS, "+", "-", "COUNT", 1)
        place = last[0][0].decode() if last else "0"
        log = await self._ask("XRANGE", _LOG, "-", "+")
        became = await self._ask("HGETALL", _ENTRIES)
        self._renews_at = 0.0
        await self._lead()
        ear.replaced(entries_of(log, became))
        return place

    async def _hear(self, ear: OutboxEar, place: str) -> str:
        """Wait for news, tell those of others; the place after them."""
        found = await self._ask("XREAD", "COUNT", 500, "BLOCK", LISTEN_MS, "STREAMS", _NEWS, place)
        for _, items in found or ():
            for item, fields in items:
                place = item.decode()
                if fields.get(b"w") != self._me.encode():
                    _tell(ear, fields)
        return place


def obey() -> None:
    """End a task that was cancelled: the client swallows that while it connects (8.1)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def translated(answer: Awaitable[_T]) -> _T:
    """An answer of Redis; every fault of it reads as `StoreFailed`."""
    try:
        return await answer
    except (RedisError, OSError) as error:
        raise StoreFailed(_told(error)) from error


def entries_of(
    log: Sequence[tuple[bytes, dict[bytes, bytes]]], became: dict[bytes, bytes]
) -> list[Entry]:
    """The entries of a stream, as they are now; what cannot be read is left out."""
    found = []
    for item, fields in log:
        number = item.partition(b"-")[0]
        entry = _entry(int(number), became.get(number, fields.get(b"e", b"")))
        if entry is not None:
            found.append(entry)
    return found


def _tell(ear: OutboxEar, fields: dict[bytes, bytes]) -> None:
    id, packed = int(fields[b"i"]), fields[b"e"]
    entry = _entry(id, packed) if packed else None
    if entry is not None or not packed:
        ear.changed(id, entry)


def _entry(id: int, packed: bytes) -> Entry | None:
    try:
        return replace(unpack_entry(packed), id=id)
    except ValueError:
        return None


def _told(error: Exception) -> str:
    """Never the URL, which may hold a password."""
    return f"redis: {type(error).__name__}"
