"""What has to come of every fault: written by hand from the table of failures, never computed.

A cell says who answered and what reached the two arms: `B 1+1` = the second arm answered after one
delivery to each.  Instead of an arm (`A` is the first) it may name the last answer: `say` (nothing
ran), `pending` (it may have run), `503` (an event, to be sent again), `{}` (an inbound call that
goes to the number's own agent).
"""

from __future__ import annotations

from dataclasses import dataclass

TOOLS = ("read", "idempotent", "write")
SUBJECTS = (*TOOLS, "event", "inbound")

BETWEEN_TWO_WEBHOOKS = """
one arm              | read    | idempotent  | write       | event   | inbound
refuse               | B 0+1   | B 0+1       | B 0+1       | B 0+1   | B 0+1
reset before reading | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
reset after reading  | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
freeze               | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
slow drip            | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
cut mid-headers      | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
cut mid-body         | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
garbage              | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
surplus bytes        | A 1+0   | A 1+0       | A 1+0       | A 1+0   | A 1+0
500                  | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
502                  | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
503 retry-after      | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
429                  | B 1+1   | B 1+1       | pending 1+0 | B 1+1   | B 1+1
200 with failure     | B 1+1   | B 1+1       | pending 1+0 | A 1+0   | B 1+1
business no          | A 1+0   | A 1+0       | A 1+0       | A 1+0   | A 1+0

both arms            | read    | idempotent  | write       | event   | inbound
refuse               | say 0+0 | say 0+0     | say 0+0     | 503 0+0 | {} 0+0
reset before reading | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
reset after reading  | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
freeze               | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
slow drip            | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
cut mid-headers      | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
cut mid-body         | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
garbage              | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
surplus bytes        | A 1+0   | A 1+0       | A 1+0       | A 1+0   | A 1+0
500                  | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
502                  | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
503 retry-after      | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
429                  | say 1+1 | pending 1+1 | pending 1+0 | 503 1+1 | {} 1+1
200 with failure     | say 1+1 | pending 1+1 | pending 1+0 | A 1+0   | {} 1+1
business no          | A 1+0   | A 1+0       | A 1+0       | A 1+0   | A 1+0
"""
"""Both arms take every kind, so events and inbound go with their call, and are rescued."""

FROM_MCP_TO_A_WEBHOOK = """
one arm              | read    | idempotent  | write       | event   | inbound
refuse               | B 0+1   | B 0+1       | B 0+1       | B 0+1   | B 0+1
reset before reading | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
reset after reading  | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
freeze               | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
slow drip            | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
cut mid-headers      | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
cut mid-body         | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
garbage              | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
surplus bytes        | A 1+0   | A 1+0       | A 1+0       | B 0+1   | B 0+1
500                  | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
502                  | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
503 retry-after      | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
429                  | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
200 with failure     | B 1+1   | B 1+1       | pending 1+0 | B 0+1   | B 0+1
business no          | A 1+0   | A 1+0       | A 1+0       | B 0+1   | B 0+1

both arms            | read    | idempotent  | write       | event   | inbound
refuse               | say 0+0 | say 0+0     | say 0+0     | 503 0+0 | {} 0+0
reset before reading | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
reset after reading  | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
freeze               | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
slow drip            | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
cut mid-headers      | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
cut mid-body         | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
garbage              | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
surplus bytes        | A 1+0   | A 1+0       | A 1+0       | B 0+1   | B 0+1
500                  | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
502                  | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
503 retry-after      | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
429                  | say 1+1 | pending 1+1 | pending 1+0 | 503 0+1 | {} 0+1
200 with failure     | say 1+1 | pending 1+1 | pending 1+0 | B 0+1   | {} 0+1
business no          | A 1+0   | A 1+0       | A 1+0       | B 0+1   | B 0+1
"""
"""Events and inbound are the webhook's by nature: the faults of the first arm are none of theirs,
and nobody else could answer them."""

REPEATED_WRITES = """
one arm              | other id       | retry          | twin
refuse               | B 0+1 again    | B 0+1 again    | B 0+1 again
reset before reading | pending 1+0    | pending 1+0    | pending 1+0
reset after reading  | pending 1+0    | pending 1+0    | pending 1+0
freeze               | pending 1+0    | pending 1+0    | pending 1+0
slow drip            | pending 1+0    | pending 1+0    | pending 1+0
cut mid-headers      | pending 1+0    | pending 1+0    | pending 1+0
cut mid-body         | pending 1+0    | pending 1+0    | pending 1+0
garbage              | pending 1+0    | pending 1+0    | pending 1+0
surplus bytes        | A 1+0 again    | A 1+0 again    | A 1+0 again
500                  | pending 1+0    | pending 1+0    | pending 1+0
502                  | pending 1+0    | pending 1+0    | pending 1+0
503 retry-after      | pending 1+0    | pending 1+0    | pending 1+0
429                  | pending 1+0    | pending 1+0    | pending 1+0
200 with failure     | pending 1+0    | pending 1+0    | pending 1+0
business no          | A 2+0          | A 1+0 again    | A 1+0 again

both arms            | other id       | retry          | twin
refuse               | say 0+0        | say 0+0        | say 0+0
reset before reading | pending 1+0    | pending 1+0    | pending 1+0
reset after reading  | pending 1+0    | pending 1+0    | pending 1+0
freeze               | pending 1+0    | pending 1+0    | pending 1+0
slow drip            | pending 1+0    | pending 1+0    | pending 1+0
cut mid-headers      | pending 1+0    | pending 1+0    | pending 1+0
cut mid-body         | pending 1+0    | pending 1+0    | pending 1+0
garbage              | pending 1+0    | pending 1+0    | pending 1+0
surplus bytes        | A 1+0 again    | A 1+0 again    | A 1+0 again
500                  | pending 1+0    | pending 1+0    | pending 1+0
502                  | pending 1+0    | pending 1+0    | pending 1+0
503 retry-after      | pending 1+0    | pending 1+0    | pending 1+0
429                  | pending 1+0    | pending 1+0    | pending 1+0
200 with failure     | pending 1+0    | pending 1+0    | pending 1+0
business no          | A 2+0          | A 1+0 again    | A 1+0 again
"""
"""A write asked for twice: what the second one hears, and what has reached the arms by then.

`other id`: the agent asks again with another tool_call_id.  `retry`: Retell sends the same bytes
again.  `twin`: the same bytes while the first are still under way.  `again`: the answer is marked
as a repeat of the first.  A business no holds for its own tool_call_id only: nothing was booked, so
the agent may try once more.
"""


@dataclass(frozen=True, order=True)
class Cell:
    """`heard` is A, B, or the last answer's word; the numbers are deliveries to each arm."""

    heard: str
    first: int
    second: int
    again: bool = False

    @classmethod
    def read(cls, text: str) -> Cell:
        heard, counts, *again = text.split()
        first, second = counts.split("+")
        return cls(heard, int(first), int(second), bool(again))

    def __str__(self) -> str:
        again = " again" if self.again else ""
        return f"{self.heard} {self.first}+{self.second}{again}"


Table = dict[tuple[str, str, bool], Cell]
"""By fault, column, and whether both arms have the fault."""


def read(text: str) -> Table:
    """The cells of a table as it is written above."""
    cells: Table = {}
    for block in text.strip().split("\n\n"):
        (title, *columns), *rows = [
            [part.strip() for part in line.split("|")] for line in block.splitlines()
        ]
        for fault, *outcomes in rows:
            for column, outcome in zip(columns, outcomes, strict=True):
                cells[fault, column, title == "both arms"] = Cell.read(outcome)
    return cells
