"""What a rank and its supervisor send one another through their pipe.

Nothing in it is of the private data (Rule 19).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtjob_accounting.limits import Segment
from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import EndKind
from dtjob_api.wire.worker_report import ReportedCheckpoint, WorkerState


@dataclass(frozen=True)
class Spending:
    """What the epsilon of the charged draws is computed from.

    Attributes
    ----------
    guaranteed
        The plan's bound for all reserved draws, where it has one.
    """

    segments: Sequence[Segment]
    delta: float
    guaranteed: float | None


@dataclass(frozen=True)
class Progress:
    """Where a rank is, and all that it has reported before; None is what it never knew.

    Attributes
    ----------
    step_estimate
        The longest that a step may take, in seconds, by the dry run.
    evaluation
        The task's public figures, and the step that they are of.
    charged, spending
        Of the coordinator alone; without privacy there is no spending.
    """

    state: WorkerState = WorkerState.STARTING
    stage: str = "starting"
    step: int = 0
    step_estimate: float | None = None
    samples_per_second: float | None = None
    evaluation: Mapping[str, float] | None = None
    checkpoint: ReportedCheckpoint | None = None
    charged: int | None = None
    spending: Spending | None = None


@dataclass(frozen=True)
class RankEnd:
    """A rank's last message."""

    kind: EndKind
    reason: Reason
    message: str


@dataclass(frozen=True)
class Drain:
    """The order to stop at the next step boundary."""


@dataclass(frozen=True)
class Epsilon:
    """Epsilon of the charged draws, as a decimal rounded up."""

    charged: int
    value: str


FromRank = Progress | RankEnd
ToRank = Drain | Epsilon
