"""How the end of a job is told: without a word of its workers on epsilon."""

from __future__ import annotations

import pytest

from dtjob_api.ledger import ending
from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from tests.support.rules.stored_ledgers import FINISHED, STARTED
from tests.support.rules.transitions import edited

DIGEST = f"sha256:{'0' * 64}"
FORGED = {
    "epsilonSpent": "0.0100",
    "epsilon": 0.01,
    "steps": 336,
    "charged": 1,
    "evaluation": {"accuracy": 0.9},
    "modelDigest": DIGEST,
}


def ledger(**outcome: object) -> PrivacyLedger:
    changes = {f"status.outcome.{name}": value for name, value in outcome.items()}
    return PrivacyLedger.from_dict(edited(FINISHED, changes))


def test_a_success_is_told_in_the_ledger_s_figures() -> None:
    told = ledger(message="336 steps, epsilon 0.0100", result=FORGED)
    assert ending.message(told) == "10 of 336 steps done, 30 draws charged"
    assert ending.result(told) == {
        "steps": 10,
        "charged": 30,
        "evaluation": {"accuracy": 0.9},
        "modelDigest": DIGEST,
    }


@pytest.mark.rule(13)
@pytest.mark.parametrize(
    "result",
    [
        {"withoutEvaluation": "epsilon 0.0100 spent in 10 draws"},
        {"withoutEvaluation": {"epsilon": 0.01}},
        {"withoutEvaluation": ["0.0100"]},
        {"evaluation": "epsilon 0.0100"},
        {"evaluation": {"accuracy": "0.9, epsilon 0.0100"}},
        {"evaluation": {"accuracy": {"epsilon": 0.01}}},
        {"evaluation": {"epsilonSpent": 0.01}},
        {"evaluation": {"spent.Epsilon": 0.01}},
        {"evaluation": {"ε": 0.01}},
        {"evaluation": {"only 0.0100 was spent": 1}},
        {"modelDigest": "sha256:0, epsilon 0.0100"},
        {"initialModelDigest": {"epsilon": 0.01}},
        {"initialModelDigest": f"{DIGEST}\n0.0100"},
    ],
)
def test_no_field_of_a_result_has_room_for_an_epsilon(result: dict[str, object]) -> None:
    told = ledger(result=result)
    assert "0.01" not in f"{ending.message(told)} {ending.result(told)}"


@pytest.mark.parametrize("state", ["Succeeded", "Failed"])
def test_the_end_of_the_reserve_is_told_in_the_ledger_s_figures(state: str) -> None:
    told = ledger(state=state, reason="PrivacyBudgetExhausted", message="epsilon 0.0100")
    expected = "10 of 336 steps done, 30 draws charged; crashes and stalls have used up the reserve"
    assert ending.message(told) == expected


def test_why_there_is_no_evaluation_is_told() -> None:
    told = ledger(result={"withoutEvaluation": "EvaluationInvalid", "evaluation": None})
    said = "30 draws charged; without an evaluation (EvaluationInvalid): see the log of worker 0"
    assert ending.message(told).endswith(said)
    assert ending.result(told) == {
        "steps": 10,
        "charged": 30,
        "evaluation": None,
        "withoutEvaluation": "EvaluationInvalid",
    }


def test_that_there_is_no_evaluation_is_told_also_without_a_reason() -> None:
    """As of a result that an older version wrote, in words."""
    told = ledger(result={"withoutEvaluation": "ValueError at task.py:3"})
    said = "30 draws charged; without an evaluation: see the log of worker 0"
    assert ending.message(told).endswith(said)


def test_a_failure_is_told_in_its_own_words() -> None:
    told = ledger(state="Failed", reason="TaskInvalid", message="layer1", result=None)
    assert (ending.message(told), ending.result(told)) == ("layer1", None)


def test_what_has_not_ended_has_no_end() -> None:
    running = PrivacyLedger.from_dict(STARTED)
    assert (ending.message(running), ending.result(running)) == ("", None)
