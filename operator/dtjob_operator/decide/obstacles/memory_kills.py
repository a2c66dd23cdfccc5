"""A worker that was killed for want of memory, also once its container runs again.

With cgroup v2 the kernel kills a whole container at once (memory.oom.group). No process of the
worker is left to report why, and its gang only sees that it stopped answering. The kubelet's status
of the container is the only evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import AttemptRecord
from dtjob_api.reasons import ENDED_IN_ORDER, ConditionType, Reason
from dtjob_operator.decide.obstacles.crashes import out_of_memory
from dtjob_operator.decide.obstacles.obstacle import ObstacleKind, probe_pause
from dtjob_operator.read import pod_status
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json


def killed_for_memory(
    pods: Iterable[Json], job: DistributedTrainingJob, last: AttemptRecord | None
) -> Finding | None:
    """Which worker was killed since the newest attempt began, the last one first.

    Parameters
    ----------
    last
        The newest attempt.
    """
    if last is None or last.reason in ENDED_IN_ORDER:
        return None
    # A kubelet reports whole seconds.
    begun = last.start.replace(microsecond=0)
    kills = [(at, pod["metadata"]["name"]) for pod in pods for at in _kills(pod) if at >= begun]
    if not kills:
        return None
    _, name = max(kills)
    limit = job.spec.workers.resources.limits.get("memory")
    return Finding(
        Reason.OUT_OF_MEMORY,
        f"attempt {last.attempt} has ended: {out_of_memory(name)}. "
        + (f"The limit is {limit}. " if limit else "")
        + "It is started again, and each time may cost draws of the reserve",
    )


def _kills(pod: Json) -> Iterable[datetime]:
    for state in pod_status.ends(pod):
        if pod_status.is_out_of_memory(state) and state.get("finishedAt"):
            yield datetime.fromisoformat(state["finishedAt"])


KIND = ObstacleKind(
    detect=lambda facts: killed_for_memory(facts.observed.pods, facts.job, facts.last_attempt),
    conditions=frozenset({ConditionType.RUNNING}),
    of_a_start=True,
    retry_after=probe_pause,
)
