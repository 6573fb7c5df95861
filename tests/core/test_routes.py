from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.model import Kind
from proxy.core.routes import (
    RouteId,
    check_method,
    is_ours_in_disguise,
    is_tool_segment,
    match,
)
from proxy.errors import Refused

OURS = ["/retell", "/mcp", "/api/mcp/retell/tools", "/api/retell/webhook-simple"]
BACKENDS = [
    "/hooks/retell",
    "/app/fn/{tool}",
    "/app/do-{tool}.php",
    "/caf%C3%A9",
    "/%zz%00",
    "/front.php/front/hook",
    "/one.php",
    "",
]


@pytest.mark.parametrize(
    ("path", "id_", "kinds"),
    [
        ("/retell", "retell", {"event", "inbound", "function", "tools", "mcp", "alert"}),
        (
            "/api/retell/webhook-simple",
            "retell",
            {"event", "inbound", "function", "tools", "mcp", "alert"},
        ),
        ("/mcp", "mcp", {"mcp"}),
        ("/mcp/call_1f", "mcp", {"mcp"}),
        ("/retell/fn/book_appointment", "function", {"function", "args"}),
        ("/api/mcp/retell/tools", "tools", {"tools", "mcp"}),
        ("/api/mcp/retell/health", "health", set()),
        ("/llm/call_1f", "llm", {"llm"}),
    ],
)
def test_our_paths_carry_their_kinds(path: str, id_: str, kinds: set[str]) -> None:
    route = match(path)

    assert route is not None
    assert route.id == RouteId(id_)
    assert route.kinds == {Kind(kind) for kind in kinds}


@pytest.mark.parametrize(
    ("path", "call_id"),
    [
        ("/mcp/call_1f", "call_1f"),
        ("/llm/call_1f", "call_1f"),
        ("/mcp/%7B%7Bcall_id%7D%7D", "{{call_id}}"),
        ("/mcp/{{call_id}}", "{{call_id}}"),
        ("/mcp/a%2520b", "a%20b"),  # once
        ("/mcp/a+b", "a+b"),
        ("/mcp/%ff", "\udcff"),
        ("/mcp/%zz", "%zz"),
        ("/mcp/...", "..."),
    ],
)
def test_the_last_segment_is_decoded_once(path: str, call_id: str) -> None:
    route = match(path)

    assert route is not None
    assert (route.call_id, route.tool) == (call_id, None)


@pytest.mark.parametrize("tool", ["book", "book_appointment.v2-x", "0", "_", "a" * 128, "..."])
def test_a_tool_stands_in_its_path(tool: str) -> None:
    route = match(f"/retell/fn/{tool}")

    assert route is not None
    assert (route.tool, route.call_id) == (tool, None)


@pytest.mark.row("F18")
@pytest.mark.parametrize(
    "path",
    [
        "", "/", "*", "/retell/", "/mcp/", "/RETELL", "//retell", "/./retell", "/x/../retell",
        "/%72etell", "/retell;a", "/retell%00", "/retell%2f", "/retell/x", "/mcp/a/b", "/mcp/a/",
        "/mcp/.", "/mcp/..", "/mcp/%2e%2e", "/mcp/a%2fb", "/mcp/..%2fadmin", "/mcp/a%5cb",
        "/mcp/..\\x", "/retell/fn", "/retell/fn/", "/retell/fn/..", "/retell/fn/.",
        "/retell/fn/a/b",
        "/retell/fn/a%20b", "/retell/fn/a%2e", "/retell/fn/caf\u00e9", "/retell/fn/a\u00b2",
        "/retell/fn/" + "a" * 129, "/llm", "/llm/", "/llm/a/b", "/api/mcp/retell", "/health",
        "/metrics", "/metrics%00", "/admin", "/%2e%2e/admin", "/x/../admin",
        "/api/mcp/retell/tools/", "/API/mcp/retell/tools",
    ],
)  # fmt: skip
def test_f18_every_other_spelling_is_not_ours(path: str) -> None:
    assert match(path) is None


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/mcp", "PUT", "POST, GET, DELETE"),
        ("/mcp/call_1f", "OPTIONS", "POST, GET, DELETE"),
        ("/api/mcp/retell/tools", "PUT", "POST"),
        ("/api/mcp/retell/health", "POST", "GET, HEAD"),
    ],
)
def test_a_path_says_which_methods_it_has(path: str, method: str, allow: str) -> None:
    route = match(path)
    assert route is not None

    with pytest.raises(Refused) as caught:
        check_method(route, method)

    assert (caught.value.status, caught.value.allow) == (405, allow)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/mcp", "POST"),
        ("/mcp/call_1f", "GET"),
        ("/mcp", "DELETE"),
        ("/api/mcp/retell/health", "HEAD"),
        ("/retell/fn/a", "DELETE"),
    ],
)
def test_methods_of_use_pass(path: str, method: str) -> None:
    route = match(path)
    assert route is not None

    check_method(route, method)


@pytest.mark.parametrize(
    "path",
    [
        *OURS,
        "/api/mcp/retell/health",
        "/mcp/anything",
        "/mcp/any/thing",
        "/retell/fn/book",
        "/llm/call_1f",
        "/retell/",
        "/retell//",
        "//retell",
        "/./retell",
        "/x/../retell",
        "/../retell",
        "/x/%2e%2e/retell",
        "/x/%2E%2e%2fretell",
        "/%72etell",
        "/%2572etell",
        "/RETELL",
        "/rete%4cl",
        "/retell;v=1",
        "/;/retell",
        "/x/..;/retell",
        "\\retell",
        "/x\\..\\retell",
        "/retell%3Fx",
        "/retell%23x",
        "/retell%00",
        "/retell%00.html",
        "/retell%0a",
        "/%E2%84%AAmcp%00",
        "/" + quote("retell" * 1).replace("r", "%252525252525252572"),
        "/hooks/retell",
        "/HOOKS//retell/",
        "/app/fn/book",
        "/app/fn/BOOK%20x",
        "/app/do-book.PHP",
        "/caf%c3%a9",
        "/CAF%C3%89",
        "/index.php/hooks/retell",
        "/INDEX.PHP/api/retell/webhook-simple",
        "/sub/index.php/app/fn/book",
        "/a.php/b.php/mcp/call_1f",
        "/hooks/retell/index.php",
        "/hooks/index.php/retell",
        "/hooks/retell.json",
        "/hooks/retell%20",
        "/hooks%20/retell.",
        "/hooks/retell%2e.",
        "/hooks/retell%C2%A0",
        "/%c0%af/hooks/retell",
        "/%ff",
        "/%ef%bc%8fhooks/retell",
        "/hooks%ef%bc%8fretell",
        "/%ef%bc%a8ooks/retell",
        "/hooks/%ef%bc%8572etell",
        "/x/%e2%80%a5/hooks/retell",
        "/hooks/retell%u002f",
        "/hooks/%25u0072etell",
        "/hooks/retell%c2%85",
        "/api/retell/webhook-simple%e2%80%8b",
        "/hooks/re%c2%adtell",
        "/front/hook",
    ],
)
def test_nothing_of_ours_can_be_reached_around_us(path: str) -> None:
    assert is_ours_in_disguise(path, BACKENDS)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/index.html",
        "/retellx",
        "/x/retell",
        "/retell/fn",
        "/api",
        "/llm",
        "/hooks",
        "/hooks/retell/x",
        "/app/fn",
        "/app/fn/a/b",
        "/app/do-book.txt",
        "/app/undo-book.php",
        "/100%25",
        "/100%",
        "/a%20b",
        "/index.php",
        "/index.php/hooks",
        "/index.php/caf%C3%A9s",
        "/hooks.retell",
        "/.hooks/retell",
        "/%e6%97%a5%e6%9c%ac",
        "/one",
        "/100%25users",
    ],
)
def test_other_pages_are_nobodys_disguise(path: str) -> None:
    assert not is_ours_in_disguise(path, BACKENDS)


def test_a_path_that_hides_in_many_layers_is_hostile() -> None:
    assert is_ours_in_disguise("/%" + "25" * 20 + "72", [])


def _alter(path: str, how: list[int]) -> str:
    spelled = []
    for place, character in enumerate(path):
        choice = how[place % len(how)]
        if choice == 1:
            character = f"%{ord(character):02x}"
        elif choice == 2:
            character = character.upper()
        elif choice == 3 and character == "/":
            character = "//./x/../"
        spelled.append(character)
    return "/" + "".join(spelled)[1:] if spelled[0] == "/" else "/" + "".join(spelled)


@given(st.sampled_from([*OURS, "/hooks/retell"]), st.lists(st.integers(0, 3), min_size=1))
def test_any_mixture_of_spellings_is_seen_through(path: str, how: list[int]) -> None:
    assert is_ours_in_disguise(_alter(path, how), BACKENDS)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
def test_any_path_has_an_answer(path: str) -> None:
    route = match("/" + path)

    if route is not None:
        assert is_ours_in_disguise("/" + path, [])
    is_ours_in_disguise("/" + path, BACKENDS)


@given(st.text(max_size=130))
def test_a_tool_in_a_path_is_plain_ascii(text: str) -> None:
    if is_tool_segment(text):
        assert quote(text, safe="") == text
        assert len(text) <= 128
