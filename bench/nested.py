"""Long runs with nested loops, for pages that show them: most steps are no-ops, some code and model calls.

In each hundred batches the code of two is tried again, and the model call of one fails; the run goes on.
"""

from typing import Any

from runglass.wire.run_api import RunRequest

ITEMS = 20
BATCH_STEPS = 6 * ITEMS + 2
"""What a batch of items comes to."""

OUTER = "each_batch"
OF_BATCH = frozenset(
    ["each_item", "load", "clean", "measure", "weigh", "compare", "keep", "check", "summarise"]
)
"""The loop over batches, and the steps inside of it."""

_BATCHES = """
  - id: each_batch
    type: loop
    over: batches
    as: batch
    max_concurrency: 4
    steps:
      - id: each_item
        type: loop
        over: batch
        as: item
        max_concurrency: 4
        steps:
          - {id: load, type: passthrough, input: {kind: item}}
          - {id: clean, type: passthrough}
          - {id: measure, type: passthrough}
          - {id: weigh, type: passthrough}
          - {id: compare, type: passthrough}
          - {id: keep, type: passthrough}
      - id: check
        type: code
        input: {number: "{{ batch[0] }}"}
        retry: {max_attempts: 2, initial_delay_ms: 1}
        code: |
          if int(number) % 1000 == 0 and attempt == 1:
              raise ValueError("the scales are busy, ask again")
          return {"checked": True}
      - id: summarise
        type: llm
        model: echo
        prompt: "{% if batch[0] % 2000 == 20 %}{{ nothing }}{% endif %}Twenty items were measured and kept."
        on_error: continue
"""

NESTED = f"""
slug: nested
steps:{_BATCHES}"""

FOLLOWED = f"""
slug: followed
steps:{_BATCHES}
  - {{id: ready, type: passthrough, input: {{is: ready}}}}
  - id: each_wait
    type: loop
    over: initial["waits"]
    max_concurrency: 50
    steps: [{{id: wait, type: wait, ms: 100}}]
"""
"""The same, and then a loop that records a thousand events a second: five hundred waits begin and end."""
WAITS_PER_S = 500
MOST_WAITS = 60_000
"""With them a run of a million steps still has no more iterations than one may have."""


def parameters(steps: int, *, waits: int = 0) -> dict[str, Any]:
    """The inputs with which `NESTED` makes about so many steps, and `FOLLOWED` so many waits after them."""
    batches = max(1, steps // BATCH_STEPS)
    return {
        "batches": [list(range(first, first + ITEMS)) for first in range(0, batches * ITEMS, ITEMS)],
        **({"waits": list(range(waits))} if waits else {}),
    }


def request(steps: int) -> RunRequest:
    """What to ask of `NESTED` for about so many steps."""
    return RunRequest(parameters=parameters(steps))
