"""What a plan means to a person in the data: the figures of a privacy report (rule 23).

All follow from the privacy profile, δ as a function of ε, of the draws that were made. None
rests on an approximation of the composition, such as Gaussian DP by the central limit theorem.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dtjob_accounting import draws
from dtjob_accounting.limits import Segment
from dtjob_accounting.rounding import round_up

Profile = Sequence[tuple[float, float]]
"""Points (ε, δ(ε)), ε >= 0: the mechanism is (ε, δ)-DP at each of them."""

FALSE_POSITIVE_RATE = 0.01
GROUP_SIZES = (2, 5)

# Where the profile is evaluated: every bound holds at any ε, the best is looked for.
_EPSILONS = (0.0, *(1e-4 * 1.03**i for i in range(468)))


class ProfileAccountant(Protocol):
    """What a report asks of an accountant: the module `pld`."""

    def profile(self, segments: Sequence[Segment], epsilons: Sequence[float]) -> list[float]:
        """Return an upper bound of δ at each ε, without what overflow takes of a job's δ."""

    def group_epsilon(self, segments: Sequence[Segment], delta: float, group_size: int) -> float:
        """Return an upper bound of ε at δ for a group of records."""


@dataclass(frozen=True)
class Figures:
    """Figures of a privacy report; an ε that is infinite means "no protection is claimed".

    Attributes
    ----------
    attack_tpr
        No test that decides whether a given record was used, and is wrong in at most
        `attack_fpr` of the cases where it was not, finds more than this share of those where it
        was. An upper bound over all attackers.
    attack_fpr
        That false-positive rate, 0.01.
    replace_one_epsilon, delta
        (ε, δ) when one record is exchanged for another instead of added or removed.
    group_epsilon
        For a person with k records: k → ε at `delta`.
    """

    attack_tpr: float
    attack_fpr: float
    replace_one_epsilon: float
    group_epsilon: dict[int, float]
    delta: float


def figures(
    segments: Sequence[Segment],
    delta: float,
    accountant: ProfileAccountant,
    group_sizes: Iterable[int] = GROUP_SIZES,
) -> Figures:
    """Return the report's figures after all segments (σ, q, draws).

    What draws that overflow their slots may tell comes on top of the profile (rule 8), and where a
    record is exchanged no more than once: such draws are set aside before ε is doubled.

    Raises
    ------
    PlanError
        When an argument lies outside what is supported.
    """
    profile = list(zip(_EPSILONS, accountant.profile(segments, _EPSILONS), strict=True))
    overflow = draws.overflow_delta(delta)
    whole = [(e, d + overflow) for e, d in profile]
    return Figures(
        attack_tpr=attack_true_positive_rate(whole, FALSE_POSITIVE_RATE),
        attack_fpr=FALSE_POSITIVE_RATE,
        replace_one_epsilon=replace_one_epsilon(profile, delta - overflow),
        group_epsilon={k: accountant.group_epsilon(segments, delta, k) for k in group_sizes},
        delta=delta,
    )


def attack_true_positive_rate(profile: Profile, false_positive_rate: float) -> float:
    """Return the largest true-positive rate that any test can have at this false-positive rate.

    Each point (ε, δ) of the profile bounds it by e^ε·FPR + δ and, for the complementary test, by
    1 - e^-ε·(1 - δ - FPR): Wasserman and Zhou 2010; Kairouz, Oh, Viswanath 2015, theorem 2.1;
    Dong, Roth, Su, "Gaussian Differential Privacy", proposition 2.12, by which the whole profile
    determines the trade-off. The least over all points is far below that of the single (ε, δ) of
    the job's target. Rounded up to 4 digits.
    """
    bound = 1.0
    for epsilon, delta in profile:
        accepted = math.exp(min(epsilon, 700.0)) * false_positive_rate + delta
        rejected = 1 - math.exp(-epsilon) * (1 - delta - false_positive_rate)
        bound = min(bound, accepted, rejected)
    return min(1.0, round_up(bound, 4))


def replace_one_epsilon(profile: Profile, delta: float) -> float:
    """Return ε at δ for exchanging one record: an addition after a removal.

    Two neighbours at (ε, δ₁) each are (2ε, (1 + e^ε)·δ₁) apart: P(A) <= e^ε·(e^ε·R(A) + δ₁) + δ₁.
    The least 2ε of the profile whose (1 + e^ε)·δ(ε) does not exceed δ; infinite if there is none.
    """
    return round_up(
        min(
            (2 * e for e, d in profile if (1 + math.exp(min(e, 700.0))) * d <= delta),
            default=math.inf,
        ),
        6,
    )
