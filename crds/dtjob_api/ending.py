"""How the end of a job is told: that of the training in the ledger's figures, any other in its
workers' words.

What the workers say of epsilon is in the outcome's message and result, and is shown to nobody:
operator and CLI compute it from the charged draws (Rule 13).
"""

from __future__ import annotations

from typing import Any

from dtjob_api.ledger import OutcomeState, PrivacyLedger
from dtjob_api.reasons import Reason

_OF_THE_TRAINING = frozenset({Reason.COMPLETED, Reason.PRIVACY_BUDGET_EXHAUSTED})
_SHOWN = ("evaluation", "withoutEvaluation", "initialModelDigest", "modelDigest")


def message(ledger: PrivacyLedger) -> str:
    """What is said of a job that has ended; nothing of one that has not."""
    status, outcome = ledger.status, ledger.status.outcome
    if outcome is None:
        return ""
    if outcome.state is OutcomeState.FAILED and outcome.reason not in _OF_THE_TRAINING:
        return outcome.message
    told = f"{_step(ledger)} of {ledger.spec.plan.steps} steps done, {status.charged} draws charged"
    if outcome.reason is Reason.PRIVACY_BUDGET_EXHAUSTED:
        told += "; crashes and stalls have used up the reserve"
    failed = (outcome.result or {}).get("withoutEvaluation")
    return f"{told}; without an evaluation: {failed}" if failed else told


def result(ledger: PrivacyLedger) -> dict[str, Any] | None:
    """The figures of a job that has ended with a result: public ones, digests, steps and draws."""
    outcome = ledger.status.outcome
    if outcome is None or outcome.result is None:
        return None
    shown = {name: outcome.result[name] for name in _SHOWN if name in outcome.result}
    return {"steps": _step(ledger), "charged": ledger.status.charged, **shown}


def _step(ledger: PrivacyLedger) -> int:
    return ledger.status.checkpoint.step if ledger.status.checkpoint else 0
