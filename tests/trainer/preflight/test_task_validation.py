"""Rules 4, 5 and 21: what the validator refuses on synthetic data, by name and with a remedy."""

import itertools
import math
import queue
import random
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from opacus.layers import DPLSTM, DPMultiheadAttention
from torch import nn
from torch.nn import functional

from dtjob_api.reasons import Reason
from dtjob_operator.read.coordinator_report import _STAGE
from dtjob_trainer.preflight import copies, refusals
from dtjob_trainer.preflight.task_validation import (
    build_model,
    check_evaluates,
    check_evaluation,
    preflight,
    public_figures,
)
from dtjob_trainer.task import ArraySpec, Task, TaskError
from tests.support.mechanism.models import (
    CLASSES,
    FEATURES,
    Records,
    cross_entropy,
    linear,
    make_task,
    rows,
)


def refused(task, reason, *words, **options):
    """What takes longest is not tried: it has its own tests."""
    with pytest.raises(TaskError) as caught:
        preflight(task, whole=False, **options)
    assert caught.value.reason == reason
    for word in words:
        assert word in caught.value.message
    assert "dtjob_trainer/" not in caught.value.message  # no traceback of ours


def with_layer(layer):
    """A model with `layer` between two linear ones, as its module 1."""
    return lambda: nn.Sequential(nn.Linear(FEATURES, 8), layer(), nn.Linear(8, CLASSES))


class Block(nn.Module):
    """A model of two layers whose forward is a function of the test."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(FEATURES, FEATURES)
        self.second = nn.Linear(FEATURES, CLASSES)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def block(forward):
    return make_task(model=lambda: Block(forward))


class WithBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.register_buffer("offset", torch.ones(8))

    def forward(self, x):
        return x * self.weight + self.offset


def zeroed(model):
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.layer(x[:, :, None])[0][:, -1])


class Attention(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.layer = layer
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.embed(x[:, :, None])
        return self.head(self.layer(x, x, x)[0].mean(1))


class Buffered(nn.Module):
    """Counts the examples it has seen, or doesn't."""

    def __init__(self, update):
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)
        self.scale = Scale(update)

    def forward(self, x):
        return self.scale(self.layer(x))


class Scale(nn.Module):
    def __init__(self, update):
        super().__init__()
        self.register_buffer("mean", torch.ones(CLASSES))
        self.update = update

    def forward(self, x):
        if self.update and self.training:
            self.get_buffer("mean").lerp_(x.detach().mean(0), 0.1)
        return x


class AlwaysEvaluating(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES).requires_grad_(False).eval()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.layer(self.norm(x))


def in_low_precision(model, batch):
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(batch["x"])
    return functional.cross_entropy(scores.float(), batch["y"], reduction="none")


ACCEPTED = {
    "linear": make_task(),
    "zero weights": make_task(model=lambda: zeroed(linear())),
    "dropout": make_task(model=with_layer(lambda: nn.Dropout(0.5))),
    "functional dropout": block(
        lambda m, x: m.second(functional.dropout(m.first(x), 0.3, training=m.training))
    ),
    "layer norm": make_task(model=with_layer(lambda: nn.LayerNorm(8))),
    "group norm": make_task(model=with_layer(lambda: nn.GroupNorm(2, 8))),
    "group norm in bf16": make_task(
        model=with_layer(lambda: nn.GroupNorm(2, 8)), losses=in_low_precision
    ),
    "called twice": block(lambda m, x: m.second(m.first(torch.tanh(m.first(x))))),
    "frozen": block(lambda m, x: m.second(m.first.requires_grad_(False)(x))),
    "opacus lstm": make_task(model=lambda: Recurrent(DPLSTM(1, 8, batch_first=True))),
    "opacus attention": make_task(
        model=lambda: Attention(DPMultiheadAttention(8, 2, batch_first=True))
    ),
    "constant buffer": make_task(model=lambda: Buffered(update=False)),
    "batch norm in evaluation mode": make_task(model=AlwaysEvaluating),
    "masked lengths": Task(
        model=linear,
        dataset=lambda: Records(rows()),
        example_spec={
            "x": ArraySpec((FEATURES,), "float32", -1, 1),
            "length": ArraySpec((), "int64", 1, FEATURES),
            "y": ArraySpec((), "int64", 0, CLASSES - 1),
        },
        losses=lambda model, batch: cross_entropy(
            model,
            {
                "x": batch["x"] * (torch.arange(FEATURES) < batch["length"][:, None]),
                "y": batch["y"],
            },
        ),
    ),
}


@pytest.mark.parametrize("name", list(ACCEPTED))
def test_sound_models_pass_without_a_word(name, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preflight(ACCEPTED[name], physical_batch_size=7, whole=False)
    assert capfd.readouterr() == ("", "")


def test_a_dry_run_reads_no_private_record_and_disturbs_no_random_state():
    def dataset():
        raise AssertionError("private")

    task = Task(linear, dataset, make_task().example_spec, cross_entropy)
    preflight(task, whole=False)
    state = torch.get_rng_state()
    torch.manual_seed(0)  # as linear() does
    nn.Linear(FEATURES, CLASSES)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.rule(21)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.BatchNorm1d(8),
        lambda: nn.BatchNorm1d(8, affine=False),
        lambda: nn.BatchNorm1d(8, track_running_stats=False),
        lambda: nn.BatchNorm1d(8).requires_grad_(False),
        lambda: nn.SyncBatchNorm(8, affine=False),
    ],
    ids=["plain", "not affine", "not tracking", "frozen", "synchronised"],
)
def test_batch_norm_in_training_mode(layer):
    refused(
        make_task(model=with_layer(layer)), "ModelRefused", "module 1", "BatchNorm", "GroupNorm"
    )


@pytest.mark.rule(21)
def test_a_buffer_that_training_updates():
    refused(make_task(model=lambda: Buffered(update=True)), "ModelRefused", "module scale", "mean")
    refused(
        make_task(
            model=lambda: nn.Sequential(
                nn.Unflatten(1, (2, 3)),
                nn.InstanceNorm1d(2, track_running_stats=True),
                nn.Flatten(),
                nn.Linear(FEATURES, CLASSES),
            )
        ),
        "ModelRefused",
        "module 1",
        "running_mean",
        "track_running_stats=False",
    )


@pytest.mark.rule(21)
class Normalised(nn.Module):
    """Linear, of features that are first brought near to zero."""

    def __init__(self, normalise):
        super().__init__()
        torch.manual_seed(0)
        self.normalise, self.head = normalise, nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.head(self.normalise(x))


class RunningMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, x):
        mean = self.get_buffer("mean")
        mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return x - mean


@pytest.mark.rule(21)
def test_running_normalisation_has_its_remedies():
    words = "use constants of a public range or of public data, (x - 50) / 29, or GroupNorm or"
    refused(make_task(model=lambda: Normalised(RunningMean())), "ModelRefused", words)
    preflight(make_task(model=lambda: Normalised(lambda x: (x - 50) / 29)), whole=False)
    preflight(make_task(model=lambda: Normalised(nn.LayerNorm(FEATURES))), whole=False)
    preflight(make_task(model=lambda: Normalised(nn.GroupNorm(1, FEATURES))), whole=False)


@pytest.mark.rule(21)
def test_state_outside_buffers():
    def forward(m, x):
        m.seen = getattr(m, "seen", 0) + x.detach().sum()
        return m.second(m.first(x)) + m.seen * x[:, :CLASSES]

    refused(block(forward), "ModelRefused", "keeps something of the batches", "in forward")


@pytest.mark.rule(21)
def test_what_only_the_first_pass_keeps():
    """Every look is at a model that has seen nothing."""

    def forward(m, x):
        if not hasattr(m, "mean"):
            m.mean = x.detach().mean(0)
        return m.second(m.first(x - m.mean))

    refused(block(forward), "ModelRefused", "keeps something of the batches", "made at", __file__)


@pytest.mark.rule(21)
def test_what_is_kept_behind_a_coin():
    """The place is found under the same random numbers."""

    def forward(m, x):
        h = m.first(x)
        if torch.rand(()) > 0.7:  # the first number is 0.50, 0.76 and 0.61 under the seeds 0 to 2
            m.mean = h.detach().mean(0)
        return m.second(h)

    refused(block(forward), "ModelRefused", "keeps something of the batches", "in forward")


@pytest.mark.rule(21)
def test_state_that_is_of_no_values():
    def forward(m, x):
        m.calls = getattr(m, "calls", 0) + 1
        return m.second(m.first(x)) * m.calls

    refused(block(forward), "ModelRefused", "module model (Block).calls", "no counters")


def counted_in_a_closure():
    calls = 0

    def losses(m, b):
        nonlocal calls
        calls += 1
        return cross_entropy(m, b)

    return make_task(losses=losses)


def counted_in_a_tensor():
    calls = torch.zeros(())

    def losses(m, b):
        calls.add_(1)
        return cross_entropy(m, b)

    return make_task(losses=losses)


class Schedule:
    """What is the same at first and another one later."""

    def __init__(self):
        self.turns = itertools.count()

    def losses(self, m, b):
        return cross_entropy(m, b) * (1 if next(self.turns) < 1000 else b["x"].mean())


@pytest.mark.rule(21)
@pytest.mark.parametrize(
    ("task", "where"),
    [
        (counted_in_a_closure(), "losses(): calls is another"),
        (counted_in_a_tensor(), "losses(): calls is another"),
        (make_task(losses=Schedule().losses), "losses().turns is another"),
    ],
)
def test_what_counts_the_passes(task, where):
    """Once the count is large enough, a pass may do what no dry run has tried."""
    refused(task, "ModelRefused", where, "no counters or other state between calls")


class Numbers:
    """Takes random numbers from a generator that it keeps."""

    def __init__(self, generator, draw):
        self.generator, self.draw = generator, draw

    def losses(self, m, b):
        return cross_entropy(m, b) * self.draw(self.generator)


NUMBERS = {
    "torch's": Numbers(torch.Generator().manual_seed(0), lambda g: torch.rand(1, generator=g)),
    "Python's": Numbers(random.Random(0), lambda g: g.random()),
    "numpy's": Numbers(np.random.default_rng(0), lambda g: g.random()),
    "numpy's older": Numbers(np.random.RandomState(0), lambda g: g.rand()),
}


@pytest.mark.rule(2, 21)
@pytest.mark.parametrize("name", NUMBERS)
def test_state_that_a_generator_holds_is_named(name):
    where = "losses().generator (random numbers) moves on with each pass"
    refused(make_task(losses=NUMBERS[name].losses), "ModelRefused", where, "global generator")


@pytest.mark.rule(21)
def test_a_branch_that_weights_decide():
    """They are public; but where they are large a pass may do what none has tried."""

    def forward(m, x):
        h = m.first(x)
        return m.second(h - h.mean(0) if m.first.weight.norm() > 50 else h)

    refused(
        block(forward),
        "ModelRefused",
        f"asks for values of parameters at {__file__}:",
        "in forward: if or bool() reads them",
        "torch.where",
    )


class Averaging(nn.Linear):
    """Keeps a mean beside its weights, where only state_dict() finds it."""

    def get_extra_state(self):
        return {"mean": 0.0}

    def set_extra_state(self, state):
        pass


@pytest.mark.rule(21)
def test_state_beside_parameters_and_buffers():
    task = make_task(model=lambda: Averaging(FEATURES, CLASSES))
    refused(task, "ModelRefused", "state_dict() of the model has _extra_state")


def one_global_model():
    kept = linear()
    return lambda: kept


def new_modules_of_one_memory():
    memory = torch.zeros(CLASSES, FEATURES)

    def model():
        made = linear()
        made.weight = nn.Parameter(memory)
        return made

    return model


@pytest.mark.rule(5)
@pytest.mark.parametrize("make", [one_global_model, new_modules_of_one_memory])
def test_a_model_of_an_earlier_call(make):
    model = make()
    before = [p.detach().clone() for p in model().parameters()]
    task = make_task(model=model)
    build_model(task, torch.device("cpu"))
    with pytest.raises(TaskError, match=r"parameter weight of an earlier call again") as caught:
        preflight(task)
    assert caught.value.reason == "ModelRefused"
    assert all(map(torch.equal, before, model().parameters()))


def test_a_frozen_base_is_loaded_once():
    base = linear()
    base.requires_grad_(False)
    task = make_task(model=lambda: nn.Sequential(base, nn.Linear(CLASSES, CLASSES)))
    for _ in range(3):
        build_model(task, torch.device("cpu"))
    preflight(task, whole=False)


def seeded_mask(m, x):
    torch.manual_seed(0)
    return m.second(m.first(x) * (torch.rand(len(x), 1) > 0.5))


def seeded_losses(model, batch):
    random.seed(4)
    return cross_entropy(model, batch)


def seeded_within(model, batch):
    try:
        torch.manual_seed(0)
    except Exception as error:
        raise ValueError("no numbers") from error
    return cross_entropy(model, batch)


SEEDING = {
    "forward": block(seeded_mask),
    "losses": make_task(losses=seeded_losses),
    "own words": make_task(losses=seeded_within),
}


@pytest.mark.rule(2)
@pytest.mark.parametrize(
    ("name", "generator"),
    [("forward", "torch's"), ("losses", "Python's"), ("own words", "torch's")],
)
def test_a_seed_in_a_pass_is_refused(name, generator):
    words = f"seeds {generator} global generator at {__file__}:"
    refused(SEEDING[name], "ModelRefused", words)


@pytest.mark.rule(2)
def test_what_checkpointing_repeats_in_the_backward_pass_is_no_seed():
    def forward(m, x):
        hidden = torch.utils.checkpoint.checkpoint(
            functional.dropout, m.first(x), use_reentrant=False
        )
        return m.second(hidden)

    preflight(block(forward), whole=False)


def asking(m, x):
    hidden = m.first(x)
    return m.second(hidden)[(hidden.sum(1) > -99)]


@pytest.mark.rule(8, 21)
def test_a_pass_that_asks_for_values_is_refused_by_line_and_module():
    line = asking.__code__.co_firstlineno + 2
    place = f"module model (Block) asks for values of the batch at {__file__}:{line} in asking: "
    refused(block(asking), "ModelRefused", f"{place}an index reads them", "torch.where(mask, x")


@pytest.mark.rule(21)
def test_a_question_behind_a_coin_is_refused():
    def forward(m, x):
        hidden = m.first(x)
        if torch.rand(()) > 0.7 and hidden.sum() > 0:  # seed 0 gives 0.496, seed 1 0.758
            hidden = hidden * 2
        return m.second(hidden)

    refused(block(forward), "ModelRefused", "asks for values of the batch", "torch.where")


class Centre(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Gradual(torch.autograd.Function):
    """The identity forward; mixes the examples' gradients backward."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient + gradient.mean(0)


def self_scaled(x):
    """x itself, with a gradient through the mean of the batch."""
    return x * (1 + x.mean() - x.mean().detach())


MIXING = {
    "a mean in a module": (make_task(model=with_layer(Centre)), "module 1 (Centre)"),
    "a mean in forward": (
        block(lambda m, x: m.second(m.first(x) - x.mean(0))),
        "module model (Block)",
    ),
    "a cumulative sum": (
        block(lambda m, x: m.second(m.first(x).cumsum(0))),
        "module model (Block)",
    ),
    "a neighbour": (
        block(lambda m, x: m.second(m.first(x) + 0.01 * x.roll(1, 0))),
        "module model (Block)",
    ),
    "only in the gradient": (
        block(lambda m, x: m.second(self_scaled(m.first(x)))),
        "in self_scaled",
    ),
    "only in the value": (
        make_task(losses=lambda m, b: cross_entropy(m, b) + b["x"].mean()),
        "losses()",
    ),
    "labels": (
        make_task(
            losses=lambda m, b: (
                cross_entropy(m, b) * (b["y"] == b["y"].mode().values).float()
                + 0.1 * b["y"].float().mean() * m(b["x"]).sum(1)
            )
        ),
        "losses()",
    ),
    "a contrast": (
        make_task(
            losses=lambda m, b: functional.cross_entropy(
                m(b["x"]) @ m(b["x"]).t(), torch.arange(len(b["y"])), reduction="none"
            )
        ),
        "losses()",
    ),
    "a rank": (make_task(losses=lambda m, b: cross_entropy(m, b).sort().values), "losses()"),
}


@pytest.mark.rule(5, 21)
@pytest.mark.parametrize("name", list(MIXING))
def test_operations_across_examples(name):
    task, culprit = MIXING[name]
    refused(task, "ModelRefused", culprit, "mixes the examples of a batch")


@pytest.mark.rule(21)
def test_gradients_mixed_in_the_backward_pass():
    task = block(lambda m, x: m.second(Gradual.apply(m.first(x))))
    refused(task, "ModelRefused")


@pytest.mark.rule(21)
def test_tied_parameters():
    def model():
        first, second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        second.weight = first.weight
        return nn.Sequential(first, second, nn.Linear(FEATURES, CLASSES))

    refused(make_task(model=model), "ModelRefused", "0.weight and 1.weight are tied")


FUNCTIONAL = {
    "functional linear": lambda m, x: m.second(functional.linear(x, m.first.weight, m.first.bias)),
    "in addition to its forward": lambda m, x: m.second(m.first(x) @ m.first.weight),
    "a penalty": lambda m, x: m.second(m.first(x)) * m.second.weight.square().sum(),
}


@pytest.mark.rule(21)
@pytest.mark.parametrize("name", list(FUNCTIONAL))
def test_functional_use_of_weights(name):
    owner = "second" if name == "a penalty" else "first"
    refused(block(FUNCTIONAL[name]), "ModelRefused", f"parameter {owner}.weight", "forward")


@pytest.mark.rule(4)
def test_a_parameter_that_no_loss_reaches():
    refused(block(lambda m, x: m.first(x)[:, :CLASSES]), "ModelRefused", "second.weight", "freeze")


@pytest.mark.rule(4)
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # functorch, on the way out
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: Recurrent(nn.LSTM(1, 8, batch_first=True)), ("layer (LSTM", "DPLSTM")),
        (lambda: Recurrent(nn.GRU(1, 8, batch_first=True)), ("layer (GRU", "DPGRU")),
        (
            lambda: Attention(nn.MultiheadAttention(8, 2, batch_first=True)),
            ("layer (MultiheadAttention", "DPMultiheadAttention"),
        ),
        (with_layer(WithBuffer), ("module 1 (WithBuffer", "buffers")),
    ],
    ids=["lstm", "gru", "attention", "buffer"],
)
def test_a_layer_without_per_example_gradients(layer, words):
    refused(make_task(model=layer), "ModelRefused", *words)


@pytest.mark.rule(4)
def test_a_layer_whose_batch_is_not_first():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 4)
            self.head = nn.Linear(4, CLASSES)

        def forward(self, x):
            return self.head(self.layer(x.t()[:, :, None]).mean(0))

    refused(make_task(model=Transposed), "ModelRefused", "module layer", "the batch first")


LOSSES: dict[str, tuple[Any, str]] = {
    "mean": (lambda m, b: cross_entropy(m, b).mean(), "per example"),
    "two dimensions": (lambda m, b: cross_entropy(m, b)[:, None], "per example"),
    "no tensor": (lambda *_: [1.0], "list, not a tensor"),
    "integers": (lambda _, b: b["y"], "floating point"),
    "detached": (lambda m, b: cross_entropy(m, b).detach(), "detach()"),
}


@pytest.mark.rule(5)
@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_that_are_not_one_per_example(name):
    losses, words = LOSSES[name]
    refused(make_task(losses=losses), "TaskInvalid", words)


@pytest.mark.rule(5)
@pytest.mark.parametrize("size", [1, 2, 9])
def test_losses_divided_by_the_number_of_rows(size):
    task = make_task(losses=lambda m, b: cross_entropy(m, b) / len(b["y"]))
    refused(task, "ModelRefused", "don't divide", physical_batch_size=size)


def test_losses_that_are_not_finite_on_the_example_spec():
    refused(
        make_task(losses=lambda m, b: cross_entropy(m, b) + b["x"].sum(1).log()),
        "TaskInvalid",
        "example_spec",
    )
    refused(
        make_task(losses=lambda m, b: (m(b["x"]) * 0).sum(1).sqrt()), "TaskInvalid", "not finite"
    )


class Pooled(nn.Module):
    """A mean over what a mask leaves, or attention to it, of which nothing may be left."""

    def __init__(self, pool):
        super().__init__()
        torch.manual_seed(0)
        self.pool, self.wide, self.head = pool, nn.Linear(1, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.pool(self.wide(x[:, :, None]), x > 9))


def mean_over(positions, mask, count):
    return (positions * mask[:, :, None]).sum(1) / count[:, None]


def attention_to(positions, mask):
    scores = positions.sum(2).masked_fill(~mask, -math.inf)
    return (positions * scores.softmax(1)[:, :, None]).sum(1)


def test_a_mask_that_hides_all_of_a_row_has_remedies():
    def model(pool):
        return make_task(model=lambda: Pooled(pool))

    counts = ("TaskInvalid", "mask.sum(1).clamp(min=1)")
    refused(model(lambda it, mask: mean_over(it, mask, mask.sum(1))), *counts)
    preflight(model(lambda it, mask: mean_over(it, mask, mask.sum(1).clamp(min=1))), whole=False)

    def seen(it, mask):
        return attention_to(it, mask | (torch.arange(mask.shape[1], device=mask.device) == 0))

    one = "mask | (torch.arange(mask.shape[1], device=mask.device) == 0)"
    refused(model(attention_to), "TaskInvalid", one)
    preflight(model(seen), whole=False)


@pytest.mark.parametrize("whole", [True, False])
def test_each_part_of_a_dry_run_is_announced(whole):
    parts: list[str] = []
    preflight(make_task(model=linear), whole=whole, announce=parts.append)
    longest = "whether rows meet by random numbers or at special values (the longest part)"
    before = "whether rows meet, but for what an earlier attempt has tried"
    meeting = [part for part in parts if "rows meet" in part]
    assert meeting == (["whether rows meet", longest] if whole else [before])
    assert len(set(parts)) == len(parts) == 4 + whole
    assert all(_STAGE.fullmatch(f"dry run on synthetic data: {part}") for part in parts)


@pytest.mark.rule(20)
def test_errors_on_synthetic_data_are_shown_in_full():
    def losses(model, batch):
        raise RuntimeError("sizes 64 and 65 don't match")

    refused(
        make_task(losses=losses),
        "DryRunFailed",
        "sizes 64 and 65",
        f"failed at {__file__}:",
        "in losses: RuntimeError",
    )

    def model():
        raise FileNotFoundError("weights.pt")

    refused(make_task(model=model), "DryRunFailed", "weights.pt", "in model")


MODELS: dict[str, tuple[Any, str, str]] = {
    "no module": (lambda: 3, "TaskInvalid", "int, not a torch.nn.Module"),
    "no parameter": (nn.ReLU, "ModelRefused", "no trainable parameter"),
    "half": (lambda: linear().half(), "ModelRefused", "float32"),
    "lazy": (lambda: nn.LazyLinear(CLASSES), "ModelRefused", "no values"),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_models_that_cannot_be_trained(name):
    model, reason, words = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about lazy modules
        refused(make_task(model=model), reason, words)


def test_the_models_initial_weights_are_not_touched():
    built: Any = build_model(make_task(), torch.device("cpu"))
    assert torch.equal(built.weight, linear().weight)


def test_evaluation_gives_finite_public_figures():
    def evaluate(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"accuracy": torch.tensor(0.5), "loss": 2}

    model = linear()
    assert public_figures(make_task(evaluate=evaluate), model) == {"accuracy": 0.5, "loss": 2.0}
    assert model.training
    assert public_figures(make_task(), model) == {}


@pytest.mark.rule(19)
@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (0.5, "float; return a dict"),
        ({"accuracy": math.nan}, "finite"),
        ({"accuracy": "good"}, "finite"),
        ({"accuracy": [1, 2]}, "finite"),
        ({"accuracy": torch.zeros(2)}, "finite"),
        ({"accuracy": 10**400}, "finite"),
        ({1: 0.5}, "a int"),
        ({"": 0.5}, "of 0 characters"),
        ({"JANE DOE": 0.5}, "of 8 characters"),
        ({"x" * 64: 0.5}, "of 64 characters"),
        ({"accuracy-": 0.5}, "of 9 characters"),
        ({"step": 7}, "which dtjob adds"),
        ({f"recall.of_class-{i}": 1.0 for i in range(90)}, "90 figures"),
    ],
)
def test_evaluation_that_gives_something_else(figures, words):
    with pytest.raises(TaskError, match=words) as caught:
        public_figures(make_task(evaluate=lambda _: figures), linear())
    assert caught.value.reason == "EvaluationInvalid"
    assert "JANE DOE" not in caught.value.message


def test_evaluation_leaves_trainings_random_numbers_alone():
    def evaluate(model):
        return {"drawn": torch.rand(()).item()}

    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = public_figures(make_task(evaluate=evaluate), linear_without_seed())
    assert public_figures(make_task(evaluate=evaluate), linear_without_seed()) == first
    assert torch.equal(torch.rand(2), expected)


def linear_without_seed():
    with torch.random.fork_rng():
        return linear()


def unlucky(model):
    raise ValueError("no public data here")


def trains(model):
    model.weight.data += 1
    return {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("evaluate", "words"),
    [
        (unlucky, "in unlucky: ValueError: no public data here"),
        (trains, "copy.deepcopy"),
        (lambda _: {"perplexity": math.inf}, "perplexity: inf"),
        (lambda _: {"accuracy": "good"}, "accuracy: a str"),
    ],
)
def test_evaluation_is_tried_on_an_untrained_model(evaluate, words):
    """Before the first draw is charged, so that its errors are shown in full."""
    with pytest.raises(TaskError) as caught:
        check_evaluation(make_task(evaluate=evaluate), torch.device("cpu"))
    assert caught.value.reason == "EvaluationInvalid"
    assert words in caught.value.message


def collecting():
    """A task that shows the mean loss of what it was trained on as its evaluation."""
    losses_so_far: list[float] = [1.0]

    def losses(model, batch):
        found = cross_entropy(model, batch)
        losses_so_far.append(float(found.detach().mean()))
        return found

    return make_task(
        losses=losses, evaluate=lambda _: {"loss": sum(losses_so_far) / len(losses_so_far)}
    )


def revealing():
    """The same, but under a name of its own once there is something to show."""
    seen: list[int] = []

    def losses(model, batch):
        seen.append(len(batch["y"]))
        return cross_entropy(model, batch)

    return make_task(losses=losses, evaluate=lambda _: {"rows": 1.0} if seen else {})


def logging():
    """Writes its loss down at each hundredth call."""
    calls, logged = itertools.count(1), [0.0]

    def losses(model, batch):
        found = cross_entropy(model, batch)
        if next(calls) % 100 == 0:
            logged[:] = [found.mean().item()]
        return found

    return make_task(losses=losses, evaluate=lambda _: {"last": logged[0]})


@pytest.mark.rule(19)
@pytest.mark.parametrize(
    ("task", "name"), [(collecting, "loss"), (revealing, "rows"), (logging, "last")]
)
def test_evaluation_shows_nothing_of_what_is_trained_on(task, name):
    with pytest.raises(TaskError, match=f"another {name} after losses") as caught:
        check_evaluation(task(), torch.device("cpu"))
    assert caught.value.reason == "EvaluationInvalid"


def test_evaluations_of_a_task_without_any_are_refused():
    with pytest.raises(TaskError, match="everySteps is 50, but the task has no evaluate") as caught:
        check_evaluates(make_task(), 50)
    assert caught.value.reason == "EvaluationInvalid"
    check_evaluates(make_task(), None)
    check_evaluates(make_task(evaluate=lambda _: {}), 50)


def test_evaluation_that_works_is_accepted():
    check_evaluation(make_task(), torch.device("cpu"))
    check_evaluation(make_task(evaluate=lambda _: {"accuracy": 0.5}), torch.device("cpu"))


def locked():
    model: Any = linear()
    model.lock = threading.Lock()
    return model


@pytest.mark.parametrize(
    ("check", "model", "reason"),
    [
        (copies.check_scripted, torch.jit.ScriptModule, Reason.TASK_INVALID),
        (copies.check_copyable, locked, Reason.TASK_INVALID),
        (
            refusals.check_embeddings,
            lambda: nn.Embedding(3, 4, max_norm=1.0),
            Reason.MODEL_REFUSED,
        ),
        (
            refusals.check_embeddings,
            lambda: nn.EmbeddingBag(3, 4, scale_grad_by_freq=True),
            Reason.MODEL_REFUSED,
        ),
    ],
)
def test_a_model_that_no_pass_is_needed_to_refuse(check, model, reason):
    with pytest.raises(TaskError) as caught:
        check(model())
    assert caught.value.reason is reason


@pytest.mark.rule(8, 21)
def test_what_is_asked_at_each_tenth_call_is_refused():
    turns: queue.SimpleQueue[None] = queue.SimpleQueue()  # of which nothing shows how many it holds

    def losses(model, batch):
        found = cross_entropy(model, batch)
        turns.put(None)
        if turns.qsize() % 10 == 0:
            found.mean().item()
        return found

    refused(make_task(losses=losses), "ModelRefused", "losses() asks for values of the batch")
