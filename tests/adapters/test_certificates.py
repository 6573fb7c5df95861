"""Certificates that change, that cannot be taken, and that grow old."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.adapters import certificates as module
from proxy.adapters.certificates import Certificates, examine
from proxy.adapters.logs import configure
from proxy.adapters.tls_files import Material, load
from proxy.core.rules import Rules
from proxy.core.rules.tls_ends import TlsEnd
from proxy.errors import Fault, RulesError
from tests.authority import NOW, Authority, Pair
from tests.rules_kit import document, rules

DAY = 86_400


class FakeClock:
    """The time in which the certificates were made, which a test may push ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0  # days

    def now(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return int((NOW.timestamp() + self.ahead * DAY) * 1000)


class World:
    """One holder, the certificates in its files, and what it was heard to say."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.clock = FakeClock()
        self._log = io.StringIO()
        self.certificates = Certificates(
            clock=self.clock, log=configure(self.clock.wall_ms, stream=self._log)
        )
        self.renewed: list[str] = []
        self.certificates.renewed = self.renewed.append

    def rules(self, listener: Pair | None = None, **upstream: Any) -> Rules:
        backends = document()["backends"]
        if upstream:
            tls = {key: str(value) for key, value in upstream.items()}
            backends["mcp"] = {**backends["mcp"], "url": "https://mcp.test/mcp", "tls": tls}
        sections: dict[str, Any] = {"backends": backends}
        if listener is not None:
            tls = {"cert_file": str(listener.cert), "key_file": str(listener.key)}
            sections["listen"] = {"tls": tls}
        return rules(**sections)

    def use(self, wanted: Rules) -> None:
        self.certificates.commit(self.certificates.prepare(wanted))

    async def look(self) -> None:
        """Twice: what changed must stand still."""
        await self.certificates.look()
        await self.certificates.look()

    @property
    def shown(self) -> Any:
        """The fingerprint of what callers are shown, as the page has it."""
        return self.certificates.page()[0]["fingerprint"]

    def events(self, name: str) -> list[Any]:
        lines = map(json.loads, self._log.getvalue().splitlines())
        return [one for one in lines if one["event"] == name]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_tls_there_is_nothing(world: World) -> None:
    world.use(world.rules())

    assert world.certificates.of_callers is None
    assert world.certificates.page() == []
    assert world.certificates.expiries() == world.certificates.successes() == {}


def test_what_is_in_force_is_shown(world: World) -> None:
    pair = world.authority.issue(days=30)
    world.use(world.rules(pair, ca_file=world.authority.ca))

    assert world.certificates.of_callers is not None
    listener, upstream = world.certificates.page()
    assert listener["key"], listener["fault"] == ("listen.tls", None)
    assert (listener["fingerprint"], listener["days_left"]) == (pair.fingerprint, 30)
    assert listener["expires_at"].startswith(
        pair.certificate.not_valid_after_utc.date().isoformat()
    )
    assert (upstream["expires_at"], upstream["files"]) == (None, [str(world.authority.ca)])
    assert world.certificates.expiries() == {("listen.tls",): pair.ends}
    assert world.certificates.successes() == {("listen.tls",): 1.0, ("backends.mcp.tls",): 1.0}
    assert [one["key"] for one in world.events("certificate_taken")] == [
        "listen.tls",
        "backends.mcp.tls",
    ]


def test_the_first_of_a_chain_to_end_is_what_counts(world: World) -> None:
    issuer = world.authority.issue("issuer", days=5)
    pair = world.authority.issue(days=30, chain=issuer.cert.read_bytes())
    world.use(world.rules(pair))

    assert world.certificates.expiries() == {("listen.tls",): issuer.ends}


def test_every_fault_of_new_rules_is_told_at_once_and_nothing_changes(world: World) -> None:
    world.use(world.rules(world.authority.issue()))
    before = world.shown
    absent = Pair(Path("/absent.crt"), Path("/absent.key"), world.authority.certificate)
    with pytest.raises(RulesError) as caught:
        world.certificates.prepare(world.rules(absent, ca_file="/absent.ca"))

    assert [fault.path for fault in caught.value.faults] == [
        "listen.tls.cert_file",
        "listen.tls.key_file",
        "backends.mcp.tls.ca_file",
    ]
    assert world.shown == before


async def test_new_files_go_into_force_once_they_stand_still(world: World) -> None:
    pair, newer = world.authority.issue(key=1), world.authority.issue(key=2)
    world.use(world.rules(pair, ca_file=world.authority.ca))
    world.use(world.rules(pair, ca_file=world.authority.ca))
    context = world.certificates.of_callers
    await world.look()
    assert world.certificates.of_callers is context

    newer.over(pair)
    await world.certificates.look()
    assert world.certificates.of_callers is context
    await world.certificates.look()

    assert world.certificates.of_callers is not context
    assert world.shown == newer.fingerprint
    assert world.renewed == ["listen.tls"]
    assert len(world.events("certificate_taken")) == 3
    await world.look()
    assert len(world.events("certificate_taken")) == 3


async def test_a_change_between_two_looks_is_one_change(world: World) -> None:
    """A key written after its certificate: half of a pair is none."""
    pair, newer = world.authority.issue(key=1), world.authority.issue(key=2)
    world.use(world.rules(pair))
    pair.cert.write_bytes(newer.cert.read_bytes())
    await world.certificates.look()
    pair.key.write_bytes(newer.key.read_bytes())
    await world.certificates.look()
    await world.certificates.look()

    assert world.shown == newer.fingerprint
    assert world.events("certificate_refused") == []


async def test_a_bad_pair_leaves_the_old_one_in_force_and_everybody_can_see_it(
    world: World,
) -> None:
    pair, other = world.authority.issue(key=1), world.authority.issue(key=2)
    good = pair.key.read_bytes()
    world.use(world.rules(pair))
    pair.key.write_bytes(other.key.read_bytes())
    await world.look()
    await world.look()

    (told,) = world.events("certificate_refused")
    assert told["key"] == "listen.tls"
    assert "is not the key of" in told["faults"][0]
    assert world.shown == pair.fingerprint
    assert "is not the key of" in world.certificates.page()[0]["fault"]
    assert world.certificates.successes() == {("listen.tls",): 0.0}

    pair.key.write_bytes(good)
    await world.look()

    assert world.certificates.page()[0]["fault"] is None
    assert world.certificates.successes() == {("listen.tls",): 1.0}
    assert world.renewed == []


async def test_bad_files_never_stand_in_the_way_of_other_rules(world: World) -> None:
    """Whoever must lower the share now cannot wait for a certificate."""
    pair = world.authority.issue()
    world.use(world.rules(pair))
    pair.cert.unlink()
    await world.look()
    world.use(world.rules(pair, ca_file=world.authority.ca))

    assert world.shown == pair.fingerprint
    assert world.certificates.page()[0]["fault"] is not None


async def test_files_that_were_only_touched_change_nothing(world: World) -> None:
    pair = world.authority.issue()
    world.use(world.rules(pair))
    context = world.certificates.of_callers
    pair.over(pair)
    await world.look()

    assert world.certificates.of_callers is context
    assert world.renewed == []


async def test_what_has_left_the_rules_meanwhile_renews_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, newer = world.authority.issue(key=1), world.authority.issue(key=2)
    world.use(world.rules(pair))
    newer.over(pair)
    await world.certificates.look()

    def leaving(end: TlsEnd) -> Material:
        world.use(world.rules())
        return load(end)

    monkeypatch.setattr(module, "load", leaving)
    await world.certificates.look()

    assert world.renewed == []
    assert world.certificates.of_callers is None


async def test_without_tls_nothing_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def in_thread(*_: object) -> None:
        raise AssertionError

    world.use(world.rules())
    monkeypatch.setattr(asyncio, "to_thread", in_thread)

    await world.certificates.look()


FAULTS = {
    "no descriptor": RulesError([Fault("a.pem cannot be read: too many open files")]),
    "one that nobody expects": MemoryError("no more"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_fault_that_passes_does_not_stick(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """The files themselves never change again."""
    pair, newer = world.authority.issue(key=1), world.authority.issue(key=2)
    world.use(world.rules(pair))
    newer.over(pair)
    tries = []

    def fails(end: TlsEnd) -> Material:
        tries.append(end)
        raise fault

    monkeypatch.setattr(module, "load", fails)
    for _ in range(100):
        await world.certificates.look()
    assert world.shown == pair.fingerprint
    assert len(world.events("certificate_refused")) == 1
    monkeypatch.setattr(module, "load", load)
    for _ in range(100):
        await world.certificates.look()

    assert 3 < len(tries) < 10  # less and less often
    assert (world.shown, world.renewed) == (newer.fingerprint, ["listen.tls"])
    assert world.certificates.page()[0]["fault"] is None


async def test_nothing_ends_the_watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks the looks is told once, and once more if it comes back."""
    looks: list[int] = []
    enough = asyncio.Event()

    async def look() -> None:
        looks.append(1)
        if len(looks) == 9:
            enough.set()
        if len(looks) not in (1, 5):
            raise OSError(errno.EAGAIN, "no thread is left")

    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(world.certificates, "look", look)
    watch = asyncio.create_task(world.certificates.watch())
    await asyncio.wait_for(enough.wait(), 10)
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch

    assert len(world.events("certificates_not_watched")) == 2


# -- Age.


@pytest.mark.parametrize(
    ("days", "begins", "told"),
    [
        (90, -1, ""),
        (14.5, -1, ""),
        (13.5, -1, "in 13 days"),
        (0.5, -1, "in 0 days"),
        (-0.5, -9, "expired on"),
        (90, 2, "is not valid before"),
    ],
)
def test_an_old_certificate_is_warned_of(
    world: World, days: float, begins: float, told: str
) -> None:
    pair = world.authority.issue(days=days, begins=begins)
    world.use(world.rules(pair))

    warnings = world.certificates.warnings()
    assert len(warnings) == bool(told)
    assert all(told in one and str(pair.cert) in one for one in warnings)
    assert len(world.events("certificate_expires_soon")) == bool(told)
    assert examine(world.rules(pair), world.clock.wall_ms()) == ([], warnings)


async def test_it_is_said_once_a_day_until_it_is_renewed(world: World) -> None:
    pair = world.authority.issue(days=20)
    world.use(world.rules(pair))
    for _ in range(4 * 10):
        await world.certificates.look()
        world.clock.ahead += 0.25

    assert len(world.events("certificate_expires_soon")) == 5
    world.clock.ahead = 25.0
    await world.certificates.look()
    assert "callers refuse it" in world.events("certificate_expires_soon")[-1]["message"]
    world.authority.issue(days=80).over(pair)
    await world.look()
    assert world.certificates.warnings() == []


def test_a_look_ahead_tells_of_every_file(world: World) -> None:
    absent = Pair(Path("/absent.crt"), Path("/absent.key"), world.authority.certificate)
    faults, warnings = examine(world.rules(absent, ca_file="/absent.ca"), 0)

    assert len(faults) == 3
    assert warnings == []


def test_handshakes_are_counted_by_how_they_ended(world: World) -> None:
    world.certificates.shaken("plain")

    assert world.certificates.handshakes()["plain",] == 1.0
    assert world.certificates.handshakes()["ok",] == 0.0
