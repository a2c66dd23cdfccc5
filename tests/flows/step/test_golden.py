"""Parameters after some steps with fixed keys, equal to the last bit on every machine.

All sums herein are exact in fp32, in whatever order: powers of two in one coordinate of each
record. What a change to the numbers of a step would have to state is a new digest.
"""

import numpy as np
import pytest
import torch

from dtjob_trainer.mechanism.digest import parameter_digest
from dtjob_trainer.task import ArraySpec, Task
from tests.support.mechanism.models import KEYS, Plan, Records, make_step

RECORDS, FEATURES = 64, 6
DIGESTS = {
    "clipped and noised": "2a15462ff6f09863cd77b03e27655e297c2d56ba2c877034ce83954117991db2",
    "clipped": "bad6cf5b89bf91950fe0dbe3e9d9af3e6c16fb114fc9c46d5c28ec46ed8be91b",
    "without privacy": "09b947516431d0eeb109db0d6e8a96cf53c2cffc931863cf888a856a453556ac",
}
PLANS: dict[str, tuple[Plan, bool]] = {
    "clipped and noised": (Plan(noise_multiplier=2.203), False),
    "clipped": (Plan(noise_multiplier=0.0), True),
    "without privacy": (Plan(mode="Disabled", noise_multiplier=None, max_grad_norm=None), False),
}


def records():
    """Gradients of norm 1/4 to 4: about half are clipped to C = 1."""
    x = np.zeros((RECORDS, FEATURES), np.float32)
    for i in range(RECORDS):
        x[i, i % FEATURES] = (-1) ** i * 2.0 ** (i % 5 - 2)
    return Records({"x": x})


def zeros():
    model = torch.nn.Linear(FEATURES, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    return model


TASK = Task(
    model=zeros,
    dataset=records,
    example_spec={"x": ArraySpec((FEATURES,), "float32", -4.0, 4.0)},
    losses=lambda model, batch: model(batch["x"])[:, 0],  # whose gradient is x
)


@pytest.mark.parametrize("physical", [4, 64])
@pytest.mark.parametrize("name", PLANS)
def test_the_numbers_of_a_step_are_what_they_were(name, physical):
    plan, noiseless = PLANS[name]
    model = zeros()
    step = make_step(
        TASK,
        model,
        plan,
        records(),
        keys=KEYS,
        physical_batch_size=physical,
        allow_zero_noise=noiseless,
    )
    for number, charge in enumerate([0, 1, 2, 7, 8]):
        step.run(charge, number)
    assert parameter_digest(model.state_dict()) == DIGESTS[name]
