"""The other end of `children.py`: a process that does one piece of work per line of JSON on its stdin.

Peers run it with their own interpreter, so it needs nothing but the standard library.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]


def answer(work: Callable[[Message], Message]) -> None:
    """Answers every line until stdin ends. What anything else prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        replies.write(json.dumps(work(json.loads(line))) + "\n")
        replies.flush()
