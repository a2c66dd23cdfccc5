"""Loads a checkpoint into the model and the optimizer that the task makes today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.ledger.checkpoint import Checkpoint
from dtjob_trainer.ledger.recovery import TrainingHeld
from dtjob_trainer.usercode.passing import may_pass

_REMEDY = (
    "Nothing was changed; put the task back to the model that the run began with, then go on, or "
    "start a new job, which spends anew"
)
_SHOWN = 3


def load(checkpoint: Checkpoint, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give `model` and `optimizer` the state of a checkpoint.

    Raises
    ------
    TrainingHeld
        `CheckpointMismatch`: it was saved of another model; the message names what differs.
    """
    state = checkpoint.state
    wrong = list(differences(state.model, model.state_dict()))
    if not wrong:
        try:
            model.load_state_dict(state.model)
            optimizer.load_state_dict(dict(state.optimizer))
        except Exception as error:  # a hook of the model's own may raise anything
            if may_pass(error):
                raise
            wrong = [f"{type(error).__name__}: {error}"]
        else:
            wrong = list(_strange_slots(optimizer))
    if wrong:
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise TrainingHeld(
            Reason.CHECKPOINT_MISMATCH,
            f"the checkpoint of step {checkpoint.step} does not fit the model that the task makes "
            f"now: {'; '.join(wrong[:_SHOWN])}{more}. {_REMEDY}",
        )


def differences(saved: Mapping[str, object], current: Mapping[str, object]) -> Iterator[str]:
    """How a saved state differs from the model's, in words."""
    for name in saved:
        if name not in current:
            yield f"the model has no {name}"
    for name in current:
        if name not in saved:
            yield f"the checkpoint has no {name}"
    for name, one in saved.items():
        other = current.get(name)
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            if one.shape != other.shape:
                yield f"{name} has shape {_shape(one)} in it, {_shape(other)} in the model"
            elif one.dtype != other.dtype:
                yield f"{name} is {one.dtype} in it, {other.dtype} in the model"
    if saved.keys() == current.keys() and list(saved) != list(current):
        # An optimizer knows parameters by their order alone: it would mix up their averages.
        yield "the model has the same parameters in another order"


def _strange_slots(optimizer: torch.optim.Optimizer) -> Iterator[str]:
    """What the optimizer keeps for a parameter has the parameter's shape, or none."""
    for parameter, slots in optimizer.state.items():
        for name, slot in slots.items():
            if isinstance(slot, torch.Tensor) and slot.dim() and slot.shape != parameter.shape:
                yield (
                    f"the optimizer's {name} has shape {_shape(slot)} for a parameter of "
                    f"{_shape(parameter)}"
                )


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "()"
