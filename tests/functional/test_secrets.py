"""A8: after every way to fail, no secret and nothing of a caller's stands anywhere.

Each secret is a word of its own, so wherever it shows it is found; so are a phone number, a name
and a sentence of a transcript.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from proxy.core.auth import credential_name
from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, Sidecar, event, function, merged, tools_call
from tests.functional.test_bytes import signature
from tests.functional.wire import Answer, answers, dies, mcp, request, response, says, until

pytestmark = pytest.mark.row("A8")

SECRETS = {
    "TOKEN": "token-quokka-0123456789",
    "BACKUP": "backup-wombat-0123456789",
    "KEY": "key_numbat_0123456789abcdef",
    "UPSTREAM": "upstream-bilby-0123456789",
    "SIGN": "key_dunnart_0123456789abcdef",
    "SALT": "salt-potoroo-0123456789",
    "FORCE": "force-bettong-0123456789",
    "SESSION": "session-cuscus-0123456789",
    "ADMIN": "admin-kowari-0123456789",
}
TYPED = "typed-phascogale-0123456789"  # by somebody who meets us with what is no credential
LITERAL = "literal-quoll-0123456789"  # pasted into the rules
PHONE, NAME, SENTENCE = "14155550100", "Rosalind Thistlewood", "my card number is 4111"
OURS: dict[str, Any] = {
    "call_id": "call_private_1", "from_number": f"+{PHONE}", "transcript": f"User: {SENTENCE}",
    "metadata": {"name": NAME},
}  # fmt: skip
PERSONAL = [PHONE, NAME, "Thistlewood", "card number", SENTENCE]
FORBIDDEN = [
    *SECRETS.values(), TYPED, LITERAL, *PERSONAL,
    *(credential_name("token", SECRETS[name].encode()) for name in ("TOKEN", "BACKUP")),
    credential_name("signature", SECRETS["KEY"].encode()),
]  # fmt: skip

RULES: dict[str, Any] = {
    "admin": {"token": "env:ADMIN"},
    "listen": {"session_keys": ["env:SESSION"], "body_limit": "100kB", "body_timeout": "300ms"},
    "split": {"salt": "env:SALT", "force": {"header": "x-force", "token": "env:FORCE"}},
    "auth": {
        "tokens": ["env:TOKEN", "env:BACKUP"],
        "retell_keys": ["env:KEY"],
        "require": {
            "event": ["signature"], "inbound": ["signature"], "function": ["signature"],
            "alert": ["signature"], "args": ["signature", "token"],
            "tools": ["token"], "mcp": ["token"],
        },
    },
    "backends": {
        "mcp": {"bearer": "env:UPSTREAM", "timeout": "500ms"},
        "webhook": {"sign": "env:SIGN", "timeout": "500ms"},
    },
    "outbox": {"enabled": True},
}  # fmt: skip
BODIES = {
    "function": function(SLOTS, args={"phone": f"+{PHONE}", "name": NAME}, **OURS),
    "booking": function(BOOK, args={"phone": f"+{PHONE}", "name": NAME}, **OURS),
    "event": event(**{**OURS, "call_id": "call_private_2"}),
    "rpc": tools_call(SLOTS, {"phone": f"+{PHONE}", "name": NAME}),
    "broken": b'{"event":"call_ended","call":{"transcript":"' + SENTENCE.encode(),
}
LATER = event(**{**OURS, "call_id": "call_private_3"})
"""An event that no arm takes: it waits in the outbox."""


def bearer(name: str) -> bytes:
    return f"Authorization: Bearer {SECRETS[name]}".encode()


def signed(body: bytes) -> bytes:
    return b"X-Retell-Signature: " + signature(body, key=SECRETS["KEY"])


class Harm:
    """Asks in every way that can fail, and keeps what callers heard from us."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.sidecar = sidecar
        self.heard: list[Answer] = []
        self.asked = 0

    async def post(self, target: str, body: bytes, *fields: bytes) -> None:
        self.asked += 1
        answer = await self.sidecar.post(target, body, *fields)
        if answer.arm in ("none", "-"):
            self.heard.append(answer)

    async def raw(self, sent: bytes) -> None:
        self.asked += 1
        client = await self.sidecar.connect()
        self.heard.append(await client.ask(sent))

    async def at_the_door(self) -> None:
        """Credentials that do not hold, in places where they might be told of."""
        typed = f"Authorization: Bearer {TYPED}".encode()
        for body in BODIES.values():
            for fields in ([], [typed], [bearer("TOKEN")[:-1]], [bearer("TOKEN")] * 2):
                await self.post(f"/retell?token={TYPED}", body, *fields)
            await self.post("/mcp/call_private_1", body, bearer("BACKUP"))
            await self.post("/retell", body, signed(body), signed(body))
            await self.post("/nowhere", body, bearer("TOKEN"))
            await self.post("/retell", body, signed(body), b"X-Force: mcp " + TYPED.encode())
        await self.post("/retell", b"x" * 200_000 + SENTENCE.encode(), bearer("TOKEN"))

    async def on_the_wire(self) -> None:
        """Heads and framing that are refused with a token in them."""
        head = b"POST /retell HTTP/1.1\r\nHost: a\r\n" + bearer("TOKEN") + b"\r\n"
        said = SENTENCE.encode()
        for sent in (
            head + b"X: " + TYPED.encode() + b"\x01\r\n\r\n",
            head.replace(b"\r\nAuth", b"\x01\r\nAuth") + b"\r\n",
            b"POST /retell HTTP/1.1\r\nHost: a\r\n" + bearer("TOKEN") + b"\x01\r\n\r\n",
            head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + said,
            head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + said,
            head + b"Content-Length: 5000\r\n\r\n" + said,
            head + b"Expect: " + TYPED.encode() + b"\r\nContent-Length: 0\r\n\r\n",
            head.replace(b"/retell", b"http://u:" + TYPED.encode() + b"@evil/x") + b"\r\n",
            TYPED.encode() + b"\r\n\r\n",
        ):
            await self.raw(sent)

    async def behind_the_arms(self, world: World) -> None:
        """Arms that fail, and say what they were told."""
        back = json.dumps({"error": f"{NAME} {PHONE}", "token": SECRETS["UPSTREAM"]}).encode()
        away = f"Location: http://evil/?t={SECRETS['UPSTREAM']}".encode()
        plays = [
            answers(back, status=b"500 " + NAME.encode()),
            answers(back, status=b"401 Unauthorized"),
            answers(back, away, status=b"302 Found"),
            answers(back, status=b"429 Too Many"),
            says(b"HTTP/1.1 200 OK\r\nX: " + SECRETS["UPSTREAM"].encode() + b"\x01\r\n\r\n"),
            says(response(b"")[:-2] + f"Bad {NAME}: 1\r\n\r\n".encode()),
            dies,
        ]
        for play in plays:
            world.webhook.play, world.mcp.play = play, mcp(play)
            for target, body, proof in (
                ("/retell", BODIES["function"], signed(BODIES["function"])),
                ("/retell", BODIES["booking"], signed(BODIES["booking"])),
                ("/retell", LATER, signed(LATER)),
                ("/mcp/call_private_1", BODIES["rpc"], bearer("TOKEN")),
            ):
                await self.post(target, body, proof)

    async def at_the_pages(self) -> None:
        """Operators who mistype, and pages that do not exist."""
        typed = f"Authorization: Bearer {TYPED}".encode()
        ask = self.sidecar.admin
        self.heard += [
            await ask("/status", typed),
            await ask(f"/{TYPED}", bearer("ADMIN")),
            await ask("/explain", bearer("ADMIN"), method="POST", body=BODIES["broken"]),
            await ask(f"/breakers/{TYPED}/open", bearer("ADMIN"), method="POST"),
            await ask("/status", bearer("ADMIN"), f"Host: {TYPED}.test".encode()),
            await ask("/status", bearer("ADMIN") + b"\x01"),
            await ask("/outbox/1/retry", bearer("ADMIN"), method="POST"),
        ]

    async def in_the_rules(self, world: World) -> None:
        """A secret pasted where it must not stand, and everything else as it was."""
        for wrong in (
            {"auth": {"tokens": [LITERAL]}},
            {"admin": {"token": LITERAL}},
            {"state": f"redis://:{LITERAL}@cache/0"},
            {"backends": {"mcp": {"url": f"http://u:{LITERAL}@127.0.0.1/mcp"}}},
            {"backends": {"mcp": {"options": {"api_key": LITERAL}}}},
            {"backends": {"mcp": {"bearer": LITERAL}}},
        ):
            await self.sidecar.write(merged(world.rules(**RULES), wrong))
            self.heard.append(await self.sidecar.admin("/status", bearer("ADMIN")))
        await self.sidecar.write(world.rules(**RULES))


async def test_no_way_to_fail_shows_a_secret_or_a_callers_words(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sidecar = await world.sidecar(SECRETS, **RULES)
    harm = Harm(sidecar)

    await harm.at_the_door()
    await harm.on_the_wire()
    await harm.behind_the_arms(world)
    await harm.at_the_pages()
    await harm.in_the_rules(world)
    pages = ("/status", "/config", "/metrics", "/breakers", "/replays?state=all", "/outbox",
             "/outbox/1", "/explain?call_id=call_private_1")  # fmt: skip
    shown = [await sidecar.admin(page, bearer("ADMIN")) for page in pages]
    await until(lambda: sidecar.app.handler.inflight == 0, "every exchange has ended")
    lines = await sidecar.lines(harm.asked)

    places = {
        "log": sidecar.log,
        "access log": json.dumps(lines, ensure_ascii=False),
        "libraries' log": caplog.text,
        **{f"page {at}": answer.body.decode() for at, answer in zip(pages, shown, strict=True)},
        **{
            f"answer {number}": (answer.head + answer.body).decode("latin-1")
            for number, answer in enumerate(harm.heard)
        },
    }
    found = [(word, place) for place, said in places.items() for word in FORBIDDEN if word in said]
    assert not found
    # What was meant to fail has failed: or this would prove nothing.
    assert {answer.status for answer in harm.heard} >= {200, 400, 401, 403, 404, 408, 413, 417}
    assert len(sidecar.events("rules_refused")) == 6
    assert len(lines) == harm.asked > 70
    kept = (await sidecar.admin("/outbox", bearer("ADMIN"))).json
    assert kept["queued"] + kept["dead"] + kept["under_way"] >= 1
    assert [answer.status for answer in shown] == [200] * len(pages)


async def test_the_request_itself_sees_other_peoples_secrets_nowhere(world: World) -> None:
    """A caller's token stays here; an arm's own goes to that arm alone."""
    sidecar = await world.sidecar(SECRETS, **merged(RULES, {"outbox": {"enabled": False}}))
    forced = f"X-Force: webhook {SECRETS['FORCE']}".encode()

    await sidecar.post("/mcp/call_a", BODIES["rpc"], bearer("TOKEN"))
    await sidecar.post("/mcp/call_b", BODIES["rpc"], bearer("TOKEN"), forced)
    body = BODIES["function"]
    await sidecar.post("/retell", body, signed(body), bearer("BACKUP"))

    for origin, own in ((world.mcp, "UPSTREAM"), (world.webhook, "")):
        assert origin.seen
        got = b"".join(seen.head + seen.body for seen in origin.seen).decode()
        assert [name for name, secret in SECRETS.items() if secret in got] == [own] * bool(own)


async def test_a_request_with_a_token_in_its_query_leaves_none_in_a_line(world: World) -> None:
    """Some clients can set nothing but a URL: it is no credential here, and nobody logs it."""
    sidecar = await world.sidecar(SECRETS, **RULES)

    answer = await sidecar.ask(request("POST", f"/mcp/call_a?token={TYPED}", BODIES["rpc"]))
    (line,) = await sidecar.lines(1)

    assert answer.status == 401
    assert TYPED not in json.dumps(line)
