"""The logs of one worker's ranks: from their output to the coordinator's volume."""

from __future__ import annotations

import asyncio
import io
from functools import partial
from pathlib import Path
from typing import Any

from dtjob_api.wire.gang import End, LogPart
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_trainer.gang.leader import Leader
from dtjob_trainer.gang.log_shipping import LogKeeper, Shipper, ToCoordinator
from dtjob_trainer.identity.credentials import Credentials
from dtjob_trainer.process.logs import own_logger
from dtjob_trainer.retention.backlog import Backlog
from dtjob_trainer.retention.log_budget import LogKey
from dtjob_trainer.retention.log_volume import LogVolume
from dtjob_trainer.worker.rank_output import RankOutput


class RankLogs:
    """Takes what ranks print, and sends it.

    Parameters
    ----------
    leader
        On the coordinator, which keeps what all send.
    """

    def __init__(
        self, config: WorkerConfig, position: int, credentials: Credentials, leader: Leader | None
    ) -> None:
        self._backlog = Backlog(position)
        self._keeper: LogKeeper | None = None
        deliver = ToCoordinator(
            (config.coordinator_host, config.coordinator_port), credentials
        ).deliver
        if leader is not None:
            volume = LogVolume(Path(config.state_dir), config.log_bytes)
            self._keeper = LogKeeper(volume, lambda: leader.newest, config.ranks)
            deliver = self._keeper.keep
        self._shipper = Shipper(self._backlog, deliver)
        self._worker = position
        self._outputs: list[RankOutput] = []
        self._ends: list[tuple[int, End]] = []

    def output(self, attempt: int, rank: int) -> RankOutput:
        """Where a rank that is to be started prints."""
        self._note(LogKey(attempt, rank), "rank started")
        output = RankOutput(partial(self._backlog.put, LogKey(attempt, rank)))
        self._outputs.append(output)
        return output

    def ended(self, attempt: int, end: End) -> None:
        """How a rank has ended, which is the last of its log."""
        self._ends.append((attempt, end))

    async def ship(self) -> None:
        """Send what comes, for ever."""
        await self._shipper.ship()

    async def complete(self) -> None:
        """Send the last words of ranks that have ended, as far as they come in a moment."""
        outputs, self._outputs = self._outputs, []
        await asyncio.gather(*(output.last_words() for output in outputs))
        ends, self._ends = self._ends, []
        for attempt, end in ends:
            if end.rank is not None:
                fields = end.model_dump(exclude_none=True, exclude={"rank", "message"})
                key = LogKey(attempt, end.rank)
                self._note(key, "rank ended", **fields, detail=end.message)
        await self._shipper.flush()

    def _note(self, key: LogKey, message: str, **fields: Any) -> None:
        """Add a line of the supervisor's own to a rank's log."""
        line = io.StringIO()
        log = own_logger(line, component="supervisor", worker=self._worker, **key._asdict())
        log.info(message, **fields)
        self._backlog.put(key, line.getvalue().encode())

    async def receive(self, part: LogPart) -> None:
        """On the coordinator: keep what another worker sends; see `LogKeeper.receive`."""
        assert self._keeper is not None
        await self._keeper.receive(part)
