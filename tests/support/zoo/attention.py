"""Attention over the positions of one example."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.support.zoo.entry import Entry
from tests.support.zoo.making import (
    CLASSES,
    LENGTH,
    WORDS,
    Through,
    classified,
    read_text,
)

_WIDTH, _HEADS = 8, 2


class Attention(nn.Module):
    """Heads of attention over dimension 1, by torch's own function."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.in_, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.causal = causal

    def forward(self, x: torch.Tensor) -> Any:
        """Return Tensor[rows, T, width]."""
        rows, length, width = x.shape
        parts = self.in_(x).view(rows, length, 3, _HEADS, width // _HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        met = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out(met.transpose(1, 2).reshape(rows, length, width))


class Positions(nn.Module):
    """A parameter for each position, in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Embedding(LENGTH, _WIDTH)

    def forward(self, words: torch.Tensor) -> Any:
        """Return Tensor[rows, T, width]."""
        return self.at(torch.arange(words.shape[1]).expand(len(words), -1))


def _encoder(causal: bool = False) -> nn.Module:
    def forward(self: Any, words: torch.Tensor) -> Any:
        x = self.words(words) + self.positions(words)
        x = x + self.attention(self.norm(x))
        x = x + self.narrow(functional.gelu(self.wide(x)))
        return self.last(x.mean(1))

    return Through(
        forward,
        words=nn.Embedding(WORDS, _WIDTH),
        positions=Positions(),
        norm=nn.LayerNorm(_WIDTH),
        attention=Attention(causal),
        wide=nn.Linear(_WIDTH, 2 * _WIDTH),
        narrow=nn.Linear(2 * _WIDTH, _WIDTH),
        last=nn.Linear(_WIDTH, CLASSES),
    )


def _opacus_layer() -> nn.Module:
    from opacus.layers import DPMultiheadAttention

    def forward(self: Any, words: torch.Tensor) -> Any:
        x = self.words(words)
        return self.last((x + self.attention(x, x, x)[0])[:, 0])

    return Through(
        forward,
        words=nn.Embedding(WORDS, _WIDTH),
        attention=DPMultiheadAttention(_WIDTH, _HEADS, batch_first=True),
        last=nn.Linear(_WIDTH, CLASSES),
    )


def _masked_words() -> nn.Module:
    """Word 0 is padding, of which attention sees nothing."""

    def forward(self: Any, words: torch.Tensor) -> Any:
        x = self.words(words)
        scores = self.query(x) @ self.key(x).transpose(1, 2) / math.sqrt(_WIDTH)
        shares = scores.masked_fill((words == 0)[:, None], -1e4).softmax(-1)
        return self.last((shares @ self.value(x)).amax(1))

    return Through(
        forward,
        words=nn.Embedding(WORDS, _WIDTH),
        query=nn.Linear(_WIDTH, _WIDTH),
        key=nn.Linear(_WIDTH, _WIDTH, bias=False),
        value=nn.Linear(_WIDTH, _WIDTH),
        last=nn.Linear(_WIDTH, CLASSES),
    )


def _sorted_set() -> nn.Module:
    """Of a set of points, each feature's values in order: a row's own order, not the batch's."""

    def forward(self: Any, points: torch.Tensor) -> Any:
        return self.last(self.each(points).relu().sort(1).values.flatten(1))

    return Through(forward, each=nn.Linear(3, 4), last=nn.Linear(16, CLASSES))


def _mixer() -> nn.Module:
    def forward(self: Any, x: torch.Tensor) -> Any:
        x = x + self.along(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.last((x + self.across(x).relu()).mean(1))

    return Through(
        forward,
        norm=nn.LayerNorm(4),
        along=nn.Linear(LENGTH, LENGTH),
        across=nn.Linear(4, 4),
        last=nn.Linear(4, CLASSES),
    )


def _linear_attention() -> nn.Module:
    """Katharopoulos et al. (2020): sums over what came before."""

    def forward(self: Any, words: torch.Tensor) -> Any:
        x = self.words(words)
        query, key = (functional.elu(part(x)) + 1 for part in (self.query, self.key))
        outer = torch.einsum("btk,btv->btkv", key, self.value(x)).cumsum(1)
        scale = (query * key.cumsum(1)).sum(-1, keepdim=True)
        return self.last((torch.einsum("btk,btkv->btv", query, outer) / scale).mean(1))

    return Through(
        forward,
        words=nn.Embedding(WORDS, _WIDTH),
        query=nn.Linear(_WIDTH, 4),
        key=nn.Linear(_WIDTH, 4),
        value=nn.Linear(_WIDTH, 4),
        last=nn.Linear(4, CLASSES),
    )


ENTRIES = (
    Entry("encoder", read_text(_encoder)),
    Entry("causal_encoder", read_text(lambda: _encoder(causal=True))),
    Entry("opacus_attention", read_text(_opacus_layer)),
    Entry("masked_words", read_text(_masked_words)),
    Entry("sorted_set", classified(_sorted_set, 4, 3)),
    Entry("mixer", classified(_mixer, LENGTH, 4)),
    Entry("linear_attention", read_text(_linear_attention)),
)
