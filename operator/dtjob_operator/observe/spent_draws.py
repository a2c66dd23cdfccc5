"""The draws of a ledger that epsilon is asked of."""

from __future__ import annotations

from dataclasses import dataclass

from dtjob_accounting.limits import Segment
from dtjob_api.ledger.proven import proven_draws
from dtjob_operator.terms.kinds import Json


@dataclass(frozen=True, slots=True)
class SpentDraws:
    """Draws by noise multiplier and sample rate, and the delta of their epsilon."""

    segments: tuple[Segment, ...]
    delta: float

    @property
    def draws(self) -> int:
        """How many."""
        return sum(draws for _, _, draws in self.segments)


def spent_draws(ledger: Json) -> SpentDraws | None:
    """What is spent with privacy; None where nothing is.

    Draws that the checkpoint volume proves and the ledger has not charged (Rule 11) are spent as
    well, before anybody raises the ledger: under the plan, since no draw was made with others.
    """
    plan, status = ledger["spec"]["plan"], ledger.get("status", {})
    delta = plan.get("delta")
    segments = [
        (segment["noiseMultiplier"], segment["sampleRate"], segment["draws"])
        for segment in status.get("segments", ())
        if segment["draws"] and "noiseMultiplier" in segment and "sampleRate" in segment
    ]
    beyond = proven_draws(status) - sum(draws for _, _, draws in segments)
    if beyond > 0 and "noiseMultiplier" in plan and "sampleRate" in plan:
        segments.append((plan["noiseMultiplier"], plan["sampleRate"], beyond))
    if delta is None or not segments:
        return None
    return SpentDraws(tuple(segments), delta)


def guaranteed(ledger: Json, charged: SpentDraws) -> float | None:
    """What the plan guarantees of all reserved draws; None where others were made, or more."""
    plan = ledger["spec"]["plan"]
    planned = plan.get("noiseMultiplier"), plan.get("sampleRate")
    if any((sigma, rate) != planned for sigma, rate, _ in charged.segments):
        return None
    reserved = plan.get("steps", 0) + plan.get("replayReserveSteps", 0)
    return plan.get("epsilonGuaranteed") if charged.draws <= reserved else None
