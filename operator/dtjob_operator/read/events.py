"""core/v1 Events: those of each job's children, and the newest one about an object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from dtjob_api.model import timestamp
from dtjob_api.wire import positions
from dtjob_operator.terms import names
from dtjob_operator.terms.clocks import SKEW
from dtjob_operator.terms.kinds import CLAIM, POD, STATEFUL_SET, Json
from dtjob_operator.terms.observed import EventsByObject


def last_seen(event: Json) -> str:
    """When an Event last happened, as RFC 3339 in UTC, which sorts as text.

    Who records an Event dates it by a clock of its own, and the API server by its own when it is
    made, as it does pods. Where the first of these was ahead of the second, the last is put back by
    as much: it would else be newer than all that follows until that time has come.
    """
    created = event["metadata"].get("creationTimestamp") or ""
    first = event.get("firstTimestamp") or event.get("eventTime") or ""
    repeated = (event.get("series") or {}).get("lastObservedTime") or ""
    last: str = max(repeated, event.get("lastTimestamp") or "") or first
    # Never the other way: an Event that has expired is made anew with its first time of old.
    if created and first > created:
        first_at, created_at = datetime.fromisoformat(first), datetime.fromisoformat(created)
        lasted = datetime.fromisoformat(last) - first_at
        if first_at - created_at > SKEW and lasted >= timedelta(0):  # else it was put right since
            return timestamp(created_at + lasted)
    return max(last, created)


def by_child(events: Iterable[Json]) -> dict[str, EventsByObject]:
    """The Events of a namespace about StatefulSets, pods and claims, by the name of the children.

    They are sorted once for all jobs of the namespace. Those about other kinds are left out, and
    those about names that no job's children have.
    """
    found: defaultdict[str, defaultdict[tuple[str, str], list[Json]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for event in events:
        about = event["involvedObject"]
        kind, name = about.get("kind", ""), about.get("name", "")
        if child := _child(kind, name):
            found[child][kind, name].append(event)
    return {
        child: {
            about: tuple(sorted(each, key=last_seen, reverse=True))
            for about, each in by_object.items()
        }
        for child, by_object in found.items()
    }


def _child(kind: str, name: str) -> str | None:
    """The name of the children that an object of that kind and name is, or would be, one of."""
    if kind == STATEFUL_SET.name:
        return positions.child_of_set(name)
    if kind == POD.name:
        child = positions.child_of_set(name.rpartition("-")[0])
        return child if positions.position_of(child, name) is not None else None
    if kind == CLAIM.name:
        pod = name.partition("-")[2]
        child = pod.rpartition("-")[0]
        return child if names.claim_of(child) == name else None
    return None


def newest(events: EventsByObject, kind: str, name: str, reasons: Iterable[str]) -> Json | None:
    """The newest Event with one of `reasons` about an object."""
    about = events.get((kind, name), ())
    return next((event for event in about if event.get("reason", "") in reasons), None)
