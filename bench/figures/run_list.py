"""Listing runs: a page must cost the same whether there are a hundred or a million."""

import base64
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from bench.listed import make_listed
from bench.measuring import side_by_side, took_ms
from bench.raw import KeptConnection, request
from bench.rows import Goal, Row
from bench.stage import Stage, serve

FEW = 200
PAGES = {"newest": "?limit=20", "failed ones": "?limit=2&status=failed"}


def rows(stage: Stage) -> Iterator[Row]:
    calls = stage.sizes.calls
    with ExitStack() as stack:
        sides = {}
        for name, runs in (("few", FEW), ("many", stage.sizes.listed_runs)):
            listed = make_listed(stack.enter_context(stage.new_folder()), runs)
            address = stack.enter_context(serve(listed.folder)).address
            connection = KeptConnection(address)
            stack.callback(connection.close)
            wires = {page: request(f"/api/v1/flow-runs{query}", listed.key) for page, query in PAGES.items()}
            wires["from the middle"] = request(_after(listed.middle), listed.key)
            for page, wire in wires.items():
                sides[name, page] = (connection, wire)
        found = side_by_side(
            {
                f"{name} {page}": lambda connection=connection, wire=wire: median(  # type: ignore[misc]
                    [took_ms(lambda: connection.get(wire)) for _ in range(calls)]
                )
                for (name, page), (connection, wire) in sides.items()
            },
            rounds=stage.sizes.rounds,
        )
    for page in (*PAGES, "from the middle"):
        many, few = found[f"many {page}"], median(found[f"few {page}"])
        yield Row(
            figure=f"list runs, {page}: of {stage.sizes.listed_runs:,} against {FEW}",
            unit="x",
            ours=[spent / few for spent in many],
            goal=Goal(at=1.2),
            note=f"a page of {stage.sizes.listed_runs:,} takes {median(many):.2f} ms",
        )


def _after(run_id: str) -> str:
    """The page after a run, as the server spells its cursors."""
    cursor = base64.urlsafe_b64encode(uuid.UUID(run_id).bytes).rstrip(b"=").decode()
    return f"/api/v1/flow-runs?limit=20&cursor={cursor}"
