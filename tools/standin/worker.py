"""A worker whose ranks are threads with a script; the rest is `Supervisor`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection

from pydantic import ValidationError

from dtjob_accounting import rdp
from dtjob_accounting.limits import Segment
from dtjob_api.wire.worker_config import LedgerRef, WorkerConfig
from dtjob_trainer.ledger import open_ledger
from dtjob_trainer.ledger.backend import Ledger
from dtjob_trainer.process.logs import Logger
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.worker.deaths import MemoryKills
from dtjob_trainer.worker.supervision import Supervisor
from standin import rank
from standin.meeting import Hub
from standin.script import Script
from standin.threads import Life, ThreadChild


class BoundAccountant:
    """Epsilon by the Rényi accountant: an upper bound, as where the trainer's helper is late."""

    def submit_epsilon_of_segments(
        self, segments: Sequence[Segment], delta: float
    ) -> Future[float]:
        """The figure, at once."""
        answer: Future[float] = Future()
        try:
            answer.set_result(rdp.epsilon_of_segments(segments, delta))
        except Exception as error:  # whoever waits for the figure judges it
            answer.set_exception(error)
        return answer

    def close(self) -> None:
        """Nothing runs."""


class Threads:
    """Children that are threads (`dtjob_trainer.worker.processes.Nursery`)."""

    death = None

    def __init__(self, start_seconds: float, means: rank.Means) -> None:
        self.kills = MemoryKills()
        self._start_seconds, self._means = start_seconds, means

    def open(self, ranks: int) -> None:
        """Nothing to do."""

    async def warm_up(self) -> None:
        """Take as long as the script says."""
        await asyncio.sleep(self._start_seconds)

    def rank(self, setup: RankSetup, pipe: Connection, _output: Connection) -> ThreadChild:
        """One rank; it prints to the worker's own streams."""
        own = Connection(os.dup(pipe.fileno()))  # the supervisor closes its child's end
        name = f"rank-{setup.rank}"

        def closing(life: Life) -> int:
            with own:
                return rank.run(setup, own, life, self._means)

        return ThreadChild(name, closing)

    def store(self, listener: socket.socket) -> ThreadChild:
        """The place where the ranks meet."""
        return ThreadChild("store", Hub(listener).serve)

    def accountant(self) -> BoundAccountant:
        """Its figures are upper bounds."""
        return BoundAccountant()


class StandIn(Supervisor):
    """A worker that trains nothing.

    Parameters
    ----------
    leave
        Ends this worker with an exit code, as a fault of its script asks for.
    ledgers, host
        As `Worker`.
    """

    def __init__(
        self,
        config: WorkerConfig,
        position: int,
        log: Logger,
        *,
        leave: Callable[[int], None] = os._exit,
        ledgers: Callable[[LedgerRef], Ledger] = open_ledger,
        host: str | None = None,
    ) -> None:
        self._garbled = False
        means = rank.Means(ledgers, leave, self._garble)
        threads = Threads(_start_seconds(config), means)
        super().__init__(config, position, threads, log, ledgers=ledgers, host=host)

    def _garble(self, garbled: bool) -> None:
        self._garbled = garbled

    def _report(self) -> object:
        return ["garbled"] if self._garbled else super()._report()


def _start_seconds(config: WorkerConfig) -> float:
    try:
        return Script.of(config.training.args).start_seconds
    except ValidationError:
        return 0.0  # its ranks say what is wrong, as real ones do
