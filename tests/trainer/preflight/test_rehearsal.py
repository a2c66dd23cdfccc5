"""What only the step itself finds is found on synthetic data, with its words (Rule 20)."""

import pytest
import torch
from torch import nn

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.mechanism import Mechanism
from dtjob_trainer.preflight.rehearsal import memory_of_a_rank, rehearse, require_fit
from dtjob_trainer.task import TaskError
from tests.support.mechanism.models import CLASSES, FEATURES, Plan, cross_entropy, make_task

CPU = torch.device("cpu")


def rehearsed(task=None, plan=None, rows=8, ranks=2, memory=2**40):
    task, plan = task or make_task(), plan or Plan()
    mechanism = Mechanism.of(plan)
    require_fit(task, CPU, mechanism, rows=rows, ranks=ranks, memory=memory)
    rehearse(task, CPU, mechanism, optimizer="adam")


def refused(reason, **options):
    with pytest.raises(TaskError) as caught:
        rehearsed(**options)
    assert caught.value.reason is reason
    return caught.value.message


@pytest.mark.parametrize("mode", ["DPSGD", "Disabled"])
def test_an_ordinary_task_passes(mode):
    before = torch.random.get_rng_state()
    rehearsed(plan=Plan(mode=mode))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_clip_norm_beyond_what_the_lattice_holds():
    message = refused(Reason.MODEL_REFUSED, plan=Plan(max_grad_norm=1e-13))
    assert "max_grad_norm 1e-13 must lie between" in message


@pytest.mark.rule(7)
def test_noise_too_large_for_the_number_of_parameters():
    def wide():
        return nn.Sequential(nn.Linear(FEATURES, 4000), nn.Linear(4000, CLASSES))

    task, plan = make_task(model=wide), Plan(noise_multiplier=2.0**14)
    message = refused(Reason.MODEL_REFUSED, task=task, plan=plan)
    assert "noiseMultiplier 16384 is too large for 40003 coordinates" in message
    assert "spec.privacy" in message


@pytest.mark.rule(4)
def test_an_environment_that_lowers_fp32(monkeypatch):
    """cuBLAS and oneDNN read it themselves, whatever torch asks them for."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    message = refused(Reason.MODEL_REFUSED)
    assert "NVIDIA_TF32_OVERRIDE is '1'" in message
    assert "Set it to 0" in message
    rehearsed(plan=Plan(mode="Disabled"))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    rehearsed()


@pytest.mark.rule(4)
def test_a_batch_too_large_for_the_number_of_ranks():
    plan = Plan(batch_size=2**27, dataset_size=2**27)
    rehearsed(plan=plan, rows=512, ranks=64)
    assert "too large for 1 ranks: lower batchSize" in refused(
        Reason.MODEL_REFUSED, plan=plan, rows=512, ranks=1
    )


def test_rows_that_no_memory_holds_are_refused_in_words():
    message = refused(Reason.DRY_RUN_FAILED, rows=10_000_000, memory=2**28)
    assert "take 0.8 GiB, and a rank has 0.2 GiB" in message
    assert f"physicalBatchSize to {2**28 // (4 * 4 * 21)} or less" in message
    assert 0 < memory_of_a_rank(2, CPU) <= memory_of_a_rank(1, CPU)


def test_an_error_of_the_step_is_shown_in_full():
    class Extra(nn.Linear):
        """Keeps more than tensors in its state."""

        def __init__(self):
            super().__init__(FEATURES, CLASSES)

        def get_extra_state(self):
            return {"version": 1}

        def set_extra_state(self, state):
            pass

    message = refused(Reason.DRY_RUN_FAILED, task=make_task(model=Extra))
    assert "the dry run on synthetic data failed" in message


@pytest.mark.rule(4)
def test_lowered_precision_of_the_backends_does_not_stop_the_step():
    def losses(model, batch):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        return cross_entropy(model, batch)

    before = torch.backends.cuda.matmul.fp32_precision
    try:
        rehearsed(make_task(losses=losses))
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
