"""What the coordinators report: pod 0 of each job is asked every few seconds while it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import aiohttp
import structlog

from dtjob_operator.kinds import JOB_LABEL, JOB_UID_LABEL, Json
from dtjob_operator.names import HTTP_PORT
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
        self._reports: dict[str, Json] = {}
        self._following: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._slots = asyncio.Semaphore(_MAX_AT_ONCE)
        # Pods are not behind a proxy, whatever the environment says.
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)
        self._log = structlog.get_logger("scrape")

    def report(self, uid: str) -> Json | None:
        """The job's newest report; None before the first one and after its pod has gone."""
        return self._reports.get(uid)

    def pod_changed(self, pod: Json, *, exists: bool) -> None:
        """Follow a coordinator pod as soon as it runs, and no longer."""
        metadata, status = pod["metadata"], pod.get("status", {})
        if not metadata["name"].endswith("-0"):
            return
        uid = metadata["labels"][JOB_UID_LABEL]
        pod_uid, task = self._following.get(uid, (None, None))
        address = status.get("podIP")
        if exists and status.get("phase") == "Running" and address:
            if pod_uid == metadata["uid"]:
                return
            if task:
                task.cancel()
            self._reports.pop(uid, None)
            key = metadata["namespace"], metadata["labels"][JOB_LABEL]
            task = asyncio.create_task(self._follow(key, uid, address))
            self._following[uid] = metadata["uid"], task
        elif task and pod_uid == metadata["uid"]:
            task.cancel()
            del self._following[uid]
            self._reports.pop(uid, None)

    async def close(self) -> None:
        """Follow nobody any more."""
        for _, task in self._following.values():
            task.cancel()
        await self._session.close()

    async def _follow(self, key: Key, uid: str, address: str) -> None:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{HTTP_PORT}/report"
        while True:
            try:
                async with self._slots:
                    self._reports[uid] = decoded(await self._fetch(url))
            except (aiohttp.ClientError, TimeoutError, OSError):
                # Not up yet, or going down: the pod's own state tells.
                await asyncio.sleep(_EAGER_SECONDS)
                continue
            except ValueError as error:
                self._log.warning("unusable report", job="/".join(key), error=str(error)[:500])
            else:
                self._changed(key)
            has_figures = self._reports.get(uid, {}).get("samplesPerSecond") is not None
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
