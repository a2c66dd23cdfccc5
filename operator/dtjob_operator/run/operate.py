"""The operator's parts, wired together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

import structlog

from dtjob_accounting.process import PldProcess
from dtjob_operator.kube import guard
from dtjob_operator.kube.api_errors import ApiError, explained
from dtjob_operator.kube.api_server_address import ADDRESSES_NAMESPACE, ApiServerWatch
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.event_stream import EventStream
from dtjob_operator.kube.reflector import Reflector
from dtjob_operator.kube.store import Key, Stores
from dtjob_operator.kube.trimmed import trimmed
from dtjob_operator.observe.assemble import Observer
from dtjob_operator.observe.epsilons import Epsilons
from dtjob_operator.observe.plans import Plans
from dtjob_operator.observe.scrape import Scraper
from dtjob_operator.run.metrics import Metrics, State
from dtjob_operator.run.reconcile import Reconciler
from dtjob_operator.run.scope import Scope
from dtjob_operator.run.work_queue import WorkQueue
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import JOB_LABEL, Json, Kind
from dtjob_operator.terms.settings import Enforcement, Settings

_PER_NAMESPACE = (kinds.SERVICE_ACCOUNT, kinds.ROLE_BINDING)
_IN_MANY_STEPS = (kinds.POD, kinds.STATEFUL_SET)
_RETRY_SECONDS = 2.0
_UNGUARDED_SECONDS = 15.0
# A request takes 15 s at most, and whatever is done for a job begins and ends with one.
_STALLED_SECONDS = 60.0
# Of the 30 s that the pod has for its stop; whoever reads its figures has 10 s more.
_FINISH_SECONDS = 10.0


@dataclass(frozen=True)
class Options:
    """How the operator runs.

    Attributes
    ----------
    namespace
        Its own, where the canary ledger lies.
    concurrency
        Jobs that are reconciled at a time.
    resync_seconds
        How often all jobs are listed anew and every one is looked at.
    scrape_seconds
        How often a running job's coordinator is asked for its report.
    watch_namespaces, monitoring_namespaces, api_server_cidrs, enforcement
        As in `Settings`.
    """

    namespace: str
    concurrency: int = 8
    resync_seconds: float = 300.0
    scrape_seconds: float = 5.0
    watch_namespaces: tuple[str, ...] = ()
    monitoring_namespaces: tuple[str, ...] = ()
    api_server_cidrs: tuple[str, ...] = ()
    enforcement: Enforcement = Enforcement.UNKNOWN


class Operator:
    """Everything that runs while the operator runs, in one event loop."""

    def __init__(
        self, client: KubeClient, process: PldProcess, metrics: Metrics, options: Options
    ) -> None:
        self._client = client
        self._options = options
        self._stores = Stores(options.watch_namespaces)
        self._queue = WorkQueue()
        self._metrics = metrics
        self._scraper = Scraper(self._queue.add, options.scrape_seconds, metrics.count_report)
        self._plans = Plans(process, self._queue.add)
        self._epsilons = Epsilons(process, self._queue.add)
        self._unguarded: str | None = None
        self._api_server = ApiServerWatch(client, self._enqueue_all, metrics.count_odd_object)
        self._observer = Observer(
            client,
            self._stores,
            self._plans,
            self._epsilons,
            self._scraper,
            self._api_server,
            lambda: self._unguarded,
        )
        settings = Settings(
            operator_namespace=options.namespace,
            watch_namespaces=options.watch_namespaces,
            monitoring_namespaces=options.monitoring_namespaces,
            api_server_cidrs=options.api_server_cidrs,
            enforcement=options.enforcement,
        )
        self._reconciler = Reconciler(client, self._stores, self._observer, settings, metrics)
        self._scopes = [
            Scope(client, namespace, jobs, self._reflectors(namespace), self._on_change(kinds.JOB))
            for namespace, jobs in self._stores.parts(kinds.JOB)
        ]
        self._stream = EventStream(
            self._receive,
            self._recheck,
            self._discovery_obstacle,
            metrics.count_restart,
            self._open_namespaces if options.watch_namespaces else None,
        )
        self._first_opened = asyncio.Event()
        self._closed_before: dict[str, str] = {}
        self._policy_trouble: str | None = None
        self._starting: str | None = "the API server has not answered yet"
        self._tasks: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger("operator")
        metrics.show(
            State(self._stores[kinds.JOB], self._stores[kinds.POD], self._queue, self.closed)
        )

    def trouble(self) -> str | None:
        """Why no jobs are looked after at the moment; None while some are.

        Of a namespace that has to wait while others are looked after `closed` says more.
        """
        found = [scope.trouble for scope in self._scopes]
        known = next((each for each in found if each), None)
        if self._starting:
            return known or self._starting
        return self._unguarded or self._stream.trouble or (known if all(found) else None)

    def closed(self) -> dict[str, str]:
        """Those of the watched namespaces whose jobs are not looked after, and why."""
        return {
            scope.namespace: scope.trouble or "it is not listed yet"
            for scope in self._scopes
            if scope.namespace is not None and not scope.is_open
        }

    def standstill(self) -> str | None:
        """What does not move any more, so that only a new process helps; None while all does."""
        seconds = self._queue.stalled_seconds()
        if self._starting is None and seconds > _STALLED_SECONDS:
            return f"jobs wait, and no reconciliation has begun or ended for {seconds:.0f} s"
        return next((f"{task.get_name()} has ended" for task in self._tasks if task.done()), None)

    async def run(self) -> None:
        """Prove the guard, fill the stores, then reconcile until cancelled.

        Raises
        ------
        guard.Unguarded
            The API server does not protect ledgers.
        """
        if watched := self._options.watch_namespaces:
            self._log.info("other namespaces than these are not looked at", watched=list(watched))
        if not self._watches(ADDRESSES_NAMESPACE):
            self._log.info(
                "the API server's addresses are not looked for, which are in a namespace that is "
                "not watched; --api-server-cidr names them"
            )
        await self._prove_guard()
        async with asyncio.TaskGroup() as group:

            def begin(name: str, work: Coroutine[Any, Any, None]) -> None:
                self._tasks.append(group.create_task(work, name=name))

            for scope in self._scopes:
                within = f" in {scope.namespace}" if scope.namespace else ""
                for reflector in scope.reflectors:
                    begin(f"the watch of {reflector.kind.plural}{within}", reflector.run())
                begin(f"the list of jobs{within}", scope.attend(self._opened))
            for scope in self._scopes:
                await scope.settled.wait()
            await self._first_opened.wait()
            if self._watches(ADDRESSES_NAMESPACE):
                begin("the watch of the API server's addresses", self._api_server.run())
                await self._api_server.tried()
            self._enqueue_all()
            self._starting = None
            group.create_task(self._check_policy())
            begin("the stream of events on jobs", self._stream.run())
            begin("the regular look at all jobs", self._resync_regularly())
            begin("the work on jobs", self._reconcile())
            self._log.info("started", jobs=len(self._stores[kinds.JOB]))

    async def close(self) -> None:
        """Give up what was opened when it was made."""
        self._plans.close()
        self._epsilons.close()
        await self._scraper.close()

    async def _reconcile(self) -> None:
        """Work on the queue; when cancelled finish what is under way, within seconds.

        Where the API server does not answer, what is left is given up: the next operator sees it.
        """
        work = asyncio.create_task(self._queue.run(self._work, self._options.concurrency))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._queue.close()
            await asyncio.wait({work}, timeout=_FINISH_SECONDS)
            work.cancel()
            await asyncio.wait({work})
            raise

    async def _work(self, key: Key) -> float | None:
        """Nothing is done for jobs of which not all is known."""
        if key[0] in self._closed_before:
            return None
        return await self._reconciler(key)

    async def _prove_guard(self) -> None:
        while True:
            try:
                await guard.prove(self._client, self._options.namespace)
                break
            except ApiError as error:
                self._starting = explained(error)
                self._log.warning("waiting for the API server", error=error.message)
                await asyncio.sleep(_RETRY_SECONDS)
        self._metrics.ledgers_guarded.set(1)
        self._starting = "what the cluster holds is not listed yet"
        self._log.info("the API server guards ledgers")

    async def _prove_guard_again(self) -> None:
        """Where it has lapsed nothing new is begun until it holds again; pods are left alone.

        Where it can't be tried the last result stands.
        """
        try:
            lapsed = await guard.lapse(self._client, self._options.namespace)
        except ApiError as error:
            self._log.warning("whether ledgers are guarded can't be tried", error=error.message)
            return
        if lapsed is not None and self._unguarded is None:
            self._log.critical("ledgers are not protected; no work is begun", error=lapsed)
        elif lapsed is None and self._unguarded is not None:
            self._log.info("the API server guards ledgers again")
        self._unguarded = lapsed
        self._metrics.ledgers_guarded.set(lapsed is None)

    async def _check_policy(self) -> None:
        """Say so if nothing but the ledger's own rules protects it, once for each change."""
        trouble: str | None = None
        try:
            active = await guard.policy_is_active(self._client, self._options.namespace)
        except ApiError as error:  # nothing is known: what was found before stands in the metric
            trouble = f"the admission policy {guard.WRITER_POLICY} can't be tried: {error.message}"
        else:
            self._metrics.policy_enforced.set(active)
            if not active:
                trouble = (
                    f"the admission policy {guard.WRITER_POLICY} does not work here: ledgers "
                    "can't be lowered, but others than their coordinator could raise or delete them"
                )
        if trouble != self._policy_trouble:
            if trouble is None:
                self._log.info(f"the admission policy {guard.WRITER_POLICY} works again")
            else:
                self._log.warning(trouble)
        self._policy_trouble = trouble

    async def _discovery_obstacle(self) -> str | None:
        """Why kopf would not find jobs; None where it would."""
        if not any(scope.is_open for scope in self._scopes):
            return "; ".join(self.closed().values()) or "jobs are not listed yet"
        try:
            served = await self._client.served(kinds.JOB.api_version)
        except ApiError as error:
            return error.message
        if kinds.JOB.plural in served:
            return None
        return (
            f"the API server's discovery of {kinds.JOB.api_version} does not list "
            f"{kinds.JOB.plural}: it has just started, or there is no such definition"
        )

    def _reflectors(self, namespace: str | None) -> Iterator[Reflector]:
        for selection in kinds.WATCHED:
            yield Reflector(
                self._client,
                replace(selection, namespace=namespace),
                dict(self._stores.parts(selection.kind))[namespace],
                self._on_change(selection.kind),
                self._metrics.count_odd_object,
            )

    def _open_namespaces(self) -> list[str]:
        return [each.namespace for each in self._scopes if each.namespace and each.is_open]

    def _opened(self) -> None:
        """Look at the jobs of one more scope, and have news of them from now on."""
        self._first_opened.set()
        self._note_closed()
        if self._starting is None:
            self._enqueue_all()
            self._stream.restart()

    def _note_closed(self) -> None:
        """Say which namespaces have to wait, once for each change."""
        closed = self.closed()
        for namespace, trouble in closed.items():
            if self._closed_before.get(namespace) != trouble:
                self._log.warning(
                    "jobs of a namespace are not looked after", namespace=namespace, error=trouble
                )
        for namespace in self._closed_before.keys() - closed:
            self._log.info("jobs of a namespace are looked after again", namespace=namespace)
        self._closed_before = closed

    async def _resync(self) -> None:
        """List jobs anew and look at every one; where that fails it is tried until it works."""
        followed = self._open_namespaces()
        for scope in self._scopes:
            if not scope.is_open:
                continue
            if await scope.look_again():
                self._log.warning("resource versions went back; was etcd restored?")
                # What watches wait for is not there yet, or was passed over.
                for reflector in scope.reflectors:
                    reflector.begin_anew()
                self._stream.restart()
        if self._open_namespaces() != followed:
            self._stream.restart()  # else it would end by what is forbidden
        self._note_closed()
        self._enqueue_all()

    def _watches(self, namespace: str) -> bool:
        watched = self._options.watch_namespaces
        return not watched or namespace in watched

    def _enqueue_all(self) -> None:
        for job in self._stores[kinds.JOB]:
            self._enqueue(kinds.JOB, job)

    async def _recheck(self) -> None:
        """Look at everything anew, and first of all at the guard."""
        await self._prove_guard_again()
        await self._resync()

    async def _resync_regularly(self) -> None:
        while True:
            pause = self._options.resync_seconds
            await asyncio.sleep(min(pause, _UNGUARDED_SECONDS) if self._unguarded else pause)
            await self._recheck()
            await self._check_policy()

    def _receive(self, obj: Json, exists: bool) -> None:
        """News of a job."""
        job, store = trimmed(obj, kinds.JOB), self._stores[kinds.JOB]
        if store.put(job) if exists else store.remove(job):
            self._enqueue(kinds.JOB, job)

    def _on_change(self, kind: Kind) -> Callable[[Json], None]:
        def enqueue(obj: Json) -> None:
            if kind is kinds.POD:
                metadata = obj["metadata"]
                known = self._stores[kind].get(metadata["namespace"], metadata["name"])
                self._scraper.pod_changed(obj, exists=known is not None)
            self._enqueue(kind, obj)

        return enqueue

    def _enqueue(self, kind: Kind, obj: Json) -> None:
        """Ask for the jobs that an object concerns."""
        metadata = obj["metadata"]
        namespace = metadata["namespace"]
        if kind is kinds.JOB:
            self._queue.add((namespace, metadata["name"]))
        elif kind is kinds.LEDGER:
            self._queue.add((namespace, obj["spec"]["jobName"]))
        elif kind in _PER_NAMESPACE:
            for job in self._stores[kinds.JOB]:
                if job["metadata"]["namespace"] == namespace:
                    self._queue.add((namespace, job["metadata"]["name"]))
        elif name := metadata.get("labels", {}).get(JOB_LABEL):
            ask = self._queue.gather if kind in _IN_MANY_STEPS else self._queue.add
            ask((namespace, name))
