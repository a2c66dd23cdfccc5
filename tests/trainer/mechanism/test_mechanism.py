"""Sampler, clip, noise and account are coupled in one value, and nowhere else."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import binom

from dtjob_accounting import draws
from dtjob_accounting.event import Adjacency, SampledGaussian
from dtjob_api.job.privacy import Clipping
from dtjob_trainer.mechanism.clipping import CLIPPERS, PerExampleClip
from dtjob_trainer.mechanism.mechanism import Mechanism
from dtjob_trainer.mechanism.records.sampling import PoissonSampler
from tests.support.mechanism import reference
from tests.support.mechanism.models import (
    KEYS,
    Plan,
    flat,
    linear,
    make_step,
    make_task,
    mechanism_of,
    silent,
)

PLAN = Plan(noise_multiplier=1.5, max_grad_norm=0.5)


def scale(mechanism: Mechanism) -> float:
    lattice = mechanism.noise(10, mechanism.layout(2, 16))
    assert lattice is not None
    return lattice.scale


class TwiceAsFar(PerExampleClip):
    """States twice what it adds."""

    def sensitivity(self, adjacency):
        return 2 * super().sensitivity(adjacency)


@pytest.mark.rule(7)
def test_the_noise_is_sigma_times_what_the_clipper_states():
    mechanism = Mechanism.of(PLAN)
    assert scale(mechanism) == 1.5 * 0.5
    wider = dataclasses.replace(mechanism, clipper=TwiceAsFar(0.5))
    assert scale(wider) == 1.5 * 1.0


@pytest.mark.rule(6)
def test_a_step_adds_the_noise_of_its_mechanism():
    """C comes to the noise by the clipper alone: one that states more is noised more."""
    mechanism = dataclasses.replace(Mechanism.of(PLAN), clipper=TwiceAsFar(0.5))
    task = make_task(losses=silent)
    model = task.model()
    make_step(task, model, mechanism, task.dataset(), rate=1.0).run(4, 0)
    noise = reference.noise(KEYS.noise, 4, flat(model).size, 1.5, 1.0)
    assert np.allclose(flat(model) - flat(linear()), -noise / 16, rtol=0, atol=1e-6)


@pytest.mark.rule(4)
@pytest.mark.parametrize(("ranks", "rows"), [(1, 512), (64, 2**24)])
def test_a_batch_whose_sums_round_too_much_is_refused(ranks, rows):
    mechanism = Mechanism.of(Plan(batch_size=2**27, dataset_size=2**27))
    assert mechanism.noise(10, mechanism.layout(64, 512)) is not None
    with pytest.raises(ValueError, match="lower batchSize"):
        mechanism.noise(10, mechanism.layout(ranks, rows))


@pytest.mark.rule(9)
def test_the_account_is_of_the_noise_and_the_draws_that_are_made():
    mechanism = Mechanism.of(PLAN)
    assert mechanism.event == SampledGaussian(1.5, draws.sample_rate(16, 64))
    stated = mechanism.clipper.sensitivity(mechanism.adjacency)
    assert scale(mechanism) / stated == mechanism.event.noise_multiplier
    assert mechanism.sampler == PoissonSampler(16, 64, draws.overflow_tail(1e-5, 366))


@pytest.mark.rule(3)
@pytest.mark.parametrize("rate", [None, 0.0, math.nextafter(0.25, 0)])
def test_a_plan_that_accounts_less_than_is_drawn_is_refused(rate):
    with pytest.raises(ValueError, match="sample_rate"):
        Mechanism.of(dataclasses.replace(PLAN, sample_rate=rate))
    Mechanism.of(dataclasses.replace(PLAN, sample_rate=0.25))


@pytest.mark.rule(8)
@pytest.mark.parametrize("delta", [None, 0.0])
def test_a_plan_without_delta_is_refused(delta):
    """Of it the slots of a draw are counted out."""
    with pytest.raises(ValueError, match="delta"):
        Mechanism.of(dataclasses.replace(PLAN, delta=delta))


@pytest.mark.rule(8)
def test_a_step_has_room_for_all_but_a_hundredth_of_delta():
    sampler = Mechanism.of(dataclasses.replace(PLAN, steps=500, replay_reserve_steps=60)).sampler
    beyond = 560 * binom.sf([sampler.quantile - 1, sampler.quantile], 64, 16 / 64)
    assert beyond[0] > 1e-5 / 100 >= beyond[1]


def test_without_privacy_there_is_nothing_to_account():
    mechanism = Mechanism.of(Plan(mode="Disabled"))
    assert mechanism.event is None
    assert mechanism.noise(10, mechanism.layout(2, 16)) is None
    assert mechanism.clipper.sensitivity(mechanism.adjacency) == math.inf
    assert mechanism_of(PLAN, allow_zero_noise=True).event is None


def test_only_additions_and_removals_have_an_accountant():
    with pytest.raises(ValueError, match="ReplaceOne must be AddRemove"):
        Mechanism.of(dataclasses.replace(PLAN, adjacency=Adjacency.REPLACE_ONE))


def test_each_way_of_clipping_has_a_clipper():
    assert set(CLIPPERS) == set(Clipping)
