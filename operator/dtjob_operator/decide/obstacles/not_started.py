"""What keeps a kubelet from starting a pod: images, volumes and the containers themselves.

A kubelet retries everything, and much of what it complains of is over a second later. Something
missing that it names is reported at once; all other trouble only if it lasts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator.decide.obstacles.obstacle import of_pods
from dtjob_operator.decide.obstacles.remedies import node_words
from dtjob_operator.decide.obstacles.remedies.container_remedies import (
    SHORTER_VARIABLES,
    is_starved,
    metadata_remedy,
    more_memory,
    trainer_image,
)
from dtjob_operator.read.events import last_seen, newest
from dtjob_operator.read.pod_status import (
    can_start_since,
    has_sandbox,
    is_starting,
    scheduled_at,
    start_failure,
    waiting,
    worker_containers,
)
from dtjob_operator.terms import names
from dtjob_operator.terms.clocks import elapsed
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed
from dtjob_operator.terms.settings import Settings

GRACE = timedelta(seconds=30)
"""For how long trouble that may pass by itself is not reported."""

_START_REASONS = frozenset(
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
_TROUBLE = _START_REASONS | _IMAGE_REASONS
_BROKEN_PULL_REASONS = frozenset({"ImageInspectError", "RegistryUnavailable"})
_ON_THE_NODE = re.compile(r"(?:localhost|127\.[0-9.]+|\[::1\])[:/]")
_REMEDIES = (
    (
        node_words.runs_as_root,
        "Its image must run as a user that is not root and is given by number (USER 65532)",
    ),
    (
        node_words.has_bad_sub_path,
        "Correct that subPath of spec.workers.template.volumeMounts in a new job, or make the "
        "folder on the volume",
    ),
    (
        node_words.is_not_synced,
        "The kubelet keeps trying: see that its node reaches the API server",
    ),
)
_OTHER_REMEDY = (
    "The kubelet keeps trying: its log and the container runtime's on that node tell more"
)
# The kubelet tries to mount every two minutes. After 25 Events about a pod it records at most one
# in five minutes: without a new one for longer, the trouble is over.
_MOUNT_EVENT_LIFETIME = timedelta(minutes=8)


def not_started(
    observed: Observed, pod: Json, job: DistributedTrainingJob, now: datetime
) -> Iterator[Finding]:
    """What the kubelet says of containers that it can't start."""
    name = pod["metadata"]["name"]
    for container in worker_containers(pod):
        reason, message = waiting(container)
        if reason not in _START_REASONS and (failure := start_failure(container)) is not None:
            reason, message = "RunContainerError", failure
        if reason not in _TROUBLE:
            continue
        lasts = elapsed(can_start_since(pod, container), now) >= GRACE
        if reason in _IMAGE_REASONS:
            broken = reason in _BROKEN_PULL_REASONS or node_words.is_broken_pull(message)
            if lasts or not (broken or node_words.is_unreachable(message)):
                image = container.get("image") or job.spec.image
                yield _image(observed, name, image, message, job, broken=broken)
        else:
            yield from _not_started(name, container["name"], message, job, lasts=lasts)


def _not_started(
    pod: str, container: str, message: str, job: DistributedTrainingJob, *, lasts: bool
) -> Iterator[Finding]:
    if node_words.lacks_configuration(message):
        yield _configuration(pod, message, job)
    elif container == names.WORKER_CONTAINER and node_words.lacks_executable(message):
        yield Finding(
            Reason.WORKER_CRASHING,
            f"{_cant_start(pod, message)}. It needs python with dtjob's trainer in it: "
            f"{trainer_image(job)}",
        )
    elif container == names.WORKER_CONTAINER and (
        node_words.lacks_memory(message) or is_starved(job)
    ):
        yield Finding(Reason.OUT_OF_MEMORY, f"{_cant_start(pod, message)}. {more_memory(job)}")
    elif container == names.WORKER_CONTAINER and node_words.has_too_long_arguments(message):
        yield Finding(Reason.WORKER_CRASHING, f"{_cant_start(pod, message)}. {SHORTER_VARIABLES}")
    elif lasts and node_words.lacks_cluster_certificates(message):
        yield _certificates(pod, message, job)
    elif lasts:
        yield Finding(
            Reason.WORKER_NOT_STARTED,
            f"pod {pod}: container {container} can't be started: {message.rstrip('.')}. "
            f"{_remedy(message)}",
        )


def _cant_start(pod: str, message: str) -> str:
    return f"pod {pod}: the container can't be started: {message.rstrip('.')}"


def _remedy(message: str) -> str:
    return next((remedy for applies, remedy in _REMEDIES if applies(message)), _OTHER_REMEDY)


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
    if _ON_THE_NODE.match(image) and node_words.is_connection_refused(message):
        remedy = (
            "By its name its registry is on the node itself, and there is none: load it into the "
            "node's container runtime (make cluster-image does, for the cluster of make "
            "cluster-up), or push it to a registry that the nodes reach and name that in "
            "spec.image of a new job"
        )
    secrets = ", ".join(secret.name for secret in job.spec.image_pull_secrets)
    if event := newest(observed.events, "Pod", pod, {"FailedToRetrieveImagePullSecret"}):
        missing = node_words.missing_pull_secrets(event.get("message", ""))
        remedy = (
            f"Pull secret {missing or secrets}, named in "
            f"spec.imagePullSecrets, does not exist in namespace {names.namespace(job)}: create "
            "it, and see that the registry has the image"
        )
    elif broken:
        remedy = (
            "The kubelet keeps trying: see that its node reaches the registry and that the "
            "container runtime there is well"
        )
    elif node_words.is_unreachable(message):
        remedy = (
            "The node does not reach that registry: see that its name is right, and that the node "
            "has a name server (DNS), a route or a proxy for it. The kubelet keeps trying"
        )
    elif node_words.is_access_denied(message):
        remedy = (
            f"The registry refuses the pull secrets ({secrets}); renew them"
            if secrets
            else "If the image is private, name its pull secret in spec.imagePullSecrets"
        )
    elif secrets:  # the kubelet may yet say that one is missing
        remedy += (
            f". The pull secrets of spec.imagePullSecrets ({secrets}) must exist in namespace "
            f"{names.namespace(job)}"
        )
    cause = node_words.pull_cause(message, image)
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


def _certificates(pod: str, message: str, job: DistributedTrainingJob) -> Finding:
    return Finding(
        Reason.CONFIGURATION_MISSING,
        f"pod {pod}: {message.rstrip('.')} (namespace {names.namespace(job)}). Kubernetes' own "
        f"controller manager puts {node_words.CLUSTER_CERTIFICATES} into every namespace: see that "
        "it runs, and that the node reaches the API server",
    )


def unmounted(
    observed: Observed, pod: Json, job: DistributedTrainingJob, now: datetime, settings: Settings
) -> Iterator[Finding]:
    """What the kubelet, or the controller that attaches volumes, says of the pod's volumes."""
    name = pod["metadata"]["name"]
    event = newest(observed.events, "Pod", name, {"FailedMount", "FailedAttachVolume"})
    if event is None or not is_starting(pod) or has_sandbox(pod):
        return
    reported_at = datetime.fromisoformat(last_seen(event))
    # An Event is of the past: trouble has lasted until then, not until now.
    lasted = elapsed(scheduled_at(pod), reported_at)
    if now - reported_at > _MOUNT_EVENT_LIFETIME:
        return
    message = node_words.mount_cause(event.get("message", ""))
    if node_words.lacks_configuration(message):
        if lasted >= timedelta(seconds=settings.settle_seconds):
            yield _configuration(name, message, job)
    elif lasted < GRACE:
        return
    elif node_words.lacks_cluster_certificates(message):
        yield _certificates(name, message, job)
    else:
        remedy = (
            _remedy(message)
            if node_words.is_not_synced(message)
            else "Repair the volume or its storage; the kubelet keeps trying"
        )
        yield Finding(
            Reason.MOUNT_FAILED,
            f"pod {name} can't mount a volume: {message}. {remedy}{metadata_remedy(message, job)}",
        )


KIND = of_pods(lambda facts, pod: not_started(facts.observed, pod, facts.job, facts.now))
UNMOUNTED = of_pods(
    lambda facts, pod: unmounted(facts.observed, pod, facts.job, facts.now, facts.settings)
)
