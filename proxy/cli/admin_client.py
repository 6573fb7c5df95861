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
        self._secure, self._host, self._port = _address(url)
        self.url = url
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
            why = getattr(error, "strerror", None) or error or type(error).__name__
            raise Unreachable(f"{self.url}: {str(why).lower()}") from error
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
            fail(f"{self.url} wants its admin token: set CALLSPLIT_ADMIN_TOKEN")
        if status >= 400:
            fail(f"{self.url} answered {status}: {_said(value)}")
        if not isinstance(value, dict):
            fail(f"{self.url} answered something else: is it the admin listener?")
        return value


def _address(url: str) -> tuple[bool, str, int | None]:
    """Whether it is https, host and port."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in ("http", "https") or not host:
        fail(f"{url!r} is no address; expected something like {DEFAULT}", USAGE)
    return scheme == "https", host, port


def _said(value: Any) -> str:
    """The admin's own words, and no others: a stranger's could hold anything."""
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or error.get("code") in (None, "not_found"):
        return "is it the admin listener? --admin names another address"
    return str(error.get("message"))
