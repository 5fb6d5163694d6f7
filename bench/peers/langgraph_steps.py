"""No-op steps in LangGraph with its SQLite checkpointer, each durable before the next one begins.

`python -m bench.peers.langgraph_steps FOLDER NORMAL|FULL`
"""

import sqlite3
import sys
import time
from pathlib import Path
from typing import TypedDict
from uuid import uuid4

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

from bench.answering import Message, answer


class State(TypedDict):
    done: int
    steps: int


def work(state: State) -> dict[str, int]:
    return {"done": state["done"] + 1}


def following(state: State) -> str:
    return "work" if state["done"] < state["steps"] else END


def main() -> None:
    folder, synchronous = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir()
    database = folder / "checkpoints.db"
    connection = sqlite3.connect(database, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    graph = StateGraph(State)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_conditional_edges("work", following)
    compiled = graph.compile(checkpointer=SqliteSaver(connection))

    def measure(message: Message) -> Message:
        steps = message["steps"]
        before = _size(connection, database)
        began_s = time.perf_counter()
        final = compiled.invoke(
            {"done": 0, "steps": steps},
            {"configurable": {"thread_id": str(uuid4())}, "recursion_limit": steps + 10},
            durability="sync",
        )
        spent_ms = (time.perf_counter() - began_s) * 1000
        if final["done"] != steps:
            raise ValueError(f"{final['done']} of {steps} steps were done")
        return {"ms": spent_ms, "bytes_per_step": (_size(connection, database) - before) / steps}

    answer(measure)


def _size(connection: sqlite3.Connection, database: Path) -> int:
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return database.stat().st_size


if __name__ == "__main__":
    main()
