"""Who may ask for what?  Two steps: what the head shows, then what holds over the body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from hashlib import blake2b
from operator import and_, or_

from msgspec import Struct

from proxy.core.model import Head, Kind
from proxy.core.requirement import OPEN, SIGNATURE, TOKEN, Requirement
from proxy.core.signature import (
    HEADER,
    TOLERANCE_MS,
    Key,
    SignatureResult,
    Stamp,
    identify,
    read,
)
from proxy.core.tokens import TokenSet, bearer


class Failure(StrEnum):
    """Why a request may not pass: a metric label, a closed set."""

    MISSING = "missing"
    MALFORMED = "malformed"
    WRONG = "wrong"
    STALE = "stale"
    REPLAYED = "replayed"  # a signature that has been here before, where the rules refuse it


_NO_TOKEN = (-1, Failure.MISSING)
_NO_STAMP = (None, Failure.MISSING)
_NEAREST_FIRST = (Failure.STALE, Failure.WRONG, Failure.MALFORMED, Failure.MISSING)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What callers may prove themselves by."""

    tokens: tuple[bytes, ...] = ()
    keys: tuple[bytes, ...] = ()  # that Retell may have signed with

    def __post_init__(self) -> None:
        if not all(self.tokens) or not all(self.keys):
            raise ValueError("a token or key is empty: it would let anybody in")


class Presented(Struct, frozen=True, gc=False):
    """What a head shows: a token, already judged, and a signature that waits for the body."""

    token: int  # the place of the token that holds, or -1
    stamp: Stamp | None  # of a signature that one of our keys may have made
    failures: tuple[Failure | None, Failure | None]  # of the token, of the signature
    possible: int  # the proofs that it may turn out to hold


class AuthResult(Struct, frozen=True, gc=False):
    """What a request proved.

    `failure` is None if it may pass.  `credential` names what it proved itself by (never the secret
    itself), "" if by nothing.  `signed`: Retell's signature holds over the body.
    """

    failure: Failure | None
    credential: str
    signed: bool


class Gate:
    """The requirements of one path."""

    __slots__ = ("enough", "reachable", "useful", "useful_at_all")

    def __init__(self, require: Mapping[Kind, Requirement], kinds: frozenset[Kind]) -> None:
        ruled = [require[kind] for kind in kinds if kind in require]
        together = reduce(and_, ruled, OPEN)
        needs = {kind: require.get(kind, together) for kind in Kind}
        own = [needs[kind] for kind in kinds]
        self.enough = {kind: need.enough for kind, need in needs.items()}
        self.useful = {kind: need.useful for kind, need in needs.items()}
        self.reachable = tuple(any(need.enough[held] for need in own) for held in range(4))
        self.useful_at_all = reduce(or_, (need.useful for need in own), 0)


class AuthPolicy:
    """Every kind's requirement, and the credentials to meet it with.

    A kind without a requirement needs every rule of its path together, so that no shape slips in
    by being unknown; a path without any rule is open.
    """

    def __init__(
        self,
        require: Mapping[Kind, Requirement],
        credentials: Credentials,
        *,
        tolerance_ms: int = TOLERANCE_MS,
    ) -> None:
        self._require = dict(require)
        self._tokens = TokenSet(credentials.tokens)
        self._keys = tuple(map(Key, credentials.keys))
        self.tolerance_ms = tolerance_ms
        self._gates: dict[frozenset[Kind], Gate] = {}
        self._token_names = [credential_name("token", token) for token in credentials.tokens]
        self._key_names = [credential_name("signature", key) for key in credentials.keys]

    def gate(self, kinds: frozenset[Kind]) -> Gate:
        """The requirements of a path that takes `kinds`."""
        gate = self._gates.get(kinds)
        if gate is None:
            gate = self._gates[kinds] = Gate(self._require, kinds)
        return gate

    def unusable(self, kinds: frozenset[Kind]) -> list[Kind]:
        """Kinds of a path for which nobody can ever ask: no usable credential is configured."""
        provable = TOKEN * (len(self._tokens) > 0) | SIGNATURE * (len(self._keys) > 0)
        gate = self.gate(kinds)
        return sorted(kind for kind in kinds if not gate.enough[kind][provable])

    def open(self, kinds: frozenset[Kind]) -> list[Kind]:
        """Kinds of a path that need no proof."""
        gate = self.gate(kinds)
        return sorted(kind for kind in kinds if gate.enough[kind][0])

    def unruled(self, kinds: frozenset[Kind]) -> list[Kind]:
        """Those of them of which nobody wrote `none`."""
        return [kind for kind in self.open(kinds) if kind not in self._require]

    def present(self, head: Head) -> Presented:
        """Read what a request's head shows of itself; raises on no bytes whatever."""
        token, no_token = self._judge(head) if b"authorization" in head.named else _NO_TOKEN
        stamp, unsigned = self._read(head) if HEADER in head.named else _NO_STAMP
        possible = TOKEN * (token >= 0) | SIGNATURE * (stamp is not None)
        return Presented(token, stamp, (no_token, unsigned), possible)

    def could_satisfy(self, kinds: frozenset[Kind], presented: Presented) -> bool:
        """Tell before the body whether any kind of this path is within reach."""
        return self.gate(kinds).reachable[presented.possible]

    def shortfall(self, kinds: frozenset[Kind], presented: Presented) -> Failure:
        """Why it could not."""
        return nearest(self.gate(kinds).useful_at_all & ~presented.possible, presented.failures)

    def wants_token(self, kinds: frozenset[Kind]) -> bool:
        """Tell whether a token would help anybody on this path."""
        return self.gate(kinds).useful_at_all & TOKEN > 0

    def check(
        self,
        kind: Kind,
        kinds: frozenset[Kind],
        presented: Presented,
        body: bytes,
        wall_ms: int,
    ) -> AuthResult:
        """Judge a request of `kind` on a path that takes `kinds`, over its raw body."""
        held, credential, failures = presented.possible & TOKEN, "", presented.failures
        if presented.stamp is not None:
            result, place = identify(self._keys, body, presented.stamp, wall_ms, self.tolerance_ms)
            if result is SignatureResult.OK:
                held, credential = held | SIGNATURE, self._key_names[place]
            else:
                failures = (failures[0], Failure(result))
        if presented.token >= 0:
            credential = self._token_names[presented.token]
        gate = self.gate(kinds)
        failure = None
        if not gate.enough[kind][held]:
            failure = nearest(gate.useful[kind] & ~held, failures)
        return AuthResult(failure, credential, held >= SIGNATURE)

    def _judge(self, head: Head) -> tuple[int, Failure | None]:
        token = bearer(head.named[b"authorization"])
        if token is None or b"authorization" in head.repeated:  # Whose word would count?
            return -1, Failure.MALFORMED
        place = self._tokens.find(token)
        return place, Failure.WRONG if place < 0 else None

    def _read(self, head: Head) -> tuple[Stamp | None, Failure | None]:
        stamp = None if HEADER in head.repeated else read(head.named[HEADER])
        if stamp is None:
            return None, Failure.MALFORMED
        return (stamp, None) if self._keys else (None, Failure.WRONG)


def credential_name(kind: str, secret: bytes) -> str:
    """What stands for a credential: the same wherever it moves in the rules, and after a restart.

    A rotation reorders them; whose sessions and limits would these be else?  Not to be told.
    """
    return f"{kind}_{blake2b(secret, digest_size=8, person=b'callsplit').hexdigest()}"


def nearest(wanted: int, failures: tuple[Failure | None, Failure | None]) -> Failure:
    """Of the proofs that would have helped, the failure that came nearest to one."""
    token, signature = failures
    seen = {token if wanted & TOKEN else None, signature if wanted & SIGNATURE else None}
    return next((failure for failure in _NEAREST_FIRST if failure in seen), Failure.MISSING)
