"""Models of a few linear layers and embeddings, and losses of many kinds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dtjob_trainer.task import ArraySpec, Task
from tests.support.zoo.entry import Entry
from tests.support.zoo.making import (
    CLASSES,
    FEATURES,
    WORDS,
    Batch,
    Through,
    classified,
    cross_entropy,
    features,
    label,
    losses_alone,
    read_text,
    task_of,
)

_HIDDEN = 6


def _perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, _HIDDEN),
        nn.LayerNorm(_HIDDEN),
        nn.GELU(),
        nn.Linear(_HIDDEN, CLASSES),
    )


def _rms_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, _HIDDEN), nn.RMSNorm(_HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, CLASSES)
    )


def _parametric_slope() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, _HIDDEN), nn.PReLU(), nn.Linear(_HIDDEN, CLASSES))


def _frozen_base() -> nn.Module:
    base = nn.Sequential(nn.Linear(FEATURES, _HIDDEN), nn.Tanh()).requires_grad_(False)
    return nn.Sequential(base, nn.Linear(_HIDDEN, CLASSES))


def _called_twice() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> Any:
        hidden = self.first(x)
        for _ in range(2):
            hidden = hidden + self.block(hidden).tanh()
        return self.last(hidden)

    return Through(
        forward,
        first=nn.Linear(FEATURES, _HIDDEN),
        block=nn.Linear(_HIDDEN, _HIDDEN),
        last=nn.Linear(_HIDDEN, CLASSES),
    )


def _experts() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> Any:
        shares = self.gate(x).softmax(1)
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)
        return (shares[:, :, None] * answers).sum(1)

    experts = nn.ModuleList(nn.Linear(FEATURES, CLASSES) for _ in range(3))
    return Through(forward, gate=nn.Linear(FEATURES, 3), experts=experts)


def _bag_of_words() -> nn.Module:
    def forward(self: Any, words: torch.Tensor) -> Any:
        there = (words != 0)[:, :, None]
        mean = (self.words(words) * there).sum(1) / there.sum(1).clamp(min=1)
        return self.last(mean)

    return Through(forward, words=nn.Embedding(WORDS, 4, padding_idx=0), last=nn.Linear(4, CLASSES))


class _Masked(nn.Linear):
    """A layer of MADE (Germain et al. 2015), whose mask is a parameter that isn't trained."""

    def __init__(self) -> None:
        super().__init__(FEATURES, FEATURES)
        self.mask = nn.Parameter(torch.ones(FEATURES, FEATURES).tril(-1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight * self.mask, self.bias)


def _made() -> nn.Module:
    return nn.Sequential(_Masked(), nn.Tanh(), nn.Linear(FEATURES, CLASSES))


def _of_products() -> nn.Module:
    """What a bilinear layer computes."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        y = x.tanh()
        return self.pairs((x[:, :, None] * y[:, None]).flatten(1))

    return Through(forward, pairs=nn.Linear(FEATURES * FEATURES, CLASSES))


class _Scale(nn.Module):
    """A module with a parameter of its own, for which no sampler is written."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(_HIDDEN))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale.sigmoid()


def _own_parameter() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, _HIDDEN), _Scale(), nn.Linear(_HIDDEN, CLASSES))


def _factors() -> Task:
    """Matrix factorisation: who likes what."""

    def forward(self: Any, who: torch.Tensor, what: torch.Tensor) -> Any:
        return (self.who(who) * self.what(what)).sum(1) + self.bias(what)[:, 0]

    def losses(model: Any, batch: Batch) -> Any:
        return (model(batch["who"], batch["what"]) - batch["stars"]).square()

    return task_of(
        lambda: Through(
            forward, who=nn.Embedding(7, 3), what=nn.Embedding(9, 3), bias=nn.Embedding(9, 1)
        ),
        losses,
        who=label(7),
        what=label(9),
        stars=ArraySpec((), "float32", 0, 5),
    )


def _two_towers() -> Task:
    """Pairs that are alike within a row and differ from the row's own negatives."""

    def losses(model: Any, batch: Batch) -> Any:
        query = functional.normalize(model.query(batch["query"]), dim=-1)
        answers = functional.normalize(model.answer(batch["answers"]), dim=-1)
        return -(query[:, None] * answers).sum(-1).div(0.5).log_softmax(1)[:, 0]

    return task_of(
        lambda: nn.ModuleDict({"query": nn.Linear(FEATURES, 4), "answer": nn.Linear(FEATURES, 4)}),
        losses,
        query=features(),
        answers=features(4, FEATURES),
    )


def _autoencoder() -> Task:
    def losses(model: Any, batch: Batch) -> Any:
        return (model(batch["x"]) - batch["x"]).square().sum(1)

    return task_of(
        lambda: nn.Sequential(nn.Linear(FEATURES, 2), nn.Tanh(), nn.Linear(2, FEATURES)),
        losses,
        x=features(),
    )


def _by_one_hot(model: Any, batch: Batch) -> Any:
    wanted = functional.one_hot(batch["y"], CLASSES)
    return -(wanted * model(batch["x"]).log_softmax(1)).sum(1)


def _yes_or_no(model: Any, batch: Batch) -> Any:
    wanted = functional.one_hot(batch["y"], CLASSES).float()
    losses = functional.binary_cross_entropy_with_logits(
        model(batch["x"]), wanted, reduction="none"
    )
    return losses.mean(1)


def _by_gaussian(model: Any, batch: Batch) -> Any:
    mean, spread, _ = model(batch["x"]).unbind(1)
    target = batch["x"][:, 0]
    variance = functional.softplus(spread) + 0.1
    return functional.gaussian_nll_loss(mean, target, variance, reduction="none") + mean * 0


def _masked(model: Any, batch: Batch) -> Any:
    """What is missing counts zero, by `torch.where`."""
    losses = cross_entropy(model, batch)
    return torch.where(batch["x"][:, 0] > 0, losses, 0.1 * losses)


def _clipped_gradients() -> nn.Module:
    """Each row's gradient is clipped on its way back, by its own norm."""

    def clipped(gradient: Any) -> Any:
        norms = gradient.flatten(1).norm(dim=1, keepdim=True)
        return gradient * (0.1 / (norms + 1e-6)).clamp(max=1.0)

    def forward(self: Any, x: torch.Tensor) -> Any:
        hidden = self.first(x)
        if hidden.requires_grad:
            hidden.register_hook(clipped)
        return self.last(hidden.tanh())

    return Through(forward, first=nn.Linear(FEATURES, _HIDDEN), last=nn.Linear(_HIDDEN, CLASSES))


def _smoothed() -> nn.Module:
    """What is slow of 8 places, by a spectrum (Lee-Thorp et al. 2022 have it for attention)."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        slow = torch.fft.rfft(self.first(x), dim=1)[:, :3]
        return self.last(torch.fft.irfft(slow, n=8, dim=1).mean(1))

    return Through(forward, first=nn.Linear(4, 4), last=nn.Linear(4, CLASSES))


def _over_a_week() -> nn.Module:
    """A moving mean over seven days, all rows side by side on each."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        mean = 0.0
        for day in self.first(x).transpose(0, 1).contiguous():
            mean = 0.5 * mean + day
        return self.last(mean)

    return Through(forward, first=nn.Linear(2, 4), last=nn.Linear(4, CLASSES))


def _row_by_row(model: Any, batch: Batch) -> Any:
    """Rows in turn, scaled and written to their places; losses in two halves."""
    x = torch.zeros_like(batch["x"])
    for place, row in enumerate(batch["x"]):
        x[place] = row / row.norm().clamp(min=0.1)
    losses = cross_entropy(model, {**batch, "x": x})
    half = len(losses) // 2
    return torch.cat([losses[:half] * 1.5, losses[half:] * 0.5 + losses[half:]])


ENTRIES = (
    Entry("linear", classified(lambda: nn.Linear(FEATURES, CLASSES))),
    Entry("perceptron", classified(_perceptron)),
    Entry("rms_norm", classified(_rms_norm)),
    Entry("parametric_slope", classified(_parametric_slope)),
    Entry("frozen_base", classified(_frozen_base)),
    Entry("called_twice", classified(_called_twice)),
    Entry("experts", classified(_experts)),
    Entry("bag_of_words", read_text(_bag_of_words)),
    Entry("masked_weights", classified(_made)),
    Entry("of_products", classified(_of_products)),
    Entry("clipped_gradients", classified(_clipped_gradients)),
    Entry("smoothed", classified(_smoothed, 8, 4)),
    Entry("over_a_week", classified(_over_a_week, 7, 2)),
    Entry("row_by_row", losses_alone(_row_by_row)),
    Entry("own_parameter", classified(_own_parameter)),
    Entry("factors", _factors),
    Entry("two_towers", _two_towers),
    Entry("autoencoder", _autoencoder),
    Entry("one_hot", losses_alone(_by_one_hot)),
    Entry("yes_or_no", losses_alone(_yes_or_no)),
    Entry("gaussian", losses_alone(_by_gaussian)),
    Entry("masked", losses_alone(_masked)),
)
