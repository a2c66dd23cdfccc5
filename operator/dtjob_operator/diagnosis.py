"""Why a job's workers do not come up: what pods, claims and events tell, in a user's words.

Each finding says what, where and the remedy; `docs/reference/status.md` lists them by reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from dtjob_api.job import DistributedTrainingJob
from dtjob_api.network import NetworkPolicyMode
from dtjob_api.reasons import Reason
from dtjob_operator import names, wording
from dtjob_operator.containers import crash, has_sandbox, is_starting, waiting, worker_containers
from dtjob_operator.events import last_seen, newest
from dtjob_operator.finding import Finding
from dtjob_operator.kinds import Json
from dtjob_operator.observed import Observed
from dtjob_operator.refused import refused_children, refused_pods
from dtjob_operator.settings import Settings
from dtjob_operator.unlabelled import unlabelled

_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_MISSING_CONFIGURATION = re.compile(
    r"(?:secrets?|configmaps?) \"(?P<name>[^\"]+)\" (?:not found|is forbidden)"
    r"|couldn't find key|non-existent (?:config|secret) key",
    re.IGNORECASE,
)
_MISSING_CLAIM = re.compile(
    r"persistentvolumeclaim \"(?P<name>[^\"]+)\" (?:not found|is being deleted)", re.IGNORECASE
)
_MISSING_CLASS = re.compile(
    r"storageclass(?:es)?\.storage\.k8s\.io \"(?P<name>[^\"]+)\" not found", re.IGNORECASE
)
_MISSING_PULL_SECRETS = re.compile(r"pull secrets \((?P<names>[^)]+)\)")
# How clients of object stores name the place where a cloud hands out a node's credentials.
_METADATA = re.compile(
    r"169\.254\.169\.254|fd00:ec2::254|metadata\.google\.internal|\bIMDS(?:v2)?\b"
    r"|instance[- ]metadata|metadata (?:service|server)",
    re.IGNORECASE,
)
_PROVISIONING = timedelta(seconds=10)
# What a kubelet says of things that are there but that it has not seen yet, and of the cluster's
# own certificates, which the controller manager puts into a new namespace; it tries again.
_NOT_SEEN_YET = re.compile(
    r"failed to sync \w+ cache|not yet been read|not registered"
    r"|no relationship found between node|kube-root-ca\.crt"
)
_SEEING = timedelta(seconds=30)
# The kubelet tries to mount every two minutes, and after 25 events about a pod it tells of no more
# than one in five minutes: what it has not told for longer is over.
_MOUNT_IS_TOLD = timedelta(minutes=8)
_UNBOUND = re.compile(
    r"unbound immediate PersistentVolumeClaims|find available persistent volumes to bind"
)


def diagnose(
    observed: Observed,
    job: DistributedTrainingJob,
    workers: int,
    now: datetime,
    settings: Settings,
) -> Finding | None:
    """The first obstacle between the job and its running workers, or None.

    Parameters
    ----------
    workers
        Pods that should be there.
    """
    strayed = unlabelled(observed, job)
    finders = (
        refused_children(observed.rejections),
        () if strayed is None else (strayed,),
        refused_pods(observed, job, workers),
        _pods(observed, job, _settled(observed.pods, now, settings), now, settings),
    )
    return next((finding for finder in finders for finding in finder), None)


def _settled(pods: Iterable[Json], now: datetime, settings: Settings) -> list[Json]:
    """Pods old enough that their trouble is no teething trouble, and not on their way out."""
    least = timedelta(seconds=settings.settle_seconds)
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and _age(pod, now) >= least
    ]


def _age(obj: Json, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(obj["metadata"]["creationTimestamp"])


def _pods(
    observed: Observed,
    job: DistributedTrainingJob,
    pods: list[Json],
    now: datetime,
    settings: Settings,
) -> Iterator[Finding]:
    """What stands in the status of the pods; what stops every pod comes first."""
    for pod in pods:
        yield from _unscheduled(observed, pod, job, now)
    for pod in pods:
        yield from _waiting(observed, pod, job, now)
    for pod in pods:
        yield from _unmounted(observed, pod, job, now, settings)
    for pod in pods:
        if (found := crash(pod)) is not None and not found.refused:
            yield Finding(found.reason, found.message + _metadata_remedy(found.message, job))


def _metadata_remedy(message: str, job: DistributedTrainingJob) -> str:
    """What would help where somebody asked for credentials that the job's NetworkPolicy closes."""
    restricted = job.spec.network.policy is NetworkPolicyMode.RESTRICTED
    if not restricted or not _METADATA.search(message):
        return ""
    return (
        ". The job's NetworkPolicy closes the metadata addresses to what runs in its pods: if that "
        "needs one, name it in spec.network.egress, {to: [{ipBlock: {cidr: 169.254.169.254/32}}]}, "
        "which may change at any time"
    )


def _unscheduled(
    observed: Observed, pod: Json, job: DistributedTrainingJob, now: datetime
) -> Iterator[Finding]:
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
    yield from _unbound(observed, message, now)
    if _UNBOUND.search(message) and _age(pod, now) < _PROVISIONING:
        return  # a provisioner that is at work
    yield Finding(
        Reason.UNSCHEDULABLE,
        f"no node takes pod {name}: {wording.scheduling(message)}. Free or add such a node, or ask "
        "for less in spec.workers (resources, gpusPerWorker, template.nodeSelector) of a new job",
    )


def _unbound(observed: Observed, scheduler: str, now: datetime) -> Iterator[Finding]:
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
            why = f"no volume can be provided: {message}. Repair that, or name a StorageClass"
        elif not _UNBOUND.search(scheduler) or _age(claim, now) < _PROVISIONING:
            continue
        elif not chosen:
            why = "the cluster has no default StorageClass. Mark one as default, or name one"
        else:
            why = f"StorageClass {chosen} provides no volume. Provide one, or name another"
        yield Finding(
            Reason.CLAIM_UNBOUND,
            f"claim {name}: {why} in spec.storage.checkpoints.storageClassName of a new job",
        )


def _waiting(
    observed: Observed, pod: Json, job: DistributedTrainingJob, now: datetime
) -> Iterator[Finding]:
    """What the kubelet says about containers that it can't start."""
    name = pod["metadata"]["name"]
    for container in worker_containers(pod):
        reason, message = waiting(container)
        if reason in _IMAGE_REASONS:
            yield _image(observed, name, container.get("image") or job.spec.image, message, job)
        elif reason == "CreateContainerConfigError":
            if not _catches_up(message, pod, now):
                yield _configuration(name, message, job)
        elif reason in {"CreateContainerError", "RunContainerError"}:
            yield Finding(
                Reason.WORKER_CRASHING,
                f"pod {name}: the container can't be started: {message}. The image must be a "
                "trainer image, with python and dtjob's trainer in it: name one in spec.image of a "
                "new job",
            )


def _image(
    observed: Observed, pod: str, image: str, message: str, job: DistributedTrainingJob
) -> Finding:
    remedy = "Push it, and the workers start; or name another in spec.image of a new job"
    secrets = ", ".join(secret.name for secret in job.spec.image_pull_secrets)
    if event := newest(observed.events, "Pod", pod, {"FailedToRetrieveImagePullSecret"}):
        missing = _MISSING_PULL_SECRETS.search(event.get("message", ""))
        remedy = (
            f"Pull secret {missing['names'] if missing else secrets}, named in "
            f"spec.imagePullSecrets, does not exist in namespace {names.namespace(job)}: create "
            "it, and see that the registry has the image"
        )
    elif "unauthorized" in message.lower() or "denied" in message.lower():
        remedy = (
            f"The registry refuses the pull secrets ({secrets}); renew them"
            if secrets
            else "If the image is private, name its pull secret in spec.imagePullSecrets"
        )
    elif secrets:  # the kubelet may yet tell that one is missing
        remedy += (
            f". The pull secrets of spec.imagePullSecrets ({secrets}) must exist in namespace "
            f"{names.namespace(job)}"
        )
    cause = wording.pull(message, image)
    detail = f": {cause}" if cause else ""
    return Finding(
        Reason.IMAGE_PULL_FAILED, f"pod {pod} can't pull image {image}{detail}. {remedy}"
    )


def _configuration(pod: str, message: str, job: DistributedTrainingJob) -> Finding:
    return Finding(
        Reason.CONFIGURATION_MISSING,
        f"pod {pod}: {message.rstrip('.')} (namespace {names.namespace(job)}). Create it, or "
        "correct spec.workers.template (env, envFrom, volumes) in a new job",
    )


def _catches_up(message: str, pod: Json, now: datetime) -> bool:
    return _age(pod, now) < _SEEING and _NOT_SEEN_YET.search(message) is not None


def _unmounted(
    observed: Observed, pod: Json, job: DistributedTrainingJob, now: datetime, settings: Settings
) -> Iterator[Finding]:
    if not is_starting(pod) or has_sandbox(pod):
        return
    name = pod["metadata"]["name"]
    event = newest(observed.events, "Pod", name, {"FailedMount", "FailedAttachVolume"})
    if event is None:
        return
    # The kubelet has tried again by then; an event tells of the past, the pod's status does not.
    told_at = datetime.fromisoformat(last_seen(event))
    told_again = _age(pod, told_at)
    if now - told_at > _MOUNT_IS_TOLD:
        return
    message = wording.mount(event.get("message", ""))
    if told_again.total_seconds() < settings.settle_seconds or _catches_up(message, pod, now):
        return
    if _MISSING_CONFIGURATION.search(message):
        yield _configuration(name, message, job)
    else:
        yield Finding(
            Reason.MOUNT_FAILED,
            f"pod {name} can't mount a volume: {message}. Repair the volume or its storage; the "
            f"kubelet keeps trying{_metadata_remedy(message, job)}",
        )
