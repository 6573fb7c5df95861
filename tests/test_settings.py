from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy.errors import SettingsError
from proxy.settings import (
    MAX_SECRET,
    LogFormat,
    LogLevel,
    Settings,
    environment_of_successor,
    load_settings,
    read_env_file,
)


@dataclass(frozen=True)
class Ref:
    ref: str
    optional: bool = False


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CALLSPLIT_", "MCP_")):
            monkeypatch.delenv(name)


def env_file(folder: Path, text: str) -> Path:
    path = folder / "some.env"
    path.write_text(text)
    return path


def test_without_a_word_there_are_defaults() -> None:
    settings = load_settings()

    assert settings.rules == Path("rules/rules.yaml")
    assert (settings.listen, settings.admin_listen) == (None, None)
    assert (settings.log_level, settings.log_format) == (LogLevel.INFO, LogFormat.JSON)


def test_a_flag_outranks_the_environment_which_outranks_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = env_file(
        tmp_path, "CALLSPLIT_RULES=file\nCALLSPLIT_LISTEN=file\nCALLSPLIT_LOG_LEVEL=debug\n"
    )
    monkeypatch.setenv("CALLSPLIT_RULES", "environment")
    monkeypatch.setenv("CALLSPLIT_LISTEN", "environment")
    settings = load_settings(env_file=path, rules=Path("flag"), listen=None)

    assert settings.rules == Path("flag")
    assert settings.listen == "environment"
    assert settings.log_level is LogLevel.DEBUG


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLSPLIT_RULES", "")
    monkeypatch.setenv("CALLSPLIT_ENV_FILE", "")

    assert load_settings().rules == Path("rules/rules.yaml")


def test_the_environment_may_name_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = env_file(tmp_path, "MCP_X=1")
    monkeypatch.setenv("CALLSPLIT_ENV_FILE", str(path))

    assert load_settings().environment["MCP_X"] == "1"


def test_every_fault_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLSPLIT_LOG_LEVEL", "loud")
    monkeypatch.setenv("CALLSPLIT_LOG_FORMAT", "xml")
    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert "CALLSPLIT_LOG_LEVEL: input should be 'debug'" in str(caught.value)
    assert "CALLSPLIT_LOG_FORMAT: input should be 'json'" in str(caught.value)


def test_settings_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.listen = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.environment["A"] = "x"  # type: ignore[index]


def test_the_environment_is_as_it_was_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_X", "before")
    settings = load_settings()
    monkeypatch.setenv("MCP_X", "after")

    assert settings.environment["MCP_X"] == "before"


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_an_env_file_is_read_as_usual(tmp_path: Path) -> None:
    text = "\ufeff# comment\nA=1\nexport B='two words'\nC=\"x\" # why\n\nD=\nE=${A}\nA=2\n"

    assert read_env_file(env_file(tmp_path, text)) == {
        "A": "2", "B": "two words", "C": "x", "D": "", "E": "${A}",
    }  # fmt: skip


@pytest.mark.parametrize("line", ["hunter2", "A='hunter2", "= hunter2"])
def test_a_faulty_env_file_is_told_by_its_line_and_not_repeated(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match="line 2: not NAME=value") as caught:
        load_settings(env_file=env_file(tmp_path, f"A=1\n{line}\n"))
    assert "hunter2" not in str(caught.value)


def test_an_env_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        load_settings(env_file=tmp_path / "nothing")
    path = tmp_path / "latin"
    path.write_bytes(b"A=\xe9")
    with pytest.raises(SettingsError, match="is not utf-8"):
        load_settings(env_file=path)


def test_a_secret_comes_from_the_environment_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETELL_API_KEY", "schlüssel\udcff")
    settings = load_settings()

    assert settings.secret(Ref("env:RETELL_API_KEY")) == "schlüssel".encode() + b"\xff"
    assert settings.has_secret(Ref("env:RETELL_API_KEY"))


def test_a_secret_may_come_from_the_env_file(tmp_path: Path) -> None:
    settings = load_settings(env_file=env_file(tmp_path, "MCP_RETELL_AGENT_TOKEN=abc"))

    assert settings.secret(Ref("env:MCP_RETELL_AGENT_TOKEN")) == b"abc"


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"abc", b"abc"), (b"abc\n", b"abc"), (b"abc\r\n", b"abc"), (b" a\n\n", b" a\n")],
)
def test_a_secret_file_loses_only_its_last_newline(
    tmp_path: Path, content: bytes, secret: bytes
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)

    assert load_settings().secret(Ref(f"file:{path}")) == secret


def test_a_secret_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """Rotation is: write the file, reload the rules."""
    path = tmp_path / "secret"
    settings = load_settings()
    path.write_text("old")
    assert settings.secret(Ref(f"file:{path}")) == b"old"
    path.write_text("new")
    assert settings.secret(Ref(f"file:{path}")) == b"new"


@pytest.mark.parametrize("content", [None, b"", b"\n"])
def test_an_absent_or_empty_secret_is_one_only_if_it_may_be(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    settings = load_settings()

    for ref in (f"file:{path}", "env:MCP_NOTHING"):
        assert settings.secret(Ref(ref, optional=True)) is None
        assert not settings.has_secret(Ref(ref, optional=True))
        assert not settings.has_secret(Ref(ref))
        with pytest.raises(SettingsError, match="is not set or empty"):
            settings.secret(Ref(ref))


def test_a_secret_file_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    settings = load_settings()
    huge = tmp_path / "huge"
    huge.write_bytes(b"x" * (MAX_SECRET + 1))

    with pytest.raises(SettingsError, match="larger than 64 kB"):
        settings.secret(Ref(f"file:{huge}", optional=True))
    with pytest.raises(SettingsError, match="cannot be read"):
        settings.secret(Ref(f"file:{tmp_path}"))


def test_a_fingerprint_changes_with_the_secrets_in_files_alone(tmp_path: Path) -> None:
    file, other = tmp_path / "token", tmp_path / "other"
    settings = load_settings()
    references = [Ref(f"file:{file}", True), Ref(f"file:{other}", True), Ref("env:HOME", True)]

    def look() -> bytes:
        return settings.fingerprint(references)

    absent = look()
    file.write_text("a")
    first = look()
    file.write_text("b")
    second = look()
    file.unlink()
    other.write_text("a")
    swapped = look()
    other.unlink()

    assert len({absent, first, second, swapped}) == 4
    assert look() == absent
    assert settings.fingerprint(references[2:]) == settings.fingerprint([])


def test_the_length_of_a_secret_is_told_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("twelve bytes\n")
    settings = load_settings()

    assert settings.secret_length(Ref(f"file:{tmp_path}/token", False)) == 12
    assert settings.secret_length(Ref(f"file:{tmp_path}/none", False)) == 0


def test_who_follows_has_the_same_environment_but_for_what_was_said_to_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "1")

    environment = environment_of_successor()

    assert environment["NOTIFY_SOCKET"] == "1"
    assert not [name for name in environment if name.startswith(("LISTEN_", "WATCHDOG_"))]
