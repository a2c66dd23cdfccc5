"""Models of this project that are refused since the rows of their batches meet, or may."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
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
    linear,
    losses_alone,
    task_of,
    text,
)

_HIDDEN = 6
BRANCH = "torch.where"
OF_EACH_ROW = "[rows"


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


def _by_the_first(model: Any, batch: Batch) -> Any:
    """The first row decides how much all count."""
    return cross_entropy(model, batch) * torch.where(batch["x"][0, 0] > 100.0, 0.1, 1.0)


def _beside_the_last(model: Any, batch: Batch) -> Any:
    """A row counts not where its label is that of the row before it."""
    again = functional.pad(batch["y"][1:] == batch["y"][:-1], (1, 0))
    return cross_entropy(model, batch) * torch.where(again, 0.0, 1.0)


def _without_positives_of_others() -> Task:
    """Negatives are left out where they are somebody's positive in the batch."""

    def losses(model: Any, batch: Batch) -> Any:
        apart = ~torch.isin(batch["negatives"], batch["id"])
        alike = model(batch["x"]).sum(1, keepdim=True).tanh() * apart
        return cross_entropy(model, batch) + alike.sum(1)

    ids = ArraySpec((4,), "int64", 0, 10**6)
    one = ArraySpec((), "int64", 0, 10**6)
    return task_of(linear, losses, x=features(), y=label(), id=one, negatives=ids)


def _numbered() -> Task:
    """Ids get the next number when they are first seen, by a function of Python's."""
    numbers: dict[int, int] = {}

    def losses(model: Any, batch: Batch) -> Any:
        places = batch["x"].clone().apply_(lambda _: numbers.setdefault(0, len(numbers)))
        return functional.cross_entropy(model(batch["x"] + places), batch["y"], reduction="none")

    return task_of(linear, losses, x=features(), y=label())


def _gradients_scaled_together() -> nn.Module:
    """Halves the gradient of the batch where its norm is beyond what is usual."""

    def halved(gradient: torch.Tensor) -> torch.Tensor:
        norm = gradient.norm()
        return gradient * torch.where((norm > 1e6) & (norm < 1e7), 0.5, 1.0)

    def forward(self: Any, x: torch.Tensor) -> Any:
        hidden = self.first(x)
        hidden.register_hook(halved)
        return self.last(hidden.tanh())

    return Through(forward, first=nn.Linear(FEATURES, _HIDDEN), last=nn.Linear(_HIDDEN, CLASSES))


ENTRIES = (
    Entry(
        "over_the_batch",
        classified(_over_the_batch),
        ("rows_that_meet.py", "in forward", "from its own example"),
    ),
    Entry("centred", losses_alone(_centred), ("losses()", "in _centred", "from its own example")),
    Entry("contrast", losses_alone(_contrast), ("losses()", "from its own example")),
    Entry(
        "experts_of_capacity",
        classified(_experts),
        ("in forward", "from its own example"),
    ),
    Entry("cut_off", losses_alone(_cut_off), ("losses()", "in _cut_off", "max makes one value")),
    Entry("by_the_first", losses_alone(_by_the_first), ("in _by_the_first", "of several rows")),
    Entry("beside_the_last", losses_alone(_beside_the_last), ("_beside_the_last", "several rows")),
    Entry("others_positives", _without_positives_of_others, ("in losses", "isin runs along")),
    Entry("numbered", _numbered, ("apply_() reads them", "torch's tensors")),
    Entry(
        "gradients_scaled_together",
        classified(_gradients_scaled_together),
        ("the backward pass", "in halved", "g.flatten(1)"),
    ),
    Entry(
        "rounded_by_range",
        losses_alone(_rounded_by_range),
        ("in _rounded_by_range", "the range of the whole batch", "public scale"),
    ),
    Entry("cut_to_longest", _cut, ("_cut_to_longest", "pad")),
    Entry("branch_on_values", classified(_branch_on_values), ("forward", BRANCH)),
    Entry("only_some_rows", losses_alone(_only_some_rows), ("_only_some_rows", BRANCH)),
    Entry("asks_for_items", losses_alone(_asks_for_items), ("_asks_for_items", "tensor")),
    Entry("through_numpy", losses_alone(_through_numpy), ("_through_numpy", "tensor")),
    Entry("mixed_up", losses_alone(_mixed_up), ("in _mixed_up", "its own example"), random=True),
    Entry("mixed_up_at_times", losses_alone(_mixed_up_at_times), (OF_EACH_ROW,), random=True),
    Entry("layer_drop", classified(_left_out_together), (OF_EACH_ROW,), random=True),
    Entry("depth_of_batch", classified(_depth_of_batch), ("drop", 'mode="row"'), random=True),
    Entry("noise_of_all", losses_alone(_noise_of_all), (OF_EACH_ROW,), random=True),
    Entry("one_step_for_all", losses_alone(_one_step_for_all), (OF_EACH_ROW,), random=True),
    Entry("own_generator", losses_alone(_generator_of_its_own), ("generator",), random=True),
)
