"""What a worker pod's status tells: whether it is ready, what it waits for, how it ended."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dtjob_api.reasons import Reason, known
from dtjob_operator.terms import names
from dtjob_operator.terms.kinds import Json

# Exit codes of a supervisor.
_BAD_CONFIGURATION = 2
_REFUSED = 3
_SANDBOX = "PodReadyToStartContainers"
_NO_TRAINER = "No module named 'dtjob_trainer'"


@dataclass(frozen=True)
class Crash:
    """How a worker's supervisor ended when it is not running.

    Attributes
    ----------
    refused
        It refused to train, and nothing is lost; the reason is its own.
    """

    reason: Reason
    message: str
    refused: bool


def is_ready(pod: Json) -> bool:
    """Whether the pod is ready and not on its way out."""
    return says_ready(pod) and "deletionTimestamp" not in pod["metadata"]


def says_ready(pod: Json) -> bool:
    """Whether the kubelet finds the pod ready, which it may while the pod ends."""
    return bool(_condition(pod, "Ready").get("status") == "True")


def is_starting(pod: Json) -> bool:
    """Whether the pod has a node but no container has ever run in it."""
    return any(
        waiting(container)[0] in {"ContainerCreating", "PodInitializing"}
        for container in worker_containers(pod)
    )


def has_sandbox(pod: Json) -> bool:
    """Whether the kubelet has gone past the mounts of the pod: images are pulled after that."""
    return _condition(pod, _SANDBOX).get("status") == "True"


def scheduled_at(pod: Json) -> datetime:
    """Since when the pod has a node, or the scheduler says that none takes it.

    A pod may wait long for a scheduler that is slow or a volume that is made: trouble that counts
    from its creation would be old when it begins.
    """
    status = pod.get("status", {})
    said = _condition(pod, "PodScheduled").get("lastTransitionTime") or status.get("startTime")
    return datetime.fromisoformat(said or pod["metadata"]["creationTimestamp"])


def can_start_since(pod: Json, container: Json) -> datetime:
    """Since when the kubelet could start a container: it has a node, a sandbox, and is not running.

    How long its image was pulled stands in no status.
    """
    sandbox = _condition(pod, _SANDBOX)
    ended = (container.get("lastState") or {}).get("terminated") or {}
    times = [sandbox.get("lastTransitionTime") if has_sandbox(pod) else None]
    times += [ended.get("finishedAt")]
    return max([scheduled_at(pod), *(datetime.fromisoformat(at) for at in times if at)])


def running_since(pod: Json) -> datetime | None:
    """When the pod's supervisor was started, if it runs."""
    running = (_supervisor(pod).get("state") or {}).get("running")
    return datetime.fromisoformat(running["startedAt"]) if running else None


def worker_containers(pod: Json) -> list[Json]:
    """Statuses of the pod's containers, those that sidecar injectors add included."""
    status = pod.get("status", {})
    return [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]


def waiting(container: Json) -> tuple[str, str]:
    """Reason and message of a container that waits; empty for any other."""
    state = (container.get("state") or {}).get("waiting") or {}
    return state.get("reason", ""), state.get("message", "")


def crash(pod: Json) -> Crash | None:
    """How the pod's supervisor ended last, if it is not running now."""
    newest = next(iter(ends(pod)), None)
    is_running = "running" in (_supervisor(pod).get("state") or {})
    if is_running or newest is None or newest.get("exitCode") == 0:
        return None
    return _crash(pod["metadata"]["name"], newest)


def ends(pod: Json) -> list[Json]:
    """How the pod's supervisor ended, now and the time before, as far as the pod tells."""
    supervisor = _supervisor(pod)
    states = (supervisor.get(each) or {} for each in ("state", "lastState"))
    return [ended for state in states if (ended := state.get("terminated"))]


def is_out_of_memory(ended: Json) -> bool:
    """Whether a container ended because it had no memory left."""
    return bool(ended.get("reason") == "OOMKilled")


def out_of_memory(pod: str) -> str:
    """What happened to a worker that had no memory left, and what helps."""
    return (
        f"pod {pod} was killed for want of memory: give the workers a higher "
        "spec.workers.resources.limits.memory, or a smaller spec.training.physicalBatchSize, "
        "in a new job"
    )


def _crash(pod: str, ended: Json) -> Crash | None:
    reason, message = last_words(ended.get("message") or "")
    code = ended.get("exitCode", 0)
    if is_out_of_memory(ended):
        return Crash(Reason.OUT_OF_MEMORY, out_of_memory(pod), refused=False)
    if code == _REFUSED and (refusal := known(reason)) is not None:
        return Crash(refusal, message or f"pod {pod} refuses to train", refused=True)
    what = message or ended.get("reason") or "it left no message"
    if code == _BAD_CONFIGURATION:
        remedy = (
            "The image's trainer does not take the configuration that this operator writes: use an "
            "image of the operator's version"
        )
    elif _NO_TRAINER in what:
        remedy = "spec.image is no trainer image: name dtjob's, or one built on it, in a new job"
    else:
        remedy = f"See kubectl logs {pod} --previous"
    return Crash(
        Reason.WORKER_CRASHING,
        f"pod {pod} ended ({_how(code)}): {what.rstrip('.')}. {remedy}",
        refused=False,
    )


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


def _supervisor(pod: Json) -> Json:
    """The status of the container that the supervisor is; {} before there is one."""
    found = (c for c in worker_containers(pod) if c["name"] == names.WORKER_CONTAINER)
    return next(found, {})


def _condition(pod: Json, kind: str) -> Json:
    """A condition of the pod, {} if it has none of the type."""
    conditions = pod.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
