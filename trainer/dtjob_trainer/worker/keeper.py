"""Keeps ready what a worker's ranks are started from, and restarts what dies of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from dtjob_trainer.process.logs import Logger
from dtjob_trainer.worker.processes import CannotStart, Nursery, Store

#: How often a worker looks whether its forkserver and its store live.
_LOOK_SECONDS = 0.5
#: So many starts in a row may end with the death of the forkserver.
MOST_DEATHS = 10


class Keeper:
    """Warms the nursery up, and the store on the coordinator; nobody else would bring them back.

    Parameters
    ----------
    ranks
        How many are started at a time.
    warm, cold
        Called when children start at once, and when they no longer do.

    Attributes
    ----------
    store
        Kept too, where there is one.
    is_warm
        Whether all has been imported since the last death.
    """

    def __init__(
        self,
        nursery: Nursery,
        ranks: int,
        log: Logger,
        *,
        warm: Callable[[], None],
        cold: Callable[[], Awaitable[None]],
    ) -> None:
        self._nursery, self._ranks = nursery, ranks
        self._log, self._warm, self._cold = log, warm, cold
        self.store: Store | None = None
        self.is_warm = False

    @property
    def is_ready(self) -> bool:
        """Whether children start at once; without the forkserver a start waits for imports."""
        return self.is_warm and self._nursery.death is None

    async def keep(self) -> None:
        """Keep all of it running, for ever.

        A store that comes back costs nothing: the ranks that train don't need it any more. The
        death of the forkserver takes all its ranks down.

        Raises
        ------
        CannotStart
            It would only die again, or never start anything.
        """
        in_vain = 0
        while True:
            try:
                in_vain += 1
                await self._warm_up()
                in_vain = 0
                await self._watch()
            except CannotStart as error:
                if error.lasting:
                    raise
                await self._bury(str(error), in_vain)

    async def _bury(self, why: str, in_vain: int) -> None:
        # A child may report its death a moment before the kernel does.
        await asyncio.sleep(_LOOK_SECONDS)
        if (death := self._nursery.death) is not None:
            why = death.words
        if in_vain > MOST_DEATHS:
            raise CannotStart(
                f"{why}; so ended {in_vain} starts in a row",
                lasting=True,
            )
        self._log.error("the forkserver is started again", detail=why)
        self.is_warm = False
        await self._cold()
        self._nursery.open(self._ranks)

    async def _warm_up(self) -> None:
        started = time.monotonic()
        await self._nursery.warm_up()
        if self.store is not None:
            self.store.start()
        self._log.info("ready", import_seconds=round(time.monotonic() - started, 2))
        self.is_warm = True
        self._warm()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if (died := self._nursery.death) is not None:
                raise CannotStart(died.words)
            if self.store is not None and not self.store.lives:
                self._log.error("the store died: it is started again")
                self.store.start()
