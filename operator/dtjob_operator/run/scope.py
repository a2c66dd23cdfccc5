"""What is listed and watched together: all namespaces, or one of those that the operator is for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from dtjob_operator.kube.api_errors import ApiError, Forbidden, explained
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.reflector import Reflector
from dtjob_operator.kube.store import Entry, Store
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import Json

_RETRY_SECONDS = 2.0


class Scope:
    """Jobs and all that belongs to them.

    A namespace in which the operator lacks a right, or that is gone, is closed: nothing is done for
    its jobs until all of it can be listed again, and the other namespaces do not wait for it.

    Attributes
    ----------
    namespace
        None: all of them, which is never closed once it was open.
    reflectors
        Of all kinds but jobs.
    is_open
        Whether everything was listed and nothing was forbidden since.
    settled
        Set once it was opened or is known to have to wait.

    Parameters
    ----------
    jobs
        Filled before it is open.
    changed
        Called with each job that appeared, changed or vanished by a list.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str | None,
        jobs: Store,
        reflectors: Iterable[Reflector],
        changed: Callable[[Json], None],
    ) -> None:
        self._client = client
        self.namespace = namespace
        self._jobs = jobs
        self.reflectors = tuple(reflectors)
        self._changed = changed
        self.is_open = False
        self.settled = asyncio.Event()
        self._closed = asyncio.Event()
        self._unlisted: str | None = None
        self._log = structlog.get_logger("scope").bind(namespace=namespace)

    @property
    def trouble(self) -> str | None:
        """What can't be listed or watched now; None where all can."""
        watches = (each for each in self.reflectors if each.tried.is_set())
        return self._unlisted or next((each.trouble for each in watches if each.trouble), None)

    async def attend(self, opened: Callable[[], None]) -> None:
        """Open it, and again whenever it was closed, until cancelled.

        Parameters
        ----------
        opened
            Called each time.
        """
        while True:
            for reflector in self.reflectors:
                await reflector.tried.wait()
            if not all(each.synced.is_set() for each in self.reflectors):
                self.settled.set()
            for reflector in self.reflectors:
                await reflector.synced.wait()
            while not await self.list_jobs():
                self.settled.set()
                await asyncio.sleep(_RETRY_SECONDS)
            self._closed.clear()
            self.is_open = True
            self.settled.set()
            opened()
            await self._closed.wait()

    async def look_again(self) -> bool:
        """List jobs anew, until that has worked; returns whether etcd was restored since.

        Where it is forbidden in a namespace that is closed.
        """
        restores = self._jobs.restores
        while not await self.list_jobs():
            if self._closed.is_set():
                return False
            await asyncio.sleep(_RETRY_SECONDS)
        return self._jobs.restores > restores

    async def list_jobs(self) -> bool:
        """List jobs once; returns whether that worked."""
        asked_at = self._jobs.newest
        try:
            jobs, version = await self._client.list(kinds.JOB, namespace=self.namespace)
        except ApiError as error:
            trouble = explained(error)
            if trouble != self._unlisted:
                self._log.warning("listing jobs failed", error=trouble)
            self._unlisted = trouble
            if isinstance(error, Forbidden) and self.namespace is not None:
                self.is_open = False
                self._closed.set()
            return False
        self._unlisted = None
        for changed in self._jobs.replace(map(Entry.of, jobs), version, asked_at):
            self._changed(changed)
        return True
