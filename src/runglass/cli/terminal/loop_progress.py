"""How far the loops of a run are, fed with its events: those that are inside of no other loop.

Pure: no terminal, no clock. Memory is bounded by the steps of the flow.
"""

from collections.abc import Iterator

from runglass.log.events import LoopCompleted, LoopStarted, StepEvent, StepSkipped, StepStarted


class LoopProgress:
    """The loops of one run that go on, in the order in which they began."""

    def __init__(self) -> None:
        self._loops: dict[str, _Loop] = {}

    def add(self, event: StepEvent) -> None:
        """Takes an event in."""
        match event:
            case LoopStarted(loop_path=None):
                self._loops[event.step_id] = _Loop(event)
            case LoopCompleted(loop_path=None):
                self._loops.pop(event.step_id, None)
            case StepStarted():
                # No event says that a loop failed and the run goes on behind it.
                self._loops = {
                    step_id: loop
                    for step_id, loop in self._loops.items()
                    if loop.step_index in (None, event.step_index)
                }
                for loop in self._loops.values():
                    if loop.begin(event):
                        loop.step_index = event.step_index
            case StepSkipped():
                for loop in self._loops.values():
                    loop.begin(event)

    def going(self) -> Iterator[tuple[str, int, int]]:
        """Of each loop its id, how many of its iterations have begun, and how many there will be."""
        for step_id, loop in self._loops.items():
            yield step_id, loop.begun, loop.iterations


class _Loop:
    """A loop that goes on. `step_index` is that of the top-level step that it is or is in, once known."""

    def __init__(self, started: LoopStarted) -> None:
        self.iterations = started.iterations
        self.begun = 0
        self.step_index: int | None = None
        self._step_ids = frozenset(started.step_ids)

    def begin(self, event: StepStarted | StepSkipped) -> bool:
        """Counts the iteration that an event is of; whether it is inside of the loop."""
        if event.step_id not in self._step_ids or not event.loop_path:
            return False
        # Iterations begin in the order of their numbers.
        self.begun = max(self.begun, event.loop_path[0] + 1)
        return True
