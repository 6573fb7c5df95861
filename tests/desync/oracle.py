"""The desync oracle: what became of one vector, by what arrived and what was answered.

Told as CLEAN, REJECT, LENIENT and VIOLATION, and, for what is valid by the letter and did not
arrive, REFUSED (a row says so, and which) or UNEXPLAINED.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest

from tests.desync.compare import difference, row_for
from tests.desync.strict import Message, Reading, requests, responses
from tests.desync.vectors import TOKEN, Vector
from tests.desync.world import Arrivals, Caller, World

LENIENCIES = ("empty line before a request",)
"""Faults that may be passed over: RFC 9112, 2.2 asks for it, and one empty line splits nothing."""


class Sort(Enum):
    """What became of it."""

    CLEAN = "clean"  # valid, and arrived unchanged
    REJECT = "reject"  # not valid, or not whole: nothing arrived
    LENIENT = "lenient"  # not valid, and arrived repaired
    REFUSED = "refused"  # valid, and a row says that it must not arrive
    UNEXPLAINED = "unexplained"  # valid, and did not arrive
    VIOLATION = "violation"


@dataclass(frozen=True)
class Finding:
    """What became of one vector, sent one way."""

    vector: Vector
    sort: Sort
    why: str = ""
    status: int | None = None
    state: str = ""  # as Http11Probe calls it


async def judge(world: World, vector: Vector) -> Finding:
    """Send a request vector and canaries, and look at both ends."""
    caller, sent, canary = await world.connect(), b"", b""
    world.take()
    try:
        wrong = ""
        for step in vector.steps:
            caller.send(step)
            sent += step
            wrong = wrong or await world.settle(caller)
        status, state = _heard(caller)
        arrived = world.take()
        if not caller.ended:
            request, canary = world.canary()
            caller.send(request)
            wrong = wrong or await world.settle(caller)
        late = world.take()
        caller.close()
        wrong = wrong or await world.fly(afresh=True)
        if not wrong and world.origin.unfinished:
            wrong = f"half a request at the origin: {world.origin.unfinished[:100]!r}"
        arrived = _joined(arrived, late, canary)
        sort, why = (Sort.VIOLATION, wrong) if wrong else _sort(sent, canary, arrived, caller)
    finally:
        caller.close()
    return Finding(vector, sort, why, status, state)


def _joined(arrived: Arrivals, late: Arrivals, canary: bytes) -> Arrivals:
    """Both, without the canaries between; the one that flew on the same connection stays."""
    messages = [
        message
        for message in (*arrived.messages, *late.messages)
        if b"/canary/" not in message.target or message.target == canary
    ]
    return Arrivals(messages, arrived.broken + late.broken)


def _heard(caller: Caller) -> tuple[int | None, str]:
    words = caller.heard.split(b" ", 2)
    status = int(words[1]) if len(words) > 2 and words[1].isdigit() else None
    state = "ClosedByServer" if caller.ended else "TimedOut" if status is None else "Open"
    return status, state


def _sort(sent: bytes, canary: bytes, arrived: Arrivals, caller: Caller) -> tuple[Sort, str]:
    if arrived.broken:
        return Sort.VIOLATION, f"at the origin: {arrived.broken[0]}"
    flown = b"GET %b HTTP/1.1\r\nHost: sidecar.test\r\n\r\n" % canary if canary else b""
    reading = requests(sent + flown)
    answers = _answers(reading, caller)
    if fault := _answers_fault(answers, sent, caller):
        return Sort.VIOLATION, fault
    came, refused = list(arrived.messages), ""
    for wanted, answer in zip_longest(reading.messages, answers.messages[: len(reading.messages)]):
        if came and not (answer is not None and code_of(answer)):
            if changed := difference(wanted, came.pop(0)):
                return Sort.VIOLATION, changed
        elif wanted.target == canary and (caller.ended or refused):
            break  # It came behind what closed the connection.
        elif not (refused := refused or _row(wanted, answer)):
            return Sort.UNEXPLAINED, _silence(answer, caller)
    surplus = [one for one in came if one.target != canary]
    if surplus:
        return _surplus(reading, surplus)
    if refused:
        return Sort.REFUSED, refused
    if reading.rest == "broken" or not requests(sent).messages:
        return Sort.REJECT, reading.fault or "not whole"
    return Sort.CLEAN, ""


def _surplus(reading: Reading, surplus: list[Message]) -> tuple[Sort, str]:
    """More came than stood there by the letter."""
    if reading.rest == "broken" and len(surplus) == 1:
        return Sort.LENIENT, reading.fault
    return Sort.VIOLATION, f"{len(surplus)} requests more than were sent ({reading.rest})"


def _row(message: Message, answer: Message | None) -> str:
    """It is valid, and did not arrive: which row says so?"""
    code = code_of(answer) if answer is not None else ""
    row = row_for(message, code)
    return f"{row}: {answer.status} {code}" if answer is not None and row else ""


def _silence(answer: Message | None, caller: Caller) -> str:
    if answer is not None:
        return f"{answer.status} {code_of(answer)}"
    return "closed without an answer" if caller.ended else "no answer"


def code_of(answer: Message) -> str:
    """The code of a refusal of ours."""
    if answer.status == 204 and not answer.values(b"x-callsplit-arm"):
        return "options"
    if b"last_answer" in answer.values(b"x-callsplit-reason"):
        return "last_answer"
    try:
        error = json.loads(answer.body)["error"]
        return str(error.get("data", error)["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def _answers(reading: Reading, caller: Caller) -> Reading:
    """All that was answered; more may have been answered than stood there by the letter."""
    methods = [message.method for message in reading.messages] + [b"GET"] * 8
    plain = caller.answers(methods)
    # Who breaks a HEAD half way is answered as one who asked for nothing in particular.
    return plain if plain.valid else caller.answers([b"GET"] * len(methods))


def _answers_fault(answers: Reading, sent: bytes, caller: Caller) -> str:
    """What is wrong with the answers as such: they too are HTTP by the letter."""
    if not answers.valid:
        return f"answers that are not HTTP: {answers.fault}: {caller.heard[:200]!r}"
    # Our own error pages never quote what was sent.
    words = {line for line in sent.split(b"\r\n") if len(line) >= 12}
    for message in answers.messages:
        if message.status >= 400 and any(word in message.body for word in words):
            return "an error page that quotes the request"
    return ""


# -- Responses.


async def judge_response(world: World, vector: Vector, *, ours: bool) -> Finding:
    """Let the origin say a response vector to a request, and see what the caller hears."""
    raw = vector.raw
    reading = responses(raw, [b"GET"], ended=False)
    closes = reading.rest == "unfinished"
    if closes:
        reading = responses(raw, [b"GET"], ended=True)
    caller = await world.connect()
    world.take()
    world.origin.play = raw, closes
    try:
        caller.send(_question(world, ours=ours))
        wrong = await world.settle(caller)
        if not caller.heard and not caller.ended:  # It waits for more: let it end.
            world.origin.hang_up()
            wrong = wrong or await world.settle(caller)
        status, state = _heard(caller)
        heard = caller.answers([b"GET"])
        for _ in range(2):
            wrong = wrong or await world.fly(afresh=True)
        taken = world.take()
        asked = [one for one in taken.messages if b"/canary/" not in one.target]
        if taken.broken or len(asked) != 1:
            wrong = wrong or f"{len(asked)} requests at the origin {taken.broken}"
        sort, why = (Sort.VIOLATION, wrong) if wrong else _sort_response(reading, heard, caller)
    finally:
        world.origin.play = None
        caller.close()
    return Finding(vector, sort, why, status, state)


def _question(world: World, *, ours: bool) -> bytes:
    number = world.canary()[1].rpartition(b"/")[2]
    if not ours:
        return b"GET /play/%b HTTP/1.1\r\nHost: sidecar.test\r\n\r\n" % number
    fields = b"Host: sidecar.test\r\nAuthorization: Bearer %b\r\n" % TOKEN.encode()
    return b"GET /retell?%b HTTP/1.1\r\n%b\r\n" % (number, fields)


def _sort_response(reading: Reading, heard: Reading, caller: Caller) -> tuple[Sort, str]:
    if not heard.valid:
        return Sort.VIOLATION, f"an answer that is not HTTP: {heard.fault}: {caller.heard[:200]!r}"
    said = reading.messages[0] if reading.messages else None
    if not heard.messages:
        # Broken off half way: a client can tell, for it never came to an end.
        if not caller.ended:
            return Sort.VIOLATION, "no answer"
        if said is not None and said.framing != "connection":
            return Sort.UNEXPLAINED, "cut"
        return Sort.REJECT, f"cut: {reading.fault or reading.rest}"
    got = heard.messages[0]
    own = got.status >= 500 and code_of(got) != ""
    if said is None:
        if own:
            return Sort.REJECT, reading.fault or reading.rest
        return Sort.LENIENT, reading.fault or reading.rest
    if own:
        return Sort.UNEXPLAINED, f"{got.status} {code_of(got)}"
    if (got.status, got.body) != (said.status, said.body):
        return (
            Sort.VIOLATION,
            f"{got.status} {got.body[:80]!r} for {said.status} {said.body[:80]!r}",
        )
    return Sort.CLEAN, ""
