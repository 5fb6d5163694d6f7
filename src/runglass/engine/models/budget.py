"""The rest of a project's budget, and how a request to a model takes its part of it before it is made.

A reservation is an event of its run: the store has it before the request goes out, so a process that dies
loses none. Between the decision and the store's word that it has it, the store holds that part.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from uuid import UUID, uuid4

from runglass.engine.journal.run_writer import RunWriter
from runglass.errors import StoreError
from runglass.limits.slots import Readings
from runglass.log.money import ZERO, format_usd, subtract_usd
from runglass.store.base import Store
from runglass.store.records import Project, RunRecord
from runglass.support.clock import Clock

log = logging.getLogger(__name__)

HELD_S, HOLD_POLL_S = 2.0, 0.02
"""So long a request waits for parts of the budget that other processes hold, and so often it asks."""
LOOK_S = 1.0
"""How often a run looks whether a budget has been set since. One that is set is asked before each step."""


class BudgetExceeded(Exception):
    """A reservation is larger than what is left of the budget; `str` says both."""


class Budgets:
    """The budgets of all projects, as the runs of all processes on the store share them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self.clock = clock
        self._deciding: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.projects = Readings(lambda project_id: store.project(project_id))
        """Each as it stands from then on."""
        self._holds: set[UUID] = set()
        self._releasing: set[asyncio.Future[None]] = set()

    async def of_run(self, project_id: int, writer: RunWriter) -> "RunBudget | None":
        """The budget as a run asks for it; None where the project is gone. Raises StoreError."""
        project = await self.projects.read(project_id)
        return None if project is None else RunBudget(self, project, writer)

    @asynccontextmanager
    async def reserved(self, run: RunRecord, usd: Decimal) -> AsyncIterator[None]:
        """Inside of the block no other request gets this part; at its end the store must have it.

        Raises BudgetExceeded, and StoreError.
        """
        now_s = asyncio.get_running_loop().time
        hold, until_s = uuid4(), now_s() + HELD_S
        earlier: set[UUID] = set()
        try:
            while True:
                # The store decides one after the other as well: each that waited there would take a
                # connection, and a hundred calls of a project all of them.
                async with self._deciding[run.project_id]:
                    decision = await self._store.hold_budget(hold, run, usd)
                if decision.has_room_for(usd):
                    break
                # Of this process each is known to be still on its way, however long the store takes.
                earlier = earlier or self._holds.copy()
                if not decision.held_usd or (now_s() > until_s and self._holds.isdisjoint(earlier)):
                    assert decision.project is not None
                    raise BudgetExceeded(_refusal(decision.project, usd))
                # What others hold is stored in a moment, or given back; until then some of it counts twice.
                await asyncio.sleep(HOLD_POLL_S)
            self._holds.add(hold)
            yield
        finally:
            # Also where the step is cut off, be it while the store decides: the run may go on for long, and
            # with it the hold.
            releasing = asyncio.ensure_future(self._release(hold))
            self._releasing.add(releasing)
            releasing.add_done_callback(self._releasing.discard)
            await asyncio.shield(releasing)

    async def _release(self, hold: UUID) -> None:
        try:
            await self._store.release_budget(hold)
        except StoreError as error:
            log.warning("a part of a budget is held until its run ends or is taken over: %s", error)
        finally:
            self._holds.discard(hold)


class RunBudget:
    """The budget of a project as one of its runs asks for it; there may be none yet."""

    def __init__(self, budgets: Budgets, project: Project, writer: RunWriter) -> None:
        self._budgets = budgets
        self._project_id = project.id
        self._writer = writer
        self._is_set = project.budget_usd is not None
        self._now_s = budgets.clock.monotonic_s
        self._looked_at_s = self._now_s()

    async def is_set(self) -> bool:
        """Whether there is a budget: a run that goes on for long may be given one. Raises StoreError."""
        if not self._is_set and self._now_s() - self._looked_at_s >= LOOK_S:
            await self._project()
        return self._is_set

    async def has_credit(self) -> bool:
        """Whether anything is left, this run's own spending included. Raises StoreError."""
        if not await self.is_set():
            return True
        # What the step before has spent must be in the store before that is asked.
        await self._writer.commit()
        project = await self._project()
        return project is None or not project.is_spent

    async def _project(self) -> Project | None:
        self._looked_at_s = self._now_s()
        try:
            project = await self._budgets.projects.read(self._project_id)
        except StoreError as error:
            # What is cut off by this goes on later: nothing may say that it was lost.
            self._writer.fail(error)
            raise
        self._is_set = project is not None and project.budget_usd is not None
        return project

    @asynccontextmanager
    async def reserved(self, usd: Decimal) -> AsyncIterator[None]:
        """As `Budgets.reserved`: the block records the reservation, which is stored at its end."""
        try:
            async with self._budgets.reserved(self._writer.run, usd):
                yield
                await self._writer.commit()
        except StoreError as error:
            self._writer.fail(error)
            raise


def _refusal(project: Project, usd: Decimal) -> str:
    assert project.budget_usd is not None
    held = f", of which ${format_usd(project.reserved_usd)} is reserved for active calls" * bool(
        project.reserved_usd
    )
    left = format_usd(max(ZERO, subtract_usd(project.budget_usd, project.spent_usd)))
    return (
        f"the model call may cost up to ${format_usd(usd)}, and of the project's budget of"
        f" ${format_usd(project.budget_usd)} only ${left} is left{held}; a lower `max_tokens` needs less, and"
        " an administrator of the server can raise the budget (`runglass projects budget`)"
    )
