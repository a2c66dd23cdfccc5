"""All that is known about one job, gathered into one `Observed`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

import structlog

from dtjob_api.derive import plan_request
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.proven import proven_draws
from dtjob_api.reasons import ConditionType, Phase, Reason
from dtjob_api.wire import positions
from dtjob_api.wire.positions import Role
from dtjob_operator.kube.api_errors import ApiError, NoSuchKind, NotFound
from dtjob_operator.kube.api_server_address import ApiServerWatch
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.store import Key, Stores
from dtjob_operator.observe import earlier_work, lost_labels
from dtjob_operator.observe.epsilons import Epsilons
from dtjob_operator.observe.plans import Plans
from dtjob_operator.observe.scrape import Scraper
from dtjob_operator.read.events import by_child
from dtjob_operator.read.pod_status import disruption, has_outlived, running_since
from dtjob_operator.read.status_conditions import condition, is_terminal, is_true
from dtjob_operator.read.stored_job import child_of, parsed_if_readable
from dtjob_operator.terms import formatting, kinds, names
from dtjob_operator.terms.kinds import Json, Kind
from dtjob_operator.terms.observed import Child, EarlierRun, EventsByObject, Observed

_EVENTS_FRESH_SECONDS = 2.0
# As the node's lifecycle controller calls what it does to the pods of a node that is gone.
_BY_TAINT = "DeletionByTaintManager"


EventIdentity = tuple[str, str, str]
"""What distinguishes an Event from others of its job: `Event.identity`."""


@dataclass
class Memory:
    """What this process remembers of a job's last reconciliations.

    Attributes
    ----------
    recorded
        Events that were recorded for a status that is not written yet.
    events, unlabelled
        As they were last answered, for when the API server does not answer.
    """

    job_uid: str
    status_written: datetime | None = None
    recorded: set[EventIdentity] = field(default_factory=set)
    events: EventsByObject = field(default_factory=dict)
    unlabelled: tuple[Json, ...] = ()


class Observer:
    """Reads stores, the API server where a store may lag, the coordinator and the accountant.

    Parameters
    ----------
    unguarded
        Says why the API server does not guard ledgers; None while it does.
    """

    def __init__(
        self,
        client: KubeClient,
        stores: Stores,
        plans: Plans,
        epsilons: Epsilons,
        scraper: Scraper,
        api_server: ApiServerWatch,
        unguarded: Callable[[], str | None],
    ) -> None:
        self._client = client
        self._stores = stores
        self._plans = plans
        self._epsilons = epsilons
        self._scraper = scraper
        self._api_server = api_server
        self._unguarded = unguarded
        self._warnings: dict[str, tuple[float, dict[str, EventsByObject]]] = {}
        # A namespace's lock is gone as soon as nobody holds it or waits for it.
        self._listing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._log = structlog.get_logger("assemble")

    async def observe(self, key: Key, job: Json, memory: Memory, taken: set[Child]) -> Observed:
        """All that a decision about a job depends on.

        Parameters
        ----------
        taken
            Children that could not be created, since the API server has objects of their names
            that no watch reports: they are asked for, and left out once that is over.
        """
        namespace, uid = key[0], job["metadata"]["uid"]
        name = child_of(job)
        parsed = parsed_if_readable(job)
        pods = tuple(
            pod
            for pod in self._stores[kinds.POD].of_job(namespace, uid)
            if names.position_of(name, pod) is not None
        )
        sets = await self._stateful_sets(namespace, name, pods, taken)
        ledger, undefined = await self._ledger(job, name, sets, taken)
        done, earlier = (None, ()) if ledger else self._earlier_work(job, parsed)
        ledger = ledger or done
        is_final = ledger is not None and _status_reports_epsilon(job, ledger)
        memory.events = await self._events(job, name, memory.events)
        missed = lost_labels.missed(sets, name, pods, memory.events)
        memory.unlabelled = await self._unlabelled(job, name, missed, memory.unlabelled)
        known = {pod["metadata"]["name"] for pod in pods}
        pods += tuple(
            pod
            for pod in memory.unlabelled
            if names.position_of(name, pod) is not None and pod["metadata"]["name"] not in known
        )
        if ledger is not None and _ends_unrecorded(job, ledger, name, pods):
            # What a pod wrote before it went is in the API server, and maybe not in the store yet.
            ledger = await self._newest_ledger(ledger)
        return Observed(
            job=job,
            parsed=parsed,
            ledger=ledger,
            is_done_before=done is not None,
            earlier_runs=earlier,
            ledgers_undefined=undefined,
            coordinator_set=sets[Role.COORDINATOR],
            worker_set=sets[Role.WORKER],
            autoscaler=await self._child(kinds.AUTOSCALER, namespace, name, taken),
            disruption_budget=await self._child(kinds.DISRUPTION_BUDGET, namespace, name, taken),
            network_policy=await self._child(kinds.NETWORK_POLICY, namespace, name, taken),
            service=await self._child(kinds.SERVICE, namespace, name, taken),
            service_account=self._stores[kinds.SERVICE_ACCOUNT].get(
                namespace, kinds.WORKER_ACCOUNT
            ),
            role_binding=self._stores[kinds.ROLE_BINDING].get(namespace, kinds.WORKER_ACCOUNT),
            pods=pods,
            nodes=await self._nodes(pods),
            claim=await self._claim(namespace, name, ledger) if done is None else None,
            unlabelled={
                pod["metadata"]["name"]: lost_labels.of_pod(job, name, pod)
                for pod in memory.unlabelled
            },
            api_server=self._api_server.endpoints(),
            events=memory.events,
            report=self._scraper.report(namespace, uid),
            report_trouble=self._scraper.trouble(namespace, uid),
            **self._privacy(key, parsed, ledger, is_final=is_final),
            unguarded=self._unguarded(),
            status_written=memory.status_written,
            jobs_running=self._scraper.coordinators,
        )

    def _privacy(
        self, key: Key, job: DistributedTrainingJob | None, ledger: Json | None, *, is_final: bool
    ) -> dict[str, Any]:
        """What the accountant says: of the plan until there is a ledger, and then of what is spent.

        A job that can't be read has no plan: its status says so, and another version may read it.
        """
        if ledger is not None:
            spent = self._epsilons.spent(key, ledger, is_final=is_final)
            return {
                "spent": spent,
                "spent_at_most": None if is_final else self._epsilons.at_most(ledger),
                "spent_pending": not is_final and self._epsilons.is_pending(ledger),
            }
        if job is None:
            return {}
        request = plan_request(job.spec)
        return {
            "privacy_plan": self._plans.plan(key, request),
            "planning_trouble": self._plans.trouble(request),
            "plans_before": self._plans.before(request),
        }

    async def _child(self, kind: Kind, namespace: str, name: str, taken: set[Child]) -> Json | None:
        """A child as a watch reports it, or as the API server has it where its name is taken.

        The watch may lag behind, and an object without the job's label is never in it.
        """
        if known := self._stores[kind].get(namespace, name):
            taken.discard((kind.name, name))
            return known
        if (kind.name, name) not in taken:
            return None
        found = await self._looked_up(kind, namespace, name)
        if found is None:
            taken.discard((kind.name, name))
        return found

    async def _looked_up(self, kind: Kind, namespace: str, name: str) -> Json | None:
        try:
            return await self._client.get(kind, namespace, name)
        except NotFound:
            return None

    async def _ledger(
        self, job: Json, name: str, sets: Mapping[Role, Json | None], taken: set[Child]
    ) -> tuple[Json | None, bool]:
        """The job's ledger, and whether there is none because the kind is not there.

        One that there should be is asked for before its loss is reported.
        """
        namespace = job["metadata"]["namespace"]
        found = await self._child(kinds.LEDGER, namespace, name, taken)
        has_claim = self._stores[kinds.CLAIM].get(namespace, names.claim_of(name)) is not None
        if found is not None or not (has_claim or any(sets.values()) or _had_ledger(job)):
            return found, False
        try:
            return await self._client.get(kinds.LEDGER, namespace, name), False
        except NoSuchKind:
            return None, True
        except NotFound:
            return None, False

    def _earlier_work(
        self, job: Json, parsed: DistributedTrainingJob | None
    ) -> tuple[Json | None, tuple[EarlierRun, ...]]:
        """The ledger of an earlier job that makes this one needless, and what others have spent."""
        if parsed is None or not earlier_work.is_looked_for(job):
            return None, ()
        metadata = job["metadata"]
        ledgers = self._stores[kinds.LEDGER].named(metadata["namespace"], f"{metadata['name']}-")
        same = list(earlier_work.of_same_work(parsed, ledgers))
        return earlier_work.completed(parsed, same), earlier_work.spent(same)

    async def _newest_ledger(self, known: Json) -> Json:
        """A ledger as the API server has it now; the one that is known where it does not say."""
        metadata = known["metadata"]
        try:
            return await self._client.get(kinds.LEDGER, metadata["namespace"], metadata["name"])
        except ApiError as error:
            self._log.info("ledger not read", error=error.message, status=error.status)
            return known

    async def _stateful_sets(
        self, namespace: str, child: str, pods: Iterable[Json], taken: set[Child]
    ) -> dict[Role, Json | None]:
        """The job's StatefulSets; one that has pods is asked for where no watch reports it."""
        found: dict[Role, Json | None] = {}
        roles = {positions.role_at(names.position_of(child, pod) or 0) for pod in pods}
        for role in Role:
            name = positions.set_name(child, role)
            known = await self._child(kinds.STATEFUL_SET, namespace, name, taken)
            if known is None and role in roles:
                known = await self._looked_up(kinds.STATEFUL_SET, namespace, name)
            found[role] = known
        return found

    async def _unlabelled(
        self, job: Json, child: str, missed: tuple[str, ...], known: tuple[Json, ...]
    ) -> tuple[Json, ...]:
        """Pods that exist though their StatefulSet misses them.

        To a watch by label they may seem deleted, so they are looked up by name. While the API
        server does not answer, those `known` are returned.
        """
        found: list[Json] = []
        try:
            for pod in missed:
                listed, _ = await self._client.list(
                    kinds.POD,
                    namespace=job["metadata"]["namespace"],
                    field_selector=f"metadata.name={pod}",
                )
                found += listed
        except ApiError as error:
            self._log.info("pods not asked for", error=error.message, status=error.status)
            return tuple(pod for pod in known if pod["metadata"]["name"] in missed)
        return tuple(pod for pod in found if lost_labels.of_pod(job, child, pod))

    async def _nodes(self, pods: Iterable[Json]) -> dict[str, Json | None]:
        """The nodes of pods that should have gone, or that their node's taint has deleted."""
        now, found = datetime.now(UTC), dict[str, Json | None]()
        for pod in pods:
            name = (pod.get("spec") or {}).get("nodeName")
            if not name or name in found or "deletionTimestamp" not in pod["metadata"]:
                continue
            if not has_outlived(pod, now, timedelta()) and disruption(pod) != _BY_TAINT:
                continue
            try:
                found[name] = await self._client.get(kinds.NODE, None, name)
            except NotFound:
                found[name] = None
            except ApiError as error:  # an operator of some namespaces may not read nodes
                self._log.info("node not read", error=error.message, status=error.status)
        return found

    async def _claim(self, namespace: str, child: str, ledger: Json | None) -> Json | None:
        """The checkpoint claim, which may hold spent draws once a worker has written to the ledger.

        It is looked up before it is reported lost: the store may lag behind, and a claim without
        our label is never in it.
        """
        status, name = (ledger or {}).get("status", {}), names.claim_of(child)
        if not status or "outcome" in status:
            return self._stores[kinds.CLAIM].get(namespace, name)
        known = self._stores[kinds.CLAIM].get(namespace, name)
        return known or await self._looked_up(kinds.CLAIM, namespace, name)

    async def _events(self, job: Json, child: str, known: EventsByObject) -> EventsByObject:
        """Warnings about the job's StatefulSets, pods and claim, while workers come up.

        They only help to explain: where they can't be listed now, those that were `known` do.
        """
        status = job.get("status") or {}
        resized = condition(status, ConditionType.RESIZED) or {}
        is_quiet = status.get("phase") in {Phase.RUNNING, Phase.SUSPENDED}
        if is_terminal(status) or (is_quiet and resized.get("reason") != Reason.ADDING_WORKERS):
            return {}
        try:
            warnings = await self._warnings_of(job["metadata"]["namespace"])
        except ApiError as error:
            self._log.info("warnings not listed", error=error.message, status=error.status)
            return known
        return warnings.get(child, {})

    async def _warnings_of(self, namespace: str) -> dict[str, EventsByObject]:
        """All warnings of a namespace, listed once for all of its jobs that ask together."""
        async with self._listing.setdefault(namespace, asyncio.Lock()):
            now = time.monotonic()
            self._warnings = {
                other: entry
                for other, entry in self._warnings.items()
                if now - entry[0] <= _EVENTS_FRESH_SECONDS
            }
            if namespace not in self._warnings:
                events, _ = await self._client.list(
                    kinds.EVENT, namespace=namespace, field_selector="type=Warning"
                )
                self._warnings[namespace] = time.monotonic(), by_child(events)
            return self._warnings[namespace][1]


def _had_ledger(job: Json) -> bool:
    """Whether the status says that a plan was fixed, or that the ledger was missing before."""
    status: Json = job.get("status") or {}
    running = condition(status, ConditionType.RUNNING) or {}
    return is_true(status, ConditionType.ACCEPTED) or running.get("reason") == Reason.LEDGER_MISSING


def _ends_unrecorded(job: Json, ledger: Json, name: str, pods: tuple[Json, ...]) -> bool:
    """Whether a job has just stopped running, and its ledger does not say how."""
    attempts = (ledger.get("status") or {}).get("attempts") or []
    if (job.get("status") or {}).get("phase") != Phase.RUNNING or not attempts:
        return False
    first = positions.pod_name(name, 0)
    runs = any(p["metadata"]["name"] == first and running_since(p) is not None for p in pods)
    return not runs and "end" not in attempts[-1]


def _status_reports_epsilon(job: Json, ledger: Json) -> bool:
    """Whether a job has ended and its status has the epsilon of all draws that are spent.

    Then nobody waits for it. It proves nothing: whoever may write a job's status can write one.
    """
    status: Json = job.get("status") or {}
    privacy: Json = status.get("privacy") or {}
    spent = proven_draws(ledger.get("status") or {})
    shown = formatting.decimal(privacy.get("epsilonSpent"))
    return is_terminal(status) and shown is not None and privacy.get("epsilonDraws") == spent
