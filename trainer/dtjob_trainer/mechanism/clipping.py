"""Sums of per-example gradients, clipped and not (Rules 4 and 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from dtjob_accounting.event import Adjacency
from dtjob_trainer.mechanism.contraction import exact_fp32, squared_norms, weighted_sum
from dtjob_trainer.mechanism.per_example import (
    Batch,
    Losses,
    PerExampleGradients,
    check_losses,
    trainable,
)
from dtjob_trainer.mechanism.slack import clipped_norm

# Rows of a larger norm become zero: their squares leave fp32's range somewhere beyond.
_LARGEST_NORM = 2.0**60


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
    rounding, which the slack between `clip_to` and C covers: that of `CHAIN_ROWS` rows in
    fp32. An fp32 sum of all of them would round by parts of B²·2⁻²⁴·C.

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

    Attributes
    ----------
    flat
        The sum, fp64.
    gradients
        As given.
    """

    def __init__(
        self,
        gradients: PerExampleGradients,
        parameters: Sequence[torch.nn.Parameter],
        clip_to: float,
        multiple: int,
    ) -> None:
        self.flat = flat_buffer(parameters, multiple)
        self.gradients = gradients
        self._slices = flat_slices(parameters)
        self._clip_to = clip_to

    def zero_(self) -> None:
        """Start a logical batch; forgets whatever an earlier one left (Rule 8)."""
        self.flat.zero_()
        self.gradients.reset()

    def add(self, batch: Batch, mask: torch.Tensor) -> None:
        """Add the clipped gradients of the rows of a micro-batch that `mask[P]` selects."""
        self.accumulate(self.gradients(batch, mask.numel()), mask)

    def close(self) -> None:
        """Take the hooks off the module."""
        self.gradients.close()

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
                self.flat[flat] += weighted_sum(factors, gradient)


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
