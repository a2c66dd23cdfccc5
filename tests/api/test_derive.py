"""What is derived from a job: names, steps, the ledger's spec and the workers' configuration."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from dtjob_accounting.plan import PlanRequest, make_plan
from dtjob_api.derive import (
    child_name,
    frozen_plan,
    gang_audience,
    ledger_spec,
    plan_request,
    total_steps,
    worker_config,
)
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import PrivacyLedger, PrivacyPlan
from dtjob_api.schema.manifest import load
from dtjob_api.schema.validation import validate
from dtjob_api.wire.worker_config import GangProof, LedgerKind, LedgerRef, ProofKind, WorkerConfig
from tests.support.rules.manifest_cases import EXAMPLES
from tests.support.rules.stored_ledgers import LEDGER
from tests.support.rules.transitions import edited

UID = "01234567-89ab-cdef-0123-456789abcdef"
DIGITS = load(EXAMPLES / "digits.yaml")
JOB = DistributedTrainingJob.from_dict(edited(DIGITS, {"metadata.uid": UID}))
PLAN = PrivacyPlan.model_validate(LEDGER["spec"]["plan"])


def test_names_belong_to_one_incarnation() -> None:
    assert child_name("digits", UID) == "digits-01234567"


def test_each_run_of_a_job_has_names_of_its_own_that_stay() -> None:
    """A ledger is found by its name: another one for the same run would be a loss."""
    names = [child_name("digits", UID, rerun) for rerun in range(4)]
    assert names == [
        *("digits-01234567", "digits-9b8ab7f8", "digits-d6b986d8", "digits-cdae4e02"),
    ]
    assert len({*names, child_name("digits", UID.replace("0", "1"), 1)}) == 5


@pytest.mark.parametrize(
    ("epochs", "batch_size", "dataset_size", "steps"),
    [
        (1, 256, 1437, 6),
        (60, 256, 1437, 337),
        (1, 1437, 1437, 1),
        (10**6, 3, 10**9, -(-(10**15) // 3)),
    ],
)
def test_epochs_become_whole_steps_rounded_up(
    epochs: int, batch_size: int, dataset_size: int, steps: int
) -> None:
    changes = {
        "spec.training.epochs": epochs,
        "spec.training.steps": None,
        "spec.training.batchSize": batch_size,
        "spec.privacy.datasetSize": dataset_size,
    }
    job = DistributedTrainingJob.from_dict(edited(DIGITS, changes))
    assert total_steps(job.spec) == steps


def test_steps_are_taken_as_they_are() -> None:
    assert total_steps(JOB.spec) == 336


class Accountant:
    """Figures that are not computed here."""

    def noise_multiplier(self, *_: float) -> float:
        return 2.2

    def epsilon(self, *_: float) -> float:
        return 7.9

    def version(self) -> str:
        return "dp-accounting 0.6"


@pytest.mark.rule(9)
def test_a_plan_is_asked_for_with_all_that_a_job_says_of_it() -> None:
    changes = {
        "spec.privacy.epsilon": None,
        "spec.privacy.noiseMultiplier": 1.5,
        "spec.privacy.delta": 1e-6,
        "spec.privacy.maxGradNorm": 0.5,
        "spec.privacy.replayReserveSteps": 7,
        "spec.checkpoint.everySteps": 12,
    }
    job = DistributedTrainingJob.from_dict(edited(DIGITS, changes))
    assert plan_request(job.spec) == PlanRequest(
        dataset_size=1437,
        batch_size=256,
        steps=336,
        mode="DPSGD",
        epsilon=None,
        noise_multiplier=1.5,
        delta=1e-6,
        max_grad_norm=0.5,
        every_steps=12,
        replay_reserve_steps=7,
    )
    assert plan_request(JOB.spec).epsilon == 8


@pytest.mark.rule(14)
@pytest.mark.parametrize("mode", ["DPSGD", "Disabled"])
def test_the_ledger_holds_the_plan_field_by_field(mode: str) -> None:
    plan = make_plan(dataclasses.replace(plan_request(JOB.spec), mode=mode), Accountant())
    frozen = frozen_plan(plan)
    held = {name: getattr(frozen, name) for name in PrivacyPlan.model_fields}
    assert held == dataclasses.asdict(plan)


def test_new_ledger_reserves_the_steps_and_the_replays_and_is_valid() -> None:
    spec = ledger_spec(JOB, PLAN)
    assert spec.reserved_draws == 366
    assert spec.run.workers == 2
    ledger = PrivacyLedger.model_validate(
        {"metadata": {"name": child_name("digits", UID)}, "spec": spec.to_dict()}
    )
    assert validate(ledger.to_dict()) == []


def test_a_job_without_uid_has_no_ledger() -> None:
    with pytest.raises(ValueError, match=r"metadata\.uid"):
        ledger_spec(DistributedTrainingJob.from_dict(DIGITS), PLAN)


def test_worker_config_survives_an_environment_variable() -> None:
    config = worker_config(
        JOB,
        ledger=LedgerRef(kind=LedgerKind.KUBERNETES, namespace="ml", name="digits-01234567"),
        state_dir="/state",
        data_dir=None,
        coordinator_host="digits-01234567-0.digits-01234567.ml.svc",
        coordinator_port=29501,
        store_port=29500,
        proof=GangProof(
            kind=ProofKind.TOKEN, path="/token", audience="gang", stateful_set="digits-01234567"
        ),
        http_port=8080,
        stays_after_outcome=True,
    )
    assert WorkerConfig.model_validate_json(config.model_dump_json()) == config
    assert config.job.uid == UID
    assert config.training == JOB.spec.training


@pytest.mark.parametrize("ledger", [{"kind": "File"}, {"kind": "Kubernetes", "name": "x"}])
def test_a_ledger_reference_is_whole(ledger: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"required where ledger\.kind is"):
        LedgerRef.model_validate(ledger)


@pytest.mark.parametrize("proof", [{}, {"audience": "gang"}, {"statefulSet": "digits-0"}])
def test_a_token_says_whose_it_must_be(proof: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"required where proof\.kind is Token"):
        GangProof.model_validate({"kind": "Token", "path": "/token", **proof})


def test_a_token_is_made_for_one_jobs_gang() -> None:
    assert gang_audience(UID) == f"dtjob.dev/gang/{UID}"


def test_importing_the_models_loads_no_validator() -> None:
    """A supervisor and every rank import the models: they must not pay for the CLI's tools."""
    code = (
        "import sys, dtjob_api.job.distributed_training_job, dtjob_api.ledger.privacy_ledger, "
        "dtjob_api.wire.worker_config, dtjob_api.derive; "
        "heavy = {'jsonschema', 'cel_expr_python', 'ruamel', 'kopf', 'torch', 'numpy'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
