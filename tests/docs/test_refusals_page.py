"""What docs/writing-a-task.md says is refused is refused, in the words that it quotes."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from dtjob_trainer.ledger.checkpoint import CheckpointStore, TrainingState
from dtjob_trainer.preflight.task_validation import build_model, preflight
from dtjob_trainer.task import ArraySpec, Task, TaskError
from tests.support.builders import START, UID, tiny_plan
from tests.support.checkout import ROOT
from tests.support.pages import fenced

PAGE = ROOT / "docs" / "writing-a-task.md"
Batch = Mapping[str, torch.Tensor]


def losses(model: nn.Module, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def task(
    model: Callable[[], nn.Module] = lambda: nn.Linear(4, 2),
    losses: Callable[[nn.Module, Batch], torch.Tensor] = losses,
) -> Task:
    spec = {"x": ArraySpec((4,), "float32", -1.0, 1.0), "y": ArraySpec((), "int64", 0, 1)}
    return Task(model=model, dataset=lambda: [], example_spec=spec, losses=losses)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    return model


class Centred(nn.Linear):
    """Takes the mean over the batch away."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x - x.mean(0))


class Rescaled(nn.Linear):
    """Halves what comes back to the batch where its norm is large."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = super().forward(x)
        if scores.requires_grad:
            scores.register_hook(lambda g: g / (g.norm() / 1e6).clamp(min=1))
        return scores


class Masked(nn.Linear):
    """Some of its weights are masked."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(outputs, inputs).tril())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight * self.get_buffer("mask"), self.bias)


class Remembering(nn.Linear):
    """Keeps a running mean of what it saw."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.get_buffer("mean").add_(x.mean(0))
        return super().forward(x)


class Functional(nn.Module):
    """Uses a weight outside the forward of the module that owns it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        again: torch.Tensor = functional.linear(x, self.first.weight)
        scores: torch.Tensor = self.second(again + self.first(x))
        return scores


class Embedded(nn.Module):
    """Looks its features up."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(3, 4, **options), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.table(x.round().long() + 1).mean(1))
        return scores


class Averaging(nn.Linear):
    """Keeps a mean of what it saw where no digest sees it, for use in evaluation."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.mean = torch.zeros(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean = x.mean(0).detach()
            return super().forward(x)
        return super().forward(x - self.mean)


class Partly(nn.Linear):
    """Passes the odd rows through a layer twice."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.layer(x)
        odd = torch.arange(1, len(x), 2)
        return super().forward(hidden.index_copy(0, odd, self.layer(hidden[odd])))


class Locked(nn.Linear):
    """Holds what can't be copied."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.lock = threading.Lock()


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of its own function
        made: nn.Module = torch.jit.script(nn.Linear(4, 2))
    return made


class Idle(nn.Linear):
    """Owns a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.idle = nn.Linear(2, 2)


def averaged(model: nn.Module, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(model(batch["x"]), batch["y"])


def divided(model: nn.Module, batch: Batch) -> torch.Tensor:
    return losses(model, batch) / len(batch["y"])


def infinite(model: nn.Module, batch: Batch) -> torch.Tensor:
    return losses(model, batch) + batch["x"].sum(1).log()


def branching(model: nn.Module, batch: Batch) -> torch.Tensor:
    each = losses(model, batch)
    return each * 2 if each.sum() > 1 else each


def catching(model: nn.Module, batch: Batch) -> torch.Tensor:
    scale = batch["x"].abs().sum(1)
    with contextlib.suppress(RuntimeError):
        scale = scale + torch.linalg.inv(scale[:, None, None])[:, 0, 0]
    return losses(model, batch) * scale


def branching_on_weights(model: nn.Module, batch: Batch) -> torch.Tensor:
    return losses(model, batch) * (2 if model.get_parameter("weight").norm() > 50 else 1)


#: How often losses were computed.
CALLS = itertools.count()


class WithExtraState(nn.Linear):
    """Has what state_dict() alone finds."""

    def get_extra_state(self) -> dict[str, float]:
        return {"mean": 0.0}

    def set_extra_state(self, state: dict[str, float]) -> None:
        pass


def seeded(model: nn.Module, batch: Batch) -> torch.Tensor:
    torch.manual_seed(0)
    return losses(model, batch)


def scaled(factor: Callable[[torch.Tensor], torch.Tensor]) -> Task:
    """Losses times something random."""
    return task(losses=lambda model, batch: losses(model, batch) * factor(batch["x"]))


#: One global model, which the first dry run has moved.
KEPT = nn.Linear(4, 2)
build_model(task(lambda: KEPT), torch.device("cpu"))

CASES = {
    "BatchNorm": task(lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))),
    "a loss that is averaged": task(losses=averaged),
    "a loss divided by the number of rows": task(losses=divided),
    "attention, sorting or statistics over the first dimension, experts of a capacity for the "
    "batch, mixup and CutMix, negatives from the batch, also where only some values lead there": (
        task(lambda: Centred(4, 2))
    ),
    "a number of the whole batch, such as its greatest value or a metric, also where no row uses "
    "it": scaled(lambda x: 1 + (x.max() > 1e6)),
    "a statistic of the batch's gradients, in a hook or the backward pass of an "
    "autograd.Function": task(lambda: Rescaled(4, 2)),
    "what follows for a row from the first one or few, from those before or from a neighbour": (
        scaled(lambda x: 1 + (x[0, 0] > 1e6))
    ),
    "an order or a sum along the rows, also where only some values lead there": scaled(
        lambda x: 1 + ((x[:, 0] > 0.99).cumsum(0) > 3)
    ),
    "except LinAlgError: and whatever else goes on after an error": task(losses=catching),
    "a count of calls or steps, kept anywhere, as for annealing, also in a hook or a handler of "
    "logs": scaled(lambda _: torch.tensor(min(1.0, next(CALLS) / 1000))),
    "a branch on weights": task(losses=branching_on_weights),
    'a random number for all rows: LayerDrop, StochasticDepth of mode="batch", a random transform '
    "of a whole batch, one diffusion step for it": scaled(lambda _: torch.rand(1)),
    "random numbers of which a row's reach other rows": scaled(lambda x: torch.rand(len(x))[0]),
    "a random order or choice of rows, as of torch.randperm": scaled(
        lambda x: torch.randperm(len(x))
    ),
    "random numbers of Python or numpy while a batch is computed": scaled(
        lambda _: torch.tensor(random.random())
    ),
    "random numbers of a torch.Generator of yours": scaled(
        lambda x: torch.rand(len(x), generator=torch.Generator().manual_seed(0))
    ),
    "gamma, beta, Dirichlet, Poisson or binomial numbers of parameters that follow from an "
    "example": scaled(lambda x: torch._standard_gamma(x.exp()).sum(1)),
    "code that asks for values of the batch: a branch on them, or a shape made of them": task(
        losses=branching
    ),
    "parameters that are tied": task(tied),
    "a parameter with no loss depends on it": task(Idle),
    "a buffer or parameter that a module changes while it computes": task(Remembering),
    "an embedding that has max_norm": task(lambda: Embedded(max_norm=9.0)),
    "an embedding that has scale_grad_by_freq": task(lambda: Embedded(scale_grad_by_freq=True)),
    "an attribute, a list or a cache that keeps something of the batches: a mean, the last hidden "
    "states": task(Averaging),
    (
        "a module called on other rows: a part of the batch, a packed sequence, or views of a "
        "record in one another's wake (torch.cat([a, b]))"
    ): task(Partly),
    "weights used outside their module's forward": task(Functional),
    "EmbeddingBag, Bilinear, and a layer with a mask for a buffer, as MADE's": task(
        lambda: Masked(4, 2)
    ),
    "a lock, an open file or a generator in a module": task(Locked),
    "modules of torch.jit.script and torch.jit.trace": task(scripted),
    "more in state_dict() than parameters and buffers": task(lambda: WithExtraState(4, 2)),
    "a model or a loss that seeds a global generator": task(losses=seeded),
    "a model that returns a parameter of an earlier call again": task(lambda: KEPT),
    "a loss that is not finite on random examples of example_spec": task(losses=infinite),
}


def _table() -> dict[str, str]:
    """What is refused, and the words of the message that the row sets in italics."""
    rows = {}
    table = PAGE.read_text().partition("| refused |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        refused, why, _ = (cell.strip() for cell in line.strip("|").split("|"))
        (words,) = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", f"{refused} {why}")
        rows[re.sub(r"[*`]", "", refused)] = words
    return rows


def test_an_ordinary_task_passes() -> None:
    preflight(task())


CDF = torch.tensor([1.0, 3.0, 2.0]).cumsum(0) / 6


def test_a_choice_by_weights_passes() -> None:
    def chosen(rows: int) -> torch.Tensor:
        return (torch.rand(rows, 1) > CDF[:-1]).sum(1)

    torch.manual_seed(0)
    shares = torch.bincount(chosen(6000), minlength=3) / 1000
    assert shares.tolist() == pytest.approx([1, 3, 2], rel=0.1)
    preflight(scaled(lambda x: 1.0 + chosen(len(x))))


def test_mixup_within_a_record_passes() -> None:
    def mixed(model: nn.Module, batch: Batch) -> torch.Tensor:
        share = torch.rand(len(batch["x"]), 1)
        return losses(model, {**batch, "x": share * batch["x"] + (1 - share) * batch["x"].flip(1)})

    preflight(task(losses=mixed))


class MovingAverage(nn.Linear):
    """Has an average of its weights in a buffer."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.register_buffer("average", self.weight.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.get_buffer("average").lerp_(self.weight.detach(), 0.01)
        return super().forward(x)


def test_an_average_of_weights_is_refused_while_it_computes() -> None:
    with pytest.raises(TaskError, match="changes average while it computes"):
        preflight(task(MovingAverage))


def test_an_average_of_checkpoints(tmp_path: Path) -> None:
    (text,) = [block.text for block in fenced.blocks(PAGE) if block.name == "average.py"]
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    for step in (1, 2):
        (tmp_path / "state" / f"attempt-{step}").mkdir(parents=True)
    store = CheckpointStore(tmp_path / "state", UID, tiny_plan(), keep=2)
    models = [nn.Linear(4, 2) for _ in range(2)]
    for step, model in enumerate(models, 1):
        store.save(step, step, step, TrainingState(model.state_dict(), {}), START)
    mean, count = namespace["average"](tmp_path)
    assert count == 2
    between = (models[0].weight + models[1].weight) / 2
    torch.testing.assert_close(mean["weight"], between.detach())
    nn.Linear(4, 2).load_state_dict(mean)


def test_every_row_is_tried() -> None:
    assert sorted(_table()) == sorted(CASES)


@pytest.mark.rule(21)
@pytest.mark.parametrize("refused", CASES)
def test_refused(refused: str) -> None:
    with pytest.raises(TaskError) as caught:
        preflight(CASES[refused])
    assert _table()[refused] in caught.value.message
