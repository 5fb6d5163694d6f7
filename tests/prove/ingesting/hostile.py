"""Spans that are made to do harm, or to be counted wrongly, sent to a server as by any program."""

from collections.abc import Iterable

import httpx2
from msgspec import json

from runglass.config.settings import Settings
from runglass.log.trace import RunSummary, StepTrace
from runglass.runtime.composition import open_store
from runglass.store.base import Store
from runglass.store.records import RunRecord
from tests.prove.ingesting.bodies import Sent, body, trace_id

FIRST = 1 << 100
"""Traces of this number and above are those of these attacks."""
DEEP, MODELS, BATCH = 100_000, 10_000, 5_000
NAMES = (
    "",
    " ",
    "../../etc/passwd",
    "a\0b",
    "{{ x }}",
    "<script>alert(1)</script>",
    "名" * 50_000,
    "\u202e\ufffd",
)


async def hostile_faults(http: httpx2.AsyncClient, url: str, other_key: str, settings: Settings) -> list[str]:
    """What came of them that should not have. The server is up, and `http` has a key of `acme/prove`."""
    found: list[str] = []

    async def send(spans: Iterable[Sent], **headers: str) -> bytes:
        every = list(spans)
        told = b""
        for first in range(0, len(every), BATCH):
            answer = await http.post(
                f"{url}/v1/traces", content=body(every[first : first + BATCH]), headers=headers
            )
            if answer.status_code != 200:
                found.append(f"trace {every[0].trace}: {answer.status_code} {answer.text[:300]}")
            told += answer.content
        return told

    cycle, deep, names, repeat, shared, purged, models = range(FIRST, FIRST + 7)
    await send([Sent(cycle, 1, 1), Sent(cycle, 2, 4), Sent(cycle, 3, 2), Sent(cycle, 4, 3)])
    await send(Sent(deep, number, number + 1, text="") for number in range(1, DEEP + 1))
    await send(Sent(names, number, 0, name) for number, name in enumerate(NAMES, 1))
    await send([Sent(repeat, 1, text="first")])
    await send([Sent(repeat, 1, text="the second is longer"), Sent(repeat, 1, text="third")])
    await send([Sent(shared, 1)])
    await send([Sent(shared, 2)], Authorization=f"Bearer {other_key}")
    await send([Sent(purged, 1)])
    await send(
        Sent(models, number, 0, model=f"model-{number}", prompt_tokens=7) for number in range(1, MODELS + 1)
    )
    async with open_store(settings) as store:

        async def stored(trace: int, project: str = "prove") -> RunRecord:
            project_id = (await store.ensure_project("acme", project)).id
            run = (await store.recorded_traces(project_id, [trace_id(trace)]))[trace_id(trace)].run
            assert run is not None, f"trace {trace} is not stored"
            return run

        for trace, count in (
            (cycle, 4),
            (deep, DEEP),
            (names, len(NAMES)),
            (repeat, 1),
            (shared, 1),
            (models, MODELS),
        ):
            run = await stored(trace)
            if (has := await store.last_position(run.no)) != count:
                found.append(f"trace {trace} has {has} steps and not {count}")
        recording = _summary(await stored(cycle)).recording
        if recording is None or not any("cycle" in note for note in recording.notes):
            found.append(f"no note tells of a cycle: {recording}")
        if "the second is longer" not in str((await _steps(store, await stored(repeat)))[0].input_context):
            found.append("a repeat with other content is not what its merge says")
        others = [step.span_id for step in await _steps(store, await stored(shared, "other"))]
        if others != [f"{2:016x}"]:
            found.append(f"one trace id in two projects: the second has {others}")
        totals = _summary(await stored(models)).totals
        if totals is None or totals.tokens is None or len(totals.by_model) > 101:
            found.append(f"10,000 models are told as {totals}")
        elif (totals.tokens.prompt, sum(each.calls for each in totals.by_model.values())) != (
            7 * MODELS,
            MODELS,
        ):
            found.append(f"10,000 models add up to {totals.tokens}")
        await store.purge_runs([(await stored(purged)).no])
    answer = await send([Sent(purged, 1), Sent(purged, 2)])
    if b"deleted" not in answer:
        found.append(f"spans after a purge are answered {answer!r}")
    return found


def _summary(run: RunRecord) -> RunSummary:
    return json.decode(run.summary, type=RunSummary)


async def _steps(store: Store, run: RunRecord) -> list[StepTrace]:
    return [json.decode(row.data, type=StepTrace) for row in await store.steps(run.no)]
