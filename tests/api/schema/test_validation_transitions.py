"""What may change in a stored object, and what no writer can do to a ledger (Rules 10, 11, 17)."""

from __future__ import annotations

import pytest

from dtjob_api.ledger.ledger_rules import (
    CHARGED_NEVER_DECREASES,
    OUTCOME_IS_FINAL,
    RESERVED_COVERS_CHARGED,
    STATUS_NEVER_VANISHES,
)
from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_api.schema.validation import validate
from tests.support.rules.job_transitions import JOB_TRANSITIONS
from tests.support.rules.ledger_attacks import LEDGER_CHANGES, SERIES
from tests.support.rules.stored_ledgers import STARTED
from tests.support.rules.transitions import Transition, edited


@pytest.mark.rule(13)
@pytest.mark.parametrize(
    "transition", JOB_TRANSITIONS + LEDGER_CHANGES, ids=lambda transition: transition.name
)
def test_change_is_refused_at_the_fields_it_states(transition: Transition) -> None:
    errors = validate(transition.changed, old=transition.stored)
    assert sorted(error.field for error in errors) == sorted(transition.refused)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ("charged-lowered", CHARGED_NEVER_DECREASES),
        ("status-removed", STATUS_NEVER_VANISHES),
        ("charged-above-reserved", RESERVED_COVERS_CHARGED),
        ("reserved-below-charged", RESERVED_COVERS_CHARGED),
        ("outcome-removed", OUTCOME_IS_FINAL),
    ],
)
def test_attack_is_refused_with_the_rule_s_own_message(attack: str, message: str) -> None:
    """The operator's probe of the API server's guard looks for these words."""
    (transition,) = [t for t in LEDGER_CHANGES if t.name == attack]
    errors = [str(error) for error in validate(transition.changed, old=transition.stored)]
    assert any(error.endswith(f": Invalid value: {message}") for error in errors)


def test_removing_a_count_and_writing_it_anew_is_refused_at_the_removal() -> None:
    """The attack in two writes: neither without `charged` nor without `status`."""
    assert validate(STARTED | {"status": {}}, old=STARTED)
    assert validate(STARTED | {"status": {"attempt": 2}}, old=STARTED)
    without_status = {key: value for key, value in STARTED.items() if key != "status"}
    assert validate(without_status, old=STARTED)


@pytest.mark.parametrize("attack", SERIES)
def test_an_attack_of_several_writes_gets_through_none_of_them(attack: str) -> None:
    stored, writes = SERIES[attack]
    for changes in writes:
        assert validate(edited(stored, changes), old=stored), changes


def test_a_ledger_survives_the_model_unchanged() -> None:
    ledger = PrivacyLedger.from_dict(STARTED)
    assert PrivacyLedger.from_dict(ledger.to_dict()) == ledger
    assert validate(ledger.to_dict(), old=STARTED) == []
    spent = edited(ledger.to_dict(), {"status.charged": 29})
    assert validate(spent, old=STARTED)
