"""Rules 4 and 5: what one example can change, measured in fp64."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from opacus.layers import DPLSTM, DPMultiheadAttention
from torch import nn
from torch.utils.checkpoint import checkpoint

from dtjob_accounting.event import Adjacency
from dtjob_trainer.mechanism.clipping import (
    CLIPPERS,
    ClippedSum,
    PerExampleClip,
    PlainSum,
)
from dtjob_trainer.mechanism.slack import clipped_norm
from tests.support.mechanism import reference
from tests.support.mechanism.models import (
    CLASSES,
    FEATURES,
    cross_entropy,
    linear,
    make_task,
    rows,
    silent,
)

C = 0.7


class Sequences(nn.Module):
    """Embedding, LayerNorm and a layer over sequences of ids."""

    def __init__(self, layer):
        super().__init__()
        self.embedding = nn.Embedding(5, 8)
        self.norm = nn.LayerNorm(8)
        self.layer = layer
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.norm(self.embedding((2 * x).round().long() + 2))
        if isinstance(self.layer, DPMultiheadAttention):
            x = self.layer(x, x, x)[0]
        elif isinstance(self.layer, DPLSTM):
            x = self.layer(x)[0]
        else:
            x = self.layer(x)
        return self.head(x.mean(1))


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class Checkpointed(nn.Module):
    """One layer called twice, each call with activation checkpointing."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(FEATURES, FEATURES)
        self.layer = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        x = self.first(x)
        for _ in range(2):
            x = torch.tanh(checkpoint(self.layer, x, use_reentrant=False))
        return self.head(x)


class Scale(nn.Module):
    """A layer of the user's own, for which Opacus derives the gradients."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(FEATURES))

    def forward(self, x):
        return x * self.scale


def seeded(make):
    def model():
        torch.manual_seed(1)
        return make()

    return model


MODELS = {
    "linear": linear,
    "conv": seeded(
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)),
            nn.Conv2d(1, 4, (2, 2), padding=1),
            nn.GroupNorm(2, 4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48, CLASSES),
        )
    ),
    "embedding, layer norm": seeded(lambda: Sequences(nn.Linear(8, 8))),
    "lstm": seeded(lambda: Sequences(DPLSTM(8, 8, batch_first=True))),
    "attention": seeded(lambda: Sequences(DPMultiheadAttention(8, 2, batch_first=True))),
    "called twice": seeded(Twice),
    "checkpointed": seeded(Checkpointed),
    "own layer": seeded(lambda: nn.Sequential(Scale(), nn.Linear(FEATURES, CLASSES))),
    "partly frozen": seeded(
        lambda: nn.Sequential(
            nn.Linear(FEATURES, 4).requires_grad_(False), nn.ReLU(), nn.Linear(4, CLASSES)
        )
    ),
}


def clipped_sum(model, losses=cross_entropy, norm=C):
    return PerExampleClip(norm).summed(model, losses, 1)


def tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def total(model, arrays, mask=None, **options):
    return summed(clipped_sum(model, **options), arrays, mask)


def summed(one, arrays, mask=None):
    batch = tensors(arrays)
    size = len(batch["y"])
    one.add(batch, torch.ones(size, dtype=torch.bool) if mask is None else torch.tensor(mask))
    if isinstance(one, ClippedSum):
        one.close()
    return one.flat.clone()


@pytest.mark.rule(4, 5)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("norm", [0.01, 0.7, 100.0])
def test_the_sum_is_that_of_clipped_reference_gradients(name, norm):
    model, arrays = MODELS[name](), rows(12)
    expected = sum(
        reference.clipped_gradient(make_task(), model, {k: v[i] for k, v in arrays.items()}, norm)
        for i in range(12)
    )
    found = total(model, arrays, norm=norm).double().numpy()
    assert np.linalg.norm(found - expected) <= 2e-6 * np.linalg.norm(expected)


@pytest.mark.rule(4)
@pytest.mark.parametrize("name", MODELS)
def test_masked_rows_contribute_nothing(name):
    model, arrays = MODELS[name](), rows(12)
    mask = [i % 3 != 0 for i in range(12)]
    kept = {k: v[mask] for k, v in arrays.items()}
    assert torch.allclose(total(model, arrays, mask), total(model, kept), rtol=1e-4, atol=1e-6)


ADVERSARIAL = {
    "huge": np.full(FEATURES, 1e4, np.float32),
    "enormous": np.full(FEATURES, 1e18, np.float32),
    "at the end of fp32": np.full(FEATURES, 3e38, np.float32),
    "tiny": np.full(FEATURES, 1e-30, np.float32),
    "denormal": np.full(FEATURES, 1e-44, np.float32),
    "infinite": np.array([np.inf] + [0.1] * (FEATURES - 1), np.float32),
    "nan": np.array([np.nan] + [0.1] * (FEATURES - 1), np.float32),
    "huge and tiny": np.array([1e18, 1e-30] * (FEATURES // 2), np.float32),
}


ALL, WITHOUT_LAST, LAST_FOR_ANOTHER = [True] * 8, [True] * 7 + [False], [True] * 6 + [False, True]
NEIGHBOURS = {
    Adjacency.ADD_REMOVE: (ALL, WITHOUT_LAST),
    Adjacency.REPLACE_ONE: (WITHOUT_LAST, LAST_FOR_ANOTHER),
}


def change(clipper, adjacency, make_model, arrays, losses=cross_entropy):
    """fp64 ‖sum(D) − sum(D')‖ of neighbours, whose difference is the last of eight records."""
    one, other = (
        summed(clipper.summed(make_model(), losses, 1), arrays, mask)
        for mask in NEIGHBOURS[adjacency]
    )
    assert one.isfinite().all()
    assert other.isfinite().all()
    return torch.linalg.vector_norm(one.double() - other.double()).item()


@pytest.mark.rule(4)
@pytest.mark.parametrize("record", ADVERSARIAL)
@pytest.mark.parametrize("name", ["linear", "called twice", "own layer"])
@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("clipper", dict.fromkeys(CLIPPERS.values()))
@pytest.mark.parametrize("adjacency", Adjacency)
def test_one_record_changes_the_sum_by_at_most_c(adjacency, clipper, norm, name, record):
    """What is stated holds, for records that the range check would not even pass."""
    arrays = rows(8)
    arrays["x"][-1] = ADVERSARIAL[record]
    stated = clipper(norm).sensitivity(adjacency)
    assert change(clipper(norm), adjacency, MODELS[name], arrays) <= stated
    assert clipper(norm).sensitivity(Adjacency.ADD_REMOVE) == norm


class StatesTooLittle(PerExampleClip):
    def sensitivity(self, adjacency):
        return super().sensitivity(adjacency) * (1 - 2**-9)


class ForgetsOneOfTwo(PerExampleClip):
    def sensitivity(self, _adjacency):
        return self.max_grad_norm


class ClipsToMore(PerExampleClip):
    def summed(self, model, losses, multiple):
        return PerExampleClip(self.max_grad_norm * (1 + 2**-9)).summed(model, losses, multiple)


class DoesNotClip(PerExampleClip):
    def summed(self, model, losses, multiple):
        return PlainSum(model, losses, multiple)


@pytest.mark.rule(4)
@pytest.mark.parametrize(
    "liar", [PerExampleClip, StatesTooLittle, ForgetsOneOfTwo, ClipsToMore, DoesNotClip]
)
def test_a_clipper_that_lies_is_caught_by_the_measure(liar):
    """Else the test above would pass whatever it is given; the first one does not lie."""
    arrays = rows(8)
    arrays["x"][-1] = 100.0
    arrays["x"][-2] = -100.0  # the opposite gradient
    excess = max(
        change(liar(C), adjacency, linear, arrays, lambda model, batch: model(batch["x"]).sum(1))
        / liar(C).sensitivity(adjacency)
        for adjacency in Adjacency
    )
    assert (excess <= 1) == (liar is PerExampleClip)


@pytest.mark.rule(4)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_becomes_zero_and_spoils_no_other(bad):
    def losses(model, batch):
        sound = cross_entropy(model, {"x": batch["x"], "y": batch["y"].clamp(max=2)})
        return sound * torch.where(batch["y"] == 9, bad, 1.0)

    arrays = rows(6)
    arrays["y"][3] = 9
    found = total(linear(), arrays, losses=losses)
    kept = total(linear(), arrays, [True, True, True, False, True, True], losses=losses)
    assert torch.equal(found, kept)
    assert found.isfinite().all()


@pytest.mark.rule(4)
@pytest.mark.slow
def test_a_large_batch_of_like_records_stays_within_c():
    """An fp32 sum would round by parts of B·C."""
    parameter = nn.Parameter(torch.zeros(1000))

    rows_: Any = SimpleNamespace(reset=lambda: None)

    def summed(first):
        one = ClippedSum(rows_, [parameter], clipped_norm(1.0), 1)
        for batch in range(256):
            gradient = torch.full((512, 1000), 10.0)
            mask = torch.ones(512, dtype=torch.bool)
            mask[0] = first is not None or batch > 0
            if batch == 0 and first is not None:
                gradient[0] = first
            one.accumulate([gradient], mask)
        return one.flat

    for value in (10.0, -10.0, 0.01):
        assert (summed(torch.full((1000,), value)) - summed(None)).norm().item() <= 1.0


@pytest.mark.rule(8)
def test_an_interrupted_pass_leaves_nothing_behind():
    model, arrays = MODELS["called twice"](), rows(8)
    expected = total(model, arrays)

    class Stop(Exception):
        pass

    armed = [True]

    def losses(model, batch):
        result = cross_entropy(model, batch)
        if armed[0]:
            model(batch["x"])  # a second forward whose activations nobody consumes
            raise Stop
        return result

    one = clipped_sum(model, losses)
    mask = torch.ones(8, dtype=torch.bool)
    with pytest.raises(Stop):
        one.add(tensors(arrays), mask)
    armed[0] = False
    one.add(tensors(arrays), mask)
    assert torch.equal(one.flat, expected)


def test_sums_add_up_over_micro_batches():
    model, arrays = linear(), rows(12)
    one = clipped_sum(model)
    for part in (slice(0, 5), slice(5, 12)):
        chunk = tensors({k: v[part] for k, v in arrays.items()})
        one.add(chunk, torch.ones(len(chunk["y"]), dtype=torch.bool))
    one.close()
    assert torch.allclose(one.flat, total(model, arrays), rtol=1e-5, atol=1e-6)


def test_a_pass_without_any_gradient_adds_nothing():
    assert not total(linear(), rows(4), losses=silent).any()


def test_mode_disabled_sums_plain_gradients_of_unmasked_rows():
    model, arrays = MODELS["conv"](), rows(8)
    plain = PlainSum(model, cross_entropy, 1)
    plain.add(tensors(arrays), torch.tensor([True] * 5 + [False] * 3))
    cross_entropy(model, tensors({k: v[:5] for k, v in arrays.items()})).sum().backward()
    expected = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).double()
    assert torch.allclose(plain.flat[: expected.numel()], expected, rtol=1e-5, atol=1e-6)
