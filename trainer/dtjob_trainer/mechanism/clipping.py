"""Per-example gradients, clipped and summed in fp32 (Rules 4 and 5)."""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from dtjob_accounting.event import Adjacency
from dtjob_trainer.mechanism.noise import clipped_norm
from dtjob_trainer.mechanism.opacus_hooks import ExampleHooks

Batch = Mapping[str, torch.Tensor]
Losses = Callable[[torch.nn.Module, Batch], torch.Tensor]

# Rows of a larger norm become zero: their squares leave fp32's range somewhere beyond.
_LARGEST_NORM = 2.0**60
_NORM_BLOCK = 256


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
        with warnings.catch_warnings():
            # The first layer's inputs need no gradient, as everywhere in training.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            losses.sum().backward()  # type: ignore[no-untyped-call]
        if self._astray is not None:
            raise GradientUnreached(
                f"module {self._astray or 'model'} is called on other rows than those of the batch "
                "(a part of them, a packed sequence, or something that doesn't have the batch "
                "first), so that its gradients can't be told apart by example; call it on the "
                "whole batch, and mask what is not wanted",
            )
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
        whole = True
        for value in (inputs, output):
            first = value[0] if isinstance(value, tuple) and value else value
            if isinstance(first, torch.Tensor):
                whole &= first.dim() > 0 and len(first) == self._rows
        if not whole and self._astray is None:
            self._astray = name

    def _take(self, name: str, p: torch.nn.Parameter, rows: int) -> torch.Tensor | None:
        sample = self._hooks.gradient(p)
        if sample is None:
            if p.grad is not None:
                raise GradientUnreached(
                    f"parameter {name} got a gradient outside its module's forward; call the "
                    "module, and read its weights nowhere else",
                )
            return None
        if isinstance(sample, list):
            raise GradientUnreached(
                f"parameter {name} got gradients in several passes over one batch; use activation "
                "checkpointing with use_reentrant=False",
            )
        if sample.shape != (rows, *p.shape):
            raise GradientUnreached(
                f"parameter {name} has no gradient for each example; give its module inputs that "
                "have the batch first",
            )
        return sample.reshape(rows, -1).float()


class Clipper(Protocol):
    """Bounds what a record adds to the sum of gradients."""

    def sensitivity(self, adjacency: Adjacency, /) -> float:
        """Return the L2 sensitivity of the sum, all rounding included, that to the lattice too."""

    def summed(
        self, model: torch.nn.Module, losses: Losses, multiple: int
    ) -> ClippedSum | PlainSum:
        """Return a sum over the model's trainable parameters; see `ClippedSum`."""


@dataclass(frozen=True)
class PerExampleClip:
    """Σ gᵢ·min(1, C(1 − 2⁻¹⁰)/‖gᵢ‖) over the gradients gᵢ of the examples (Rule 4).

    Clipping of Abadi et al., "Deep Learning with Differential Privacy" (arXiv:1607.00133),
    section 3.1. The slack of 2⁻¹⁰ is for rounding.

    Attributes
    ----------
    max_grad_norm
        C.
    """

    max_grad_norm: float

    def sensitivity(self, adjacency: Adjacency, /) -> float:
        """Return C for one record more, 2C for one in the place of another."""
        return self.max_grad_norm * (2 if adjacency is Adjacency.REPLACE_ONE else 1)

    def summed(self, model: torch.nn.Module, losses: Losses, multiple: int) -> ClippedSum:
        """Return the sum over `model`, whose hooks are the sum's to take off."""
        gradients = PerExampleGradients(model, losses)
        parameters = list(trainable(model).values())
        return ClippedSum(gradients, parameters, clipped_norm(self.max_grad_norm), multiple)


@dataclass(frozen=True)
class Unclipped:
    """Σ gᵢ, for `mode: Disabled`: one record may change it by anything."""

    def sensitivity(self, _adjacency: Adjacency, /) -> float:
        """Return infinity."""
        return math.inf

    def summed(self, model: torch.nn.Module, losses: Losses, multiple: int) -> PlainSum:
        """Return the sum over `model`."""
        return PlainSum(model, losses, multiple)


#: By `spec.privacy.clipping`. What each of them adds is measured against what it states.
CLIPPERS: Mapping[str, Callable[[float], Clipper]] = {
    "auto": PerExampleClip,
    "hooks": PerExampleClip,
}


class ClippedSum:
    """The sum of clipped per-example gradients in one flat fp64 buffer (Rules 4 and 5).

    Adding or removing one example changes `flat` by at most `clip_to` in L2 norm, up to
    rounding, which the slack between `clip_to` and C covers: that of one micro-batch in fp32.
    An fp32 sum over all of them would round by parts of B·C (1.004·C seen at B = 131,072).

    Parameters
    ----------
    gradients
        Gives the per-example gradients.
    parameters
        The trainable parameters, in order; coordinate i of `flat` is coordinate i of them.
    clip_to
        C(1 − 2⁻¹⁰).
    multiple
        `flat` is padded with zeros to a multiple of this, the world size.
    """

    def __init__(
        self,
        gradients: PerExampleGradients,
        parameters: Sequence[torch.nn.Parameter],
        clip_to: float,
        multiple: int,
    ) -> None:
        self.flat = flat_buffer(parameters, multiple)
        self._slices = flat_slices(parameters)
        self._gradients = gradients
        self._clip_to = clip_to

    def zero_(self) -> None:
        """Start a logical batch; forgets whatever an earlier one left (Rule 8)."""
        self.flat.zero_()
        self._gradients.reset()

    def add(self, batch: Batch, mask: torch.Tensor) -> None:
        """Add the clipped gradients of the rows of a micro-batch that `mask[P]` selects."""
        self.accumulate(self._gradients(batch, mask.numel()), mask)

    def close(self) -> None:
        """Take the hooks off the module."""
        self._gradients.close()

    def accumulate(self, gradients: Sequence[torch.Tensor | None], mask: torch.Tensor) -> None:
        """Clip rows to `clip_to` and add them up (Rule 4); overwrites `gradients`.

        Norms are measured on the same fp32 operands that are then contracted. Rows that are
        masked or not finite are overwritten with zeros before the contraction: 0 × NaN is NaN.
        """
        present = [
            (flat, gradient)
            for flat, gradient in zip(self._slices, gradients, strict=True)
            if gradient is not None
        ]
        if not present:
            return
        with exact_fp32(self.flat.device):
            squares = torch.stack([squared_norms(gradient) for _, gradient in present])
            norms = squares.sum(0).sqrt()
            keep = mask & (norms < _LARGEST_NORM)  # False for NaN
            factors = torch.where(keep, (self._clip_to / norms).clamp(max=1.0), 0.0).float()
            for flat, gradient in present:
                gradient.masked_fill_(~keep[:, None], 0.0)
                self.flat[flat] += gradient.t() @ factors


class PlainSum:
    """The sum of gradients without privacy, for `mode: Disabled`: neither clipped nor noised."""

    def __init__(
        self,
        model: torch.nn.Module,
        losses: Losses,
        multiple: int,
    ) -> None:
        self._model = model
        self._losses = losses
        self._parameters = list(trainable(model).values())
        self.flat = flat_buffer(self._parameters, multiple)
        self._slices = flat_slices(self._parameters)

    def zero_(self) -> None:
        """Start a logical batch."""
        self.flat.zero_()
        for p in self._parameters:
            p.grad = None

    def add(self, batch: Batch, mask: torch.Tensor) -> None:
        """Add the gradients of the rows that `mask[P]` selects."""
        losses = check_losses(self._losses(self._model, batch), mask.numel())
        torch.where(mask, losses, 0.0).sum().backward()  # type: ignore[no-untyped-call]
        for flat, p in zip(self._slices, self._parameters, strict=True):
            if p.grad is not None:
                self.flat[flat] += p.grad.reshape(-1)
            p.grad = None


def squared_norms(gradient: torch.Tensor) -> torch.Tensor:
    """Return the squared L2 norm of each row of `gradient[P, n]` as fp64[P].

    fp32 within blocks, fp64 across them: exact to 2⁻¹⁷, where one long fp32 sum of equal terms
    can fall short by more than the clip's slack (Rule 4). All in fp64 takes ten times as long.
    """
    rows, n = gradient.shape
    whole = n - n % _NORM_BLOCK
    squares = torch.zeros(rows, dtype=torch.float64, device=gradient.device)
    if whole:
        blocks = gradient[:, :whole].reshape(rows, -1, _NORM_BLOCK)
        squares += torch.linalg.vector_norm(blocks, dim=2).double().square().sum(1)
    if whole < n:
        squares += torch.linalg.vector_norm(gradient[:, whole:], dim=1).double().square()
    return squares


def flat_buffer(parameters: Sequence[torch.nn.Parameter], multiple: int) -> torch.Tensor:
    """Return fp64 zeros for all coordinates, padded to a multiple of `multiple`."""
    coordinates = sum(p.numel() for p in parameters)
    padded = -(-coordinates // multiple) * multiple
    return torch.zeros(padded, dtype=torch.float64, device=parameters[0].device)


def flat_slices(parameters: Sequence[torch.nn.Parameter]) -> list[slice]:
    """Return where in the flat buffer each parameter's coordinates lie."""
    slices, start = [], 0
    for p in parameters:
        slices.append(slice(start, start + p.numel()))
        start += p.numel()
    return slices


@contextlib.contextmanager
def exact_fp32(device: torch.device) -> Iterator[None]:
    """Compute fp32 products as fp32: no TF32, no bf16 passes, no autocast (Rule 4).

    Through the backends' own settings: torch's older `get_float32_matmul_precision` raises in a
    process whose task has used these.
    """
    backends: Any = torch.backends
    products = (backends.cuda.matmul, backends.mkldnn.matmul)
    before = [each.fp32_precision for each in products]
    for each in products:
        each.fp32_precision = "ieee"
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for each, precision in zip(products, before, strict=True):
            each.fp32_precision = precision
