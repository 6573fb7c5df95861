"""Rows F1 to F20: which bytes of a caller are a request, and what of it reaches an arm.

Each case is sent with a credential and without, to a path of ours and to one that passes through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import SLOTS, Sidecar, function
from tests.functional.wire import Answer, Client, Seen, request

TOKEN = "framing-0123456789"
AUTHORISED = b"Authorization: Bearer " + TOKEN.encode()
KINDS = ("event", "inbound", "alert", "function", "args", "mcp", "tools")
RULES: dict[str, Any] = {
    "auth": {"tokens": ["env:T"], "require": {kind: ["token"] for kind in KINDS}},
    "split": {"percent": 0},
    "passthrough": "webhook",
}
CHUNKED = b"Transfer-Encoding: chunked"
EMPTY = b"0\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """A request in pieces: its first line, its fields, and what stands behind them."""

    fields: tuple[bytes, ...] = ()
    body: bytes = b""
    line: bytes = b"POST %b HTTP/1.1"
    host: bytes | None = b"Host: sidecar.test"
    end: bytes = b"\r\n\r\n"

    def raw(self, target: bytes, *, authorised: bool) -> bytes:
        lines = [self.line.replace(b"%b", target)]
        lines += [] if self.host is None else [self.host]
        lines += [AUTHORISED] if authorised else []
        return b"\r\n".join([*lines, *self.fields]) + self.end + self.body


def fields(*some: bytes, body: bytes = b"") -> Case:
    return Case(some, body)


def chunks(body: bytes, *more: bytes) -> Case:
    return Case((CHUNKED, *more), body)


async def open_sidecar(world: World) -> Sidecar:
    return await world.sidecar({"T": TOKEN}, **RULES)


async def say(sidecar: Sidecar, raw: bytes) -> tuple[Answer, bool]:
    """Send bytes on a connection of their own: the answer, and whether nothing can follow it."""
    client = await sidecar.connect()
    await client.send(raw)
    answer = await client.answer(b"HEAD" if raw.startswith(b"HEAD ") else b"GET")
    closed = answer.value(b"connection") == b"close"
    if closed:
        assert await client.closed()
    return answer, closed


async def refused(
    world: World,
    cases: Mapping[str, Case],
    statuses: Iterable[int],
    *,
    cut: bool = True,
    sidecar: Sidecar | None = None,
) -> None:
    """Send each case every way; no way leads to an arm, and a clean request still does."""
    sidecar = sidecar or await open_sidecar(world)
    wrong: dict[str, Any] = {}
    allowed = set(statuses)
    for name, case in cases.items():
        for target in (b"/retell", b"/page"):
            for authorised in (True, False):
                answer, closed = await say(sidecar, case.raw(target, authorised=authorised))
                good = answer.status in allowed | (set() if authorised else {401})
                if not good or (cut and not closed) or world.webhook.seen or world.mcp.seen:
                    wrong[name] = (target, authorised, answer.status, closed, world.webhook.seen)
                    world.webhook.seen.clear()
    assert wrong == {}
    clean = await sidecar.ask(fields(b"Content-Length: 0").raw(b"/retell", authorised=True))
    assert clean.status == 200
    assert len(world.webhook.seen) == 1


async def arrived(
    world: World, case: Case, target: bytes = b"/retell", sidecar: Sidecar | None = None
) -> Seen:
    """What the webhook got of a case that is good."""
    sidecar = sidecar or await open_sidecar(world)
    answer, _ = await say(sidecar, case.raw(target, authorised=True))
    assert answer.status == 200, answer
    (seen,) = world.webhook.seen
    return seen


# -- Lengths and codings.


@pytest.mark.row("F1")
async def test_a_length_beside_a_coding_is_cut(world: World) -> None:
    cases = {
        "length first": fields(b"Content-Length: 5", CHUNKED, body=EMPTY),
        "coding first": fields(CHUNKED, b"Content-Length: 5", body=EMPTY),
        "a length of nothing": fields(b"Content-Length: 0", CHUNKED, body=EMPTY),
        "another request behind": fields(
            b"Content-Length: 40",
            CHUNKED,
            body=EMPTY + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    }
    await refused(world, cases, {400})


@pytest.mark.row("F2")
async def test_two_lengths_are_cut_whether_they_agree_or_not(world: World) -> None:
    five = b"Content-Length: 5"
    cases = {
        "different": fields(five, b"Content-Length: 6", body=b"hello!"),
        "the same": fields(five, five, body=b"hello"),
        "a list": fields(b"Content-Length: 5, 5", body=b"hello"),
        "in another case": fields(five, b"content-length: 5", body=b"hello"),
    }
    await refused(world, cases, {400})


@pytest.mark.row("F3")
async def test_a_length_is_plain_digits(world: World) -> None:
    values = [b"+5", b"-1", b"-0", b"0x5", b"5_0", "٥".encode(), b"", b"9" * 20, b"5 5", b"5.0"]
    values += [b"0o5", b"5;", b"\x0b5", b"5e0", b"999999999999"]
    await refused(world, {repr(v): fields(b"Content-Length: " + v) for v in values}, {400})


@pytest.mark.row("F4")
async def test_the_only_coding_is_chunked(world: World) -> None:
    values = [b"xchunked", b"identity", b"chunked, identity", b"gzip, chunked", b"chunked;q=1"]
    values += [b"", b", chunked", b"chunked,", b"chunked, chunked", b"gzip", b"chunked chunked"]
    values += [b"\x0bchunked", b"\x0cchunked", b"chunked\x00", b"chunked\x0b", b'"chunked"']
    cases = {repr(v): fields(b"Transfer-Encoding: " + v, body=EMPTY) for v in values}
    cases["empty, with a length"] = fields(b"Transfer-Encoding:", b"Content-Length: 0")
    await refused(world, cases, {400, 501})


@pytest.mark.row("F5")
async def test_a_coding_stands_once(world: World) -> None:
    cases = {
        "the same twice": fields(CHUNKED, CHUNKED, body=EMPTY),
        "another first": fields(b"Transfer-Encoding: identity", CHUNKED, body=EMPTY),
        "another last": fields(CHUNKED, b"Transfer-Encoding: x", body=EMPTY),
        "an empty one": fields(CHUNKED, b"transfer-encoding:", body=EMPTY),
    }
    await refused(world, cases, {400})


@pytest.mark.row("F6")
async def test_http_1_0_has_no_chunks(world: World) -> None:
    cases = {"chunked": Case((CHUNKED,), EMPTY, line=b"POST %b HTTP/1.0")}
    cases["kept"] = Case((b"Connection: keep-alive", CHUNKED), EMPTY, line=b"POST %b HTTP/1.0")
    await refused(world, cases, {400})


# -- Lines and bytes.


@pytest.mark.row("F7")
async def test_a_field_is_a_name_a_colon_and_a_value_on_one_line(world: World) -> None:
    lines = [b"Name : v", b"Name\t: v", b" Name: v", b"\tName: v", b"A: 1\r\n folded", b": v"]
    lines += [b"A: 1\r\n\tfolded", b"no colon", b"[x]: v", "Näme: v".encode(), b"Na me: v"]
    lines += [b"N\x80: v", b'"x": v', b"a/b: v", b"A: 1\r\n \r\nB: 2", b"Name\x00: v"]
    cases = {repr(line): fields(line, b"Content-Length: 0") for line in lines}
    cases["a space before the first"] = Case((b"X: 1",), host=b" Host: sidecar.test")
    await refused(world, cases, {400})


@pytest.mark.row("F8")
async def test_a_line_ends_with_both_its_bytes(world: World) -> None:
    zero = b"Content-Length: 0"
    cases = {
        "LF behind the request line": Case((zero,), line=b"POST %b HTTP/1.1\nX: 1"),
        "CR behind the request line": Case((zero,), line=b"POST %b HTTP/1.1\rX: 1"),
        "LF behind a field": fields(b"X: 1\nY: 2", zero),
        "CR behind a field": fields(b"X: 1\rY: 2", zero),
        "CR before a field": fields(b"\rX: 1", zero),
        "LF for the empty line": Case((zero,), end=b"\r\n\n"),
        "CR for the empty line": Case((zero,), end=b"\r\n\rX: 1\r\n\r\n"),
        "two LF": Case((zero,), end=b"\n\n"),
        "LF first": Case((zero,), line=b"\nPOST %b HTTP/1.1"),
        "LF in a chunk line": chunks(b"1\na\r\n" + EMPTY),
        "CR in a chunk line": chunks(b"1\ra\r\n" + EMPTY),
        "LF behind data": chunks(b"1\r\na\n" + EMPTY),
        "CR behind data": chunks(b"1\r\na\r" + EMPTY),
        "LF behind the last chunk": chunks(b"0\n\r\n"),
        "LF for the end": chunks(b"0\r\n\n"),
        "LF in a trailer": chunks(b"0\r\nA: 1\nB: 2\r\n\r\n"),
    }
    await refused(world, cases, {400})


@pytest.mark.row("F9")
async def test_no_control_byte_stands_in_a_value(world: World) -> None:
    controls = [*range(0x09), *range(0x0B, 0x0D), *range(0x0E, 0x20), 0x7F]
    cases = {
        hex(byte): fields(b"X: a" + bytes([byte]) + b"b", b"Content-Length: 0") for byte in controls
    }
    cases["first"] = fields(b"X: \x01", b"Content-Length: 0")
    cases["in an Authorization"] = fields(b"Cookie: \x00", b"Content-Length: 0")
    await refused(world, cases, {400})


# -- Chunks.


@pytest.mark.row("F10")
async def test_a_chunk_is_as_long_as_it_says_in_plain_hexadecimal(world: World) -> None:
    sizes = [b"0x1", b"+1", b"-1", b"1_0", b" 1", b"1 ", b"1\t", b"1" * 17, b"", b"g", b"1;", b"1,"]
    cases = {repr(size): chunks(size + b"\r\na\r\n" + EMPTY) for size in sizes}
    cases["more data"] = chunks(b"1\r\nab\r\n" + EMPTY)
    cases["less data"] = chunks(b"5\r\nab\r\n" + EMPTY)
    cases["no line end"] = chunks(b"1\r\na" + EMPTY)
    cases["-0"] = chunks(b"-0\r\n\r\n")
    await refused(world, cases, {400})


@pytest.mark.row("F11")
async def test_chunk_extensions_are_left_out(world: World) -> None:
    seen = await arrived(world, chunks(b"1;a=b\r\nx\r\n0;" + b"c" * 1024 + b"\r\n\r\n"))

    assert (seen.body, seen.value(b"content-length")) == (b"x", b"1")
    assert b"transfer-encoding" not in seen.names


@pytest.mark.row("F11")
async def test_chunk_extensions_are_bounded(world: World) -> None:
    cases = {
        "a line of 9 kB": chunks(b"1;" + b"a" * 9000 + b"\r\nx\r\n" + EMPTY),
        "LF inside": chunks(b"1;a\nb\r\nx\r\n" + EMPTY),
        "a quoted LF": chunks(b'1;a="\n"\r\nx\r\n' + EMPTY),
        "NUL inside": chunks(b"1;a\x00\r\nx\r\n" + EMPTY),
    }
    await refused(world, cases, {400})


@pytest.mark.row("F11")
async def test_ten_thousand_extensions_are_not_waited_for(world: World) -> None:
    sidecar = await open_sidecar(world)
    many = chunks((b"1;" + b"a" * 1024 + b"\r\nx\r\n") * 10_000 + EMPTY)
    client = await sidecar.connect()
    client.writer.write(many.raw(b"/retell", authorised=True))
    answer = await client.answer()
    client.abort()

    assert (answer.status, answer.code) == (400, "bad_framing")
    assert not world.webhook.seen


@pytest.mark.row("F12")
async def test_trailers_are_read_by_nobody(world: World) -> None:
    trailers = b"Authorization: Bearer x\r\nContent-Length: 5\r\nX-Retell-Signature: v=1,d=2\r\n"
    seen = await arrived(world, chunks(b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n"))

    assert seen.body == b"{}"
    assert not {b"x-retell-signature", b"trailer"} & seen.names
    assert seen.values(b"content-length") == [b"2"]


@pytest.mark.row("F12")
async def test_a_trailer_proves_nothing(world: World) -> None:
    sidecar = await open_sidecar(world)
    late = chunks(b"2\r\n{}\r\n0\r\n" + AUTHORISED + b"\r\n\r\n")
    answer, _ = await say(sidecar, late.raw(b"/retell", authorised=False))

    assert answer.status == 401
    assert not world.webhook.seen


@pytest.mark.row("F12")
async def test_trailers_are_bounded(world: World) -> None:
    long = b"X-T: " + b"a" * 1000 + b"\r\n"
    cases = {
        "a thousand": chunks(b"0\r\n" + b"X-T: 1\r\n" * 1000 + b"\r\n"),
        "one of 9 kB": chunks(b"0\r\nX-T: " + b"a" * 9000 + b"\r\n\r\n"),
        "60 kB": chunks(b"0\r\n" + long * 64 + b"\r\n"),
    }
    await refused(world, cases, {400, 431})


# -- The first line.


@pytest.mark.row("F13")
async def test_other_versions_and_other_separators_are_cut(world: World) -> None:
    lines = [b"POST %b", b"POST %b HTTP/1.2", b"POST %b HTTP/2.0", b"POST %b http/1.1"]
    lines += [
        b"POST\t%b HTTP/1.1",
        b"POST %b\tHTTP/1.1",
        b"POST  %b HTTP/1.1",
        b"POST %b  HTTP/1.1",
    ]
    lines += [b"POST %b HTTP/1.1 ", b" POST %b HTTP/1.1", b"POST %b HTTP/1", b"POST %b HTTP/01.1"]
    lines += [b"POST %b HTTP/ 1.1", b"POST %b HTTP/1.10", b"PRI * HTTP/2.0", b"POST %b XTTP/1.1"]
    lines += [b"POST\x0b%b HTTP/1.1", b"POST %b\x0cHTTP/1.1", b"POST %b HTTP/3.0"]
    cases = {repr(line): Case((b"Content-Length: 0",), line=line) for line in lines}
    await refused(world, cases, {400, 505})


@pytest.mark.row("F13")
async def test_one_empty_line_before_a_request_is_let_pass(world: World) -> None:
    """RFC 9112, 2.2 asks for it; two are one too many, and a bare LF is none."""
    zero = (b"Content-Length: 0",)
    sidecar = await open_sidecar(world)
    seen = await arrived(world, Case(zero, line=b"\r\nPOST %b HTTP/1.1"), sidecar=sidecar)
    assert seen.head.startswith(b"POST ")

    world.webhook.seen.clear()
    lines = [b"\r\n\r\nPOST %b HTTP/1.1", b"\nPOST %b HTTP/1.1", b"\r\n\nPOST %b HTTP/1.1"]
    cases = {repr(line): Case(zero, line=line) for line in lines}
    await refused(world, cases, {400}, sidecar=sidecar)


@pytest.mark.row("F14")
async def test_an_authority_in_the_target_leads_nowhere_else(world: World) -> None:
    evil = await world.origin("evil", world.webhook.play)
    there = f"127.0.0.1:{evil.port}".encode()
    targets = [b"http://" + there + b"%b", b"https://" + there + b"%b", b"HTTP://evil.test%b"]
    targets += [
        b"http://sidecar.test@" + there + b"%b",
        b"http:%b",
        b"ftp://sidecar.test%b",
        b"http://",
    ]
    cases = {
        repr(target): Case((b"Content-Length: 0",), line=b"POST " + target + b" HTTP/1.1")
        for target in targets
    }
    await refused(world, cases, {400, 421})
    assert evil.connections == 0


@pytest.mark.row("F14")
async def test_a_path_that_looks_like_an_authority_is_a_path(world: World) -> None:
    """It goes to our backend, as it is; or nowhere, where it could be read as a path of ours."""
    evil = await world.origin("evil", world.webhook.play)
    target = f"//127.0.0.1:{evil.port}/x".encode()
    seen = await arrived(world, fields(b"Content-Length: 0"), target)

    assert seen.target == target
    assert evil.connections == 0


@pytest.mark.row("F14")
async def test_our_own_authority_is_routed_by_its_path(world: World) -> None:
    case = Case((b"Content-Length: 0",), line=b"POST http://sidecar.test%b?a=1 HTTP/1.1")
    seen = await arrived(world, case)

    assert seen.target == b"/hook?a=1"
    assert seen.values(b"host") == [f"127.0.0.1:{world.webhook.port}".encode()]


@pytest.mark.row("F15")
async def test_methods_that_are_not_for_us_are_answered_here(world: World) -> None:
    methods = [b"TRACE", b"FOOBAR", b"PROPFIND", b"MKCOL", b"post", b"Post", b"M-SEARCH", b"BREW"]
    cases = {
        repr(method): Case((b"Content-Length: 0",), line=method + b" %b HTTP/1.1")
        for method in methods
    }
    cases["CONNECT"] = Case(line=b"CONNECT sidecar.test:443 HTTP/1.1")
    cases["CONNECT %b"] = Case(line=b"CONNECT %b HTTP/1.1")
    await refused(world, cases, {400, 405, 501})


@pytest.mark.row("F15")
async def test_options_of_the_server_itself_are_answered_here(world: World) -> None:
    options, get = Case(line=b"OPTIONS * HTTP/1.1"), Case(line=b"GET * HTTP/1.1")
    sidecar = await open_sidecar(world)
    await refused(world, {"OPTIONS": options}, {204}, cut=False, sidecar=sidecar)
    world.webhook.seen.clear()
    await refused(world, {"GET": get}, {400}, sidecar=sidecar)


@pytest.mark.row("F16")
async def test_a_host_is_there_once_and_is_a_host(world: World) -> None:
    hosts = [
        b"",
        b"a,b",
        b"a, b",
        b"u@a",
        b"a/p",
        b"a:99999",
        b"[::1",
        b"::1",
        b"a b",
        b"a:b",
        b"[]",
    ]
    hosts += [b"[1.2.3.4]", b"a?b", b"a#b", b"a\\b", "ä".encode(), b"[::1]x", b"a:-1", b"<a>"]
    zero = (b"Content-Length: 0",)
    cases = {repr(host): Case(zero, host=b"Host: " + host) for host in hosts}
    cases["missing"] = Case(zero, host=None)
    cases["twice"] = Case(zero, host=b"Host: sidecar.test\r\nHost: sidecar.test")
    cases["another"] = Case(zero, host=b"Host: sidecar.test\r\nhost: other.test")
    await refused(world, cases, {400})


# -- The target.

TARGETS = {
    "escapes": b"/a%2fb/%20%41%zz?x=%00%0d%0a",
    "dots": b"/a/../b/./c",
    "slashes": b"/a//b///",
    "parameters": b"/a;b=c/d;e",
    "everything printable": b"/!$&'()*+,-.:;<=>?@[]^_`{|}~\"%25",
    "an empty query": b"/a?",
    "question marks": b"/a??b?c",
}


@pytest.mark.row("F17", "F18")
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
async def test_a_target_goes_up_byte_for_byte(world: World, target: bytes) -> None:
    seen = await arrived(world, fields(b"Content-Length: 0"), target)

    assert seen.target == target


@pytest.mark.row("F17")
async def test_an_unclean_target_is_cut(world: World) -> None:
    targets = [b"%b\x80", b"%b/caf\xc3\xa9", b"%b\xc0\xaf", b"%b x", b"%b\\x", b"%b#f", b"%b?#"]
    targets += [b"%b\x00", b"%b\x01", b"%b\x7f", b"%b\x0b", b"x%b", b"", b"?a", b"*", b"\\%b"]
    cases = {
        repr(target): Case((b"Content-Length: 0",), line=b"POST " + target + b" HTTP/1.1")
        for target in targets
    }
    await refused(world, cases, {400})


@pytest.mark.row("F17", "F18")
async def test_hidden_control_bytes_and_slashes_go_nowhere_or_up_as_they_are(world: World) -> None:
    sidecar = await open_sidecar(world)
    for target in (b"/x%00", b"/x%0d%0aA:1", b"/x%2fy", b"/x%5cy", b"/metrics%00", b"/x%252f"):
        world.webhook.seen.clear()
        answer, _ = await say(sidecar, fields(b"Content-Length: 0").raw(target, authorised=False))
        got = [seen.target for seen in world.webhook.seen]
        assert (answer.status, got) in [(200, [target]), (404, [])], target


DISGUISES = (
    b"/x/../retell", b"/%72etell", b"/%2e%2e/retell", b"//retell", b"/retell/", b"/RETELL",
    b"/retell;a", b"/./retell", b"/x/..;/retell", b"/%252e%252e/retell", b"/hook", b"/HOOK",
    b"/x/%2e%2e/hook", b"/mcp/a%2fb", b"/retell%00", b"/retell%2f", b"/api/mcp/retell/tools/",
)  # fmt: skip


@pytest.mark.row("F18")
async def test_no_other_spelling_leads_around_the_edge(world: World) -> None:
    """Behind us somebody may decode, fold and merge: then these are paths with a credential."""
    sidecar = await open_sidecar(world)
    for target in DISGUISES:
        raw = fields(b"Content-Length: 0").raw(target, authorised=False)
        answer, _ = await say(sidecar, raw)
        assert (answer.status, world.webhook.seen) in [(404, []), (401, [])], target


@pytest.mark.row("F18")
@pytest.mark.parametrize("passes", [None, "webhook"])
async def test_no_path_of_callers_reaches_an_operators_page(
    world: World, passes: str | None
) -> None:
    rules = {**RULES, "passthrough": passes}
    sidecar = await world.sidecar({"T": TOKEN}, **rules)
    pages = (b"/metrics", b"/x/../metrics", b"/%2e%2e/status", b"//config", b"/live;a", b"/ADMIN")
    for target in (*pages, b"/ready", b"/config", b"/status", b"/drain", b"/metrics%00"):
        for line in (b"GET %b HTTP/1.1", b"POST %b HTTP/1.1"):
            raw = Case((b"Content-Length: 0",), line=line).raw(target, authorised=True)
            answer, _ = await say(sidecar, raw)
            theirs = answer.value(b"x-callsplit-arm") == b"webhook"
            assert theirs or answer.status == 404, target
            assert [seen.target for seen in world.webhook.seen] == ([target] if theirs else [])
            world.webhook.seen.clear()


# -- One after another.


async def answers(client: Client, count: int) -> list[Answer]:
    return [await client.answer() for _ in range(count)]


@pytest.mark.row("F19")
async def test_requests_in_one_segment_are_answered_in_order_each_by_its_own_arm(
    world: World,
) -> None:
    overrides = [{"when": {"agent_id": {"in": ["new"]}}, "to": "mcp"}]
    rules = {**RULES, "split": {"percent": 0, "overrides": overrides}}
    sidecar = await world.sidecar({"T": TOKEN}, **rules)
    agents = ["old", "new", "old", "new", "new"]
    sent = b""
    for number, agent in enumerate(agents):
        body = function(SLOTS, f"id_{number}", agent_id=agent)
        chunked = bool(number % 2)
        sent += request("POST", "/retell", body, AUTHORISED, chunked=chunked)
    client = await sidecar.connect()
    await client.send(sent)

    arms = ["mcp" if agent == "new" else "webhook" for agent in agents]
    assert [answer.arm for answer in await answers(client, 5)] == arms


@pytest.mark.row("F19")
async def test_a_good_request_is_answered_whatever_stands_behind_it(world: World) -> None:
    sidecar = await open_sidecar(world)
    good = request("POST", "/retell", b"{}", AUTHORISED)
    for behind in (
        b"\x00\xff garbage\r\n\r\n",
        b"GET /x\r\n\r\n",
        b"POST / HTTP/1.1\r\nX : 1\r\n\r\n",
    ):
        client = await sidecar.connect()
        await client.send(good + behind)
        first, second = await answers(client, 2)
        assert (first.status, second.status) == (200, 400)
        assert await client.closed()

    assert [seen.body for seen in world.webhook.seen] == [b"{}"] * 3


@pytest.mark.row("F19", "H4")
async def test_nothing_behind_an_offered_upgrade_is_lost(world: World) -> None:
    """The parser would take all else in the segment for the other protocol's."""
    sidecar = await open_sidecar(world)
    upgrade = request("GET", "/first", None, b"Connection: upgrade", b"Upgrade: h2c")
    client = await sidecar.connect()
    await client.send(upgrade + request("GET", "/second"))

    assert [answer.status for answer in await answers(client, 2)] == [200, 200]
    assert [seen.target for seen in world.webhook.seen] == [b"/first", b"/second"]


@pytest.mark.row("F20")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_a_body_that_looks_like_a_request_is_a_body(
    world: World, method: str, *, chunked: bool
) -> None:
    sidecar = await open_sidecar(world)
    body = b"GET /smuggled HTTP/1.1\r\nHost: sidecar.test\r\n\r\n0\r\n\r\nPOST / HTTP/1.1\r\n\r\n"
    client = await sidecar.connect()
    for target in ("/retell", "/page"):
        await client.ask(request(method, target, body, AUTHORISED, chunked=chunked))
    await client.ask(request("GET", "/canary"))

    lines = [(seen.target, seen.body) for seen in world.webhook.seen]
    assert lines == [(b"/hook", body), (b"/page", body), (b"/canary", b"")]
