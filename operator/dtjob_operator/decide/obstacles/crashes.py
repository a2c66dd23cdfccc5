"""How a worker's supervisor ended, by the last lines of its log."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason, known
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_operator.decide.facts import Facts
from dtjob_operator.decide.obstacles.obstacle import of_pods
from dtjob_operator.decide.obstacles.remedies import node_words
from dtjob_operator.decide.obstacles.remedies.container_remedies import (
    SHORTER_VARIABLES,
    is_starved,
    metadata_remedy,
    more_memory,
    trainer_image,
)
from dtjob_operator.read.pod_status import (
    ends,
    has_ready_condition,
    is_out_of_memory,
    is_running,
    was_never_run,
)
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json

_NO_TRAINER = "No module named 'dtjob_trainer"
_KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Crash:
    """How a worker's supervisor ended when it is not running.

    Attributes
    ----------
    held
        It refused to train, and nothing is lost; the reason is its own.
    """

    reason: Reason
    message: str
    held: bool


def crash(pod: Json, job: DistributedTrainingJob) -> Crash | None:
    """How the pod's supervisor ended last, if it is not running now."""
    return None if is_running(pod) else _last_crash(pod, job)


def out_of_memory(pod: str) -> str:
    """What happened to a worker that had no memory left, and what helps."""
    return (
        f"pod {pod} was killed for want of memory: give the workers a higher "
        "spec.workers.resources.limits.memory, or a smaller spec.training.physicalBatchSize, "
        "in a new job"
    )


def _last_crash(pod: Json, job: DistributedTrainingJob) -> Crash | None:
    newest = next(iter(ends(pod)), None)
    if newest is None or newest.get("exitCode") == 0 or was_never_run(newest):
        return None
    return _crash(pod["metadata"]["name"], newest, job)


def _crash(pod: str, ended: Json, job: DistributedTrainingJob) -> Crash:
    reason, message = last_words(ended.get("message") or "")
    code = ended.get("exitCode", 0)
    if is_out_of_memory(ended):
        return Crash(Reason.OUT_OF_MEMORY, out_of_memory(pod), held=False)
    if code == WorkerExit.HELD and (refusal := known(reason)) is not None:
        return Crash(refusal, message or f"pod {pod} refuses to train", held=True)
    what = message or ended.get("reason") or "it left no message"
    died = f"pod {pod} ended ({_how(code)}): {what.rstrip('.')}"
    if node_words.lacks_memory(what) or (code == _KILLED and is_starved(job)):
        return Crash(Reason.OUT_OF_MEMORY, f"{died}. {more_memory(job)}", held=False)
    if code == WorkerExit.CONFIGURATION:
        remedy = (
            "The image's trainer does not take the configuration that this operator writes: use an "
            "image of the operator's version"
        )
    elif _NO_TRAINER in what:
        remedy = trainer_image(job)
    elif node_words.has_too_long_arguments(what):
        remedy = SHORTER_VARIABLES
    else:
        remedy = f"See kubectl logs {pod} --previous"
    return Crash(Reason.WORKER_CRASHING, f"{died}. {remedy}", held=False)


def _how(code: int) -> str:
    """An exit code in words; a container killed by signal n exits with 128 + n."""
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return f"exit code {code}"


def last_words(log: str) -> tuple[str | None, str]:
    """Reason and message of the last lines of a supervisor's log, which are JSON objects.

    What is not JSON (an interpreter's own error) is returned as it is: its last line.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        entry = _json_object(line)
        if entry is not None and isinstance(entry.get("reason"), str):
            message = entry.get("detail") or entry.get("message") or ""
            return entry["reason"], str(message)
    return None, lines[-1][:500] if lines else ""


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _crashed(facts: Facts, pod: Json) -> Iterator[Finding]:
    """A worker that is up again has not overcome its crash before it can join."""
    if is_running(pod) and has_ready_condition(pod):
        return
    if (found := _last_crash(pod, facts.job)) is not None and not found.held:
        yield Finding(found.reason, found.message + metadata_remedy(found.message, facts.job))


KIND = of_pods(_crashed)
