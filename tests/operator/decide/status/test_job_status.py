"""The figures and columns of a status, and that epsilon never falls."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dtjob_api.ledger.privacy_ledger import PrivacyPlan
from dtjob_operator.terms.observed import Spent
from tests.support.builders import UID
from tests.support.worlds.world import CHILD, NOW, PLAN, World, digits, report, running, stamp


def _ranges(mean: int) -> dict[str, int]:
    return {"min": mean - 3, "mean": mean, "max": mean + 2}


def test_workers_are_found_by_their_selector() -> None:
    world = running()
    assert world.status["workers"] == {
        "desired": 2,
        "replicas": 2,
        "ready": 2,
        "selector": f"dtjob.dev/job=digits,dtjob.dev/job-uid={UID}",
        "generation": 1,
    }


def test_columns() -> None:
    world = running()
    world.later(20)
    gpu = {
        "count": 2,
        "utilizationPercent": _ranges(93),
        "memoryUsedBytes": 61 * 2**30,
        "memoryTotalBytes": 160 * 2**30,
    }
    world.see(
        report=report(195, gpu=gpu, evaluation={"step": 190, "accuracy": 0.94321987}),
        spent=Spent("2.3012", 60),
    )
    world.settle()
    assert world.status["display"] == {
        "reason": "Training",
        "ready": "2/2",
        "progress": "58%",
        "epsilon": "2.31/8",
        "gpu": "93%",
        "memory": "61/160Gi",
        "eta": "14:05Z",
    }
    progress = world.status["progress"]
    assert (progress["step"], progress["totalSteps"], progress["percent"]) == (195, 336, 58)
    assert progress["samplesPerSecond"] == "2560.0"
    assert progress["epoch"] == "34.74"
    assert progress["evaluation"]["accuracy"] == "0.94322"
    assert world.status["privacy"] == {
        "epsilonSpent": "2.3012",
        "epsilonDraws": 60,
        "epsilonTarget": "8",
        "epsilonGuaranteed": "7.9992",
        "delta": "1e-5",
        "noiseMultiplier": "2.2031",
        "sampleRate": "0.178149",
        "drawsReserved": 366,
        "drawsCharged": 10,
        "accountant": "PLD (dp-accounting 0.6.0)",
    }
    assert world.status["checkpoint"]["location"] == (f"checkpoints-{CHILD}-0:attempt-1/step-0.pt")


@pytest.mark.parametrize(
    ("at", "shown"), [(timedelta(hours=2), "16:00Z"), (timedelta(hours=30), "03-02 20:00Z")]
)
def test_a_distant_end_names_its_day(at: timedelta, shown: str) -> None:
    world = running()
    world.later(20)
    world.see(report=report(5, estimatedCompletionTime=stamp(NOW + at)))
    world.settle()
    assert world.status["display"]["eta"] == shown


def test_without_privacy_no_epsilon_is_shown() -> None:
    spends = ("noiseMultiplier", "epsilon", "epsilonGuaranteed", "delta", "maxGradNorm")
    fields = {name: value for name, value in PLAN.to_dict().items() if name not in spends}
    plan = PrivacyPlan.model_validate(fields | {"mode": "Disabled"})
    privacy = {"mode": "Disabled", "datasetSize": 1437}
    world = World.of(digits(privacy=privacy), privacy_plan=plan)
    world.settle()
    assert world.status["display"]["epsilon"] == "Disabled"
    assert world.status["privacy"] == {"drawsReserved": 366, "drawsCharged": 0}
    assert "without privacy" in world.condition("Accepted")["message"]


@pytest.mark.rule(13)
def test_epsilon_never_goes_down() -> None:
    world = running()
    for told, shown in (
        (Spent("2.31", 10), ("2.31", 10)),
        (Spent("1.9", 20), ("2.31", 20)),
        (None, ("2.31", 20)),
        (Spent("2.31", 10), ("2.31", 20)),
        (Spent("10.2", 30), ("10.2", 30)),
    ):
        world.see(spent=told)
        world.later(20)
        world.settle()
        privacy = world.status["privacy"]
        assert (privacy["epsilonSpent"], privacy["epsilonDraws"]) == shown


@pytest.mark.rule(13)
def test_epsilon_of_a_finished_job_still_rises_when_it_is_known() -> None:
    world = running()
    world.see(spent=Spent("2.31", 10))
    world.ledger_status(charged=336)
    world.end()
    world.settle()
    assert world.status["privacy"]["epsilonDraws"] == 10
    world.see(spent=Spent("7.48", 336))
    world.later(20)
    world.settle()
    assert world.status["privacy"]["epsilonSpent"] == "7.48"
    assert world.status["privacy"]["epsilonDraws"] == 336
    assert world.status["privacy"]["drawsCharged"] == 336
    assert world.status["display"]["epsilon"] == "7.48/8"


@pytest.mark.rule(13)
@pytest.mark.parametrize(
    ("spent", "at_most", "shown"),
    [
        (Spent("2.3012", 60), None, "2.31/8"),
        (Spent("2.3012", 50), "2.7001", "≤2.71/8"),
        (Spent("2.8", 50), "2.7001", "≤2.80/8"),
        (None, "2.7001", "≤2.71/8"),
        (Spent("2.3012", 50), None, "?/8"),
        (None, None, "?/8"),
    ],
)
def test_the_epsilon_of_fewer_draws_than_are_charged_is_not_in_the_column(
    spent: Spent | None, at_most: str | None, shown: str
) -> None:
    world = running()
    world.ledger_status(charged=60)
    world.see(spent=spent, spent_at_most=at_most)
    world.later(20)
    world.settle()
    assert world.status["display"]["epsilon"] == shown
    privacy = world.status["privacy"]
    assert (privacy.get("epsilonSpent"), privacy.get("epsilonDraws")) == (
        (spent.epsilon, spent.draws) if spent else (None, None)
    )


@pytest.mark.rule(13)
def test_a_bound_gives_way_to_the_figure_and_is_not_kept() -> None:
    world = running()
    world.see(spent=Spent("2.3", 10))
    world.ledger_status(charged=20)
    world.see(spent_at_most="3.1")
    world.later(20)
    world.settle()
    assert world.status["display"]["epsilon"] == "≤3.10/8"
    world.see(spent=Spent("2.6", 20), spent_at_most=None)
    world.later(20)
    world.settle()
    assert world.status["display"]["epsilon"] == "2.60/8"
    world.ledger_status(volume={"attempt": 1, "leased": 1, "charged": 300})
    world.see(spent_at_most="7.1")
    world.reconcile()
    assert world.status["display"]["epsilon"] == "?/8", "the ledger may lack draws: at once"
