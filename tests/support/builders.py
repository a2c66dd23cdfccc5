"""Jobs, plans and ledgers that tests make up: whole and valid but for what the caller says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dtjob_accounting import draws
from dtjob_api.derive import child_name
from dtjob_api.job.privacy import PrivacyMode
from dtjob_api.job.run_policy import RunPolicy
from dtjob_api.ledger.policy_in_force import PolicyInForce
from dtjob_api.ledger.privacy_ledger import (
    CheckpointRecord,
    Formats,
    LedgerSpec,
    LedgerStatus,
    Order,
    PrivacyLedger,
    PrivacyPlan,
    Provenance,
    Segment,
    Versions,
)
from dtjob_api.model import ObjectMeta

Json = dict[str, Any]

UID = "0a1b2c3d-0000-4000-8000-000000000001"
IMAGE = "example.test/trainer@sha256:" + "0" * 64
FORMATS = Formats(sampling=2, noise=2)
VERSIONS = Versions(
    python="3.13.1",
    dtjob="0.1.0",
    torch="2.15.0",
    opacus="1.6.0",
    numpy="2.4.6",
    packages=["peft==0.21.2", "timm==1.0.20"],
)
TASK_DIGEST = "sha256:" + "1" * 64
PROVENANCE = Provenance(image=IMAGE, formats=FORMATS, versions=VERSIONS, task_digest=TASK_DIGEST)
START = datetime(2026, 1, 1, tzinfo=UTC)


def new_job(name: str, *, training: Json | None = None, **spec: Any) -> Json:
    """The manifest of a private job of two workers.

    Parameters
    ----------
    training
        Replaces fields of `spec.training`.
    spec
        Replaces other fields of the spec.
    """
    return {
        "apiVersion": "dtjob.dev/v1alpha1",
        "kind": "DistributedTrainingJob",
        "metadata": {"name": name},
        "spec": {
            "image": IMAGE,
            "workers": {"replicas": 2},
            "training": {
                "entrypoint": "dtjob_trainer.tasks.digits:task",
                "steps": 20,
                "batchSize": 256,
                "optimizer": {"name": "sgd", "learningRate": 4.0},
                **(training or {}),
            },
            "privacy": {"epsilon": 8, "delta": 1e-5, "maxGradNorm": 1.0, "datasetSize": 1437},
            "storage": {"checkpoints": {"size": "1Gi"}},
            **spec,
        },
    }


def privacy_plan(**changes: Any) -> PrivacyPlan:
    """The plan of examples/digits.yaml, as it is calibrated; `changes` replaces fields."""
    fields: dict[str, Any] = {
        "mode": PrivacyMode.DPSGD,
        "noise_multiplier": 2.2035,
        "sample_rate": draws.sample_rate(256, 1437),
        "epsilon": 8.0,
        "epsilon_guaranteed": 7.99989,
        "delta": 1e-5,
        "max_grad_norm": 1.0,
        "batch_size": 256,
        "dataset_size": 1437,
        "steps": 336,
        "replay_reserve_steps": 30,
        "lease_steps": 10,
        "accountant_version": "dp-accounting 0.6.0",
    }
    return PrivacyPlan(**(fields | changes))


def tiny_plan(
    steps: int = 5, lease_steps: int = 2, reserve: int = 4, **changes: Any
) -> PrivacyPlan:
    """A plan of which a test can follow every draw: 4 records of 16 in each."""
    fields: dict[str, Any] = {
        "noise_multiplier": 2.0,
        "sample_rate": 0.25,
        "epsilon": None,
        "epsilon_guaranteed": None,
        "batch_size": 4,
        "dataset_size": 16,
        "steps": steps,
        "replay_reserve_steps": reserve,
        "lease_steps": lease_steps,
    }
    return privacy_plan(**(fields | changes))


def public_plan(**changes: Any) -> PrivacyPlan:
    """The same without privacy: what would cost epsilon is absent."""
    fields = dict.fromkeys(
        (
            "noise_multiplier",
            "sample_rate",
            "epsilon",
            "epsilon_guaranteed",
            "delta",
            "max_grad_norm",
        )
    )
    return privacy_plan(**({**fields, "mode": PrivacyMode.DISABLED} | changes))


def new_ledger(
    plan: PrivacyPlan,
    *,
    job_name: str = "digits",
    job_uid: str = UID,
    workers: int = 1,
    run_policy: RunPolicy | None = None,
    **status: Any,
) -> PrivacyLedger:
    """A ledger with all draws of its plan reserved; `status` gives fields of its status."""
    name = child_name(job_name, job_uid)
    return PrivacyLedger(
        metadata=ObjectMeta(name=name),
        spec=LedgerSpec(
            job_uid=job_uid,
            job_name=job_name,
            stateful_set=name,
            plan=plan,
            reserved_draws=plan.steps + plan.replay_reserve_steps,
            run=Order(generation=1, workers=workers),
            run_policy=PolicyInForce.of(run_policy or RunPolicy()),
        ),
        status=LedgerStatus(**status),
    )


def created(ledger: PrivacyLedger) -> Json:
    """What the operator creates: a ledger without a status, with the labels of its job."""
    made = {name: value for name, value in ledger.to_dict().items() if name != "status"}
    labels = {
        "app.kubernetes.io/managed-by": "dtjob-operator",
        "dtjob.dev/job": ledger.spec.job_name,
        "dtjob.dev/job-uid": ledger.spec.job_uid,
    }
    return made | {"metadata": made["metadata"] | {"labels": labels}}


def segment(plan: PrivacyPlan, draws: int, image: str = IMAGE) -> Segment:
    """So many draws under a plan."""
    return Segment(
        noise_multiplier=plan.noise_multiplier,
        sample_rate=plan.sample_rate,
        draws=draws,
        **dict(PROVENANCE) | {"image": image},
    )


def spent(draws: int, plan: PrivacyPlan | None = None) -> dict[str, Any]:
    """The fields of a ledger's status that charge so many draws, by default of `tiny_plan`."""
    return {"charged": draws, "segments": [segment(plan or tiny_plan(), draws)]}


def checkpoint(
    step: int, charged: int, attempt: int = 1, time: datetime = START
) -> CheckpointRecord:
    """The record of a checkpoint; there is no file."""
    return CheckpointRecord(
        step=step,
        charged=charged,
        attempt=attempt,
        path=f"attempt-{attempt}/step-{step}.pt",
        sha256="0" * 64,
        time=time,
    )
