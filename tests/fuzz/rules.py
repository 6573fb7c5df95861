"""What operators write: any bytes as a rules file.

Either they are rules, and then every value can be shown and they can be wired, or refused with
reasons; or every fault is told, each with a place in the file where there is one to point at.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Final, cast

import orjson

from proxy.adapters.certificates import Certificates
from proxy.adapters.clock import LoopClock
from proxy.adapters.logs import configure
from proxy.adapters.rules_file import LoadedRules, parse_rules
from proxy.adapters.upstream import Sweep
from proxy.adapters.watch import Watcher
from proxy.core.model import Reply
from proxy.core.rules.admission import start_faults, start_warnings
from proxy.core.rules.check import MAX_FAULTS
from proxy.core.rules.secret import SecretRef
from proxy.core.rules.show import shown
from proxy.errors import Fault, RulesError, SettingsError
from proxy.wiring import Wiring
from tests.fakes import FakeWatch

FILE: Final = Path("rules.yaml")
TOKEN: Final = "tok-0123456789abcdef"
ENVIRONMENT: Final = {
    "NUMBER": "7", "WORD": "webhook", "TOKEN": TOKEN, "EMPTY": "", "BYTES": "a\udcffb",
}  # fmt: skip
OURS: Final = frozenset({"webhook", "mcp", "tools", "demo"})
"""Handlers that are made; any other name would be imported, and who knows what that does."""


class Rules:
    """The target."""

    def __call__(self, data: bytes) -> None:
        try:
            loaded = parse_rules(data, ENVIRONMENT, path=FILE)
        except RulesError as error:
            check_faults(error.faults, data)
            return
        check_loaded(loaded, data)

    def close(self) -> None: ...


def check_faults(faults: list[Fault], data: bytes) -> None:
    """Each says something, and where."""
    assert 0 < len(faults) <= 2 * MAX_FAULTS + 1
    for fault in faults:
        check_fault(fault, data)


def check_fault(fault: Fault, data: bytes) -> None:
    assert fault.message
    assert fault.file in ("", str(FILE))
    f"{fault.message}{fault.hint}{fault.path}".encode()
    assert TOKEN not in f"{fault.message}{fault.hint}"
    if fault.line == 0:
        assert fault.column == 0
        return
    lines = data.decode("utf-8-sig", "replace").splitlines()
    assert fault.line <= len(lines) + 1, "a line that is not there"
    assert fault.column > 0
    if fault.source and "****" not in fault.source:
        assert fault.source == lines[fault.line - 1]


def check_loaded(loaded: LoadedRules, data: bytes) -> None:
    """What may go into force can be shown, told apart from others, and built."""
    for fault in loaded.warnings:
        check_fault(fault, data)
    orjson.dumps(shown(loaded.rules))
    again = parse_rules(data, ENVIRONMENT, path=FILE)
    assert again.digest == loaded.digest
    start_warnings(loaded.rules, have)
    start_faults(loaded.rules, have)
    if all(arm.handler in OURS for arm in loaded.rules.backends.values()):
        with contextlib.suppress(RulesError, SettingsError):
            build(loaded)


def have(ref: SecretRef) -> bool:
    return secret(ref) is not None


def secret(ref: SecretRef) -> bytes | None:
    """Files are not looked at."""
    if not ref.ref.startswith("env:"):
        return b"from a file, which is long enough"
    value = ENVIRONMENT.get(ref.ref.removeprefix("env:").removesuffix("?"), "")
    return value.encode() or None


def build(loaded: LoadedRules) -> None:
    """Everything that these rules would put in force; nothing is started."""
    clock = LoopClock()
    wiring = Wiring(
        clock=clock,
        watch=cast(Watcher, FakeWatch()),
        sweep=Sweep(clock),
        secret=secret,
        certificates=Certificates(clock=clock, log=configure(clock.wall_ms, stream=io.StringIO())),
    )
    wiring.commit(wiring.prepare(loaded.rules, lambda: Reply(200)))
