"""The words for the end of a job.

The end of its training is described by the ledger's figures, any other end by its workers' words.
What the workers say of epsilon is in the outcome's message and result, and is shown to nobody:
operator and CLI compute it from the charged draws (Rule 13). A coordinator can write any result, so
only what has the form that it should have is shown of it.
"""

from __future__ import annotations

import math
import re
from typing import Any

from dtjob_api import shown
from dtjob_api.ledger.privacy_ledger import OutcomeState, PrivacyLedger
from dtjob_api.reasons import Reason, known

_OF_THE_TRAINING = frozenset({Reason.COMPLETED, Reason.PRIVACY_BUDGET_EXHAUSTED})
_FIGURE = re.compile(r"(?!(?i:.*epsilon))[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


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
    if failed := (outcome.result or {}).get("withoutEvaluation"):
        reason = f" ({failed})" if known(failed) else ""
        told += f"; without an evaluation{reason}: see the log of worker 0"
    return told


def result(ledger: PrivacyLedger) -> dict[str, Any] | None:
    """The figures of a job that has ended with a result: public ones, digests, steps and draws."""
    outcome = ledger.status.outcome
    if outcome is None or outcome.result is None:
        return None
    told: dict[str, Any] = {"steps": _step(ledger), "charged": ledger.status.charged}
    if "evaluation" in outcome.result:
        told["evaluation"] = _evaluation(outcome.result["evaluation"])
    if known(failed := outcome.result.get("withoutEvaluation")):
        told["withoutEvaluation"] = failed
    for name in ("initialModelDigest", "modelDigest"):
        if digest := shown.digest(outcome.result.get(name)):
            told[name] = digest
    return told


def is_figures_name(name: object) -> bool:
    """Whether a figure of an evaluation may be shown under a name: no prose, none of epsilon."""
    return isinstance(name, str) and _FIGURE.fullmatch(name) is not None


def _evaluation(told: object) -> dict[str, float] | None:
    if not isinstance(told, dict):
        return None
    return {
        name: figure
        for name, figure in told.items()
        if is_figures_name(name) and _is_figure(figure)
    }


def _is_figure(told: object) -> bool:
    return type(told) is int or (type(told) is float and math.isfinite(told))


def _step(ledger: PrivacyLedger) -> int:
    return ledger.status.checkpoint.step if ledger.status.checkpoint else 0
