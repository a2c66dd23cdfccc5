"""Rules 8 and 21: nothing asks for values of a batch, and each remedy computes the same.

A remedy is held against what it replaces, which sees one row at a time there.
"""

from __future__ import annotations

import copy
import functools
import gc
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from opacus.grad_sample.embedding import compute_embedding_grad_sample
from torch import distributions, nn
from torch.nn import functional

from dtjob_trainer.mechanism.keys import derive_keys
from dtjob_trainer.mechanism.watch.structure import Made, ValueAsked, ValueKept, chosen, looked_at
from dtjob_trainer.task import where_in_task

ROWS, LENGTH, KINDS = 4, 5, 9
TABLE = torch.arange(2.0 * KINDS).view(KINDS, 2)
MATRIX = torch.eye(LENGTH, 3) + 0.5
PLACES = torch.arange(LENGTH)

Batch = dict[str, torch.Tensor]
Forward = Callable[[Batch], torch.Tensor]


def batch() -> Batch:
    """Floats, ids and lengths, of which no two rows have the same."""
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.rand(ROWS, LENGTH, generator=generator) * 2 - 1,
        "ids": torch.randint(KINDS, (ROWS, LENGTH), generator=generator),
        "n": torch.tensor([3, 1, 4, 2]),
    }


class Model(nn.Module):
    """One that multiplies its floats by a weight, which is 1, and then computes."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.then = forward

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.then({**batch, "x": batch["x"] * self.weight})


def looked(forward: Forward, given: Batch | None = None) -> torch.Tensor:
    """What a model gives while one looks, after a backward pass of it."""
    model, given = nn.Sequential(Model(forward)), given or batch()
    with looked_at(model, given):
        result: torch.Tensor = model(given)
        if result.requires_grad:
            torch.autograd.backward(result.square().sum())
    return result.detach()


@functools.cache
def recurrent() -> nn.RNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.RNN(1, 2, batch_first=True)


def valid(b: Batch) -> torch.Tensor:
    """Which places are within a row's length."""
    return b["n"][:, None] > PLACES


def to_the_longest(b: Batch) -> torch.Tensor:
    return torch.where(valid(b), b["x"], 0.0)[:, : b["n"].max()].exp().sum(1) + LENGTH - b["n"]


def packed(b: Batch) -> torch.Tensor:
    sequence = nn.utils.rnn.pack_padded_sequence(
        b["x"][:, :, None], b["n"], batch_first=True, enforce_sorted=False
    )
    last: torch.Tensor = recurrent()(sequence)[1][0]
    return last


def last_outputs(b: Batch) -> torch.Tensor:
    outputs: torch.Tensor = recurrent()(b["x"][:, :, None])[0]
    return outputs[torch.arange(len(outputs)), b["n"] - 1]


def repeated(b: Batch) -> torch.Tensor:
    return functional.pad(b["x"][:, :2].repeat_interleave(b["n"][0], dim=1), (0, 10))[:, :10]


def gathered_by_counts(b: Batch) -> torch.Tensor:
    ends = b["n"][:, None] * torch.tensor([1, 2])
    places = torch.arange(10).repeat(len(ends), 1)
    index = torch.searchsorted(ends, places, right=True).clamp(max=1)
    return torch.where(places < ends[:, 1:], b["x"].gather(1, index), 0.0)


def scattered(b: Batch) -> torch.Tensor:
    return b["x"].masked_scatter(b["x"] > 0, TABLE.flatten()[:LENGTH].expand_as(b["x"]))


def assigned(b: Batch) -> torch.Tensor:
    x = b["x"].clone()
    x[valid(b) | True] = TABLE.flatten()[:LENGTH].repeat(len(x))
    return x


def gathered(b: Batch) -> torch.Tensor:
    mask = b["x"] > 0
    index = (mask.cumsum(1) - 1).clamp(min=0)
    return torch.where(mask, TABLE.flatten()[:LENGTH].expand_as(b["x"]).gather(1, index), b["x"])


def log_probabilities(b: Batch) -> torch.Tensor:
    """[rows, steps, classes]."""
    return (b["x"][:, :, None] * torch.linspace(-1, 1, KINDS)).log_softmax(2)


def ctc(b: Batch) -> torch.Tensor:
    steps = torch.full_like(b["n"], LENGTH)
    targets = b["ids"].clamp(min=1)[:, :2]
    lengths = b["n"].clamp(max=2)
    return functional.ctc_loss(
        log_probabilities(b).transpose(0, 1), targets, steps, lengths, reduction="none"
    )


def ctc_of_tensors(b: Batch) -> torch.Tensor:
    """The recursion of Graves et al. (2006), over all places of the padded targets."""
    targets, lengths = b["ids"].clamp(min=1)[:, :2], b["n"].clamp(max=2)
    rows = torch.arange(len(targets))
    labels = functional.pad(targets[:, :, None], (1, 0)).flatten(1)
    labels = functional.pad(labels, (0, 1))  # blank, first, blank, second, blank
    skips = functional.pad((labels[:, 2:] != labels[:, :-2]) & (labels[:, 2:] != 0), (2, 0))
    emitted = log_probabilities(b).gather(2, labels[:, None].expand(-1, LENGTH, -1))
    alpha = torch.where(torch.arange(5) < 2, emitted[:, 0], -torch.inf)
    for step in range(1, LENGTH):
        one = functional.pad(alpha[:, :-1], (1, 0), value=-torch.inf)
        two = functional.pad(alpha[:, :-2], (2, 0), value=-torch.inf)
        ways = torch.stack([alpha, one, torch.where(skips, two, -torch.inf)])
        alpha = ways.clamp(min=-1e9).logsumexp(0) + emitted[:, step]
    return -torch.logaddexp(alpha[rows, 2 * lengths], alpha[rows, 2 * lengths - 1])


def series(b: Batch) -> torch.Tensor:
    matrix = b["x"][:, :, None] * b["x"][:, None]
    total = term = torch.eye(LENGTH).expand_as(matrix)
    for n in range(1, 25):
        term = term @ matrix / n
        total = total + term
    return total


def positive_mean(b: Batch) -> torch.Tensor:
    return torch.where(b["x"] > 0, b["x"], 0.0).sum(1, keepdim=True)


def counted(b: Batch) -> torch.Tensor:
    return functional.one_hot(b["ids"], KINDS).sum(1)


def bins(b: Batch) -> torch.Tensor:
    places = ((b["x"].detach() + 1) * 2).floor().long().clamp(0, 3)
    return functional.one_hot(places, 4).sum(1).float()


def normal_equations(b: Batch) -> torch.Tensor:
    a = MATRIX.expand(len(b["x"]), -1, -1)
    solved, _ = torch.linalg.solve_ex(a.mT @ a, a.mT @ b["x"][:, :, None])
    return cast(torch.Tensor, solved)


#: What is refused: the words by which, how it asks (of one row), and its remedy (of all).
REFUSED: dict[str, tuple[str, Forward, Forward]] = {
    "cut to the longest": (
        "pad to that of example_spec",
        to_the_longest,
        lambda b: torch.where(valid(b), b["x"], 0.0).exp().sum(1),
    ),
    "if": (
        "if or bool() reads them",
        lambda b: b["x"].abs() if b["x"].sum() > 0 else b["x"],
        lambda b: torch.where(b["x"].sum(1, keepdim=True) > 0, b["x"].abs(), b["x"]),
    ),
    "item": (
        "item() reads them",
        lambda b: b["x"] * b["n"].sum().item(),
        lambda b: b["x"] * b["n"][:, None],
    ),
    "float": (
        "float()",
        lambda b: b["x"] * float(b["n"].sum()),
        lambda b: b["x"] * b["n"][:, None],
    ),
    "range": (
        "an index, a length or range()",
        lambda b: sum((b["x"][:, i] for i in range(b["n"].sum())), torch.zeros(1)),
        lambda b: torch.where(valid(b), b["x"], 0.0).sum(1),
    ),
    "index": (
        "an index reads them",
        lambda b: b["x"][:, b["n"][0]],
        lambda b: b["x"].gather(1, b["n"][:, None])[:, 0],
    ),
    "numpy": (
        "numpy() reads them",
        lambda b: torch.from_numpy(np.sort(b["x"].detach().numpy(), 1)),
        lambda b: b["x"].sort(1).values,
    ),
    "asarray": (
        "numpy reads them",
        lambda b: torch.from_numpy(np.sort(np.asarray(b["ids"]), 1)),
        lambda b: b["ids"].sort(1).values,
    ),
    "tolist": (
        "tolist() reads them",
        lambda b: torch.tensor([sum(row) for row in b["x"].tolist()]),
        lambda b: b["x"].sum(1),
    ),
    "a copy": (
        "if or bool()",
        lambda b: b["x"].abs() if copy.deepcopy(b["x"].detach()).sum() > 0 else b["x"],
        lambda b: torch.where(b["x"].sum(1, keepdim=True) > 0, b["x"].abs(), b["x"]),
    ),
    "a tensor made anew": (
        "item() reads them",
        lambda b: b["x"] * torch.tensor([b["n"][0]]).item(),
        lambda b: b["x"] * b["n"][:, None],
    ),
    "a function of Python's": (
        "apply_() reads them",
        lambda b: b["x"].detach().clone().apply_(math.tanh),
        lambda b: b["x"].tanh(),
    ),
    "a function of two": (
        "map_() reads them",
        lambda b: torch.zeros_like(b["x"]).map_(b["x"].detach(), lambda _, x: x * x),
        lambda b: b["x"].square(),
    ),
    "a function of three": (
        "map2_() reads them",
        lambda b: torch.zeros_like(b["x"]).map2_(
            b["x"].detach(), b["x"].detach(), lambda _, x, y: x * y
        ),
        lambda b: b["x"].square(),
    ),
    "nested": (
        "pad to the length of example_spec, and mask",
        lambda b: torch.nested.as_nested_tensor(list(b["x"].detach())).to_padded_tensor(0.0),
        lambda b: b["x"],
    ),
    "memory": (
        "data_ptr() reads them",
        lambda b: b["x"] * bool(b["x"].data_ptr()),
        lambda b: b["x"].clone(),
    ),
    "dlpack": (
        "dlpack reads them",
        lambda b: torch.from_dlpack(b["x"].detach()),  # type: ignore[attr-defined]
        lambda b: b["x"].detach(),
    ),
    "print": (
        "print() or str() reads them",
        lambda b: b["x"] * bool(str(b["x"])),
        lambda b: b["x"],
    ),
    "format": ("a formatted string", lambda b: b["x"] * bool(f"{b['n']}"), lambda b: b["x"]),
    "a boolean index": (
        "torch.where(mask, x, 0.0)",
        lambda b: b["x"][b["x"] > 0].sum().view(1, 1),
        positive_mean,
    ),
    "nonzero": (
        "nonzero() reads them",
        lambda b: b["x"][(b["x"] > 0).nonzero(as_tuple=True)].sum().view(1, 1),
        positive_mean,
    ),
    "where of one argument": (
        "where() reads them",
        lambda b: b["x"][torch.where(b["x"] > 0)].sum().view(1, 1),
        positive_mean,
    ),
    "masked_select": (
        "masked_select() reads them",
        lambda b: torch.masked_select(b["x"], b["x"] > 0).sum().view(1, 1),
        positive_mean,
    ),
    "sparse": (
        "a sparse tensor",
        lambda b: (b["x"] * (b["x"] > 0)).detach().to_sparse().sum().view(1, 1),
        positive_mean,
    ),
    "unique": (
        "one_hot(x, classes)",
        lambda b: torch.tensor([len(torch.unique(b["ids"]))]),
        lambda b: (counted(b) > 0).sum(1),
    ),
    "bincount": (
        "one_hot(x, classes)",
        lambda b: torch.bincount(b["ids"][0], minlength=KINDS)[None],
        counted,
    ),
    "histc": ("histc() reads them", lambda b: torch.histc(b["x"].detach(), 4, -1, 1)[None], bins),
    "one_hot without num_classes": (
        "give it num_classes",
        lambda b: functional.one_hot(b["ids"]).sum((1, 2)),
        lambda b: functional.one_hot(b["ids"], num_classes=KINDS).sum((1, 2)),
    ),
    "packed": ("outputs[rows, lengths - 1]", packed, last_outputs),
    "repeat_interleave": ("torch.searchsorted", repeated, gathered_by_counts),
    "equal": (
        "(a == b).all(1)",
        lambda b: torch.tensor([torch.equal(b["ids"], b["ids"].sort(1).values)]),
        lambda b: (b["ids"] == b["ids"].sort(1).values).all(1),
    ),
    "allclose": (
        "(a == b).all(1)",
        lambda b: torch.tensor([torch.allclose(b["x"], b["x"].abs())]),
        lambda b: (b["x"] == b["x"].abs()).all(1),
    ),
    "tensor_split": (
        "split at public places",
        lambda b: b["x"].tensor_split(b["n"], dim=1)[0].sum(1),
        lambda b: torch.where(valid(b), b["x"], 0.0).sum(1),
    ),
    "embedding_bag": (
        "torch.nn.Embedding",
        lambda b: functional.embedding_bag(b["ids"].flatten(), TABLE, b["n"] * 0, mode="sum"),
        lambda b: functional.embedding(b["ids"], TABLE).sum(1),
    ),
    "masked_scatter": ("torch.gather", scattered, gathered),
    "an assignment of many": (
        "an assignment to an index",
        assigned,
        lambda b: torch.where(valid(b) | True, TABLE.flatten()[:LENGTH], b["x"]),
    ),
    "prod": (
        "functools.reduce(torch.mul",
        lambda b: b["x"].prod(1),
        lambda b: functools.reduce(torch.mul, b["x"].unbind(1)),
    ),
    "matrix_exp": (
        "a public number of terms",
        lambda b: torch.matrix_exp(b["x"][:, :, None] * b["x"][:, None]),
        series,
    ),
    "lstsq": (
        "normal equations by torch.linalg.solve_ex",
        lambda b: torch.linalg.lstsq(MATRIX[None], b["x"][:, :, None].detach()).solution,
        normal_equations,
    ),
    "ctc": ("write the recursion", ctc, ctc_of_tensors),
}


@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", REFUSED)
def test_what_asks_is_refused_and_its_remedy_computes_the_same(name: str) -> None:
    words, asks, remedy = REFUSED[name]
    with pytest.raises(ValueAsked) as caught:
        looked(asks)
    assert words in str(caught.value)
    assert "module 0 (Model) asks for values" in str(caught.value)
    rows = [{key: value[i : i + 1] for key, value in batch().items()} for i in range(ROWS)]
    expected = torch.cat([Model(asks)(row).detach() for row in rows])
    torch.testing.assert_close(looked(remedy), expected, rtol=1e-3, atol=1e-3)


def validated(make: Callable[[torch.Tensor], distributions.Distribution]) -> Forward:
    return lambda b: make(b["x"].abs() / 2 + 0.25).log_prob(b["x"].detach().abs())


def spread(b: Batch) -> torch.Tensor:
    return b["x"][:, :, None] * b["x"][:, None] + 2 * torch.eye(LENGTH)


#: What torch asks only to raise, each with other ways to use what is marked.
PASSED: dict[str, Forward] = {
    "one_hot with num_classes": lambda b: functional.one_hot(b["ids"], KINDS),
    "gaussian_nll_loss": lambda b: functional.gaussian_nll_loss(
        b["x"], b["x"], b["x"].exp(), reduction="none"
    ),
    "Normal": validated(lambda x: distributions.Normal(0.0, x, validate_args=True)),
    "Uniform": validated(lambda x: distributions.Uniform(x - 1, x + 1, validate_args=True)),
    "ContinuousBernoulli": validated(
        lambda x: distributions.ContinuousBernoulli(x, validate_args=True)
    ),
    "Geometric": lambda b: distributions.Geometric(
        b["x"].abs() / 2 + 0.25, validate_args=True
    ).log_prob(b["ids"].float()),
    "Categorical": lambda b: distributions.Categorical(logits=b["x"]).log_prob(b["n"]),
    "MultivariateNormal": lambda b: distributions.MultivariateNormal(
        b["x"], spread(b), validate_args=True
    ).log_prob(b["x"].detach()),
    "Wishart": lambda b: distributions.Wishart(
        b["n"] + 9.0, spread(b), validate_args=True
    ).log_prob(spread(b).detach()),
    "torch.linalg.inv": lambda b: torch.linalg.inv(spread(b)),
    "torch.linalg.cholesky": lambda b: torch.linalg.cholesky(spread(b)),
    "multinomial": lambda b: torch.multinomial(b["x"].abs(), 2) + b["x"][:, :1],
    "cross_entropy": lambda b: functional.cross_entropy(b["x"], b["n"], reduction="none"),
    "an index of integers": lambda b: b["x"][torch.arange(ROWS), b["n"]],
    "a constant mask": lambda b: b["x"][:, PLACES > 1],
    "an assignment of one value": lambda b: b["x"].clone().index_put_((valid(b),), torch.ones(1)),
    "constants of its shape": lambda b: b["x"] * float(torch.ones_like(b["x"]).sum()),
    "public lengths of ctc": lambda b: functional.ctc_loss(
        log_probabilities(b).transpose(0, 1),
        b["ids"][:, :2] + 0,
        (LENGTH,) * ROWS,  # type: ignore[arg-type]
        (2,) * ROWS,  # type: ignore[arg-type]
    ),
    "vmap": lambda b: torch.func.vmap(lambda row: row * row.sum())(b["x"]),
}


@pytest.mark.parametrize("name", PASSED)
def test_what_is_asked_only_to_raise_passes(name: str) -> None:
    given = batch()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = Model(PASSED[name])(given).detach()
        torch.manual_seed(0)
        torch.testing.assert_close(looked(PASSED[name], given), expected)


class Backwards(torch.autograd.Function):
    """Branches in its backward pass alone."""

    @staticmethod
    def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient if gradient.sum() > 0 else -gradient


def by_function(b: Batch) -> torch.Tensor:
    result: torch.Tensor = Backwards.apply(b["x"])
    return result


def by_numpy(b: Batch) -> torch.Tensor:
    result = b["x"].clone()
    result.register_hook(lambda gradient: torch.from_numpy(gradient.numpy()))
    return result


def by_hook(b: Batch) -> torch.Tensor:
    result = b["x"].clone()
    result.register_hook(lambda gradient: gradient if gradient.sum() > 0 else -gradient)
    return result


def in_place(b: Batch) -> torch.Tensor:
    return b["x"] if torch.zeros(ROWS, LENGTH).copy_(b["x"].detach()).sum() > 0 else -b["x"]


def into(b: Batch) -> torch.Tensor:
    out = torch.zeros(ROWS, LENGTH)
    torch.add(b["x"].detach(), 1.0, out=out)
    return b["x"] if out.sum() > 0 else -b["x"]


def without_a_result(b: Batch) -> torch.Tensor:
    zeros = torch.zeros(ROWS, LENGTH)
    torch._foreach_add_([zeros], [b["x"].detach()])
    return b["x"] if zeros.sum() > 0 else -b["x"]


def of_a_view(b: Batch) -> torch.Tensor:
    zeros = torch.zeros(2, ROWS, LENGTH)
    zeros[1] = b["x"].detach()
    return b["x"] if zeros[0].sum() > 0 else -b["x"]


def caught(b: Batch) -> torch.Tensor:
    try:
        return b["x"] if b["x"].sum() > 0 else -b["x"]
    except Exception:
        return b["x"]


@pytest.mark.rule(21)
@pytest.mark.parametrize(
    "forward", [by_function, by_hook, by_numpy, in_place, into, without_a_result, of_a_view, caught]
)
def test_marks_are_not_lost(forward: Forward) -> None:
    with pytest.raises(ValueAsked, match=r"if or bool|numpy"):
        looked(forward)


def test_parameters_and_constants_may_be_read() -> None:
    model, given = nn.Linear(LENGTH, 2), batch()
    with looked_at(model, given):
        scale = 2.0 if model.weight.sum() > 0 else 1.0
        torch.autograd.backward((model(given["x"]) * scale * torch.ones(2).max().item()).sum())
    assert given["x"].sum() != 0  # outside nothing is refused


def test_losses_that_ask_are_named() -> None:
    model, given = nn.Linear(LENGTH, 2), batch()
    with pytest.raises(ValueAsked, match=r"^losses\(\) asks for values"), looked_at(model, given):
        model(given["x"]).max().item()


def test_opacus_hooks_may_ask() -> None:
    """What its samplers ask enters no other row; these pick rows of a mask, as some of them do."""
    layer, given = nn.Embedding(KINDS, 2), batch()
    with looked_at(layer, given):
        compute_embedding_grad_sample(
            layer, [given["ids"]], given["x"][:, :, None].expand(-1, -1, 2)
        )
        namespace = {"__name__": "opacus.grad_sample.sampler"}
        exec("def ask(x): return x.max().item()", namespace)
        namespace["ask"](given["x"])  # type: ignore[operator]


def forgotten(forward: Forward, **look: int) -> None:
    """A pass of a new model, after which nothing of it may be there."""
    model, given = nn.Sequential(Model(forward)), batch()
    with looked_at(model, given, **look) as looking:
        torch.autograd.backward(model(given).square().sum())
    model.zero_grad()
    given.clear()
    looking.check_forgotten()


KEPT: dict[str, torch.Tensor] = {}
TOTAL = torch.zeros(LENGTH)


def in_a_dictionary(b: Batch) -> torch.Tensor:
    KEPT["mean"] = b["x"].detach().mean(0)
    return b["x"]


def in_a_tensor_of_before(b: Batch) -> torch.Tensor:
    TOTAL.add_(b["x"].detach().sum(0))
    return b["x"]


def the_batch_itself(b: Batch) -> torch.Tensor:
    KEPT["ids"] = b["ids"][:, :2]
    return b["x"]


def as_a_view(b: Batch) -> torch.Tensor:
    KEPT["view"] = (b["x"] * 2)[0, :1].detach()
    return b["x"]


def with_its_graph(b: Batch) -> torch.Tensor:
    KEPT["hidden"] = b["x"].tanh()
    return KEPT["hidden"]


def from_the_backward_pass(b: Batch) -> torch.Tensor:
    result = b["x"].clone()
    result.register_hook(lambda gradient: KEPT.update(gradient=gradient * 2))
    return result


def of_labels(b: Batch) -> torch.Tensor:
    KEPT["ids"] = b["ids"].amax(0)
    return b["x"]


@pytest.mark.rule(21)
@pytest.mark.parametrize(
    "forward",
    [
        in_a_dictionary,
        in_a_tensor_of_before,
        the_batch_itself,
        as_a_view,
        with_its_graph,
        from_the_backward_pass,
        of_labels,
    ],
)
def test_what_outlives_a_pass_is_refused(forward: Forward) -> None:
    KEPT.clear()
    with pytest.raises(ValueKept, match="keeps something of the batches") as kept:
        forgotten(forward)
    KEPT.clear()
    with pytest.raises(Made) as made:
        forgotten(forward, until=kept.value.number)
    assert f"{__file__}:" in where_in_task(made.value)
    KEPT.clear()


def let_go(b: Batch) -> torch.Tensor:
    """Holds a tensor beyond forward, and lets it go; a cycle holds one until it is collected."""
    KEPT["mean"] = b["x"].detach().mean(0)
    KEPT.clear()
    cycle: list[Any] = [b["x"] * 2]
    cycle.append(cycle)
    return b["x"]


def test_what_torch_asks_only_to_raise_leaves_nothing_to_collect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With many modules loaded the collector takes half a second, at each of eleven looks."""
    monkeypatch.setattr(gc, "collect", lambda: pytest.fail("something was held"))
    gc.disable()
    try:
        forgotten(lambda b: b["x"] + functional.one_hot(b["ids"], KINDS).sum(2))
    finally:
        gc.enable()


def of_nothing_private(b: Batch) -> torch.Tensor:
    KEPT["places"] = torch.arange(b["x"].shape[1]) + 1.0
    return b["x"] + KEPT["places"]


@pytest.mark.parametrize("forward", [let_go, of_nothing_private])
def test_what_is_let_go_or_not_of_the_batch_passes(forward: Forward) -> None:
    KEPT.clear()
    forgotten(forward)


def test_buffers_may_stay_and_are_watched_elsewhere() -> None:
    def forward(b: Batch) -> torch.Tensor:
        model.register_buffer("mean", b["x"].detach().mean(0))
        return b["x"]

    model, given = Model(forward), batch()
    with looked_at(model, given) as looking:
        model(given)
    given.clear()
    looking.check_forgotten()


@pytest.fixture
def key() -> bytes:
    return derive_keys(bytes(range(32)), "uid", 1).looks


def test_one_draw_in_64_is_chosen(key: bytes) -> None:
    """Binomial(6400, 1/64): between 50 and 160 but with probability 1e-7; the key is fixed."""
    draws = [draw for draw in range(6400) if chosen(key, draw)]
    assert 50 < len(draws) < 160
    other = derive_keys(bytes(range(32)), "uid", 2).looks
    assert draws != [draw for draw in range(6400) if chosen(other, draw)]
