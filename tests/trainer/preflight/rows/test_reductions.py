"""Rules 8 and 21: nothing is made of all rows at once, however seldom it matters."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from dtjob_trainer.preflight.rows import reductions
from dtjob_trainer.preflight.rows.passes import passes_of
from dtjob_trainer.task import Task, TaskError
from tests.support.mechanism.blocks import Function, hidden, rows
from tests.support.mechanism.models import cross_entropy, make_task

# Nothing else here is as many, nor two fewer.
COUNT = 13


def check(task: Task) -> None:
    with passes_of(task, task.model(), torch.device("cpu")) as passes:
        reductions.check(passes, rows(COUNT))


def refusal(task: Task) -> str:
    """What a task is refused with, by line."""
    with pytest.raises(TaskError) as caught:
        check(task)
    assert "test_reductions.py:" in caught.value.message
    return caught.value.message


def places(h: torch.Tensor) -> torch.Tensor:
    """Makes places for each row of its own accord, and asks of all of them."""
    own = torch.arange(8).expand(len(h), -1)
    return h + own * (own[:, 0] == 0).all()


def one_by_one(h: torch.Tensor) -> torch.Tensor:
    return torch.stack([row - row.mean() for row in h])


def penalty(h: torch.Tensor) -> torch.Tensor:
    """What each row's sum follows from in this row, without a sum of all."""
    with torch.enable_grad():
        x = h.detach().requires_grad_()
        outputs = x.square().sum(1)
        slope: torch.Tensor
        (slope,) = torch.autograd.grad(outputs, x, torch.ones_like(outputs))
    return h + slope


def classes(h: torch.Tensor) -> torch.Tensor:
    return h + functional.one_hot(h.argmax(1), 8)


def variance(h: torch.Tensor) -> torch.Tensor:
    """torch asks whether a variance is negative anywhere, and raises then."""
    apart = functional.gaussian_nll_loss(h, h.detach(), h.detach().square(), reduction="none")
    return h + apart


def distributed(h: torch.Tensor) -> torch.Tensor:
    likely: torch.Tensor = torch.distributions.Normal(h, h.detach().square() + 1).log_prob(h)
    return -likely


def cross_entropy_of(h: torch.Tensor) -> torch.Tensor:
    """torch gives a number without rows beside these losses."""
    return functional.cross_entropy(h, torch.arange(len(h)) % 8, reduction="none")


def in_halves(h: torch.Tensor) -> torch.Tensor:
    """Rows in turn, of which the first ones and the last ones are put together."""
    found = [row - row.mean() for row in h]
    first, last = torch.stack(found[:5]), torch.stack(found[5:])
    return torch.cat([first * 2.0, last.tanh()])


def in_chunks(h: torch.Tensor) -> torch.Tensor:
    """To spare memory; a layer has the places of a few rows side by side."""
    return torch.cat([functional.linear(c.reshape(-1, 4), EYE).view(-1, 8) for c in h.split(4)])


def written(h: torch.Tensor) -> torch.Tensor:
    """Each row is written to its place, some together."""
    out, other = torch.zeros(len(h), 8), torch.zeros_like(h)
    for place, row in enumerate(h):
        out[place] = row / row.norm()
        out[place] += row
    other[:3], other[3:] = h[:3] * 2, h[3:] * 3
    return out + other


def by_scratch(h: torch.Tensor) -> torch.Tensor:
    """One tensor of one row's size serves all rows, one after the other."""
    scratch, found = torch.zeros(8), []
    for row in h.detach():
        scratch.copy_(row)
        found.append(scratch * 2)
    return h + torch.stack(found)


def places_first(h: torch.Tensor) -> torch.Tensor:
    """A recurrence over the places of each row, which are as many as rows are often tried with."""
    state = torch.zeros(len(h), 4)
    for place in h.view(-1, 2, 4).transpose(0, 1).contiguous():
        state = 0.5 * state + place
    return torch.cat([state, state], 1)


def features_first(h: torch.Tensor) -> torch.Tensor:
    """Rows lie in the inner dimension."""
    total = sum(torch.tanh(feature) for feature in h.t().contiguous())
    return h * total[:, None]  # type: ignore[index]


EYE = torch.eye(4)
OF_EACH_ROW: dict[str, Function] = {
    "rows in two halves": in_halves,
    "rows in chunks": in_chunks,
    "rows that are written to their places": written,
    "rows through a scratch": by_scratch,
    "places before rows": places_first,
    "features before rows": features_first,
    "a constant beside rows": lambda h: functional.pad(h, (0, 0, 0, 1))[:-1] * 2,
    "the greatest of a window in each row": lambda h: (
        h
        + functional.max_pool1d(h[:, None], 3, 1, 1)[:, 0]
        + h.unfold(1, 2, 1).sum((1, 2))[:, None]
    ),
    "a spectrum of each row": lambda h: torch.fft.irfft(torch.fft.rfft(h), n=8),
    "a search in each row": lambda h: (
        h + torch.searchsorted(h.detach().sort(1).values, h.detach()) + torch.bucketize(h, EYE[0])
    ),
    "what a constant has": lambda h: h + torch.isin(h.argmax(1), torch.arange(3))[:, None],
    "an attention": lambda h: functional.scaled_dot_product_attention(
        h[:, None], h[:, None], h[:, None]
    )[:, 0],
    "a norm": lambda h: functional.layer_norm(h, (8,)) + functional.group_norm(h, 2),
    "rows in turn": one_by_one,
    "rows beside features": lambda h: functional.linear(h.reshape(-1, 4), torch.eye(4)).view(-1, 8),
    "zeros of its kind": lambda h: h + h.new_zeros(8) + torch.zeros_like(h[0]),
    "places of its own": places,
    "classes": classes,
    "a variance": variance,
    "a distribution": distributed,
    "a slope": penalty,
    "losses of each row": lambda h: h + cross_entropy_of(h)[:, None],
    "a norm's statistics": lambda h: h + torch.native_layer_norm(h, [8], None, None, 1e-5)[1],
    "the greatest of each row": lambda h: h + h.max(1).values[:, None],
    "a constant's maximum": lambda h: h + torch.ones(8).max(),
    "an order within each row": lambda h: h.sort(1).values + h.cumsum(-1) + h.softmax(1),
    "each row for itself, twice": lambda h: torch.stack([row * row.sum() + row[0] for row in h]),
    "a product of each row": lambda h: torch.stack([row @ torch.eye(8) for row in h]),
    "a convolution in each row": lambda h: (
        h + functional.conv1d(h[:, None], torch.ones(1, 1, 3), padding=1)[:, 0]
    ),
    "an order backwards in each row": lambda h: h.flip(1) + h.roll(1, -1) + h.roll((1, 2), (1, 1)),
    "an order of each row in turn": lambda h: torch.stack([row.cumsum(0) for row in h]),
}


@pytest.mark.parametrize("name", OF_EACH_ROW)
@pytest.mark.rule(8, 21)
def test_what_has_rows_is_accepted(name: str) -> None:
    check(hidden(OF_EACH_ROW[name]))


def rare(of_all: Callable[[torch.Tensor], torch.Tensor]) -> Function:
    """No probe has values of 10⁶."""

    def function(h: torch.Tensor) -> torch.Tensor:
        return h * (1 + (of_all(h.detach()) > 1e6))

    return function


def saved_mean(h: torch.Tensor) -> torch.Tensor:
    """What a norm over the batch gives beside the rows."""
    mean: torch.Tensor
    _, mean, _ = torch.native_batch_norm(h, None, None, None, None, True, 0.1, 1e-5)
    return mean


OF_ALL: dict[str, Function] = {
    "amax": rare(lambda h: h.amax()),
    "max": rare(lambda h: h.max(0).values[0]),
    "sum": rare(lambda h: h.sum()),
    "mean": rare(lambda h: h.mean(0)),
    "mv": rare(lambda h: h.t() @ torch.ones(len(h))),
    "mm": rare(lambda h: (h.t() @ h).diagonal()),
    "any": lambda h: h * (1 + (h > 1e6).any()),
    "native_batch_norm": rare(saved_mean),
    "linalg_qr": rare(lambda h: torch.linalg.qr(h[:, :4])[1][0, 0]),
}


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", OF_ALL)
def test_what_is_made_of_all_rows_is_refused_by_line(name: str) -> None:
    message = refusal(hidden(OF_ALL[name]))
    assert "mixes the examples of a batch" in message
    assert f"{name} makes one value of those of all rows" in message
    assert "module model (Hidden)" in message


def beyond(h: torch.Tensor) -> torch.Tensor:
    """[rows, 1]: where a row is large, which no probe has."""
    return (h.detach()[:, :1] > 1e6).float()


def triangle(h: torch.Tensor) -> torch.Tensor:
    """By which a product is a sum of all rows before each."""
    return torch.ones(len(h), len(h)).tril()


def often(h: torch.Tensor) -> torch.Tensor:
    """Where three rows are large, which no probe has."""
    beyond: torch.Tensor = (h.detach()[:, :1] > 1e6).long()
    return h * (1 + (beyond.cumsum(0) > 2))


def exchanged(h: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """What is chosen is seldom another row, and no NaN passes what is chosen."""
    return torch.where((h > 1e6) & (h < 1e7), others.nan_to_num().clamp(-1, 1), h)


ALONG: dict[str, Function] = {
    "roll": lambda h: exchanged(h, h.roll(1, 0)),
    "flip": lambda h: exchanged(h, h.flip([0, 1])),
    "cumsum": often,
    "cummax": rare(lambda h: h.cummax(0).values),
    "sort": rare(lambda h: h.sort(dim=0, stable=True).values),
    "topk": rare(lambda h: h.topk(len(h), 0).values),
    "_softmax": lambda h: h * (1 + (h.detach().softmax(-2) > 1)),
    "logcumsumexp": rare(lambda h: h.reshape(1, -1, 4).logcumsumexp(1).view(-1, 8)),
    "mv": lambda h: h * (1 + ((triangle(h) @ beyond(h)[:, 0]) > 2)[:, None]),
    "mm": lambda h: h * (1 + ((triangle(h) @ beyond(h)) > 2)),
    "isin": lambda h: h * (1 + torch.isin(h.detach() - 1e6, h.detach()[:, 0])),
    "bucketize": lambda h: (
        h * (1 + (torch.bucketize(h.detach() - 1e6, h.detach()[:, 0].contiguous()) > 2))
    ),
    "searchsorted": lambda h: (
        h
        * (
            1
            + (torch.searchsorted(h.detach().t().contiguous(), beyond(h).expand(-1, 8).t()) > 2).t()
        )
    ),
    "avg_pool2d": lambda h: (
        h * (1 + (functional.avg_pool1d(beyond(h).t()[None], 3, 1, 1)[0].t() > 0.4))
    ),
    "max_pool2d_with_indices": lambda h: (
        h * (1 + functional.max_pool1d(beyond(h).t()[None], 3, 1, 1)[0].t())
    ),
    "unfold": lambda h: h * (1 + functional.pad(beyond(h), (0, 0, 1, 1)).unfold(0, 3, 1).amax(2)),
    "_fft_r2c": lambda h: h * (1 + (torch.fft.rfft2(beyond(h)).abs().amax(1)[:, None] > 2)),
    "renorm": lambda h: exchanged(h, h.renorm(2, 1, 1e6)),
    "im2col": lambda h: (
        h
        * (1 + functional.unfold(beyond(h)[None, None], (3, 1), padding=(1, 0))[0].amax(0)[:, None])
    ),
    "upsample_linear1d": lambda h: (
        h
        * (
            1
            + functional.interpolate(beyond(h).t()[None], scale_factor=2.0, mode="linear")[
                0, 0, ::2
            ]
        )[:, None]
    ),
    "convolution": lambda h: (
        h
        * (1 + (functional.conv1d(beyond(h).t()[None], torch.ones(1, 1, 3), padding=1)[0] > 1).t())
    ),
}


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", ALONG)
def test_what_runs_along_the_rows_is_refused_by_line(name: str) -> None:
    words = f"mixes the examples of a batch: {name} runs along the rows"
    assert words in refusal(hidden(ALONG[name]))


def counted(h: torch.Tensor) -> torch.Tensor:
    n = torch.zeros(())
    for row in beyond(h):
        n = n + row[0]
    return n


def one_further(h: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(len(h), 1)
    out[1:] = beyond(h)[:-1]
    return out


def added_up(h: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(len(h), 1)
    for place in range(len(h)):
        out[place] = beyond(h)[place - 1]
        out[place] += beyond(h)[place]
    return out


ONE_BY_ONE: dict[str, Callable[[torch.Tensor], Any]] = {
    "Python's sum": lambda h: sum(row for row in beyond(h)),
    "a loop": counted,
    "two rows": lambda h: beyond(h[0][None])[0] * beyond(h[2][None])[0],
    "in place": lambda h: h[0].detach().clone().add_(h[1].detach()).amax() > 1e6,
    "the first one for all": lambda h: h[0].detach() > 1e6,
    "the first four for all": lambda h: (h[:4].detach() > 1e6).sum() > 2,
    "all before each": lambda h: torch.stack([beyond(h)[:n].sum() for n in range(len(h))])[:, None],
    "as many classes as rows": lambda h: sum(
        functional.one_hot(row, COUNT)[:8] for row in h.argmax(1)
    ),
    "in an inner dimension": lambda h: sum(h.detach().t().softmax(0).unbind(1)),
    "with places beside": lambda h: functional.linear(h.reshape(-1, 4), EYE)[:4:2].detach().sum(),
    "an order of some": lambda h: torch.cat([h[:4].detach().cumsum(0), h[4:].detach()]) > 1e6,
    "a product of some": lambda h: torch.cat([triangle(h[:4]) @ beyond(h)[:4], beyond(h)[4:]]),
    "some beside some": lambda h: torch.cat(
        [(h[:4, :1] == h[:4, 0]).any(1, keepdim=True), beyond(h)[4:] > 0]
    ),
    "neighbours": lambda h: functional.pad(beyond(h).diff(dim=0), (0, 0, 1, 0)),
    "put in another order": lambda h: torch.stack([beyond(h)[n - 1] for n in range(len(h))]),
    "put one further": lambda h: torch.cat([beyond(h)[:1], beyond(h)[:-1]]),
    "one further by zeros": lambda h: functional.pad(beyond(h), (0, 0, 1, 0))[:-1],
    "written one further": one_further,
    "added up where they are written": added_up,
    "some that were stacked": lambda h: torch.stack([h[0].detach(), h[1].detach()]).amax() > 1e6,
}


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_rows_that_are_taken_apart_must_not_meet(name: str) -> None:
    """No operator there has a dimension of rows, and no probe is large."""
    message = refusal(hidden(lambda h: h * (1 + ONE_BY_ONE[name](h))))
    assert "mixes the examples of a batch" in message
    assert "makes one value of those of several rows" in message


COMPARED: dict[str, Function] = {
    "eq": lambda h: h * (h[:, None, 0] == h[None, :, 0]).any(1, keepdim=True),
    "mm": lambda h: h * (1 + ((h @ h.t()).amax(1, keepdim=True) > 1e6)),
    "_cdist_forward": lambda h: h * (torch.cdist(h.detach(), h.detach()) > 1e6).any(1)[:, None],
}


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", COMPARED)
def test_rows_that_are_compared_with_rows_are_refused_by_line(name: str) -> None:
    """Duplicates in a batch are left out, say: random rows are none, and equal ones always."""
    words = f"mixes the examples of a batch: {name} compares rows with rows"
    assert words in refusal(hidden(COMPARED[name]))


def after_a_loop(h: torch.Tensor) -> torch.Tensor:
    return rare(lambda rows: rows.amax())(one_by_one(h))


def before_a_loop(h: torch.Tensor) -> torch.Tensor:
    return one_by_one(rare(lambda rows: rows.amax())(h))


def between_loops(h: torch.Tensor) -> torch.Tensor:
    return one_by_one(after_a_loop(h))


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("function", [after_a_loop, before_a_loop, between_loops])
def test_a_loop_over_the_rows_hides_nothing_beside_it(function: Function) -> None:
    with pytest.raises(TaskError, match="amax makes one value of those of all rows"):
        check(hidden(function))


@pytest.mark.rule(21)
def test_losses_that_take_all_rows_are_named() -> None:
    task = make_task(losses=lambda m, b: cross_entropy(m, b) * (1 + (b["x"].max() > 1e6)))
    with pytest.raises(TaskError, match=r"losses\(\) at .*max makes one value"):
        check(task)


def of_the_batch(h: torch.Tensor) -> torch.Tensor:
    """Barlow Twins: what features have to do with each other over the batch."""
    return (h.t() @ h).square().sum() + h * 0


REMEDIES: dict[str, tuple[Function, str]] = {
    "a shift": (lambda h: h + h.roll(1), "of the other dimensions, as in x.flip(1)"),
    "rows with rows": (COMPARED["mm"], "a contrastive loss compares it with lies in its record"),
    "a product over the rows": (of_the_batch, "pairs and triplets"),
    "statistics": (lambda h: h - h.mean(0), "Barlow Twins"),
}


@pytest.mark.rule(21)
@pytest.mark.parametrize("name", REMEDIES)
def test_a_contrast_is_for_the_record_and_no_gradient_of_a_number(name: str) -> None:
    function, words = REMEDIES[name]
    message = refusal(hidden(function))
    assert words in message
    assert "grad_outputs" not in message


@pytest.mark.rule(21)
def test_a_gradient_of_a_number_has_outputs() -> None:
    assert "grad_outputs" in refusal(hidden(rare(lambda h: h.sum())))


def triplet(h: torch.Tensor) -> torch.Tensor:
    """An anchor beside a positive and a negative, all of one record."""
    parts = h.view(-1, 2, 4)
    apart: torch.Tensor = functional.triplet_margin_loss(
        parts[:, 0], parts[:, 1], -parts[:, 1], reduction="none"
    )
    return h * apart[:, None]


def test_what_is_compared_within_a_record_is_accepted() -> None:
    check(hidden(triplet))


def test_the_time_to_pair_operators_is_that_of_the_loop_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It grows by the square of what is not alike at the begin and the end: 14,000 took 3 s."""
    searched: list[int] = []

    class Searching(difflib.SequenceMatcher[str]):
        def __init__(self, isjunk: None, a: list[str], b: list[str], autojunk: bool) -> None:
            searched.append(len(a))
            super().__init__(isjunk, a, b, autojunk)

    monkeypatch.setattr(difflib, "SequenceMatcher", Searching)

    def function(h: torch.Tensor) -> torch.Tensor:
        for _ in range(100):
            h = torch.tanh(h)
        h = after_a_loop(h)
        for _ in range(100):
            h = torch.tanh(h)
        return h

    with pytest.raises(TaskError, match="amax makes one value of those of all rows"):
        check(hidden(function))
    assert searched
    assert max(searched) < 100
