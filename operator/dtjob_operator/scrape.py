"""What the coordinators report: pod 0 of each job is asked every few seconds while it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import structlog

from dtjob_api.derive import child_name
from dtjob_operator.kinds import JOB_LABEL, JOB_UID_LABEL, Json
from dtjob_operator.names import HTTP_PORT, pod_of
from dtjob_operator.store import Key

MAX_BYTES = 64 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=2)
_MAX_AT_ONCE = 32
_EAGER_SECONDS = 1.0


def decoded(body: bytes) -> Json:
    """The JSON object in a body, whose fields are nobody's promise.

    Raises
    ------
    ValueError
        It is none.
    """
    try:
        report = json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(report, dict):
        raise ValueError("not a JSON object")
    return report


@dataclass(frozen=True)
class _Followed:
    """A coordinator pod that is asked."""

    pod_uid: str
    address: str
    task: asyncio.Task[None]


class Scraper:
    """The newest report of each job whose coordinator pod runs.

    Parameters
    ----------
    changed
        Called with the job's key after each report.
    interval
        Seconds between two reports of one job; until it tells how fast the job is, one.
    """

    def __init__(self, changed: Callable[[Key], None], interval: float) -> None:
        self._changed = changed
        self._interval = interval
        # By namespace and UID: a label can be forged, but not from another namespace.
        self._reports: dict[Key, Json] = {}
        self._following: dict[Key, _Followed] = {}
        self._slots = asyncio.Semaphore(_MAX_AT_ONCE)
        # Pods are not behind a proxy, whatever the environment says.
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)
        self._log = structlog.get_logger("scrape")

    def report(self, namespace: str, uid: str) -> Json | None:
        """The job's newest report; None before the first one and after its pod has gone."""
        return self._reports.get((namespace, uid))

    def pod_changed(self, pod: Json, *, exists: bool) -> None:
        """Follow a coordinator pod as soon as it runs, and no longer."""
        metadata, status = pod["metadata"], pod.get("status", {})
        labels, namespace = metadata.get("labels", {}), metadata["namespace"]
        name, uid = labels.get(JOB_LABEL), labels.get(JOB_UID_LABEL)
        if not name or not uid or metadata["name"] != pod_of(child_name(name, uid), 0):
            return
        whose, pod_uid, address = (namespace, uid), metadata["uid"], status.get("podIP")
        followed = self._following.get(whose)
        if exists and status.get("phase") == "Running" and address:
            # A pod whose sandbox was started again keeps its UID and gets another address.
            if followed and (followed.pod_uid, followed.address) == (pod_uid, address):
                return
            self._leave(whose)
            task = asyncio.create_task(self._follow((namespace, name), whose, address))
            self._following[whose] = _Followed(pod_uid, address, task)
        elif followed and followed.pod_uid == pod_uid:
            self._leave(whose)

    async def close(self) -> None:
        """Follow nobody any more."""
        for whose in list(self._following):
            self._leave(whose)
        await self._session.close()

    def _leave(self, whose: Key) -> None:
        if followed := self._following.pop(whose, None):
            followed.task.cancel()
        self._reports.pop(whose, None)

    async def _follow(self, key: Key, whose: Key, address: str) -> None:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{HTTP_PORT}/report"
        while True:
            try:
                async with self._slots:
                    self._reports[whose] = decoded(await self._fetch(url))
            except (aiohttp.ClientError, TimeoutError, OSError):
                # Not up yet, or going down: the pod's own state tells.
                await asyncio.sleep(_EAGER_SECONDS)
                continue
            except ValueError as error:
                self._log.warning("unusable report", job="/".join(key), error=str(error)[:500])
            else:
                self._changed(key)
            has_figures = self._reports.get(whose, {}).get("samplesPerSecond") is not None
            await asyncio.sleep(self._interval if has_figures else _EAGER_SECONDS)

    async def _fetch(self, url: str) -> bytes:
        async with self._session.get(url, allow_redirects=False) as response:
            response.raise_for_status()
            body = await response.content.read(MAX_BYTES + 1)
            while len(body) <= MAX_BYTES and (more := await response.content.read(MAX_BYTES)):
                body += more
        if len(body) > MAX_BYTES:
            raise ValueError(f"the report exceeds {MAX_BYTES} bytes")
        return body
