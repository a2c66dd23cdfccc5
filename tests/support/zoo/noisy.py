"""Models whose passes take random numbers, of which each row has its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dtjob_trainer.task import Task
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
    losses_alone,
    read_text,
    task_of,
    text,
)

_HIDDEN, _STEPS, _SIDE = 6, 20, 5


def _dropout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, _HIDDEN), nn.ReLU(), nn.Dropout(0.3), nn.Linear(_HIDDEN, CLASSES)
    )


def _alpha_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, _HIDDEN), nn.SELU(), nn.AlphaDropout(0.2), nn.Linear(_HIDDEN, CLASSES)
    )


def _channel_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Dropout2d(0.4), nn.Flatten(), nn.Linear(36, CLASSES)
    )


def _residual(drop: nn.Module) -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> Any:
        hidden = self.first(x)
        return self.last(hidden + self.drop(self.block(hidden).tanh()))

    return Through(
        forward,
        first=nn.Linear(FEATURES, _HIDDEN),
        block=nn.Linear(_HIDDEN, _HIDDEN),
        last=nn.Linear(_HIDDEN, CLASSES),
        drop=drop,
    )


class _DropPath(nn.Module):
    """A whole branch of a row is left out, as `timm` has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        kept = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(0.6)
        return x * kept.div_(0.6)


def _stochastic_depth() -> nn.Module:
    from torchvision.ops import StochasticDepth

    return _residual(StochasticDepth(0.4, mode="row"))


def _diffusion() -> Task:
    """A step for each row, and its noise (Ho et al. 2020)."""

    def forward(self: Any, noisy: torch.Tensor, step: torch.Tensor) -> Any:
        return self.last((self.seen(noisy) + self.steps(step)).tanh())

    def losses(model: Any, batch: Batch) -> Any:
        x = batch["x"]
        step = torch.randint(0, _STEPS, (len(x),))
        noise = torch.randn_like(x)
        left = torch.linspace(0.99, 0.01, _STEPS)[step][:, None]
        guess = model(left.sqrt() * x + (1 - left).sqrt() * noise, step)
        return (guess - noise).square().mean(1)

    return task_of(
        lambda: Through(
            forward,
            seen=nn.Linear(FEATURES, _HIDDEN),
            steps=nn.Embedding(_STEPS, _HIDDEN),
            last=nn.Linear(_HIDDEN, FEATURES),
        ),
        losses,
        x=features(),
    )


def _variational() -> Task:
    """Kingma and Welling (2014)."""

    def losses(model: Any, batch: Batch) -> Any:
        x = batch["x"]
        mean, spread = model.in_(x).chunk(2, dim=1)
        code = mean + (spread / 2).exp() * torch.randn_like(mean)
        divergence = (mean.square() + spread.exp() - 1 - spread).sum(1) / 2
        return (model.out(code) - x).square().sum(1) + divergence

    return task_of(
        lambda: nn.ModuleDict({"in_": nn.Linear(FEATURES, 4), "out": nn.Linear(2, FEATURES)}),
        losses,
        x=features(),
    )


def _words_left_out() -> Task:
    """A masked language model that chooses words in each text."""

    def losses(model: Any, batch: Batch) -> Any:
        words = batch["x"]
        hidden = torch.rand(words.shape) < 0.4
        logits = model(torch.where(hidden, WORDS, words))
        of_each = functional.cross_entropy(logits.transpose(1, 2), words, reduction="none")
        return (of_each * hidden).sum(1) / hidden.sum(1).clamp(min=1)

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Embedding(WORDS + 1, 4), nn.Linear(4, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, WORDS)
        )

    return task_of(model, losses, x=text())


def _patches_left_out(model: Any, batch: Batch) -> Any:
    """A random order of each row's own features, of which the first ones are left out."""
    x = batch["x"]
    hidden = torch.rand(x.shape).argsort(1) < 2
    return cross_entropy(model, {**batch, "x": x.masked_fill(hidden, 0.0)})


def _noise_on_inputs(model: Any, batch: Batch) -> Any:
    x = batch["x"]
    return cross_entropy(model, {**batch, "x": x + 0.1 * torch.randn(x.shape)})


def _shifted(model: Any, batch: Batch) -> Any:
    """Each row is turned by its own number of places."""
    x = batch["x"]
    by = torch.randint(0, FEATURES, (len(x), 1))
    places = (torch.arange(FEATURES) + by) % FEATURES
    return cross_entropy(model, {**batch, "x": x.gather(1, places)})


def _soft_choice() -> nn.Module:
    """Gumbel softmax (Jang et al. 2017)."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        return self.last(functional.gumbel_softmax(self.first(x), tau=0.7, dim=-1))

    return Through(forward, first=nn.Linear(FEATURES, 4), last=nn.Linear(4, CLASSES))


def _attention_dropout() -> nn.Module:
    from opacus.layers import DPMultiheadAttention

    def forward(self: Any, words: torch.Tensor) -> Any:
        x = self.words(words)
        return self.last((x + self.attention(x, x, x)[0])[:, 0])

    return Through(
        forward,
        words=nn.Embedding(WORDS, 4),
        attention=DPMultiheadAttention(4, 2, dropout=0.3, batch_first=True),
        last=nn.Linear(4, CLASSES),
    )


def _by_distribution(model: Any, batch: Batch) -> Any:
    """`torch.distributions`, whose checks of values are switched off."""
    normal = torch.distributions.Normal(model(batch["x"]), 1.0, validate_args=False)
    return normal.rsample().square().sum(1) + model(batch["x"]).square().sum(1)


ENTRIES = (
    Entry("dropout", classified(_dropout), random=True),
    Entry("alpha_dropout", classified(_alpha_dropout), random=True),
    Entry("channel_dropout", classified(_channel_dropout, 2, _SIDE, _SIDE), random=True),
    Entry("drop_path", classified(lambda: _residual(_DropPath())), random=True),
    Entry("stochastic_depth", classified(_stochastic_depth), random=True),
    Entry("diffusion", _diffusion, random=True),
    Entry("variational", _variational, random=True),
    Entry("words_left_out", _words_left_out, random=True),
    Entry("features_left_out", losses_alone(_patches_left_out), random=True),
    Entry("noise_on_inputs", losses_alone(_noise_on_inputs), random=True),
    Entry("shifted", losses_alone(_shifted), random=True),
    Entry("soft_choice", classified(_soft_choice), random=True),
    Entry("attention_dropout", read_text(_attention_dropout), random=True),
    Entry("distribution", losses_alone(_by_distribution), random=True),
)
