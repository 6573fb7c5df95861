from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from proxy.admin.page import MOST_REASON, asked_by, page


def test_a_page_is_json_that_people_can_read() -> None:
    answer = page({"a": 1}, 503)

    assert (answer.status, answer.content_type) == (503, "application/json")
    assert answer.body == b'{\n  "a": 1\n}\n'


@pytest.mark.parametrize(
    ("headers", "who"), [({"Authorization": "Bearer t"}, "token"), ({}, "local")]
)
def test_who_asks_is_known_by_his_token(headers: dict[str, str], who: str) -> None:
    request = make_mocked_request("POST", "/x?reason=fixed", headers=headers)

    assert asked_by(request) == {"who": who, "from": "", "why": "fixed"}


def test_a_reason_without_end_is_cut() -> None:
    request = make_mocked_request("POST", "/x?reason=" + "x" * 5000)

    assert asked_by(request)["why"] == "x" * MOST_REASON
