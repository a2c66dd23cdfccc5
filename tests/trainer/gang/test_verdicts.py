"""What the end of an attempt means for its job: final, or held until a person acts."""

from __future__ import annotations

import pytest

from dtjob_api.ledger.privacy_ledger import Lease, LedgerStatus
from dtjob_api.reasons import TRAINING_HELD, Reason
from dtjob_api.wire.gang import End, EndKind
from dtjob_trainer.gang.verdicts import weigh


def status(charged: int, leased_by: int | None = None) -> LedgerStatus:
    lease = None
    if leased_by is not None:
        lease = Lease(attempt=leased_by, from_draw=charged - 5, to_draw=charged, from_step=0)
    return LedgerStatus(attempt=3, charged=charged, lease=lease)


def failed(reason: Reason = Reason.ENTRYPOINT_INVALID) -> End:
    return End(kind=EndKind.FAILED, rank=0, reason=reason, message="no module named 'clinic'")


def test_a_failure_before_the_first_charge_is_final() -> None:
    assert weigh(failed(), status(0), 3).kind is EndKind.FAILED


def test_what_a_start_finds_wrong_once_draws_are_charged_holds_the_job() -> None:
    held = weigh(failed(), status(20, leased_by=2), 3)
    assert (held.kind, held.reason, held.message) == (
        EndKind.HELD,
        Reason.ENTRYPOINT_INVALID,
        "no module named 'clinic'",
    )


def test_a_failure_of_an_attempt_that_has_leased_is_final() -> None:
    """Another start would spend a lease to meet the same record again."""
    end = failed(Reason.TASK_FAILED)
    assert weigh(end, status(20, leased_by=3), 3).kind is EndKind.FAILED


@pytest.mark.rule(6)
@pytest.mark.parametrize("charged", [0, 20])
def test_diverged_replicas_are_final(charged: int) -> None:
    end = failed(Reason.REPLICAS_DIVERGED)
    assert weigh(end, status(charged), 3).kind is EndKind.FAILED


@pytest.mark.parametrize("kind", sorted(set(EndKind) - {EndKind.FAILED}))
def test_other_ends_mean_what_they_say(kind: EndKind) -> None:
    end = failed().model_copy(update={"kind": kind})
    assert weigh(end, status(20, leased_by=2), 3) == end


@pytest.mark.parametrize(
    "reason",
    [
        Reason.ENTRYPOINT_INVALID,
        Reason.TASK_INVALID,
        Reason.MODEL_REFUSED,
        Reason.EVALUATION_INVALID,
        Reason.DRY_RUN_FAILED,
        Reason.TASK_FAILED,
        Reason.DATASET_INVALID,
        Reason.CHECKPOINT_MISMATCH,
        Reason.GPU_MISSING,
    ],
)
def test_a_held_job_eats_no_restarts(reason: Reason) -> None:
    assert reason in TRAINING_HELD
