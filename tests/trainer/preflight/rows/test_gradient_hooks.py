"""Rules 8 and 21: the task's own code makes nothing of all rows' gradients for a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dtjob_trainer.preflight.rows import reductions
from dtjob_trainer.preflight.rows.passes import passes_of
from dtjob_trainer.preflight.task_validation import preflight
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.blocks import Function, hidden, rows
from tests.support.mechanism.models import CLASSES, FEATURES, make_task


def check(task: Task) -> None:
    with passes_of(task, task.model(), torch.device("cpu")) as passes:
        reductions.check(passes, rows(13))


def hooked(hook: Function) -> Function:
    """The identity, with a hook on its gradient."""

    def function(h: torch.Tensor) -> torch.Tensor:
        h = h * 1.0
        h.register_hook(hook)
        return h

    return function


def seldom(of: torch.Tensor) -> torch.Tensor:
    """Where a number is as no probe makes it."""
    return 1.0 + ((of > 1e6) & (of < 1e7))


class Scaled(torch.autograd.Function):
    """The identity; gradients come back doubled where their norm is as no probe makes it."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * seldom(gradient.norm())


def loop(gradient: torch.Tensor) -> torch.Tensor:
    """Rows in turn, beside a mean of all."""
    mean = gradient.mean(0)
    return torch.stack([row * seldom(mean) for row in gradient])


def nested(h: torch.Tensor) -> torch.Tensor:
    """The hook takes a gradient of its own."""

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = gradient.detach().requires_grad_()
            (slope,) = torch.autograd.grad(x.square().sum(0), x, torch.ones(8))
        return gradient * seldom(slope.amax())

    return hooked(hook)(h)


OF_ALL: dict[str, tuple[Function, str]] = {
    "a norm": (hooked(lambda g: g * seldom(g.norm())), "linalg_vector_norm makes one value"),
    "a mean": (hooked(lambda g: g - 0.0 * seldom(g.mean(0))), "mean makes one value"),
    "a mean for each row": (
        hooked(lambda g: g * seldom(g.mean(0)).expand(len(g), 8)),
        "mean makes one value of those of all rows",
    ),
    "a sum in place": (hooked(lambda g: g.clone().mul_(seldom(g.sum()))), "sum makes one value"),
    "a loop": (hooked(loop), "mean makes one value"),
    "Python's sum": (hooked(lambda g: g * seldom(sum(row for row in g))), "of several rows"),
    "an order": (hooked(lambda g: g * seldom(g.cumsum(0))), "cumsum runs along the rows"),
    "rows with rows": (
        hooked(lambda g: g * seldom((g @ g.t()).diagonal())[:, None]),
        "mm compares rows with rows",
    ),
    "a backward pass": (Scaled.apply, "linalg_vector_norm makes one value"),
    "a gradient within": (nested, "makes one value of those of all rows"),
}


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", OF_ALL)
def test_what_is_made_of_all_gradients_is_refused_by_line(name: str) -> None:
    function, words = OF_ALL[name]
    with pytest.raises(TaskError) as caught:
        check(hidden(function))
    message = caught.value.message
    assert "the backward pass at" in message
    assert "test_gradient_hooks.py:" in message
    assert words in message
    assert "torch.nn.functional.normalize(g.flatten(1)).view_as(g)" in message


class Between(nn.Module):
    """The identity; a hook of the module sees what comes back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0


def with_module_hook(hook: Function) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        between = Between()

        def scaled(_: nn.Module, gradients: Any, __: Any) -> tuple[torch.Tensor]:
            return (hook(gradients[0]),)

        between.register_full_backward_hook(scaled)
        return nn.Sequential(nn.Linear(FEATURES, 8), between, nn.Linear(8, CLASSES))

    return model


@pytest.mark.rule(8, 21)
def test_a_hook_of_a_module_is_looked_at() -> None:
    check(make_task(model=with_module_hook(lambda g: g.clamp(-1, 1))))
    with pytest.raises(TaskError, match="linalg_vector_norm makes one value"):
        check(make_task(model=with_module_hook(lambda g: g * seldom(g.norm()))))


class Factor(torch.autograd.Function):
    """A product with a weight, whose gradient is a sum over the rows, of which no step takes it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * weight

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return gradient * weight, 2 * (0.5 * gradient * x).sum_to_size(weight.shape)


class Weighted(nn.Module):
    """Owns the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> Any:
        return Factor.apply(x, self.weight)


def weighted() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), Weighted(), nn.Linear(8, CLASSES))


OF_EACH_ROW: dict[str, Task] = {
    "a clamp": hidden(hooked(lambda g: g.clamp(-0.1, 0.1))),
    "a constant": hidden(hooked(lambda g: 0.5 * g)),
    "the remedy": hidden(hooked(lambda g: functional.normalize(g.flatten(1)).view_as(g))),
    "rows in turn": hidden(hooked(lambda g: torch.stack([0.5 * row for row in g]))),
    "what is only looked at": hidden(hooked(lambda g: (g.norm(), g)[1])),
    "checkpointing": hidden(lambda h: checkpoint(torch.tanh, h, use_reentrant=False)),
    "a weight's gradient": make_task(model=weighted),
}


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", OF_EACH_ROW)
def test_what_is_made_of_each_rows_gradient_is_accepted(name: str) -> None:
    preflight(OF_EACH_ROW[name], whole=False)
