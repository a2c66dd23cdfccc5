"""Rules 8 and 21: an error that one row's values raise is no branch for all."""

from __future__ import annotations

import contextlib
import importlib

import pytest
import torch

from dtjob_trainer.preflight.rows import caught
from dtjob_trainer.preflight.rows.axes import ROWS
from dtjob_trainer.preflight.rows.passes import passes_of
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.blocks import Function, hidden, rows
from tests.support.mechanism.models import cross_entropy, make_task


def check(task: Task) -> None:
    with passes_of(task, task.model(), torch.device("cpu")) as passes:
        caught.check(passes, rows(ROWS))


def matrices(h: torch.Tensor) -> torch.Tensor:
    return h.view(-1, 2, 4) @ h.view(-1, 2, 4).transpose(1, 2)


def inverse(h: torch.Tensor) -> torch.Tensor:
    inverted: torch.Tensor = torch.linalg.inv(matrices(h))
    return inverted.sum((1, 2))[:, None]


def jitter(h: torch.Tensor) -> torch.Tensor:
    """As it is written everywhere."""
    factor: torch.Tensor
    try:
        factor = torch.linalg.cholesky(matrices(h) + torch.eye(2))
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        factor = torch.linalg.cholesky(matrices(h) + 10 * torch.eye(2))
    return h * factor.sum((1, 2))[:, None]


def suppressed(h: torch.Tensor) -> torch.Tensor:
    with contextlib.suppress(RuntimeError):
        h = h + inverse(h)
    return h


def bare(h: torch.Tensor) -> torch.Tensor:
    try:
        torch.distributions.Normal(h, h.detach().square())
        return h * 2
    except:  # noqa: E722
        return h


def by_words(h: torch.Tensor) -> torch.Tensor:
    try:
        factor: torch.Tensor = torch.linalg.cholesky(matrices(h) + torch.eye(2))
    except RuntimeError as error:
        if "positive-definite" not in str(error):
            raise
        return h
    return h * factor.sum((1, 2))[:, None]


def by_class(h: torch.Tensor) -> torch.Tensor:
    try:
        return h + inverse(h)
    except RuntimeError as error:
        if type(error) is not torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            raise
        return h


def converting(h: torch.Tensor) -> torch.Tensor:
    """Makes another error of it, also of what comes first in the block around."""
    try:
        return h * 2
    except RuntimeError as error:
        raise ValueError("no factor") from error


def around_a_conversion(h: torch.Tensor) -> torch.Tensor:
    try:
        return converting(h) + inverse(h)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return h


def by_questions(h: torch.Tensor) -> torch.Tensor:
    """What goes on asks for values, and so would not in most steps."""
    try:
        return h + inverse(h)
    except RuntimeError:
        return h if h.sum() > 0 else -h


class _Swallowing(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, h: torch.Tensor) -> torch.Tensor:
        return h * 2

    @staticmethod
    def backward(_ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        try:
            return gradient * inverse(gradient)
        except RuntimeError:
            return gradient


def in_backward(h: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _Swallowing.apply(h)
    return out


CAUGHT = {
    "jitter": jitter,
    "suppressed": suppressed,
    "bare": bare,
    "by_words": by_words,
    "by_class": by_class,
    "around_a_conversion": around_a_conversion,
    "by_questions": by_questions,
    "backward": in_backward,
}


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", CAUGHT)
def test_an_error_that_is_caught_is_refused_by_line(name: str) -> None:
    with pytest.raises(TaskError) as error:
        check(hidden(CAUGHT[name]))
    message = error.value.message
    assert error.value.reason == "ModelRefused"
    assert "catches errors at" in message
    assert "test_caught.py:" in message
    assert f"in {name} and goes on" in message
    assert "cholesky_ex" in message


@pytest.mark.rule(21)
def test_an_error_that_losses_catch_is_refused() -> None:
    def losses(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        try:
            return cross_entropy(model, batch)
        except (IndexError, RuntimeError):
            return -batch["x"].square().sum(1) + cross_entropy(model, batch)

    with pytest.raises(TaskError, match="in losses and goes on"):
        check(make_task(losses=losses))


def worded(h: torch.Tensor) -> torch.Tensor:
    try:
        return h * inverse(h)
    except RuntimeError as error:
        raise ValueError("no inverse") from error


def finished(h: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        offset = h.mean(1, keepdim=True)
    try:
        return h - offset
    finally:
        del offset


def of_no_values(h: torch.Tensor) -> torch.Tensor:
    try:
        factor = float(importlib.import_module("no_such_module").FACTOR)
    except ImportError:
        factor = 2.0
    return h * factor


def by_shape(h: torch.Tensor) -> torch.Tensor:
    """How a tensor lies in memory is nothing of its values."""
    try:
        flat = h.t().view(-1)
    except RuntimeError:
        flat = h.reshape(-1)
    return flat.view(-1, 8)


def by_row(h: torch.Tensor) -> torch.Tensor:
    factor, info = torch.linalg.cholesky_ex(matrices(h) + torch.eye(2))
    return torch.where(info[:, None] == 0, h * factor.sum((1, 2))[:, None], h)


def of_constants(h: torch.Tensor) -> torch.Tensor:
    """Also of parameters: no record raises it."""
    try:
        factor: torch.Tensor = torch.linalg.cholesky(torch.eye(8))
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        factor = torch.eye(8)
    return h @ factor


PASSING: dict[str, Function] = {
    "what follows from no record": of_constants,
    "an error with other words": worded,
    "blocks that only finish": finished,
    "an import that fails": of_no_values,
    "a view that the memory does not allow": by_shape,
    "what says for each row whether it went well": by_row,
}


@pytest.mark.rule(21)
@pytest.mark.parametrize("name", PASSING)
def test_code_that_ends_by_the_error_is_accepted(name: str) -> None:
    check(hidden(PASSING[name]))
