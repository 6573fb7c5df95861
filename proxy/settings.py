"""What does the environment fix?  The only reader of os.environ, of env files and of secrets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from dotenv.parser import parse_stream
from pydantic import Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from proxy.errors import SettingsError

PREFIX = "CALLSPLIT_"
ENV_FILE = "CALLSPLIT_ENV_FILE"
MAX_SECRET = 64 * 1024


class LogLevel(StrEnum):
    """The least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """JSON for machines, console for people."""

    JSON = "json"
    CONSOLE = "console"


class Reference(Protocol):
    """Where a secret stands: `env:NAME` or `file:/path` (the rules' `SecretRef`)."""

    @property
    def ref(self) -> str:
        """The reference itself."""

    @property
    def optional(self) -> bool:
        """Whether it may be absent."""


class Settings(BaseSettings):
    """What is fixed when the process starts; each field from `CALLSPLIT_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore"
    )

    rules: Path = Field(Path("rules/rules.yaml"), description="The rules file.")
    listen: str | None = Field(None, description="host:port; outranks listen.address.")
    admin_listen: str | None = Field(None, description="host:port; outranks admin.address.")
    log_level: LogLevel = Field(LogLevel.INFO, description="debug, info, warning or error.")
    log_format: LogFormat = Field(LogFormat.JSON, description="json or console.")

    _environment: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str]:
        """Every variable, the env file's included, as it was at start; cannot be changed."""
        return self._environment

    def secret(self, reference: Reference) -> bytes | None:
        """The secret that a reference leads to; None if it may be absent and is.

        Files are read anew at each call, so that a reload rotates them.  Raises
        SettingsError, which never shows the secret.
        """
        kind, _, place = reference.ref.partition(":")
        value = _file_secret(place) if kind == "file" else self._env_secret(place)
        if value:
            return value
        if reference.optional:
            return None
        raise SettingsError(f"the secret {reference.ref} is not set or empty")

    def secret_length(self, reference: Reference) -> int:
        """Bytes of the secret that a reference leads to; 0 if there is none."""
        try:
            return len(self.secret(reference) or b"")
        except SettingsError:
            return 0

    def fingerprint(self, references: Iterable[Reference]) -> bytes:
        """Changes when a secret in one of the files that they name does."""
        found = hashlib.sha256()
        for reference in references:
            if reference.ref.startswith("file:"):
                length = self.secret_length(reference)
                content = self.secret(reference) if length else None
                found.update(hashlib.sha256(content or b"").digest())
        return found.digest()

    def has_secret(self, reference: Reference) -> bool:
        """Whether a reference leads to a secret that is not empty."""
        return self.secret_length(reference) > 0

    def _env_secret(self, name: str) -> bytes:
        return os.fsencode(self._environment.get(name, ""))


def load_settings(*, env_file: Path | None = None, **flags: Any) -> Settings:
    """Settings from flags, then the environment, then the env file, then defaults.

    `flags` are fields by name; None means "not given".  Without `env_file`,
    CALLSPLIT_ENV_FILE may name one.  Raises SettingsError naming every fault.
    """
    if env_file is None and os.environ.get(ENV_FILE):
        env_file = Path(os.environ[ENV_FILE])
    environment = (read_env_file(env_file) if env_file else {}) | os.environ
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(_env_file=env_file, **given)
    except ValidationError as error:
        raise SettingsError("; ".join(_faults(error))) from None
    settings._environment = MappingProxyType(environment)
    return settings


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of an env file: `NAME=value` lines, quotes and comments as usual.

    Nothing is expanded in it.  Raises SettingsError with the line, never with its text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise SettingsError(f"env file {path}: {str(reason).lower()}") from None
    for binding in bindings:
        if binding.error or (binding.key is not None and binding.value is None):
            raise SettingsError(f"env file {path}, line {binding.original.line}: not NAME=value")
    return {binding.key: binding.value or "" for binding in bindings if binding.key is not None}


def environment_of_successor() -> dict[str, str]:
    """The environment that this process was started with, for one that follows it.

    Without what a service manager says to this process alone.
    """
    own = ("LISTEN_", "WATCHDOG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def _file_secret(place: str) -> bytes:
    """A secret file's content without the newline that editors add at its end."""
    try:
        with Path(place).open("rb") as file:
            content = file.read(MAX_SECRET + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SettingsError(f"the secret file:{place} cannot be read: {error.strerror}") from None
    if len(content) > MAX_SECRET:
        raise SettingsError(f"the secret file:{place} is larger than {MAX_SECRET // 1024} kB")
    return content.removesuffix(b"\n").removesuffix(b"\r")


def _faults(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_input=False):
        name = str(detail["loc"][0])
        yield f"{PREFIX}{name.upper()}: {detail['msg'].lower()}"
