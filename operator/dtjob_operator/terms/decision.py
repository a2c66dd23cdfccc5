"""What is decided about one job, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dtjob_api.reasons import Reason
from dtjob_operator.terms.kinds import Json


@dataclass(frozen=True)
class Finding:
    """What keeps a job from running: a reason, and what, where and the remedy in a message."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class ObjectRef:
    """One object of the job's namespace; `uid` is the precondition of whatever is done to it.

    Attributes
    ----------
    by_force
        Whether it is deleted though nobody reports that it has ended.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    by_force: bool = False


@dataclass(frozen=True)
class Event:
    """A core/v1 Event to record on the job.

    Attributes
    ----------
    about
        What of the message distinguishes it from the last of its reason; None: all of it.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    about: str | None = None

    @property
    def identity(self) -> tuple[str, str, str]:
        """What distinguishes it from another Event of the same job."""
        return self.type, self.reason, self.about or self.message


@dataclass(frozen=True)
class Decision:
    """What to do about one job now.

    Attributes
    ----------
    applies
        Whole desired objects for server-side apply, in this order, only those that are missing or
        have drifted. One that exists carries its `metadata.uid`; one without a uid must be absent
        (if it is not, the API server knows an object that was not observed: look again).
    deletes
        Objects to delete before applying, each with its uid as the precondition.
    status
        The whole desired `status` of the job; equal to the stored one when nothing is to be
        written. Written after the applies.
    events
        To record before the status is written.
    wake_after
        Seconds until the job should be looked at again although nothing changed; None: not.
    """

    applies: tuple[Json, ...] = ()
    deletes: tuple[ObjectRef, ...] = ()
    status: Json | None = None
    events: tuple[Event, ...] = ()
    wake_after: float | None = None
