"""What the coordinators report: each is asked every few seconds while it runs."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
import structlog

from dtjob_api.wire.well_known import HTTP_PORT, REPORT_PATH
from dtjob_api.wire.worker_report import WorkerReport
from dtjob_operator.kube.store import Key
from dtjob_operator.read import coordinator_report
from dtjob_operator.terms.kinds import JOB_LABEL, JOB_UID_LABEL, Json
from dtjob_operator.terms.names import child_of_any_run, position_of

MAX_BYTES = 64 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=2)
_MAX_AT_ONCE = 32
# Coordinators that have not answered take up to 2 s each: they queue by themselves.
_MAX_FAILING_AT_ONCE = 16
_EAGER_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0
_LIFETIME_SECONDS, _LIFETIME_INTERVALS = 30.0, 3
_MAX_CAUSE = 200

ScrapeResult = Literal["ok", "failed", "given up"]
"""How a request for a report ended; a job's figures are given up once, after failures."""


def decoded(body: bytes) -> Json:
    """The JSON object in a body, whose fields nothing vouches for.

    Raises
    ------
    ValueError
        It holds none.
    """
    try:
        answer = json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(answer, dict):
        raise ValueError("not a JSON object")
    return answer


@dataclass
class _Followed:
    """A coordinator pod that is asked.

    Attributes
    ----------
    answered_at
        In monotonic time: when its newest answer came; at first, when it was first followed.
    report
        Its newest answer, read; None if that is no report of this job.
    failing
        It did not answer when it was asked last.
    trouble
        Where and why its report can't be read, once it has failed for too long. It goes into the
        job's status, and so stays the same until the report is read again.
    """

    job_uid: str
    pod_uid: str
    address: str
    answered_at: float
    report: WorkerReport | None = None
    failing: bool = False
    trouble: str | None = None
    task: asyncio.Task[None] = field(init=False)


class Scraper:
    """The newest report of each job whose coordinator pod runs.

    Parameters
    ----------
    changed
        Called with the job's key when an answer is news, and when reports can't be read any more.
        Figures that only move are none: a job that runs is looked at often enough for them.
    interval
        Seconds between two reports of one job; until it says how fast the job is, one.
    count
        Called with how each request ended.
    """

    def __init__(
        self, changed: Callable[[Key], None], interval: float, count: Callable[[ScrapeResult], None]
    ) -> None:
        self._changed = changed
        self._interval = interval
        self._count = count
        self._lifetime = max(_LIFETIME_SECONDS, _LIFETIME_INTERVALS * interval)
        # By namespace and UID: a label can be forged, but not from another namespace.
        self._following: dict[Key, _Followed] = {}
        self._slots = asyncio.Semaphore(_MAX_AT_ONCE)
        self._failing_slots = asyncio.Semaphore(_MAX_FAILING_AT_ONCE)
        # Pods are not behind a proxy, whatever the environment says.
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)
        self._log = structlog.get_logger("scrape")

    def report(self, namespace: str, uid: str) -> WorkerReport | None:
        """The job's newest report; None where there is none, or none that is young enough.

        An older one is not shown: nothing vouches for it.
        """
        followed = self._following.get((namespace, uid))
        if followed is None or self._is_old(followed):
            return None
        return followed.report

    @property
    def coordinators(self) -> int:
        """How many run, as far as is known: one for each job that runs."""
        return len(self._following)

    def trouble(self, namespace: str, uid: str) -> str | None:
        """Where and why the report of a job's coordinator has not been read for half a minute."""
        followed = self._following.get((namespace, uid))
        return followed.trouble if followed is not None else None

    def pod_changed(self, pod: Json, *, exists: bool) -> None:
        """Follow a coordinator pod as soon as it runs, and no longer."""
        metadata, status = pod["metadata"], pod.get("status", {})
        labels, namespace = metadata.get("labels", {}), metadata["namespace"]
        name, uid = labels.get(JOB_LABEL), labels.get(JOB_UID_LABEL)
        child = child_of_any_run(name, pod) if name and uid else None
        if child is None or position_of(child, pod) != 0:
            return
        job, pod_uid, address = (namespace, uid), metadata["uid"], status.get("podIP")
        followed = self._following.get(job)
        if exists and status.get("phase") == "Running" and address:
            # A pod whose sandbox was started again keeps its UID and gets another address.
            if followed and (followed.pod_uid, followed.address) == (pod_uid, address):
                return
            self._unfollow(job)
            followed = _Followed(uid, pod_uid, address, answered_at=time.monotonic())
            followed.task = asyncio.create_task(self._follow((namespace, name), followed))
            self._following[job] = followed
        elif followed and followed.pod_uid == pod_uid:
            self._unfollow(job)

    async def close(self) -> None:
        """Stop following all pods."""
        for job in list(self._following):
            self._unfollow(job)
        await self._session.close()

    def _unfollow(self, job: Key) -> None:
        if followed := self._following.pop(job, None):
            followed.task.cancel()

    def _is_old(self, followed: _Followed) -> bool:
        return time.monotonic() - followed.answered_at > self._lifetime

    async def _follow(self, key: Key, followed: _Followed) -> None:
        host = f"[{followed.address}]" if ":" in followed.address else followed.address
        place = f"{host}:{HTTP_PORT}"
        while True:
            slots = self._failing_slots if followed.failing else self._slots
            try:
                async with slots:
                    answer = decoded(await self._fetch(f"http://{place}{REPORT_PATH}"))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                pause = self._note_failure(key, followed, place, error)
            else:
                pause = self._accept(key, followed, answer)
            await asyncio.sleep(pause)

    def _accept(self, key: Key, followed: _Followed, answer: Json) -> float:
        """Take over the report in an answer; returns the seconds until the next one."""
        if followed.trouble is not None:
            self._log.info("the report is read again", job="/".join(key))
        # What is too old is shown to nobody, so that the same again is news.
        before = None if self._is_old(followed) else followed.report
        followed.report = coordinator_report.read(answer, followed.job_uid)
        is_news = followed.trouble is not None or _gist(before) != _gist(followed.report)
        followed.answered_at = time.monotonic()
        followed.failing, followed.trouble = False, None
        self._count("ok")
        if is_news:
            self._changed(key)
        # Also one that a report has no room for: a very slow job's is rounded to zero.
        has_rate = answer.get("samplesPerSecond") is not None
        return self._interval if has_rate else _EAGER_SECONDS

    def _note_failure(self, key: Key, followed: _Followed, place: str, error: Exception) -> float:
        """Note that no report came; returns the seconds until the next try.

        At first the pod may be starting or ending, as its own state shows. A lasting failure is
        reported once, and the report asked for ever more rarely.
        """
        followed.failing = True
        self._count("failed")
        if followed.trouble is None and self._is_old(followed):
            followed.trouble = f"{place} ({_cause(error)})"
            self._count("given up")
            self._log.warning(
                "the report can't be read", job="/".join(key), place=place, error=_cause(error)
            )
            self._changed(key)
        silent = time.monotonic() - followed.answered_at
        return min(max(_EAGER_SECONDS, silent / 2), _LONGEST_PAUSE_SECONDS)

    async def _fetch(self, url: str) -> bytes:
        async with self._session.get(url, allow_redirects=False) as response:
            response.raise_for_status()
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            body = await response.content.read(MAX_BYTES + 1)
            while len(body) <= MAX_BYTES and (more := await response.content.read(MAX_BYTES)):
                body += more
        if len(body) > MAX_BYTES:
            raise ValueError(f"the report exceeds {MAX_BYTES} bytes")
        return body


def _gist(report: WorkerReport | None) -> tuple[object, ...] | None:
    """What of a report decides anything, and is no figure that moves all the time."""
    if report is None:
        return None
    return (
        report.attempt,
        report.generation,
        report.state,
        report.stage,
        report.reason,
        report.message,
        report.samples_per_second is None,
    )


def _cause(error: Exception) -> str:
    """Why a request failed, in words that name no address."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"HTTP {error.status}"
    if isinstance(error, TimeoutError):
        return "no answer within 2 s"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return (str(error) or type(error).__name__)[:_MAX_CAUSE]
