"""callsplit: a sidecar that splits live phone calls between two backends.

Words (one word per thing, in code, logs, metrics and docs):

call        one Retell conversation or chat, known by its call ID
kind        what a request is: event, inbound, function, args, tools, mcp, llm, alert
tool        the function called inside a call
arm         one side of the split, named as its backend in the rules;
            *to* is the arm that the share fills, *otherwise* is the other
backend     the handler module that speaks an arm's language
upstream    the HTTP endpoint behind a backend
exchange    one request through the proxy
attempt     one try at one arm
run         one execution of a write by an arm
session     a legacy MCP caller's, known by a token of ours that names its arm
decision    an arm and why
verdict     how an attempt is judged
permit      a breaker's leave for one attempt
rescue      an answer that came from the other arm
hedge       a second attempt, at the other arm, beside a slow one that only reads
twin        an equal request that comes while the first is still under way
repeat      an equal request that comes after a write ran, or may have run
late        answered after its caller could wait no longer; ``linger`` is how long we wait
outbox      where events wait that no arm took: queued, until they are delivered or dead
shed        turned away because too much is under way
share       the percentage in force
rules       the YAML that ops edit
settings    what the environment fixes
override    a rule that outranks the share
kill switch the operator's "nobody to the new arm, now"
last answer what the caller gets when no arm can answer

Breaker states: ``closed`` is healthy, ``open`` is not asked, ``half_open`` is
being tried.

Map, top down; imports point down only (checked by import-linter):

cli > app > operations > outbox_desk > wiring | durable | fixed > arm_rules >
handler | admin | redelivery > hedging > attempt > once >
line | relay | cached | hedged > edge | flights | sessions > backends.registry >
backends.* > adapters > ports > backends.base > settings | core > errors

The core decides and never awaits, reads a clock, logs or touches a socket;
adapters act.  A request reads top to bottom in ``handler.py``: ``edge`` lets it
in, ``once`` knows whether it has run, ``cached`` whether its answer is kept,
``hedging`` and ``attempt`` ask the arms, ``relay`` holds what streams.  An event
that no arm takes waits in the outbox (``durable``) for ``redelivery``.
"""

__version__ = "0.1.0"
