"""callsplit as the client under test: `python -m tests.mcp.suite_client URL`.

The suite starts it with the address of a server of its own.  A sidecar takes that for its MCP arm,
and Retell's functions are what makes it call tools there.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.mcp import suite_rig

CALLS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "tools_call": [("add_numbers", {"a": 5, "b": 3})],
    "sse-retry": [("test_reconnection", {})],
    "http-standard-headers": [("test_headers", {}), ("my-hyphenated-tool", {})],
    "http-invalid-tool-headers": [
        ("valid_tool", {"region": "eu"}),
        ("invalid_empty_header", {"value": "x"}),
        ("invalid_object_header", {"data": {}}),
        ("invalid_array_header", {"items": ["x"]}),
        ("invalid_null_header", {"nil": None}),
        ("invalid_number_header", {"score": 1.5}),
        ("invalid_duplicate_same_case", {"field1": "x", "field2": "y"}),
        ("invalid_duplicate_diff_case", {"field1": "x", "field2": "y"}),
        ("invalid_space_in_name", {"value": "x"}),
        ("invalid_colon_in_name", {"value": "x"}),
        ("invalid_non_ascii_name", {"value": "x"}),
        ("invalid_control_char_name", {"value": "x"}),
    ],
}
"""The tools that an agent calls, by scenario; broken ones too, whom the sidecar must not call."""


PATIENCE = 2.0
"""Seconds for the sidecar to learn the server's tools."""


def calls() -> list[tuple[str, dict[str, Any]]]:
    """What the scenario asks for in its context, or what we know of it, or anything."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    told = [(call["name"], call["arguments"]) for call in context.get("toolCalls", [])]
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    return told or CALLS.get(scenario, [("any_tool", {})])


def await_catalogue(log: Path) -> None:
    """Return once the sidecar knows the server's tools, as a client does that calls one.

    Some servers list none; nor would they be asked twice.
    """
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if any(told["event"] == "catalogue_changed" for told in suite_rig.logged(log)):
            return
        time.sleep(0.02)


def asked(request: urllib.request.Request) -> Any:
    """The answer, whatever its status."""
    try:
        return urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as answer:
        return answer


def main() -> int:
    """Call every tool once, one after the other."""
    server = urllib.parse.urlsplit(sys.argv[-1])
    url = server._replace(path=server.path or "/").geturl()  # Without one, the caller's is kept.
    with (
        tempfile.TemporaryDirectory(prefix="callsplit-conformance-") as folder,
        suite_rig.sidecar(Path(folder), url) as mcp,
    ):
        await_catalogue(Path(folder, "sidecar.err"))
        retell = mcp.partition("/mcp/")[0] + "/retell"
        for tool, arguments in calls():
            about = {"call_id": suite_rig.CALL_ID}
            body = json.dumps({"name": tool, "args": arguments, "call": about}).encode()
            headers = {"content-type": "application/json"}
            with asked(urllib.request.Request(retell, body, headers)) as answer:
                print(tool, answer.status, answer.read().decode())
        print(Path(folder, "sidecar.err").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
