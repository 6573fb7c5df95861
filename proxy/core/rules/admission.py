"""May these rules go into force here?  What only shows once secrets and addresses are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from proxy.core.auth import AuthPolicy, Credentials
from proxy.core.model import Kind
from proxy.core.requirement import Requirement
from proxy.core.routes import match
from proxy.core.rules.circles import circles
from proxy.core.rules.model import Rules
from proxy.core.rules.secret import SecretRef
from proxy.core.rules.walk import secrets

_PATHS = ("/retell", "/retell/fn/x", "/mcp", "/api/mcp/retell/tools")
"""One of each sort of path that serves callers; what a path takes decides who may use it."""

_KEYS = {"token": "auth.tokens", "signature": "auth.retell_keys"}
"""Where each credential's secrets stand."""

HaveSecret = Callable[[SecretRef], bool]


def requirements(rules: Rules) -> dict[Kind, Requirement]:
    """What `auth.require` says, as the edge reads it."""
    return {
        kind: Requirement.all_of(need.of) if need.every else Requirement.any_of(need.of)
        for kind, need in rules.auth.require.items()
    }


def start_faults(rules: Rules, have_secret: HaveSecret) -> list[str]:
    """Why these rules must not go into force; [] if they may.

    `have_secret` tells whether a reference leads to a value that is not empty.
    """
    return [
        *_missing_secrets(rules, have_secret),
        *_unusable(rules, have_secret),
        *_unruled(rules, have_secret),
        *_open_admin(rules, have_secret),
    ]


def start_warnings(rules: Rules, have_secret: HaveSecret) -> list[str]:
    """What an operator should look at, although it may go into force."""
    return [
        *_idle_credentials(rules, have_secret),
        *_open_kinds(rules, have_secret),
        *_open_salt(rules, have_secret),
        *_stale_signatures(rules, have_secret),
        *_readable_admin(rules),
        *circles(rules),
    ]


def _missing_secrets(rules: Rules, have_secret: HaveSecret) -> Iterator[str]:
    for path, ref in secrets(rules):
        if not ref.optional and not have_secret(ref):
            yield f"{path}: {ref} is not set or empty (with ? at its end it may be absent)"


def _unusable(rules: Rules, have_secret: HaveSecret) -> Iterator[str]:
    policy = _policy(rules, have_secret)
    blocked = {kind for kinds in _kinds() for kind in policy.unusable(kinds)}
    for kind in sorted(blocked & rules.auth.require.keys()):
        need = rules.auth.require[kind]
        needs = (" and " if need.every else " or ").join(sorted(need.of))
        keys = " or ".join(_KEYS[word] for word in sorted(need.of) if word in _KEYS)
        yield (
            f"auth.require.{kind}: needs {needs}, but no such credential is usable: "
            f"set a secret that {keys} refers to"
        )


def _unruled(rules: Rules, have_secret: HaveSecret) -> Iterator[str]:
    if rules.listen.address.loopback:
        return
    policy = _policy(rules, have_secret)
    unruled = sorted({kind for kinds in _kinds() for kind in policy.unruled(kinds)})
    if unruled:
        yield (
            f"listen.address: {rules.listen.address} is open to others, but nothing says who may "
            f"ask for {', '.join(unruled)}: write auth.require for each (none leaves it open)"
        )


def _open_kinds(rules: Rules, have_secret: HaveSecret) -> Iterator[str]:
    """Also behind a proxy on this machine: what it lets in comes from anywhere."""
    listen, policy = rules.listen, _policy(rules, have_secret)
    if listen.address.loopback and not listen.trusted_proxies:
        return
    every = {kind for kinds in _kinds() for kind in kinds}
    opened = sorted({kind for kinds in _kinds() for kind in policy.open(kinds)})
    if opened:
        which = "anything" if len(opened) == len(every) else ", ".join(opened)
        yield f"auth.require: whoever reaches {listen.address} may ask for {which}, unproved"


def _open_admin(rules: Rules, have_secret: HaveSecret) -> Iterator[str]:
    admin = rules.admin
    if not admin.address.loopback and not (admin.token and have_secret(admin.token)):
        yield f"admin.address: {admin.address} is open to others: set admin.token, or use 127.0.0.1"


def _readable_admin(rules: Rules) -> Iterator[str]:
    """It has no TLS."""
    address = rules.admin.address
    if not address.loopback:
        yield (
            f"admin.address: {address} speaks plain HTTP, so its token can be read on the way: "
            "keep it on 127.0.0.1 and come by ssh -L or kubectl port-forward"
        )


def _idle_credentials(rules: Rules, have_secret: HaveSecret) -> Iterator[str]:
    wanted = {word for need in rules.auth.require.values() for word in need.of}
    for word, refs in (("token", rules.auth.tokens), ("signature", rules.auth.retell_keys)):
        if word not in wanted and any(map(have_secret, refs)):
            yield f"auth.require: no kind asks for a {word}, although one could be checked"


def _open_salt(rules: Rules, have_secret: HaveSecret) -> Iterator[str]:
    salt = rules.split.salt
    secret = isinstance(salt, SecretRef) and have_secret(salt)
    if not secret and 0 < rules.split.percent < 100:
        yield "split.salt: no secret is set, so call IDs can be crafted to reach one arm"


def _stale_signatures(rules: Rules, have_secret: HaveSecret) -> Iterator[str]:
    """Retell signs, an event may wait, and nothing could sign it anew."""
    name = rules.split.otherwise
    backend = rules.backends[name]
    signs = backend.sign is not None and have_secret(backend.sign)
    retell_signs = any(map(have_secret, rules.auth.retell_keys))
    if rules.outbox.enabled and retell_signs and backend.handler == "webhook" and not signs:
        yield (
            f"backends.{name}.sign: not set, so an event that waits in the outbox for more than 5 "
            "minutes arrives with a stale signature: if this webhook verifies signatures, add sign"
        )


def _policy(rules: Rules, have_secret: HaveSecret) -> AuthPolicy:
    """The policy with stand-ins for the secrets: only their number counts here."""
    tokens = [b"stand-in" for ref in rules.auth.tokens if have_secret(ref)]
    keys = [b"stand-in" for ref in rules.auth.retell_keys if have_secret(ref)]
    return AuthPolicy(requirements(rules), Credentials(tuple(tokens), tuple(keys)))


def _kinds() -> list[frozenset[Kind]]:
    return [route.kinds for path in _PATHS if (route := match(path))]
