"""Models of this project that the validator refuses, for each reason one that people write."""

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


def _bag() -> nn.Module:
    return Through(
        lambda self, words: self.last(self.words(words)),
        words=nn.EmbeddingBag(WORDS, 4),
        last=nn.Linear(4, CLASSES),
    )


def _bilinear() -> nn.Module:
    return Through(
        lambda self, x: self.last(self.pairs(x, x.tanh())),
        pairs=nn.Bilinear(FEATURES, FEATURES, 4),
        last=nn.Linear(4, CLASSES),
    )


class _Masked(nn.Linear):
    """A layer of MADE (Germain et al. 2015), whose mask is a buffer."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__(FEATURES, FEATURES)
        self.register_buffer("mask", torch.ones(FEATURES, FEATURES).tril(-1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight * self.mask, self.bias)


def _made() -> nn.Module:
    return nn.Sequential(_Masked(), nn.Tanh(), nn.Linear(FEATURES, CLASSES))


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


class _Rounding:
    """Fake quantization of activations by a hook, which begins after a while."""

    def __init__(self) -> None:
        self.step = 0

    def __call__(self, _: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        self.step += 1
        if self.step < 5000:
            return output
        scale = output.detach().abs().max() / 7
        return output + ((output / scale).round() * scale - output).detach()


def _rounded() -> nn.Module:
    model = nn.Sequential(nn.Linear(FEATURES, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, CLASSES))
    model[0].register_forward_hook(_Rounding())
    return model


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
    Entry("embedding_bag", read_text(_bag), ("words (EmbeddingBag", "use torch.nn.Embedding")),
    Entry("bilinear", classified(_bilinear), ("pairs (Bilinear", "flatten(1)")),
    Entry("made", classified(_made), ("module 0 (_Masked", "requires_grad=False")),
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
    Entry(
        "rounded",
        classified(_rounded),
        ("module 0 (Linear)._forward_hooks[0].step", "counters"),
    ),
    Entry("packed", _packed, ("pack_padded_sequence", "mask")),
    Entry("seeded", losses_alone(_seeded), ("losses()", "take them as they come")),
    Entry("scripted", classified(_scripted), ("module model", "without torch.jit.script")),
)
