"""What keeps a job from running, as its owner is told."""

from __future__ import annotations

from dataclasses import dataclass

from dtjob_api.reasons import Reason


@dataclass(frozen=True)
class Finding:
    """A reason, and a message that says what, where and the remedy."""

    reason: Reason
    message: str
