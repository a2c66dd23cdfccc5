"""A checkpoint goes into the model that it was saved of, and into no other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dtjob_api.reasons import Reason
from dtjob_trainer.ledger.checkpoint import Checkpoint, TrainingState
from dtjob_trainer.ledger.recovery import TrainingHeld
from dtjob_trainer.mechanism.optim import make_optimizer
from dtjob_trainer.rank import fitting

Make = Callable[[], nn.Module]


def trained(make: Make, optimizer: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model that has taken a step."""
    model = make()
    rule = make_optimizer(optimizer, [p for p in model.parameters() if p.requires_grad])
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    rule.step()
    return model, rule


def saved(make: Make, optimizer: str) -> Checkpoint:
    model, rule = trained(make, optimizer)
    state = TrainingState(model.state_dict(), rule.state_dict())
    return Checkpoint(step=7, charged=7, parameter_digest="", state=state)


def layers(*names: str, width: int = 4, frozen: str = "") -> nn.Module:
    made = nn.Sequential(OrderedDict((name, nn.Linear(width, width)) for name in names))
    for p in made.get_submodule(frozen).parameters() if frozen else []:
        p.requires_grad_(False)
    return made


def whole() -> nn.Module:
    return layers("first", "second")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_goes_into_its_own_model(optimizer: str) -> None:
    checkpoint = saved(whole, optimizer)
    model = whole()
    rule = make_optimizer(optimizer, list(model.parameters()))
    fitting.load(checkpoint, model, rule)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, checkpoint.state.model[name])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers("first"), "the model has no second.weight"),
        (lambda: layers("first", "second", "third"), "the checkpoint has no third.weight"),
        (lambda: layers("first", "second", width=5), "shape 4×4 in it, 5×5 in the model"),
        (lambda: whole().double(), "is torch.float32 in it, torch.float64 in the model"),
        (lambda: layers("second", "first"), "the same parameters in another order"),
        (lambda: layers("first", "second", frozen="first"), "parameter group"),
    ],
    ids=["fewer", "more", "other shape", "other dtype", "other order", "frozen"],
)
def test_it_goes_into_no_other(optimizer: str, make: Make, message: str) -> None:
    model = make()
    rule = make_optimizer(optimizer, [p for p in model.parameters() if p.requires_grad])
    with pytest.raises(TrainingHeld) as caught:
        fitting.load(saved(whole, optimizer), model, rule)
    assert caught.value.reason is Reason.CHECKPOINT_MISMATCH
    assert message in caught.value.message
    assert "checkpoint of step 7" in caught.value.message


def test_averages_of_another_parameter_are_no_parameters_own() -> None:
    """As many are trained as before, but not the same."""

    def frozen(name: str) -> nn.Module:
        made = nn.Sequential(
            OrderedDict([("wide", nn.Linear(4, 8, bias=False)), ("deep", nn.Linear(8, 2, False))])
        )
        made.get_submodule(name).requires_grad_(False)
        return made

    model = frozen("deep")
    rule = make_optimizer("adam", [p for p in model.parameters() if p.requires_grad])
    with pytest.raises(TrainingHeld, match="the optimizer's exp_avg has shape 2×8"):
        fitting.load(saved(lambda: frozen("wide"), "adam"), model, rule)


class Short(nn.Linear):
    """Has no memory left for a state."""

    def load_state_dict(self, *_arguments: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("no memory is left")


def test_what_another_try_may_cure_says_nothing_of_the_model() -> None:
    checkpoint = saved(lambda: nn.Linear(4, 4), "sgd")
    model = Short(4, 4)
    rule = make_optimizer("sgd", list(model.parameters()))
    with pytest.raises(torch.OutOfMemoryError):
        fitting.load(checkpoint, model, rule)
