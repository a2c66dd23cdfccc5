"""core/v1 Events: the newest one about an object."""

from __future__ import annotations

from collections.abc import Iterable

from dtjob_operator.terms.kinds import Json


def last_seen(event: Json) -> str:
    """When an Event last happened, as RFC 3339 in UTC, which sorts as text."""
    times = (
        (event.get("series") or {}).get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return max((at for at in times if at), default="")


def newest(events: Iterable[Json], kind: str, name: str, reasons: Iterable[str]) -> Json | None:
    """The newest event with one of `reasons` about an object."""
    return next(
        (
            event
            for event in events
            if event["involvedObject"].get("kind") == kind
            and event["involvedObject"].get("name") == name
            and event.get("reason", "") in reasons
        ),
        None,
    )
