"""nginx: as a plain proxy (the cheapest there is), and as the origin of every peer."""

from __future__ import annotations

from pathlib import Path

from tests.bench.place import Place

KEY = "nginx"
LABEL = "nginx, plain proxy"

ANSWER = '{"success":true,"message":"Tuesday at ten works.","slots":["10:00","14:30"]}'

_BASE = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_timeout 300s; keepalive_requests 100000000; client_max_body_size 10m;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  {rest}
}}
"""
_PROXY = """
  upstream origin {{
    server 127.0.0.1:{origin};
    keepalive 256; keepalive_requests 100000000; keepalive_timeout 300s;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
"""
_ORIGIN = """
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    default_type application/json;
    location / {{ return 200 '{answer}'; }}
  }}
"""


def command(place: Place) -> list[str]:
    """A single process that proxies."""
    return _run(place.directory, _PROXY.format(port=place.port, origin=place.origin_port))


def fault(place: Place, requests: int) -> str | None:
    """It promises nothing but an answer."""
    return None


def origin(directory: Path, port: int) -> list[str]:
    """A single process that answers everything with `ANSWER`."""
    return _run(directory, _ORIGIN.format(port=port, answer=ANSWER))


def _run(directory: Path, rest: str) -> list[str]:
    path = directory / "nginx.conf"
    path.write_text(_BASE.format(directory=directory, rest=rest))
    return ["nginx", "-p", str(directory), "-e", f"{directory}/error.log", "-c", str(path)]
