"""One operator works at a time; others stand by until it stops, or until its Lease is over.

A leader that can't renew writes nothing after its deadline (`kube.client` refuses to), since
another may lead by then. It goes on asking: where the Lease is still the one that it renewed last,
nobody has led in between, and an outage of the API server has cost nothing that is known. Where it
is another one the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping

import structlog

from dtjob_operator.kube.api_errors import ApiError, explained
from dtjob_operator.kube.election import DEADLINE_SECONDS, NAME, Candidate
from dtjob_operator.run.health import Condition

_RENEW_SECONDS = 5.0
_LOOK_SECONDS = 1.0


class Leadership:
    """Stands for election, and leads once elected."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self._elected = False
        self._trouble: str | None = "the API server has not answered yet"
        self._log = structlog.get_logger("leadership")

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait until this operator leads, then work until cancelled; the Lease is given back then.

        What `work` raises is raised here.

        Raises
        ------
        Superseded
            Another operator leads, or may have for a while. Work is under way still: only the end
            of the process stops it.
        """
        await self._campaign()
        self._log.info("this operator leads")
        working = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew())
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if renewing.done():
                renewing.result()
            await working
        except asyncio.CancelledError:
            working.cancel()
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            raise
        finally:
            renewing.cancel()
            if working.done():
                await self._resign()

    def readiness(
        self, trouble: Callable[[], str | None], closed: Callable[[], Mapping[str, str]]
    ) -> Condition:
        """How things stand, with the trouble of who leads.

        Parameters
        ----------
        trouble
            Says why nothing is done, None where something is.
        closed
            Namespaces in which alone nothing is done, and why.

        A standby is well: where it were not, a Deployment of two would never be available.
        """
        if self._elected:
            found = trouble()
            if found is None and not self._candidate.holds():
                found = self._trouble or f"Lease {NAME} was not renewed for {DEADLINE_SECONDS} s"
            if found is not None:
                return Condition(False, found)
            waits = [f"namespace {name} has to wait: {why}" for name, why in closed().items()]
            return Condition(True, "\n".join(["ok", *waits]))
        if self._trouble is not None:
            return Condition(False, self._trouble)
        return Condition(True, f"standby: {self._candidate.holder or 'another'} leads")

    async def _campaign(self) -> None:
        while True:
            try:
                self._elected = await self._candidate.try_to_lead()
                self._trouble = None
            except ApiError as error:
                self._note(error)
            if self._elected:
                return
            await asyncio.sleep(_LOOK_SECONDS * random.uniform(0.75, 1.0))  # noqa: S311

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS if self._trouble else _RENEW_SECONDS)
            try:
                await self._candidate.renew()
                self._trouble = None
            except ApiError as error:
                self._note(error)

    async def _resign(self) -> None:
        with contextlib.suppress(ApiError):
            await self._candidate.release()

    def _note(self, error: ApiError) -> None:
        trouble = f"whether this operator leads is not known: {explained(error)}"
        if trouble != self._trouble:
            self._log.warning("the Lease can't be read or written", error=error.message)
        self._trouble = trouble
