"""One job brought a step closer to what it asks for: observe, decide, apply, report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from dtjob_operator.decide.desired_state import decide
from dtjob_operator.kube.api_errors import ApiError, NotFound, Unavailable
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.recorder import Recorder
from dtjob_operator.kube.store import Key, Stores
from dtjob_operator.observe.assemble import Memory, Observer
from dtjob_operator.run.applier import TRANSIENT, Applier, Trials
from dtjob_operator.run.metrics import Metrics
from dtjob_operator.terms import kinds
from dtjob_operator.terms.decision import Event
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.settings import Settings


@dataclass(frozen=True)
class _Known:
    """What this process keeps of one job."""

    memory: Memory
    trials: Trials


class Reconciler:
    """Work on one key, for the work queue."""

    def __init__(
        self,
        client: KubeClient,
        stores: Stores,
        observer: Observer,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._stores = stores
        self._observer = observer
        self._recorder = Recorder(client)
        self._settings = settings
        self._metrics = metrics
        self._applier = Applier(client, stores)
        self._known: dict[Key, _Known] = {}
        self._log = structlog.get_logger("reconcile")

    async def __call__(self, key: Key) -> float | None:
        """Reconcile a job; returns the seconds after which to look again though nothing changed.

        Raises
        ------
        Exception
            Whatever went wrong, after it was logged and counted; the queue brings the key back.
        """
        started = time.monotonic()
        result = "error"
        with structlog.contextvars.bound_contextvars(job="/".join(key)):
            try:
                again = await self._reconcile(key)
                result = "ok"
            except TRANSIENT as error:
                result = "retry"
                self._log.info("to be tried again", error=error.message, status=error.status)
                if not isinstance(error, Unavailable):
                    await self._refresh(key)
                raise
            except ApiError as error:
                self._log.error("refused by the API server", error=error.message)
                raise
            except Exception:
                self._log.exception("reconciliation failed")
                raise
            finally:
                self._metrics.reconciles.labels(result).inc()
                self._metrics.reconcile_seconds.observe(time.monotonic() - started)
        return again

    async def _reconcile(self, key: Key) -> float | None:
        job = self._stores[kinds.JOB].get(*key)
        if job is None:
            self._known.pop(key, None)
            return None
        if "deletionTimestamp" in job["metadata"]:
            return None  # its children go with it; what is made now would only hinder that
        known = self._of(key, job)
        memory, trials = known.memory, known.trials
        seen, now = await self._observer.observe(key, job, memory, trials.taken), datetime.now(UTC)
        observed = replace(seen, rejections=tuple(trials.rejections.values()))
        decision = decide(observed, now, self._settings)
        if trials.keep_only(decision.applies):
            observed = replace(seen, rejections=tuple(trials.rejections.values()))
            decision = decide(observed, now, self._settings)

        pause = await self._applier.carry_out(decision.deletes, decision.applies, trials)
        for event in decision.events:
            # Before the status: if we are killed in between it is repeated, not lost.
            if event.identity not in memory.recorded and await self._record(job, event):
                memory.recorded.add(event.identity)
        if decision.status is not None and decision.status != job.get("status", {}):
            written = await self._client.replace_status(job, decision.status)
            self._stores.note(written)
            memory.recorded.clear()
            memory.status_written = datetime.now(UTC)
            self._log.info("status", phase=decision.status.get("phase"))
        return decision.wake_after if pause is None else pause

    def _of(self, key: Key, job: Json) -> _Known:
        uid = job["metadata"]["uid"]
        known = self._known.get(key)
        if known is None or known.memory.job_uid != uid:
            known = self._known[key] = _Known(Memory(uid), Trials())
        return known

    async def _record(self, job: Json, event: Event) -> bool:
        """Record an Event, if possible; the job's status is written all the same."""
        try:
            await self._recorder.record(job, event)
        except ApiError as error:
            self._log.info("event not recorded", reason=event.reason, error=error.message)
            return False
        return True

    async def _refresh(self, key: Key) -> None:
        """Read the job anew: the watch may be behind what made a write fail."""
        try:
            self._stores.note(await self._client.get(kinds.JOB, *key))
        except NotFound:
            if job := self._stores[kinds.JOB].get(*key):
                self._stores[kinds.JOB].remove(job)
        except ApiError as error:
            self._log.info("not read anew", error=error.message)
