"""How does a command reach the running sidecar?  Over its admin listener."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

import typer

from proxy.cli.output import USAGE, fail

DEFAULT = "http://127.0.0.1:9901"
ADMIN = typer.Option(
    DEFAULT, "--admin", envvar="CALLSPLIT_ADMIN", help="Admin address of the running sidecar."
)
TOKEN = typer.Option(
    "", "--admin-token", envvar="CALLSPLIT_ADMIN_TOKEN", show_default=False, show_envvar=True,
    help="Its token, if it wants one; better given in the environment.",
)  # fmt: skip
TIMEOUT = 5.0
"""Seconds; the admin answers in milliseconds or not at all."""


class Unreachable(Exception):
    """Nobody answers at the admin address."""


class Admin:
    """A few requests to one sidecar."""

    def __init__(self, url: str, token: str = "", *, timeout: float = TIMEOUT) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            fail(f"{url!r} is no address; expected something like {DEFAULT}", USAGE)
        self.url = url
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._token = token
        self._timeout = timeout

    def ask(
        self, method: str, path: str, body: bytes | None = None, **query: str
    ) -> tuple[int, Any]:
        """Status and JSON answer (or text); raises `Unreachable`."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")

    def get(self, path: str, **query: str) -> Any:
        """The page's JSON; ends the command with a clear error otherwise."""
        return self._checked("GET", path, None, query)

    def post(self, path: str, body: bytes | None = None, **query: str) -> Any:
        """Likewise, for a change."""
        return self._checked("POST", path, body, query)

    def _checked(self, method: str, path: str, body: bytes | None, query: dict[str, str]) -> Any:
        try:
            status, value = self.ask(method, path, body, **query)
        except Unreachable as gone:
            fail(f"no sidecar answers at {gone}; is it running? --admin names another address")
        if status == 401:
            fail("the admin wants its token: set CALLSPLIT_ADMIN_TOKEN")
        if status >= 400:
            error = value.get("error", {}) if isinstance(value, dict) else {}
            fail(error.get("message") or f"the admin answered {status}")
        return value
