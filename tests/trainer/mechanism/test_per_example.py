"""Rules 4 and 5: a gradient for each example, or none at all."""

import warnings

import pytest
import torch
from opacus.layers import DPLSTM
from torch import nn
from torch.utils.checkpoint import checkpoint

from dtjob_trainer.mechanism.per_example import GradientUnreached, PerExampleGradients
from tests.support.mechanism.models import CLASSES, FEATURES, cross_entropy, linear, rows


def gradients(model, arrays):
    one = PerExampleGradients(model, cross_entropy)
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        return one(batch, len(arrays["y"]))
    finally:
        one.close()


class AgainIfHard(nn.Module):
    """A layer that some rows pass a second time: only those whose record is unusual."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        hidden = self.layer(x)
        hard = (x.mean(1) > 0.9).nonzero().flatten()
        if len(hard):
            again = self.layer(torch.tanh(hidden[hard]))
            hidden = hidden.index_copy(0, hard, again)
        return self.head(hidden)


@pytest.mark.rule(4)
def test_a_module_called_on_a_part_of_the_rows_is_refused():
    """Opacus would take the part's first row for the batch's: 2.6·C were seen from one record."""
    arrays = rows(12)
    assert all(g.isfinite().all() for g in gradients(AgainIfHard(), arrays))
    arrays["x"][5:7] = 0.95
    with pytest.raises(GradientUnreached, match="module layer is called on other rows"):
        gradients(AgainIfHard(), arrays)


def repeating(layer, times):
    """The layer, of which each row comes out so many times."""
    layer.forward = lambda x: nn.functional.linear(x, layer.weight, layer.bias).repeat(times, 1)
    return layer


class OverATable(nn.Module):
    """A layer over constant rows, as many as the first batch has."""

    def __init__(self, count):
        super().__init__()
        self.table = torch.ones(count, FEATURES)
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return x[:, :CLASSES] * self.layer(self.table)


@pytest.mark.rule(4)
def test_rows_that_an_earlier_batch_had_are_other_rows():
    """Though as many come out of the module as the batch has."""
    model = OverATable(4)
    one = PerExampleGradients(model, cross_entropy)
    arrays = {name: torch.from_numpy(array) for name, array in rows(8).items()}
    assert one({name: array[:4] for name, array in arrays.items()}, 4)
    repeating(model.layer, 2)
    with pytest.raises(GradientUnreached, match="module layer is called on other rows"):
        one(arrays, 8)


@pytest.mark.rule(4)
def test_a_module_that_gives_other_rows_is_refused():
    class Halved(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = repeating(nn.Linear(FEATURES, CLASSES), 2)

        def forward(self, x):
            return self.layer(x)[: len(x)]

    with pytest.raises(GradientUnreached, match="module layer is called on other rows"):
        gradients(Halved(), rows(4))


@pytest.mark.rule(4)
def test_a_packed_sequence_is_refused():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = DPLSTM(1, 4, batch_first=True)
            self.head = nn.Linear(4, CLASSES)

        def forward(self, x):
            lengths = 1 + (x[:, 0] > 0).long()
            packed = nn.utils.rnn.pack_padded_sequence(
                x[:, :2, None], lengths, batch_first=True, enforce_sorted=False
            )
            return self.head(self.lstm(packed)[1][0][-1])

    with pytest.raises(GradientUnreached, match="packed sequence"):
        gradients(Packed(), rows(8))


@pytest.mark.rule(4)
def test_a_gradient_that_bypasses_the_hooks_is_never_used():
    class Bypass(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(FEATURES, CLASSES)

        def forward(self, x):
            return x @ self.layer.weight.t()

    with pytest.raises(GradientUnreached, match=r"layer\.weight"):
        gradients(Bypass(), rows(4))


class Reentrant(nn.Module):
    """One layer called twice, each call with activation checkpointing: passes of their own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        x.requires_grad_(True)
        for _ in range(2):
            x = torch.tanh(checkpoint(self.layer, x, use_reentrant=True))
        return self.head(x)


@pytest.mark.rule(4)
def test_several_passes_over_a_module_in_one_batch_are_refused():
    with pytest.raises(GradientUnreached, match=r"parameter layer\..*use_reentrant=False"):
        gradients(Reentrant(), rows(4))


class Checkpointed(nn.Module):
    """A block whose activations are computed once more in the backward pass."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh())
        self.head = nn.Linear(FEATURES, CLASSES)
        self.checkpointing = True

    def forward(self, x):
        if not self.checkpointing:
            return self.head(self.block(self.block(x)))
        for _ in range(2):
            x = checkpoint(self.block, x, use_reentrant=False)
        return self.head(x)


@pytest.mark.rule(4)
def test_checkpointing_changes_no_gradient():
    model, arrays = Checkpointed(), rows(4)
    checkpointed = gradients(model, arrays)
    model.checkpointing = False
    for one, other in zip(checkpointed, gradients(model, arrays), strict=True):
        torch.testing.assert_close(one, other)


def unused(model, batch):
    """Also a weight by what the model itself gives, through which no gradient flows."""
    certain = model(batch["x"]).softmax(1).amax(1).detach()
    return cross_entropy(model, batch) * (1 + certain)


def adversarial(model, batch):
    """On inputs moved along the gradient that the model itself has for them."""
    x = batch["x"].clone().requires_grad_()
    losses = cross_entropy(model, {**batch, "x": x})
    (slope,) = torch.autograd.grad(losses, x, grad_outputs=torch.ones_like(losses))
    return cross_entropy(model, {**batch, "x": batch["x"] + 0.1 * slope.sign()})


def in_a_hook(model, batch):
    """With a pass of its own while gradients are taken, as implicit layers have it."""
    x = batch["x"].clone().requires_grad_()
    outputs = model(x)
    again = model(batch["x"].clone().requires_grad_()).sum()

    def add(gradient):
        torch.autograd.grad(again, list(model.parameters()), retain_graph=True)
        return gradient

    outputs.register_hook(add)
    return nn.functional.cross_entropy(outputs, batch["y"], reduction="none")


@pytest.mark.rule(4)
@pytest.mark.parametrize("losses", [unused, adversarial, in_a_hook])
def test_a_call_that_no_gradient_of_the_losses_comes_back_to_counts_not(losses):
    model = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh(), nn.Linear(FEATURES, CLASSES))
    batch = {name: torch.from_numpy(array) for name, array in rows(4).items()}
    one = PerExampleGradients(model, losses)
    taken = one(batch, 4)
    one.close()
    each = losses(model, batch)
    for row in range(4):
        true = torch.autograd.grad(each[row], list(model.parameters()), retain_graph=True)
        for mine, expected in zip(taken, true, strict=True):
            assert mine is not None
            torch.testing.assert_close(mine[row], expected.flatten())


def test_no_warning_reaches_the_log():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradients(linear(), rows(4))


def test_hooks_leave_no_trace_on_the_users_model():
    model = linear()
    before = set(vars(model.weight)), list(model.state_dict())
    gradients(model, rows(4))
    assert (set(vars(model.weight)), list(model.state_dict())) == before
    assert model.weight.grad is None


class Tempered(nn.Module):
    """Its parts are used by the losses, and it is never called."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES)
        self.temperature = nn.Parameter(torch.ones(()))


def tempered_losses(model, batch):
    return nn.functional.cross_entropy(
        model.head(batch["x"]) * model.temperature, batch["y"], reduction="none"
    )


@pytest.mark.rule(4)
def test_a_free_parameter_of_the_losses_is_told_where_it_belongs():
    one = PerExampleGradients(Tempered(), tempered_losses)
    arrays = {name: torch.from_numpy(array) for name, array in rows(4).items()}
    with pytest.raises(GradientUnreached) as caught:
        one(arrays, 4)
    assert "put temperature into a module of its own" in str(caught.value)
    assert "use_reentrant" not in str(caught.value)
