"""A store that fails, waits or tells as a test says: what goes wrong, and when, is a line of the test."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from runglass.errors import StoreError
from runglass.store.sqlite.store import SqliteStore

LONGEST_S = 60.0
"""How long a test in another thread waits for a call at most, where there never is one."""
DIED = "the process has died"

Method = Callable[..., Awaitable[Any]]
Act = Callable[[Method, "Call"], Awaitable[Any]]


class Call:
    """A call of a method: what it was given, and what it raised, once it has."""

    def __init__(self, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.args = args
        self.named = named
        self.error: Exception | None = None


class Held:
    """Calls that wait until they are let go, each behind the one before it."""

    def __init__(self) -> None:
        self._reached: Future[None] = Future()
        self._opened: Future[None] = Future()
        self._line = asyncio.Lock()

    async def reached(self) -> None:
        """Returns when the first of them waits."""
        await asyncio.shield(asyncio.wrap_future(self._reached))

    def until_reached(self) -> None:
        """As `reached`, for a test in another thread than the store's."""
        self._reached.result(LONGEST_S)

    def let_go(self) -> None:
        """From now on nothing waits; from any thread."""
        self._opened.set_result(None)

    async def wait(self) -> None:
        if not self._reached.done():
            self._reached.set_result(None)
        async with self._line:
            await asyncio.shield(asyncio.wrap_future(self._opened))


class _Line:
    """What is to become of some calls of a method, from the first that it is for on."""

    def __init__(self, act: Act, when: Any, nth: int, times: float) -> None:
        self.act = act
        self._when = when
        self._before = nth - 1
        self._left = times
        self._has_begun = False

    def takes(self, call: Call) -> bool:
        """Whether it is for this call, which counts."""
        if not self._has_begun:
            if self._when is not None and not self._when(*call.args, **call.named):
                return False
            if self._before > 0:
                self._before -= 1
                return False
            self._has_begun = True
        self._left -= 1
        return self._left >= 0


class FaultyStore:
    """Stands before the methods of any store, also of one that is in use, until the end of its block; as well
    before those of another part of a process, such as its checks.

    Each line of the script is for the calls of one method from the `nth` on of which `when` is true, and for
    all behind that, `times` in all; of several lines for a call the newest counts. Without a line for it a
    call is made as ever.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._lines: dict[str, list[_Line]] = defaultdict(list)
        self._calls: dict[str, list[Call]] = {}
        self.has_died = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for name in self._calls:
            delattr(self._store, name)
        self._calls.clear()

    def fail(
        self,
        method: str,
        error: Exception,
        *,
        when: Callable[..., object] | None = None,
        nth: int = 1,
        times: float = math.inf,
        commits: bool = False,
    ) -> None:
        """The calls raise `error`, as if nothing was stored, or, if it `commits`, once it is."""

        async def act(make: Method, call: Call) -> Any:
            if commits:
                await make(*call.args, **call.named)
            raise error

        self._add(method, act, when, nth, times)

    def answer(self, method: str, value: object, *, times: float = math.inf) -> None:
        """The calls get this value, and are not made."""

        async def act(make: Method, call: Call) -> object:
            return value

        self._add(method, act, times=times)

    def hold(
        self,
        method: str,
        *,
        when: Callable[..., object] | None = None,
        nth: int = 1,
        times: float = math.inf,
        answered: bool = False,
        error: Exception | None = None,
    ) -> Held:
        """The calls wait before they are made, or `answered`, with what was read; then they go on or fail."""
        held = Held()

        async def act(make: Method, call: Call) -> Any:
            found = await make(*call.args, **call.named) if answered else None
            await held.wait()
            if error is not None:
                raise error
            return found if answered else await make(*call.args, **call.named)

        self._add(method, act, when, nth, times)
        return held

    def before(self, method: str, happen: Callable[..., Any]) -> None:
        """Something happens before each call, which is given what the call is."""

        async def act(make: Method, call: Call) -> Any:
            await _happened(happen(*call.args, **call.named))
            return await make(*call.args, **call.named)

        self._add(method, act)

    def after(
        self, method: str, happen: Callable[..., Any], *, times: float = math.inf, replaces: bool = False
    ) -> None:
        """Something happens to each answer before it is given; what comes of that `replaces` it, or not."""

        async def act(make: Method, call: Call) -> Any:
            found = await make(*call.args, **call.named)
            other = await _happened(happen(found))
            return other if replaces else found

        self._add(method, act, times=times)

    def calls(self, method: str) -> list[Call]:
        """All calls from now on, a list that grows."""
        self._stand_before(method)
        return self._calls[method]

    def die(self, *, at_append: int | None = None, commits: bool = False) -> None:
        """The process of the store dies: now, or at an append, just before its commit or just after."""
        is_dying = False

        async def last_append(make: Method, call: Call) -> None:
            nonlocal is_dying
            is_first, is_dying = not is_dying, True
            if is_first and commits:
                await make(*call.args, **call.named)
            self.has_died = True
            raise StoreError(DIED)

        self._add("append", last_append, nth=at_append or 1)
        self.fail("end_lease", StoreError(DIED), when=lambda owner: self.has_died and owner is not None)
        self.has_died |= at_append is None

    def mend(self, method: str) -> None:
        """Calls of the method are made as ever again."""
        self._lines[method].clear()

    def _add(self, method: str, act: Act, when: Any = None, nth: int = 1, times: float = math.inf) -> None:
        self._stand_before(method)
        self._lines[method].insert(0, _Line(act, when, nth, times))

    def _stand_before(self, name: str) -> None:
        if name in self._calls:
            return
        calls = self._calls[name] = []
        make: Method = getattr(self._store, name)

        async def method(*args: Any, **named: Any) -> Any:
            call = Call(args, named)
            calls.append(call)
            line = next((each for each in self._lines[name] if each.takes(call)), None)
            try:
                return await (make(*args, **named) if line is None else line.act(make, call))
            except Exception as error:
                call.error = error
                raise

        setattr(self._store, name, method)


async def _happened(what: Any) -> Any:
    return await what if isinstance(what, Awaitable) else what


class ReplacedStore(SqliteStore):
    """Keeps what is noted of losses, as PostgreSQL does; `generation` is the test's to raise."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, synchronous="NORMAL")
        self.lost: dict[str, int] = {}

    async def note_setback(self, run_id: str, project_id: int, *, had: int) -> None:
        self.lost[run_id] = had
