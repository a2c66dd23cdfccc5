"""What the CLI and the operator both derive from a job, as pure functions."""

from __future__ import annotations

import dataclasses
import hashlib

from dtjob_accounting.plan import Plan, PlanRequest
from dtjob_api.content import content
from dtjob_api.job.distributed_training_job import DistributedTrainingJob, JobSpec
from dtjob_api.ledger.policy_in_force import PolicyInForce
from dtjob_api.ledger.privacy_ledger import LedgerSpec, Order, OrderState, PrivacyPlan
from dtjob_api.model import API_GROUP
from dtjob_api.wire.worker_config import GangProof, JobIdentity, LedgerRef, WorkerConfig


def child_name(job_name: str, uid: str, rerun: int = 0) -> str:
    """Name of the children of one run of a job: `<job>-` and 8 hexadecimal digits.

    These are the first of the UID and, once the job is run again, of the SHA-256 of UID and number.
    A re-created job of the same name has another UID, so it can't adopt dying children, and a run
    none of the one before.

    Parameters
    ----------
    rerun
        How often the job was run again.
    """
    run = hashlib.sha256(f"{uid}/{rerun}".encode()).hexdigest() if rerun else uid
    return f"{job_name}-{run[:8]}"


def gang_audience(uid: str) -> str:
    """Audience of the tokens by which the workers of one job know one another.

    The API server takes none of them, and no other job's coordinator does.
    """
    return f"{API_GROUP}/gang/{uid}"


def total_steps(spec: JobSpec) -> int:
    """Optimizer steps T of a job: `steps`, or ceil(epochs * datasetSize / batchSize)."""
    training = spec.training
    if training.steps is not None:
        return training.steps
    if training.epochs is None:
        raise ValueError("spec.training: give exactly one of steps and epochs")
    return -(-training.epochs * spec.privacy.dataset_size // training.batch_size)


def plan_request(spec: JobSpec) -> PlanRequest:
    """All that a job's privacy plan is made from (Rule 9)."""
    privacy, training = spec.privacy, spec.training
    return PlanRequest(
        dataset_size=privacy.dataset_size,
        batch_size=training.batch_size,
        steps=total_steps(spec),
        mode=privacy.mode.value,
        epsilon=privacy.epsilon,
        noise_multiplier=privacy.noise_multiplier,
        delta=privacy.delta,
        max_grad_norm=privacy.max_grad_norm,
        every_steps=spec.checkpoint.every_steps,
        replay_reserve_steps=privacy.replay_reserve_steps,
        telemetry=privacy.telemetry.value,
    )


def frozen_plan(plan: Plan) -> PrivacyPlan:
    """The plan as the ledger holds it."""
    return PrivacyPlan(**dataclasses.asdict(plan))


def job_uid(job: DistributedTrainingJob) -> str:
    """The job's UID.

    Raises
    ------
    ValueError
        The job was read from a file and has not been given one.
    """
    if job.metadata.uid is None:
        raise ValueError("metadata.uid: the job has none yet; the API server or the CLI sets it")
    return job.metadata.uid


def ledger_spec(
    job: DistributedTrainingJob,
    plan: PrivacyPlan,
    *,
    workers: int | None = None,
    generation: int = 1,
    state: OrderState = OrderState.RUN,
) -> LedgerSpec:
    """The spec of a new job's ledger, with all draws of the plan reserved (Rule 9).

    Parameters
    ----------
    job
        A job with a UID.
    plan
        The frozen plan; T + R draws are reserved.
    workers
        Worker pods of the first generation, by default `spec.workers.replicas`.
    generation, state
        The first order to the workers.
    """
    uid = job_uid(job)
    return LedgerSpec(
        job_uid=uid,
        job_name=job.metadata.name,
        stateful_set=child_name(job.metadata.name, uid, job.spec.rerun),
        rerun=job.spec.rerun,
        content=content(job.spec),
        plan=plan,
        reserved_draws=plan.steps + plan.replay_reserve_steps,
        run=Order(
            generation=generation,
            workers=job.spec.workers.replicas if workers is None else workers,
            state=state,
        ),
        run_policy=PolicyInForce.of(job.spec.run_policy),
    )


def worker_config(
    job: DistributedTrainingJob,
    *,
    ledger: LedgerRef,
    state_dir: str,
    data_dir: str | None,
    coordinator_host: str,
    coordinator_port: int,
    store_port: int,
    proof: GangProof,
    http_port: int,
    stays_after_outcome: bool,
) -> WorkerConfig:
    """The configuration of the job's supervisors, in pods and as local processes alike."""
    spec = job.spec
    return WorkerConfig(
        job=JobIdentity(
            namespace=job.metadata.namespace or "default",
            name=job.metadata.name,
            uid=job_uid(job),
            image=spec.image,
        ),
        training=spec.training,
        telemetry=spec.privacy.telemetry,
        processes_per_worker=spec.workers.processes_per_worker,
        gpus_per_worker=spec.workers.gpus_per_worker,
        ledger=ledger,
        state_dir=state_dir,
        data_dir=data_dir,
        keep=spec.checkpoint.keep,
        log_bytes=spec.logs.max_bytes,
        coordinator_host=coordinator_host,
        coordinator_port=coordinator_port,
        store_port=store_port,
        proof=proof,
        http_port=http_port,
        stays_after_outcome=stays_after_outcome,
    )
