"""What keeps a scheduler from giving a pod a node: room, and claims without a volume."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator.decide.diagnosis import wording
from dtjob_operator.decide.diagnosis.not_started import PASSING
from dtjob_operator.read.events import newest
from dtjob_operator.read.pod_status import scheduled_at
from dtjob_operator.terms import names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed

_MISSING_CLAIM = re.compile(
    r"persistentvolumeclaim \"(?P<name>[^\"]+)\" (?:not found|is being deleted)", re.IGNORECASE
)
_MISSING_CLASS = re.compile(
    r"storageclass(?:es)?\.storage\.k8s\.io \"(?P<name>[^\"]+)\" not found", re.IGNORECASE
)
_PROVISIONING = timedelta(seconds=10)
# The scheduler's only word where it stands: no node was looked at.
_IMMEDIATE = re.compile(r"unbound immediate PersistentVolumeClaims")
_UNBOUND = re.compile(
    r"unbound immediate PersistentVolumeClaims|find available persistent volumes to bind"
)


def unscheduled(
    observed: Observed, pod: Json, job: DistributedTrainingJob, now: datetime
) -> Iterator[Finding]:
    """What the scheduler says about a pod that has no node."""
    scheduled = next(
        (c for c in pod["status"].get("conditions") or [] if c["type"] == "PodScheduled"), None
    )
    if scheduled is None or scheduled["status"] != "False":
        return
    if scheduled.get("reason") == "SchedulerError":
        return  # of its own, such as a node taken by somebody else meanwhile: it tries again
    name, message = pod["metadata"]["name"], scheduled.get("message", "")
    missing = _MISSING_CLAIM.search(message)
    # A worker's own claim is made by the StatefulSet controller, together with the pod.
    if missing and not missing["name"].startswith(f"{names.CHECKPOINT_VOLUME}-"):
        claim = missing["name"]
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
    waited = now - scheduled_at(pod)
    yield from _unbound(observed, message, waited, now)
    if _UNBOUND.search(message) and waited < PASSING:
        return  # a provisioner that is at work
    if _IMMEDIATE.search(message):
        if _is_bound(observed, f"{names.CHECKPOINT_VOLUME}-{name}"):
            yield from _unbound_by_others(job, name, message)
        return  # else its own claim is new, or has just got its volume: the scheduler looks again
    yield Finding(
        Reason.UNSCHEDULABLE,
        f"no node takes pod {name}: {wording.scheduling(message)}. Free or add such a node, or ask "
        "for less in spec.workers (resources, gpusPerWorker, template.nodeSelector) of a new job",
    )


def _unbound(
    observed: Observed, scheduler: str, waited: timedelta, now: datetime
) -> Iterator[Finding]:
    """Claims without a volume, if they are what the scheduler waits for."""
    for claim in observed.claims:
        if claim.get("status", {}).get("phase") == "Bound":
            continue
        name = claim["metadata"]["name"]
        chosen = claim["spec"].get("storageClassName")
        event = newest(observed.events, "PersistentVolumeClaim", name, {"ProvisioningFailed"})
        message = event.get("message", "").rstrip(".") if event is not None else ""
        if missing := _MISSING_CLASS.search(message):
            why = f"there is no StorageClass {missing['name']}. Create it, or name another"
        elif message:
            if waited < PASSING:
                continue
            why = f"no volume can be provided: {message}. Repair that, or name a StorageClass"
        elif not _UNBOUND.search(scheduler) or min(waited, _age(claim, now)) < _PROVISIONING:
            continue
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
            f"pod {pod} waits for the volume of a claim: {wording.scheduling(message)}. See "
            f"kubectl describe pvc {' '.join(named)}",
        )


def _is_bound(observed: Observed, name: str) -> bool:
    claims = (claim for claim in observed.claims if claim["metadata"]["name"] == name)
    return any(claim.get("status", {}).get("phase") == "Bound" for claim in claims)


def _age(claim: Json, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(claim["metadata"]["creationTimestamp"])
