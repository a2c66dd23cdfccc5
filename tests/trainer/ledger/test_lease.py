"""Which segment a lease is charged to, and what becomes of a ledger that is full of them."""

from __future__ import annotations

import pytest

from dtjob_api.ledger.ledger_rules import breaches
from dtjob_api.ledger.privacy_ledger import (
    MAX_SEGMENTS,
    UNKNOWN_IMAGE,
    Formats,
    PrivacyLedger,
    Provenance,
    Segment,
)
from dtjob_trainer.ledger.lease import next_lease, with_lease
from tests.support.builders import PROVENANCE, VERSIONS, checkpoint, new_ledger, tiny_plan

PLAN = tiny_plan(steps=90, lease_steps=1)


def strange(number: int) -> Provenance:
    """One that has nothing in common with any other."""
    return Provenance(
        image=f"trainer:{number}",
        formats=Formats(sampling=number + 1, noise=1),
        versions=VERSIONS.model_copy(update={"torch": f"2.{number}"}),
        task_digest=f"sha256:{number:064d}",
    )


def full_of(provenances: list[Provenance]) -> PrivacyLedger:
    """As many segments as there is room for, of one draw each."""
    assert len(provenances) == MAX_SEGMENTS
    segments = [
        Segment(
            noise_multiplier=PLAN.noise_multiplier,
            sample_rate=PLAN.sample_rate,
            draws=1,
            **dict(each),
        )
        for each in provenances
    ]
    newest = checkpoint(MAX_SEGMENTS, MAX_SEGMENTS)
    return new_ledger(PLAN, attempt=1, charged=MAX_SEGMENTS, segments=segments, checkpoint=newest)


def leased_by(ledger: PrivacyLedger, provenance: Provenance) -> PrivacyLedger:
    status = ledger.status
    assert status.checkpoint is not None
    lease = next_lease(ledger, status.attempt, status.charged, status.checkpoint.step)
    assert lease is not None
    charged = with_lease(ledger, lease, status.checkpoint, provenance)
    after = ledger.model_copy(update={"status": charged})
    assert breaches(ledger, after) == []
    assert (charged.charged, len(charged.segments)) == (status.charged + 1, MAX_SEGMENTS)
    return after


@pytest.mark.rule(14)
def test_a_full_ledger_joins_the_segments_that_have_most_in_common() -> None:
    """Whatever is new, the run goes on; nothing becomes free, and nothing unknown is said."""
    given = [strange(number) for number in range(MAX_SEGMENTS)]
    given[6] = given[5].model_copy(update={"task_digest": "sha256:" + "2" * 64})
    given[9] = given[8].model_copy(update={"versions": VERSIONS})
    ledger = full_of(given)
    for number in range(2):
        newer = PROVENANCE.model_copy(update={"image": f"newer:{number}"})
        ledger = leased_by(ledger, newer)
        assert ledger.status.segments[-1].provenance == newer

    assert [each.provenance for each in ledger.status.segments if each.draws == 2] == [
        given[5].model_copy(update={"task_digest": None}),
        given[8].model_copy(update={"versions": None}),
    ]


@pytest.mark.rule(14)
def test_what_two_joined_segments_do_not_share_is_not_known_of_them() -> None:
    ledger = leased_by(full_of([strange(number) for number in range(MAX_SEGMENTS)]), PROVENANCE)
    oldest = ledger.status.segments[0]
    assert (oldest.draws, oldest.provenance) == (2, Provenance(image=UNKNOWN_IMAGE))


@pytest.mark.rule(14)
def test_a_full_ledger_goes_on_with_its_last_segment() -> None:
    ledger = full_of([strange(number) for number in range(MAX_SEGMENTS)])
    after = leased_by(ledger, strange(MAX_SEGMENTS - 1))
    assert [each.draws for each in after.status.segments] == [1] * (MAX_SEGMENTS - 1) + [2]
