"""What a worker pod's status shows: whether it is ready, what it waits for, how it ended."""

from __future__ import annotations

from datetime import datetime, timedelta

from dtjob_operator.terms import names
from dtjob_operator.terms.kinds import Json

_SANDBOX = "PodReadyToStartContainers"


def is_ready(pod: Json) -> bool:
    """Whether the pod is ready and not on its way out."""
    return has_ready_condition(pod) and "deletionTimestamp" not in pod["metadata"]


def has_ready_condition(pod: Json) -> bool:
    """Whether the kubelet finds the pod ready, which it may while the pod ends."""
    return bool(_condition(pod, "Ready").get("status") == "True")


def disruption(pod: Json) -> str | None:
    """Why the pod is about to be ended by somebody else than its owner; None where it is not."""
    condition = _condition(pod, "DisruptionTarget")
    return condition.get("reason", "") if condition.get("status") == "True" else None


def has_outlived(pod: Json, now: datetime, slack: timedelta) -> bool:
    """Whether the pod is there although it was to be gone `slack` ago, by its deletionTimestamp."""
    ends_by = pod["metadata"].get("deletionTimestamp")
    return ends_by is not None and now > datetime.fromisoformat(ends_by) + slack


def is_starting(pod: Json) -> bool:
    """Whether the pod has a node but no container has ever run in it."""
    return any(
        waiting(container)[0] in {"ContainerCreating", "PodInitializing"}
        for container in worker_containers(pod)
    )


def has_sandbox(pod: Json) -> bool:
    """Whether the kubelet has gone past the mounts of the pod: images are pulled after that."""
    return _condition(pod, _SANDBOX).get("status") == "True"


def has_node(pod: Json) -> bool:
    """Whether the pod has a node, whatever a condition of its status says."""
    return bool((pod.get("spec") or {}).get("nodeName"))


def scheduled_at(pod: Json) -> datetime:
    """Since when the pod has a node, or the scheduler says that none takes it.

    A pod may wait long for a scheduler that is slow or a volume that is made: trouble that counts
    from its creation would be old when it begins.
    """
    status = pod.get("status", {})
    since = _condition(pod, "PodScheduled").get("lastTransitionTime") or status.get("startTime")
    return datetime.fromisoformat(since or pod["metadata"]["creationTimestamp"])


def can_start_since(pod: Json, container: Json) -> datetime:
    """Since when the kubelet could start a container: it has a node, a sandbox, and is not running.

    A try in vain begins no new time.
    No status says how long its image was pulled.
    """
    sandbox = _condition(pod, _SANDBOX)
    ended = (container.get("lastState") or {}).get("terminated") or {}
    times = [sandbox.get("lastTransitionTime") if has_sandbox(pod) else None]
    if not was_never_run(ended):
        times += [ended.get("finishedAt")]
    return max([scheduled_at(pod), *(datetime.fromisoformat(at) for at in times if at)])


def running_since(pod: Json) -> datetime | None:
    """When the pod's supervisor was started, if it runs."""
    running = (_supervisor(pod).get("state") or {}).get("running")
    return datetime.fromisoformat(running["startedAt"]) if running else None


def is_running(pod: Json) -> bool:
    """Whether the pod's supervisor runs."""
    return "running" in (_supervisor(pod).get("state") or {})


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


def start_failure(container: Json) -> str | None:
    """Why the last try to start a container was in vain; None where it was not."""
    ended = _newest_end(container)
    return ended.get("message", "") if was_never_run(ended) else None


def was_never_run(ended: Json) -> bool:
    """Whether what is told as a container's end is that it could not be started."""
    return ended.get("reason") in {"StartError", "ContainerCannotRun"}


def ends(pod: Json) -> list[Json]:
    """How the pod's supervisor ended, now and the time before, as far as its status goes."""
    return _ends(_supervisor(pod))


def is_out_of_memory(ended: Json) -> bool:
    """Whether a container ended because it had no memory left."""
    return bool(ended.get("reason") == "OOMKilled")


def _newest_end(container: Json) -> Json:
    """How a container that does not run ended last, {} where it has not."""
    is_up = "running" in (container.get("state") or {})
    return {} if is_up else next(iter(_ends(container)), {})


def _ends(container: Json) -> list[Json]:
    states = (container.get("state") or {}, container.get("lastState") or {})
    return [ended for state in states if (ended := state.get("terminated"))]


def _supervisor(pod: Json) -> Json:
    """The status of the container that the supervisor is; {} before there is one."""
    status = pod.get("status", {})
    for containers in ("containerStatuses", "initContainerStatuses"):
        for container in status.get(containers) or ():
            if container["name"] == names.WORKER_CONTAINER:
                found: Json = container
                return found
    return {}


def _condition(pod: Json, kind: str) -> Json:
    """A condition of the pod, {} if it has none of the type."""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == kind:
            found: Json = condition
            return found
    return {}
