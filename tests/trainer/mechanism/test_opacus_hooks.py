"""What Opacus keeps of a pass, under names of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import opacus
import pytest
import torch
from opacus.layers import DPGRU, DPLSTM, DPRNN
from torch import nn

from dtjob_trainer.mechanism.opacus_hooks import ExampleHooks, has_sampler, repeats_parameters

CHANGED = f"Opacus {opacus.__version__} is not as 1.6.0, with which opacus_hooks.py was tried"


class Interrupted(Exception):
    """A pass ends half-way."""


class Stop(nn.Module):
    """Interrupts the backward pass when it gets here."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def interrupt(_gradient: torch.Tensor) -> None:
            raise Interrupted

        x = x.clone()
        x.register_hook(interrupt)
        return x


@pytest.fixture
def model() -> nn.Sequential:
    """One layer called twice, with an interruption between its backward passes."""
    layer = nn.Linear(2, 2)
    return nn.Sequential(layer, Stop(), layer)


@pytest.fixture
def hooks(model: nn.Sequential) -> Iterator[ExampleHooks]:
    made = ExampleHooks(model, list(model.parameters()))
    made.forget()
    yield made
    made.remove()


def interrupted(model: nn.Module, hooks: ExampleHooks) -> None:
    losses = model(torch.ones(3, 2)).sum()
    with pytest.raises(Interrupted):
        hooks.backward(losses)


def kept(model: nn.Module) -> dict[str, dict[str, Any]]:
    """All attributes of modules and parameters."""
    owners = [*model.named_modules(), *model.named_parameters()]
    return {name: dict(vars(owner)) for name, owner in owners}


@pytest.mark.rule(8)
def test_an_interrupted_pass_is_kept_under_the_names_that_are_forgotten(
    model: nn.Sequential, hooks: ExampleHooks
) -> None:
    interrupted(model, hooks)
    layer, weight = vars(model[0]), vars(model[0].weight)
    assert {"activations", "max_batch_len"} <= layer.keys(), CHANGED
    assert {"_current_grad_sample", "grad_sample"} <= weight.keys(), CHANGED
    assert weight["_forward_counter"] == 1, CHANGED


@pytest.mark.rule(8)
def test_what_is_forgotten_leaves_nothing_of_a_pass(
    model: nn.Sequential, hooks: ExampleHooks
) -> None:
    before = kept(model)
    interrupted(model, hooks)
    assert kept(model) != before
    hooks.forget()
    assert kept(model) == before, CHANGED


def test_a_pass_gives_each_parameter_a_gradient_for_each_example() -> None:
    model = nn.Linear(2, 2)
    hooks = ExampleHooks(model, list(model.parameters()))
    hooks.forget()
    assert hooks.gradient(model.weight) is None
    hooks.backward(model(torch.ones(3, 2, requires_grad=True)).sum())
    one = hooks.gradient(model.weight)
    assert isinstance(one, torch.Tensor), CHANGED
    assert one.shape == (3, 2, 2), CHANGED
    hooks.backward(model(torch.ones(3, 2, requires_grad=True)).sum())
    several = hooks.gradient(model.weight)
    assert isinstance(several, list), CHANGED
    assert len(several) == 2, CHANGED
    hooks.remove()


def test_a_pass_of_the_tasks_own_code_counts_not(model: nn.Sequential, hooks: ExampleHooks) -> None:
    model[0](torch.ones(3, 2, requires_grad=True)).sum().backward()
    assert all(hooks.gradient(p) is None for p in model.parameters())


def test_samplers_are_known_by_the_type_of_a_module() -> None:
    class Own(nn.Linear):
        """A linear layer to Python, and a stranger to Opacus."""

    assert has_sampler(nn.Linear(1, 1)), CHANGED
    assert not has_sampler(Own(1, 1)), CHANGED


@pytest.mark.parametrize("layer", [DPRNN, DPGRU, DPLSTM])
def test_recurrent_layers_repeat_the_parameters_of_their_cells(layer: type[nn.Module]) -> None:
    made = layer(1, 1)
    owners = [p for _, p in made.named_parameters(remove_duplicate=False)]
    assert len(owners) > len(set(owners)), CHANGED
    assert repeats_parameters(made), CHANGED


@pytest.mark.rule(4)
@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Conv2d(2, 3, 2), torch.rand(3, 2, 4, 4).contiguous(memory_format=torch.channels_last)),
        (
            nn.Conv2d(2, 3, 3, padding=1),
            torch.rand(3, 2, 1, 1).contiguous(memory_format=torch.channels_last),
        ),
        (nn.Embedding(4, 2, padding_idx=1), torch.tensor([[0, 1], [1, 1], [3, 2]])),
        (nn.LayerNorm(4, bias=False), torch.rand(3, 5, 4)),
    ],
    ids=["channels last", "channels last of one pixel", "a word that is padding", "no bias"],
)
def test_what_opacus_gets_wrong_is_corrected(layer: nn.Module, inputs: torch.Tensor) -> None:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    hooks = ExampleHooks(layer, list(layer.parameters()))
    hooks.forget()
    hooks.backward((layer(inputs) + 1).square().sum())
    found = hooks.gradient(weight)
    hooks.remove()
    for row, one in enumerate(inputs):
        (wanted,) = torch.autograd.grad((layer(one[None]) + 1).square().sum(), weight)
        assert isinstance(found, torch.Tensor)
        assert torch.allclose(found[row], wanted)


@pytest.mark.rule(4)
def test_a_group_norm_of_low_precision_adds_up_in_fp32() -> None:
    """On a CPU autocast lets its inputs be bf16, and the gradient of its output."""
    torch.manual_seed(0)
    layer, inputs = nn.GroupNorm(2, 4), torch.randn(3, 4, 8, 8).bfloat16()
    hooks = ExampleHooks(layer, list(layer.parameters()))
    hooks.forget()
    back: list[torch.Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(inputs)
    outputs.register_hook(back.append)
    hooks.backward(outputs.float().exp().sum())
    found = {name: hooks.gradient(p) for name, p in layer.named_parameters()}
    hooks.remove()
    reference = nn.GroupNorm(2, 4).double()
    for row in range(3):
        output = reference(inputs[row : row + 1].double())
        wanted = torch.autograd.grad(
            output, list(reference.parameters()), back[0][row : row + 1].double()
        )
        for of_all, of_row in zip(found.values(), wanted, strict=True):
            assert isinstance(of_all, torch.Tensor)
            torch.testing.assert_close(of_all[row].double(), of_row, rtol=1e-5, atol=1e-4)


@pytest.mark.rule(4)
def test_a_call_has_its_own_inputs_whenever_it_comes_back() -> None:
    layer, one, other = nn.Linear(2, 2), torch.rand(3, 2), torch.rand(3, 2)
    hooks = ExampleHooks(layer, list(layer.parameters()))
    hooks.forget()
    first, second = layer(one).square().sum(), layer(other).sum()
    hooks.backward(first)
    hooks.backward(second)
    found = hooks.gradient(layer.weight)
    hooks.remove()
    for row in range(3):
        losses = layer(one[row]).square().sum() + layer(other[row]).sum()
        (wanted,) = torch.autograd.grad(losses, layer.weight)
        assert isinstance(found, torch.Tensor)
        assert torch.allclose(found[row], wanted)


@pytest.mark.rule(4)
def test_an_output_may_be_written_over() -> None:
    layer, inputs = nn.Linear(2, 2), torch.rand(3, 2)
    hooks = ExampleHooks(layer, list(layer.parameters()))
    hooks.forget()
    hooks.backward(torch.relu_(layer(inputs).add_(1)).square().sum())
    found = hooks.gradient(layer.weight)
    hooks.remove()
    for row in range(3):
        loss = torch.relu(layer(inputs[row]) + 1).square().sum()
        (wanted,) = torch.autograd.grad(loss, layer.weight)
        assert isinstance(found, torch.Tensor)
        assert torch.allclose(found[row], wanted)
