from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.adapters import rules_watch
from proxy.adapters.rules_file import LoadedRules, load_rules
from proxy.adapters.rules_watch import RulesWatch
from proxy.core.rules import SecretRef
from proxy.errors import RulesError, SettingsError

RULES = """\
backends:
  mcp: {handler: mcp, url: "http://127.0.0.1:8000/mcp"}
  webhook: {handler: webhook, url: "http://127.0.0.1:8000/hook", sign: "env:KEY?"}
split: {percent: %s}
"""
SOON = 10.0
"""Seconds after which something that must happen has not; it takes milliseconds."""


class Service:
    """What rules are put into force in: it remembers, and may be unable to take some."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.refused: list[str] = []
        self.news = asyncio.Event()
        self.obstacle: Exception | None = None

    def apply(self, loaded: LoadedRules) -> None:
        if self.obstacle is not None:
            raise self.obstacle
        self.shares.append(loaded.rules.split.percent)
        self.news.set()

    def refuse(self, error: RulesError) -> None:
        self.refused.append(error.faults[0].message)
        self.news.set()

    async def hears(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON):
            while not reached():
                await self.news.wait()
                self.news.clear()


def write(path: Path, share: object) -> None:
    path.write_text(RULES % share)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "rules.yaml", 0)
    return tmp_path / "rules.yaml"


@pytest.fixture
def service() -> Service:
    return Service()


def watch_of(path: Path, service: Service) -> RulesWatch:
    return RulesWatch(load_rules(path, {}), {}, apply=service.apply, refuse=service.refuse)


@asynccontextmanager
async def watching(path: Path, service: Service) -> AsyncIterator[RulesWatch]:
    watch = watch_of(path, service)
    task = asyncio.ensure_future(watch.watch())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_saved_file_goes_into_force(path: Path, service: Service) -> None:
    async with watching(path, service) as watch:
        for share in (1, 2, 3):
            write(path, share)
            await service.hears(lambda: service.shares[-1:] == [float(share)])  # noqa: B023

        assert watch.loaded.rules.split.percent == 3.0
        assert service.refused == []


async def test_an_editor_that_replaces_the_file_is_followed(path: Path, service: Service) -> None:
    async with watching(path, service):
        for share in (1, 2):
            write(path.with_suffix(".new"), share)
            path.with_suffix(".new").replace(path)
            await service.hears(lambda: service.shares[-1:] == [float(share)])  # noqa: B023


async def test_a_config_map_that_swaps_its_link_is_followed(
    tmp_path: Path, service: Service
) -> None:
    """A mounted ConfigMap: rules.yaml -> ..data/rules.yaml, ..data -> ..<time>, old one deleted."""

    def swap(version: int) -> None:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        write(folder / "rules.yaml", version)
        (tmp_path / "..data_tmp").symlink_to(folder.name)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        shutil.rmtree(tmp_path / f"..{version - 1}", ignore_errors=True)

    swap(0)
    path = tmp_path / "rules.yaml"
    path.symlink_to("..data/rules.yaml")
    async with watching(path, service):
        for version in (1, 2, 3):
            swap(version)
            await service.hears(lambda: service.shares[-1:] == [float(version)])  # noqa: B023


async def test_a_link_to_a_file_elsewhere_is_followed(path: Path, service: Service) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    link = elsewhere / "linked.yaml"
    link.symlink_to(path)
    async with watching(link, service):
        write(path, 5)
        await service.hears(lambda: service.shares == [5.0])


async def test_bad_rules_leave_the_good_ones_in_force(path: Path, service: Service) -> None:
    async with watching(path, service) as watch:
        write(path, "many")
        await service.hears(lambda: bool(service.refused))
        assert watch.loaded.rules.split.percent == 0.0
        assert service.shares == []

        write(path, 7)
        await service.hears(lambda: service.shares == [7.0])


async def test_a_deleted_file_is_told_once_and_its_return_goes_into_force(
    path: Path, service: Service
) -> None:
    async with watching(path, service):
        path.unlink()
        await service.hears(lambda: bool(service.refused))
        write(path, 8)
        await service.hears(lambda: service.shares == [8.0])

    assert service.refused == ["cannot be read: no such file or directory"]


async def test_a_directory_that_goes_away_is_waited_for(path: Path, service: Service) -> None:
    folder = path.parent / "mounted"
    folder.mkdir()
    inside = folder / "rules.yaml"
    write(inside, 0)
    async with watching(inside, service):
        shutil.rmtree(folder)
        await service.hears(lambda: bool(service.refused))
        folder.mkdir()
        write(inside, 9)
        await service.hears(lambda: service.shares == [9.0])


async def test_a_directory_that_cannot_be_watched_is_looked_at(
    path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No inotify left, or a disk that has none: then by the clock."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("inotify limit reached")

    monkeypatch.setattr(rules_watch, "awatch", refuse)
    monkeypatch.setattr(rules_watch, "POLL_MS", 10)
    async with watching(path, service):
        write(path, 5)
        await service.hears(lambda: service.shares == [5.0])


async def test_a_file_that_only_looks_new_is_left_alone(path: Path, service: Service) -> None:
    watch = watch_of(path, service)
    os.utime(path, (1, 1))
    write(path, 0)

    assert not await watch.reload()
    assert service.shares == []


async def test_a_signal_applies_the_same_content_again(path: Path, service: Service) -> None:
    """Secrets in files may have changed."""
    watch = watch_of(path, service)

    assert await watch.reload(force=True)
    assert service.shares == [0.0]


async def test_bad_content_is_told_once_but_on_a_signal_again(path: Path, service: Service) -> None:
    watch = watch_of(path, service)
    write(path, "many")

    for force in (False, False, True):
        assert not await watch.reload(force=force)
    assert len(service.refused) == 2


@pytest.mark.parametrize(
    ("obstacle", "messages"),
    [
        (
            SettingsError("the secret env:KEY is not set or empty"),
            ["the secret env:KEY is not set or empty"],
        ),
        (RulesError([]), []),
        (KeyError("a bug"), ["KeyError: 'a bug'"]),
    ],
)
async def test_rules_that_cannot_go_into_force_leave_the_old_ones(
    path: Path,
    service: Service,
    obstacle: Exception,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[RulesError] = []
    monkeypatch.setattr(service, "refuse", told.append)
    watch = watch_of(path, service)
    service.obstacle = obstacle
    write(path, 5)

    assert not await watch.reload()
    assert watch.loaded.rules.split.percent == 0.0
    assert [fault.message for error in told for fault in error.faults] == messages

    service.obstacle = None
    assert not await watch.reload()  # the same content was judged already
    assert await watch.reload(force=True)


async def test_a_file_is_taken_only_once_it_stands_still(
    path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer in the middle: each look sees more, and half of it would be valid rules too."""
    watch = watch_of(path, service)
    looks = iter([RULES % 1, RULES % 12, RULES % 12.5, RULES % 12.5])
    monkeypatch.setattr(rules_watch, "SETTLE", 0)
    monkeypatch.setattr(rules_watch, "read_rules", lambda _: next(looks).encode())

    assert await watch.reload()
    assert service.shares == [12.5]


async def test_a_file_that_never_stands_still_is_taken_as_it_is(
    path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watch_of(path, service)
    looks = iter(range(1, 100))
    monkeypatch.setattr(rules_watch, "SETTLE", 0)
    monkeypatch.setattr(rules_watch, "read_rules", lambda _: (RULES % next(looks)).encode())

    assert await watch.reload()
    assert service.shares == [float(rules_watch.MAX_LOOKS + 1)]


async def test_two_reloads_at_once_apply_once(path: Path, service: Service) -> None:
    watch = watch_of(path, service)
    write(path, 5)
    outcomes = await asyncio.gather(watch.reload(), watch.reload())

    assert sorted(outcomes) == [False, True]
    assert service.shares == [5.0]


async def test_a_byte_order_mark_is_no_change(path: Path, service: Service) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    watch = watch_of(path, service)

    assert not await watch.reload()


class Files:
    """What the secrets in files are, as the rules refer to them."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = list(contents)
        self.asked: list[list[str]] = []

    def fingerprint(self, references: Iterable[SecretRef]) -> bytes:
        self.asked.append([str(ref) for ref in references])
        return self.contents.pop(0) if len(self.contents) > 1 else self.contents[0]


def with_files(path: Path, service: Service, files: Files) -> RulesWatch:
    path.write_text((RULES % 0).replace("env:KEY?", "file:/key?"))
    return RulesWatch(
        load_rules(path, {}), {}, apply=service.apply, refuse=service.refuse,
        secrets=files.fingerprint,
    )  # fmt: skip


async def test_a_new_secret_in_a_file_goes_into_force_with_the_same_rules(
    path: Path, service: Service
) -> None:
    """A mounted Secret is swapped, and nobody sends a signal."""
    files = Files(b"old")
    watch = with_files(path, service, files)
    assert not await watch.reload()

    files.contents = [b"new"]

    assert await watch.reload()
    assert not await watch.reload()
    assert service.shares == [0]
    assert files.asked[0] == ["file:/key?"]


async def test_a_secret_that_is_being_written_is_waited_for(path: Path, service: Service) -> None:
    """An editor empties a file first: an empty token is none."""
    files = Files(b"old")
    watch = with_files(path, service, files)
    files.contents = [b"", b"half", b"new"]

    assert await watch.reload()
    assert files.contents == [b"new"]
    assert service.shares == [0]


async def test_a_secret_that_changes_while_it_goes_into_force_goes_into_force_again(
    path: Path, service: Service
) -> None:
    files = Files(b"old")
    watch = with_files(path, service, files)
    files.contents = [b"new", b"new", b"new", b"newer"]

    assert await watch.reload()
    assert await watch.reload()
    assert not await watch.reload()


async def test_secrets_that_are_refused_are_refused_once(path: Path, service: Service) -> None:
    files = Files(b"old")
    watch = with_files(path, service, files)
    service.obstacle = SettingsError("no such secret")
    files.contents = [b""]

    assert not await watch.reload()
    assert not await watch.reload()
    assert service.refused == ["no such secret"]


async def test_without_secrets_in_files_nobody_looks_for_them(path: Path, service: Service) -> None:
    """Those of the environment cannot change."""
    files = Files(b"old")
    watch = RulesWatch(
        load_rules(path, {}), {}, apply=service.apply, refuse=service.refuse,
        secrets=files.fingerprint,
    )  # fmt: skip
    files.asked.clear()
    assert not await watch.reload()
    assert files.asked == []

    path.write_text((RULES % 0).replace("env:KEY?", "file:/key?"))
    assert await watch.reload()
    files.contents = [b"new"]
    assert await watch.reload()
    assert service.shares == [0, 0]
