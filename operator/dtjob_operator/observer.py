"""Puts together all that is known about one job."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime

from dtjob_api.derive import child_name
from dtjob_api.reasons import Phase
from dtjob_operator import kinds
from dtjob_operator.cluster import Cluster
from dtjob_operator.errors import NotFound
from dtjob_operator.events import last_seen
from dtjob_operator.kinds import Json, Kind
from dtjob_operator.observed import Observed, Rejection
from dtjob_operator.privacy import Accounting
from dtjob_operator.scrape import Scraper
from dtjob_operator.store import Key, Store

_QUIET_PHASES = {Phase.RUNNING.value, Phase.SUCCEEDED.value, Phase.FAILED.value}
_EVENTS_FRESH_SECONDS = 2.0


class Stores:
    """What is known of every kind."""

    def __init__(self) -> None:
        self._by_kind = {kind: Store() for kind in kinds.ALL}

    def __getitem__(self, kind: Kind) -> Store:
        return self._by_kind[kind]

    def note(self, obj: Json) -> None:
        """Remember the API server's answer to a write of ours, before its watch tells of it."""
        self._by_kind[kinds.kind_of(obj)].put(kinds.without_managed_fields(obj))


@dataclass
class Memory:
    """What this process remembers of a job's last reconciliations."""

    job_uid: str
    status_written: datetime | None = None
    rejections: dict[tuple[str, str], Rejection] = field(default_factory=dict)
    steps: int = 0
    """Reconciliations in a row that changed children."""


class Observer:
    """Reads stores, the API server where a store may lag, the coordinator and the accountant."""

    def __init__(
        self, cluster: Cluster, stores: Stores, accounting: Accounting, scraper: Scraper
    ) -> None:
        self._cluster = cluster
        self._stores = stores
        self._accounting = accounting
        self._scraper = scraper
        self._warnings: dict[str, tuple[float, list[Json]]] = {}
        self._listing = asyncio.Lock()

    async def observe(self, key: Key, job: Json, memory: Memory) -> Observed:
        """All that a decision about a job depends on."""
        namespace, uid = key[0], job["metadata"]["uid"]
        name = child_name(key[1], uid)
        ledger = await self._child(kinds.LEDGER, namespace, name)
        return Observed(
            job=job,
            ledger=ledger,
            stateful_set=await self._child(kinds.STATEFUL_SET, namespace, name),
            service=await self._child(kinds.SERVICE, namespace, name),
            service_account=self._stores[kinds.SERVICE_ACCOUNT].get(
                namespace, kinds.WORKER_ACCOUNT
            ),
            role_binding=self._stores[kinds.ROLE_BINDING].get(namespace, kinds.WORKER_ACCOUNT),
            pods=self._stores[kinds.POD].of_job(uid),
            claims=self._stores[kinds.CLAIM].of_job(uid),
            events=await self._events(job),
            report=self._scraper.report(uid),
            # Once there is a ledger its plan is the plan, and none is computed (Rule 9).
            privacy_plan=None if ledger else self._accounting.plan(key, job),
            epsilon_spent=self._accounting.epsilon_spent(key, ledger) if ledger else None,
            rejections=tuple(memory.rejections.values()),
            status_written=memory.status_written,
        )

    async def _child(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """A child; one that seems missing is asked for, since it is about to be made.

        The store may lag behind, and an object that is not ours is never in it.
        """
        if known := self._stores[kind].get(namespace, name):
            return known
        try:
            return kinds.without_managed_fields(await self._cluster.get(kind, namespace, name))
        except NotFound:
            return None

    async def _events(self, job: Json) -> tuple[Json, ...]:
        """Warnings about the job's StatefulSet, pods and claims, newest first, until it runs."""
        if job.get("status", {}).get("phase") in _QUIET_PHASES:
            return ()
        child = child_name(job["metadata"]["name"], job["metadata"]["uid"])

        def concerns(event: Json) -> bool:
            about = event["involvedObject"]
            kind, name = about.get("kind"), about.get("name", "")
            return (
                (kind == "StatefulSet" and name == child)
                or (kind == "Pod" and name.startswith(f"{child}-"))
                or (kind == "PersistentVolumeClaim" and f"-{child}-" in name)
            )

        events = await self._warnings_of(job["metadata"]["namespace"])
        return tuple(sorted(filter(concerns, events), key=last_seen, reverse=True))

    async def _warnings_of(self, namespace: str) -> list[Json]:
        """All warnings of a namespace, listed once for all of its jobs that ask together."""
        async with self._listing:
            now = time.monotonic()
            self._warnings = {
                other: entry
                for other, entry in self._warnings.items()
                if now - entry[0] <= _EVENTS_FRESH_SECONDS
            }
            if namespace not in self._warnings:
                events, _ = await self._cluster.list(
                    kinds.EVENT, namespace=namespace, field_selector="type=Warning"
                )
                self._warnings[namespace] = time.monotonic(), events
            return self._warnings[namespace][1]
