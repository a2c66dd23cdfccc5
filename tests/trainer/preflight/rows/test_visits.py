"""Rule 21: rows that meet at special values only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from dtjob_trainer.preflight.rows import visits
from dtjob_trainer.preflight.rows.axes import ROWS
from dtjob_trainer.preflight.rows.passes import passes_of
from dtjob_trainer.task import ArraySpec, Task, TaskError
from tests.support.mechanism.blocks import hidden, rows
from tests.support.mechanism.models import cross_entropy, make_task

LENGTH, WORDS = 8, 20
SPEC = {"ids": ArraySpec((LENGTH,), "int64", 0, WORDS), "y": ArraySpec((), "int64", 0, 1)}
Mask = Callable[[torch.Tensor], torch.Tensor]


class Text(nn.Module):
    """Scores texts of words, of which 0 is padding, after a function of the test."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(WORDS + 1, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        words, mask = self.function(ids)
        scores: torch.Tensor = self.head((self.table(words) * mask[..., None]).mean(1))
        return scores


def text(function: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Task:
    return Task(
        model=lambda: Text(function),
        dataset=lambda: [],
        example_spec=SPEC,
        losses=lambda m, b: functional.cross_entropy(m(b["ids"]), b["y"], reduction="none"),
    )


def check(task: Task) -> None:
    with passes_of(task, task.model(), torch.device("cpu")) as passes:
        visits.check(passes, task.example_spec)


def refused(task: Task, *words: str) -> None:
    with pytest.raises(TaskError) as caught:
        check(task)
    message = caught.value.message
    assert [word for word in (*words, "mixes the examples of a batch") if word not in message] == []


def whole(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return ids, (ids != 0).float()


def cut_to_longest(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    length = int((ids != 0).sum(1).max())
    return ids[:, :length], (ids != 0)[:, :length].float()


def masked_to_longest(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return ids, (ids != 0).any(0).float().expand(ids.shape)


def at_the_end(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.where((x == 1).any(), h.flip(0), h)


def of_x(function: Callable[[torch.Tensor], torch.Tensor]) -> Task:
    """Losses on features that a function of the test has changed."""
    return make_task(losses=lambda m, b: cross_entropy(m, {**b, "x": function(b["x"])}))


@pytest.mark.models
@pytest.mark.parametrize(
    "task", [text(whole), hidden(torch.tanh), make_task()], ids=["text", "hidden", "linear"]
)
def test_rows_of_their_own_are_accepted(task: Task) -> None:
    check(task)


MIXING = {
    "cut to the longest": (text(cut_to_longest), ("ids",)),
    "masked to the longest": (text(masked_to_longest), ("in masked_to_longest",)),
    "flipped where one is at its end": (
        of_x(lambda x: torch.where((x == 1).any(), x.flip(0), x)),
        ("losses() at", "in <lambda>", "to the greatest value"),
    ),
    "sorted where one is at its start": (
        of_x(lambda x: torch.where((x == -1).any(), x.sort(0).values, x)),
        ("to the least value",),
    ),
    "flipped where a first feature is at its start": (
        of_x(lambda x: torch.where((x[:, 0] == -1).any(), x.flip(0), x)),
        ("to the least value",),
    ),
    "flipped where a row ends with the greatest value and does not begin so": (
        of_x(lambda x: torch.where(((x[:, -1] == 1) & (x[:, 0] < 1)).any(), x.flip(0), x)),
        ("the end of one example to the greatest value",),
    ),
    "flipped where a row ends with the least value and does not begin so": (
        of_x(lambda x: torch.where(((x[:, -1] == -1) & (x[:, 0] > -1)).any(), x.flip(0), x)),
        ("the end of one example to the least value",),
    ),
    "flipped where row 0 is at its end": (
        of_x(lambda x: torch.where((x[0] == 1).all(), x.flip(0), x)),
        ("to the greatest value",),
    ),
    "mean of those that are zero": (
        of_x(lambda x: torch.where(x == 0, (x == 0).float().mean(0), x)),
        ("zero",),
    ),
    "counts of equal rows": (
        of_x(lambda x: x * (x[:, None] == x).all(2).float().sum(1, keepdim=True)),
        ("where all were equal",),
    ),
    "a second use of a weight where one is at its end": (
        make_task(
            losses=lambda m, b: (
                cross_entropy(m, b)
                + (b["x"] == 1).any() * functional.linear(b["x"], m.weight).sum(1)
            )
        ),
        ("to the greatest value",),
    ),
    "labels of one class": (
        make_task(losses=lambda m, b: cross_entropy(m, b) * (1.0 + (b["y"] == 0).all())),
        ("y of one example",),
    ),
}


@pytest.mark.models
@pytest.mark.rule(21)
@pytest.mark.parametrize("name", MIXING)
def test_mixing_at_special_values_is_refused(name: str) -> None:
    task, words = MIXING[name]
    refused(task, *words)


def test_what_is_the_same_batch_is_visited_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words and labels are zero at their least."""
    visited: list[str] = []
    monkeypatch.setattr(visits, "_visit", lambda _passes, words, *_: visited.append(words))
    check(make_task())
    assert "a batch of zero" in visited
    visited.clear()
    check(text(whole))
    assert "a batch of the least value" in visited
    assert not any("zero" in words for words in visited)


@pytest.mark.rule(21)
def test_a_batch_cut_to_its_longest_text() -> None:
    refused(text(cut_to_longest), "pad to the length in example_spec, and mask")


def until_below(x: torch.Tensor) -> torch.Tensor:
    """Halves until nothing is at its end any more, but doesn't."""
    while (x.abs() == 1).all():
        x = x * 1.0
    return x


def until_apart(x: torch.Tensor) -> torch.Tensor:
    """Draws noise for a row that is at its end, and adds none."""
    while (x[:, 0] == 1).any():
        x = x + 0.0 * torch.rand_like(x)
    return x


ENDLESS = {
    "a batch": (until_below, "a batch of the least value keeps a pass from its end"),
    "a row": (until_apart, "changing x, y of one example to the greatest value keeps a pass"),
}


@pytest.mark.rule(21)
@pytest.mark.parametrize("name", ENDLESS)
def test_a_pass_that_does_not_end_at_special_values_is_refused_by_line(name: str) -> None:
    function, words = ENDLESS[name]
    task = of_x(function)
    with passes_of(task, task.model(), torch.device("cpu")) as passes:
        passes.settle(rows(ROWS))
        with pytest.raises(TaskError) as caught:
            visits.check(passes, task.example_spec)
    assert words in caught.value.message
    assert f"in {function.__name__}" in caught.value.message
    assert "a public number of turns" in caught.value.message
