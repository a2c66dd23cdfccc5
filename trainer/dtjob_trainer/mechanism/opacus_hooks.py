"""What is used of Opacus beyond what it documents; no other module knows these names.

Tried with Opacus 1.6.0. `test_opacus_hooks.py` fails where another release has other names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.layers.dp_rnn import DPRNNBase


class ExampleHooks:
    """Hooks on a module that take each example's gradient; the module is not wrapped.

    Parameters
    ----------
    model
        The module, with the batch as the first dimension everywhere.
    parameters
        Its trainable parameters.
    """

    def __init__(self, model: torch.nn.Module, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._model = model
        self._parameters = parameters
        self._hooks = GradSampleHooks(model, batch_first=True, loss_reduction="sum", strict=False)
        # Of this object alone: whoever uses Opacus beside dtjob finds it as it was.
        self._hooks.GRAD_SAMPLERS = {**GradSampleHooks.GRAD_SAMPLERS, **_corrected()}

    def gradient(self, p: torch.Tensor) -> torch.Tensor | list[torch.Tensor] | None:
        """Return Tensor[P, ...] of a backward pass, a list of several, or None of none."""
        found: torch.Tensor | list[torch.Tensor] | None = p.grad_sample  # type: ignore[attr-defined]
        return found

    def forget(self) -> None:
        """Forget every activation and gradient that a pass may have left behind (Rule 8)."""
        for p in self._parameters:
            p.grad_sample = None  # type: ignore[attr-defined]
            p._forward_counter = 0  # type: ignore[attr-defined]
            if hasattr(p, "_current_grad_sample"):
                del p._current_grad_sample
        for module in self._model.modules():
            for attribute in ("activations", "max_batch_len"):
                if attribute in module.__dict__:
                    delattr(module, attribute)

    def remove(self) -> None:
        """Take the hooks off the module."""
        self._hooks.cleanup()


def _corrected() -> Mapping[type, Callable[..., Any]]:
    """Return the samplers that are wrong in Opacus 1.6.0, corrected."""
    samplers = GradSampleHooks.GRAD_SAMPLERS
    of_images, of_words = samplers[torch.nn.Conv2d], samplers[torch.nn.Embedding]

    def conv2d(
        layer: torch.nn.Conv2d, activations: list[torch.Tensor], backprops: torch.Tensor
    ) -> dict[torch.nn.Parameter, torch.Tensor]:
        """As if the channels came first in memory, Opacus reads the image by strides of its own."""
        found: dict[torch.nn.Parameter, torch.Tensor] = of_images(
            layer, [activations[0].contiguous()], backprops
        )
        return found

    def embedding(
        layer: torch.nn.Embedding, activations: list[torch.Tensor], backprops: torch.Tensor
    ) -> dict[torch.nn.Parameter, torch.Tensor]:
        """The word `padding_idx` has no gradient, which Opacus gives it."""
        found: dict[torch.nn.Parameter, torch.Tensor] = of_words(layer, activations, backprops)
        if layer.padding_idx is not None:
            for gradient in found.values():
                gradient[:, layer.padding_idx] = 0.0
        return found

    return {torch.nn.Conv2d: conv2d, torch.nn.Embedding: embedding}


def has_sampler(module: torch.nn.Module) -> bool:
    """Whether Opacus has a sampler written for this type of module; it derives all others."""
    return type(module) in GradSampleHooks.GRAD_SAMPLERS


def repeats_parameters(module: torch.nn.Module) -> bool:
    """Whether a module names the parameters of its cells once more, as torch's own does."""
    return isinstance(module, DPRNNBase)
