"""One job brought a step closer to what it asks for: observe, decide, apply, report."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from dtjob_operator.decide.desired_state import decide
from dtjob_operator.kube.api_errors import (
    ApiError,
    Conflict,
    Gone,
    NamespaceTerminating,
    NotFound,
    ServerFailed,
    Unavailable,
)
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.recorder import Recorder
from dtjob_operator.kube.store import Key, Stores
from dtjob_operator.observe.assemble import Child, Memory, Observer
from dtjob_operator.run.metrics import Metrics
from dtjob_operator.terms import kinds
from dtjob_operator.terms.decision import Event, ObjectRef
from dtjob_operator.terms.kinds import Json, kind_of
from dtjob_operator.terms.observed import Rejection
from dtjob_operator.terms.settings import Settings

# The cluster moved on or is away: a retry helps, and no person is needed.
_TRANSIENT = (Conflict, NotFound, Gone, NamespaceTerminating, Unavailable)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 15.0
_MOST_DOUBLINGS = 30


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
        self._memories: dict[Key, Memory] = {}
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
            except _TRANSIENT as error:
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
            self._memories.pop(key, None)
            return None
        if "deletionTimestamp" in job["metadata"]:
            return None  # its children go with it; what is made now would only hinder that
        memory = self._memory(key, job)
        observed = await self._observer.observe(key, job, memory)
        now = datetime.now(UTC)
        decision = decide(observed, now, self._settings)
        # A refusal of what is no longer wanted would hide what is the matter now.
        memory.forget_others({_child(child) for child in decision.applies})
        if len(memory.rejections) < len(observed.rejections):
            observed = replace(observed, rejections=tuple(memory.rejections.values()))
            decision = decide(observed, now, self._settings)

        for reference in decision.deletes:
            await self._delete(reference)
        due = [child for child in decision.applies if not self._is_paused(child, memory)]
        for child in due:
            if not await self._apply(child, memory):
                break  # what follows builds on it
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
        if not decision.applies and not decision.deletes:
            memory.steps = 0
            memory.applied.clear()
            return decision.wake_after
        if not due and not decision.deletes:
            return max(0.0, memory.paused_until - time.monotonic())
        # What was done is in the stores, so no watch will bring the key back. Decisions that do not
        # converge, as where a child is refused, are slowed down.
        memory.steps += 1
        doubled = _FIRST_PAUSE_SECONDS * 2.0 ** min(memory.steps, _MOST_DOUBLINGS)
        pause = min(doubled, _LONGEST_PAUSE_SECONDS)
        memory.paused_until = time.monotonic() + pause
        return pause

    def _memory(self, key: Key, job: Json) -> Memory:
        uid = job["metadata"]["uid"]
        memory = self._memories.get(key)
        if memory is None or memory.job_uid != uid:
            memory = self._memories[key] = Memory(uid)
        return memory

    def _is_paused(self, child: Json, memory: Memory) -> bool:
        """Whether this was applied in vain a moment ago: somebody else reverts what it changes.

        The pause ends early when the object has changed since: then it may help.
        """
        if time.monotonic() >= memory.paused_until or _child(child) not in memory.applied:
            return False
        applied, version = memory.applied[_child(child)]
        metadata = child["metadata"]
        stored = self._stores[kind_of(child)].get(metadata["namespace"], metadata["name"])
        if stored is None or stored["metadata"]["resourceVersion"] != version:
            return False
        return child == applied

    async def _apply(self, child: Json, memory: Memory) -> bool:
        """Apply a child; returns False where the API server does not do it."""
        kind, name = _child(child)
        try:
            applied = await self._client.apply(child)
        except ServerFailed as error:
            # Once may be a hiccup; twice in a row is reported.
            if (kind, name) in memory.failed:
                self._reject(child, error, memory)
            memory.failed.add((kind, name))
            return False
        except _TRANSIENT:
            raise
        except ApiError as error:
            self._reject(child, error, memory)
            return False
        memory.rejections.pop((kind, name), None)
        memory.failed.discard((kind, name))
        memory.applied[kind, name] = child, applied["metadata"]["resourceVersion"]
        self._stores.note(applied)
        self._log.info("applied", kind=kind, name=name)
        return True

    def _reject(self, child: Json, error: ApiError, memory: Memory) -> None:
        kind, name = _child(child)
        if (kind, name) not in memory.rejections:
            self._log.warning("child refused", kind=kind, name=name, error=error.message)
        memory.rejections[kind, name] = Rejection(kind, name, error.message)

    async def _record(self, job: Json, event: Event) -> bool:
        """Record an Event, if possible; the job's status is written all the same."""
        try:
            await self._recorder.record(job, event)
        except ApiError as error:
            self._log.info("event not recorded", reason=event.reason, error=error.message)
            return False
        return True

    async def _delete(self, reference: ObjectRef) -> None:
        kind = kind_of({"apiVersion": reference.api_version, "kind": reference.kind})
        try:
            await self._client.delete(kind, reference.namespace, reference.name, reference.uid)
        except NotFound:
            return
        self._log.info("deleted", kind=reference.kind, name=reference.name)

    async def _refresh(self, key: Key) -> None:
        """Read the job anew: the watch may be behind what made a write fail."""
        try:
            self._stores.note(await self._client.get(kinds.JOB, *key))
        except NotFound:
            if job := self._stores[kinds.JOB].get(*key):
                self._stores[kinds.JOB].remove(job)
        except ApiError as error:
            self._log.info("not read anew", error=error.message)


def _child(obj: Json) -> Child:
    return obj["kind"], obj["metadata"]["name"]
