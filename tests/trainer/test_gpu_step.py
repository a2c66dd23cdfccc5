"""Rules 4 and 15 on a GPU: the same keys give the update that the CPU gives."""

from __future__ import annotations

import copy

import pytest
import torch

from dtjob_api.ledger import PrivacyPlan
from dtjob_trainer.distributed import Group
from dtjob_trainer.keys import AttemptKeys
from dtjob_trainer.mechanism import Mechanism
from dtjob_trainer.optim import make_optimizer
from dtjob_trainer.step import PrivateStep
from dtjob_trainer.tasks import digits_cnn

pytestmark = pytest.mark.gpu

PLAN = PrivacyPlan(
    mode="DPSGD",
    noise_multiplier=1.0,
    sample_rate=0.18,
    delta=1e-5,
    max_grad_norm=1.0,
    batch_size=256,
    dataset_size=1437,
    steps=10,
    replay_reserve_steps=0,
    lease_steps=10,
    accountant_version="test",
)


def _trained(device: torch.device, model: torch.nn.Module) -> list[torch.Tensor]:
    task = digits_cnn.task({})
    model = copy.deepcopy(model).to(device)
    step = PrivateStep(
        task,
        model,
        task.dataset(),
        Mechanism.of(PLAN),
        Group(device),
        keys=AttemptKeys(sampling=b"s" * 32, noise=b"n" * 32),
        optimizer=make_optimizer("sgd", model.parameters()),
        learning_rate=lambda _: 0.1,
    )
    step.run(0, 0)
    return [p.detach().cpu() for p in model.parameters()]


def test_rule_15_a_step_on_the_gpu_is_the_step_on_the_cpu() -> None:
    model = digits_cnn.model()
    on_cpu = _trained(torch.device("cpu"), model)
    on_gpu = _trained(torch.device("cuda", 0), model)
    for expected, found in zip(on_cpu, on_gpu, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
