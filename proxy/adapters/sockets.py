"""Which sockets does this process listen on?  Those it was given, and those it opens itself.

A service manager gives them as systemd does (sd_listen_fds(3)): `LISTEN_FDS` counts them, from
descriptor 3 on, `LISTEN_FDNAMES` names them, `LISTEN_PID` says for whom they are.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from proxy.errors import SettingsError

LISTENER: Final = "callsplit"
NAMES: Final = (LISTENER, "admin", "observe")
"""What a socket may be for: callers, operators, kubelets and Prometheus."""

FIRST: Final = 3
BACKLOG: Final = 4096

_MOST: Final = 64
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def is_for(environment: Mapping[str, str], pid: int) -> bool:
    """Whether the sockets that the environment speaks of are this process's.

    Where `LISTEN_PID` is absent they are: not every supervisor knows the process before it runs.
    """
    return environment.get("LISTEN_PID", "").strip() in ("", str(pid))


def given(environment: Mapping[str, str], pid: int) -> dict[str, socket.socket]:
    """The sockets that this process was started with, by name.

    Raises `SettingsError` for what cannot be listened on, and tells the way out.
    """
    count = environment.get("LISTEN_FDS", "").strip()
    if not count or not is_for(environment, pid):
        return {}
    if not (count.isascii() and count.isdigit()) or len(count) > 2 or int(count) > _MOST:
        raise SettingsError(f"LISTEN_FDS: expected a number of sockets up to {_MOST}")
    listed = environment.get("LISTEN_FDNAMES", "")
    names = _names(listed.split(":") if listed else [], int(count))
    found: dict[str, socket.socket] = {}
    try:
        for fd, name in enumerate(names, FIRST):
            found[name] = _listening(fd, name)
    except SettingsError:
        for sock in found.values():
            sock.close()
        raise
    return found


def _names(listed: Sequence[str], count: int) -> list[str]:
    """What each socket is for; the first one without a name of ours is the listener."""
    if listed and len(listed) != count:
        raise SettingsError(f"LISTEN_FDNAMES has {len(listed)} names for {count} sockets")
    names = [*listed] or [""] * count
    if LISTENER not in names:
        for at, name in enumerate(names):
            if name not in NAMES:
                names[at] = LISTENER
                break
    for at, name in enumerate(names):
        if name not in NAMES:
            raise SettingsError(
                f"socket {at + 1} of LISTEN_FDS is for nothing here; name each with "
                f"LISTEN_FDNAMES (FileDescriptorName= in a systemd socket): {', '.join(NAMES)}"
            )
        if name in names[:at]:
            raise SettingsError(
                f"LISTEN_FDS has two sockets named {name}; one is served. For IPv4 and IPv6 "
                "together listen on [::] with BindIPv6Only=both"
            )
    return names


def _listening(fd: int, name: str) -> socket.socket:
    """The socket at a descriptor, which no child of ours inherits by accident."""
    where = f"descriptor {fd} of LISTEN_FDS ({name})"
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise SettingsError(f"{where} is no socket")
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise SettingsError(f"{where} is not open: {error.strerror}") from None
    if fault := _fault(sock):
        sock.detach()
        raise SettingsError(f"{where} {fault}")
    os.set_inheritable(fd, False)
    sock.setblocking(False)
    return sock


def _fault(sock: socket.socket) -> str:
    """What keeps a socket from being listened on."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "is no TCP socket: give ListenStream= an address and a port"
    if sock.type != socket.SOCK_STREAM:
        return "takes no connections: use ListenStream=, not ListenDatagram="
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "does not listen: it must come from listen(), and with Accept=no"
    return ""


def bound(host: str, port: int, *, backlog: int = BACKLOG) -> list[socket.socket]:
    """Sockets that listen on that address; `localhost` may have two.

    Raises `OSError` that names the address.
    """
    places = dict.fromkeys(
        (family, place)
        for family, _, _, _, place in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    )
    made: list[socket.socket] = []
    trouble: OSError | None = None
    for family, place in places:
        try:
            made.append(_bound(family, place, backlog))
        except OSError as error:
            trouble = _told(error, host, port)
            if error.errno not in _NOT_HERE:
                close(made)
                raise trouble from None
    if not made:
        raise trouble or OSError(errno.EADDRNOTAVAIL, f"{host} is no address of this machine")
    return made


def _bound(family: int, place: object, backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)  # type: ignore[arg-type]
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _told(error: OSError, host: str, port: int) -> OSError:
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return OSError(error.errno, f"{shown}: {(error.strerror or str(error)).lower()}")


def address(sock: socket.socket) -> tuple[str, int]:
    """Host and port of a socket; the path and 0 of a unix socket."""
    name = sock.getsockname()
    return (name[0], name[1]) if isinstance(name, tuple) else (str(name), 0)


def inode(sock: socket.socket) -> int:
    """A number that two processes see alike if they share this socket."""
    return os.fstat(sock.fileno()).st_ino


def close(sockets: Iterable[socket.socket]) -> None:
    """Let go of them."""
    for sock in sockets:
        with suppress(OSError):
            sock.close()
