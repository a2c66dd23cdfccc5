"""Which order the workers get, and how many pods there are meanwhile."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dtjob_operator.terms.observed import Observed
from tests.support.worlds.world import PLAN, World, digits, pod, running, stamp, waiting_pod

Json = dict[str, Any]


def order(world: World) -> Json:
    assert world.observed.ledger is not None
    found: Json = world.observed.ledger["spec"]["run"]
    return found


def asked(world: World) -> Json:
    """The order, but for when it was given."""
    return {field: value for field, value in order(world).items() if field != "time"}


def sizes(world: World) -> tuple[int, int]:
    """Replicas of the two StatefulSets, 0 where there is none."""
    sets = (world.observed.coordinator_set, world.observed.worker_set)
    first, second = (each["spec"]["replicas"] if each else 0 for each in sets)
    return first, second


def scaled(world: World, replicas: int) -> None:
    world.edit(workers=world.observed.job["spec"]["workers"] | {"replicas": replicas})


def progress(world: World, attempt: int = 1) -> None:
    """The attempt publishes a checkpoint of a later step."""
    assert world.observed.ledger is not None
    record = world.observed.ledger["status"]["checkpoint"]
    world.ledger_status(
        checkpoint=record
        | {"step": record["step"] + 10, "attempt": attempt, "time": stamp(world.now)}
    )


def reopened(world: World, attempt: int, charged: int) -> None:
    """The gang of the newest order trains."""
    world.later(5)
    world.lease(attempt, charged, step=10)
    world.settle()


class TestSuspension:
    def test_a_job_that_trains_is_asked_to_stop_and_keeps_its_pods_until_it_has(self) -> None:
        world = running()
        world.edit(suspend=True)
        world.settle()
        assert asked(world) == {
            "generation": 2,
            "workers": 2,
            "state": "Drain",
        }
        assert sizes(world) == (1, 1)
        assert world.status["phase"] == "Suspending"
        assert world.reason("Suspended") == world.reason("Running") == ("False", "Suspending")

    def test_a_larger_gang_keeps_its_pods_until_it_has_stopped_though_fewer_were_ordered(
        self,
    ) -> None:
        world = running()
        progress(world)
        scaled(world, 1)
        world.settle()
        world.edit(suspend=True)
        world.settle()
        assert (order(world)["workers"], order(world)["state"]) == (1, "Drain")
        assert sizes(world) == (1, 1)
        world.stop()
        world.settle()
        assert sizes(world) == (0, 0)

    def test_pods_go_once_the_workers_have_stopped(self) -> None:
        world = running()
        world.edit(suspend=True)
        world.settle()
        world.stop()
        world.ledger_status(drained=2)
        world.settle()
        assert sizes(world) == (0, 0)
        assert world.status["phase"] == "Suspending"
        world.see(pods=())
        world.settle()
        assert world.status["phase"] == "Suspended"
        assert world.reason("Suspended") == ("True", "Suspended")
        assert world.reason("Running") == ("False", "Suspended")
        assert world.status["workers"] | {"selector": ""} == {
            "desired": 2,
            "replicas": 0,
            "ready": 0,
            "selector": "",
            "generation": 2,
        }
        assert world.decide().wake_after is None
        assert world.events == ["Training", "Suspending", "Suspended"]

    def test_workers_that_do_not_stop_are_not_waited_for_for_ever(self) -> None:
        world = running()
        world.edit(suspend=True)
        world.settle()
        world.later(299)
        progress(world)  # else nothing would say that it lives
        world.settle()
        assert sizes(world) == (1, 1)
        world.later(2)
        world.settle()
        assert sizes(world) == (0, 0)

    @pytest.mark.parametrize("pods", [(), (pod(1),), (waiting_pod("ContainerCreating"), pod(1))])
    def test_nobody_is_waited_for_who_trains_nothing(self, pods: tuple[Json, ...]) -> None:
        world = running()
        world.see(pods=pods, report=None)
        world.settle()
        world.edit(suspend=True)
        world.settle()
        assert sizes(world) == (0, 0)

    def test_a_job_that_is_made_suspended_has_a_ledger_alone(self) -> None:
        world = World.of(digits(suspend=True), privacy_plan=PLAN)
        world.settle()
        assert world.applied == ["PrivacyLedger"]
        assert order(world) == {"generation": 1, "workers": 2, "state": "Drain"}
        assert world.status["phase"] == "Suspended"
        world.edit(suspend=False)
        world.settle()
        assert asked(world) == {
            "generation": 2,
            "workers": 2,
            "state": "Run",
        }
        assert sizes(world) == (1, 1)
        assert world.status["phase"] == "Starting"
        assert world.reason("Suspended") == ("False", "Resumed")

    def test_it_goes_on_with_the_number_that_is_asked_for_by_then(self) -> None:
        world = suspended()
        scaled(world, 5)
        world.settle()
        assert sizes(world) == (0, 0)
        assert world.reason("Resized") == ("False", "WaitingForTraining")
        world.edit(suspend=False)
        world.settle()
        assert (order(world)["workers"], order(world)["state"]) == (5, "Run")
        assert sizes(world) == (1, 4)
        assert world.status["phase"] == "Resizing"

    def test_a_resumed_job_starts_and_is_not_restarted(self) -> None:
        world = suspended()
        world.edit(suspend=False)
        world.settle()
        assert world.status["phase"] == "Starting"
        assert world.reason("Running") == ("False", "WaitingForWorkers")
        world.see(pods=(pod(0, world.now), pod(1, world.now)))
        reopened(world, 2, 20)
        assert world.status["phase"] == "Running"
        assert world.status["restarts"] == 0
        assert world.status["attempts"] == 2

    @pytest.mark.parametrize("flips", [2, 3, 4, 5])
    def test_the_last_word_holds(self, flips: int) -> None:
        world = running()
        for flip in range(flips):
            world.edit(suspend=flip % 2 == 0)
            world.reconcile()
        world.settle()
        assert order(world)["state"] == ("Drain" if flips % 2 else "Run")
        assert sizes(world) == (1, 1)

    def test_a_job_that_ends_while_it_stops_has_ended(self) -> None:
        world = running()
        world.edit(suspend=True)
        world.settle()
        world.end()
        world.settle()
        assert world.status["phase"] == "Succeeded"
        assert sizes(world) == (0, 0)

    def test_what_hindered_pods_hinders_no_job_that_rests(self) -> None:
        world = World.of(privacy_plan=PLAN)
        world.settle()
        world.later(60)
        world.see(pods=(waiting_pod("ImagePullBackOff"),))
        world.settle()
        assert world.reason("Running") == ("False", "ImagePullFailed")
        world.edit(suspend=True)
        world.settle()
        assert world.reason("Running") == ("False", "Suspending")
        assert sizes(world) == (0, 0)

    def test_another_template_takes_effect_when_it_goes_on(self) -> None:
        world = suspended()
        world.edit(suspend=False, image="localhost/other:1")
        world.settle()
        for of_set in (world.observed.coordinator_set, world.observed.worker_set):
            assert of_set is not None
            (container,) = of_set["spec"]["template"]["spec"]["containers"]
            assert container["image"] == "localhost/other:1"


def suspended() -> World:
    """A job that has trained and rests."""
    world = running()
    world.edit(suspend=True)
    world.settle()
    world.stop()
    world.ledger_status(drained=2)
    world.settle()
    world.see(pods=(), report=None)
    world.later(5)
    world.settle()
    return world


class TestGrowth:
    def test_pods_come_first_and_the_order_when_they_are_ready(self) -> None:
        world = running()
        progress(world)
        scaled(world, 4)
        world.settle()
        assert (sizes(world), order(world)["workers"]) == ((1, 3), 2)
        assert world.reason("Resized") == ("False", "AddingWorkers")
        assert world.reason("Running") == ("True", "Training")
        assert world.status["display"]["ready"] == "2/4"
        world.see(pods=(pod(0), pod(1), pod(2)))
        world.settle()
        assert order(world)["workers"] == 2
        world.see(pods=(pod(0), pod(1), pod(2), pod(3)))
        world.settle()
        assert (order(world)["generation"], order(world)["workers"]) == (2, 4)
        assert world.status["phase"] == "Resizing"
        world.stop()
        reopened(world, 2, 20)
        assert world.status["phase"] == "Running"
        assert world.reason("Resized") == ("True", "Resized")
        assert world.events == ["Training", "AddingWorkers", "Resizing", "Training", "Resized"]

    def test_the_next_checkpoint_is_waited_for(self) -> None:
        """An autoscaler that moves all the time leaves time to train."""
        world = running()
        scaled(world, 3)
        world.settle()
        world.see(pods=(pod(0), pod(1), pod(2)))
        world.settle()
        assert order(world)["workers"] == 2
        assert world.reason("Resized") == ("False", "WaitingForCheckpoint")
        progress(world)
        world.settle()
        assert order(world)["workers"] == 3

    def test_what_keeps_more_workers_from_coming_is_told_while_the_others_train(self) -> None:
        world = running()
        progress(world)
        scaled(world, 3)
        world.settle()
        world.later(60)
        progress(world)
        unplaced = pod(
            2,
            phase="Pending",
            conditions=[
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
                }
            ],
            containerStatuses=[],
        )
        world.see(pods=(pod(0), pod(1), unplaced))
        world.settle()
        assert world.reason("Running") == ("True", "Training")
        assert "Insufficient nvidia.com/gpu" in world.condition("Resized")["message"]
        assert order(world)["workers"] == 2

    def test_a_job_that_never_trained_takes_the_number_at_once(self) -> None:
        world = World.of(privacy_plan=PLAN)
        world.settle()
        scaled(world, 4)
        world.settle()
        assert (order(world)["workers"], sizes(world)) == (4, (1, 3))
        scaled(world, 1)
        world.settle()
        assert (order(world)["workers"], sizes(world)) == (1, (1, 0))

    def test_a_gang_that_comes_up_again_grows_later(self) -> None:
        world = running()
        scaled(world, 4)
        world.see(pods=(pod(1),), report=None)
        world.settle()
        assert (sizes(world), order(world)["workers"]) == ((1, 1), 2)
        assert world.reason("Resized") == ("False", "WaitingForTraining")

    def test_more_pods_that_are_there_stay_while_the_gang_has_its_own(self) -> None:
        world = running()
        progress(world)
        scaled(world, 4)
        world.settle()
        world.see(pods=(waiting_pod("ContainerCreating"), pod(1), pod(2)), report=None)
        world.settle()
        assert sizes(world) == (1, 3)
        world.see(pods=(pod(1), pod(2)))
        world.settle()
        assert sizes(world) == (1, 1)

    def test_a_number_that_can_not_train_is_taken_back(self) -> None:
        world = grown()
        world.later(5)
        failed_attempt(world, "GpuMissing", "worker 3 sees no GPU")
        world.settle()
        assert asked(world) == {
            "generation": 3,
            "workers": 2,
            "state": "Run",
            "insteadOf": 4,
        }
        assert world.reason("Resized") == ("False", "ResizeFailed")
        assert "worker 3 sees no GPU" in world.condition("Resized")["message"]
        assert world.events.count("ResizeFailed") == 1
        reopened(world, 3, 20)
        progress(world, attempt=3)
        world.settle()
        assert (order(world)["generation"], sizes(world)) == (3, (1, 1)), "it is not tried again"
        scaled(world, 3)
        world.settle()
        assert sizes(world) == (1, 2), "another number is"

    def test_a_number_of_which_workers_do_not_come_is_taken_back(self) -> None:
        world = grown()
        world.see(pods=(pod(0), pod(1), pod(2)), report=None)
        world.later(119)
        world.settle()
        assert order(world)["workers"] == 4
        world.later(1)
        world.settle()
        assert order(world)["workers"] == 2
        assert "insteadOf" not in order(world)

    def test_a_number_that_has_trained_is_kept(self) -> None:
        world = grown()
        reopened(world, 2, 20)
        world.stop(reason="RankFailed")
        world.later(200)
        world.see(pods=(pod(0), pod(1)), report=None)
        world.settle()
        assert order(world)["workers"] == 4


def grown() -> World:
    """Two workers have stopped, to meet with two more."""
    world = running()
    progress(world)
    scaled(world, 4)
    world.settle()
    world.see(pods=(pod(0), pod(1), pod(2), pod(3)))
    world.settle()
    world.stop()
    world.settle()
    assert order(world)["workers"] == 4
    return world


def failed_attempt(world: World, reason: str, message: str) -> None:
    """An attempt of the newest order fails before it has leased."""
    assert world.observed.ledger is not None
    run, status = world.observed.ledger["spec"]["run"], world.observed.ledger["status"]
    number = status["attempt"] + 1
    record = {
        "attempt": number,
        "generation": run["generation"],
        "workers": run["workers"],
        "start": stamp(world.now),
        "end": stamp(world.now),
        "reason": reason,
        "message": message,
    }
    world.ledger_status(attempt=number, attempts=[*status["attempts"], record])


class TestShrinking:
    def test_the_order_comes_first_and_pods_go_when_the_gang_has_stopped(self) -> None:
        world = running()
        progress(world)
        scaled(world, 1)
        world.settle()
        assert (order(world)["workers"], sizes(world)) == (1, (1, 1))
        assert world.status["phase"] == "Resizing"
        world.stop()
        world.settle()
        assert sizes(world) == (1, 0)
        world.see(pods=(pod(0),))
        reopened(world, 2, 20)
        assert world.reason("Resized") == ("True", "Resized")
        assert world.status["display"]["ready"] == "1/1"

    def test_a_gang_that_can_not_come_up_takes_fewer_at_once(self) -> None:
        world = running()
        world.see(pods=(pod(0),), report=None)
        world.stop(reason="WorkerLost")
        world.later(60)
        world.settle()
        scaled(world, 1)
        world.settle()
        assert (order(world)["workers"], sizes(world)) == (1, (1, 0))

    def test_a_gang_that_waits_for_a_person_is_not_told_that_there_was_one(self) -> None:
        world = running()
        world.stop(reason="Stalled", hold={"generation": 1, "stallSeconds": 600})
        scaled(world, 1)
        world.later(60)
        world.settle()
        assert order(world)["generation"] == 1
        world.edit(suspend=True)
        world.settle()
        world.edit(suspend=False)
        world.settle()
        assert (order(world)["generation"], order(world)["workers"]) == (3, 1)

    def test_while_it_stops_for_one_number_the_newest_waits(self) -> None:
        world = running()
        progress(world)
        scaled(world, 1)
        world.settle()
        scaled(world, 2)
        world.settle()
        assert order(world)["workers"] == 1
        world.stop()
        world.later(5)
        world.see(pods=(pod(0),))
        reopened(world, 2, 20)
        progress(world, attempt=2)
        world.settle()
        assert sizes(world) == (1, 1)


BOUNDS = {"minReplicas": 2, "maxReplicas": 4}


class TestAutoscaling:
    def test_an_autoscaler_scales_the_job_itself(self) -> None:
        world = World.of(digits(autoscaling=BOUNDS), privacy_plan=PLAN)
        world.settle()
        assert world.observed.autoscaler is not None
        assert world.observed.autoscaler["spec"] == BOUNDS | {
            "scaleTargetRef": {
                "apiVersion": "dtjob.dev/v1alpha1",
                "kind": "DistributedTrainingJob",
                "name": "digits",
            }
        }

    @pytest.mark.parametrize(("replicas", "workers"), [(1, 2), (3, 3), (9, 4)])
    def test_it_begins_within_the_bounds(self, replicas: int, workers: int) -> None:
        job = digits(autoscaling=BOUNDS)
        job["spec"]["workers"]["replicas"] = replicas
        world = World.of(job, privacy_plan=PLAN)
        world.settle()
        assert order(world)["workers"] == workers
        assert world.status["workers"]["desired"] == workers

    def test_a_job_that_rests_or_has_ended_or_asks_for_none_has_none(self) -> None:
        world = World.of(digits(autoscaling=BOUNDS))
        world.start()
        world.edit(suspend=True)
        world.settle()
        assert world.observed.autoscaler is None
        world.edit(suspend=False)
        world.settle()
        assert world.observed.autoscaler is not None
        job = copy.deepcopy(world.observed.job)
        del job["spec"]["autoscaling"]
        world.see(job=job)
        world.settle()
        assert world.observed.autoscaler is None
        world.edit(autoscaling=BOUNDS)
        world.settle()
        world.end()
        world.settle()
        assert world.observed.autoscaler is None

    def test_what_the_api_server_writes_otherwise_is_no_drift(self) -> None:
        """It rewrites quantities, and fills in what is left out."""
        target = {"type": "AverageValue", "averageValue": "1500Mi"}
        memory = {"type": "Resource", "resource": {"name": "memory", "target": target}}
        asked = BOUNDS | {
            "metrics": [memory],
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "tolerance": "0.050"}},
        }
        world = World.of(digits(autoscaling=asked), privacy_plan=PLAN)
        world.settle()
        stored = copy.deepcopy(world.observed.autoscaler)
        assert stored is not None
        (metric,) = stored["spec"]["metrics"]
        metric["resource"]["target"]["averageValue"] = "1572864k"
        stored["spec"]["behavior"]["scaleUp"] |= {"selectPolicy": "Max", "tolerance": "50m"}
        world.see(autoscaler=stored)
        assert world.decide().applies == ()
        metric["resource"]["target"]["averageValue"] = "1573Mi"
        assert [each["kind"] for each in world.decide().applies] == ["HorizontalPodAutoscaler"]


def test_an_order_is_given_once() -> None:
    """What was observed before it was written asks for the same, and no more."""
    world = running()
    world.edit(suspend=True)
    before: Observed = copy.deepcopy(world.observed)
    world.settle()
    written = order(world)
    world.see(ledger=before.ledger)
    (again,) = [each for each in world.decide().applies if each["kind"] == "PrivacyLedger"]
    assert again["spec"]["run"] == written


class TestRunPolicy:
    def test_a_change_is_passed_on_at_once_and_with_no_new_order(self) -> None:
        world = running()
        before = world.observed.ledger
        assert before is not None
        policy = {"maxRestarts": 3, "rules": [{"exitCodes": [42], "action": "Fail"}]}
        job = world.observed.job
        changed = {"runPolicy": job["spec"]["runPolicy"] | policy}
        world.see(job=job | {"spec": job["spec"] | changed})
        applied = len(world.applied)
        world.settle()
        assert world.applied[applied:] == ["PrivacyLedger"]
        spec = world.observed.ledger["spec"]  # type: ignore[index]
        assert spec["run"] == before["spec"]["run"]
        assert spec["runPolicy"]["maxRestarts"] == 3
        assert spec["runPolicy"]["rules"][0]["exitCodes"] == [42]
        assert world.status["phase"] == "Running"

    def test_that_of_a_job_which_has_ended_stays(self) -> None:
        world = running()
        world.end()
        world.settle()
        job = world.observed.job
        policy = job["spec"]["runPolicy"] | {"maxRestarts": 3}
        world.see(job=job | {"spec": job["spec"] | {"runPolicy": policy}})
        applied = len(world.applied)
        world.settle()
        assert len(world.applied) == applied
