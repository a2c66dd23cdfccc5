"""The StatefulSets of a job: one for the coordinator alone, one for all other workers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from dtjob_api import derive
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.job.workers import GPU_RESOURCE
from dtjob_api.wire.positions import Role
from dtjob_api.wire.well_known import (
    CONFIG_VARIABLE,
    HELLO_PORT,
    HTTP_PORT,
    LIVENESS_PATH,
    READINESS_PATH,
    STORE_PORT,
)
from dtjob_api.wire.worker_config import GangProof, LedgerKind, LedgerRef, ProofKind
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import Json

_USER = 65532
_UNREACHABLE_SECONDS = 30
_GRACE_SECONDS = 60
_TOKEN_SECONDS = 600  # as short as the API server makes them


def stateful_set(job: DistributedTrainingJob, role: Role, replicas: int) -> Json:
    """Workers of one role with stable names; the coordinator alone has a volume, for the state.

    All start at once, since a gang trains only when it is complete. An update of the template
    touches no running pod, and the claim is never deleted: what is on it is paid for.
    """
    template = _template(job, role)
    spec: Json = {
        "replicas": replicas,
        "serviceName": names.child_name(job),
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "selector": {"matchLabels": names.of_role(role, names.selector(job))},
        "template": template,
    }
    if role is Role.COORDINATOR:
        spec["persistentVolumeClaimRetentionPolicy"] = {
            "whenDeleted": "Retain",
            "whenScaled": "Retain",
        }
        spec["volumeClaimTemplates"] = [_checkpoint_claim(job)]
    return {
        "apiVersion": kinds.STATEFUL_SET.api_version,
        "kind": kinds.STATEFUL_SET.name,
        "metadata": names.child_metadata(job)
        | {
            "name": names.set_name(job, role),
            "labels": names.of_role(role, names.labels(job)),
            "annotations": {names.TEMPLATE_DIGEST: template_digest(template)},
        },
        "spec": spec,
    }


def template_digest(template: Json) -> str:
    """Distinguishes this template from that of another version of the operator."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]


def _template(job: DistributedTrainingJob, role: Role) -> Json:
    extra = job.spec.workers.template
    spec: Json = {
        "serviceAccountName": names.worker_account(job),
        # The coordinator alone asks the API server anything, whatever the account's default.
        "automountServiceAccountToken": role is Role.COORDINATOR,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [
            *(toleration.to_dict() for toleration in extra.tolerations),
            *(_unreachable(taint) for taint in ("not-ready", "unreachable")),
        ],
        "containers": [_container(job, role)],
        "volumes": _volumes(job),
    }
    if job.spec.image_pull_secrets:
        spec["imagePullSecrets"] = [secret.to_dict() for secret in job.spec.image_pull_secrets]
    if extra.node_selector:
        spec["nodeSelector"] = dict(extra.node_selector)
    return {"metadata": {"labels": names.of_role(role, names.labels(job))}, "spec": spec}


def _unreachable(taint: str) -> Json:
    return {
        "key": f"node.kubernetes.io/{taint}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": _UNREACHABLE_SECONDS,
    }


def _container(job: DistributedTrainingJob, role: Role) -> Json:
    container: Json = {
        "name": names.WORKER_CONTAINER,
        "image": job.spec.image,
        # -P: files in the image's working folder shadow no module of Python's library.
        "command": ["python", "-P", "-m", "dtjob_trainer.supervisor"],
        "env": _env(job),
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "store", "containerPort": STORE_PORT, "protocol": "TCP"},
            {"name": "hello", "containerPort": HELLO_PORT, "protocol": "TCP"},
        ],
        # /healthz says that the supervisor's event loop turns; a slow step never fails it.
        "livenessProbe": _probe(LIVENESS_PATH, period=10, failures=12),
        "readinessProbe": _probe(READINESS_PATH, period=2, failures=10),
        # The supervisor's last log line says why it ended; it reaches the pod's status this way.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(job, role),
    }
    if job.spec.image_pull_policy is not None:
        container["imagePullPolicy"] = job.spec.image_pull_policy
    if resources := _resources(job):
        container["resources"] = resources
    if env_from := [source.to_dict() for source in job.spec.workers.template.env_from]:
        container["envFrom"] = env_from
    return container


def _probe(path: str, *, period: int, failures: int) -> Json:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _env(job: DistributedTrainingJob) -> list[Json]:
    """The user's variables over our defaults; the supervisor's configuration over all."""
    name = names.child_name(job)
    config = derive.worker_config(
        job,
        ledger=LedgerRef(kind=LedgerKind.KUBERNETES, namespace=names.namespace(job), name=name),
        state_dir=names.STATE_DIR,
        data_dir=names.DATA_DIR if job.spec.storage.data else None,
        coordinator_host=f"{names.pod_name(job, 0)}.{name}",
        coordinator_port=HELLO_PORT,
        store_port=STORE_PORT,
        proof=GangProof(
            kind=ProofKind.TOKEN,
            path=f"{names.TOKEN_DIR}/{names.TOKEN_FILE}",
            audience=derive.gang_audience(derive.job_uid(job)),
            stateful_set=name,
        ),
        http_port=HTTP_PORT,
        stays_after_outcome=True,
    )
    text = json.dumps(config.to_dict(), sort_keys=True, separators=(",", ":"))
    variables = [
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 (an emptyDir of the pod)
        {"name": "TMPDIR", "value": "/tmp"},  # noqa: S108
        *(variable.to_dict() for variable in job.spec.workers.template.env),
        {"name": CONFIG_VARIABLE, "value": _literal(text)},
    ]
    return list({variable["name"]: variable for variable in variables}.values())


def _literal(value: str) -> str:
    """Keep the kubelet from expanding `$(VAR)` in a task's own arguments."""
    return value.replace("$(", "$$(")


def _resources(job: DistributedTrainingJob) -> Json:
    """The user's quantities as text, and the GPUs."""
    workers = job.spec.workers
    resources: dict[str, Any] = {}
    for kind, given in (
        ("requests", workers.resources.requests),
        ("limits", workers.resources.limits),
    ):
        quantities = {name: str(quantity) for name, quantity in given.items()}
        if workers.gpus_per_worker:
            quantities[GPU_RESOURCE] = str(workers.gpus_per_worker)
        if quantities:
            resources[kind] = quantities
    return resources


def _volumes(job: DistributedTrainingJob) -> list[Json]:
    volumes: list[Json] = [
        {"name": "dtjob-tmp", "emptyDir": {}},
        {"name": "dtjob-shm", "emptyDir": {"medium": "Memory"}},
        {"name": "dtjob-gang", "projected": {"sources": [{"serviceAccountToken": _token(job)}]}},
    ]
    if data := job.spec.storage.data:
        claim = {"claimName": data.claim_name, "readOnly": True}
        volumes.append({"name": names.DATA_VOLUME, "persistentVolumeClaim": claim})
    return volumes + [volume.to_dict() for volume in job.spec.workers.template.volumes]


def _token(job: DistributedTrainingJob) -> Json:
    """By this the coordinator knows its workers; nobody else takes it for anything."""
    return {
        "audience": derive.gang_audience(derive.job_uid(job)),
        "expirationSeconds": _TOKEN_SECONDS,
        "path": names.TOKEN_FILE,
    }


def _mounts(job: DistributedTrainingJob, role: Role) -> list[Json]:
    mounts: list[Json] = [
        {"name": "dtjob-tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "dtjob-shm", "mountPath": "/dev/shm"},  # noqa: S108
        {"name": "dtjob-gang", "mountPath": names.TOKEN_DIR, "readOnly": True},
    ]
    if role is Role.COORDINATOR:
        mounts.insert(0, {"name": names.CHECKPOINT_VOLUME, "mountPath": names.STATE_DIR})
    if job.spec.storage.data:
        mounts.append({"name": names.DATA_VOLUME, "mountPath": names.DATA_DIR, "readOnly": True})
    return mounts + [mount.to_dict() for mount in job.spec.workers.template.volume_mounts]


def _checkpoint_claim(job: DistributedTrainingJob) -> Json:
    volume = job.spec.storage.checkpoints
    spec: Json = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(volume.size)}},
    }
    if volume.storage_class_name is not None:
        spec["storageClassName"] = volume.storage_class_name
    return {
        "apiVersion": kinds.CLAIM.api_version,
        "kind": kinds.CLAIM.name,
        "metadata": {"name": names.CHECKPOINT_VOLUME, "labels": names.labels(job)},
        "spec": spec,
    }
