"""What is lost is never replaced in silence (rules 11 and 13)."""

from __future__ import annotations

import pytest

from dtjob_api.wire.positions import pod_name
from dtjob_operator.terms.observed import Spent
from tests.support.builders import UID
from tests.support.worlds.world import (
    CHILD,
    NOW,
    PLAN,
    Json,
    World,
    claim,
    digits,
    pod,
    report,
    running,
    stamp,
)

VOLUME = {"attempt": 1, "leased": 1, "charged": 300}
REFUSED = {"attempt": 1, "start": stamp(NOW), "end": stamp(NOW), "reason": "PrivacyStateLost"}
NOTHING: Json = {"charged": 0, "segments": [], "lease": None, "attempts": []}


def replicas(world: World) -> int:
    """Of both StatefulSets."""
    sets = (world.observed.coordinator_set, world.observed.worker_set)
    return sum(of_set["spec"]["replicas"] for of_set in sets if of_set is not None)


@pytest.mark.rule(11)
def test_a_lost_ledger_stops_the_job_and_is_not_made_anew() -> None:
    world = running()
    ledger = world.observed.ledger
    world.see(ledger=None)
    world.settle()
    assert world.observed.ledger is None
    assert replicas(world) == 0
    for kind in ("ResourcesReady", "Running"):
        assert world.reason(kind) == ("False", "LedgerMissing")
    assert f"PrivacyLedger {CHILD}" in world.condition("Running")["message"]
    assert world.reason("Accepted") == ("True", "Planned")
    assert world.status["phase"] == "Pending"
    assert world.events[-1] == "LedgerMissing"

    world.see(pods=())
    world.later(600)
    world.settle()
    assert world.observed.ledger is None

    world.see(ledger=ledger)
    world.settle()
    assert replicas(world) == 2
    assert world.reason("ResourcesReady")[1] != "LedgerMissing"


def test_a_ledger_that_went_with_its_definition_needs_that_first() -> None:
    world = running()
    world.see(ledger=None, ledgers_undefined=True)
    world.settle()
    assert replicas(world) == 0
    assert world.reason("Running") == ("False", "LedgerMissing")
    message = world.condition("Running")["message"]
    assert message.index("install this release's definitions first") < message.index("backup")


@pytest.mark.rule(11)
@pytest.mark.parametrize("evidence", ["coordinator_set", "worker_set", "claim"])
def test_children_prove_that_there_was_a_ledger(evidence: str) -> None:
    """Also where the operator was killed before its status told of it."""
    started = running()
    seen = {evidence: getattr(started.observed, evidence)}
    world = World.of(privacy_plan=PLAN, **seen)
    world.settle()
    assert world.reason("Running") == ("False", "LedgerMissing")
    world.see(coordinator_set=None, worker_set=None, claim=None)
    world.settle()
    assert world.observed.ledger is None
    assert world.reason("Running") == ("False", "LedgerMissing")


@pytest.mark.rule(11)
def test_a_lost_claim_stops_the_job_until_it_is_back() -> None:
    world = running()
    world.see(claim=None, pods=())
    world.settle()
    assert replicas(world) == 0
    for kind in ("ResourcesReady", "Running", "CheckpointFresh"):
        assert world.reason(kind) == ("False", "CheckpointLost")
    message = world.condition("Running")["message"]
    assert f"checkpoints-{CHILD}-0" in message
    assert f"dtjob.dev/job-uid={UID}" in message
    assert "the journal of 10 draws" in message
    assert "raised" not in message
    assert "Failed" not in {c["type"] for c in world.status["conditions"]}

    world.see(claim=claim())
    world.settle()
    assert replicas(world) == 2


@pytest.mark.rule(11)
@pytest.mark.parametrize(
    ("status", "held"),
    [
        ({"volume": VOLUME}, "at least 300 draws"),
        ({"charged": 20, "volume": VOLUME}, "at least 300 draws"),
        ({"attempts": [REFUSED]}, "at least 0 draws"),
    ],
    ids=["found", "found beyond the charge", "refused"],
)
def test_a_lost_claim_of_draws_that_the_ledger_lacks_stops_the_job(status: Json, held: str) -> None:
    """The ledger came back without its status: an empty claim would seem a fresh start."""
    world = World.of(privacy_plan=PLAN)
    world.settle()
    world.see(pods=(pod(0), pod(1)), claim=claim())
    world.ledger_status(**NOTHING | {"attempt": 1} | status)
    world.settle()
    assert world.status["phase"] == "Restarting"
    world.see(claim=None, pods=())
    world.settle()
    assert replicas(world) == 0
    assert world.status["phase"] == "Pending"
    assert world.reason("Running") == ("False", "CheckpointLost")
    message = world.condition("Running")["message"]
    assert held in message
    assert "goes on once the ledger is raised too" in message
    assert world.status["privacy"]["drawsCharged"] == status.get("charged", 0)


def test_a_claim_of_a_job_that_has_spent_nothing_is_no_loss() -> None:
    world = World.of(privacy_plan=PLAN)
    world.settle()
    assert replicas(world) == 2
    assert world.reason("ResourcesReady") == ("False", "CreatingResources")


@pytest.mark.parametrize(
    "reason",
    [
        "PrivacyStateLost",
        "CheckpointLost",
        "StorageFull",
        "StorageUnusable",
        "CheckpointMismatch",
        "EntrypointInvalid",
        "TaskFailed",
    ],
)
def test_a_refused_attempt_is_told_but_not_final(reason: str) -> None:
    world = running()
    world.later(10)
    (attempt,) = (world.observed.ledger or {})["status"]["attempts"]
    ended = attempt | {"end": stamp(world.now), "reason": reason, "message": "what and how"}
    world.ledger_status(attempts=[ended])
    world.settle()
    assert world.reason("Running") == ("False", reason)
    assert world.condition("Running")["message"] == "what and how"
    assert world.status["phase"] == "Restarting"
    assert replicas(world) == 2
    volume = ("CheckpointLost", "StorageFull", "StorageUnusable")
    fresh = reason if reason in volume else "CheckpointRecorded"
    assert world.reason("CheckpointFresh")[1] == fresh

    world.later(60)
    world.lease(attempt=2, charged=20)
    world.settle()
    assert world.reason("Running") == ("True", "Training")


def test_a_ledger_of_another_version_is_neither_replaced_nor_run_from() -> None:
    world = running()
    assert world.observed.ledger is not None
    spec = world.observed.ledger["spec"] | {"future": True}
    world.see(ledger=world.observed.ledger | {"spec": spec})
    decision = world.reconcile()
    assert decision.applies == ()
    assert world.reason("Running") == ("Unknown", "LedgerUnreadable")
    assert world.reason("ResourcesReady") == ("False", "LedgerUnreadable")
    assert "spec.future" in world.condition("Running")["message"]
    assert world.events[-1] == "LedgerUnreadable"
    assert replicas(world) == 2


@pytest.mark.parametrize("trains", [True, False])
def test_what_a_ledger_that_can_not_be_read_says_of_pods_is_left_as_it_was(trains: bool) -> None:
    """Such as that of a newer operator, where an older one is put back: its pods train on."""
    world = running() if trains else World.of(privacy_plan=PLAN)
    world.settle()
    phase, met = world.status["phase"], world.reason("RendezvousReady")
    assert phase == ("Running" if trains else "Starting")
    assert world.observed.ledger is not None
    world.see(ledger={**world.observed.ledger, "status": {"future": 1}})
    world.settle()
    assert (world.status["phase"], world.reason("RendezvousReady")) == (phase, met)
    assert world.reason("Accepted") == ("True", "Planned")


WHY = "the API server accepts a write that lowers status.charged"


def test_while_ledgers_are_not_protected_nothing_is_started() -> None:
    world = World.of(unguarded=WHY)
    world.see(privacy_plan=PLAN)
    world.settle()
    assert world.applied == []
    assert world.status["phase"] == "Pending"
    assert world.reason("Running") == ("False", "LedgersUnguarded")
    assert WHY in world.condition("Running")["message"]
    assert world.events == ["LedgersUnguarded"]
    world.see(unguarded=None)
    world.settle()
    assert "StatefulSet" in world.applied


def test_what_runs_goes_on_while_ledgers_are_not_protected_and_says_so() -> None:
    world = running()
    applied = len(world.applied)
    world.see(unguarded=WHY, service=None)
    world.settle()
    assert len(world.applied) == applied
    assert replicas(world) == 2
    assert world.status["phase"] == "Running"
    assert world.reason("ResourcesReady") == ("False", "LedgersUnguarded")
    assert world.events[-1] == "LedgersUnguarded"
    world.see(unguarded=None)
    world.settle()
    assert world.applied[-1] == "Service"
    assert world.reason("ResourcesReady")[0] == "True"


def test_what_has_ended_is_put_away_though_ledgers_are_not_protected() -> None:
    world = running()
    world.see(unguarded=WHY)
    world.ledger_status(charged=336)
    world.end()
    world.settle()
    assert world.status["phase"] == "Succeeded"
    assert replicas(world) == 0


@pytest.mark.parametrize("lost", ["ledger", "claim"])
def test_what_has_stopped_shows_no_gpus_and_no_end(lost: str) -> None:
    world = running()
    world.later(20)
    ranges = {"min": 90, "mean": 93, "max": 95}
    world.see(report=report(50, gpu={"count": 1, "utilizationPercent": ranges}))
    world.settle()
    assert {"gpu", "eta"} <= set(world.status["display"])
    world.see(**({"ledger": None} if lost == "ledger" else {"claim": None}))
    world.settle()
    for _ in range(2):
        assert not {"gpu", "eta"} & set(world.status["display"])
        assert "gpu" not in world.status
        assert "estimatedCompletionTime" not in world.status["progress"]
        assert world.status["phase"] == "Pending"
        world.see(pods=(), report=None)
        world.later(60)
        world.settle()


def oom_killed(world: World, position: int) -> dict[str, object]:
    """A pod whose container was killed as one group, and runs again."""
    return pod(
        position,
        containerStatuses=[
            {
                "name": "worker",
                "restartCount": 1,
                "state": {"running": {"startedAt": stamp(world.now)}},
                "lastState": {
                    "terminated": {
                        "exitCode": 137,
                        "reason": "OOMKilled",
                        "finishedAt": stamp(world.now),
                    }
                },
            }
        ],
    )


def lost(world: World, reason: str = "WorkerLost") -> None:
    """The coordinator records the end of its attempt."""
    assert world.observed.ledger is not None
    (record,) = world.observed.ledger["status"]["attempts"]
    ended = {"end": stamp(world.now), "reason": reason, "message": "worker 1 stopped answering"}
    world.ledger_status(attempts=[record | ended])


@pytest.mark.parametrize("position", [0, 1])
def test_a_worker_that_was_killed_for_memory_is_told_though_it_runs_again(position: int) -> None:
    """Supervisor and ranks die at once, so that no record of theirs can say it."""
    world = World.of(digits(workers={"replicas": 2, "resources": {"limits": {"memory": "4Gi"}}}))
    world.start()
    world.later(20)
    pods = [pod(0), pod(1)]
    pods[position] = oom_killed(world, position)
    world.see(pods=tuple(pods))
    if position == 1:  # the death of the coordinator is written down by its successor
        lost(world)
    world.settle()
    assert world.status["phase"] == "Restarting"
    assert world.reason("Running") == ("False", "OutOfMemory")
    assert world.status["display"]["reason"] == "OutOfMemory"
    message = world.condition("Running")["message"]
    for words in (
        f"pod {pod_name(CHILD, position)} was killed",
        "The limit is 4Gi",
        "limits.memory",
    ):
        assert words in message
    assert world.reason("ResourcesReady")[1] != "OutOfMemory", "it is up again"
    assert world.events.count("OutOfMemory") == 1

    world.later(10)
    world.lease(attempt=2, charged=20)
    world.settle()
    assert world.reason("Running") == ("True", "Training")
    world.later(10)
    assert world.observed.ledger is not None
    first, second = world.observed.ledger["status"]["attempts"]
    ended = {"end": stamp(world.now), "reason": "RankFailed", "message": "exit code 1"}
    world.ledger_status(attempts=[first, second | ended])
    world.settle()
    assert world.reason("Running") == ("False", "Restarting"), "that was another attempt's loss"


def test_a_kill_after_an_orderly_stop_is_no_end_of_it() -> None:
    world = running()
    world.later(20)
    lost(world, reason="Stopped")
    world.see(pods=(pod(0), oom_killed(world, 1)))
    world.settle()
    assert world.reason("Running") == ("False", "Restarting")


@pytest.mark.rule(13)
@pytest.mark.parametrize(
    ("ledger", "spent"),
    [
        (NOTHING | {"volume": VOLUME}, None),
        (NOTHING | {"volume": VOLUME}, Spent("7.1", 300)),
        (NOTHING | {"attempts": [REFUSED]}, None),
        (None, None),
    ],
    ids=["being computed", "of what is proven", "refused", "ledger gone"],
)
def test_what_may_be_too_little_is_no_figure_of_the_column(
    ledger: Json | None, spent: Spent | None
) -> None:
    """As `dtjob report` refuses it; `status.privacy` says of how many draws its figure is."""
    world = World.of(privacy_plan=PLAN)
    world.settle()
    assert world.status["display"]["epsilon"] == "0/8"
    if ledger is None:
        world.see(ledger=None)
    else:
        world.ledger_status(**ledger)
    world.see(spent=spent)
    world.later(60)
    world.settle()
    assert world.status["display"]["epsilon"] == "?/8"
    assert world.status["privacy"].get("epsilonSpent") == (spent.epsilon if spent else None)


@pytest.mark.rule(13)
@pytest.mark.parametrize("state", ["starting", "training"])
def test_a_figure_that_may_be_too_little_is_taken_back_at_once(state: str) -> None:
    world = World.of(privacy_plan=PLAN)
    if state == "training":
        world.start()
        world.see(spent=Spent("2.31", 10))
        world.later(20)
    world.settle()
    assert world.status["display"]["epsilon"] == ("2.31/8" if state == "training" else "0/8")
    world.later(0.1)
    world.ledger_status(volume=VOLUME)
    world.settle()
    assert world.status["display"]["epsilon"] == "?/8"


def test_the_column_of_a_job_that_has_ended_outlives_its_ledger() -> None:
    world = running()
    world.see(spent=Spent("7.48", 336))
    world.ledger_status(charged=336)
    world.end()
    world.settle()
    world.see(ledger=None)
    world.later(20)
    world.settle()
    assert world.status["display"]["epsilon"] == "7.48/8"
