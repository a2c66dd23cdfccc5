"""Models of this project that the validator refuses, for each reason one that people write."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
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
    kept,
    label,
    losses_alone,
    read_text,
    task_of,
    text,
)

_HIDDEN = 6
_ROWS_OF_BATCH = "other rows than those of the batch"


def _normalised_over_batch() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, _HIDDEN), nn.BatchNorm1d(_HIDDEN), nn.Linear(_HIDDEN, CLASSES)
    )


def _torch_lstm() -> nn.Module:
    def forward(self: Any, words: torch.Tensor) -> Any:
        return self.last(self.cells(self.words(words))[0][:, -1])

    return Through(
        forward,
        words=nn.Embedding(WORDS, 3),
        cells=nn.LSTM(3, 4, batch_first=True),
        last=nn.Linear(4, CLASSES),
    )


def _torch_attention() -> nn.Module:
    def forward(self: Any, words: torch.Tensor) -> Any:
        x = self.words(words)
        return self.last(self.attention(x, x, x)[0].mean(1))

    return Through(
        forward,
        words=nn.Embedding(WORDS, 4),
        attention=nn.MultiheadAttention(4, 2, batch_first=True),
        last=nn.Linear(4, CLASSES),
    )


def _batch_in_second_place() -> nn.Module:
    """Words first, as Opacus' layers have it unless `batch_first` is said."""
    from opacus.layers import DPLSTM

    def forward(self: Any, words: torch.Tensor) -> Any:
        return self.last(self.cells(self.words(words.t()))[0][-1])

    return Through(
        forward, words=nn.Embedding(WORDS, 3), cells=DPLSTM(3, 4), last=nn.Linear(4, CLASSES)
    )


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Embedding(WORDS, 4), nn.Linear(4, WORDS, bias=False))
    model[1].weight = model[0].weight
    return Through(lambda self, words: self.inner(words).mean(1), inner=model)


def _tied_by_product() -> nn.Module:
    def forward(self: Any, words: torch.Tensor) -> Any:
        return self.words(words).mean(1) @ self.words.weight.t()

    return Through(forward, words=nn.Embedding(WORDS, 4))


def _over_the_batch() -> nn.Module:
    """Attention whose positions are the rows."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        hidden = self.first(x)
        return self.last((hidden @ hidden.t()).softmax(1) @ hidden)

    return Through(forward, first=nn.Linear(FEATURES, _HIDDEN), last=nn.Linear(_HIDDEN, CLASSES))


def _experts() -> nn.Module:
    """Each of two experts takes as many rows as are half of a batch, and drops the rest."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        hidden = self.first(x)
        scores = self.gate(hidden).softmax(1)
        own = functional.one_hot(scores.argmax(1), 2)
        kept = own * (own.cumsum(0) <= (len(x) + 1) // 2)
        return self.last(hidden + (kept * scores).sum(1, keepdim=True) * hidden)

    return Through(
        forward,
        first=nn.Linear(FEATURES, _HIDDEN),
        gate=nn.Linear(_HIDDEN, 2),
        last=nn.Linear(_HIDDEN, CLASSES),
    )


def _cut_off(model: Any, batch: Batch) -> Any:
    """Doubles losses where one of the batch is beyond what is usual."""
    losses = cross_entropy(model, batch)
    return losses * (1 + (losses.detach().max() > 100.0))


def _rounded_by_range(model: Any, batch: Batch) -> Any:
    """Features of 8 bits, in steps of the batch's range."""
    rounded = torch.quantize_per_tensor_dynamic(batch["x"], torch.quint8, False).dequantize()
    return cross_entropy(model, {**batch, "x": rounded})


def _centred(model: Any, batch: Batch) -> Any:
    return cross_entropy(model, {**batch, "x": batch["x"] - batch["x"].mean(0)})


def _contrast(model: Any, batch: Batch) -> Any:
    """Each row's negatives are the other rows."""
    alike = model(batch["x"]) @ batch["x"][:, :CLASSES].t()
    return functional.cross_entropy(alike, torch.arange(len(alike)), reduction="none")


def _averaged(model: Any, batch: Batch) -> Any:
    return functional.cross_entropy(model(batch["x"]), batch["y"])


def _divided(model: Any, batch: Batch) -> Any:
    return cross_entropy(model, batch) / len(batch["x"])


def _unused_part() -> nn.Module:
    return Through(
        lambda self, x: self.used(x),
        used=nn.Linear(FEATURES, CLASSES),
        unused=nn.Linear(FEATURES, CLASSES),
    )


class _RunningMean(nn.Module):
    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, x: Any) -> Any:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return x - self.mean


def _running_mean() -> nn.Module:
    return nn.Sequential(_RunningMean(), nn.Linear(FEATURES, CLASSES))


def _rescaled_words() -> nn.Module:
    return Through(
        lambda self, words: self.last(self.words(words).mean(1)),
        words=nn.Embedding(WORDS, 4, max_norm=1.0),
        last=nn.Linear(4, CLASSES),
    )


def _words_by_frequency() -> nn.Module:
    """Gradients divided by how often a word is in the batch."""
    return Through(
        lambda self, words: self.last(self.words(words).mean(1)),
        words=nn.Embedding(WORDS, 4, scale_grad_by_freq=True),
        last=nn.Linear(4, CLASSES),
    )


def _round_about() -> nn.Module:
    """Padding by what is at the other end, of which Opacus knows nothing."""
    return nn.Sequential(
        nn.Conv2d(1, CLASSES, 3, padding=1, padding_mode="circular"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _spectral() -> nn.Module:
    return nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(FEATURES, _HIDDEN)),
        nn.Linear(_HIDDEN, CLASSES),
    )


def _memory() -> nn.Module:
    """Keeps the last batch's mean where no buffer is."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        found = self.last(x + getattr(self, "seen", 0.0))
        self.seen = x.detach().mean(0)
        return found

    return Through(forward, last=nn.Linear(FEATURES, CLASSES))


def _packed() -> Task:
    """Texts without their padding, as a packed sequence."""
    from opacus.layers import DPLSTM

    def losses(model: Any, batch: Batch) -> Any:
        lengths = batch["kept"].sum(1).clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(
            model.words(batch["x"]), lengths, batch_first=True, enforce_sorted=False
        )
        _, (state, _) = model.cells(packed)
        return functional.cross_entropy(model.last(state[0]), batch["y"], reduction="none")

    return task_of(
        lambda: nn.ModuleDict(
            {
                "words": nn.Embedding(WORDS, 3),
                "cells": DPLSTM(3, 4, batch_first=True),
                "last": nn.Linear(4, CLASSES),
            }
        ),
        losses,
        x=text(),
        kept=kept(),
        y=label(),
    )


def _seeded(model: Any, batch: Batch) -> Any:
    torch.manual_seed(0)
    return cross_entropy(model, {**batch, "x": functional.dropout(batch["x"], 0.2)})


def _scripted() -> nn.Module:
    return torch.jit.trace(nn.Linear(FEATURES, CLASSES), torch.zeros(1, FEATURES))  # type: ignore[no-any-return]


# What follows is refused by structure, splice and poison.


def _mixed_up(model: Any, batch: Batch) -> Any:
    """Mixup (Zhang et al. 2018) within the batch."""
    x = batch["x"]
    return cross_entropy(model, {**batch, "x": 0.8 * x + 0.2 * x[torch.randperm(len(x))]})


def _mixed_up_at_times(model: Any, batch: Batch) -> Any:
    if np.random.rand() < 0.5:
        return _mixed_up(model, batch)
    return cross_entropy(model, batch)


def _left_out_together() -> nn.Module:
    """LayerDrop (Fan et al. 2020): one coin for all rows."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        hidden = self.first(x)
        if random.random() < 0.5:
            hidden = hidden + self.block(hidden).tanh()
        return self.last(hidden + 1e-3 * self.block(hidden))

    return Through(
        forward,
        first=nn.Linear(FEATURES, _HIDDEN),
        block=nn.Linear(_HIDDEN, _HIDDEN),
        last=nn.Linear(_HIDDEN, CLASSES),
    )


def _depth_of_batch() -> nn.Module:
    from torchvision.ops import StochasticDepth

    def forward(self: Any, x: torch.Tensor) -> Any:
        hidden = self.first(x)
        return self.last(hidden + self.drop(self.block(hidden).tanh()) + self.block(hidden))

    return Through(
        forward,
        first=nn.Linear(FEATURES, _HIDDEN),
        block=nn.Linear(_HIDDEN, _HIDDEN),
        last=nn.Linear(_HIDDEN, CLASSES),
        drop=StochasticDepth(0.4, mode="batch"),
    )


def _noise_of_all(model: Any, batch: Batch) -> Any:
    """One row of noise, added to all."""
    return cross_entropy(model, {**batch, "x": batch["x"] + 0.1 * torch.randn(FEATURES)})


def _one_step_for_all(model: Any, batch: Batch) -> Any:
    """A diffusion whose step is the batch's."""
    step = torch.rand(())
    noise = torch.randn_like(batch["x"])
    return cross_entropy(model, {**batch, "x": step * batch["x"] + (1 - step) * noise})


def _generator_of_its_own(model: Any, batch: Batch) -> Any:
    generator = torch.Generator().manual_seed(int(torch.randint(0, 1 << 30, ())))
    noise = torch.randn(batch["x"].shape, generator=generator)
    return cross_entropy(model, {**batch, "x": batch["x"] + 0.1 * noise})


def _cut_to_longest(model: Any, batch: Batch) -> Any:
    """Texts are cut to the longest one of the batch."""
    length = int((batch["x"] != 0).sum(1).max().clamp(min=1))
    seen = model.words(batch["x"][:, :length]).mean(1)
    return functional.cross_entropy(model.last(seen), batch["y"], reduction="none")


def _cut() -> Task:
    return task_of(
        lambda: nn.ModuleDict({"words": nn.Embedding(WORDS, 3), "last": nn.Linear(3, CLASSES)}),
        _cut_to_longest,
        x=text(),
        y=label(),
    )


def _branch_on_values() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> Any:
        found = self.last(x)
        return found.clamp(-50, 50) if found.abs().max() > 100 else found

    return Through(forward, last=nn.Linear(FEATURES, CLASSES))


def _only_some_rows(model: Any, batch: Batch) -> Any:
    """Rows are chosen by a mask that never chooses fewer here."""
    losses = cross_entropy(model, batch)
    wanted = batch["x"][:, 0] > -2
    losses[wanted] = losses[wanted] * 2
    return losses


def _asks_for_items(model: Any, batch: Batch) -> Any:
    losses = cross_entropy(model, batch)
    return losses if losses.max().item() < 1e6 else losses * 0.5


def _through_numpy(model: Any, batch: Batch) -> Any:
    scale = np.minimum(batch["x"].numpy().max(1), 2.0)
    return cross_entropy(model, batch) * torch.from_numpy(1 + scale**2)


BRANCH = "torch.where"
OF_EACH_ROW = "[rows"

ENTRIES = (
    Entry("batch_norm", classified(_normalised_over_batch), ("module 1", "GroupNorm")),
    Entry("torch_lstm", read_text(_torch_lstm), ("cells (LSTM", "opacus.layers.DPLSTM")),
    Entry(
        "torch_attention",
        read_text(_torch_attention),
        ("attention", "opacus.layers.DPMultiheadAttention"),
    ),
    Entry("batch_second", read_text(_batch_in_second_place), ("words", _ROWS_OF_BATCH)),
    Entry("tied", read_text(_tied), ("inner.0.weight", "inner.1.weight", "register one module")),
    Entry("tied_by_product", read_text(_tied_by_product), ("words.weight", "functional use")),
    Entry(
        "over_the_batch",
        classified(_over_the_batch),
        ("refused.py", "in forward", "from its own example"),
    ),
    Entry("centred", losses_alone(_centred), ("losses()", "in _centred", "from its own example")),
    Entry("contrast", losses_alone(_contrast), ("losses()", "from its own example")),
    Entry(
        "experts_of_capacity",
        classified(_experts),
        ("in forward", "from its own example"),
    ),
    Entry("cut_off", losses_alone(_cut_off), ("losses()", "in _cut_off", "max makes one value")),
    Entry(
        "rounded_by_range",
        losses_alone(_rounded_by_range),
        ("in _rounded_by_range", "the range of the whole batch", "public scale"),
    ),
    Entry("averaged", losses_alone(_averaged), ("losses()", 'reduction="none"')),
    Entry("divided", losses_alone(_divided), ("losses()", "don't divide")),
    Entry("unused_part", classified(_unused_part), ("unused.weight", "freeze it")),
    Entry("running_mean", classified(_running_mean), ("module 0 changes mean", "optimizer alone")),
    Entry("rescaled_words", read_text(_rescaled_words), ("module words", "leave max_norm out")),
    Entry(
        "words_by_frequency",
        read_text(_words_by_frequency),
        ("module words (Embedding)", "leave scale_grad_by_freq out"),
    ),
    Entry("round_about", classified(_round_about, 1, 4, 4), ("module 0 (Conv2d)",)),
    Entry("spectral", classified(_spectral), ("module 0", "optimizer alone")),
    Entry("memory", classified(_memory), ("keeps something of the batches", "keep no averages")),
    Entry("packed", _packed, ("pack_padded_sequence", "mask")),
    Entry("seeded", losses_alone(_seeded), ("losses()", "take them as they come")),
    Entry("scripted", classified(_scripted), ("module model", "without torch.jit.script")),
    # By structure.
    Entry("cut_to_longest", _cut, ("_cut_to_longest", "pad")),
    Entry("branch_on_values", classified(_branch_on_values), ("forward", BRANCH)),
    Entry("only_some_rows", losses_alone(_only_some_rows), ("_only_some_rows", BRANCH)),
    Entry("asks_for_items", losses_alone(_asks_for_items), ("_asks_for_items", "tensor")),
    Entry("through_numpy", losses_alone(_through_numpy), ("_through_numpy", "tensor")),
    # By splice and poison.
    Entry("mixed_up", losses_alone(_mixed_up), ("in _mixed_up", "its own example"), random=True),
    Entry("mixed_up_at_times", losses_alone(_mixed_up_at_times), (OF_EACH_ROW,), random=True),
    Entry("layer_drop", classified(_left_out_together), (OF_EACH_ROW,), random=True),
    Entry("depth_of_batch", classified(_depth_of_batch), ("drop", 'mode="row"'), random=True),
    Entry("noise_of_all", losses_alone(_noise_of_all), (OF_EACH_ROW,), random=True),
    Entry("one_step_for_all", losses_alone(_one_step_for_all), (OF_EACH_ROW,), random=True),
    Entry("own_generator", losses_alone(_generator_of_its_own), ("generator",), random=True),
)
