"""A job as the API server has stored it."""

from __future__ import annotations

from pydantic import ValidationError

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_operator.terms.kinds import Json


def parsed(job: Json) -> DistributedTrainingJob:
    """The job without its status, which may be another version's and which nothing depends on.

    Raises
    ------
    pydantic.ValidationError
        Another version made it.
    """
    return DistributedTrainingJob.from_dict({**job, "status": None})


def parsed_if_readable(job: Json) -> DistributedTrainingJob | None:
    """The job without its status; None where `parsed` would raise."""
    try:
        return parsed(job)
    except ValidationError:
        return None
