"""A logical batch in one process, against the per-example reference."""

import itertools
import math

import numpy as np
import pytest
import torch

from dtjob_accounting import draws
from dtjob_accounting.event import Adjacency
from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.clipping import CLIPPERS
from dtjob_trainer.mechanism.keys import derive_keys
from dtjob_trainer.mechanism.slack import clipped_norm
from dtjob_trainer.mechanism.watch.structure import chosen, looked_at
from dtjob_trainer.task import TaskError, where_in_task
from tests.support.mechanism import reference
from tests.support.mechanism.models import (
    CLASSES,
    FEATURES,
    KEYS,
    Plan,
    Records,
    cross_entropy,
    flat,
    linear,
    make_step,
    make_task,
    mechanism_of,
    rows,
    silent,
)
from tests.support.mechanism.ranks import Flipped

LOOKED_AT = [draw for draw in range(400) if chosen(KEYS.looks, draw)]


def train(plan, charges, task=None, keys=KEYS, records=None, **options):
    task = task or make_task()
    model = task.model()
    records = records if records is not None else task.dataset()
    step = make_step(task, model, plan, records, keys=keys, **options)
    for number, charge in enumerate(charges):
        step.run(charge, number)
    step.close()
    return model, records, step


def gradient(model):
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def difference(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.rule(4, 5, 8)
@pytest.mark.parametrize("physical", [None, 1, 5, 16, 64])
@pytest.mark.parametrize("norm", [0.1, 1.0, 50.0])
def test_training_is_that_of_the_reference(physical, norm):
    plan, charges = Plan(max_grad_norm=norm), [0, 1, 2, 7]
    expected = reference.train(make_task(), plan, KEYS.sampling, KEYS.noise, charges, lambda _: 0.5)
    model, _, _ = train(plan, charges, physical_batch_size=physical)
    assert difference(flat(model), expected) < 1e-6


def slots(charge, records, step):
    """(id, whether it counts) of each slot in turn, by the reference."""
    found = reference.slots(KEYS, charge, records, Plan(), *step.layout)
    return list(itertools.chain.from_iterable(itertools.chain.from_iterable(found)))


@pytest.mark.rule(3, 8)
@pytest.mark.parametrize("count", [20, 39, 40, 64, 200])
def test_each_slot_is_read_once_in_its_order(count):
    """|D| below, at and above the 39 slots, and so large that draws overflow them."""
    for charge in range(3):
        _, records, step = train(Plan(), [charge], records=Records(rows(count)))
        expected = [i for i, _ in slots(charge, count, step) if i is not None]
        assert records.read == expected
        drawn = reference.drawn(KEYS.sampling, charge, count, 16, 64)
        assert len(expected) == max(min(39, count), len(drawn))


@pytest.mark.rule(1, 2)
def test_another_attempt_draws_other_records_and_other_noise():
    other = derive_keys(bytes(range(32)), "8c5e6b1c-1111-2222-3333-444455556666", 4)
    one, first, _ = train(Plan(), [5], make_task(losses=silent))
    two, second, _ = train(Plan(), [5], make_task(losses=silent), keys=other)
    assert first.read != second.read
    assert not np.any(flat(one) == flat(two))


@pytest.mark.rule(6)
def test_every_coordinate_is_noised_once_with_the_reference_noise():
    plan = Plan(noise_multiplier=1.5, max_grad_norm=2.0)
    model, _, _ = train(plan, [4], make_task(losses=silent), rate=1.0)
    noise = reference.noise(KEYS.noise, 4, flat(model).size, 1.5, 2.0).astype(np.float32)
    start = torch.from_numpy(flat(linear()))
    assert np.array_equal(flat(model), (start - torch.from_numpy(noise) / 16).numpy())


@pytest.mark.rule(1)
def test_an_empty_draw_is_a_step_with_noise():
    plan = Plan(batch_size=1, dataset_size=1000)
    records = Records(rows(3))
    charge = next(c for c in range(50) if not reference.drawn(KEYS.sampling, c, 3, 1, 1000))
    model, records, step = train(plan, [charge], records=records)
    assert sorted(records.read) == [0, 1, 2]
    assert step.layout.micro_batches >= 1
    assert np.all(flat(model) != flat(linear()))


@pytest.mark.rule(5, 8)
def test_the_real_number_of_records_changes_no_constant():
    plan = Plan(batch_size=16, dataset_size=64)
    results = []
    for count in (1, 64, 500):
        records = Records(rows(count))
        model, _, step = train(plan, [3], make_task(losses=silent), records=records)
        results.append((step.layout, flat(model).tolist()))
        assert records.read == [i for i, _ in slots(3, count, step) if i is not None]
    assert results[0] == results[1] == results[2]


@pytest.mark.rule(8)
def test_the_number_of_passes_does_not_depend_on_the_draw():
    passes = []

    def losses(model, batch):
        passes.append(len(batch["y"]))
        return cross_entropy(model, batch)

    plan = Plan(batch_size=16, dataset_size=64)
    quantile = draws.batch_size_quantile(64, 16, draws.overflow_tail(1e-5, 366))
    train(plan, range(30), make_task(losses=losses), physical_batch_size=4)
    assert passes == [4] * (30 * math.ceil(quantile / 4))


@pytest.mark.rule(8)
def test_a_draw_beyond_the_quantile_is_executed_in_full():
    # Eight times as many records as the plan says: every draw overflows.
    records = Records(rows(512))
    plan = Plan(batch_size=16, dataset_size=64)
    task = make_task(records=records)
    drawn = reference.drawn(KEYS.sampling, 2, 512, 16, 64)
    _, _, step = train(plan, [], task)
    assert len(drawn) > step.layout.slots
    model, _, _ = train(plan, [2], task, records=Records(rows(512)))
    expected = reference.train(task, plan, KEYS.sampling, KEYS.noise, [2], lambda _: 0.5)
    assert difference(flat(model), expected) < 1e-6


@pytest.mark.rule(8)
def test_a_record_s_random_numbers_are_those_of_its_draw_in_any_layout():
    """Random numbers of loading are of draw and record; those of a model would be of the slot."""
    results = [
        flat(train(Plan(), [0, 1], records=Flipped(rows()), physical_batch_size=physical)[0])
        for physical in (None, 5, 16)
    ]
    for found in results[1:]:
        assert difference(found, results[0]) < 1e-6
    assert difference(flat(train(Plan(), [0, 1])[0]), results[0]) > 1e-3


class Interrupted(Exception):
    pass


PLACES = ["load", "losses", "after losses", "reduce", "noise", "optimizer"]


@pytest.mark.rule(4, 8)
@pytest.mark.parametrize("where", PLACES)
def test_an_interruption_anywhere_discards_the_whole_logical_batch(where, monkeypatch):
    armed = [False]

    def trip(here):
        if armed[0] and here == where:
            raise Interrupted

    passes = [0]

    def losses(model, batch):
        passes[0] += 1
        if passes[0] % 3 == 2:
            trip("losses")
        result = cross_entropy(model, batch)
        if passes[0] % 3 == 2:
            trip("after losses")
        return result

    class Tripping(Records):
        def __getitem__(self, index):
            if armed[0] and where == "load" and len(self.read) > 6:
                raise KeyboardInterrupt  # as a signal handler would
            return super().__getitem__(index)

    task = make_task(losses=losses)
    model, records = task.model(), Tripping(rows())
    step = make_step(task, model, Plan(), records, physical_batch_size=4)
    for name, method in (("reduce", "all_gather"), ("noise", "reduce_scatter")):
        original = getattr(step._group, method)
        monkeypatch.setattr(
            step._group,
            method,
            lambda x, name=name, call=original: (trip(name), call(x))[1],
        )
    hook = step._learner.optimizer.register_step_pre_hook(lambda *_: trip("optimizer"))
    step.run(0, 0)
    records.read.clear()
    before = flat(model)
    armed[0] = True
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        step.run(1, 1)
    armed[0] = False
    assert np.array_equal(flat(model), before)
    assert all(p.grad is None for p in model.parameters())
    step.run(2, 1)
    hook.remove()
    expected, _, _ = train(Plan(), [0, 2], physical_batch_size=4)
    assert np.array_equal(flat(model), flat(expected))


@pytest.mark.rule(4)
def test_the_optimizer_sees_only_what_the_step_wrote():
    seen = []
    task = make_task()
    model = linear()
    step = make_step(task, model, Plan(noise_multiplier=0.0), task.dataset(), allow_zero_noise=True)
    step._learner.optimizer.register_step_pre_hook(lambda *_: seen.append(gradient(model)))
    model.weight.grad = torch.full_like(model.weight, 1e6)
    step.run(0, 0)
    drawn = reference.drawn(KEYS.sampling, 0, 64, 16, 64)
    records = task.dataset()
    expected = sum(reference.clipped_gradient(task, linear(), records[i], 1.0) for i in drawn) / 16
    assert difference(seen[0].numpy(), expected) < 1e-6


@pytest.mark.rule(4)
def test_a_gradient_that_comes_late_is_overwritten(monkeypatch):
    """As of a hook of the task that adds to `grad` once the passes are over."""
    task = make_task()
    model = linear()
    step = make_step(task, model, Plan(), task.dataset())
    gather = step._group.all_gather

    def late(own):
        for p in model.parameters():
            p.grad = torch.full_like(p, 1e6)
        return gather(own)

    monkeypatch.setattr(step._group, "all_gather", late)
    step.run(0, 0)
    assert np.array_equal(flat(model), flat(train(Plan(), [0])[0]))


@pytest.mark.rule(6, 7)
@pytest.mark.parametrize(("size", "charges"), [(21, range(2100)), (1, [0, 3]), (2, [0, 3])])
def test_no_draw_and_no_slice_goes_without_noise(size, charges):
    _, _, step = train(Plan(), [])
    noised = []

    class Spied:
        def noised(self, own, key, draw, start):
            noised.append((draw, key, start, own.size))
            return own + 1.0

    step._lattice = Spied()
    own = torch.zeros(size, dtype=torch.float64)
    assert all(torch.all(step._noised(own, charge) == 1.0) for charge in charges)
    assert noised == [(charge, KEYS.noise, 0, size) for charge in charges]


@pytest.mark.rule(4)
@pytest.mark.parametrize("clipping", CLIPPERS)
def test_one_added_record_changes_the_sum_by_at_most_c(clipping):
    """fp64 ‖sum(D ∪ x) − sum(D)‖ <= C through the whole step, whatever the record holds."""
    # Every record, every step.
    plan = Plan(noise_multiplier=0.0, batch_size=64, dataset_size=64, clipping=clipping)
    stated = mechanism_of(plan, allow_zero_noise=True).clipper.sensitivity(Adjacency.ADD_REMOVE)
    assert stated == 1.0
    for x in (1.0, -1.0, 1e-30, 5.0, np.nan, np.inf):
        sums = []
        for count in (63, 64):
            arrays = rows(64)
            arrays["x"][63] = x
            records = Records({k: v[:count] for k, v in arrays.items()})
            model, _, _ = train(plan, [0], records=records, rate=1.0, allow_zero_noise=True)
            sums.append((flat(linear()).astype(np.float64) - flat(model)) * 64)
        assert np.isfinite(sums[1]).all()
        assert np.linalg.norm(sums[1] - sums[0]) <= stated
        if abs(x) == 1.0:  # a record within the ranges is clipped to just below C
            assert np.linalg.norm(sums[1] - sums[0]) > 0.9 * clipped_norm(1.0)
        if not abs(x) <= 1:
            assert np.array_equal(sums[1], sums[0])


class WritesNowAndThen(torch.nn.Module):
    """Writes to its own state where a record is unusual: no dry run need meet one."""

    seen: torch.Tensor

    def __init__(self, where):
        super().__init__()
        self.layer = torch.nn.Linear(FEATURES, CLASSES)
        self.register_buffer("seen", torch.zeros(FEATURES))
        self.where = where

    def forward(self, x):
        unusual = x.abs().amax(1) > 0.999
        if unusual.any():
            with torch.no_grad():
                if self.where == "buffer":
                    self.seen.add_(x[unusual][0])
                elif self.where == "new buffer":
                    self.seen = x[unusual][0].clone()
                else:
                    self.layer.bias.mul_(0.5)
        else:
            self.seen.zero_()  # written anew with what it was
        return self.layer(x)


@pytest.mark.rule(6)
@pytest.mark.parametrize("where", ["buffer", "new buffer", "parameter"])
def test_a_model_that_writes_to_itself_on_some_record_is_refused(where):
    arrays = rows()
    arrays["x"] = (0.9 * arrays["x"]).astype(np.float32)
    model = WritesNowAndThen(where)
    task = make_task(model=lambda: model)
    plan = Plan(batch_size=64)
    step = make_step(task, model, plan, Records(arrays))
    step.run(0, 0)
    step.close()
    arrays["x"][5] = 1.0
    step = make_step(task, model, plan, Records(arrays))
    before = [p.detach().clone() for p in model.layer.parameters()]
    with pytest.raises(TaskError, match=r"changes (seen|bias) while it computes") as caught:
        step.run(1, 1)
    assert caught.value.reason is Reason.MODEL_REFUSED
    if where != "parameter":
        assert all(map(torch.equal, before, model.layer.parameters()))


@pytest.mark.rule(8, 20, 21)
def test_a_branch_that_is_seldom_taken_is_refused_at_a_chosen_draw(monkeypatch):
    """At others nothing looks: what that costs is paid in one of 64."""
    seldom, looks = [False], []

    def counted(*given):
        looks.append(1)
        return looked_at(*given)

    monkeypatch.setattr("dtjob_trainer.mechanism.step.looked_at", counted)

    def losses(model, batch):
        if seldom[0] and batch["x"].max() > 7:
            return cross_entropy(model, batch) * 0
        return cross_entropy(model, batch)

    task = make_task(losses=losses)
    model = task.model()
    step = make_step(task, model, Plan(), task.dataset(), physical_batch_size=13)
    first, second = LOOKED_AT[:2]
    step.run(first, 0)
    assert len(looks) == step.layout.micro_batches == 3
    seldom[0] = True
    step.run(first + 1, 1)
    assert len(looks) == 3
    before = flat(model)
    with pytest.raises(TaskError, match=r"^ModelRefused: losses\(\) asks for values") as caught:
        step.run(second, 2)
    assert np.array_equal(flat(model), before)
    assert not step._sum.flat.any()
    cause = caught.value.__cause__
    assert cause is not None
    assert __file__ in where_in_task(cause)


@pytest.mark.rule(21)
def test_what_is_kept_of_a_batch_is_refused_at_a_chosen_draw():
    kept: list[torch.Tensor | None] = []

    def losses(model, batch):
        if kept:
            kept[:] = [batch["x"].mean(0)]
        return cross_entropy(model, batch)

    task = make_task(losses=losses)
    model = task.model()
    step = make_step(task, model, Plan(), task.dataset(), physical_batch_size=13)
    first, second = LOOKED_AT[:2]
    step.run(first, 0)
    kept.append(None)
    step.run(first + 1, 1)
    before = flat(model)
    with pytest.raises(
        TaskError, match=r"^ModelRefused: the model or losses\(\) keeps something of"
    ):
        step.run(second, 2)
    assert np.array_equal(flat(model), before)


@pytest.mark.rule(8, 21)
def test_rows_that_meet_on_records_alone_are_refused_at_a_chosen_draw():
    """Of 13 rows one becomes padding; whichever, its neighbour has another weight then."""

    def losses(model, batch):
        return cross_entropy(model, batch) * (1 + 1e-6 * batch["x"][:, 0].roll(1).detach().abs())

    task = make_task(losses=losses)
    model = task.model()
    step = make_step(task, model, Plan(), task.dataset(), physical_batch_size=13)
    first = LOOKED_AT[0]
    step.run(first + 1, 0)
    before = flat(model)
    with pytest.raises(
        TaskError, match=r"^ModelRefused: the model or losses\(\) mixes the examples"
    ):
        step.run(first, 1)
    assert np.array_equal(flat(model), before)


@pytest.mark.rule(8, 21)
def test_rows_with_random_numbers_of_their_own_do_not_meet():
    def losses(model, batch):
        x = torch.nn.functional.dropout(batch["x"], 0.5)
        return cross_entropy(model, {**batch, "x": x})

    task = make_task(losses=losses)
    model = task.model()
    step = make_step(task, model, Plan(), task.dataset(), physical_batch_size=13)
    for draw in LOOKED_AT:
        step.run(draw, 0)


@pytest.mark.rule(8, 21)
def test_what_gives_other_bits_each_time_tells_nothing_of_rows():
    calls = itertools.count(1)

    def losses(model, batch):
        return cross_entropy(model, batch) * next(calls)

    task = make_task(losses=losses)
    model = task.model()
    step = make_step(task, model, Plan(), task.dataset(), physical_batch_size=13)
    step.run(LOOKED_AT[0], 0)


@pytest.mark.rule(20)
def test_a_record_that_fails_contributes_zero_in_the_middle_of_a_batch():
    arrays = rows()
    arrays["x"][::5] = np.nan
    plan = Plan()
    expected = reference.train(
        make_task(records=Records(arrays)), plan, KEYS.sampling, KEYS.noise, [0, 1], lambda _: 0.5
    )
    model, _, _ = train(plan, [0, 1], records=Records(arrays))
    assert np.isfinite(flat(model)).all()
    assert difference(flat(model), expected) < 1e-6


@pytest.mark.rule(4, 7)
@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(noise_multiplier=2.0**18), "too large for 21 coordinates"),
        (Plan(batch_size=2**27, dataset_size=2**27), "too large for 1 ranks"),
    ],
)
def test_no_step_is_made_whose_rounding_the_clip_does_not_cover(plan, message):
    task = make_task()
    with pytest.raises(ValueError, match=message):
        make_step(task, task.model(), plan, task.dataset())


@pytest.mark.rule(6)
def test_no_argument_of_a_plan_turns_the_noise_off():
    task = make_task()
    for plan in (Plan(noise_multiplier=0.0), Plan(noise_multiplier=None), Plan(mode="Off")):
        with pytest.raises(ValueError, match=r"noise_multiplier|mode"):
            make_step(task, task.model(), plan, task.dataset())


def test_mode_disabled_samples_the_same_way_without_clip_and_noise():
    plan = Plan(noise_multiplier=None, max_grad_norm=None, mode="Disabled")
    model, records, _ = train(plan, [0], rate=1.0)
    drawn = reference.drawn(KEYS.sampling, 0, 64, 16, 64)
    assert set(drawn) < set(records.read)
    expected = sum(
        reference.clipped_gradient(make_task(), linear(), records[i], 1e9) for i in drawn
    )
    assert difference((flat(linear()) - flat(model)) * 16, expected) < 1e-5


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_learning_rate_is_that_of_the_step(optimizer):
    task = make_task()
    model = task.model()
    rate = {3: 0.0, 4: 0.1}.__getitem__
    step = make_step(task, model, Plan(), task.dataset(), rate=rate, optimizer=optimizer)
    step.run(0, 3)
    assert np.array_equal(flat(model), flat(linear()))
    step.run(1, 4)
    assert not np.array_equal(flat(model), flat(linear()))


@pytest.mark.rule(21)
def test_an_optimizer_over_other_parameters_is_refused():
    task = make_task()
    model = task.model()
    with pytest.raises(ValueError, match="exactly the model's trainable parameters"):
        make_step(task, linear(), Plan(), task.dataset(), model_for_optimizer=model)
    model.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="exactly the model's trainable parameters"):
        make_step(task, model, Plan(), task.dataset(), model_for_optimizer=linear())


def test_frozen_parameters_and_padding_of_the_model_stay_as_they_are():
    task = make_task()
    model = linear()
    model.weight.requires_grad_(False)
    make_step(task, model, Plan(), task.dataset()).run(0, 0)
    assert torch.equal(model.weight, linear().weight)
    assert not torch.equal(model.bias, linear().bias)


def test_the_time_of_each_part_is_measured():
    _, _, step = train(Plan(), [0, 1])
    assert set(step.seconds) == {"draw", "load", "gradients", "reduce", "noise", "update"}
    assert all(seconds > 0 for seconds in step.seconds.values())


def test_dropout_and_evaluation_mode_do_not_leak_into_a_step():
    task = make_task(
        model=lambda: torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)
        )
    )
    model = task.model().eval()
    make_step(task, model, Plan(), task.dataset()).run(0, 0)
    assert model.training
