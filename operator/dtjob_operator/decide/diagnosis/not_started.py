"""What keeps a kubelet from starting a pod: images, volumes and the containers themselves.

A kubelet tries everything again, and what it says is often over a second later: of what it waits
for itself, of its own container runtime, of a volume. Only what names something that is not there
is told at once; all else once it stands for a while.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.job.network import NetworkPolicyMode
from dtjob_api.reasons import Reason
from dtjob_operator.decide.diagnosis import wording
from dtjob_operator.read.events import last_seen, newest
from dtjob_operator.read.pod_status import (
    can_start_since,
    has_sandbox,
    is_starting,
    scheduled_at,
    waiting,
    worker_containers,
)
from dtjob_operator.terms import metadata_addresses, names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed
from dtjob_operator.terms.settings import Settings

PASSING = timedelta(seconds=30)
"""How long trouble stands that may pass by itself before it is told."""

_NOT_STARTED = frozenset(
    {
        "CreateContainerConfigError",
        "PreCreateHookError",
        "CreateContainerError",
        "PreStartHookError",
        "RunContainerError",
    }
)
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
# Of the kubelet's own limit, of its container runtime, and of a connection that broke off.
_BROKEN_PULL = re.compile(
    r"pull QPS exceeded|context (?:deadline exceeded|canceled)|handshake timeout"
    r"|connection reset|unexpected EOF"
)
_BROKEN_PULL_REASONS = frozenset({"ImageInspectError", "RegistryUnavailable"})
_ON_THE_NODE = re.compile(r"(?:localhost|127\.[0-9.]+|\[::1\])[:/]")
_MISSING_PULL_SECRETS = re.compile(r"pull secrets \((?P<names>[^)]+)\)")
_MISSING_CONFIGURATION = re.compile(
    r"(?:secrets?|configmaps?) \"(?P<name>[^\"]+)\" not found"
    r"|couldn't find key|non-existent (?:config|secret) key",
    re.IGNORECASE,
)
# The cluster's own certificates, which the controller manager puts into a new namespace.
_CERTIFICATES = "kube-root-ca.crt"
# What is there, but has not come to the kubelet yet.
_NOT_SEEN_YET = re.compile(
    r"failed to sync \w+ cache|not yet been read|not registered|is forbidden|host IP unknown"
)
_NO_EXECUTABLE = re.compile(
    r"executable file not found|exec: .*(?:no such file or directory|permission denied)"
)
_OTHER_REMEDIES = (
    (
        re.compile(r"runAsNonRoot"),
        "Its image must run as a user that is not root and is given by number (USER 65532)",
    ),
    (
        re.compile(r"subPath", re.IGNORECASE),
        "Correct that subPath of spec.workers.template.volumeMounts in a new job, or make the "
        "folder on the volume",
    ),
    (_NOT_SEEN_YET, "The kubelet keeps trying: see that its node reaches the API server"),
)
_ANY_REMEDY = "The kubelet keeps trying: its log and the container runtime's on that node tell more"
# The kubelet tries to mount every two minutes, and after 25 events about a pod it tells of no more
# than one in five minutes: what it has not told for longer is over.
_MOUNT_IS_TOLD = timedelta(minutes=8)


def not_started(
    observed: Observed, pod: Json, job: DistributedTrainingJob, now: datetime
) -> Iterator[Finding]:
    """What the kubelet says about containers that it can't start."""
    name = pod["metadata"]["name"]
    for container in worker_containers(pod):
        reason, message = waiting(container)
        stands = now - can_start_since(pod, container) >= PASSING
        if reason in _IMAGE_REASONS:
            broken = reason in _BROKEN_PULL_REASONS or _BROKEN_PULL.search(message) is not None
            if stands or not broken:
                image = container.get("image") or job.spec.image
                yield _image(observed, name, image, message, job, broken=broken)
        elif reason in _NOT_STARTED:
            yield from _not_started(name, container["name"], message, job, stands=stands)


def _not_started(
    pod: str, container: str, message: str, job: DistributedTrainingJob, *, stands: bool
) -> Iterator[Finding]:
    if _is_missing(message):
        yield _configuration(pod, message, job)
    elif container == names.WORKER_CONTAINER and _NO_EXECUTABLE.search(message):
        yield Finding(
            Reason.WORKER_CRASHING,
            f"pod {pod}: the container can't be started: {message}. The image must be a "
            "trainer image, with python and dtjob's trainer in it: name one in spec.image of a "
            "new job",
        )
    elif stands and _CERTIFICATES in message:
        yield _certificates(pod, message, job)
    elif stands:
        yield Finding(
            Reason.WORKER_NOT_STARTED,
            f"pod {pod}: container {container} can't be started: {message.rstrip('.')}. "
            f"{_remedy(message)}",
        )


def _remedy(message: str) -> str:
    return next((words for found, words in _OTHER_REMEDIES if found.search(message)), _ANY_REMEDY)


def _image(
    observed: Observed,
    pod: str,
    image: str,
    message: str,
    job: DistributedTrainingJob,
    *,
    broken: bool,
) -> Finding:
    remedy = "Push it, and the workers start; or name another in spec.image of a new job"
    if _ON_THE_NODE.match(image) and "connection refused" in message:
        remedy = (
            "By its name its registry is on the node itself, and there is none: load it into the "
            "node's container runtime (make cluster-image does, for the cluster of make "
            "cluster-up), or push it to a registry that the nodes reach and name that in "
            "spec.image of a new job"
        )
    secrets = ", ".join(secret.name for secret in job.spec.image_pull_secrets)
    if event := newest(observed.events, "Pod", pod, {"FailedToRetrieveImagePullSecret"}):
        missing = _MISSING_PULL_SECRETS.search(event.get("message", ""))
        remedy = (
            f"Pull secret {missing['names'] if missing else secrets}, named in "
            f"spec.imagePullSecrets, does not exist in namespace {names.namespace(job)}: create "
            "it, and see that the registry has the image"
        )
    elif broken:
        remedy = (
            "The kubelet keeps trying: see that its node reaches the registry and that the "
            "container runtime there is well"
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


def _is_missing(message: str) -> bool:
    """Whether a Secret, a ConfigMap or a key in one is named that a user has to make."""
    found = _MISSING_CONFIGURATION.finditer(message)
    return any(missing["name"] != _CERTIFICATES for missing in found)


def _configuration(pod: str, message: str, job: DistributedTrainingJob) -> Finding:
    return Finding(
        Reason.CONFIGURATION_MISSING,
        f"pod {pod}: {message.rstrip('.')} (namespace {names.namespace(job)}). Create it, or "
        "correct spec.workers.template (env, envFrom, volumes) in a new job",
    )


def _certificates(pod: str, message: str, job: DistributedTrainingJob) -> Finding:
    return Finding(
        Reason.CONFIGURATION_MISSING,
        f"pod {pod}: {message.rstrip('.')} (namespace {names.namespace(job)}). Kubernetes' own "
        f"controller manager puts {_CERTIFICATES} into every namespace: see that it runs, and that "
        "the node reaches the API server",
    )


def unmounted(
    observed: Observed, pod: Json, job: DistributedTrainingJob, now: datetime, settings: Settings
) -> Iterator[Finding]:
    """What the kubelet, or the controller that attaches volumes, says about the pod's volumes."""
    if not is_starting(pod) or has_sandbox(pod):
        return
    name = pod["metadata"]["name"]
    event = newest(observed.events, "Pod", name, {"FailedMount", "FailedAttachVolume"})
    if event is None:
        return
    # The kubelet has tried again by then; an event tells of the past, the pod's status does not.
    told_at = datetime.fromisoformat(last_seen(event))
    stood = told_at - scheduled_at(pod)
    if now - told_at > _MOUNT_IS_TOLD:
        return
    message = wording.mount(event.get("message", ""))
    if _is_missing(message):
        if stood >= timedelta(seconds=settings.settle_seconds):
            yield _configuration(name, message, job)
    elif stood < PASSING:
        return
    elif _CERTIFICATES in message:
        yield _certificates(name, message, job)
    else:
        remedy = (
            _remedy(message)
            if _NOT_SEEN_YET.search(message)
            else "Repair the volume or its storage; the kubelet keeps trying"
        )
        yield Finding(
            Reason.MOUNT_FAILED,
            f"pod {name} can't mount a volume: {message}. {remedy}{metadata_remedy(message, job)}",
        )


def metadata_remedy(message: str, job: DistributedTrainingJob) -> str:
    """What would help where somebody asked for credentials that the job's NetworkPolicy closes."""
    restricted = job.spec.network.policy is NetworkPolicyMode.RESTRICTED
    address = metadata_addresses.told_of(message)
    if not restricted or address is None:
        return ""
    return (
        ". The job's NetworkPolicy closes the metadata addresses to what runs in its pods: if that "
        f"needs one, name it in spec.network.egress, {{to: [{{ipBlock: {{cidr: {address}}}}}]}}, "
        "which may change at any time"
    )
