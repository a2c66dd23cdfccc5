"""One measurement: jobs of a bare client, then as many of the operator's, through all they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from scale import audit, bare
from scale.api import Api, Json
from scale.audit import AuditLog, Write
from scale.bare import Pattern
from scale.control_plane import OPERATOR_NAMESPACE, ControlPlane
from scale.coordinators import Coordinators
from scale.course import Course, some_at_once, until
from scale.figures import Bare, Deletion, Figures, Restart, Span, Spent, Steady
from scale.process import OperatorProcess
from scale.volumes import VOLUMES, Provisioner

from dtjob_api.model import API_VERSION
from dtjob_operator.terms import kinds

NAMESPACE = "scale"
_ACCOUNT, _CLIENT = "dtjob-operator", "bare-client"
_SETTLED_SECONDS, _QUIET_SECONDS, _MOST_SECONDS = 2.0, 20.0, 90.0
_STEADY_SECONDS, _LATE_SECONDS, _QUICK_SECONDS = 30.0, 10.0, 3.0
_PATTERN, _ALONE, _BESIDE = "pattern-job", "alone-job", "beside-job"
_AFTER_RESTART = "restart-job"


def manifest(name: str, workers: int) -> Json:
    """A private job; all have one plan, which is calibrated once in the life of an operator."""
    return {
        "apiVersion": API_VERSION,
        "kind": kinds.JOB.name,
        "metadata": {"name": name},
        "spec": {
            "image": "example.invalid/trainer:1",
            "workers": {
                "replicas": workers,
                "gpusPerWorker": 1,
                "resources": {"requests": {"cpu": "4", "memory": "16Gi"}},
            },
            "training": {
                "entrypoint": "dtjob_trainer.tasks.digits:task",
                "steps": 336,
                "batchSize": 256,
                "optimizer": {"name": "sgd", "learningRate": 4.0},
            },
            "privacy": {"epsilon": 8, "delta": 1e-5, "maxGradNorm": 1.0, "datasetSize": 1437},
            "storage": {"checkpoints": {"size": "1Gi"}},
        },
    }


class Measurement:
    """The steps, each of which leaves the namespace as the next one wants it."""

    def __init__(
        self,
        plane: ControlPlane,
        admin: Api,
        client: Api,
        jobs: int,
        workers: int,
        *,
        quick: bool,
    ) -> None:
        self._plane, self._admin, self._client = plane, admin, client
        self._jobs, self._workers, self._quick = jobs, workers, quick
        self._patience = 120.0 + 3.0 * jobs
        user = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{_ACCOUNT}"
        self._audit = AuditLog(plane.audit_log, user)
        self._kubeconfig = plane.kubeconfig_of(OPERATOR_NAMESPACE, _ACCOUNT)
        self._log = plane.audit_log.with_name("operator.log")

    async def run(self) -> Figures:
        """All of it, in order."""
        operator, pattern = await self._warmed_up()
        operator.stop()
        bares = []
        if not self._quick:
            one_set, both = pattern.one_set_and_service(self._workers), pattern.sets_and_service()
            bares.append(await self._bare("o", "one StatefulSet, Service", one_set))
            bares.append(await self._bare("s", "both StatefulSets, claim, Service", both))
        bares.append(await self._bare("c", "the operator's children", pattern))
        alone = (await self._bare_named("", pattern, [_ALONE])).running[0]
        operator, _ = await self._warmed_up()
        return await self._operated(operator, bares[::-1], alone)

    # The bare client

    async def _warmed_up(self) -> tuple[OperatorProcess, Pattern]:
        """An operator that has looked after one job, and what it made for that.

        It has calibrated the plan then, and made what all jobs of the namespace share.
        """
        operator = OperatorProcess(self._kubeconfig, self._log)
        while not await asyncio.to_thread(lambda: operator.is_ready):
            await asyncio.sleep(0.1)
        async with self._course() as course:
            await self._post(course, [_PATTERN])
            await self._all_in(course.running, [_PATTERN])
            found = await bare.pattern(self._admin, NAMESPACE, _PATTERN)
        await self._admin.delete(kinds.JOB.path(NAMESPACE, _PATTERN))
        await self._cleared()
        return operator, found

    async def _bare(self, prefix: str, what: str, pattern: Pattern) -> Bare:
        names = [f"{prefix}-{number:04}" for number in range(self._jobs)]
        return await self._bare_named(what, pattern, names)

    async def _bare_named(self, what: str, pattern: Pattern, names: list[str]) -> Bare:
        self._audit.take()
        async with self._course() as course:
            await course.post(names, pattern.poster(self._client, NAMESPACE))
            await self._all_in(course.running, names)
            # What follows from that all pods run, as with the operator.
            written = await self._quiet(_SETTLED_SECONDS, lambda writes: writes)
        seconds = sorted(course.since_posted(course.running, names))
        whole = course.of_all(course.running, names)
        writes = audit.per_job(written, len(names))
        await bare.delete_all(self._admin, NAMESPACE)
        await self._cleared()
        return Bare(what, seconds, whole, writes)

    async def _cleared(self) -> None:
        """Delete the claims; wait until nothing is left of any job, and nobody writes any more."""
        await self._until_gone(kinds.JOB, kinds.STATEFUL_SET, kinds.POD)
        await self._admin.delete(kinds.CLAIM.path(NAMESPACE))
        await self._until_gone(kinds.CLAIM, kinds.SERVICE, kinds.ENDPOINT_SLICE)
        await self._until("volumes", VOLUMES)
        await self._quiet(_SETTLED_SECONDS, lambda writes: writes)

    # The operator

    async def _operated(
        self, operator: OperatorProcess, bares: list[Bare], alone: float
    ) -> Figures:
        names = [f"job-{number:04}" for number in range(self._jobs)]
        async with self._course() as course:
            coordinators = Coordinators(self._client, course)
            async with coordinators.serving():
                self._audit.take()
                before = operator.usage().cpu
                await self._post(course, names)
                await self._all_in(course.running, names)
                if not self._quick:  # else the status shows it together with phase Running
                    await self._all_in(course.up, names)
                to_up = self._audit.take()
                cpu_up = operator.usage().cpu - before
                began: dict[str, float] = {}

                async def begin(name: str) -> None:
                    await coordinators.begin(name)
                    began[name] = time.monotonic()

                await some_at_once(names, begin)
                await self._all_in(course.training, names)
                running = Span.of(course, course.running, names)
                up = Span.of(course, course.up, names)
                shown = sorted(course.training[name] - began[name] for name in names)
                to_training = self._audit.take()
                cpu_training = operator.usage().cpu - before
                after = [] if self._quick else await self._quiet(_QUIET_SECONDS, audit.of_operator)
                steady = await self._steady(operator)
                usage, helpers = operator.usage(), operator.helpers_usage()
                beside = await self._one_more(course, coordinators)
                operator.stop()
                restart = await self._restarted(course, coordinators, alone)
        spent = Spent(cpu_up, cpu_training, usage.peak, helpers.cpu, helpers.peak)
        deletion = await self._deleted()
        return Figures(
            jobs=self._jobs,
            workers=self._workers,
            bares=bares,
            alone=alone,
            beside=beside,
            running=running,
            up=up,
            shown=shown,
            writes_up=audit.per_job(to_up, self._jobs),
            writes_training=audit.per_job(to_up + to_training, self._jobs),
            writes_after=audit.per_job(after, self._jobs),
            refused=audit.refused(to_up + to_training),
            spent=spent,
            steady=steady,
            restart=restart,
            deletion=deletion,
        )

    async def _quiet(
        self, seconds: float, which: Callable[[list[Write]], list[Write]]
    ) -> list[Write]:
        """Wait until there were none of these writes for so long; all that were meanwhile."""
        began = last = time.monotonic()
        writes: list[Write] = []
        while time.monotonic() - last < seconds and time.monotonic() - began < _MOST_SECONDS:
            await asyncio.sleep(0.5)
            new = self._audit.take()
            writes += new
            if which(new):
                last = time.monotonic()
        return writes

    async def _steady(self, operator: OperatorProcess) -> Steady:
        seconds = _QUICK_SECONDS if self._quick else _STEADY_SECONDS
        before = operator.usage().cpu
        await asyncio.sleep(seconds)
        found = audit.of_operator(self._audit.take())
        cpu = operator.usage().cpu - before
        writes = [f"{write.verb} {write.resource} {write.name}" for write in found]
        return Steady(seconds, cpu, writes)

    async def _one_more(self, course: Course, coordinators: Coordinators) -> float:
        """A job while nothing else is to be done: the seconds until its status says that it is up.

        It trains then, as the others do.
        """
        await self._post(course, [_BESIDE])
        await self._all_in(course.up, [_BESIDE])
        (seconds,) = course.since_posted(course.up, [_BESIDE])
        await self._train(course, coordinators, _BESIDE)
        await self._quiet(_SETTLED_SECONDS, audit.of_operator)
        return seconds

    async def _train(self, course: Course, coordinators: Coordinators, name: str) -> None:
        """Let a job's coordinator begin; wait until the job's status says so."""
        await until("the coordinator", lambda: name in course.coordinators, 10)
        await coordinators.begin(name)
        await self._all_in(course.training, [name])

    async def _restarted(self, course: Course, coordinators: Coordinators, alone: float) -> Restart:
        """A new operator, and at once a job, whose coordinator begins as soon as its pods run."""
        self._audit.take()
        name = _AFTER_RESTART
        began = time.monotonic()
        operator = OperatorProcess(self._kubeconfig, self._log)
        await self._post(course, [name])
        await self._all_in(course.running, [name])
        await self._train(course, coordinators, name)
        await asyncio.sleep(_QUICK_SECONDS if self._quick else _LATE_SECONDS)
        found = audit.of_operator(self._audit.take())
        self._operator = operator
        return Restart(
            running=course.running[name] - began,
            shown=course.training[name] - began,
            alone=alone,
            cpu=operator.usage().cpu,
            writes=[
                f"{write.verb} {write.resource} {write.name}"
                for write in found
                if name not in write.name
            ],
        )

    async def _deleted(self) -> Deletion:
        self._audit.take()
        before = self._operator.usage().cpu
        began = time.monotonic()
        await self._admin.delete(kinds.JOB.path(NAMESPACE))
        await self._until_gone(
            kinds.JOB,
            kinds.POD,
            kinds.STATEFUL_SET,
            kinds.SERVICE,
            kinds.NETWORK_POLICY,
            kinds.DISRUPTION_BUDGET,
        )
        seconds = time.monotonic() - began
        left = {
            kind.plural: await self._admin.count(kind.path(NAMESPACE))
            for kind in (kinds.LEDGER, kinds.CLAIM)
        }
        writes = audit.per_job(audit.of_operator(self._audit.take()), self._jobs)
        cpu = self._operator.usage().cpu - before
        self._operator.stop()
        return Deletion(seconds, cpu, writes, left)

    # What all need

    @asynccontextmanager
    async def _course(self) -> AsyncIterator[Course]:
        course = Course(NAMESPACE, self._workers)
        async with course.followed(self._admin):
            yield course

    async def _post(self, course: Course, names: list[str]) -> None:
        async def post(name: str) -> None:
            await self._admin.post(kinds.JOB.path(NAMESPACE), manifest(name, self._workers))

        await course.post(names, post)

    async def _all_in(self, moments: dict[str, float], names: list[str]) -> None:
        def look() -> bool:
            self._plane.check()
            return all(name in moments for name in names)

        await until(f"what {len(names)} jobs are to come to", look, self._patience)

    async def _until_gone(self, *gone: kinds.Kind) -> None:
        for kind in gone:
            await self._until(kind.plural, kind.path(NAMESPACE))

    async def _until(self, what: str, path: str) -> None:
        """Wait until a collection is empty."""
        deadline = time.monotonic() + self._patience
        while (left := await self._admin.count(path)) > 0:
            if time.monotonic() > deadline:
                raise SystemExit(f"{left} {what} are still there")
            await asyncio.sleep(0.2)


async def measured(jobs: int, workers: int, *, quick: bool) -> Figures:
    """Start a control plane, measure, and leave it to the end of this process."""
    plane = ControlPlane(nodes=(jobs + 1) * workers // 8 + 2)
    plane.kubectl("create", "namespace", NAMESPACE)
    # An account, since the API server serves its administrators before all others.
    plane.kubectl("create", "serviceaccount", _CLIENT, f"--namespace={OPERATOR_NAMESPACE}")
    account = f"--serviceaccount={OPERATOR_NAMESPACE}:{_CLIENT}"
    plane.kubectl("create", "clusterrolebinding", _CLIENT, "--clusterrole=cluster-admin", account)
    of_client = plane.kubeconfig_of(OPERATOR_NAMESPACE, _CLIENT)
    async with (
        Api(plane.kubeconfig, "user") as admin,
        Api(plane.kubeconfig, "provisioner") as storage,
        Api(of_client, _CLIENT) as client,
        Provisioner(storage).working(),
    ):
        measurement = Measurement(plane, admin, client, jobs, workers, quick=quick)
        return await measurement.run()
