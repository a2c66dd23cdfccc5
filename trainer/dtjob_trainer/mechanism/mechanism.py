"""The private mechanism of a job as one value: what is drawn, clipped, noised and accounted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dtjob_accounting import draws
from dtjob_accounting.event import Adjacency, SampledGaussian
from dtjob_trainer.mechanism.clipping import CLIPPERS, Clipper, Unclipped
from dtjob_trainer.mechanism.noise import Lattice
from dtjob_trainer.mechanism.records.sampling import PoissonSampler
from dtjob_trainer.mechanism.records.scatter import Layout
from dtjob_trainer.mechanism.slack import Roundings


class MechanismPlan(Protocol):
    """What a mechanism reads of the frozen privacy plan: public constants only (Rule 5)."""

    @property
    def mode(self) -> str:
        """`DPSGD` or `Disabled`."""
        ...

    @property
    def noise_multiplier(self) -> float | None:
        """σ; None without privacy."""
        ...

    @property
    def max_grad_norm(self) -> float | None:
        """C; None without privacy."""
        ...

    @property
    def batch_size(self) -> int:
        """B, the expected number of records of a draw."""
        ...

    @property
    def dataset_size(self) -> int:
        """N, the number of records."""
        ...

    @property
    def sample_rate(self) -> float | None:
        """q as it is accounted, at least B / N; None where nothing is."""
        ...

    @property
    def delta(self) -> float | None:
        """δ; None without privacy."""
        ...

    @property
    def steps(self) -> int:
        """T."""
        ...

    @property
    def replay_reserve_steps(self) -> int:
        """R: no more than T + R draws are ever made."""
        ...

    @property
    def clipping(self) -> str:
        """How the sum of clipped gradients is made; see `Clipping`."""
        ...

    @property
    def adjacency(self) -> str:
        """`AddRemove`: one record more or less."""
        ...


@dataclass(frozen=True)
class Mechanism:
    """The Gaussian mechanism on a Poisson sample: Σ_{i ∈ S} clip(gᵢ) + N(0, σ²Δ²·I).

    Every record is in S with probability q; Δ is the sensitivity that the clipper states. Nothing
    else scales the noise, and the accountants are asked for the same σ and q: DP-SGD of Abadi et
    al., "Deep Learning with Differential Privacy" (arXiv:1607.00133), without its mean.

    Attributes
    ----------
    sampler
        Draws S, at rate q.
    clipper
        Bounds what a record adds to the sum, and states Δ.
    noise_multiplier
        σ. Zero is no noise, which `of` gives to mode `Disabled` alone (Rule 6).
    adjacency
        Whose difference is hidden.

    Raises
    ------
    ValueError
        No accountant bounds a Poisson sample under this adjacency.
    """

    sampler: PoissonSampler
    clipper: Clipper
    noise_multiplier: float
    adjacency: Adjacency = Adjacency.ADD_REMOVE

    def __post_init__(self) -> None:
        if self.adjacency is not Adjacency.ADD_REMOVE:
            raise ValueError(f"adjacency {self.adjacency} must be {Adjacency.ADD_REMOVE}")

    @classmethod
    def of(cls, plan: MechanismPlan) -> Mechanism:
        """Return the mechanism that a frozen plan describes.

        Raises
        ------
        ValueError
            The plan describes none. Mode `DPSGD` without noise is none (Rule 6), and so is a
            sample rate, which is what is accounted, below that of the draws (Rule 3).
        """
        tail = draws.overflow_tail(plan.delta, plan.steps + plan.replay_reserve_steps)
        sampler = PoissonSampler(plan.batch_size, plan.dataset_size, tail)
        if plan.mode == "Disabled":
            return cls(sampler, Unclipped(), 0.0)
        if plan.mode != "DPSGD":
            raise ValueError(f"privacy mode {plan.mode!r} must be DPSGD or Disabled")
        if not (plan.noise_multiplier and plan.max_grad_norm and plan.delta):
            raise ValueError("a plan of mode DPSGD needs noise_multiplier, max_grad_norm and delta")
        if not (plan.sample_rate or 0.0) >= sampler.rate:
            raise ValueError(
                f"sample_rate {plan.sample_rate} is below {plan.batch_size} / {plan.dataset_size}, "
                "at which records are drawn: draws would cost more than is accounted"
            )
        clipper = CLIPPERS[plan.clipping](plan.max_grad_norm)
        return cls(sampler, clipper, plan.noise_multiplier, Adjacency(plan.adjacency))

    @property
    def event(self) -> SampledGaussian | None:
        """What a draw is to an accountant; None where nothing is private."""
        if not self.noise_multiplier:
            return None
        return SampledGaussian(self.noise_multiplier, self.sampler.rate)

    def layout(self, ranks: int, rows: int | None = None) -> Layout:
        """Return the slots of a step on so many ranks.

        Parameters
        ----------
        rows
            P, or None for the least that needs no more micro-batches than 512 rows would.
        """
        quantile = self.sampler.quantile
        rows = rows or draws.physical_batch_size(quantile, ranks)
        return Layout(ranks, draws.micro_batches(quantile, ranks, rows), rows)

    def noise(self, coordinates: int, layout: Layout) -> Lattice | None:
        """Return the noise of a model of so many trainable coordinates; None where there is none.

        Parameters
        ----------
        coordinates
            d.
        layout
            How a step adds up a draw.

        Raises
        ------
        ValueError
            What the sum and the lattice round is not covered by the clip; see `Roundings`.
        """
        if not self.noise_multiplier:
            return None
        sensitivity = self.clipper.sensitivity(self.adjacency)
        lattice = Lattice(self.noise_multiplier, sensitivity, coordinates)
        Roundings(lattice, layout, self.sampler.quantile).check()
        return lattice
