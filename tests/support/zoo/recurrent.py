"""Recurrent models by Opacus' layers, and one written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.support.zoo.entry import Entry
from tests.support.zoo.making import CLASSES, WORDS, Through, read_text

_HIDDEN = 4


def _of(name: str, **options: object) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        from opacus import layers

        def forward(self: Any, words: torch.Tensor) -> Any:
            return self.last(self.cells(self.words(words))[0][:, -1])

        sides = 2 if options.get("bidirectional") else 1
        return Through(
            forward,
            words=nn.Embedding(WORDS, 3),
            cells=getattr(layers, name)(3, _HIDDEN, batch_first=True, **options),
            last=nn.Linear(sides * _HIDDEN, CLASSES),
        )

    return model


def _written_out() -> nn.Module:
    """A gated cell, called for each word."""

    def forward(self: Any, words: torch.Tensor) -> Any:
        seen = self.words(words)
        state = torch.zeros(len(words), _HIDDEN, dtype=seen.dtype)
        for position in range(seen.shape[1]):
            both = torch.cat([seen[:, position], state], 1)
            share = self.gate(both).sigmoid()
            state = share * state + (1 - share) * self.new(both).tanh()
        return self.last(state)

    return Through(
        forward,
        words=nn.Embedding(WORDS, 3),
        gate=nn.Linear(3 + _HIDDEN, _HIDDEN),
        new=nn.Linear(3 + _HIDDEN, _HIDDEN),
        last=nn.Linear(_HIDDEN, CLASSES),
    )


ENTRIES = (
    Entry("lstm", read_text(_of("DPLSTM"))),
    Entry("gru", read_text(_of("DPGRU"))),
    Entry("rnn", read_text(_of("DPRNN"))),
    Entry("lstm_both_ways", read_text(_of("DPLSTM", bidirectional=True))),
    Entry("lstm_of_two_layers", read_text(_of("DPLSTM", num_layers=2, dropout=0.4)), random=True),
    Entry("cell_written_out", read_text(_written_out)),
)
