"""When do new rules go into force?  After a save, a ConfigMap swap, SIGHUP; the last good stay.

So do new secrets in files: a mounted Secret is swapped without a word to anybody.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path

from watchfiles import awatch

from proxy.adapters.rules_file import LoadedRules, parse_rules, read_rules
from proxy.core.rules import SecretRef
from proxy.core.rules.walk import secrets as secrets_of
from proxy.errors import CallsplitError, Fault, RulesError

SETTLE = 0.05
"""Seconds for which a file must stay as it is: a half-written one is not half a rule set."""

MAX_LOOKS = 10
"""Looks at a file that keeps changing before it is taken as it is."""

POLL_MS = 700
"""Without a sign from the file system (network disks have none) we look this often."""

Apply = Callable[[LoadedRules], None]
Refuse = Callable[[RulesError], None]
Fingerprint = Callable[[Iterable[SecretRef]], bytes]
"""Changes when a secret in a file does."""


class RulesWatch:
    """Keeps rules in step with their file.

    `apply` puts rules into force, or raises if it cannot (the old ones stay); `refuse`
    hears of every content that cannot be used, once per content.
    """

    def __init__(
        self,
        loaded: LoadedRules,
        environment: Mapping[str, str],
        *,
        apply: Apply,
        refuse: Refuse,
        secrets: Fingerprint = lambda _: b"",
    ) -> None:
        self.loaded = loaded  # the last good ones
        self._files = _secret_files(loaded)
        self._environment = environment
        self._apply = apply
        self._refuse = refuse
        self._seen = bytes.fromhex(loaded.content_hash)
        self._secrets = secrets
        self._held = self._secrets(self._files)
        self._turn = asyncio.Lock()

    async def watch(self) -> None:
        """Reload whenever the content has changed; runs until it is cancelled."""
        while True:
            try:
                await self._follow()
            except (OSError, RuntimeError):  # the directory is gone, or no watch can be had
                await asyncio.sleep(POLL_MS / 1000)
            await self.reload()

    async def reload(self, *, force: bool = False) -> bool:
        """Look at the file once; True if rules went into force.

        With `force` (SIGHUP) also the same content is applied again.
        """
        async with self._turn:
            content = await self._settled()
            seen, held = _fingerprint(content), await self._settled_secrets()
            if seen == self._seen and held == self._held and not force:
                return False
            self._seen, self._held = seen, held
            try:
                loaded = await asyncio.to_thread(self._parse, content)
                files = _secret_files(loaded)
                held = await asyncio.to_thread(self._secrets, files)
                self._apply(loaded)
            except Exception as error:  # Also a bug: nothing may end the watch.
                self._refuse(_reason(error))
                return False
            self.loaded, self._files, self._held = loaded, files, held
            return True

    async def _follow(self) -> None:
        """Reload on every sign of life in the file's directories, until they change."""
        directories = _directories(self.loaded.path)
        signs = awatch(
            *directories,
            watch_filter=None,
            debounce=200,
            step=100,  # each look of its thread takes the interpreter from the loop
            rust_timeout=POLL_MS,
            yield_on_timeout=True,
            recursive=False,
        )
        async with aclosing(signs):
            async for _ in signs:
                await self.reload()
                if _directories(self.loaded.path) != directories:
                    return

    async def _settled(self) -> bytes | RulesError:
        """The content once it stands still, or why there is none."""
        content = await asyncio.to_thread(self._read)
        for _ in range(MAX_LOOKS):
            if _fingerprint(content) == self._seen:
                break
            await asyncio.sleep(SETTLE)
            again = await asyncio.to_thread(self._read)
            if _fingerprint(again) == _fingerprint(content):
                break
            content = again
        return content

    async def _settled_secrets(self) -> bytes:
        """What the secrets in files are, once they stand still: an editor empties a file first."""
        if not self._files:
            return self._held
        held = await asyncio.to_thread(self._secrets, self._files)
        for _ in range(MAX_LOOKS):
            if held == self._held:
                break
            await asyncio.sleep(SETTLE)
            again = await asyncio.to_thread(self._secrets, self._files)
            if again == held:
                break
            held = again
        return held

    def _read(self) -> bytes | RulesError:
        try:
            return read_rules(self.loaded.path)
        except RulesError as error:
            return error

    def _parse(self, content: bytes | RulesError) -> LoadedRules:
        if isinstance(content, RulesError):
            raise content
        return parse_rules(content, self._environment, path=self.loaded.path)


def _secret_files(loaded: LoadedRules) -> list[SecretRef]:
    """Those that can change while we run."""
    return [ref for _, ref in secrets_of(loaded.rules) if ref.ref.startswith("file:")]


def _fingerprint(content: bytes | RulesError) -> bytes:
    if isinstance(content, RulesError):
        return b"".join(fault.message.encode() for fault in content.faults)
    return hashlib.sha256(content).digest()


def _directories(path: Path) -> tuple[Path, ...]:
    """Where a change may show: beside the name that we were given, and beside the file itself.

    A mounted ConfigMap swaps a link in the first; a plain link leads to the second.
    """
    beside = path.absolute().parent
    target = path.resolve().parent
    return (beside, target) if target != beside and target.is_dir() else (beside,)


def _reason(error: Exception) -> RulesError:
    """Any reason why rules cannot go into force, as a RulesError."""
    if isinstance(error, RulesError):
        return error
    told = isinstance(error, CallsplitError)
    return RulesError([Fault(str(error) if told else f"{type(error).__name__}: {error}")])
