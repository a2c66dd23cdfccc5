"""Changes to stored objects, allowed and refused; told to the offline rules and to API servers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tests.support.builders import created, new_ledger, privacy_plan, segment
from tests.support.rules.manifest_cases import GOOD, load_case

Json = dict[str, Any]
REMOVED = object()
"""As a value in `edited`: the field is taken away."""


def edited(original: Json, changes: dict[str, Any]) -> Json:
    """A copy with dotted paths set to new values."""
    result = copy.deepcopy(original)
    for path, value in changes.items():
        *parents, last = path.split(".")
        target = result
        for key in parents:
            target = target.setdefault(key, {})
        if value is REMOVED:
            target.pop(last, None)
        else:
            target[last] = value
    return result


@dataclass(frozen=True)
class Transition:
    """A stored object, the change, and the fields that the API server then complains of.

    `part` is what the writer sends: "spec" to the object itself, "status" to its subresource.
    An empty `refused` means that the change is allowed.
    """

    name: str
    stored: Json
    changes: dict[str, Any]
    part: str = "spec"
    refused: tuple[str, ...] = ()

    @property
    def changed(self) -> Json:
        return edited(self.stored, self.changes)


JOB = load_case(GOOD / "everything.yaml").manifest
SUSPENDED = edited(JOB, {"status.phase": "Suspended"})
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
    "template": ("spec.workers.template", {"spec.workers.template.nodeSelector": {"a": "b"}}),
    "template-removed": ("spec.workers.template", {"spec.workers.template": REMOVED}),
}
_ALWAYS: dict[str, Json] = {
    "replicas": {"spec.workers.replicas": 7},
    "max-restarts": {"spec.runPolicy.maxRestarts": 3},
    "stall-seconds": {"spec.runPolicy.stallSeconds": 60},
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
    Transition(
        "suspended-by-the-writer-himself",
        RUNNING,
        {"status.phase": "Suspended", "spec.image": "other"},
        refused=("spec.image",),
    ),
]

_SHA = "0123456789abcdef" * 4
TIME = "2026-01-02T03:04:05Z"
_PLAN = privacy_plan()
LEDGER: Json = edited(
    created(new_ledger(_PLAN, job_uid="01234567-89ab-cdef-0123-456789abcdef", workers=2)),
    {"spec.run.generation": 2},
)
_LEASE = {"attempt": 2, "fromDraw": 20, "toDraw": 30, "fromStep": 10}
CHECKPOINT = {
    "step": 10,
    "charged": 20,
    "attempt": 2,
    "path": "attempt-2/step-10.pt",
    "sha256": _SHA,
    "time": TIME,
}
_SEGMENT = segment(_PLAN, 30, "ghcr.io/dtjob/trainer:0.1.0").to_dict()
STARTED = edited(
    LEDGER,
    {
        "status": {
            "attempt": 2,
            "charged": 30,
            "lease": _LEASE,
            "segments": [_SEGMENT],
            "checkpoint": CHECKPOINT,
            "drained": 1,
            "attempts": [
                {"attempt": 1, "start": TIME, "end": TIME, "rank": 0, "signal": 9},
                {"attempt": 2, "start": TIME},
            ],
        }
    },
)
CLOSED = edited(STARTED, {"status.lease.closedAt": 24})
_OUTCOME = {
    "state": "Succeeded",
    "reason": "Completed",
    "message": "336 steps",
    "time": TIME,
    "result": {"accuracy": 0.943, "digest": {"sha256": _SHA}},
}
FOUND = edited(STARTED, {"status.volume": {"attempt": 4, "leased": 3, "charged": 60}})
RAISED = edited(CLOSED, {"status.restored": 2})
FINISHED = edited(STARTED, {"status.outcome": _OUTCOME})
SETTLED = edited(STARTED, {"spec.reservedDraws": 30})


def _segments(*draws: int) -> list[Json]:
    return [_SEGMENT | {"draws": each} for each in draws]


def segments(*draws: int) -> Json:
    """Segments of so many draws each, as a change of the status."""
    return {"segments": _segments(*draws)}


NEXT_LEASE = {"attempt": 2, "fromDraw": 30, "toDraw": 40, "fromStep": 20}


def ledger_status(name: str, stored: Json, changes: Json, *refused: str) -> Transition:
    """A write to a ledger's status; the paths of `changes` lie in it."""
    prefixed = {f"status.{path}" if path else "status": value for path, value in changes.items()}
    return Transition(name, stored, prefixed, "status", refused)


def ledger_spec(name: str, stored: Json, changes: Json, *refused: str) -> Transition:
    prefixed = {f"spec.{path}": value for path, value in changes.items()}
    return Transition(name, stored, prefixed, "spec", refused)


LEDGER_TRANSITIONS = [
    # What an honest run writes.
    ledger_status("first-attempt", LEDGER, {"attempt": 1}),
    ledger_status(
        "first-lease",
        edited(LEDGER, {"status": {"attempt": 1, "charged": 0}}),
        {
            "charged": 10,
            "lease": {"attempt": 1, "fromDraw": 0, "toDraw": 10, "fromStep": 0},
            "segments": _segments(10),
        },
    ),
    ledger_status(
        "checkpoint-and-next-lease",
        STARTED,
        {
            "charged": 40,
            "lease": NEXT_LEASE,
            "segments": _segments(30, 10),
            "checkpoint": {**CHECKPOINT, "step": 20, "charged": 30},
        },
    ),
    # What an administrator puts back into a ledger that was lost and made anew.
    ledger_status("status-from-a-backup", LEDGER, {"": FINISHED["status"]}),
    ledger_status(
        "status-from-a-backup-before-the-attempt-s-first-lease",
        LEDGER,
        {"": {**CLOSED["status"], "attempt": 3}},
    ),
    ledger_status(
        "status-from-a-backup-with-a-lease-of-the-future",
        LEDGER,
        {"": {**STARTED["status"], "attempt": 1}},
        "status.attempts",
        "status.checkpoint",
        "status.lease",
    ),
    ledger_status("orderly-stop", STARTED, {"lease.closedAt": 25, "drained": 2}),
    ledger_status(
        "successor-uses-the-rest",
        CLOSED,
        {
            "attempt": 3,
            "charged": 34,
            "segments": _segments(34),
            "lease": {"attempt": 3, "fromDraw": 24, "toDraw": 34, "fromStep": 14},
        },
    ),
    ledger_status("new-attempt", STARTED, {"attempt": 3}),
    ledger_status("outcome", STARTED, {"outcome": _OUTCOME}),
    ledger_spec(
        "next-generation", STARTED, {"run": {"generation": 3, "workers": 4, "state": "Run"}}
    ),
    ledger_spec("drain", STARTED, {"run.state": "Drain"}),
    ledger_spec("settled", STARTED, {"reservedDraws": 30}),
    # Attacks on what has been charged.
    ledger_status(
        "charged-lowered",
        STARTED,
        {"charged": 29, "segments": _segments(29)},
        "status.charged",
        "status.lease",
    ),
    ledger_status(
        "charged-lowered-with-the-lease",
        STARTED,
        {"charged": 20, "lease.toDraw": 20, "segments": _segments(20)},
        "status.charged",
        "status.lease",
        "status.lease",
    ),
    ledger_status(
        "charged-removed",
        STARTED,
        {"charged": REMOVED},
        "status.charged",
        "status.checkpoint",
        "status.lease",
        "status.segments",
    ),
    ledger_status("status-removed", STARTED, {"": REMOVED}, "status"),
    ledger_status(
        "status-emptied",
        STARTED,
        {"": {}},
        "status.attempt",
        "status.attempts",
        "status.charged",
        "status.checkpoint",
        "status.drained",
        "status.lease",
    ),
    ledger_status(
        "charged-above-reserved",
        STARTED,
        {"charged": 367, "segments": _segments(367)},
        "status.charged",
    ),
    ledger_status(
        "lease-after-settlement",
        SETTLED,
        {"charged": 40, "segments": _segments(40), "lease": NEXT_LEASE},
        "status.charged",
    ),
    ledger_spec("reserved-below-charged", STARTED, {"reservedDraws": 29}, "status.charged"),
    ledger_spec("reserved-raised", SETTLED, {"reservedDraws": 366}, "spec.reservedDraws"),
    ledger_spec(
        "reserved-above-plan",
        LEDGER,
        {"reservedDraws": 367},
        "spec.reservedDraws",
        "spec.reservedDraws",
    ),
    # Attacks on the attempt and the lease.
    ledger_status(
        "attempt-lowered",
        STARTED,
        {"attempt": 1},
        "status.attempt",
        "status.attempts",
        "status.checkpoint",
        "status.lease",
    ),
    ledger_status("lease-removed", STARTED, {"lease": REMOVED}, "status.lease"),
    ledger_status(
        "lease-beyond-charged", STARTED, {"lease.toDraw": 31}, "status.lease", "status.lease"
    ),
    ledger_status(
        "lease-of-draws-already-leased",
        STARTED,
        {"charged": 40, "segments": _segments(40), "lease": {**NEXT_LEASE, "fromDraw": 29}},
        "status.lease",
    ),
    ledger_status(
        "lease-by-a-stale-attempt",
        edited(STARTED, {"status.attempt": 3}),
        {"charged": 40, "segments": _segments(40), "lease": NEXT_LEASE},
        "status.lease",
    ),
    ledger_status(
        "lease-before-closed-at",
        CLOSED,
        {
            "charged": 33,
            "segments": _segments(33),
            "lease": {**NEXT_LEASE, "fromDraw": 23, "toDraw": 33},
        },
        "status.lease",
    ),
    ledger_status("closed-at-moved", CLOSED, {"lease.closedAt": 22}, "status.lease"),
    ledger_status("closed-at-removed", CLOSED, {"lease.closedAt": REMOVED}, "status.lease"),
    ledger_status("closed-at-outside", STARTED, {"lease.closedAt": 31}, "status.lease.closedAt"),
    ledger_status(
        "rest-of-a-lease-that-was-raised-over",
        RAISED,
        {
            "attempt": 3,
            "charged": 34,
            "segments": _segments(34),
            "lease": {"attempt": 3, "fromDraw": 24, "toDraw": 34, "fromStep": 14},
        },
        "status.lease",
    ),
    ledger_status(
        "lease-after-the-outcome",
        FINISHED,
        {"charged": 40, "segments": _segments(40), "lease": NEXT_LEASE},
        "status.lease",
    ),
    # Attacks on the outcome.
    ledger_status("outcome-removed", FINISHED, {"outcome": REMOVED}, "status.outcome"),
    ledger_status("outcome-second", FINISHED, {"outcome.state": "Failed"}, "status.outcome"),
    ledger_status(
        "outcome-result-rewritten", FINISHED, {"outcome.result.accuracy": 0.99}, "status.outcome"
    ),
    ledger_status(
        "outcome-result-one-for-true",
        edited(FINISHED, {"status.outcome.result.kept": [True]}),
        {"outcome.result.kept": [1]},
        "status.outcome",
    ),
    # Attacks on the checkpoint and the record.
    ledger_status("checkpoint-removed", STARTED, {"checkpoint": REMOVED}, "status.checkpoint"),
    ledger_status(
        "checkpoint-of-an-old-attempt", STARTED, {"checkpoint.attempt": 1}, "status.checkpoint"
    ),
    ledger_status("checkpoint-step-back", STARTED, {"checkpoint.step": 5}, "status.checkpoint"),
    ledger_status(
        "checkpoint-ahead-of-charge",
        STARTED,
        {"checkpoint.charged": 31, "checkpoint.step": 11},
        "status.checkpoint",
    ),
    ledger_status(
        "checkpoint-past-the-end", STARTED, {"checkpoint.step": 337}, "status.checkpoint"
    ),
    ledger_status("segments-removed", STARTED, {"segments": REMOVED}, "status.segments"),
    ledger_status(
        "segments-with-fewer-draws", STARTED, {"segments": _segments(10)}, "status.segments"
    ),
    ledger_status("charged-without-segments", STARTED, {"charged": 40}, "status.segments"),
    ledger_status(
        "segments-with-more-noise",
        STARTED,
        {"segments": [{**_SEGMENT, "noiseMultiplier": 1e4}]},
        "status.segments",
    ),
    ledger_status(
        "segments-with-a-smaller-rate",
        STARTED,
        {"segments": [{**_SEGMENT, "sampleRate": 1e-9}]},
        "status.segments",
    ),
    ledger_status(
        "segments-without-noise",
        STARTED,
        {"segments": [{"draws": 30, "image": "ghcr.io/dtjob/trainer:0.1.0"}]},
        "status.segments",
    ),
    ledger_status("restored-removed", RAISED, {"restored": REMOVED}, "status.restored"),
    ledger_status(
        "restored-lowered", RAISED, {"restored": 1}, "status.restored", "status.restored"
    ),
    ledger_status("restored-ahead", RAISED, {"restored": 3}, "status.restored", "status.restored"),
    ledger_status("drained-removed", STARTED, {"drained": REMOVED}, "status.drained"),
    ledger_status("drained-lowered", STARTED, {"drained": 0}, "status.drained"),
    ledger_status("drained-ahead", STARTED, {"drained": 3}, "status.drained"),
    # Attacks on the spec.
    ledger_spec("job-uid", STARTED, {"jobUID": "other"}, "spec.jobUID"),
    ledger_spec("job-name", STARTED, {"jobName": "other"}, "spec.jobName"),
    ledger_spec("stateful-set", STARTED, {"statefulSet": "other"}, "spec.statefulSet"),
    ledger_spec(
        "plan-less-noise",
        STARTED,
        {"plan.noiseMultiplier": 1.0},
        "spec.plan",
        "status.segments",
    ),
    ledger_spec("plan-without-target", STARTED, {"plan.epsilon": REMOVED}, "spec.plan"),
    ledger_spec("plan-privacy-off", STARTED, {"plan.mode": "Disabled"}, "spec.plan"),
    ledger_spec("generation-lowered", STARTED, {"run.generation": 1}, "spec.run.generation"),
    ledger_spec("workers-in-the-same-generation", STARTED, {"run.workers": 3}, "spec.run.workers"),
]
