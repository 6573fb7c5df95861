"""What must hold at the edge: one line per row, proved by the tests that are marked with its ID.

"Refused" is an answer of our own, in short JSON, of which nothing reached an arm; "cut" is such an
answer with its connection closed behind it.
"""

from __future__ import annotations

SECTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "Framing of requests": (
        "What two readers could read in two ways is not passed on.",
        {
            "F1": "Content-Length beside Transfer-Encoding, in either order, is cut",
            "F2": "Two Content-Lengths are cut, equal or not, as two fields or as a list",
            "F3": "A Content-Length that is not plain digits, or too large for any body, is cut",
            "F4": "A Transfer-Encoding other than exactly `chunked` is cut",
            "F5": "Two Transfer-Encoding fields are cut",
            "F6": "Chunks from an HTTP/1.0 caller are cut",
            "F7": "Strange bytes or blanks in a field's name, folded lines and lines without a "
            "colon are cut",
            "F8": "A bare CR or LF in a head or between chunks is cut",
            "F9": "Control bytes in a field are refused, and never reach an arm",
            "F10": "A chunk size that is not plain hexadecimal, or data of another length, is cut; "
            "no arm gets a whole request of it",
            "F11": "Chunk extensions are dropped, and bounded in length and number; memory stays "
            "flat",
            "F12": "Trailers prove nothing, frame nothing, and do not go up as fields; they are "
            "bounded",
            "F13": "Other versions and other separators in the request line are cut",
            "F14": "A target with an authority never chooses a server: it is refused, or routed by "
            "its path alone",
            "F15": "CONNECT, TRACE, `OPTIONS *` and unknown methods are answered here",
            "F16": "A Host that is missing, repeated or no host is refused",
            "F17": "A target goes up byte for byte, or is refused",
            "F18": "No spelling of a path reaches an operator's page; the path that is routed is "
            "the path that goes up",
            "F19": "Pipelined requests are answered in order, each by its own arm; memory stays "
            "flat if nobody reads",
            "F20": "A body that looks like a request is a body",
            "F21": "Every vector through the desync oracle: no violation",
            "F22": "Http11Probe: no scored failure",
        },
    ),
    "Expect": (
        "A body is asked for once it is welcome, and only then.",
        {
            "E1": "Expect: 100-continue gets one 100, then the answer; it does not go up",
            "E2": "Any other expectation is refused with 417",
            "E3": "Whoever may not ask, or declares too much, hears so at once, without a 100",
            "E4": "An arm's answer before it has the body is relayed; that connection is not used "
            "again, and no byte of the body is read as a request",
            "E5": "HTTP/1.0 gets no 1xx",
        },
    ),
    "Answers of an arm": (
        "An arm is not trusted with a caller's connection: an answer goes down whole and well "
        "formed, or it is the arm's failure.",
        {
            "R1": "Doubtful framing is a failure of the arm, counted, its connection closed",
            "R2": "Folded or malformed fields and control bytes are a failure of the arm; the "
            "caller hears a whole answer",
            "R3": "Bytes above 0x7F in a field pass unchanged, both ways, or are refused",
            "R4": "A 101 that nobody asked for is a failure of the arm",
            "R5": "Interim answers are skipped; a flood of them is a failure of the arm",
            "R6": "HEAD, 204 and 304 have no body whatever they declare, and spoil no connection",
            "R7": "An answer shorter than it declared never ends cleanly",
            "R8": "Chunks without the last one never end cleanly",
            "R9": "Bytes behind a good answer cost the connection, not the answer; no tool runs "
            "twice",
            "R10": "A second answer to one request reaches nobody",
            "R11": "A head too long, or with too many fields, is a failure of the arm; memory "
            "stays flat",
            "R12": "An endless body, or readers that do not keep up, cost no memory; a time limit "
            "ends them",
            "R13": "Encodings are not touched, in the body or in Accept-Encoding",
            "R14": "No field is invented, merged or doubled, and none names our software",
            "R15": "A redirect is relayed, not followed",
            "R16": "A status line that is none is a failure of the arm; a missing reason is fine",
        },
    ),
    "Headers": (
        "What was meant for one leg ends with it, and nobody speaks in our name.",
        {
            "H1": "What Connection names is dropped, both ways",
            "H2": "Connection cannot name away what proves, frames or identifies a request",
            "H3": "Hop-by-hop fields do not go up",
            "H4": "Asking for an upgrade that is not offered opens no tunnel",
            "H5": "Addresses are believed from trusted proxies only, the right one of them, and "
            "garbage fails nothing",
            "H6": "Other forwarding fields are rewritten or dropped",
            "H7": "Our own fields from outside are dropped and choose nothing",
        },
    ),
    "Who may ask": (
        "Whoever proves nothing reaches nothing, and learns nothing.",
        {
            "A1": "A token that is missing, malformed or wrong in any way is refused with the one "
            "answer",
            "A2": "Tokens rotate by reload, and no valid request fails",
            "A3": "How long a refusal takes says nothing about the token",
            "A4": "Signatures hold over the raw bytes, and for no other byte",
            "A5": "Signatures hold for their time only; a repeat is treated as the policy says, "
            "and counted",
            "A6": "Malformed signatures are refused, never a failure of ours",
            "A7": "A strange address is refused before its body is read",
            "A8": "No secret and no caller's data shows in logs, metrics, pages or errors",
            "A9": "Operators' pages stand on their own listener, with its address, token, Host and "
            "method checked",
            "A10": "Operators' changes are bounded, checked, in a defined order, and told in a "
            "line each",
        },
    ),
    "How much": (
        "Nobody can make it hold much, or wait long.",
        {
            "L1": "A declared size over the limit is refused from the head",
            "L2": "Chunks over the limit are refused on crossing it",
            "L3": "A body of exactly the limit passes unchanged",
            "L4": "A compressed bomb is not opened",
            "L5": "Heads with too long or too many fields, and endless targets or methods, are cut",
            "L6": "A head that drips, or does not come, has a time limit in all",
            "L7": "A body that drips, or does not come, has a time limit; nothing of it reaches an "
            "arm",
            "L8": "An idle connection is closed in time, and no request is lost by it",
            "L9": "A caller who does not read has a time limit, and frees the arm's connection",
            "L10": "Thousands of idle connections hold up nobody",
            "L11": "Exactly as many as the rate allows are let in, also across the minute",
            "L12": "Invented addresses and IDs grow nothing without bound",
            "L13": "Hundreds of thousands of tiny chunks are read in one pass",
        },
    ),
    "What is told": (
        "Logs, metrics and errors are for operators, and safe in their tools.",
        {
            "O1": "Whatever a caller writes, an event is one valid line, and bounded",
            "O2": "Invented tools are one series",
            "O3": "Every exchange is counted and told exactly once",
            "O4": "Every error is short JSON with the request's ID: no echo, no stack, no version",
        },
    ),
    "Restarts": (
        "A process that ends takes no call with it.",
        {
            "Z1": "Rolling restarts under kept connections lose no request",
            "Z2": "SIGTERM lets what runs finish; a second one is in a hurry",
            "Z4": "A draining sidecar is not ready but alive, and tells its callers to go",
            "Z5": "What waits in the accept queue of a leaving process is not reset",
        },
    ),
}

ROWS = {row: text for _, rows in SECTIONS.values() for row, text in rows.items()}
