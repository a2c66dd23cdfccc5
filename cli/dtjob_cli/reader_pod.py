"""A short-lived pod that reads a job's claim, with the rights of whoever calls.

It has the job's image and nothing else of the job: no account, no network, no label by which a
StatefulSet, a Service, a policy or the operator would take it for a worker's.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import Any

from dtjob_api.model import API_VERSION
from dtjob_api.shown import line
from dtjob_cli import kubectl
from dtjob_cli.cluster_jobs import ClusterJob, running_container
from dtjob_cli.display import Display
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.interrupts import counted

Json = dict[str, Any]

CONTAINER = "reader"
MOUNT = "/state"
READER = ("python", "-P", "-m", "dtjob_trainer.reader")
#: How long it may take to start; what keeps it from that is named.
START_SECONDS = 120.0
#: What does not go away is waited for a little: the scheduler and pulls try again.
STUCK_SECONDS = 20.0
#: It ends by itself then, where nobody deletes it.
DEADLINE_SECONDS = 3600
_POLL_SECONDS = 0.5
_USER = 65532
_RESOURCES = {"cpu": "100m", "memory": "256Mi"}


def manifest(job: ClusterJob, name: str) -> Json:
    """Return the pod: as restricted as a namespace may ask for, read-only throughout."""
    template = job.spec.get("workers", {}).get("template") or {}
    container: Json = {
        "name": CONTAINER,
        "image": job.spec["image"],
        "command": [*READER, "wait"],
        "resources": {"requests": _RESOURCES, "limits": _RESOURCES},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "state", "mountPath": MOUNT, "readOnly": True}],
    }
    claim = {"claimName": job.claim, "readOnly": True}
    spec: Json = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "state", "persistentVolumeClaim": claim}],
    }
    if policy := job.spec.get("imagePullPolicy"):
        container["imagePullPolicy"] = policy
    for field, value in (
        ("imagePullSecrets", job.spec.get("imagePullSecrets")),
        ("nodeSelector", template.get("nodeSelector")),
        ("tolerations", template.get("tolerations")),
    ):
        if value:
            spec[field] = value
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": job.namespace,
            "labels": {"app.kubernetes.io/name": "dtjob-reader"},
            # It goes with the job, where this command could not delete it.
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "DistributedTrainingJob",
                    "name": job.name,
                    "uid": job.uid,
                }
            ],
        },
        "spec": spec,
    }


@contextlib.contextmanager
def running(job: ClusterJob, screen: Display) -> Iterator[str]:
    """Have a pod that reads the job's claim, and delete it in any case; yields its name.

    Raises
    ------
    CommandError
        It can't be made or does not start: what its image, its node, its volume or a quota lacks.
    """
    name = f"{job.ledger}-reader-{secrets.token_hex(3)}"
    try:
        # Until it is there a Ctrl-C only counts: a deletion before it would delete nothing.
        with counted() as interrupts:
            screen.waiting(f"starting pod {name}, which reads claim {job.claim}")
            _create(job, name)
        interrupts.check("stopped: nothing was read.")
        _until_started(job, name)
        yield name
    finally:
        with counted():
            kubectl.delete_pod(name, job.namespace)


def _create(job: ClusterJob, name: str) -> None:
    try:
        kubectl.create(manifest(job, name))
    except CommandError as error:
        if error.reason != "Kubectl":
            raise
        why = f"the pod that reads claim {job.claim} was refused: {error.message}"
        raise _not_started(why) from None


def _until_started(job: ClusterJob, name: str) -> None:
    began = time.monotonic()
    while True:
        pod = kubectl.get("pod", name, job.namespace)
        if running_container(pod) is not None:
            return
        waited = time.monotonic() - began
        obstacle = hindrance(pod)
        if obstacle is not None and waited > STUCK_SECONDS:
            raise _not_started(f"pod {name} does not start: {obstacle}")
        if waited > START_SECONDS or pod["status"].get("phase") in ("Failed", "Succeeded"):
            why = obstacle or _last_event(name, job.namespace) or pod["status"].get("phase")
            raise _not_started(f"pod {name} has not started after {waited:.0f} s: {why}")
        time.sleep(_POLL_SECONDS)


def hindrance(pod: Json) -> str | None:
    """Return what keeps a pod from starting, by its status: no node for it, or its image."""
    status = pod["status"]
    for each in status.get("conditions") or []:
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return line(f"no node takes it: {each.get('message', each.get('reason'))}")
    for each in status.get("containerStatuses") or []:
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            words = f"{waiting['reason']}: {waiting.get('message', '')}"
            return line(f"image {pod['spec']['containers'][0]['image']}: {words}")
    return None


def _last_event(name: str, namespace: str) -> str | None:
    """Return the newest warning of a pod, such as that of a volume that is attached elsewhere."""
    try:
        events = kubectl.events_of(name, namespace)
    except CommandError:
        return None  # this user may not read them
    warnings = [each for each in events if each.get("type") == "Warning"]
    return line(f"{warnings[-1]['reason']}: {warnings[-1]['message']}") if warnings else None


def _not_started(message: str) -> CommandError:
    return CommandError(
        ExitCode.REFUSED,
        "ReaderNotStarted",
        message,
        "Nothing is lost: the claim is as it was. Put it right, then run the command again.",
    )
