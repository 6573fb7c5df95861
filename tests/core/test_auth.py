import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import NOWHERE
from proxy.core.auth import (
    AuthPolicy,
    AuthResult,
    Credentials,
    Failure,
    Presented,
    credential_name,
)
from proxy.core.head import read_head
from proxy.core.model import Head, Kind
from proxy.core.requirement import SIGNATURE, TOKEN, Requirement
from proxy.core.signature import sign

NOW = 1_767_225_600_000
BODY = b'{"event":"call_started","call":{"call_id":"call_0001"}}'
TOKENS = (b"primary-token", b"backup-token")
KEYS = (b"key_one", b"key_two")
any_of, all_of = Requirement.any_of, Requirement.all_of

SHIPPED = {
    Kind.FUNCTION: any_of(["signature"]),
    Kind.EVENT: any_of(["signature"]),
    Kind.INBOUND: any_of(["signature"]),
    Kind.ALERT: any_of(["signature"]),
    Kind.ARGS: any_of(["signature", "token"]),
    Kind.MCP: any_of(["token"]),
    Kind.TOOLS: any_of(["token"]),
}
RETELL = frozenset({Kind.EVENT, Kind.INBOUND, Kind.FUNCTION, Kind.ALERT, Kind.TOOLS, Kind.MCP})
FUNCTION_PATH = frozenset({Kind.FUNCTION, Kind.ARGS})
MCP_PATH = frozenset({Kind.MCP})

SIGNED = sign(KEYS[0], BODY, NOW)
FORGED = sign(b"key_of_mine", BODY, NOW)
LATE = sign(KEYS[0], BODY, NOW - 300_001)


def head(token: bytes | None = None, signature: bytes | None = None) -> Head:
    fields = [(b"Host", b"retell.example")]
    if token is not None:
        fields.append((b"Authorization", b"Bearer " + token))
    if signature is not None:
        fields.append((b"X-Retell-Signature", signature))
    return with_fields(fields)


def with_fields(fields: list[tuple[bytes, bytes]]) -> Head:
    return read_head("POST", "/retell", fields, peer="", secure=False, trusted=NOWHERE)


def policy(
    require: dict[Kind, Requirement] | None = None,
    tokens: tuple[bytes, ...] = TOKENS,
    keys: tuple[bytes, ...] = KEYS,
) -> AuthPolicy:
    return AuthPolicy(SHIPPED if require is None else require, Credentials(tokens, keys))


def judge(
    auth: AuthPolicy, kind: Kind, kinds: frozenset[Kind], asked: Head, body: bytes = BODY
) -> AuthResult:
    return auth.check(kind, kinds, auth.present(asked), body, NOW)


# --- what a head shows -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ([], Failure.MISSING),
        ([(b"Authorization", b"Bearer wrong")], Failure.WRONG),
        ([(b"Authorization", b"Bearer primary-toke")], Failure.WRONG),
        ([(b"Authorization", b"Bearer primary-token-")], Failure.WRONG),
        ([(b"Authorization", b"Bearer primary-tokenprimary-token")], Failure.WRONG),
        ([(b"Authorization", b"Bearer primary-token primary-token")], Failure.WRONG),
        ([(b"Authorization", b"Bearer pr\xc3\xadmary-token")], Failure.WRONG),
        ([(b"Authorization", b"Bearer \xff\xfe")], Failure.WRONG),
        ([(b"Authorization", b"Bearer " + b"x" * 8000)], Failure.WRONG),
        ([(b"Authorization", b"Basic cHJpbWFyeS10b2tlbg==")], Failure.MALFORMED),
        ([(b"Authorization", b"primary-token")], Failure.MALFORMED),
        ([(b"Authorization", b"Bearer ")], Failure.MALFORMED),
        ([(b"Authorization", b"")], Failure.MALFORMED),
        ([(b"Authorization", b"Bearer primary-token")] * 2, Failure.MALFORMED),
        (
            [(b"authorization", b"Bearer x"), (b"AUTHORIZATION", b"Bearer primary-token")],
            Failure.MALFORMED,
        ),
        ([(b"X-Authorization", b"Bearer primary-token")], Failure.MISSING),
    ],
)
@pytest.mark.row("A1")
def test_a_token_that_does_not_hold_is_told_apart(
    fields: list[tuple[bytes, bytes]], failure: Failure
) -> None:
    auth = policy()
    presented = auth.present(with_fields(fields))

    assert presented.token == -1
    assert presented.possible == 0
    assert not auth.could_satisfy(MCP_PATH, presented)
    assert auth.shortfall(MCP_PATH, presented) is failure


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", [b"Authorization", b"authorization", b"AUTHORIZATION"])
@pytest.mark.row("A2")
def test_primary_and_backup_token_hold(place: int, name: bytes) -> None:
    auth = policy()
    asked = with_fields([(name, b"bEaReR " + TOKENS[place])])

    assert judge(auth, Kind.MCP, MCP_PATH, asked) == AuthResult(
        None, credential_name("token", TOKENS[place]), False
    )


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ([], Failure.MISSING),
        ([(b"X-Retell-Signature", SIGNED)] * 2, Failure.MALFORMED),
        (
            [(b"x-retell-signature", FORGED), (b"X-RETELL-SIGNATURE", SIGNED)],
            Failure.MALFORMED,
        ),
        ([(b"X-Retell-Signature", SIGNED.upper())], Failure.MALFORMED),
        ([(b"X-Retell-Signature", SIGNED[:-1])], Failure.MALFORMED),
        ([(b"X-Retell-Signature", b"\xe9" + SIGNED)], Failure.MALFORMED),
        ([(b"X-Retell-Signature", b"")], Failure.MALFORMED),
        ([(b"X-Retell-Signature", b"v=" + b"1" * 60_000)], Failure.MALFORMED),
        ([(b"X_Retell_Signature", SIGNED)], Failure.MISSING),
    ],
)
@pytest.mark.row("A6")
def test_a_signature_that_cannot_hold_is_refused_before_the_body(
    fields: list[tuple[bytes, bytes]], failure: Failure
) -> None:
    auth = policy()
    presented = auth.present(with_fields(fields))

    assert not auth.could_satisfy(RETELL, presented)
    assert auth.shortfall(RETELL, presented) is failure


@pytest.mark.row("H2")
def test_connection_cannot_switch_authentication_off() -> None:
    auth = policy()
    asked = with_fields(
        [
            (b"Connection", b"X-Retell-Signature, Authorization"),
            (b"X-Retell-Signature", SIGNED),
        ]
    )

    assert judge(auth, Kind.EVENT, RETELL, asked).signed


# --- what holds over the body ----------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1])
def test_any_key_may_have_signed(place: int) -> None:
    asked = head(signature=sign(KEYS[place], BODY, NOW))

    assert judge(policy(), Kind.EVENT, RETELL, asked) == AuthResult(
        None, credential_name("signature", KEYS[place]), True
    )


@pytest.mark.parametrize(
    ("signature", "failure"),
    [
        (FORGED, Failure.WRONG),
        (LATE, Failure.STALE),
        (sign(KEYS[0], BODY, NOW + 301_000), Failure.STALE),
        (sign(KEYS[0], BODY + b" ", NOW), Failure.WRONG),
        (sign(KEYS[0], b"", NOW), Failure.WRONG),
        (b"v=" + b"9" * 32 + b",d=" + b"0" * 64, Failure.WRONG),
    ],
)
@pytest.mark.row("A4", "A5")
def test_a_signature_that_does_not_hold_over_the_body_is_refused_after_it(
    signature: bytes, failure: Failure
) -> None:
    auth, asked = policy(), head(signature=signature)

    assert auth.could_satisfy(RETELL, auth.present(asked))
    assert judge(auth, Kind.FUNCTION, RETELL, asked) == AuthResult(failure, "", False)


@pytest.mark.parametrize("bit", [0, 7, 200, 439])
@pytest.mark.row("A4")
def test_one_flipped_bit_is_seen(bit: int) -> None:
    body = bytearray(BODY)
    body[bit // 8] ^= 1 << bit % 8

    assert judge(policy(), Kind.EVENT, RETELL, head(signature=SIGNED), bytes(body)).failure


@pytest.mark.row("A4")
def test_an_empty_body_is_signed_too() -> None:
    """Retell's GET and DELETE functions."""
    asked = head(signature=sign(KEYS[0], b"", NOW))

    assert judge(policy(), Kind.ARGS, FUNCTION_PATH, asked, b"").signed


def test_the_tolerance_is_the_policys() -> None:
    auth = AuthPolicy(SHIPPED, Credentials(TOKENS, KEYS), tolerance_ms=600_000)

    assert judge(auth, Kind.EVENT, RETELL, head(signature=LATE)).signed


PROOFS = {
    "none": (None, None),
    "token": (TOKENS[0], None),
    "signature": (None, SIGNED),
    "both": (TOKENS[0], SIGNED),
    "token, forged": (TOKENS[0], FORGED),
    "wrong, signature": (b"wrong", SIGNED),
}
HELD = {
    "none": 0,
    "token": TOKEN,
    "signature": SIGNATURE,
    "both": TOKEN | SIGNATURE,
    "token, forged": TOKEN,
    "wrong, signature": SIGNATURE,
}


@pytest.mark.parametrize("shown", PROOFS)
@pytest.mark.parametrize(
    "need",
    [
        any_of(["none"]),
        any_of(["token"]),
        any_of(["signature"]),
        any_of(["token", "signature"]),
        all_of(["token", "signature"]),
    ],
    ids=["none", "token", "signature", "any", "all"],
)
def test_what_is_shown_decides(shown: str, need: Requirement) -> None:
    auth, kinds = policy({Kind.ARGS: need}), frozenset({Kind.ARGS})
    asked = head(*PROOFS[shown])

    result = judge(auth, Kind.ARGS, kinds, asked)

    assert (result.failure is None) is need.enough[HELD[shown]]
    assert result.signed is bool(HELD[shown] & SIGNATURE)
    if result.failure is None:
        assert auth.could_satisfy(kinds, auth.present(asked))


@pytest.mark.parametrize(
    ("need", "token", "signature", "failure"),
    [
        (any_of(["token"]), None, FORGED, Failure.MISSING),
        (any_of(["signature"]), b"wrong", None, Failure.MISSING),
        (any_of(["token", "signature"]), b"wrong", None, Failure.WRONG),
        (any_of(["token", "signature"]), b"wrong", LATE, Failure.STALE),
        (any_of(["token", "signature"]), None, b"junk", Failure.MALFORMED),
        (all_of(["token", "signature"]), TOKENS[0], LATE, Failure.STALE),
        (all_of(["token", "signature"]), TOKENS[0], None, Failure.MISSING),
        (all_of(["token", "signature"]), b"wrong", SIGNED, Failure.WRONG),
    ],
)
def test_the_failure_told_is_the_nearest_miss_that_matters(
    need: Requirement, token: bytes | None, signature: bytes | None, failure: Failure
) -> None:
    asked = head(token, signature)

    result = judge(policy({Kind.ARGS: need}), Kind.ARGS, frozenset({Kind.ARGS}), asked)

    assert result.failure is failure


def test_a_token_names_the_credential_before_a_signature() -> None:
    asked = head(TOKENS[1], SIGNED)

    name = credential_name("token", TOKENS[1])
    assert judge(policy(), Kind.ARGS, FUNCTION_PATH, asked) == AuthResult(None, name, True)


def test_a_credential_keeps_its_name_when_a_rotation_moves_it() -> None:
    """The backup becomes the primary: sessions and limits stay with who holds it."""
    before = AuthPolicy({}, Credentials(TOKENS, KEYS))
    after = AuthPolicy({}, Credentials((TOKENS[1], b"a-new-token"), KEYS[::-1]))

    for asked in (head(TOKENS[1]), head(signature=SIGNED)):
        names = {
            judge(auth, Kind.ARGS, FUNCTION_PATH, asked).credential for auth in (before, after)
        }
        assert len(names) == 1
        assert names != {""}
    assert credential_name("token", TOKENS[0]) != credential_name("token", TOKENS[1])
    assert credential_name("token", KEYS[0]) != credential_name("signature", KEYS[0])


# --- kinds without a rule of their own ---------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.OTHER, Kind.LLM])
def test_an_unknown_shape_needs_every_rule_of_its_path(kind: Kind) -> None:
    auth = policy()

    assert judge(auth, kind, RETELL, head(signature=SIGNED)).failure is Failure.MISSING
    assert judge(auth, kind, RETELL, head(token=TOKENS[0])).failure is Failure.MISSING
    assert judge(auth, kind, RETELL, head(TOKENS[0], SIGNED)).failure is None


def test_an_unlisted_kind_needs_the_rules_of_its_neighbours() -> None:
    auth = policy({Kind.FUNCTION: any_of(["signature"])})

    assert judge(auth, Kind.ARGS, FUNCTION_PATH, head(token=TOKENS[0])).failure is Failure.MISSING
    assert judge(auth, Kind.ARGS, FUNCTION_PATH, head(signature=SIGNED)).failure is None


def test_none_written_out_opens_its_own_kind_only() -> None:
    auth = policy({Kind.EVENT: any_of(["none"]), Kind.FUNCTION: any_of(["signature"])})

    assert judge(auth, Kind.EVENT, RETELL, head()).failure is None
    assert judge(auth, Kind.OTHER, RETELL, head()).failure is Failure.MISSING
    assert auth.could_satisfy(RETELL, auth.present(head()))


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("kinds", [RETELL, FUNCTION_PATH, MCP_PATH, frozenset()])
def test_without_any_rule_every_kind_is_open(kind: Kind, kinds: frozenset[Kind]) -> None:
    auth = policy({})

    assert judge(auth, kind, kinds, head()) == AuthResult(None, "", False)
    assert judge(auth, kind, kinds, head(token=b"wrong", signature=FORGED)) == AuthResult(
        None, "", False
    )


def test_an_open_kind_still_learns_who_asked() -> None:
    assert judge(policy({}), Kind.EVENT, RETELL, head(signature=SIGNED)).signed
    shown = judge(policy({}), Kind.MCP, MCP_PATH, head(TOKENS[1])).credential
    assert shown == credential_name("token", TOKENS[1])


CHOICES = st.sampled_from(
    [None, any_of(["none"]), any_of(["token"]), any_of(["signature"]),
     any_of(["token", "signature"]), all_of(["token", "signature"])]
)  # fmt: skip


@given(
    st.fixed_dictionaries(dict.fromkeys(RETELL, CHOICES)),
    st.sampled_from([None, b"wrong", *TOKENS]),
    st.sampled_from([None, b"junk", FORGED, LATE, SIGNED]),
)
def test_what_passes_after_the_body_was_never_refused_before_it(
    choices: dict[Kind, Requirement | None], token: bytes | None, signature: bytes | None
) -> None:
    auth = policy({kind: need for kind, need in choices.items() if need is not None})
    asked = head(token, signature)

    passing = [k for k in [*RETELL, Kind.OTHER] if not judge(auth, k, RETELL, asked).failure]

    assert auth.could_satisfy(RETELL, auth.present(asked)) or not passing
    if Kind.OTHER in passing:
        assert set(passing) >= RETELL


# --- what can be told at load ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "keys", "unusable"),
    [
        (TOKENS, KEYS, []),
        ((), KEYS, [Kind.MCP, Kind.TOOLS]),
        (TOKENS, (), [Kind.ALERT, Kind.EVENT, Kind.FUNCTION, Kind.INBOUND]),
        ((), (), sorted(RETELL)),
    ],
)
def test_kinds_nobody_can_ask_for_are_known_at_load(
    tokens: tuple[bytes, ...], keys: tuple[bytes, ...], unusable: list[Kind]
) -> None:
    assert policy(tokens=tokens, keys=keys).unusable(RETELL) == unusable


def test_one_usable_credential_is_enough_for_a_choice() -> None:
    assert policy(keys=()).unusable(frozenset({Kind.ARGS})) == []


@pytest.mark.parametrize(
    ("require", "kinds", "unruled"),
    [
        ({}, FUNCTION_PATH, [Kind.ARGS, Kind.FUNCTION]),
        ({Kind.ARGS: any_of(["none"])}, FUNCTION_PATH, [Kind.FUNCTION]),
        ({Kind.ARGS: any_of(["token"])}, FUNCTION_PATH, []),
        ({Kind.ARGS: any_of(["none"]), Kind.FUNCTION: any_of(["none"])}, FUNCTION_PATH, []),
        (SHIPPED, RETELL, []),
    ],
)
def test_kinds_that_are_open_by_oversight_are_known_at_load(
    require: dict[Kind, Requirement], kinds: frozenset[Kind], unruled: list[Kind]
) -> None:
    assert policy(require).unruled(kinds) == unruled


def test_a_key_we_do_not_hold_proves_nothing() -> None:
    auth = policy(keys=())

    presented = auth.present(head(signature=SIGNED))

    assert not auth.could_satisfy(frozenset({Kind.EVENT}), presented)
    assert auth.shortfall(RETELL, presented) is Failure.WRONG


def test_a_token_is_asked_for_where_it_helps() -> None:
    assert policy().wants_token(MCP_PATH)
    assert policy().wants_token(RETELL)
    assert not policy({Kind.EVENT: any_of(["signature"])}).wants_token(RETELL)
    assert not policy({Kind.MCP: any_of(["none"])}).wants_token(MCP_PATH)


@pytest.mark.parametrize(("tokens", "keys"), [((b"",), ()), ((b"a", b""), ()), ((), (b"",))])
def test_an_empty_secret_is_refused_at_load(
    tokens: tuple[bytes, ...], keys: tuple[bytes, ...]
) -> None:
    with pytest.raises(ValueError, match="empty"):
        Credentials(tokens, keys)


def test_no_secret_shows_in_a_repr() -> None:
    shown = repr(Credentials(TOKENS, KEYS)) + repr(policy())

    assert not [secret for secret in TOKENS + KEYS if secret.decode() in shown]


@given(
    st.binary(max_size=200),
    st.binary(max_size=200),
    st.sampled_from(Kind),
    st.sampled_from([frozenset[Kind](), RETELL, MCP_PATH]),
    st.binary(),
)
def test_no_bytes_whatever_raise(
    token: bytes, signature: bytes, kind: Kind, kinds: frozenset[Kind], body: bytes
) -> None:
    auth = policy()
    named = {b"authorization": token, b"x-retell-signature": signature}
    presented = auth.present(Head("POST", "/", "", named, [], b"", ""))

    assert isinstance(presented, Presented)
    assert auth.could_satisfy(kinds, presented) in (True, False)
    assert isinstance(auth.check(kind, kinds, presented, body, NOW), AuthResult)
