"""How the end of a job is told: a success in the ledger's figures, a failure in its workers' words.

What the workers say of epsilon is in the outcome's message and result, and is shown to nobody:
operator and CLI compute it from the charged draws (Rule 13).
"""

from __future__ import annotations

from typing import Any

from dtjob_api.ledger import OutcomeState, PrivacyLedger

_SHOWN = ("evaluation", "withoutEvaluation", "initialModelDigest", "modelDigest")


def message(ledger: PrivacyLedger) -> str:
    """What is said of a job that has ended; nothing of one that has not."""
    status, outcome = ledger.status, ledger.status.outcome
    if outcome is None:
        return ""
    if outcome.state is OutcomeState.FAILED:
        return outcome.message
    told = f"{_step(ledger)} of {ledger.spec.plan.steps} steps done, {status.charged} draws charged"
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
