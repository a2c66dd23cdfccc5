"""The operator's parts together, before an API server that was restored, restarted or unguarded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from dtjob_operator.kube import guard
from dtjob_operator.kube.api_errors import ApiError
from dtjob_operator.kube.api_server_address import ApiServerWatch
from dtjob_operator.kube.event_stream import EventStream
from dtjob_operator.kube.reflector import Reflector
from dtjob_operator.observe.assemble import Memory
from dtjob_operator.observe.plans import Plans
from dtjob_operator.run.metrics import Metrics
from dtjob_operator.run.operate import Operator, Options
from dtjob_operator.terms import kinds
from tests.support.worlds.fake_cluster import FakeCluster
from tests.support.worlds.world import digits


def test_after_a_restore_of_etcd_jobs_are_believed_as_listed_and_watched_anew() -> None:
    """Watches go on from the version that is known, and hear nothing until it comes again."""

    async def scenario(operator: Operator, cluster: Any, _metrics: Metrics) -> None:
        restarted: list[None] = []
        operator._stream.restart = lambda: restarted.append(None)  # type: ignore[method-assign]
        (scope,) = operator._scopes

        cluster.version = 900
        cluster.put(digits() | {"status": {"phase": "Running"}})
        await operator._resync()
        assert not restarted

        cluster.version = 400
        cluster.put(digits() | {"status": {"phase": "Pending"}})
        await operator._resync()
        assert restarted
        (job,) = operator._stores[kinds.JOB]
        assert job["status"]["phase"] == "Pending"
        assert all(reflector._is_outdated for reflector in scope.reflectors)

        restarted.clear()
        await operator._resync()
        assert not restarted

    operating(scenario)


@pytest.mark.rule(13)
def test_a_ledger_that_tells_of_more_draws_wakes_its_job() -> None:
    async def scenario() -> None:
        cluster: Any = FakeCluster()
        process: Any = None
        operator = Operator(cluster, process, Metrics(), Options(namespace="dtjob-system"))
        metadata = {"namespace": "research", "name": "digits-0a1b2c3d"}
        ledger = {"metadata": metadata, "spec": {"jobName": "digits"}, "status": {"attempt": 1}}
        stored = cluster.put(kinds.typed(ledger, kinds.LEDGER))
        operator._stores[kinds.LEDGER].put(stored)

        changed = operator._on_change(kinds.LEDGER)
        assert not operator._queue._wanted
        found = {"volume": {"attempt": 1, "leased": 1, "charged": 300}}
        told = cluster.put(stored | {"status": stored["status"] | found})
        assert operator._stores[kinds.LEDGER].put(told)
        changed(told)
        assert operator._queue._wanted == {("research", "digits")}
        await operator.close()

    asyncio.run(scenario())


def test_a_stream_is_restarted_only_while_it_runs() -> None:
    async def gap() -> None:
        return None

    async def undiscovered() -> str | None:
        return None

    stream = EventStream(lambda *_: None, gap, undiscovered, lambda: None)
    stopped: list[None] = []

    def stop() -> None:
        stopped.append(None)
        raise RuntimeError("Event loop is closed")

    stream._stop = stop
    stream.restart()
    assert not stopped
    stream.running = True
    stream.restart()
    assert stopped


def operating(
    scenario: Callable[[Operator, Any, Metrics], Awaitable[None]], *namespaces: str
) -> None:
    async def played() -> None:
        cluster: Any = FakeCluster()
        process: Any = None
        metrics = Metrics()
        options = Options(namespace="dtjob-system", watch_namespaces=namespaces)
        operator = Operator(cluster, process, metrics, options)
        for scope in operator._scopes:
            scope.is_open = True
        await scenario(operator, cluster, metrics)
        await operator.close()

    asyncio.run(played())


def test_a_stop_does_not_wait_for_an_api_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet would kill it, 30 s after it was told to stop."""
    begun = asyncio.Event()

    async def hangs(_key: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def scenario(operator: Operator, _cluster: Any, _metrics: Metrics) -> None:
        operator._reconciler = hangs  # type: ignore[assignment]
        operator._queue.add(("research", "digits"))
        async with asyncio.timeout(60):
            working = asyncio.create_task(operator._reconcile())
            await begun.wait()
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working

    monkeypatch.setattr("dtjob_operator.run.operate._FINISH_SECONDS", 0.01)
    operating(scenario)


def test_a_kind_that_discovery_does_not_tell_of_is_named() -> None:
    async def scenario(operator: Operator, cluster: Any, _metrics: Metrics) -> None:
        assert await operator._discovery_obstacle() is None
        cluster.plurals = {kinds.LEDGER.plural}
        obstacle = await operator._discovery_obstacle()
        assert obstacle is not None
        assert kinds.JOB.plural in obstacle
        cluster.fails = lambda verb, _of: (
            ApiError.of(503, "", "away") if verb == "discover" else None
        )
        assert await operator._discovery_obstacle() == "away"

        operator._starting = None
        operator._stream._obstacle = obstacle
        assert operator.trouble() == obstacle

    operating(scenario)


def test_the_policy_is_tried_again_and_a_change_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    away = ApiError.of(503, "", "away")
    course: list[bool | ApiError] = [True, True, False, False, away, away, True]
    told: list[int] = []
    figures: list[str] = []

    async def policy_is_active(*_: object) -> bool:
        found = course.pop(0)
        if isinstance(found, ApiError):
            raise found
        return found

    async def scenario(operator: Operator, _cluster: Any, metrics: Metrics) -> None:
        assert "dtjob_ledger_policy_enforced NaN" in metrics.exposition().decode()
        while course:
            with capture_logs() as logs:
                await operator._check_policy()
            told.append(sum(log["log_level"] == "warning" for log in logs))
            line = next(
                line
                for line in metrics.exposition().decode().splitlines()
                if line.startswith("dtjob_ledger_policy_enforced")
            )
            figures.append(line.split()[1])

    monkeypatch.setattr(guard, "policy_is_active", policy_is_active)
    operating(scenario)
    assert told == [0, 0, 1, 0, 1, 0, 0]
    assert figures == ["1.0", "1.0", "0.0", "0.0", "0.0", "0.0", "1.0"]


def test_at_each_resync_the_guard_is_proved_before_jobs_are_looked_at() -> None:
    async def scenario(operator: Operator, _cluster: Any, _metrics: Metrics) -> None:
        done: list[str] = []
        twice = asyncio.Event()

        async def prove() -> None:
            done.append("prove")

        async def resync() -> None:
            done.append("resync")
            if done.count("resync") == 2:
                twice.set()

        operator._prove_guard_again = prove  # type: ignore[method-assign]
        operator._resync = resync  # type: ignore[method-assign]
        operator._check_policy = nothing  # type: ignore[method-assign]
        operator._options = Options(namespace="dtjob-system", resync_seconds=0.01)
        regularly = asyncio.create_task(operator._resync_regularly())
        async with asyncio.timeout(60):
            await twice.wait()
        regularly.cancel()
        assert done[:4] == ["prove", "resync", "prove", "resync"]

    operating(scenario)


async def nothing() -> None:
    return None


def test_a_guard_that_lapses_is_told_and_holds_up_new_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be tried stands as it was found last."""
    away = ApiError.of(503, "", "away")
    course: list[str | ApiError | None] = [None, "why", away, "why", None]
    seen: list[tuple[str | None, float, list[str]]] = []

    async def lapse(*_: object) -> str | None:
        found = course.pop(0)
        if isinstance(found, ApiError):
            raise found
        return found

    async def scenario(operator: Operator, cluster: Any, metrics: Metrics) -> None:
        operator._starting = None
        cluster.put(digits())
        while course:
            with capture_logs() as logs:
                await operator._recheck()
            levels = [log["log_level"] for log in logs]
            samples = metrics.exposition().decode().splitlines()
            line = next(each for each in samples if each.startswith("dtjob_ledgers_guarded"))
            (job,) = operator._stores[kinds.JOB]
            told = await operator._observer.observe(
                ("research", "digits"), job, Memory("uid"), set()
            )
            trouble = operator.trouble()
            assert told.unguarded == operator._unguarded
            assert (trouble == "why") == (told.unguarded == "why")
            seen.append((told.unguarded, float(line.split()[1]), levels))

    monkeypatch.setattr(guard, "lapse", lapse)
    monkeypatch.setattr(Plans, "plan", lambda *_: None)
    operating(scenario)
    assert seen == [
        (None, 1.0, []),
        ("why", 0.0, ["critical"]),
        ("why", 0.0, ["warning"]),
        ("why", 0.0, []),
        (None, 1.0, ["info"]),
    ]


def test_a_kind_that_is_not_known_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API server that has just started knows none; one that lost its ledgers never will."""
    course: list[Exception | None] = []

    async def prove(*_: object) -> None:
        if (answer := course.pop(0)) is not None:
            raise answer

    cluster: Any = None
    missing = ApiError.of(404, "NotFound", "the server could not find the requested resource")
    monkeypatch.setattr(guard, "prove", prove)
    monkeypatch.setattr(guard, "_RETRY_SECONDS", 0.0)
    course[:] = [missing, missing, None]
    assert asyncio.run(guard.lapse(cluster, "dtjob-system")) is None
    course[:] = [missing] * guard._TRIES_TO_FIND_KIND
    gone = asyncio.run(guard.lapse(cluster, "dtjob-system"))
    assert gone is not None
    assert "knows no ledgers any more" in gone
    course[:] = [guard.Unguarded("why")]
    assert asyncio.run(guard.lapse(cluster, "dtjob-system")) == "why"


def test_the_policy_is_tried_at_each_resync() -> None:
    async def scenario(operator: Operator, _cluster: Any, _metrics: Metrics) -> None:
        tried = asyncio.Event()
        tries = 0

        async def check() -> None:
            nonlocal tries
            tries += 1
            if tries == 2:
                tried.set()

        operator._prove_guard_again = nothing  # type: ignore[method-assign]
        operator._check_policy = check  # type: ignore[method-assign]
        operator._options = Options(namespace="dtjob-system", resync_seconds=0.01)
        regularly = asyncio.create_task(operator._resync_regularly())
        async with asyncio.timeout(60):
            await tried.wait()
        regularly.cancel()

    operating(scenario)


def test_a_policy_that_can_not_be_tried_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[ApiError | None] = []

    class Api:
        async def get(self, *_: object) -> dict[str, Any]:
            return {"metadata": {"uid": "canary"}}

        async def delete(self, *_: object, dry_run: bool) -> None:
            assert dry_run
            if (answer := answers.pop(0)) is not None:
                raise answer

    async def active(*course: ApiError | None) -> bool:
        answers[:] = course
        api: Any = Api()
        return await guard.policy_is_active(api, "dtjob-system")

    refused = ApiError.of(
        422, "Invalid", "ValidatingAdmissionPolicy ledger-writer.dtjob.dev denied"
    )
    away = ApiError.of(503, "", "away")
    monkeypatch.setattr(guard, "_RETRY_SECONDS", 0.0)
    assert asyncio.run(active(None, away, refused)), "a policy takes some seconds to work"
    monkeypatch.setattr(guard, "_POLICY_SECONDS", 0.0)
    assert not asyncio.run(active(None))
    with pytest.raises(ApiError, match="away"):
        asyncio.run(active(away))


def test_a_standstill_is_told_once_the_operator_has_started() -> None:
    async def scenario(operator: Operator, _cluster: Any, _metrics: Metrics) -> None:
        operator._queue.stalled_seconds = lambda: 61.0  # type: ignore[method-assign]
        assert operator.standstill() is None, "stores are filled first, however long that takes"
        operator._starting = None
        assert operator.standstill() == (
            "jobs wait, and no reconciliation has begun or ended for 61 s"
        )
        operator._queue.stalled_seconds = lambda: 59.0  # type: ignore[method-assign]
        assert operator.standstill() is None
        operator._tasks.append(asyncio.create_task(nothing(), name="the watch of pods"))
        assert operator.standstill() is None
        await operator._tasks[0]
        assert operator.standstill() == "the watch of pods has ended"

    operating(scenario)


async def started(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Start all its tasks, which do nothing for ever; the namespaces that are watched."""
    watched: list[str | None] = []

    async def for_ever(*_: object) -> None:
        await asyncio.Event().wait()

    async def at_once(*_: object) -> bool:
        return True

    async def watch(reflector: Reflector) -> None:
        watched.append(reflector._selection.namespace)
        reflector.synced.set()
        reflector.tried.set()
        await for_ever()

    monkeypatch.setattr(guard, "prove", at_once)
    monkeypatch.setattr(guard, "policy_is_active", at_once)
    monkeypatch.setattr(Reflector, "run", watch)
    monkeypatch.setattr(ApiServerWatch, "run", for_ever)
    monkeypatch.setattr(ApiServerWatch, "tried", at_once)
    monkeypatch.setattr(EventStream, "run", for_ever)
    running = asyncio.create_task(operator.run())
    async with asyncio.timeout(60):
        while operator._starting is not None:
            assert not running.done()
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return watched


def test_all_that_runs_for_ever_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(operator: Operator, _cluster: Any, _metrics: Metrics) -> None:
        await started(operator, monkeypatch)
        watched = {task.get_name() for task in operator._tasks}
        assert {"the watch of pods", "the work on jobs", "the stream of events on jobs"} <= watched
        assert len(watched) == len(kinds.WATCHED) + 5

    operating(scenario)


@pytest.mark.parametrize(
    ("namespaces", "looked_for"),
    [((), True), (("research", "clinic"), False), (("research", "default"), True)],
)
def test_what_is_watched_is_what_was_named(
    monkeypatch: pytest.MonkeyPatch, namespaces: tuple[str, ...], looked_for: bool
) -> None:
    """Of the API server's addresses nothing is asked where it would be forbidden."""
    listed: list[str | None] = []
    watched: list[str | None] = []

    async def listing(_kind: Any, *, namespace: str | None) -> tuple[list[Any], int]:
        listed.append(namespace)
        return [], 1

    async def scenario(operator: Operator, cluster: Any, _metrics: Metrics) -> None:
        cluster.list = listing
        watched.extend(await started(operator, monkeypatch))
        followed = operator._stream._namespaces
        assert list(followed() if followed else ()) == list(namespaces)
        names = {task.get_name() for task in operator._tasks}
        assert ("the watch of the API server's addresses" in names) == looked_for

    operating(scenario, *namespaces)
    scopes: set[str | None] = set(namespaces) or {None}
    assert set(listed) == set(watched) == scopes
    assert len(watched) == len(scopes) * len(kinds.WATCHED)


FORBIDDEN = ApiError.of(
    403, "Forbidden", 'User "dtjob-operator" cannot list resource "rolebindings" in API group "x"'
)


@pytest.mark.parametrize("kind", [kinds.ROLE_BINDING, kinds.JOB], ids=lambda kind: kind.name)
def test_a_right_that_is_missing_is_named_with_what_grants_it(
    monkeypatch: pytest.MonkeyPatch, kind: kinds.Kind
) -> None:
    """Else a start would wait for ever for an API server that has long answered."""

    async def for_ever(*_: object) -> None:
        await asyncio.Event().wait()

    async def scenario(operator: Operator, cluster: Any, _metrics: Metrics) -> None:
        cluster.fails = lambda _verb, of: FORBIDDEN if of == kind.name else None
        assert operator.trouble() == "the API server has not answered yet"
        running = asyncio.create_task(operator.run())
        async with asyncio.timeout(60):
            while FORBIDDEN.message not in (found := operator.trouble() or ""):
                assert not running.done(), running
                await asyncio.sleep(0.001)
        assert "deploy/kustomize/base/operator-rbac.yaml" in found
        assert operator._starting is not None
        cluster.fails = lambda _verb, _of: None
        async with asyncio.timeout(60):
            while FORBIDDEN.message in (operator.trouble() or ""):
                assert not running.done(), running
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.wait([running])

    async def watch(reflector: Reflector, _version: int) -> None:
        reflector.trouble = None
        await for_ever()

    monkeypatch.setattr(guard, "prove", nothing_of)
    monkeypatch.setattr(Reflector, "_watch", watch)
    monkeypatch.setattr(ApiServerWatch, "run", for_ever)
    monkeypatch.setattr(ApiServerWatch, "tried", nothing_of)
    monkeypatch.setattr(EventStream, "run", for_ever)
    monkeypatch.setattr(Operator, "_check_policy", nothing_of)
    monkeypatch.setattr("dtjob_operator.run.scope._RETRY_SECONDS", 0.001)
    operating(scenario)


async def nothing_of(*_: object) -> None:
    return None


def test_pods_of_jobs_that_are_gone_are_counted() -> None:
    async def scenario(operator: Operator, cluster: Any, metrics: Metrics) -> None:
        def count() -> str:
            text = metrics.exposition().decode()
            return text.partition("\ndtjob_orphaned_pods ")[2].partition("\n")[0]

        job = cluster.put(digits())
        operator._stores[kinds.JOB].put(job)
        metadata = {"labels": {kinds.JOB_UID_LABEL: job["metadata"]["uid"]}}
        for name in ("digits-0", "digits-w-0"):
            pod = {"metadata": metadata | {"name": name, "namespace": "research"}}
            operator._stores[kinds.POD].put(cluster.put(kinds.typed(pod, kinds.POD)))
        assert count() == "0.0"
        operator._stores[kinds.JOB].remove(job)
        assert count() == "2.0"

    operating(scenario)


def test_a_namespace_that_is_forbidden_is_closed_and_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbidden: set[str] = set()

    async def listing(_kind: Any, *, namespace: str | None) -> tuple[list[Any], int]:
        if namespace in forbidden:
            raise FORBIDDEN
        return [], 1

    async def scenario(operator: Operator, cluster: Any, metrics: Metrics) -> None:
        del metrics
        cluster.list = listing
        first, _second = operator._scopes
        operator._starting = None
        operator._stream.running = True
        restarted: list[None] = []
        operator._stream.restart = lambda: restarted.append(None)  # type: ignore[method-assign]
        looked_at: list[object] = []

        async def look(key: object) -> None:
            looked_at.append(key)

        operator._reconciler = look  # type: ignore[assignment]
        await operator._resync()
        assert (operator.closed(), restarted) == ({}, [])
        forbidden.add("research")
        await operator._resync()
        assert list(operator.closed()) == ["research"]
        assert operator._open_namespaces() == ["clinic"]
        assert restarted, "kopf would end by what is forbidden"
        assert operator.trouble() is None
        for key in (("research", "a"), ("clinic", "b")):
            await operator._work(key)
        assert looked_at == [("clinic", "b")]
        forbidden.add("clinic")
        await operator._resync()
        assert FORBIDDEN.message in (operator.trouble() or "")
        assert FORBIDDEN.message in (await operator._discovery_obstacle() or "")
        forbidden.clear()
        for reflector in first.reflectors:
            reflector.tried.set()
            reflector.synced.set()
            reflector.trouble = None
        attending = asyncio.create_task(first.attend(operator._opened))
        async with asyncio.timeout(60):
            while not first.is_open:
                await asyncio.sleep(0.001)
        attending.cancel()
        assert list(operator.closed()) == ["clinic"]
        await operator._work(("research", "a"))
        assert looked_at[-1] == ("research", "a")

    monkeypatch.setattr("dtjob_operator.run.scope._RETRY_SECONDS", 0.001)
    operating(scenario, "research", "clinic")
