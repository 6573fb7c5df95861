from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import NOWHERE
from proxy.core.cache_key import CacheRule, Spot, cache_rule, spot_of, tenant_of
from proxy.core.fields import fields
from proxy.core.head import read_head
from proxy.core.model import Call, Kind
from proxy.core.rules.tools import ToolEntry, resolve

BY_COMPANY = ["args", "metadata.company_id"]


def rule_of(cache_key: list[str] | None = None, **more: Any) -> CacheRule:
    entry = {"effect": "read", "cache": "5m", "cache_key": cache_key, **more}
    tool = resolve({"slots": ToolEntry.model_validate(entry)}, "slots")
    rule = cache_rule(tool, ["call_id"])
    assert rule is not None
    return rule


def call_of(
    *,
    args: bytes = b"{}",
    metadata: object = None,
    call_id: str | None = "call_7",
    signed: bool = True,
    kind: Kind = Kind.FUNCTION,
    target: str = "/retell",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: bytes | None = None,
    **more: Any,
) -> Call:
    said = ((b"Host", b"a"), *headers)
    head = read_head("POST", target, said, peer="", secure=False, trusted=NOWHERE)
    if body is None:
        body = orjson.dumps({"name": "slots", "call": {"metadata": metadata}})
    return Call(kind, head, body, call_id, "slots", arguments=args, signed=signed, **more)


def mcp(**more: Any) -> Call:
    body = more.pop("body", b'{"jsonrpc":"2.0"}')
    return call_of(
        kind=Kind.MCP, body=body, rpc_id=more.pop("rpc_id", b"1"), rpc_method="tools/call", **more
    )


def spot(rule: CacheRule, call: Call) -> Spot | None:
    return spot_of(rule, call, fields(call))


def shares(rule: CacheRule, one: Call, other: Call) -> bool:
    first, second = spot(rule, one), spot(rule, other)
    assert first is not None
    assert second is not None
    return first.key == second.key


@pytest.mark.parametrize(
    "entry",
    [
        {"effect": "read"},
        {"effect": "write", "cache": "5m"},
        {"effect": "idempotent", "cache": "5m"},
        {"cache": "5m"},
    ],
)
def test_only_answers_of_reads_that_say_so_are_kept(entry: dict[str, Any]) -> None:
    assert cache_rule(resolve({"slots": ToolEntry.model_validate(entry)}, "slots"), []) is None


def test_a_rule_says_how_long() -> None:
    assert (rule_of().ttl, rule_of().stale_for) == (300.0, 0.0)
    assert rule_of(stale_if_error="1h").stale_for == 3600.0


def test_without_a_key_answers_stay_in_their_call() -> None:
    rule = rule_of()

    assert rule.of_one_call
    assert shares(rule, call_of(args=b'{"a":1,"b":2}'), call_of(args=b'{"b": 2, "a": 1}'))
    assert not shares(rule, call_of(), call_of(call_id="call_8"))
    assert not shares(rule, call_of(), call_of(args=b'{"a":1}'))
    assert spot(rule, call_of(call_id=None)) is None


def test_a_key_shares_answers_between_calls() -> None:
    rule = rule_of(BY_COMPANY)
    one = call_of(metadata={"company_id": 42, "agent": "a"})

    assert not rule.of_one_call
    assert shares(rule, one, call_of(metadata={"company_id": 42}, call_id="call_8"))
    assert shares(rule, one, call_of(metadata={"company_id": 42}, call_id=None))
    assert not shares(rule, one, call_of(metadata={"company_id": 43}))
    assert not shares(rule, one, call_of(metadata={"company_id": "42"}))


@pytest.mark.parametrize("metadata", [None, {}, {"company_id": None}, [1], "x"])
def test_who_does_not_say_a_named_field_shares_with_nobody(metadata: object) -> None:
    assert spot(rule_of(BY_COMPANY), call_of(metadata=metadata)) is None


def test_a_named_call_id_keeps_answers_in_their_call() -> None:
    assert rule_of(["args", "call_id"]).of_one_call


def test_a_part_of_the_arguments_may_be_all_that_counts() -> None:
    rule = rule_of(["args.date"])

    assert shares(rule, call_of(args=b'{"date":"x","n":1}'), call_of(args=b'{"date":"x"}'))
    assert not shares(rule, call_of(args=b'{"date":"x"}'), call_of(args=b'{"date":"y"}'))
    assert spot(rule, call_of(args=b"{}")) is None


def test_tools_share_nothing() -> None:
    entries = {name: ToolEntry.model_validate({"effect": "read", "cache": "1m", "cache_key": []})
               for name in ("a", "b")}  # fmt: skip
    one, other = (cache_rule(resolve(entries, name), []) for name in ("a", "b"))
    assert one is not None
    assert other is not None

    first, second = spot(one, call_of()), spot(other, call_of())
    assert first is not None
    assert second is not None
    assert first.key != second.key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"n":12345678901234567890123}', b'{"n":12345678901234567890124}'),
        (b'{"n":1}', b'{"n":1.0}'),
        (b'{"n":1}', b'{"n":"1"}'),
        (b'{"n":0.1}', b'{"n":0.10000000000000001}'),
    ],
)
def test_arguments_that_anybody_could_tell_apart_do_not_share(one: bytes, other: bytes) -> None:
    assert not shares(rule_of(), call_of(args=one), call_of(args=other))


@pytest.mark.parametrize(
    "args",
    [b'{"a":1,"a":2}', b"[" * 2000 + b"]" * 2000, b'{"a":"' + b"x" * 70_000 + b'"}', b"{"],
    ids=["two of one name", "deep", "large", "broken"],
)
def test_arguments_that_cannot_be_compared_are_not_kept(args: bytes) -> None:
    assert spot(rule_of(), call_of(args=args)) is None


@pytest.mark.parametrize(
    "value",
    [12345678901234567890123, [1, {"a": 2.0**60}], -(2**70)],
    ids=["large", "within", "negative"],
)
def test_a_field_whose_number_may_stand_for_several_is_not_kept(value: object) -> None:
    body = b'{"call":{"metadata":{"x":%b}}}'
    text = str(value).replace("'", '"').encode()

    assert spot(rule_of(["args", "metadata.x"]), call_of(body=body % text)) is None
    assert spot(rule_of(["args", "metadata.x"]), call_of(body=body % b"1.5")) is not None


def test_a_field_that_is_nested_too_deeply_is_not_kept() -> None:
    deep = b'{"call":{"metadata":{"x":' + b"[" * 500 + b"]" * 500 + b"}}}"
    rule = rule_of(["args", "metadata.x"])

    assert spot(rule, call_of(body=deep)) is None
    assert tenant_of(rule, fields(call_of(body=deep))) is None


BEARER = ((b"Authorization", b"Bearer one"),)


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        ((b"Authorization", b"Bearer two"),),
        ((b"Cookie", b"session=1"),),
        ((b"X-Api-Key", b"k"),),
        ((b"X-Auth-Token", b"k"),),
        ((b"X-Retell-Signature", b"v=1,d=00"),),
    ],
)
def test_only_equal_credentials_share(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """A hit skips the arm, which would have looked at them."""
    rule, metadata = rule_of(BY_COMPANY), {"company_id": 42}
    mine = call_of(metadata=metadata, headers=headers, signed=False)

    assert shares(rule, mine, call_of(metadata=metadata, headers=headers, signed=False))
    assert not shares(rule, mine, call_of(metadata=metadata, signed=False))
    if headers != BEARER:
        other = call_of(metadata=metadata, headers=BEARER, signed=False)
        assert not shares(rule, mine, other)


def test_an_unsigned_request_never_hears_what_a_signed_one_was_told() -> None:
    """Anybody can write any company into a body; only Retell can sign it."""
    rule, metadata = rule_of(BY_COMPANY), {"company_id": 42}

    assert not shares(rule, call_of(metadata=metadata), call_of(metadata=metadata, signed=False))


def test_signed_requests_share_whatever_their_signature_is() -> None:
    rule, metadata = rule_of(BY_COMPANY), {"company_id": 42}
    one, other = (
        call_of(metadata=metadata, headers=((b"X-Retell-Signature", value),))
        for value in (b"v=1,d=00", b"v=2,d=11")
    )

    assert shares(rule, one, other)


def test_who_shows_a_credential_twice_shares_with_nobody() -> None:
    assert spot(rule_of(), call_of(headers=BEARER + BEARER)) is None


def test_a_query_tells_requests_apart_but_for_the_call() -> None:
    """It goes to the arm, which may find the customer there."""
    rule = rule_of(["args"])
    plain = mcp(target="/mcp")

    assert shares(rule, plain, mcp(target="/mcp?call_id=call_8"))
    assert not shares(rule, plain, mcp(target="/mcp?tenant=1"))
    assert not shares(rule, mcp(target="/mcp?tenant=2"), mcp(target="/mcp?tenant=1"))
    assert spot(rule, mcp(target="/mcp?tenant=%ff")) is None


def test_a_header_may_name_the_tenant() -> None:
    """MCP requests carry no call object."""
    rule = rule_of(["args", "header.x-company"])
    one, other = (mcp(headers=((b"X-Company", value),)) for value in (b"42", b"43"))

    assert not shares(rule, one, other)
    assert spot(rule, mcp()) is None


@pytest.mark.parametrize(
    "call",
    [
        mcp(rpc_id=None),
        mcp(body=b'{"params":{"inputResponses":{}}}'),
        mcp(body=b'{"params":{"requestState":"x"}}'),
    ],
    ids=["notification", "answers a question", "goes on"],
)
def test_an_mcp_request_that_is_more_than_a_question_shares_with_nobody(call: Call) -> None:
    assert spot(rule_of(), call) is None


def test_all_kinds_of_requests_share() -> None:
    """The answer is told to each in its own language."""
    one, other = mcp(headers=BEARER), call_of(kind=Kind.TOOLS, headers=BEARER)

    assert shares(rule_of(), one, other)


@pytest.mark.parametrize(
    ("one", "other"), [(42, "42"), (42.0, 42), (True, "true"), ("x" * 99, "x" * 99)]
)
def test_a_write_may_spell_its_tenant_otherwise(one: object, other: object) -> None:
    rule = rule_of(BY_COMPANY)
    read, write = (call_of(metadata={"company_id": value}) for value in (one, other))
    kept = spot(rule, read)
    assert kept is not None

    assert kept.tenant == tenant_of(rule, fields(write))
    assert len(kept.tenant[0]) <= 64


def test_long_tenants_are_told_apart() -> None:
    rule = rule_of(BY_COMPANY)
    one, other = (call_of(metadata={"company_id": "x" * 99 + end}) for end in "ab")

    assert tenant_of(rule, fields(one)) != tenant_of(rule, fields(other))


def test_what_is_asked_is_no_part_of_whose_it_is() -> None:
    rule = rule_of(["metadata.company_id", "args", "args.date", "tool", "agent_id"])
    body = b'{"call":{"metadata":{"company_id":42},"agent_id":"a"}}'
    kept = spot(rule, call_of(body=body, args=b'{"date":"x"}'))
    assert kept is not None

    assert kept.tenant == ("42", "a")
    assert tenant_of(rule, fields(call_of(body=body))) == ("42", "a")
    assert tenant_of(rule, fields(call_of(metadata={"company_id": 42}))) is None
    assert tenant_of(rule_of(["args"]), fields(call_of())) == ()
    assert tenant_of(rule_of(), fields(call_of())) == ("call_7",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(one=st.dictionaries(st.text(max_size=3), JSON), other=st.dictionaries(st.text(), JSON))
def test_calls_share_exactly_if_their_arguments_are_equal(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    rule = rule_of()
    first, second = (spot(rule, call_of(args=orjson.dumps(args))) for args in (one, other))
    if first is not None and second is not None:
        assert (first.key == second.key) == (
            orjson.dumps(one, option=orjson.OPT_SORT_KEYS)
            == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
        )
