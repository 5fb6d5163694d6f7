"""From the start of the server's process to its first answer on existing data, and what it then holds."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.children import server
from bench.listed import Listed, make_listed
from bench.measuring import Side, side_by_side
from bench.memory import tree_memory
from bench.raw import KeptConnection, request
from bench.rows import Goal, Row
from bench.stage import Stage, serve

PEER = "phoenix"


def rows(stage: Stage) -> Iterator[Row]:
    held: dict[str, list[float]] = {"ours": [], "limit": [], PEER: []}
    with ExitStack() as stack:
        listed = make_listed(stack.enter_context(stage.new_folder()), stage.sizes.listed_runs)
        folder = stack.enter_context(stage.new_folder())
        (folder / "trace").write_bytes(b"{}")
        peer = stage.phoenix
        sides: dict[str, Side] = {
            "ours": lambda: _ours_s(listed, held["ours"]),
            "limit": lambda: _bare_s(folder, held["limit"]),
        }
        if peer is not None:
            peer.ask(do="write", spans=stage.sizes.written_steps)

            def theirs() -> float:
                spent_s = float(peer.ask(do="start")["s"])
                held[PEER].append(peer.ask(do="memory")["mb"])
                return spent_s

            sides[PEER] = theirs
        found = side_by_side(sides, rounds=stage.sizes.rounds, warm_ups=0)
    yield Row(
        figure=f"start of the server to its first answer, {stage.sizes.listed_runs:,} runs there",
        unit="s",
        ours=found["ours"],
        limit=found["limit"],
        peers={PEER: found.get(PEER, ())},
        goal=Goal(at=1.5, of_limit=2.5),
    )
    yield Row(
        figure="memory of the idle server and its processes",
        unit="MB",
        ours=held["ours"],
        limit=held["limit"],
        peers={PEER: held[PEER]},
        goal=Goal(at=90, of_limit=2),
        note="after its first answer; what its processes share is counted once",
    )


def _ours_s(listed: Listed, held: list[float]) -> float:
    began_s = time.perf_counter()
    with serve(listed.folder) as started:
        _answered(started.address, f"/api/v1/flow-runs/{listed.run_id}/trace", listed.key)
        spent_s = time.perf_counter() - began_s
        held.append(tree_memory(started.pid) / 1e6)
    return spent_s


def _bare_s(folder: Path, held: list[float]) -> float:
    began_s = time.perf_counter()
    with server("bench.workers.bare", folder) as started:
        _answered(started.address, "/trace", "")
        spent_s = time.perf_counter() - began_s
        held.append(tree_memory(started.pid) / 1e6)
    return spent_s


def _answered(address: str, target: str, key: str) -> None:
    connection = KeptConnection(address)
    connection.get(request(target, key))
    connection.close()
