"""What rounding may add to what a record changes, and the slack of the clip for it (Rules 4, 7).

C is the sensitivity, C' = C(1 − 2⁻¹⁰) the norm that gradients are clipped to, d the coordinates,
u = 2⁻²⁴ and v = 2⁻⁵³ the unit roundoffs of fp32 and fp64. A sum of n products in any order, with
or without fused multiply-adds, is off by at most γₙ = nu/(1 − nu) of the sum of their absolute
values (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1). What a
processor flushes to zero is below 2⁻¹²⁶.

The sums of neighbours have equal rows in all places but one: there one of them has the record's
row f·g, the other zero. Exact sums would differ by ‖f·g‖. `Roundings` bounds, one by one, by how
much more than C' the rounded ones can differ:

norm
    ‖f·g‖ over C'. A chain of 256 squares is off by γ₂₅₆, its root by u more, the sum of chains
    and its root by less than dv + 2v, the quotient C'/n̂ by v and its cast to fp32 by u. Squares
    that are flushed are 2⁻¹²⁶d in all: f²‖g‖² <= C'²(1 + 131u + dv)² + 2⁻¹²⁶d. As γ₂₅₆/2 + 2u is
    130.01u, the rest of 131u is left for this very computation, and for what chains flush.
chains
    The record's chain has r = `CHAIN_ROWS` rows of norm at most C. By coordinate it is off by γᵣ
    of Σ|fᵢgᵢⱼ|, which makes γᵣ·r·C in L2 norm (Σᵢ fᵢ‖gᵢ‖ <= rC), and by 2r flushed numbers, which
    make 2⁻¹²⁰√d. This is true of either neighbour. All other chains are equal.
sums
    Later numbers are fp64, and all of them may round anew. The chains of the record's micro-batch
    are added up in ⌈P/r⌉ additions to sums of norm at most P·C. A rank adds up at most 2M
    micro-batches, and W − 1 additions join the ranks: to sums of norm at most |S|·C. A draw S of
    more than 2Q records is rarer than any δ; one of up to 2Q takes at most 2M micro-batches.
lattice
    Two numbers that are rounded to multiples of g differ by up to g more than before.

Not of fp32, and so excluded by `contraction`: TF32 and products of several bf16 terms. The
algorithms of Strassen and Winograd, for which γₙ doesn't hold either, and Fourier transforms are
those of large products and convolutions; a row of weights times a block of rows has no use for
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dtjob_trainer.mechanism.contraction import CHAIN_ROWS, NORM_BLOCK
from dtjob_trainer.mechanism.noise import Lattice
from dtjob_trainer.mechanism.records.scatter import Layout

# The part of C that clipping leaves free for rounding.
CLIP_SLACK = 2.0**-10
_FP32 = 2.0**-24
_FP64 = 2.0**-53
_FLUSHED = 2.0**-126


def clipped_norm(max_grad_norm: float) -> float:
    """The norm that examples are clipped to: C(1 − 2⁻¹⁰) (Rule 4)."""
    return max_grad_norm * (1 - CLIP_SLACK)


@dataclass(frozen=True)
class Roundings:
    """What rounding adds at most to ‖sum(D) − sum(D')‖ of neighbours, in parts.

    The module's text has their proofs.

    Parameters
    ----------
    lattice
        Has C, σ and d.
    layout
        Has P, M and W.
    quantile
        Q, the records that a draw has up to but for a small probability.
    """

    lattice: Lattice
    layout: Layout
    quantile: int

    @property
    def parts(self) -> dict[str, float]:
        """L2 norms by the names of the module's text."""
        norm, coordinates = self.lattice.sensitivity, self.lattice.coordinates
        rows, ranks = self.layout.rows, self.layout.ranks
        of_micro_batch = math.ceil(rows / CHAIN_ROWS) * rows
        of_draw = (2 * self.layout.micro_batches + ranks) * 2 * self.quantile
        return {
            "norm": norm * ((NORM_BLOCK / 2 + 3) * _FP32 + coordinates * _FP64)
            + coordinates * _FLUSHED / (2 * clipped_norm(norm)),
            "chains": norm * 2 * _gamma(CHAIN_ROWS) * CHAIN_ROWS,
            "sums": norm * 2 * (of_micro_batch + of_draw) * _FP64,
            "lattice": self.lattice.grid * math.sqrt(coordinates),
        }

    @property
    def total(self) -> float:
        """All of them together."""
        return math.fsum(self.parts.values())

    def check(self) -> None:
        """Refuse what the slack of the clip does not cover.

        Raises
        ------
        ValueError
            Has the parts, and what makes the largest that a job can change smaller.
        """
        norm = self.lattice.sensitivity
        if self.total <= norm - clipped_norm(norm):
            return
        parts = self.parts
        largest = max(("norm", "sums", "lattice"), key=parts.__getitem__)
        listed = ", ".join(f"{name} {value / norm:.2g}" for name, value in parts.items())
        raise ValueError(
            f"{self._remedies[largest]}. Else rounding may add {self.total / norm:.2g} of "
            f"maxGradNorm to what a record changes ({listed}), and clipping leaves "
            f"{CLIP_SLACK:.2g} of it for that"
        )

    @property
    def _remedies(self) -> dict[str, str]:
        lattice, layout = self.lattice, self.layout
        return {
            "norm": f"maxGradNorm {lattice.sensitivity:g} is too small for {lattice.coordinates} "
            "coordinates: raise it, or train fewer parameters",
            "sums": f"batches of {self.quantile} records, {layout.rows} at once, are too large "
            f"for {layout.ranks} ranks: lower batchSize or physicalBatchSize, or train on more",
            "lattice": f"noiseMultiplier {lattice.noise_multiplier:g} is too large for "
            f"{lattice.coordinates} coordinates: lower it (by a larger epsilon, where it follows "
            "from that), or train fewer parameters, until noiseMultiplier·√coordinates is 2¹⁹",
        }


def _gamma(terms: int) -> float:
    return terms * _FP32 / (1 - terms * _FP32)
