"""What keeps a scheduler from giving a pod a node: room, and claims without a volume."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_api.wire.positions import Role
from dtjob_operator.decide.obstacles.not_started import GRACE
from dtjob_operator.decide.obstacles.obstacle import of_pods
from dtjob_operator.decide.obstacles.remedies import node_words
from dtjob_operator.read.events import newest
from dtjob_operator.read.pod_status import has_node, scheduled_at
from dtjob_operator.terms import names
from dtjob_operator.terms.clocks import elapsed
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed

_PROVISIONING = timedelta(seconds=10)


def unscheduled(
    observed: Observed, pod: Json, job: DistributedTrainingJob, now: datetime
) -> Iterator[Finding]:
    """What the scheduler says of a pod that has no node."""
    scheduled = next(
        (c for c in pod["status"].get("conditions") or [] if c["type"] == "PodScheduled"), None
    )
    if scheduled is None or scheduled["status"] != "False" or has_node(pod):
        return
    if scheduled.get("reason") == "SchedulerError":
        return  # of its own, such as a node taken by somebody else meanwhile: it tries again
    name, message = pod["metadata"]["name"], scheduled.get("message", "")
    claim = node_words.missing_claim(message)
    # The coordinator's own claim is made by the StatefulSet controller, together with the pod.
    if claim and claim != names.claim_name(job):
        data = job.spec.storage.data
        field = (
            "spec.storage.data.claimName"
            if data is not None and data.claim_name == claim
            else "spec.workers.template.volumes"
        )
        yield Finding(
            Reason.CLAIM_MISSING,
            f"the PersistentVolumeClaim {claim}, named in {field}, does not exist in namespace "
            f"{names.namespace(job)} or is being deleted: create it, and the workers start",
        )
        return
    waited = elapsed(scheduled_at(pod), now)
    holds_state = names.role_of(job, pod) is Role.COORDINATOR
    if holds_state:
        yield from _unbound(observed, message, waited, now)
    if node_words.waits_for_volumes(message) and waited < GRACE:
        return  # a provisioner that is at work
    if node_words.has_unbound_immediate_claims(message):
        if not holds_state or _is_bound(observed.claim):
            yield from _unbound_by_others(job, name, message)
        return  # else its own claim is new, or has just got its volume: the scheduler looks again
    cordoned = (
        ". A node that is cordoned takes no pod until kubectl uncordon"
        if node_words.has_cordoned_nodes(message)
        else ""
    )
    yield Finding(
        Reason.UNSCHEDULABLE,
        f"no node takes pod {name}: {node_words.scheduling_cause(message)}{cordoned}. Free or add "
        "such a node, or ask for less in spec.workers (resources, gpusPerWorker, "
        "template.nodeSelector) of a new job",
    )


def _unbound(
    observed: Observed, scheduler: str, waited: timedelta, now: datetime
) -> Iterator[Finding]:
    """A checkpoint claim without a volume, if that is what the scheduler waits for."""
    claim = observed.claim
    if claim is None or _is_bound(claim):
        return
    name = claim["metadata"]["name"]
    chosen = claim["spec"].get("storageClassName")
    event = newest(observed.events, "PersistentVolumeClaim", name, {"ProvisioningFailed"})
    message = event.get("message", "").rstrip(".") if event is not None else ""
    waits_for_it = node_words.waits_for_volumes(scheduler)
    if missing := node_words.missing_storage_class(message):
        why = f"there is no StorageClass {missing}. Create it, or name another"
    elif message:
        if waited < GRACE:
            return
        why = f"no volume can be provided: {message}. Repair that, or name a StorageClass"
    elif not waits_for_it or min(waited, _age(claim, now)) < _PROVISIONING:
        return
    elif not chosen:
        why = "the cluster has no default StorageClass. Mark one as default, or name one"
    else:
        why = f"StorageClass {chosen} provides no volume. Provide one, or name another"
    yield Finding(
        Reason.CLAIM_UNBOUND,
        f"claim {name}: {why} in spec.storage.checkpoints.storageClassName of a new job",
    )


def _unbound_by_others(job: DistributedTrainingJob, pod: str, message: str) -> Iterator[Finding]:
    """Claims that the job only names may be what has no volume; the operator does not see them."""
    data, volumes = job.spec.storage.data, job.spec.workers.template.volumes
    named = [data.claim_name] if data is not None else []
    named += [v.persistent_volume_claim.claim_name for v in volumes if v.persistent_volume_claim]
    if named:
        yield Finding(
            Reason.CLAIM_UNBOUND,
            f"pod {pod} waits for the volume of a claim: {node_words.scheduling_cause(message)}. "
            f"See kubectl describe pvc {' '.join(named)}",
        )


def _is_bound(claim: Json | None) -> bool:
    return claim is not None and claim.get("status", {}).get("phase") == "Bound"


def _age(claim: Json, now: datetime) -> timedelta:
    return elapsed(datetime.fromisoformat(claim["metadata"]["creationTimestamp"]), now)


KIND = of_pods(lambda facts, pod: unscheduled(facts.observed, pod, facts.job, facts.now))
