"""A job as the API server has stored it."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from dtjob_api.derive import child_name
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_operator.terms.kinds import Json


def run_of(job: Json) -> int:
    """The run that a stored job is at: `spec.rerun` as it was when that began.

    Another one begins once the status says so, which is when nothing is left of this one.
    """
    status = job.get("status")
    if not status:
        return asked_run(job)
    return _number(status.get("rerun"))


def asked_run(job: Json) -> int:
    """The run that is asked for."""
    return _number((job.get("spec") or {}).get("rerun"))


def child_of(job: Json) -> str:
    """Name of the children of the run that a stored job is at."""
    metadata = job["metadata"]
    return child_name(metadata["name"], metadata["uid"], run_of(job))


def parsed(job: Json) -> DistributedTrainingJob:
    """The job at its present run, without its status, which may be another version's.

    Nothing else of it depends on the status.

    Raises
    ------
    pydantic.ValidationError
        Another version made it.
    """
    found = DistributedTrainingJob.from_dict({**job, "status": None})
    if found.spec.rerun == (run := run_of(job)):
        return found
    return found.model_copy(update={"spec": found.spec.model_copy(update={"rerun": run})})


def parsed_if_readable(job: Json) -> DistributedTrainingJob | None:
    """The job as `parsed` has it; None where that would raise."""
    try:
        return parsed(job)
    except ValidationError:
        return None


def _number(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
