"""What is used of Opacus beyond what it documents; no other module knows these names.

Tried with Opacus 1.6.0. `test_opacus_hooks.py` fails where another release has other names.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.functorch import prepare_layer
from opacus.layers.dp_rnn import DPRNNBase
from opacus.utils.tensor_utils import sum_over_all_but_batch_and_last_n
from torch.nn import functional


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
        self._hooks = _Hooks(model, batch_first=True, loss_reduction="sum", strict=False)
        # Of this object alone: whoever uses Opacus beside dtjob finds it as it was.
        self._hooks.GRAD_SAMPLERS = {**GradSampleHooks.GRAD_SAMPLERS, **_corrected()}

    def gradient(self, p: torch.Tensor) -> torch.Tensor | list[torch.Tensor] | None:
        """Return Tensor[P, ...] of a backward pass, a list of several, or None of none."""
        found: torch.Tensor | list[torch.Tensor] | None = p.grad_sample  # type: ignore[attr-defined]
        # Opacus waits for a gradient of each call. To some none comes back: their output is not
        # used, or checkpointing has called them once more.
        return getattr(p, "_current_grad_sample", None) if found is None else found

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

    def backward(self, loss: torch.Tensor) -> None:
        """Take the gradients of a loss.

        Those that the task's own code takes count not, be it before or in a hook meanwhile: they
        are of other passes of autograd's.
        """

        def begin(_: object) -> None:
            self._hooks.counted = torch._C._current_graph_task_id()

        assert loss.grad_fn is not None
        handle = loss.grad_fn.register_prehook(begin)
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            handle.remove()
            self._hooks.counted = None

    def remove(self) -> None:
        """Take the hooks off the module."""
        self._hooks.cleanup()


class _Hooks(GradSampleHooks):  # type: ignore[misc]
    """Opacus' hooks, with one on what made an output instead of a full backward hook on a module.

    Such a hook makes a view of an output, which then must not be overwritten in place, as ResNet
    and many others do. One on the node of autograd's graph gets the gradient of what the module
    gave, whatever is written there later, and after the hooks on the tensor itself, which may
    change it. It knows its own call: a module may be called several times, and its calls come back
    in whichever order.
    """

    counted: int | None = None
    """The number that autograd gives the pass whose gradients are taken."""

    def add_hooks(
        self,
        *,
        loss_reduction: str = "mean",
        batch_first: bool = True,
        force_functorch: bool = False,
    ) -> None:
        """Add the hooks, as Opacus' own method of this name."""
        handles: list[object] = []
        self._module.autograd_grad_sample_hooks = self.autograd_grad_sample_hooks = handles
        for module in self.iterate_submodules(self._module):
            if isinstance(module, DPRNNBase):
                continue  # its cells have the hooks
            if force_functorch or not has_sampler(module):
                prepare_layer(module, batch_first=batch_first)
            back = functools.partial(
                self.capture_backprops_hook, loss_reduction=loss_reduction, batch_first=batch_first
            )
            handles.append(module.register_forward_hook(functools.partial(self._follow, back)))
        self.enable_hooks()

    def _follow(
        self, back: Callable[..., None], module: torch.nn.Module, inputs: Any, output: Any
    ) -> None:
        before = len(module.__dict__.get("activations", ()))
        self.capture_activations_hook(module, inputs, output)
        kept = module.__dict__.get("activations", [])
        first = output[0] if isinstance(output, tuple) else output
        if len(kept) == before or not isinstance(first, torch.Tensor) or first.grad_fn is None:
            return
        of_call, number = kept[-1], first.output_nr

        def come_back(gradients: Sequence[torch.Tensor | None]) -> None:
            if torch._C._current_graph_task_id() != self.counted:
                return
            if gradients[number] is None:
                return
            # Opacus takes the last ones. `failed_in` finds the module here.
            kept.sort(key=lambda each: each is of_call)
            back(module, None, (gradients[number],))

        first.grad_fn.register_prehook(come_back)


def failed_in(error: BaseException) -> torch.nn.Module | None:
    """Return the module whose hooks raised an error; None where the error is of other code."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        of_hook = frame.f_code.co_name in ("_follow", "come_back")
        if of_hook and frame.f_code.co_filename == __file__:
            module: torch.nn.Module = frame.f_locals["module"]
            return module
    return None


def _corrected() -> Mapping[type, Callable[..., Any]]:
    """Return the samplers that are wrong in Opacus 1.6.0, corrected."""
    samplers = GradSampleHooks.GRAD_SAMPLERS
    of_images, of_words = samplers[torch.nn.Conv2d], samplers[torch.nn.Embedding]
    of_norms, of_groups = samplers[torch.nn.LayerNorm], samplers[torch.nn.GroupNorm]

    def conv2d(
        layer: torch.nn.Conv2d, activations: list[torch.Tensor], backprops: torch.Tensor
    ) -> dict[torch.nn.Parameter, torch.Tensor]:
        """As if the channels came first in memory, Opacus reads the image by strides of its own."""
        images = activations[0]
        # Of one pixel, or one channel, both are so, and the strides may be those of the other.
        last = images.is_contiguous(memory_format=torch.channels_last)
        if last or not images.is_contiguous():
            images = images.clone(memory_format=torch.contiguous_format)
        found: dict[torch.nn.Parameter, torch.Tensor] = of_images(layer, [images], backprops)
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

    def group_norm(
        layer: torch.nn.GroupNorm, activations: list[torch.Tensor], backprops: torch.Tensor
    ) -> dict[torch.nn.Parameter, torch.Tensor]:
        """Under autocast on a CPU the places are bf16, as which Opacus would add them up."""
        found: dict[torch.nn.Parameter, torch.Tensor] = of_groups(
            layer, [activations[0].float()], backprops.float()
        )
        return found

    def layer_norm(
        layer: torch.nn.LayerNorm, activations: list[torch.Tensor], backprops: torch.Tensor
    ) -> dict[torch.nn.Parameter, torch.Tensor]:
        """Of a bias that there isn't Opacus asks whether it is trained."""
        if layer.bias is not None:
            found: dict[torch.nn.Parameter, torch.Tensor] = of_norms(layer, activations, backprops)
            return found
        normed = functional.layer_norm(activations[0], layer.normalized_shape, eps=layer.eps)
        rest = layer.weight.dim()
        return {
            layer.weight: sum_over_all_but_batch_and_last_n(normed * backprops, rest),
        }

    return {
        torch.nn.Conv2d: conv2d,
        torch.nn.Embedding: embedding,
        torch.nn.GroupNorm: group_norm,
        torch.nn.LayerNorm: layer_norm,
    }


def has_sampler(module: torch.nn.Module) -> bool:
    """Whether Opacus has a sampler written for this type of module; it derives all others."""
    return type(module) in GradSampleHooks.GRAD_SAMPLERS


def repeats_parameters(module: torch.nn.Module) -> bool:
    """Whether a module names the parameters of its cells once more, as torch's own does."""
    return isinstance(module, DPRNNBase)


def is_hooks_module(name: str) -> bool:
    """Whether a module of this name has the hooks and samplers, and no layer that a user calls."""
    return name.startswith("opacus.grad_sample.")
