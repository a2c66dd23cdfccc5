"""Changes to stored jobs: what never changes, what does while suspended, what does at any time."""

from __future__ import annotations

from tests.support.rules.manifest_cases import GOOD, load_case
from tests.support.rules.transitions import REMOVED, Json, Transition, edited

JOB = load_case(GOOD / "everything.yaml").manifest
SUSPENDED = edited(JOB, {"spec.suspend": True, "status.phase": "Suspended"})
RUNNING = edited(JOB, {"status.phase": "Running"})
MINIMAL = load_case(GOOD / "minimal.yaml").manifest

_NEVER: dict[str, Json] = {
    "training": {"spec.training.steps": 400},
    "training-args": {"spec.training.args.hidden": 64},
    "optimizer": {"spec.training.optimizer.learningRate": 1.0},
    "privacy": {"spec.privacy.epsilon": 4},
    "privacy-delta-removed": {"spec.privacy.delta": REMOVED},
    "checkpoint": {"spec.checkpoint.keep": 5},
    "checkpoint-removed": {"spec.checkpoint": REMOVED},
    "storage-data": {"spec.storage.data.claimName": "other"},
    "storage-data-removed": {"spec.storage.data": REMOVED},
    "storage-class": {"spec.storage.checkpoints.storageClassName": "slow"},
    "storage-class-removed": {"spec.storage.checkpoints.storageClassName": REMOVED},
    "storage-size-shrunk": {"spec.storage.checkpoints.size": "1Gi"},
}
_NEVER_FIELDS = {
    "training": "spec.training",
    "training-args": "spec.training",
    "optimizer": "spec.training",
    "privacy": "spec.privacy",
    "privacy-delta-removed": "spec.privacy",
    "checkpoint": "spec.checkpoint",
    "checkpoint-removed": "spec.checkpoint",
    "storage-data": "spec.storage.data",
    "storage-data-removed": "spec.storage.data",
    "storage-class": "spec.storage.checkpoints.storageClassName",
    "storage-class-removed": "spec.storage.checkpoints.storageClassName",
    "storage-size-shrunk": "spec.storage.checkpoints.size",
}
_WHILE_SUSPENDED: dict[str, tuple[str, Json]] = {
    "image": ("spec.image", {"spec.image": "ghcr.io/dtjob/trainer:0.2.0"}),
    "image-pull-policy": ("spec.imagePullPolicy", {"spec.imagePullPolicy": "Always"}),
    "image-pull-policy-removed": ("spec.imagePullPolicy", {"spec.imagePullPolicy": REMOVED}),
    "image-pull-secrets": ("spec.imagePullSecrets", {"spec.imagePullSecrets": []}),
    "gpus": ("spec.workers.gpusPerWorker", {"spec.workers.gpusPerWorker": 1}),
    "processes": ("spec.workers.processesPerWorker", {"spec.workers.processesPerWorker": 1}),
    "resources": ("spec.workers.resources", {"spec.workers.resources.limits.memory": "4Gi"}),
    "resources-removed": ("spec.workers.resources", {"spec.workers.resources": REMOVED}),
    "service-account": (
        "spec.workers.serviceAccountName",
        {"spec.workers.serviceAccountName": "other"},
    ),
    "service-account-removed": (
        "spec.workers.serviceAccountName",
        {"spec.workers.serviceAccountName": REMOVED},
    ),
    "logs": ("spec.logs", {"spec.logs.maxMiB": 50}),
    "logs-removed": ("spec.logs", {"spec.logs": REMOVED}),
    "template": ("spec.workers.template", {"spec.workers.template.nodeSelector": {"a": "b"}}),
    "template-removed": ("spec.workers.template", {"spec.workers.template": REMOVED}),
}
_ALWAYS: dict[str, Json] = {
    "replicas": {"spec.workers.replicas": 7},
    "max-restarts": {"spec.runPolicy.maxRestarts": 3},
    "stall-seconds": {"spec.runPolicy.stallSeconds": 60},
    "backoff": {"spec.runPolicy.backoff": {"initialSeconds": 0, "maxSeconds": 0}},
    "failure-rules": {"spec.runPolicy.rules": [{"exitCodes": [42], "action": "Fail"}]},
    "deadlines": {
        "spec.runPolicy.activeDeadlineSeconds": 60,
        "spec.runPolicy.startDeadlineSeconds": 60,
    },
    "time-after-the-end": {
        "spec.runPolicy.holdAfterFailureSeconds": 60,
        "spec.runPolicy.ttlSecondsAfterFinished": 0,
    },
    "run-policy-removed": {"spec.runPolicy": REMOVED},
    "network-policy": {"spec.network": {"policy": "None"}},
    "network-egress": {"spec.network.egress": []},
    "network-removed": {"spec.network": REMOVED},
    "storage-size-grown": {"spec.storage.checkpoints.size": "3Gi"},
    "storage-size-rewritten": {"spec.storage.checkpoints.size": "2048Mi"},
}

JOB_TRANSITIONS = [
    *(
        Transition(f"{name}-while-{state}", stored, changes, refused=(_NEVER_FIELDS[name],))
        for name, changes in _NEVER.items()
        for state, stored in (("running", RUNNING), ("suspended", SUSPENDED))
    ),
    *(
        Transition(f"{name}-while-{state}", stored, changes, refused=(field,))
        for name, (field, changes) in _WHILE_SUSPENDED.items()
        for state, stored in (("running", RUNNING), ("new", JOB))
        # A GPU beside several processes is wrong in itself.
        if name != "gpus"
    ),
    *(
        Transition(f"{name}-while-suspended", SUSPENDED, changes)
        for name, (_, changes) in _WHILE_SUSPENDED.items()
        if name != "gpus"
    ),
    Transition(
        "gpus-while-running",
        edited(RUNNING, {"spec.workers.processesPerWorker": 1}),
        {"spec.workers.gpusPerWorker": 1},
        refused=("spec.workers.gpusPerWorker",),
    ),
    Transition(
        "gpus-while-suspended",
        edited(SUSPENDED, {"spec.workers.processesPerWorker": 1}),
        {"spec.workers.gpusPerWorker": 1},
    ),
    *(
        Transition(f"{name}-while-{state}", stored, changes)
        for name, changes in _ALWAYS.items()
        for state, stored in (("running", RUNNING), ("suspended", SUSPENDED))
    ),
    Transition(
        "data-added-to-a-job-without",
        MINIMAL,
        {"spec.storage.data.claimName": "digits"},
        refused=("spec.storage.data",),
    ),
    Transition(
        "pull-policy-added-to-a-job-without",
        MINIMAL,
        {"spec.imagePullPolicy": "Always"},
        refused=("spec.imagePullPolicy",),
    ),
    Transition(
        "defaults-spelled-out", MINIMAL, {"spec.workers.replicas": 1, "spec.checkpoint": {}}
    ),
    *(
        Transition(
            f"rerun-{name}",
            edited(JOB, {"spec.rerun": 2, "status.phase": phase}),
            {"spec.rerun": rerun},
            refused=() if admitted else ("spec.rerun",),
        )
        for name, phase, rerun, admitted in (
            ("after-a-success", "Succeeded", 3, True),
            ("after-a-failure", "Failed", 9, True),
            ("lowered-after-a-failure", "Failed", 1, False),
            ("removed-after-a-success", "Succeeded", REMOVED, False),
            ("while-it-runs", "Running", 3, False),
            ("while-it-is-suspended", "Suspended", 3, False),
        )
    ),
    Transition(
        "rerun-raised-by-a-forger-of-the-phase",
        RUNNING,
        {"status.phase": "Failed", "spec.rerun": 1},
        refused=("spec.rerun",),
    ),
    Transition(
        "suspended-by-the-writer-himself",
        RUNNING,
        {"status.phase": "Suspended", "spec.image": "other"},
        refused=("spec.image",),
    ),
]
