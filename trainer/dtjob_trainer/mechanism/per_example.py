"""The gradient of each example's loss (Rules 4 and 5)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch.nn.utils.parametrize import ParametrizationList

from dtjob_trainer.mechanism.opacus_hooks import ExampleHooks, repeats_parameters

Batch = Mapping[str, torch.Tensor]
Losses = Callable[[torch.nn.Module, Batch], torch.Tensor]


class GradientUnreached(RuntimeError):
    """Autograd gave a parameter a gradient that no per-example gradient accounts for (Rule 4)."""


class LossesInvalid(ValueError):
    """`losses()` didn't return one differentiable float per example (Rule 5)."""


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the trainable parameters in `named_parameters` order: the order of coordinates."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def check_losses(losses: object, rows: int) -> torch.Tensor:
    """Return `losses` if it is one float per example that gradients can flow from (Rule 5).

    Raises
    ------
    LossesInvalid
        Otherwise, with the remedy.
    """
    if not isinstance(losses, torch.Tensor):
        raise LossesInvalid(f"losses() returned a {type(losses).__name__}, not a tensor")
    if losses.shape != (rows,):
        raise LossesInvalid(
            f"losses() returned shape {tuple(losses.shape)} for a batch of {rows}, not one loss "
            'per example; use reduction="none" and reduce over everything but the first dimension',
        )
    if not losses.is_floating_point():
        raise LossesInvalid(
            f"losses() returned dtype {losses.dtype}; it must be a floating point one"
        )
    if not losses.requires_grad:
        raise LossesInvalid(
            "losses() returned a tensor without a graph: remove detach(), item(), no_grad() or "
            "a conversion to numpy between the parameters and the losses",
        )
    return losses


class PerExampleGradients:
    """The gradient of each example's loss, by Opacus' hooks on the user's own module.

    The module is not wrapped, so `losses` sees exactly what `Task.model` made.

    Parameters
    ----------
    model
        A module that the validator accepted.
    losses
        `losses(model, batch) -> Tensor[P]`.
    """

    def __init__(self, model: torch.nn.Module, losses: Losses) -> None:
        self._model = model
        self._losses = losses
        self._parameters = trainable(model)
        self._rows = 0
        self._astray: str | None = None
        self._folded = False
        self._watches = [
            module.register_forward_hook(functools.partial(self._note_rows, name))
            for name, module in model.named_modules()
            if any(p.requires_grad for p in module.parameters(recurse=False))
        ]
        self._hooks = ExampleHooks(model, list(self._parameters.values()))

    def __call__(self, batch: Batch, rows: int) -> list[torch.Tensor | None]:
        """Return Tensor[P, n_k] for each trainable parameter, None where no gradient reached it.

        The tensors are the caller's to overwrite. Nothing of an earlier call, complete or
        interrupted, enters (Rule 8).

        Raises
        ------
        GradientUnreached
            A gradient can't be told apart by example; the words hold nothing of the data.
        """
        self.reset()
        self._rows = rows
        losses = check_losses(self._losses(self._model, batch), rows)
        self._check_rows()
        self._hooks.backward(losses.sum())
        self._check_rows()  # checkpointing has called modules once more
        gradients = [self._take(name, p, rows) for name, p in self._parameters.items()]
        self.reset()
        return gradients

    def reset(self) -> None:
        """Forget every activation and gradient that a pass may have left behind (Rule 8)."""
        self._astray = None
        for p in self._parameters.values():
            p.grad = None
        self._hooks.forget()

    def close(self) -> None:
        """Take the hooks off the module."""
        self.reset()
        self._hooks.remove()
        for watch in self._watches:
            watch.remove()

    def _note_rows(
        self, name: str, _module: torch.nn.Module, inputs: object, output: object
    ) -> None:
        """Note a call on other rows than the batch's: Opacus takes its row i for example i.

        A record could then decide whose gradients are added up as one, and change the sum by a
        multiple of C. Not raised here, where it would look like an error of the task's own code.
        """
        whole, folded = True, False
        for value in (inputs, output):
            first = value[0] if isinstance(value, tuple) and value else value
            if isinstance(first, torch.Tensor):
                own = len(first) if first.dim() else 0
                whole &= own == self._rows
                folded |= own > self._rows > 0 and own % self._rows == 0
        if not whole and self._astray is None:
            self._astray, self._folded = name, folded

    def _check_rows(self) -> None:
        if self._astray is not None:
            raise GradientUnreached(
                f"module {self._astray or 'model'} is called on other rows than those of the batch "
                "(a part of them, a packed sequence, or something that doesn't have the batch "
                "first), so that its gradients can't be told apart by example; call it on the "
                "whole batch, once for each view or part of a record, and mask what is not wanted"
                f"{self._hint(self._astray)}",
            )

    def _hint(self, name: str) -> str:
        module = self._model.get_submodule(name)
        if isinstance(module, ParametrizationList):
            return "; of torch.nn.utils.parametrizations, such as weight_norm, train none"
        if repeats_parameters(module) and not module.batch_first:
            return "; make it with batch_first=True, and give it [rows, positions, features]"
        adapted = name.partition(".lora_")[0]
        if adapted != name and len(
            getattr(self._model.get_submodule(adapted), "lora_magnitude_vector", ())
        ):
            return (
                "; DoRA passes the identity through lora_A and lora_B for the norm of all weights: "
                "leave use_dora out, since LoRA without it works"
            )
        if self._folded and isinstance(module, torch.nn.Linear | torch.nn.LayerNorm):
            return (
                "; don't fold nodes or positions into the rows: Linear and LayerNorm take "
                "[rows, nodes, features]"
            )
        if not isinstance(module, torch.nn.Embedding):
            return ""
        return (
            "; if it looks positions up, the same for all rows, give each row its own: "
            "position_ids=torch.arange(n).expand(rows, -1)"
        )

    def _way_back(self, name: str) -> str:
        """What helps where a parameter is used elsewhere than in its module's forward."""
        owner, _, own = name.rpartition(".")
        if ".lora_embedding_" in owner:
            return (
                "LoRA of an embedding reads its weights so; leave embeddings, such as "
                "embed_tokens and wte, out of target_modules"
            )
        if not list(self._model.get_submodule(owner).children()) and owner:
            return (
                "call the module, read its weights nowhere else, and use activation checkpointing "
                "with use_reentrant=False"
            )
        return (
            f"put {own} into a module of its own, which the model's forward calls on a tensor of "
            f"the batch: def forward(self, x): return self.{own}.expand(len(x), "
            f"*self.{own}.shape)"
        )

    def _take(self, name: str, p: torch.nn.Parameter, rows: int) -> torch.Tensor | None:
        sample = self._hooks.gradient(p)
        if isinstance(sample, list) or (sample is None and p.grad is not None):
            raise GradientUnreached(
                f"parameter {name} got a gradient outside its module's forward, or in a pass of "
                f"its own: {self._way_back(name)}",
            )
        if sample is None:
            return None
        if sample.shape != (rows, *p.shape):
            raise GradientUnreached(
                f"parameter {name} has no gradient for each example; give its module inputs that "
                "have the batch first",
            )
        return sample.reshape(rows, -1).float()
