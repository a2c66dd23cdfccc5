"""Changes of spec.runPolicy that the workers' pod template does not have yet."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.wire.well_known import CONFIG_VARIABLE
from dtjob_operator.terms import names
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed

_FIELDS = ("maxRestarts", "stallSeconds")


def deferred(observed: Observed, job: DistributedTrainingJob) -> tuple[str, ...]:
    """What was changed and what the pods go on with, where they do.

    The template changes at 0 pods only, so what is in it is what the workers were started with.
    """
    stored = observed.coordinator_set
    if stored is None or not names.is_ours(stored, job):
        return ()
    if stored["spec"].get("replicas") == 0 and not observed.pods:
        return ()
    started_with = _configuration(stored)
    wanted = job.spec.run_policy.to_dict()
    return tuple(
        f"spec.runPolicy.{field} is {wanted[field]}, but the workers were started with "
        f"{started_with[field]}"
        for field in _FIELDS
        if field in started_with and started_with[field] != wanted[field]
    )


def _configuration(stateful_set: Json) -> Json:
    """The supervisors' configuration in a stored template; {} where there is none."""
    for value in _values(stateful_set["spec"].get("template") or {}):
        try:
            config = json.loads(value)
        except ValueError:
            continue
        if isinstance(config, dict):
            return config
    return {}


def _values(template: Json) -> Iterator[str]:
    for container in (template.get("spec") or {}).get("containers") or []:
        for variable in container.get("env") or []:
            if container["name"] == names.WORKER_CONTAINER and variable["name"] == CONFIG_VARIABLE:
                yield variable.get("value") or ""
