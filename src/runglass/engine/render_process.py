"""The other end of `rendering`: a template to that process and its answer back, within bounds of time.

Knows nothing of what templates are; it may be used by one thread at a time.
"""

import msgspec

from runglass.engine.rendering import Answer, Ask
from runglass.engine.worker_process import WorkerDied, WorkerProcess

_ANSWER_LIMIT_S = 10.0
"""Of wall-clock time, for a process that is stuck; what a template may compute is limited inside."""


class RenderProcess(WorkerProcess):
    """A process for templates: started when first asked, and again after a template took it down."""

    def __init__(self) -> None:
        super().__init__("runglass.engine.rendering", what="templates")
        self._decoder = msgspec.json.Decoder(Answer)

    def ask(self, ask: Ask) -> Answer:
        try:
            answer = self.exchange(msgspec.json.encode(ask), limit_s=_ANSWER_LIMIT_S)
        except WorkerDied:
            return Answer(fault="the template takes too much memory or time")
        return self._decoder.decode(answer)
