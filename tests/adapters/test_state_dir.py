"""The state directory: made, locked, replaced as a whole."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.adapters.state_dir import StateDir, StateHeld
from proxy.errors import SettingsError


def _fail(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_the_directory_and_its_files_are_the_owners_alone(tmp_path: Path) -> None:
    held = StateDir.open(tmp_path / "a" / "state")
    held.replace("replays", b"x")

    assert held.writable
    assert stat.S_IMODE(held.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(held.file("replays").stat().st_mode) == 0o600
    assert stat.S_IMODE(held.file("lock").stat().st_mode) == 0o600
    held.close()


def test_a_second_holder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    held = StateDir.open(tmp_path)
    with pytest.raises(SettingsError, match="state_dir of its own") as refusal:
        StateDir.open(tmp_path)

    assert f"process {os.getpid()}" in str(refusal.value)
    held.close()


def test_the_next_process_gets_what_a_closed_one_held(tmp_path: Path) -> None:
    first = StateDir.open(tmp_path)
    first.close()
    first.close()
    assert not first.writable

    second = StateDir.open(str(tmp_path))
    assert second.writable
    second.close()


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    code = (
        "import os,sys; from proxy.adapters.state_dir import StateDir;"
        f"StateDir.open({str(tmp_path)!r}); print('held', flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert ended.stdout == b"held\n"

    held = StateDir.open(tmp_path)
    assert held.writable
    held.close()


def test_a_path_that_is_a_file_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(SettingsError, match="state_dir"):
        StateDir.open(tmp_path / "state")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_without_a_writable_place_nothing_is_kept_and_the_reason_is_told(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a read-only root file system: the service runs on, from memory."""
    monkeypatch.setattr(Path, "mkdir", _fail(number))
    held = StateDir.open(tmp_path)

    assert not held.writable
    assert held.why == os.strerror(number)
    held.close()


def test_a_file_system_without_locks_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", _fail(errno.ENOLCK))
    held = StateDir.open(tmp_path)

    assert not held.writable
    assert "no lock" in held.why


def test_a_lock_held_by_nobody_knows_whom_is_refused_too(tmp_path: Path) -> None:
    """Its holder has not written its process ID yet."""
    with (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match="another process"):
            StateDir.open(tmp_path)


def test_a_lock_that_is_a_link_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError):
        StateDir.open(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_read_back_as_it_was_last_put(tmp_path: Path) -> None:
    held = StateDir.open(tmp_path)
    assert held.read("replays") is None
    held.replace("replays", b"one")
    held.replace("replays", b"two")

    assert held.read("replays") == b"two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "replays"]
    held.close()


def test_a_write_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = StateDir.open(tmp_path)
    held.replace("replays", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fail(errno.ENOSPC))
        with pytest.raises(OSError, match="No space"):
            held.replace("replays", b"new")

    assert held.read("replays") == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock", "replays"]
    held.close()


def test_a_broken_file_is_set_aside_for_a_person(tmp_path: Path) -> None:
    held = StateDir.open(tmp_path)
    held.replace("replays", b"garbage")
    aside = held.set_aside("replays", 1767225600000)

    assert aside.name == "replays.broken-1767225600000"
    assert aside.read_bytes() == b"garbage"
    assert held.read("replays") is None
    held.close()


def test_a_lock_passes_from_one_process_to_the_next_without_a_gap(tmp_path: Path) -> None:
    first = StateDir.open(tmp_path)
    first.replace("file", b"old")
    second = StateDir.awaited(tmp_path)
    assert (second.readable, second.writable, second.read("file")) == (True, False, b"old")
    assert second.number == first.number != 0
    assert first.lock is not None
    copy = os.dup(first.lock)

    second.adopt(copy)
    first.file("lock").write_text("1\n")
    second.sign()
    first.close()

    assert second.writable
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(StateHeld):
        StateDir.open(tmp_path)
    second.close()
    StateDir.open(tmp_path).close()


def test_a_directory_that_is_not_there_has_no_number(tmp_path: Path) -> None:
    assert StateDir.awaited(tmp_path / "missing").number == 0
