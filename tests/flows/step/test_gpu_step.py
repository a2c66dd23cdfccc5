"""Rules 4 and 15 on a GPU: the same keys give the update that the CPU gives."""

from __future__ import annotations

import copy

import pytest
import torch

from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.mechanism import Mechanism
from dtjob_trainer.mechanism.optim import make_optimizer
from dtjob_trainer.mechanism.step import Learner, PrivateData, PrivateStep
from dtjob_trainer.tasks import digits_cnn
from tests.support.builders import privacy_plan
from tests.support.mechanism.models import KEYS

pytestmark = pytest.mark.gpu

PLAN = privacy_plan(noise_multiplier=1.0)


def _trained(device: torch.device, model: torch.nn.Module) -> list[torch.Tensor]:
    task = digits_cnn.task({})
    model = copy.deepcopy(model).to(device)
    step = PrivateStep(
        Learner(model, task.losses, make_optimizer("sgd", model.parameters()), lambda _: 0.1),
        PrivateData(task.dataset(), task.example_spec),
        Mechanism.of(PLAN),
        KEYS,
        Group(device),
    )
    step.run(0, 0)
    return [p.detach().cpu() for p in model.parameters()]


@pytest.mark.rule(15)
def test_a_step_on_the_gpu_is_the_step_on_the_cpu() -> None:
    model = digits_cnn.model()
    on_cpu = _trained(torch.device("cpu"), model)
    on_gpu = _trained(torch.device("cuda", 0), model)
    for expected, found in zip(on_cpu, on_gpu, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
