"""Changes to stored ledgers: what an honest run writes, and an attack on each field."""

from __future__ import annotations

from tests.support.rules.stored_ledgers import (
    CHECKPOINT,
    CLOSED,
    CONTENT,
    FINISHED,
    LEDGER,
    NEXT_LEASE,
    OUTCOME,
    RAISED,
    SEGMENT,
    SETTLED,
    STARTED,
    WITH_CONTENT,
    ledger_spec,
    ledger_status,
    segments,
)
from tests.support.rules.transitions import REMOVED, edited

LEDGER_TRANSITIONS = [
    # What an honest run writes.
    ledger_status("first-attempt", LEDGER, {"attempt": 1}),
    ledger_status(
        "first-lease",
        edited(LEDGER, {"status": {"attempt": 1, "charged": 0}}),
        {
            "charged": 10,
            "lease": {"attempt": 1, "fromDraw": 0, "toDraw": 10, "fromStep": 0},
            **segments(10),
        },
    ),
    ledger_status(
        "checkpoint-and-next-lease",
        STARTED,
        {
            "charged": 40,
            "lease": NEXT_LEASE,
            **segments(30, 10),
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
            **segments(34),
            "lease": {"attempt": 3, "fromDraw": 24, "toDraw": 34, "fromStep": 14},
        },
    ),
    ledger_status("new-attempt", STARTED, {"attempt": 3}),
    ledger_status("outcome", STARTED, {"outcome": OUTCOME}),
    ledger_spec(
        "next-generation", STARTED, {"run": {"generation": 3, "workers": 4, "state": "Run"}}
    ),
    ledger_spec("drain", STARTED, {"run.generation": 3, "run.state": "Drain"}),
    ledger_spec("settled", STARTED, {"reservedDraws": 30}),
    # Attacks on what has been charged.
    ledger_status(
        "charged-lowered",
        STARTED,
        {"charged": 29, **segments(29)},
        "status.charged",
        "status.lease",
    ),
    ledger_status(
        "charged-lowered-with-the-lease",
        STARTED,
        {"charged": 20, "lease.toDraw": 20, **segments(20)},
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
        {"charged": 367, **segments(367)},
        "status.charged",
    ),
    ledger_status(
        "lease-after-settlement",
        SETTLED,
        {"charged": 40, **segments(40), "lease": NEXT_LEASE},
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
        {"charged": 40, **segments(40), "lease": {**NEXT_LEASE, "fromDraw": 29}},
        "status.lease",
    ),
    ledger_status(
        "lease-by-a-stale-attempt",
        edited(STARTED, {"status.attempt": 3}),
        {"charged": 40, **segments(40), "lease": NEXT_LEASE},
        "status.lease",
    ),
    ledger_status(
        "lease-before-closed-at",
        CLOSED,
        {
            "charged": 33,
            **segments(33),
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
            **segments(34),
            "lease": {"attempt": 3, "fromDraw": 24, "toDraw": 34, "fromStep": 14},
        },
        "status.lease",
    ),
    ledger_status(
        "lease-after-the-outcome",
        FINISHED,
        {"charged": 40, **segments(40), "lease": NEXT_LEASE},
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
    ledger_status("segments-with-fewer-draws", STARTED, {**segments(10)}, "status.segments"),
    ledger_status("charged-without-segments", STARTED, {"charged": 40}, "status.segments"),
    ledger_status(
        "segments-with-more-noise",
        STARTED,
        {"segments": [{**SEGMENT, "noiseMultiplier": 1e4}]},
        "status.segments",
    ),
    ledger_status(
        "segments-with-a-smaller-rate",
        STARTED,
        {"segments": [{**SEGMENT, "sampleRate": 1e-9}]},
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
    ledger_spec("rerun", STARTED, {"rerun": 1}, "spec.rerun"),
    ledger_spec("content-added", STARTED, {"content": CONTENT}, "spec.content"),
    ledger_spec("content", WITH_CONTENT, {"content.format": 2}, "spec.content"),
    ledger_spec("content-removed", WITH_CONTENT, {"content": REMOVED}, "spec.content"),
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
    ledger_spec("workers-in-the-same-generation", STARTED, {"run.workers": 3}, "spec.run"),
    ledger_spec("drain-in-the-same-generation", STARTED, {"run.state": "Drain"}, "spec.run"),
]
