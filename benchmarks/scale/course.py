"""When each job was posted, when all its pods ran, and what its status showed when."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from scale.api import Api, Json

from dtjob_api.reasons import ConditionType, Phase
from dtjob_api.wire.positions import Role
from dtjob_operator.read.status_conditions import is_true
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import JOB_LABEL, ROLE_LABEL

_POSTED_AT_ONCE = 8
_POLL_SECONDS = 0.05


@dataclass
class Course:
    """Moments of jobs by their names, in seconds of `time.monotonic()`.

    Attributes
    ----------
    posted
        Before the job, or the first object of a bare one, was posted.
    running
        All its pods were seen in phase Running.
    up
        Its status was seen with ResourcesReady=True: all children exist and their pods are ready.
    training
        Its status was seen in phase Running.
    coordinators
        The pods of coordinators, by job.
    """

    namespace: str
    workers: int
    posted: dict[str, float] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    up: dict[str, float] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)
    coordinators: dict[str, Json] = field(default_factory=dict)
    _pods: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @asynccontextmanager
    async def followed(self, api: Api) -> AsyncIterator[None]:
        """Watch pods and jobs of the namespace meanwhile."""
        async with asyncio.TaskGroup() as group:
            follow = [
                group.create_task(watching)
                for watching in (
                    self._follow_pods(api),
                    self._follow_coordinators(api),
                    self._follow_jobs(api),
                )
            ]
            yield
            for task in follow:
                task.cancel()

    async def _follow_pods(self, api: Api) -> None:
        path = f"{kinds.POD.path(self.namespace)}?fieldSelector=status.phase=Running"
        async for event, pod in api.watch(path, names_alone=True):
            if event != "ADDED":
                continue
            job = pod["metadata"]["labels"][JOB_LABEL]
            self._pods[job].add(pod["metadata"]["uid"])
            if len(self._pods[job]) == self.workers:
                self.running[job] = time.monotonic()

    async def _follow_coordinators(self, api: Api) -> None:
        selected = f"labelSelector={ROLE_LABEL}={Role.COORDINATOR}"
        path = f"{kinds.POD.path(self.namespace)}?fieldSelector=status.phase=Running&{selected}"
        async for event, pod in api.watch(path):
            if event == "ADDED":
                self.coordinators[pod["metadata"]["labels"][JOB_LABEL]] = pod

    async def _follow_jobs(self, api: Api) -> None:
        async for event, job in api.watch(kinds.JOB.path(self.namespace)):
            if event == "DELETED":
                continue
            name, status = job["metadata"]["name"], job.get("status", {})
            if is_true(status, ConditionType.RESOURCES_READY):
                self.up.setdefault(name, time.monotonic())
            if status.get("phase") == Phase.RUNNING:
                self.training.setdefault(name, time.monotonic())

    async def post(self, names: Iterable[str], post: Callable[[str], Awaitable[None]]) -> None:
        """Post jobs, so many at a time."""

        async def one(name: str) -> None:
            self.posted[name] = time.monotonic()
            await post(name)

        await some_at_once(names, one)

    def since_posted(self, moments: dict[str, float], names: Iterable[str]) -> list[float]:
        """Seconds from each job's own post to one of its moments."""
        return [moments[name] - self.posted[name] for name in names]

    def of_all(self, moments: dict[str, float], names: Iterable[str]) -> float:
        """Seconds from the first post of all to the last one's moment."""
        chosen = list(names)
        first = min(self.posted[name] for name in chosen)
        return max(moments[name] for name in chosen) - first


async def some_at_once(names: Iterable[str], do: Callable[[str], Awaitable[None]]) -> None:
    """Do the same for each name, eight at a time."""
    left = iter(names)

    async def work() -> None:
        for name in left:
            await do(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(_POSTED_AT_ONCE):
            group.create_task(work())


async def until(what: str, holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds.

    Raises
    ------
    SystemExit
        It does not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(_POLL_SECONDS)
