"""Carries out what was decided about a job's children."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from dtjob_operator.decide.drift import additions, drift
from dtjob_operator.kube.api_errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Gone,
    NamespaceTerminating,
    NotFound,
    ServerFailed,
    Unavailable,
)
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.store import Stores
from dtjob_operator.terms import kinds
from dtjob_operator.terms.decision import ObjectRef
from dtjob_operator.terms.kinds import Json, kind_of
from dtjob_operator.terms.observed import Child, Rejection

#: The cluster moved on or is away: a retry helps, and no person is needed.
TRANSIENT = (Conflict, NotFound, Gone, NamespaceTerminating, Unavailable)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 15.0
_MOST_DOUBLINGS = 30
# RBAC lets the operator make these by their one name alone, which a create has not in its path.
_MADE_BY_NAME = frozenset({kinds.SERVICE_ACCOUNT, kinds.ROLE_BINDING})
_INVALID, _INVALID_SECONDS = "Invalid", 300.0


@dataclass
class Trials:
    """What came of the last decisions on a job's children.

    Attributes
    ----------
    rejections
        By kind and name, of what is still to be applied.
    failed
        Kind and name of what the API server failed to apply when it was last tried.
    applied
        By kind and name: the child as it was applied, and the resource version of the answer.
    invalid
        By kind and name: a child that the API server finds invalid, and until when, in monotonic
        time, the same one is not tried again: an admission policy that answers so may be changed.
    taken
        Kind and name of what could not be created since it is there, though no watch says so.
    steps
        Decisions in a row that changed children.
    paused_until
        In monotonic time: nothing that was applied in vain is applied again before.
    """

    rejections: dict[Child, Rejection] = field(default_factory=dict)
    failed: set[Child] = field(default_factory=set)
    applied: dict[Child, tuple[Json, str]] = field(default_factory=dict)
    invalid: dict[Child, tuple[Json, float]] = field(default_factory=dict)
    taken: set[Child] = field(default_factory=set)
    steps: int = 0
    paused_until: float = 0.0

    def keep_only(self, applies: Iterable[Json]) -> bool:
        """Forget refusals of what is no longer to be applied; returns whether there were any.

        They would hide what is the matter now.
        """
        wanted, before = {_child(child) for child in applies}, len(self.rejections)
        self.rejections = {c: each for c, each in self.rejections.items() if c in wanted}
        self.invalid = {c: each for c, each in self.invalid.items() if c in wanted}
        self.failed &= wanted
        return len(self.rejections) < before


class Applier:
    """The writes to children, each at most once a pause where it is in vain."""

    def __init__(self, client: KubeClient, stores: Stores) -> None:
        self._client = client
        self._stores = stores
        self._log = structlog.get_logger("applier")

    async def carry_out(
        self, deletes: Iterable[ObjectRef], applies: Iterable[Json], trials: Trials
    ) -> float | None:
        """Delete and apply, in this order; returns the seconds until the next look at the job.

        What was done is in the stores, so no watch will bring the job back. Decisions that do not
        converge, as where a child is refused, are slowed down. None: there was nothing to do, or
        nothing that would help.

        Raises
        ------
        ApiError
            A transient one, or a deletion was refused.
        """
        deletes, applies = tuple(deletes), tuple(applies)
        if not applies and not deletes:
            trials.steps = 0
            trials.applied.clear()
            return None
        for reference in deletes:
            await self._delete(reference)
        # What follows builds on it: no pod is made without the NetworkPolicy that is refused.
        valid = list(itertools.takewhile(lambda child: not _is_invalid(child, trials), applies))
        due = [child for child in valid if not self._is_paused(child, trials)]
        for child in due:
            if not await self._apply(child, trials):
                break  # what follows builds on it
        if not due and not deletes:
            return max(0.0, trials.paused_until - time.monotonic()) if valid else None
        trials.steps += 1
        doubled = _FIRST_PAUSE_SECONDS * 2.0 ** min(trials.steps, _MOST_DOUBLINGS)
        pause = min(doubled, _LONGEST_PAUSE_SECONDS)
        trials.paused_until = time.monotonic() + pause
        return pause

    def _is_paused(self, child: Json, trials: Trials) -> bool:
        """Whether this was applied in vain a moment ago: somebody else reverts what it changes.

        The pause ends early when the object has changed since: then it may help.
        """
        if time.monotonic() >= trials.paused_until or _child(child) not in trials.applied:
            return False
        applied, version = trials.applied[_child(child)]
        stored = self._stored(child)
        if stored is None or stored["metadata"]["resourceVersion"] != version:
            return False
        return child == applied

    def _stored(self, child: Json) -> Json | None:
        metadata = child["metadata"]
        return self._stores[kind_of(child)].get(metadata["namespace"], metadata["name"])

    async def _apply(self, child: Json, trials: Trials) -> bool:
        """Create or change a child; returns False where the API server does not do it."""
        kind, name = _child(child)
        before = self._stored(child)
        try:
            applied = await self._write(child)
        except AlreadyExists:
            self._log.info("is there already", kind=kind, name=name)
            trials.taken.add((kind, name))
            return False
        except ServerFailed as error:
            # Once may be a hiccup; twice in a row is reported.
            if (kind, name) in trials.failed:
                self._reject(child, error, trials)
            trials.failed.add((kind, name))
            return False
        except TRANSIENT:
            raise
        except ApiError as error:
            if _is_an_order(child) and error.reason == _INVALID:
                await self._read_order(child, error, trials)
            self._reject(child, error, trials)
            return False
        trials.rejections.pop((kind, name), None)
        trials.failed.discard((kind, name))
        trials.applied[kind, name] = child, applied["metadata"]["resourceVersion"]
        self._stores.note(applied)
        if before is None:
            self._log.info("child made", kind=kind, name=name)
        else:
            others, field = additions(before, child), drift(before, child)
            self._log.info("child changed", kind=kind, name=name, field=field, set_by=others)
        return True

    async def _write(self, child: Json) -> Json:
        if kind_of(child) in _MADE_BY_NAME:
            return await self._client.apply(child)
        if "uid" in child["metadata"]:
            await self._client.own_by_apply(child)
            return await self._client.apply(child)
        if kind_of(child) is kinds.LEDGER:
            await self._require_job(child)
        return await self._client.create(child)

    async def _require_job(self, ledger: Json) -> None:
        """A ledger outlives its job, and nobody may delete it: none is made for one that is gone.

        A watch may say so late, as after an outage.
        """
        spec, namespace = ledger["spec"], ledger["metadata"]["namespace"]
        job = (await self._client.get(kinds.JOB, namespace, spec["jobName"]))["metadata"]
        if job["uid"] != spec["jobUID"] or "deletionTimestamp" in job:
            raise Conflict(409, "Conflict", f"the job {spec['jobName']} is gone")

    async def _read_order(self, ledger: Json, error: ApiError, trials: Trials) -> None:
        """An order of that generation may have been given already, which no watch has reported yet.

        As by an operator before this one, or by a write whose answer was lost. Where it is refused
        again though the ledger was read anew, it is not that.

        Raises
        ------
        Conflict
            For the first time in a row.
        """
        metadata, known = ledger["metadata"], _child(ledger)
        if known in trials.failed:
            return
        trials.failed.add(known)
        self._stores.note(
            await self._client.get(kinds.LEDGER, metadata["namespace"], metadata["name"])
        )
        raise Conflict(409, "Conflict", error.message) from error

    def _reject(self, child: Json, error: ApiError, trials: Trials) -> None:
        kind, name = _child(child)
        if (kind, name) not in trials.rejections:
            self._log.warning("child refused", kind=kind, name=name, error=error.message)
        trials.rejections[kind, name] = Rejection(kind, name, error.message)
        if error.reason == _INVALID:
            trials.invalid[kind, name] = child, time.monotonic() + _INVALID_SECONDS

    async def _delete(self, reference: ObjectRef) -> None:
        kind = kind_of({"apiVersion": reference.api_version, "kind": reference.kind})
        try:
            await self._client.delete(
                kind,
                reference.namespace,
                reference.name,
                reference.uid,
                by_force=reference.by_force,
            )
        except NotFound:
            return
        self._log.info("deleted", kind=reference.kind, name=reference.name)


def _is_an_order(child: Json) -> bool:
    """Whether it is for a ledger that is there: nothing of that is written but its next order."""
    return kind_of(child) is kinds.LEDGER and "uid" in child["metadata"]


def _is_invalid(child: Json, trials: Trials) -> bool:
    """Whether this very object was found invalid a while ago."""
    known, until = trials.invalid.get(_child(child), (None, 0.0))
    return known == child and time.monotonic() < until


def _child(obj: Json) -> Child:
    return obj["kind"], obj["metadata"]["name"]
