"""Rule 21: NaN in one row reaches no other, in values or in gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from dtjob_trainer.preflight.rows import poison
from dtjob_trainer.preflight.rows.axes import ROWS
from dtjob_trainer.preflight.rows.passes import passes_of
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.blocks import hidden, jittered
from tests.support.mechanism.models import CLASSES, FEATURES, cross_entropy, make_task


def check(task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = {
        name: torch.rand((ROWS, *spec.shape), generator=generator)
        if spec.dtype == "float32"
        else torch.arange(ROWS) % CLASSES
        for name, spec in task.example_spec.items()
    }
    with passes_of(task, task.model(), torch.device("cpu")) as passes:
        passes.settle(batch)
        dims = poison.embeddings_rows(passes, batch)
        poison.check(passes, batch, dims, range(ROWS))
        for value in poison.LARGE:
            poison.check(passes, batch, dims, poison.EDGES, value)


def refused(task: Task, *words: str) -> None:
    with pytest.raises(TaskError) as caught:
        check(task)
    assert caught.value.reason == "ModelRefused"
    message = caught.value.message
    assert [word for word in (*words, "mixes the examples of a batch") if word not in message] == []


class Looked(nn.Module):
    """Embeds its label, and positions as many as there are rows."""

    def __init__(self, function: Any = torch.tanh) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(CLASSES, 4), nn.Linear(4, CLASSES)
        self.register_buffer("positions", torch.rand(ROWS, 4))
        self.function = function

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = functional.embedding(torch.arange(ROWS), self.get_buffer("positions")).sum(0)
        scores: torch.Tensor = self.head(self.function(self.table(ids)) + places)
        return scores


def of_label(function: Any = torch.tanh) -> Task:
    return make_task(
        model=lambda: Looked(function),
        losses=lambda m, b: functional.cross_entropy(m(b["y"]), b["y"], reduction="none"),
    )


class MixedBack(torch.autograd.Function):
    """The identity; gradients come back with a small part of their mean."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient + 1e-30 * gradient.mean(0)


class ClippedBack(torch.autograd.Function):
    """The identity; gradients of a norm beyond all usual ones come back clipped together."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        norm = gradient.nan_to_num().norm()
        return gradient * torch.where(norm > 1e3, 1e3 / norm, 1.0)


def of_round_values(model: nn.Module, batch: Any) -> torch.Tensor:
    """Looks up what it makes of floats: of NaN it would make a place that is not there."""
    return cross_entropy(model, {**batch, "x": functional.one_hot(batch["y"], FEATURES) * 1.0}) * (
        torch.arange(3.0)[batch["x"][:, 0].round().long()] + 1
    )


def with_distribution(model: nn.Module, batch: Any) -> torch.Tensor:
    found = torch.distributions.Normal(model(batch["x"])[:, 0], 1.0)
    losses: torch.Tensor = -found.log_prob(batch["x"][:, 0])
    return losses


def conditional(h: torch.Tensor) -> torch.Tensor:
    """Mixes nothing but where a feature is beyond 40."""
    return h + (h.detach() > 40).float() * h.mean(0)


def below_a_neighbour(model: nn.Module, batch: Any) -> torch.Tensor:
    beside = batch["x"][:, 0].roll(1)
    return torch.where(beside < -50, 1.000001, 1.0) * cross_entropy(model, batch)


class Smoothed(nn.Module):
    """Keeps what is slow of 16 places: the gradient that comes back to the layer is not dense."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slow = torch.fft.rfft(self.first(x), dim=1)[:, :5]
        scores: torch.Tensor = self.last(torch.fft.irfft(slow, n=16, dim=1).mean(1))
        return scores


ACCEPTED = {
    "a spectrum": make_task(model=Smoothed, shape=(16, 4)),
    "layer norm": hidden(lambda h: functional.layer_norm(h, (8,))),
    "embedding": of_label(),
    "integers of floats": make_task(losses=of_round_values),
    "a distribution that asks for numbers": make_task(losses=with_distribution),
    "an operator that raises on NaN": hidden(lambda h: h * torch.bernoulli(h.sigmoid())),
}


@pytest.mark.models
@pytest.mark.rule(21)
@pytest.mark.parametrize("name", ACCEPTED)
def test_rows_of_their_own_are_accepted(name: str) -> None:
    check(ACCEPTED[name])


MIXING = {
    "behind a condition": (
        hidden(conditional),
        ("module model (Hidden) at", "in conditional", "NaN in one example", "the loss"),
    ),
    "by 2e-5": (hidden(lambda h: h + 2e-5 * h.roll(1, 0)), ("test_poison.py:",)),
    "by nothing at all": (hidden(lambda h: h + 0.0 * h.mean(0)), ("in <lambda>",)),
    "after an embedding": (of_label(lambda h: h - h.mean(0)), ("NaN in one example",)),
    "in a gradient": (
        hidden(MixedBack.apply),
        ("the backward pass at", "in backward", "the gradient of first.weight"),
    ),
    "in a gradient, behind what raises on NaN": (
        hidden(lambda h: MixedBack.apply(h) * torch.bernoulli(h.detach().sigmoid())),
        ("NaN in the gradient",),
    ),
    "in a gradient that a hook rescales": (
        hidden(lambda h: (h.register_hook(lambda g: g / g.norm()), h)[1]),
        ("the gradient of first.weight",),
    ),
    "in a gradient that is clipped with others": (
        hidden(ClippedBack.apply),
        ("1.2e+18 in the gradient of one example", "in backward", "the gradient of first.weight"),
    ),
    "behind a comparison with another row": (
        hidden(lambda h: h + 1e-6 * (h.detach().roll(1, 0) > 50)),
        ("in <lambda>", "1.2e+18 in one example"),
    ),
    "behind a comparison downwards": (
        make_task(losses=below_a_neighbour),
        ("losses() at", "in below_a_neighbour", "-1.2e+18 in one example"),
    ),
    "by one scale for all": (hidden(lambda h: h / h.detach().abs().amax()), ("torch.where",)),
}


@pytest.mark.models
@pytest.mark.rule(21)
@pytest.mark.parametrize("name", MIXING)
def test_mixing_is_refused(name: str) -> None:
    task, words = MIXING[name]
    refused(task, *words)


@pytest.mark.rule(21)
def test_mixing_that_only_some_values_show() -> None:
    refused(hidden(conditional), "in conditional")


@pytest.mark.rule(21)
def test_a_pass_that_does_not_end_on_a_value_is_refused_by_line() -> None:
    with pytest.raises(TaskError) as caught:
        check(hidden(jittered))
    assert caught.value.reason == "ModelRefused"
    assert "NaN in one example keeps a pass from its end" in caught.value.message
    assert "blocks.py:" in caught.value.message
    assert "in jittered" in caught.value.message
    assert "a public number of turns" in caught.value.message
