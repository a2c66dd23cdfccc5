"""What an observation takes for the job's own, and what it asks for before it is taken for lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.wire.positions import Role
from dtjob_operator.kube.api_errors import ApiError, NoSuchKind
from dtjob_operator.observe import assemble
from dtjob_operator.observe.assemble import Memory
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Child, Observed
from tests.support.builders import UID
from tests.support.worlds.fake_cluster import KEY, Shell
from tests.support.worlds.world import CHILD, NOW, PLAN, claim, digits, pod, stamp


def observe(shell: Shell, *taken: Child) -> Observed:
    return asyncio.run(shell.observer.observe(KEY, shell.job, Memory(UID), set(taken)))


def typed(obj: Json, kind: kinds.Kind, **metadata: object) -> Json:
    return kinds.typed(obj | {"metadata": obj["metadata"] | metadata}, kind)


def charged_ledger(**status: object) -> Json:
    ledger = {
        "metadata": {"namespace": "research", "name": CHILD},
        "spec": {"jobName": "digits", "jobUID": UID, "plan": {}},
        "status": {"charged": 10} | status,
    }
    return kinds.typed(ledger, kinds.LEDGER)


def owned(each: Json, name: str, kind: str = "StatefulSet") -> Json:
    """A pod with a controller."""
    owner = {"kind": kind, "name": name, "uid": "x", "controller": True}
    return typed(each, kinds.POD, ownerReferences=[owner])


@pytest.mark.parametrize("position", [0, 1, 3])
def test_a_worker_is_known_by_its_name_and_its_controller(position: int) -> None:
    own, other = (CHILD, f"{CHILD}-w") if position == 0 else (f"{CHILD}-w", CHILD)
    each = pod(position)
    assert names.position_of(CHILD, each) == position, "it is about to be adopted"
    assert names.position_of(CHILD, owned(each, own)) == position
    assert names.position_of(CHILD, owned(each, other)) is None
    assert names.position_of(CHILD, owned(each, own, "ReplicaSet")) is None
    assert names.position_of(CHILD, typed(each, kinds.POD, name=f"{CHILD}-1")) is None


def test_a_pod_of_another_controller_is_no_worker() -> None:
    shell = Shell()
    shell.see(owned(pod(0), CHILD))
    shell.see(owned(pod(1), "miner", "ReplicaSet"))
    assert [each["metadata"]["name"] for each in observe(shell).pods] == [f"{CHILD}-0"]


def test_a_label_alone_makes_nothing_the_jobs_own() -> None:
    shell = Shell()
    for kind, each in ((kinds.POD, pod(0)), (kinds.CLAIM, claim())):
        name = each["metadata"]["name"]
        shell.see(typed(each, kind))
        shell.see(typed(each, kind, namespace="thief"))
        shell.see(typed(each, kind, name="miner-0"))
        shell.see(typed(each, kind, name=name, namespace="other"))
    observed = observe(shell)
    assert observed.claim is not None
    (only,) = observed.pods
    for found, of in ((only, pod(0)), (observed.claim, claim())):
        assert found["metadata"]["name"] == of["metadata"]["name"]
        assert found["metadata"]["namespace"] == "research"


@pytest.mark.parametrize("labels", [{}, {"dtjob.dev/job-uid": UID}, {"dtjob.dev/job-uid": "old"}])
def test_a_claim_that_no_watch_tells_of_is_not_lost(labels: dict[str, str]) -> None:
    """It was restored without our label, or the watch lags behind."""
    shell = Shell()
    shell.see(charged_ledger())
    shell.cluster.put(typed(claim(), kinds.CLAIM, labels=labels))
    found = observe(shell).claim
    assert found is not None
    assert found["metadata"]["name"] == f"checkpoints-{CHILD}-0"


def test_a_definition_that_is_gone_is_told_from_a_ledger_that_is() -> None:
    shell = Shell()
    shell.see(typed(claim(), kinds.CLAIM))
    assert not observe(shell).ledgers_undefined
    shell.cluster.fails = lambda _verb, of: (
        NoSuchKind(404, "", "404 page not found") if of == "PrivacyLedger" else None
    )
    seen = observe(shell)
    assert seen.ledger is None
    assert seen.ledgers_undefined


def test_how_an_attempt_ended_is_asked_for_when_its_pod_is_gone() -> None:
    """The pod's watch may be ahead of the ledger's."""
    shell = Shell()
    begun = {"attempt": 1, "start": stamp(NOW)}
    shell.see(charged_ledger(outcome={}, attempts=[begun]))
    shell.see(typed(pod(0), kinds.POD))
    ended = charged_ledger(outcome={}, attempts=[begun | {"end": stamp(NOW), "reason": "Stopped"}])
    shell.cluster.put(ended)

    def told() -> bool:
        ledger = observe(shell).ledger
        return ledger is not None and "end" in ledger["status"]["attempts"][0]

    shell.see(digits() | {"status": {"phase": "Running"}})
    assert not told(), "it runs: the store is enough"
    gone = typed(pod(0, containerStatuses=[]), kinds.POD)
    shell.see(gone)
    assert told()
    shell.cluster.fails = lambda verb, of: (
        ApiError.of(503, "", "away") if (verb, of) == ("get", "PrivacyLedger") else None
    )
    assert not told(), "what is known stands"
    shell.cluster.fails = lambda *_: None
    shell.see(digits() | {"status": {"phase": "Restarting"}})
    assert not told(), "it is told once"


def test_a_claim_is_asked_for_only_where_it_seems_lost() -> None:
    shell = Shell()
    observe(shell)
    shell.see(charged_ledger(outcome={}))
    observe(shell)
    assert shell.cluster.count("get", kinds.CLAIM) == 0
    shell.see(charged_ledger())
    assert observe(shell).claim is None
    assert shell.cluster.count("get", kinds.CLAIM) == 1
    shell.see(typed(claim(), kinds.CLAIM))
    observe(shell)
    assert shell.cluster.count("get", kinds.CLAIM) == 1


@pytest.mark.parametrize(
    "status",
    [
        {"volume": {"attempt": 1, "leased": 1, "charged": 300}},
        {"attempts": [{"attempt": 1, "reason": "PrivacyStateLost"}]},
    ],
    ids=["found", "refused"],
)
def test_a_claim_of_draws_that_the_ledger_lacks_is_asked_for_before_its_loss_is_told(
    status: Json,
) -> None:
    shell = Shell()
    shell.see(charged_ledger(charged=0, **status))
    shell.cluster.put(typed(claim(), kinds.CLAIM, labels={}))
    assert observe(shell).claim is not None


def managed(position: int) -> dict[str, Any]:
    """Metadata of a pod that its StatefulSet manages."""
    role, of_set = ("worker", f"{CHILD}-w") if position else ("coordinator", CHILD)
    labels = {"dtjob.dev/job": "digits", "dtjob.dev/job-uid": UID, "dtjob.dev/role": role}
    owner = {"kind": "StatefulSet", "name": of_set, "uid": "set", "controller": True}
    return {"labels": labels, "ownerReferences": [owner]}


def worker_set(replicas: int, of: int = 2, age: float = 60.0, observed: int = 2) -> Json:
    """The job's, with as many pods of those that it should have."""
    made = datetime.now(UTC) - timedelta(seconds=age)
    return kinds.typed(
        {
            "metadata": {
                "namespace": "research",
                "name": f"{CHILD}-w",
                "labels": {"dtjob.dev/job-uid": UID},
                "creationTimestamp": stamp(made),
                "generation": 2,
            },
            "spec": {"replicas": of},
            "status": {"observedGeneration": observed, "replicas": replicas},
        },
        kinds.STATEFUL_SET,
    )


def test_a_pod_that_lost_its_label_is_found_by_its_name() -> None:
    """It is a worker all the same: its gang goes on."""
    shell = Shell()
    shell.see(worker_set(1))
    shell.see(typed(pod(1), kinds.POD, **managed(1)))
    shell.cluster.put(typed(pod(2), kinds.POD, labels={"app": "other"}))
    seen = observe(shell)
    lost = {"dtjob.dev/role": "worker", "dtjob.dev/job": "digits", "dtjob.dev/job-uid": UID}
    assert seen.unlabelled == {f"{CHILD}-w-1": lost}
    assert [each["metadata"]["name"] for each in seen.pods] == [f"{CHILD}-w-0", f"{CHILD}-w-1"]
    shell.see(typed(pod(2), kinds.POD, **managed(2)))
    assert observe(shell).unlabelled == {}


def test_a_pod_that_lost_another_label_of_the_selector_is_found_too() -> None:
    """By the job's UID it is still known, yet its StatefulSet has let it go."""
    shell = Shell()
    shell.see(worker_set(1))
    labels = managed(1)["labels"] | {"dtjob.dev/role": "other"}
    for position in (1, 2):
        shell.see(typed(pod(position), kinds.POD, **managed(position)))
    shell.see(typed(pod(1), kinds.POD, labels=labels))
    seen = observe(shell)
    assert seen.unlabelled == {f"{CHILD}-w-0": {"dtjob.dev/role": "worker"}}
    assert len(seen.pods) == 2


def test_a_strangers_pod_of_a_workers_name_is_no_worker() -> None:
    shell = Shell()
    shell.see(worker_set(1))
    shell.see(typed(pod(1), kinds.POD, **managed(1)))
    stranger = [{"kind": "ReplicaSet", "name": "web", "uid": "web", "controller": True}]
    shell.cluster.put(typed(pod(2), kinds.POD, labels={}, ownerReferences=stranger))
    seen = observe(shell)
    assert list(seen.unlabelled) == [f"{CHILD}-w-1"], "it has the name that a worker needs"
    assert len(seen.pods) == 1


@pytest.mark.parametrize(
    ("of_set", "why"),
    [
        ({"replicas": 2}, "the StatefulSet has its pods, a watch is late"),
        ({"replicas": 0, "of": 0}, "none are wanted"),
        ({"replicas": 0, "age": 1}, "they are being made"),
        ({"replicas": 0, "observed": 1}, "it has yet to look"),
    ],
)
def test_pods_are_asked_for_only_where_the_stateful_set_misses_them(
    of_set: dict[str, int], why: str
) -> None:
    shell = Shell()
    shell.see(worker_set(**of_set))
    shell.cluster.put(typed(pod(1), kinds.POD, labels={}))
    assert tuple(observe(shell).unlabelled) == (), why
    assert shell.cluster.count("list", kinds.POD) == 0, why


def test_pods_that_are_refused_are_not_asked_for() -> None:
    shell = Shell()
    shell.see(worker_set(0))
    refused = {
        "metadata": {"namespace": "research", "name": "refused"},
        "involvedObject": {"kind": "StatefulSet", "name": f"{CHILD}-w"},
        "reason": "FailedCreate",
        "type": "Warning",
        "lastTimestamp": stamp(datetime.now(UTC)),
    }
    shell.see(kinds.typed(refused, kinds.EVENT))
    observe(shell)
    assert shell.cluster.count("list", kinds.POD) == 0


def test_only_the_first_pods_that_are_missed_are_asked_for() -> None:
    shell = Shell()
    shell.see(worker_set(0, of=512))
    assert tuple(observe(shell).unlabelled) == ()
    assert shell.cluster.count("list", kinds.POD) == 4
    shell.cluster.fails = lambda verb, _kind: (
        ApiError.of(503, "", "away") if verb == "list" else None
    )
    assert tuple(observe(shell).unlabelled) == ()


def test_what_was_known_of_pods_and_warnings_stands_while_there_is_no_answer() -> None:
    """Else a trouble that stands would come and go, each time with an event."""
    shell, memory = Shell(), Memory(UID)
    away = lambda verb, _kind: ApiError.of(503, "", "away") if verb == "list" else None  # noqa: E731

    def look() -> Observed:
        shell.observer._warnings.clear()
        return asyncio.run(shell.observer.observe(KEY, shell.job, memory, set()))

    shell.see(worker_set(0))
    for position in (1, 2):
        shell.cluster.put(typed(pod(position), kinds.POD, labels={}))
    warning = {
        "metadata": {"namespace": "research", "name": "mount"},
        "involvedObject": {"kind": "Pod", "name": f"{CHILD}-0"},
        "reason": "FailedMount",
        "type": "Warning",
        "lastTimestamp": stamp(datetime.now(UTC)),
    }
    shell.see(kinds.typed(warning, kinds.EVENT))
    first = look()
    assert tuple(first.unlabelled) == (f"{CHILD}-w-0", f"{CHILD}-w-1")
    (told,) = first.events["Pod", f"{CHILD}-0"]
    assert told["reason"] == "FailedMount"
    shell.cluster.fails = away
    second = look()
    assert (second.unlabelled, second.events) == (first.unlabelled, first.events)
    shell.see(typed(pod(1), kinds.POD, **managed(1)))
    assert tuple(look().unlabelled) == (f"{CHILD}-w-1",), "its label is back"
    shell.see(worker_set(2))
    assert tuple(look().unlabelled) == ()
    shell.see(worker_set(0))
    assert tuple(look().unlabelled) == (), "the answer before that one is no last answer"


MADE = [kinds.SERVICE, kinds.NETWORK_POLICY, kinds.DISRUPTION_BUDGET, kinds.STATEFUL_SET]


def test_a_new_job_costs_no_request() -> None:
    """Whatever is there already will be found where it can't be created."""
    shell = Shell()
    observe(shell)
    assert [verb for verb, _kind in shell.cluster.asked if verb == "get"] == []


@pytest.mark.parametrize("kind", [*MADE, kinds.LEDGER], ids=lambda kind: kind.name)
def test_a_child_whose_name_is_taken_is_asked_for_until_a_watch_reports_it(
    kind: kinds.Kind,
) -> None:
    shell, taken = Shell(), {(kind.name, CHILD)}
    bare = kinds.typed({"metadata": {"namespace": "research", "name": CHILD}}, kind)

    def look() -> bool:
        seen = asyncio.run(shell.observer.observe(KEY, shell.job, Memory(UID), taken))
        children = (seen.service, seen.network_policy, seen.disruption_budget, seen.ledger)
        return any(children) or seen.coordinator_set is not None

    shell.cluster.put(bare)
    assert look()
    assert taken, "no watch reports it"
    del shell.cluster.objects[kind.name, "research", CHILD]
    assert not look()
    assert taken == set()

    taken.add((kind.name, CHILD))
    if kind is not kinds.LEDGER:
        shell.see(bare)
        assert look()
        assert taken == set()


@pytest.mark.parametrize(("position", "role"), [(0, "coordinator"), (1, "worker")])
def test_a_set_that_has_pods_is_asked_for_where_no_watch_reports_it(
    position: int, role: str
) -> None:
    """It lost its label, and its pods have to go when the job ends."""
    shell = Shell()
    shell.see(typed(pod(position), kinds.POD, **managed(position)))
    assert observe(shell).stateful_set(Role(role)) is None
    name = CHILD if position == 0 else f"{CHILD}-w"
    metadata = {"namespace": "research", "name": name, "creationTimestamp": stamp(NOW)}
    of_set = {"metadata": metadata, "spec": {"replicas": 1}}
    shell.cluster.put(kinds.typed(of_set, kinds.STATEFUL_SET))
    seen = observe(shell)
    assert seen.stateful_set(Role(role)) is not None
    assert seen.stateful_set(Role.WORKER if position == 0 else Role.COORDINATOR) is None


ACCEPTED = {"conditions": [{"type": "Accepted", "status": "True", "reason": "Planned"}]}
MISSING = {"conditions": [{"type": "Running", "status": "False", "reason": "LedgerMissing"}]}


@pytest.mark.rule(11)
@pytest.mark.parametrize("sign", ["claim", "set", "accepted", "missing before"])
def test_a_ledger_is_asked_for_before_its_loss_is_told(sign: str) -> None:
    """Its watch may lag behind."""
    shell = Shell()
    ledger = charged_ledger()
    shell.cluster.put(ledger)
    assert observe(shell).ledger is None, "it is about to be made"
    if sign == "claim":
        shell.see(typed(claim(), kinds.CLAIM))
    elif sign == "set":
        shell.see(worker_set(0, of=0))
    else:
        shell.see(shell.job | {"status": ACCEPTED if sign == "accepted" else MISSING})
    assert observe(shell).ledger is not None


def test_a_status_of_a_newer_version_makes_no_plan_impossible() -> None:
    """That would be final, and an operator that is rolled back meets such jobs."""
    shell = Shell()
    shell.see(digits() | {"status": {"phase": "Pending", "queue": {"position": 3}}})
    seen = observe(shell)
    assert seen.parsed is not None
    assert seen.privacy_plan is PLAN


def test_a_job_that_can_not_be_read_asks_for_no_plan() -> None:
    shell = Shell()
    shell.see(digits() | {"future": {}})
    seen = observe(shell)
    assert (seen.parsed, seen.privacy_plan) == (None, None)


def test_a_job_is_parsed_once_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    read: list[object] = []
    parse = DistributedTrainingJob.from_dict

    def count(manifest: Json) -> DistributedTrainingJob:
        read.append(None)
        return parse(manifest)

    monkeypatch.setattr(DistributedTrainingJob, "from_dict", count)
    asyncio.run(shell.reconciler(KEY))
    assert len(read) == 1


def test_warnings_are_sorted_by_the_object_that_they_are_about() -> None:
    shell = Shell()

    def warn(number: int, kind: str, name: str) -> None:
        event = {
            "metadata": {"namespace": "research", "name": f"warning-{number}"},
            "involvedObject": {"kind": kind, "name": name},
            "reason": "Failed",
            "lastTimestamp": stamp(datetime.now(UTC) + timedelta(minutes=number)),
        }
        shell.cluster.put(kinds.typed(event, kinds.EVENT))

    about = [
        ("Pod", f"{CHILD}-0"),
        ("StatefulSet", CHILD),
        ("PersistentVolumeClaim", f"checkpoints-{CHILD}-0"),
        ("Pod", f"{CHILD}-w-1"),
        ("StatefulSet", f"{CHILD}-w"),
    ]
    for number, (kind, name) in enumerate(
        [
            *about,
            about[0],
            ("Pod", "other-0"),
            ("Pod", f"{CHILD}-00"),
            ("Node", "node-0"),
            ("PersistentVolumeClaim", f"data-{CHILD}-0"),
            ("PersistentVolumeClaim", f"checkpoints-{CHILD}-1"),
            ("Pod", f"{CHILD}-w-01"),
            ("Service", CHILD),
        ]
    ):
        warn(number, kind, name)
    found = {
        of: [event["metadata"]["name"] for event in events]
        for of, events in observe(shell).events.items()
    }
    assert found == {
        about[0]: ["warning-5", "warning-0"],
        **{each: [f"warning-{number}"] for number, each in enumerate(about[1:], 1)},
    }


def test_warnings_of_a_namespace_that_hangs_hold_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assemble, "_EVENTS_FRESH_SECONDS", 1000.0)

    async def scenario() -> None:
        shell = Shell()
        hangs, asked = asyncio.Event(), []

        async def list_events(
            _kind: object, *, namespace: str, **_: object
        ) -> tuple[list[Json], int]:
            asked.append(namespace)
            if namespace == "slow":
                await hangs.wait()
            return [], 1

        shell.cluster.list = list_events  # type: ignore[method-assign, assignment]
        slow = [asyncio.create_task(shell.observer._warnings_of("slow")) for _ in range(2)]
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            assert await shell.observer._warnings_of("research") == {}
        hangs.set()
        assert await asyncio.gather(*slow) == [{}, {}]
        assert asked == ["slow", "research"]

    asyncio.run(scenario())


ENDED = {"state": "Succeeded", "result": {"epsilonSpent": "0.01"}}
CRASHED: Json = {"state": "Failed", "result": None}


@pytest.mark.rule(13)
@pytest.mark.parametrize(
    ("condition", "privacy", "outcome", "told"),
    [
        ("Succeeded", {"epsilonSpent": "7.5", "epsilonDraws": 10}, ENDED, True),
        ("Failed", {"epsilonSpent": "7.5", "epsilonDraws": 10}, CRASHED, True),
        ("Running", {"epsilonSpent": "7.5", "epsilonDraws": 10}, ENDED, False),
        ("Succeeded", None, ENDED, False),
        ("Succeeded", {"epsilonSpent": "7.4", "epsilonDraws": 9}, ENDED, False),
        ("Succeeded", {"epsilonSpent": "7.5"}, ENDED, False),
    ],
    ids=["told", "failed", "not final", "not told", "of fewer draws", "of an older operator"],
)
def test_epsilon_of_a_finished_job_is_computed_whatever_its_status_says(
    condition: str, privacy: Json | None, outcome: Json, told: bool
) -> None:
    """Once it is told nobody waits for it; but who may write a status may write any figure."""
    shell = Shell()
    shell.see(charged_ledger(outcome=outcome))
    status: Json = {"conditions": [{"type": condition, "status": "True", "reason": "Completed"}]}
    if privacy:
        status["privacy"] = privacy
    shell.see(shell.job | {"status": status})
    observe(shell)
    assert shell.accountant.asked_for == [told]


@pytest.mark.rule(13)
@pytest.mark.parametrize(("draws", "told"), [(10, False), (300, True)])
def test_an_epsilon_of_fewer_draws_than_the_volume_proves_is_none(draws: int, told: bool) -> None:
    shell = Shell()
    shell.see(charged_ledger(outcome=ENDED, volume={"attempt": 1, "charged": 300}))
    ended = {"type": "Succeeded", "status": "True", "reason": "Completed"}
    privacy = {"epsilonSpent": "7.5", "epsilonDraws": draws}
    shell.see(shell.job | {"status": {"conditions": [ended], "privacy": privacy}})
    observe(shell)
    assert shell.accountant.asked_for == [told]
