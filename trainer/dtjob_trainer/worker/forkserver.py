"""A supervisor's children are forked by a process that has torch and opacus loaded already.

Loading takes 13.4 s once, and a new attempt 0.04 s. This module imports no torch.

No other module relies on private parts of multiprocessing. Tried with Python 3.11;
`test_forkserver.py` fails where another release has it otherwise.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from dtjob_accounting.process import PldProcess
from dtjob_trainer.process import memory_group
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.worker import deaths, rank_output
from dtjob_trainer.worker.deaths import Death, MemoryKills
from dtjob_trainer.worker.pricing import SegmentAccountant
from dtjob_trainer.worker.processes import (
    DIED_WITH_NURSERY,
    CannotStart,
    serve_store,
    start,
    threads_per_rank,
    until_ended,
)

#: What is imported in the forkserver before it forks anything.
PRELOAD = ["dtjob_trainer.rank.preload"]

RankMain = Callable[[RankSetup, Connection], None]


class Forkserver:
    """Children forked by a process that has torch and opacus loaded.

    Parameters
    ----------
    rank_main
        What a rank process executes.
    """

    def __init__(self, rank_main: RankMain) -> None:
        self._rank_main = rank_main
        self.kills = MemoryKills()
        self._died: tuple[int, Death] | None = None
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    @property
    def death(self) -> Death | None:
        """See `Nursery.death`. It is not reaped here: Python does so when it starts another."""
        pid = forkserver_pid()
        if pid is None:
            return Death("the forkserver was not started")
        try:
            gone = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return Death("the forkserver is gone")
        if gone is None:
            return None
        if self._died is None or self._died[0] != pid:
            code = gone.si_status if gone.si_code == os.CLD_EXITED else -gone.si_status
            how = self._how_ended(self, code)
            self._died = pid, replace(how, words=f"the forkserver {how.words}")
        return self._died[1]

    def open(self, ranks: int) -> None:
        """Start it: from the main thread, since it dies with the thread that started it."""
        os.environ["OMP_NUM_THREADS"] = str(threads_per_rank(ranks))
        self.kills.started(self, memory_group.read())
        forkserver.ensure_running()

    async def warm_up(self) -> None:
        """Return once it has imported everything; see `Nursery.warm_up`."""
        process = self._context.Process(target=_prove_warm)
        self.kills.started(process, memory_group.read())
        await asyncio.to_thread(start, process)
        await until_ended(process)
        code = process.exitcode
        how = self._how_ended(process, code)
        if code is None or code < 0 or code == DIED_WITH_NURSERY:
            raise CannotStart(
                f"the process that proves that torch and opacus are imported {how.words}"
            )
        if code != 0:
            raise CannotStart(
                f"the process that imports torch and opacus ended with {code}; its words are in "
                "the worker's log. Mostly one of them is not installed whole, or there is no "
                "memory for them",
                lasting=True,
            )

    def _how_ended(self, process: object, exit_code: int | None) -> Death:
        now = memory_group.read()
        return deaths.describe(exit_code, self.kills.before(process, exit_code, now), now)

    def rank(self, setup: RankSetup, pipe: Connection, output: Connection) -> ForkServerProcess:
        """One rank."""
        arguments = (self._rank_main, setup, pipe, output)
        return self._context.Process(target=_rank, args=arguments, name=f"rank-{setup.rank}")

    def store(self, listener: socket.socket) -> ForkServerProcess:
        """The store, on `listener`."""
        return self._context.Process(target=serve_store, args=(listener,), name="store")

    def accountant(self) -> SegmentAccountant:
        """The helper that computes epsilon; started at once, from an interpreter of its own."""
        return PldProcess()


def forkserver_pid() -> int | None:
    """The process that forks this one's children; None before it is started."""
    pid: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return pid


def _rank(main: RankMain, setup: RankSetup, pipe: Connection, output: Connection) -> None:
    """The body of a rank's process."""
    rank_output.take_over(output)
    main(setup, pipe)


def _prove_warm() -> None:
    """The body of the process that proves that the forkserver has imported everything."""
    # The forkserver itself passes over a module that does not import.
    import dtjob_trainer.rank.preload  # noqa: F401
