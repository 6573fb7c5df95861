from __future__ import annotations

import pytest

from proxy.core.auth import AuthPolicy, Credentials
from proxy.core.model import Kind
from proxy.edge import Edge, EdgeRules
from proxy.line import Line
from proxy.wire_faults import FAULTS, WireFaults
from tests.fakes import FakeClock, FakeWatch


class TheLine:
    """As much of a line as a fault needs."""

    def __init__(self, watch: FakeWatch, *, expose_headers: bool) -> None:
        self.edge = Edge(EdgeRules(AuthPolicy({}, Credentials())), watch)
        self.expose_headers = expose_headers


def faults(watch: FakeWatch, *, expose_headers: bool = True) -> WireFaults:
    line: Line = TheLine(watch, expose_headers=expose_headers)  # type: ignore[assignment]
    return WireFaults(lambda: line, watch, FakeClock(), lambda: "f" * 32)


@pytest.mark.parametrize("status", [*FAULTS, 418])
def test_what_is_no_request_hears_a_code_and_is_accounted_for(status: int) -> None:
    watch = FakeWatch()
    reply = faults(watch).answer(status)
    code = FAULTS.get(status, FAULTS[400])[0]

    assert (reply.status, reply.close) == (status, True)
    assert isinstance(reply.body, bytes)
    assert code.encode() in reply.body
    (x,) = [what for name, what in watch.told if name == "exchange"]
    assert (x.outcome, x.code, x.status, x.request_id) == ("refused", code, status, "f" * 32)
    assert (b"x-request-id", b"f" * 32) in reply.headers


def test_one_connection_too_many_is_load_that_was_shed() -> None:
    watch = FakeWatch()
    reply = faults(watch, expose_headers=False).answer(503)

    assert (b"retry-after", b"5") in reply.headers
    assert not [name for name, _ in reply.headers if name.startswith(b"x-")]
    assert [one for one in watch.told if one[0] == "shed"] == [
        ("shed", ("connections", Kind.OTHER))
    ]
