"""Steps of a decorated function: `python -m bench.workers.recorded URL`, of the server."""

import sys
import time
from typing import Any

from bench.answering import Message, answer
from runglass import Recorder

rec = Recorder("bench", api_key="nk_bench", base_url=sys.argv[1], spool=None)

said = ""


@rec.step
def work(messages: list[dict[str, Any]]) -> str:
    return said


def measure(message: Message) -> Message:
    """Microseconds a step, of this thread alone."""
    global said
    steps, messages, said = message["steps"], message["messages"], message["answer"]
    with rec.run("bench"):
        began_ns = time.thread_time_ns()
        for _ in range(steps):
            work(messages)
        spent_ns = time.thread_time_ns() - began_ns
    rec.flush(60)
    return {"us": spent_ns / steps / 1000}


if __name__ == "__main__":
    answer(measure)
