"""Rules 8 and 21: random numbers are each row's own."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from opacus.layers import DPLSTM, DPMultiheadAttention
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dtjob_trainer.preflight.rows import two_streams
from dtjob_trainer.preflight.rows.axes import ROWS
from dtjob_trainer.preflight.rows.passes import passes_of
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.blocks import Function, hidden, rows
from tests.support.mechanism.models import CLASSES, FEATURES, cross_entropy, make_task

CPU = torch.device("cpu")


def check(task: Task) -> None:
    with passes_of(task, task.model(), CPU) as passes:
        two_streams.check(passes, rows(ROWS))


def refused(task: Task, *words: str) -> None:
    with pytest.raises(TaskError) as caught:
        check(task)
    assert caught.value.reason == "ModelRefused"
    assert [word for word in words if word not in caught.value.message] == []


def of_heads(h: torch.Tensor) -> torch.Tensor:
    """Dropout where the rows are part of the first dimension: rows * heads."""
    return functional.dropout(h.reshape(len(h) * 4, 2), 0.3).reshape(h.shape)


def of_places(h: torch.Tensor) -> torch.Tensor:
    """Dropout where places come before rows in one dimension."""
    by_place = h.reshape(len(h), 4, 2).transpose(0, 1).reshape(-1, 2)
    dropped = functional.dropout(by_place, 0.3)
    return dropped.reshape(4, len(h), 2).transpose(0, 1).reshape(h.shape)


def of_time(h: torch.Tensor) -> torch.Tensor:
    return functional.dropout(h.reshape(len(h), 4, 2).transpose(0, 1), 0.3).sum(0).repeat(1, 4)


def drop_path(h: torch.Tensor) -> torch.Tensor:
    return h * h.new_empty(len(h), 1).bernoulli_(0.7) / 0.7


def own_order(h: torch.Tensor) -> torch.Tensor:
    return h.gather(1, torch.rand(h.shape).argsort(1))


def idle_coin(h: torch.Tensor) -> torch.Tensor:
    """What many models of Hugging Face do where layerdrop is 0."""
    return h * 0 if torch.rand([]) < 0.0 else h


ACCEPTED: dict[str, Function] = {
    "none": torch.tanh,
    "dropout": lambda h: functional.dropout(h, 0.3),
    "dropout2d": lambda h: functional.dropout2d(h[:, :, None, None], 0.3)[:, :, 0, 0],
    "alpha dropout": lambda h: functional.alpha_dropout(h, 0.3, training=True),
    "rrelu": lambda h: functional.rrelu(h, training=True),
    "in heads": of_heads,
    "in places": of_places,
    "in time": of_time,
    "drop path": drop_path,
    "noise": lambda h: h + torch.randn_like(h) * torch.rand(len(h), 1),
    "a step of diffusion for each row": lambda h: h * torch.randint(9, (len(h), 1)),
    "an order for each row": own_order,
    "a choice for each row": lambda h: h.gather(1, h.detach().softmax(1).multinomial(8)),
    "repeated in the backward pass": lambda h: checkpoint(
        lambda it: functional.dropout(it, 0.5) ** 2, h, use_reentrant=False
    ),
    "a coin that decides nothing": idle_coin,
}


@pytest.mark.models
@pytest.mark.parametrize("name", ACCEPTED)
def test_numbers_of_each_row_are_accepted(name: str) -> None:
    check(hidden(ACCEPTED[name]))


def test_usual_dropout_is_accepted() -> None:
    check(hidden(of_heads))


def layer_drop(h: torch.Tensor) -> torch.Tensor:
    return h if torch.rand(()) < 0.5 else torch.tanh(h)


def rare_drop(h: torch.Tensor) -> torch.Tensor:
    return torch.tanh(h) if torch.rand(()) < 1e-6 else h


def one_step_for_all(h: torch.Tensor) -> torch.Tensor:
    return h * torch.randint(9, (1,))


def for_each_row_in_turn(h: torch.Tensor) -> torch.Tensor:
    return torch.stack([row + torch.randn(8) for row in h])


def mixed_up(h: torch.Tensor) -> torch.Tensor:
    return h + 0.1 * h[torch.randperm(len(h))]


def own_generator(h: torch.Tensor) -> torch.Tensor:
    return h + torch.rand(h.shape, generator=torch.Generator().manual_seed(0))


SHARED: dict[str, tuple[Function, tuple[str, ...]]] = {
    "row 0's for all": (lambda h: h * (1 + 1e-3 * torch.rand(len(h), 1)[0]), ("rand draws",)),
    "their mean": (lambda h: h + 1e-3 * torch.randn(len(h), 1).mean(), ("randn draws",)),
    "their maximum": (lambda h: h + 1e-3 * torch.rand(len(h), 1).amax(), ("rand draws",)),
    "an order of rows by numbers": (lambda h: h[torch.rand(len(h)).argsort()], ("rand draws",)),
    "a part of the mask": (
        lambda h: h * (torch.rand(h.shape).roll(1, 0) < 0.9),
        ("module model (Hidden) at", "test_two_streams.py:", "in <lambda>: rand draws"),
    ),
    "layer drop": (layer_drop, ("in layer_drop: rand draws", "shape []", 'mode="row"')),
    "a rare one": (rare_drop, ("in rare_drop: rand draws", "shape []")),
    "one step of diffusion": (one_step_for_all, ("in one_step_for_all: randint", "shape [1]")),
    "a loop over rows": (for_each_row_in_turn, ("7 rows and 5 for 5",)),
    "an order of rows": (mixed_up, ("in mixed_up: randperm draws an order", "argsort(1)")),
    "places of rows": (
        lambda h: h[torch.ones(len(h)).multinomial(len(h))],
        ("multinomial draws an order or a choice",),
    ),
    "a generator": (own_generator, ("torch's rand is given", "in own_generator", "generator=")),
}


@pytest.mark.models
@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", SHARED)
def test_numbers_that_rows_share_are_refused(name: str) -> None:
    function, words = SHARED[name]
    refused(hidden(function), *words, "shape [rows, ...]")


class Blocks(nn.Module):
    """Images of 5 × 5 in 2 channels, of which some part is left out."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.drop = nn.Linear(FEATURES, 50), drop
        self.head = nn.Linear(50, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images = self.drop(self.layer(x).view(-1, 2, 5, 5))
        scores: torch.Tensor = self.head(images.flatten(1))
        return scores


class BlocksOfEachRow(nn.Module):
    """DropBlock (Ghiasi et al. 2018), by what is kept of each row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centres = x.new_empty(len(x), 2, 3, 3).bernoulli_(0.2)
        left_out = functional.max_pool2d(functional.pad(centres, [1] * 4), 3, 1, 1)
        noise = 1 - left_out
        return x * noise / (noise.mean((1, 2, 3), keepdim=True) + 1e-6)


@pytest.mark.models
@pytest.mark.rule(8, 21)
def test_blocks_are_scaled_by_what_is_kept_of_each_row() -> None:
    refused(
        make_task(model=lambda: Blocks(torchvision.ops.DropBlock2d(0.3, 3))),
        "module drop (DropBlock2d)",
        "torchvision's DropBlock divides by how much of the whole batch it keeps",
        "torch.nn.Dropout2d",
        "noise.mean((1, 2, 3), keepdim=True)",
    )
    check(make_task(model=lambda: Blocks(BlocksOfEachRow())))
    check(make_task(model=lambda: Blocks(nn.Dropout2d(0.3))))


def keeping(h: torch.Tensor) -> torch.Tensor:
    """Changes no loss, and keeps a mean where a coin falls as it seldom does."""
    if torch.rand(()) < 1e-3:
        SEEN.append(h.detach().mean(0))
    return h


def asking(h: torch.Tensor) -> torch.Tensor:
    if torch.rand(()) < 1e-3 and h.sum() > 1e9:
        return h * 2
    return h


SEEN: list[torch.Tensor] = []


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize(
    ("function", "words"),
    [(keeping, "keeps something of the batches"), (asking, "in asking: if or bool() reads them")],
)
def test_what_is_done_behind_a_coin_that_seldom_falls(function: Function, words: str) -> None:
    with pytest.raises(TaskError) as caught:
        check(hidden(function))
    SEEN.clear()
    assert words in caught.value.message


@pytest.mark.rule(8, 21)
def test_a_number_of_row_0_for_all() -> None:
    refused(hidden(SHARED["row 0's for all"][0]), "rand draws", "in <lambda>")


def mixed_behind_a_coin(model: nn.Module, batch: Any) -> torch.Tensor:
    if np.random.rand() < 0.5:
        return cross_entropy(model, {**batch, "x": batch["x"] + 0.1 * batch["x"].flip(0)})
    return cross_entropy(model, batch)


def coin_of_python(model: nn.Module, batch: Any) -> torch.Tensor:
    return cross_entropy(model, batch) * random.choice([1, 2])


def own_numpy(model: nn.Module, batch: Any) -> torch.Tensor:
    return cross_entropy(model, batch) * np.random.default_rng(3).random()


RAND = np.random.rand


def imported(model: nn.Module, batch: Any) -> torch.Tensor:
    return cross_entropy(model, batch) * float(RAND() < 2)


@pytest.mark.models
@pytest.mark.rule(21)
@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (mixed_behind_a_coin, ("numpy.random.rand() at", "in mixed_behind_a_coin")),
        (coin_of_python, ("random.choice() at", "in coin_of_python")),
        (own_numpy, ("numpy.random.default_rng()", "in own_numpy")),
        (imported, ("numpy's global generator",)),
    ],
)
def test_numbers_of_python_and_numpy_are_refused(losses: Any, words: tuple[str, ...]) -> None:
    refused(make_task(losses=losses), *words, "draw them with torch", "[rows, ...]")


def test_functions_of_python_and_numpy_are_left_as_they_were() -> None:
    before = random.random, np.random.rand, np.random.default_rng
    with pytest.raises(TaskError):
        check(make_task(losses=own_numpy))
    assert (random.random, np.random.rand, np.random.default_rng) == before


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = DPLSTM(1, 4, num_layers=2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.layer(x[:, :, None])[0][:, -1])
        return scores


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = DPMultiheadAttention(4, 2, dropout=0.3, batch_first=True)
        self.embed, self.head = nn.Linear(1, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x[:, :, None])
        scores: torch.Tensor = self.head(self.layer(x, x, x)[0].mean(1))
        return scores


@pytest.mark.models
@pytest.mark.parametrize("model", [Recurrent, Attention])
def test_dropout_within_layers_of_opacus_is_each_rows_own(model: Any) -> None:
    check(make_task(model=model))
