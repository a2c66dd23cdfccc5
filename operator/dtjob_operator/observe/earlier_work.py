"""Ledgers of earlier jobs of a name that did the same work, or were about to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dtjob_api.content import content
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import OutcomeState
from dtjob_api.reasons import ConditionType, Reason
from dtjob_operator.read.status_conditions import condition, is_true
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import EarlierRun


def is_looked_for(job: Json) -> bool:
    """Whether a job without a ledger never had one: else it is lost, and no other stands for it."""
    status: Json = job.get("status") or {}
    succeeded = condition(status, ConditionType.SUCCEEDED)
    if succeeded is not None:
        return bool(succeeded["reason"] == Reason.ALREADY_COMPLETED)
    return not is_true(status, ConditionType.ACCEPTED)


def of_same_work(job: DistributedTrainingJob, ledgers: Iterable[Json]) -> Iterator[Json]:
    """Those of the job's name and content, whatever their run; the job has none itself."""
    if (work := content(job.spec)) is None:
        return
    wanted = work.to_dict()
    for ledger in ledgers:
        spec = ledger.get("spec") or {}
        if spec.get("jobName") == job.metadata.name and spec.get("content") == wanted:
            yield ledger


def completed(job: DistributedTrainingJob, same: Iterable[Json]) -> Json | None:
    """The one that makes the job needless: it succeeded, and no later run is asked for.

    Of several the newest run, and of that the first by name, so that the answer stays.
    """
    done = [
        ledger
        for ledger in same
        if (ledger.get("status") or {}).get("outcome", {}).get("state") == OutcomeState.SUCCEEDED
        and _rerun(ledger) >= job.spec.rerun
    ]
    return min(done, key=lambda ledger: (-_rerun(ledger), _name(ledger)), default=None)


def spent(same: Iterable[Json]) -> tuple[EarlierRun, ...]:
    """What earlier runs have charged, which did not count as done."""
    found = (
        EarlierRun(_name(ledger), (ledger.get("status") or {}).get("charged", 0)) for ledger in same
    )
    return tuple(sorted(run for run in found if run.charged))


def _rerun(ledger: Json) -> int:
    found: int = ledger["spec"].get("rerun", 0)
    return found


def _name(ledger: Json) -> str:
    found: str = ledger["metadata"]["name"]
    return found
