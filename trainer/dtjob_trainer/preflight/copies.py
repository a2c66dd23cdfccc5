"""Refuse models that can't be copied or take no hooks: the step and Opacus need both."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator

import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.task import TaskError
from dtjob_trainer.usercode.passing import may_pass


def check_scripted(model: torch.nn.Module) -> None:
    """Refuse modules of TorchScript, frozen ones too: they take no hooks.

    Raises
    ------
    TaskError
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TaskError(
                Reason.TASK_INVALID,
                f"module {name or 'model'} ({type(module).__name__}) is compiled by torch.jit, and "
                "such modules take none of the hooks that see each example; let Task.model return "
                "the module as it was written, without torch.jit.script or torch.jit.trace",
            )


def check_copyable(model: torch.nn.Module) -> None:
    """Refuse a model that copy.deepcopy can't copy; to be called after a training pass.

    What a pass leaves behind counts too, such as an activation that a module keeps.

    Raises
    ------
    TaskError
        Names module, attribute and the place where the module is written.
    """
    try:
        copy.deepcopy(model)
    except Exception as error:
        if may_pass(error):
            raise
        culprit = next(_culprits(model), None) or f"the model ({type(model).__name__})"
        raise TaskError(
            Reason.TASK_INVALID,
            f"copy.deepcopy can't copy {culprit}: {type(error).__name__}: {error}. Keep locks, "
            "open files, generators and tensors of a forward pass out of the model: make them "
            "where they are used, and return from forward what losses() needs of a pass (of an "
            "attribute, as self.l_aux of experts, losses() may take it, and set it to None)",
        ) from None


def _culprits(model: torch.nn.Module) -> Iterator[str]:
    """The attributes that can't be copied, each with its module and where that is written."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                yield (
                    f"attribute {attribute} (a {type(value).__name__}) of module "
                    f"{name or 'model'} ({type(module).__name__}{_written_at(type(module))})"
                )


def _written_at(kind: type) -> str:
    try:
        return f" at {inspect.getsourcefile(kind)}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):
        return ""
