"""Reads the checkpoints of a run that goes on."""

from runglass.engine.journal.recorder import Recorder
from runglass.errors import StoreError, WrongExpectedVersion
from runglass.store.base import Store
from runglass.store.records import RunRecord


class CheckpointReader:
    """Reads checkpoints for a run's memory. Holds no segment, so that nothing of one outlives its end."""

    def __init__(self, run: RunRecord, store: Store, recorder: Recorder) -> None:
        self._run = run
        self._store = store
        self._recorder = recorder

    async def read(self, address: tuple[str, str]) -> bytes:
        """A checkpoint of this run, once it is stored. Raises StoreError, WrongExpectedVersion."""
        await self._recorder.commit()
        try:
            data = await self._store.checkpoint(self._run.no, *address)
        except StoreError as error:
            # A step that is cut off by this goes on later: no event may say that it was lost.
            self._recorder.fail(error)
            raise
        if data is None:
            gone = WrongExpectedVersion(f"run {self._run.id!r} was ended by another process")
            self._recorder.fail(gone)
            raise gone
        return data
